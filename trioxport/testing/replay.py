"""Plays the other side of a conversation that a :class:`~trioxport.layers.Tap` recorded."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any, Final

import attrs
import trio
from trio.abc import SendChannel

from trioxport._diagnostics.message_redaction import Redaction
from trioxport.abc import Acceptor, ConnectionSettings, FrameChannels, Scope
from trioxport.codecs.json import JSON
from trioxport.errors import ConnectError, ConnectionLost, TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Message, Notification, Request, RequestId, Response
from trioxport.protocol import CANCELLED, PROGRESS, SUBSCRIPTION, members_of, meta_of
from trioxport.testing.recording import Line, alike, decoded, equal, order, read

_SHOWN: Final = 200
"""Characters of a message in an error."""


@attrs.frozen
class Replay:
    """A peer made of a tap's file: a target for ``open_transport``, or for ``serve_transport``.

    Each time it is opened it plays the next connection of the file, and of the older files that rotation left. What had
    been received comes again as soon as what was sent before it is sent again: what a server's tap recorded plays the
    client, and what a client's recorded plays the server. Ids may differ from the recorded ones, as may progress tokens
    and trace contexts; a value that a redacted tap hid matches any other. It does not keep the recorded pauses. Served,
    it plays all connections one after the other, and is over then.

    Args:
        path: The file.
        strict: Whether to send exactly what was sent, in the same order; anything else, and leaving before the end,
            is a ``ConnectionLost`` that says what was expected. Otherwise a request gets the answer to the first
            recorded one that is the same, or else has the same method; one of an unrecorded method comes back
            ``Undelivered``; other messages may be missing, or more.

    Raises:
        UsageError: On opening: the file cannot be read, or is no recording with the connection's codec.
        ConnectError: On opening: it holds no more connections.
    """

    path: str
    strict: bool = attrs.field(default=True, kw_only=True)
    _numbers: count[int] = attrs.field(factory=count, init=False, repr=False, eq=False)

    def __str__(self) -> str:
        return f"replay:{self.path}"

    def __call__(self, scope: Scope) -> AbstractAsyncContextManager[FrameChannels]:
        return self._play(next(self._numbers), scope)

    async def listen(
        self, acceptor: Acceptor, settings: ConnectionSettings, *, task_status: trio.TaskStatus[list[str]]
    ) -> None:
        """Play each connection to a handler."""
        connections = len(await read(self.path))
        task_status.started([])
        for _ in range(connections):
            await acceptor.serve(self)

    @asynccontextmanager
    async def _play(self, number: int, scope: Scope) -> AsyncGenerator[FrameChannels]:
        recorded = await read(self.path)
        if number >= len(recorded):
            raise ConnectError(f"the recording holds {len(recorded)} connections, no more", retryable=False)
        lines = decoded(recorded[number], scope.settings.codec)
        # What can wait in it is bounded: by the recording, and by the requests that the application has in flight.
        to_application, received = trio.open_memory_channel[Frame](math.inf)
        play = _Play(lines, scope, to_application, self.strict)
        with to_application, received:
            play.begin()
            yield FrameChannels(_PlaySend(play), received)


class _Play:
    """One connection that is played."""

    def __init__(self, lines: list[Line], scope: Scope, out: trio.MemorySendChannel[Frame], strict: bool) -> None:
        self._scope = scope
        self._out = out
        self._strict = strict
        self._expected = {number: message for number, (sent, message) in enumerate(lines) if sent}
        self._after = order(lines, strict)
        self._ids: dict[RequestId, RequestId] = {}
        self._tokens: dict[RequestId, RequestId] = {}
        self._theirs = [message.id for sent, message in lines if not sent and isinstance(message, Request)]

    def begin(self) -> None:
        self._release(-1)

    def take(self, frame: Frame) -> None:
        """Something is sent: what was received after it comes."""
        message = frame.message
        assert message is not None
        number = self._matching(message)
        if number is not None:
            recorded = self._expected.pop(number)
            if isinstance(message, Request) and isinstance(recorded, Request):
                self._ids[recorded.id] = message.id
                self._note_token(recorded, message)
            self._release(number)
        elif self._strict:
            self._refuse(f"{_shown(message)} was sent, and the recording {self._goes_on()}")
            raise trio.BrokenResourceError
        elif isinstance(message, Request):
            error = TransportError(f"the recording has no {message.method}", outcome="not_sent")
            self._out.send_nowait(Frame(frame.payload, message, error=error))

    def end(self) -> None:
        """Nothing more is sent."""
        if self._strict and self._expected:
            self._refuse(f"the connection was left, and the recording {self._goes_on()}")
        else:
            self._leave()

    def _refuse(self, reason: str) -> None:
        self._scope.lost(ConnectionLost(reason, retryable=False))
        self._out.close()

    def _goes_on(self) -> str:
        if not self._expected:
            return "is over"
        return f"goes on with {_shown(next(iter(self._expected.values())))}"

    def _matching(self, message: Message) -> int | None:
        """The recorded line that ``message`` is."""
        if self._strict:
            number = next(iter(self._expected), None)
            return number if number is not None and self._same(self._expected[number], message) else None
        possible = [number for number, recorded in self._expected.items() if alike(recorded, message)]
        exact = (number for number in possible if self._same(self._expected[number], message))
        return next(exact, possible[0] if possible else None)

    def _same(self, recorded: Message, message: Message) -> bool:
        if not alike(recorded, message):
            return False
        if isinstance(recorded, Request | Notification) and isinstance(message, Request | Notification):
            params = members_of(recorded.params)
            if recorded.method == CANCELLED:
                params = {**params, "requestId": _now(params.get("requestId"), self._ids)}
            return equal(params or recorded.params, message.params)
        if isinstance(recorded, Response) and isinstance(message, Response):
            return equal(recorded.result, message.result)
        assert isinstance(recorded, ErrorResponse) and isinstance(message, ErrorResponse)
        return recorded.code == message.code and equal(recorded.data, message.data)

    def _note_token(self, recorded: Request, message: Request) -> None:
        token, now = (meta_of(request.params).get("progressToken") for request in (recorded, message))
        if isinstance(token, str | int) and isinstance(now, str | int):
            self._tokens[token] = now

    def _release(self, number: int) -> None:
        for message in self._after.get(number, ()):
            self._out.send_nowait(Frame(self._scope.settings.codec.encode(self._renamed(message))))
        if not self._expected and self._scope.settings.role == "server":  # a client that has all its answers leaves
            self._leave()

    def _leave(self) -> None:
        self._scope.peer_done()
        self._out.close()

    def _renamed(self, message: Message) -> Message:
        """A recorded message with the ids of now."""
        if isinstance(message, Response | ErrorResponse):
            return message if message.id is None else attrs.evolve(message, id=_now(message.id, self._ids))
        if isinstance(message, Request) or not isinstance(message.params, Mapping):
            return message
        params = dict(message.params)
        if message.method == PROGRESS:
            params["progressToken"] = _now(params.get("progressToken"), self._tokens)
        elif message.method == CANCELLED and params.get("requestId") not in self._theirs:
            params["requestId"] = _now(params.get("requestId"), self._ids)
        meta = meta_of(params)
        if SUBSCRIPTION in meta:
            params["_meta"] = {**meta, SUBSCRIPTION: _now(meta[SUBSCRIPTION], self._ids)}
        return attrs.evolve(message, params=params)


def _now(recorded: Any, names: Mapping[RequestId, RequestId]) -> Any:
    """The present id or token in place of a recorded one."""
    return names.get(recorded, recorded) if isinstance(recorded, str | int) else recorded


def _shown(message: Message) -> str:
    text = JSON.encode(Redaction.of(()).message(message)).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _PlaySend(SendChannel[Frame]):
    def __init__(self, play: _Play) -> None:
        self._play = play
        self._closed = False

    async def send(self, value: Frame) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        await trio.lowlevel.checkpoint()
        self._play.take(value)

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._play.end()
        await trio.lowlevel.checkpoint()
