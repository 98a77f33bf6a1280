"""The two sides of a translation: messages for the server, and messages for the client.

A translation works where its channels are used: it reads from the server in ``receive``, without a task of its own that
reads ahead, so that an end or a loss of the connection is raised where the client sees it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias

import trio
from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.states import Signal
from trioxport._diagnostics import logger
from trioxport.abc import MessageChannels, Scope
from trioxport.errors import ConnectionLost, ProtocolViolation, TransportError
from trioxport.messages import ErrorResponse, Incoming, Message, Request, Response

MAX_POSTED: Final = 1024
"""Messages that wait until the server takes them; a server that reads nothing gets no more answers."""

AskServer: TypeAlias = Callable[[str, Mapping[str, Any], Callable[[Response | ErrorResponse], object]], object]
"""Sends a request of a translation's own, and calls a function with its answer."""

Failed: TypeAlias = Callable[[TransportError], object]


def _ignore_failure(_error: TransportError) -> None:
    """Do nothing: the end of the connection settles everything that this message was about."""


class Link:
    """The channels to the server below a translation, and the messages for the client that it has made.

    Attributes:
        held: The function of :meth:`hold`, until it is called.
    """

    def __init__(self, channels: MessageChannels, scope: Scope) -> None:
        self.scope = scope
        self._tx, self._rx = channels
        self._ready: deque[Incoming] = deque()
        self._max_ready = max(1, scope.settings.limits.max_buffered_messages)
        self._receiving: set[trio.CancelScope] = set()
        self._posted: deque[tuple[Message, Failed]] = deque()
        self._changed = Signal()
        self.held: Callable[[], object] | None = None

    @property
    def target(self) -> str:
        return self.scope.settings.target

    # Towards the client.

    def give(self, message: Incoming) -> None:
        """Have ``receive`` return ``message``."""
        self._ready.append(message)
        self.wake()

    def wake(self) -> None:
        """Have each ``receive`` that waits look again."""
        for scope in self._receiving:
            scope.cancel()

    @property
    def has_ready(self) -> bool:
        """Whether there is a message for the client."""
        return bool(self._ready)

    def hold(self, release: Callable[[], object]) -> None:
        """Have ``release`` called once the server has nothing more to say at this moment."""
        self.held = release
        self.wake()

    def take_ready(self) -> Incoming | None:
        """The next message for the client; None if there is none."""
        if not self._ready:
            return None
        self._changed.notify()
        return self._ready.popleft()

    async def wait_for_room(self) -> None:
        """Wait until the client and the server have taken enough of the messages that were made for them."""
        while len(self._ready) >= self._max_ready or len(self._posted) >= MAX_POSTED:
            await self._changed.wait()

    async def receive(self, *, waits: bool) -> Incoming | None:
        """The server's next message; None when there is something else to do, or nothing is there and it may not wait.

        Raises the end or the loss of the connection.
        """
        with trio.CancelScope() as scope:
            if not waits:  # an expired deadline still lets receive() return a message that is there
                scope.deadline = trio.current_time()
            self._receiving.add(scope)
            try:
                return await self._rx.receive()
            finally:
                self._receiving.discard(scope)
        return None

    # Towards the server.

    async def send(self, message: Message) -> None:
        """Send a message of the client."""
        await self._tx.send(message)

    def post(self, message: Message, failed: Failed = _ignore_failure) -> None:
        """Send a message of the translation's own, in a task; ``failed`` takes the error of one that is not sent."""
        self._posted.append((message, failed))
        if len(self._posted) == 1 and not self.start(self._send_posted):
            self._drop_posted()

    async def posted(self) -> None:
        """Wait until everything posted is sent, or has failed."""
        while self._posted:
            await self._changed.wait()

    def refuse(self, request: Request, code: int, reason: str) -> None:
        """Answer a request of the server by an error."""
        logger.debug("%s: %s is refused: %s", self.target, request.method, reason)
        self.answer(request, ErrorResponse(request.id, code, reason))

    def answer(self, request: Request, answer: Response | ErrorResponse) -> None:
        """Answer a request of the server, if the server takes answers."""
        if len(self._posted) < MAX_POSTED:
            self.post(answer)
        else:
            self.scope.discard(ProtocolViolation(f"a request ({request.method}) of a server that takes no answers"))

    def start(self, task: Callable[..., Awaitable[object]], *args: Any) -> bool:
        """Run a task until the connection ends. Returns False if it has ended."""
        try:
            self.scope.start_soon(task, *args)
        except RuntimeError:
            return False
        return True

    async def aclose_send(self) -> None:
        """Close the channel to the server, once everything posted is sent."""
        await self.posted()
        await self._tx.aclose()

    async def aclose_receive(self) -> None:
        await self._rx.aclose()

    async def _send_posted(self) -> None:
        try:
            while self._posted:
                message, failed = self._posted[0]
                try:
                    await self._tx.send(message)
                except TransportError as error:
                    failed(error)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    failed(self._not_sent("the client has closed its side"))
                self._posted.popleft()
                self._changed.notify()
        finally:
            self._drop_posted()

    def _drop_posted(self) -> None:
        """Give up what is not sent, since the connection is over."""
        while self._posted:
            self._posted.popleft()[1](self._not_sent("the connection is over"))
        self._changed.notify()

    def _not_sent(self, reason: str) -> ConnectionLost:
        return ConnectionLost(reason, target=self.target, outcome="not_sent")


class Translation(Protocol):
    """The conversation between a client of one era and a server of the other."""

    @property
    def link(self) -> Link: ...

    async def send(self, message: Message) -> None:
        """Take a message of the client. Raises what ``send`` of the channel to the server raises."""
        ...

    def take(self, message: Incoming) -> None:
        """Take a message of the server."""
        ...

    def end(self, loss: TransportError, *, in_order: bool) -> None:
        """Settle the client's requests that nothing will answer, since the connection is over.

        Args:
            loss: The reason.
            in_order: Whether the server has ended the connection, and did not lose it.
        """
        ...

    async def aclose(self) -> None:
        """Take no more messages of the client."""
        ...


class TranslatedSend(SendChannel[Message]):
    """The channel to the presented server."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._closed = False

    async def send(self, value: Message) -> None:
        if self._closed:
            raise trio.ClosedResourceError
        await self._translation.link.wait_for_room()
        await self._translation.send(value)

    async def aclose(self) -> None:
        self._closed = True
        await self._translation.aclose()


class TranslatedReceive(ReceiveChannel[Incoming]):
    """The channel from the presented server."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._link = translation.link

    async def receive(self) -> Incoming:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            message = self._link.take_ready()
            if message is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return message
            await self._read()

    async def _read(self) -> None:
        """Take one message of the server, or settle what the end of the connection leaves unanswered, or raise that."""
        held = self._link.held
        try:
            message = await self._link.receive(waits=held is None)
        except (trio.EndOfChannel, TransportError) as end:
            self._settle(end)
            if not self._link.has_ready:
                raise
            return
        if message is not None:
            self._translation.take(message)
        elif held is not None:
            self._link.held = None
            held()

    def _settle(self, end: trio.EndOfChannel | TransportError) -> None:
        in_order = isinstance(end, trio.EndOfChannel)
        ended = ConnectionLost("the server ended the connection before it answered", target=self._link.target)
        self._translation.end(end if isinstance(end, TransportError) else ended, in_order=in_order)

    async def aclose(self) -> None:
        await self._link.aclose_receive()
