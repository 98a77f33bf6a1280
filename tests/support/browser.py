"""A browser without a window, from the npm package ``@sparticuz/chromium``, which ``./tests/run`` installs.

It is driven by the Chrome DevTools Protocol.
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import brotli  # type: ignore[import-untyped]  # it has no stubs
import trio
from websockets.trio.client import ClientConnection, connect

CHROMIUM: Final = Path(__file__).parents[1] / "peers/node_modules/@sparticuz/chromium/bin"


@contextmanager
def unpacked_chromium() -> Generator[list[str]]:
    """The command that runs the browser; options and the address of a page come behind it."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Path(folder, "chromium")
        browser.write_bytes(brotli.decompress((CHROMIUM / "chromium.br").read_bytes()))
        browser.chmod(0o700)
        for archive in ("al2023", "swiftshader", "fonts"):
            packed = brotli.decompress((CHROMIUM / f"{archive}.tar.br").read_bytes())
            with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
                tar.extractall(folder, filter="data")
        libraries = f"LD_LIBRARY_PATH={folder}/lib"
        options = "--headless=shell --no-sandbox --no-zygote --no-first-run --single-process --in-process-gpu"
        graphics = "--use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --ignore-gpu-blocklist"
        profile = f"--user-data-dir={folder}/profile"
        yield ["env", f"HOME={folder}", libraries, str(browser), profile, *options.split(), *graphics.split()]


class Page:
    """A page in the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._session: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        """The events of the browser that came so far, with ``method`` and ``params``."""

    async def attach(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params, **self._session}))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("id") == number:
                assert "result" in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    async def open(self, url: str) -> None:
        """Open an address, and wait until the page is loaded."""
        self.events.clear()
        await self.call("Page.navigate", url=url)
        while not self.named("Page.loadEventFired"):
            self.events.append(json.loads(await self._socket.recv()))

    async def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    async def screenshot(self) -> bytes:
        """The whole page as PNG."""
        taken = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    def named(self, method: str) -> list[dict[str, Any]]:
        """The events of a kind that came so far."""
        return [event for event in self.events if event.get("method") == method]


@asynccontextmanager
async def open_browser(command: list[str]) -> AsyncGenerator[Page]:
    """Run the browser for the time of a block."""
    process = await trio.lowlevel.open_process(
        [*command, "--remote-debugging-port=0", "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            address = await nursery.start(_drain, process.stderr)
            async with connect(address, max_size=None, proxy=None) as socket:
                page = Page(socket)
                await page.attach()
                yield page
            nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
            await process.wait()
            await process.stderr.aclose()


async def _drain(stderr: trio.abc.ReceiveStream, *, task_status: trio.TaskStatus[str]) -> None:
    """Report the address of the protocol, and read what else the browser writes."""
    text = b""
    reported = False
    async for chunk in stderr:
        text = (text + chunk)[-10_000:] if not reported else b""
        if not reported and b"DevTools listening on " in text and text.endswith(b"\n"):
            reported = True
            task_status.started(text.partition(b"DevTools listening on ")[2].split()[0].decode())
