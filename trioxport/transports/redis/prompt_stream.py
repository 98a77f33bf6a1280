"""An unencrypted connection to Redis as a byte stream of anyio, with fewer steps for each read and write."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import anyio
import trio
from anyio.abc import ByteStream

from trioxport.transports._prompt_socket import PromptSocket


class PromptByteStream(ByteStream):
    """``stream``, for a client library that runs on anyio; closing it closes ``stream``."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = PromptSocket(stream)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        with _errors_of_anyio():
            data = await self._socket.receive_some()
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        rest = memoryview(item)[self._socket.send_now(item) :]
        if rest:
            with _errors_of_anyio():
                await self._stream.send_all(rest)

    async def send_eof(self) -> None:
        with _errors_of_anyio():
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextmanager
def _errors_of_anyio() -> Generator[None]:
    try:
        yield
    except trio.BrokenResourceError as error:
        raise anyio.BrokenResourceError from error
    except trio.ClosedResourceError as error:
        raise anyio.ClosedResourceError from error
