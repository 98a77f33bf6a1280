"""The person: the browser, the redirect to a listener on loopback, and pages that are opened elsewhere."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from tests.support.authorization_server import REDIRECT
from trioxport import InteractionRequired, OAuthError, UsageError
from trioxport.auth.oauth import Browser, OutOfBand, open_browser
from trioxport.auth.oauth.loopback import MAX_HEAD, open_listener

PAGE = "https://as.test/authorize?state=1"


async def asked(answers: Sequence[bytes], registered: Sequence[str] = ()) -> tuple[str, list[bytes]]:
    """The URL that the listener returns, and its responses, when these requests arrive in turn."""
    responses = list[bytes]()

    async def show(_: str) -> None:
        port = int(consent.redirect_uri.split(":")[2].partition("/")[0])
        for each in answers:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                try:
                    await stream.send_all(each)
                    if not each.endswith(b"\r\n\r\n"):
                        await stream.send_eof()
                    responses.append(b"".join([chunk async for chunk in stream]))
                except trio.BrokenResourceError:
                    responses.append(b"")

    async with Browser(show=show).open(registered) as consent:
        return await consent.ask(PAGE), responses


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


async def test_the_first_request_for_the_path_is_the_redirect() -> None:
    url, responses = await asked(
        [get("/favicon.ico"), b"POST /callback HTTP/1.1\r\n\r\n", get("/callback?code=1&state=2")]
    )
    assert url.startswith("http://localhost:") and url.endswith("/callback?code=1&state=2")
    assert [each.split(b" ")[1] for each in responses] == [b"404", b"404", b"200"]
    page = responses[-1].decode()
    assert "You may close this page" in page
    for header in ("cache-control: no-store", "referrer-policy: no-referrer", "default-src 'none'"):
        assert header in page
    assert "code=1" not in page


@pytest.mark.parametrize("broken", [b"", b"GET", b"\r\n\r\n", b"GET x HTTP/1.1\r\n\r\n", b"a" * (MAX_HEAD + 10)])
async def test_what_is_no_request_is_answered_and_the_listener_goes_on(broken: bytes) -> None:
    url, _ = await asked([broken, get("/callback?code=1")])
    assert url.endswith("?code=1")


async def test_a_registered_port_is_used_again_if_it_is_free() -> None:
    async with open_listener((), "/callback") as first:
        uri = first.redirect_uri
    async with Browser().open([uri]) as again:
        assert again.redirect_uri == uri
        async with Browser().open([uri]) as other:
            assert other.redirect_uri != uri
    async with Browser(port=int(uri.split(":")[2].partition("/")[0])).open(()) as fixed:
        assert fixed.redirect_uri == uri
    async with Browser().open(["https://app.test/callback", "http://localhost/callback"]) as free:
        assert free.redirect_uri.startswith("http://localhost:")


async def test_without_a_port_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any, **__: Any) -> Any:
        await trio.lowlevel.checkpoint()
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(trio, "open_tcp_listeners", none)
    with pytest.raises(OAuthError, match="no port on loopback is free"):
        async with open_listener((), "/callback"):
            pass


async def test_a_machine_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = trio.open_tcp_listeners

    async def only_ipv4(port: int, *, host: str, backlog: int) -> Any:
        if ":" in host:
            raise OSError(99, "Cannot assign requested address")
        return await inner(port, host=host, backlog=backlog)

    monkeypatch.setattr(trio, "open_tcp_listeners", only_ipv4)
    url, _ = await asked([get("/callback?code=1")])
    assert url.endswith("?code=1")


async def test_a_person_who_does_not_come_back(autojump_clock: MockClock) -> None:
    async def show(_: str) -> None:
        await trio.lowlevel.checkpoint()

    async with Browser(show=show, timeout=5).open(()) as consent:
        autojump_clock.autojump_threshold = 0.05
        with pytest.raises(InteractionRequired, match="nothing came back from the browser within 5 s") as caught:
            await consent.ask(PAGE)
    assert caught.value.url == PAGE


async def test_a_failure_to_show_the_page_is_the_failure() -> None:
    async def show(url: str) -> None:
        await trio.lowlevel.checkpoint()
        raise InteractionRequired("no window", url=url)

    async with Browser(show=show).open(()) as consent:
        with pytest.raises(InteractionRequired, match="no window"):
            await consent.ask(PAGE)


# The browser.


class Opened(webbrowser.BaseBrowser):
    def __init__(self) -> None:
        super().__init__("x")
        self.pages: list[str] = []

    def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
        self.pages.append(url)
        return True


async def test_a_page_is_opened_in_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(webbrowser, "get", lambda: opened)
    await open_browser(PAGE)
    assert opened.pages == [PAGE]
    for bad in ("javascript:alert(1)", "file:///etc/passwd", "http://as.test/", "https://as.test/`id`", "https://a/ b"):
        with pytest.raises(OAuthError, match="is not opened"):
            await open_browser(bad)
    assert opened.pages == [PAGE]


async def test_a_machine_without_a_browser_needs_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> webbrowser.BaseBrowser:
        raise webbrowser.Error

    monkeypatch.setattr(sys, "platform", "linux")
    for get_browser in (none, lambda: webbrowser.GenericBrowser("lynx")):
        monkeypatch.setattr(webbrowser, "get", get_browser)
        with pytest.raises(InteractionRequired, match="no browser can be opened here") as caught:
            await open_browser(PAGE)
        assert caught.value.url == PAGE


async def test_on_macos_no_script_gets_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[Any]()

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", run)
    await open_browser(PAGE)
    assert ran == [["/usr/bin/open", PAGE]]


# Out of band.


async def test_a_person_copies_the_address(autojump_clock: MockClock) -> None:
    async def prompt(url: str) -> str:
        return f"{REDIRECT}?code={len(url)}"

    async with OutOfBand(REDIRECT, prompt).open(()) as consent:
        assert (consent.redirect_uri, await consent.ask(PAGE)) == (REDIRECT, f"{REDIRECT}?code={len(PAGE)}")

    async def never(_: str) -> str:
        await trio.sleep_forever()
        raise AssertionError

    async with OutOfBand(REDIRECT, never, timeout=9).open(()) as consent:
        with pytest.raises(InteractionRequired, match="no answer within 9 s"):
            await consent.ask(PAGE)
    with pytest.raises(UsageError, match="redirect URI cannot be used"):
        OutOfBand("http://app.test/cb")


async def test_a_real_client_is_redirected_to_localhost() -> None:
    async def show(url: str) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"{consent.redirect_uri}?code=7")
            assert response.status_code == 200

    async with Browser(show=show).open(()) as consent:
        assert (await consent.ask(PAGE)).endswith("?code=7")
