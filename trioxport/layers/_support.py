"""Helpers that several layers share: channels that transform each item, and the ends of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from trio.abc import ReceiveChannel, SendChannel

from trioxport._core.interruption import Interruptible, interrupt_of
from trioxport.messages import ErrorResponse, Incoming, Message, RequestId, Response
from trioxport.protocol import LISTEN, cancelled_id

Item = TypeVar("Item")


def _ignore_refusal(_item: object, _error: BaseException) -> None:
    """Do nothing: the caller of ``send`` gets the exception."""


class PassingSend(SendChannel[Item]):
    """A send channel that transforms each item. Closing it closes the inner channel.

    Args:
        inner: The channel that the results are sent to.
        outgoing: Returns the item to send in place of one; ``send`` raises its exceptions.
        refused: Called with each item that ``inner`` did not accept, and the exception.
    """

    def __init__(
        self,
        inner: SendChannel[Item],
        outgoing: Callable[[Item], Item],
        refused: Callable[[Item, BaseException], None] = _ignore_refusal,
    ) -> None:
        self._inner = inner
        self._outgoing = outgoing
        self._refused = refused

    async def send(self, value: Item) -> None:
        item = self._outgoing(value)
        try:
            await self._inner.send(item)
        except BaseException as error:
            self._refused(item, error)
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()


class PassingReceive(Interruptible, ReceiveChannel[Item]):
    """A receive channel that transforms each item; cancelled, it loses none. Closing it closes the inner channel.

    Args:
        inner: The channel that items are received from.
        incoming: Returns the item to receive in place of one; it must not wait.
    """

    def __init__(self, inner: ReceiveChannel[Item], incoming: Callable[[Item], Item]) -> None:
        self._inner = inner
        self._incoming = incoming

    @property
    def interrupt(self) -> Callable[[], None] | None:
        return interrupt_of(self._inner)

    async def receive(self) -> Item:
        return self._incoming(await self._inner.receive())

    async def aclose(self) -> None:
        await self._inner.aclose()


ANSWERS: Final = (Response, ErrorResponse)
"""The classes of answers, for ``isinstance`` on hot paths: twice as fast as a union made on the spot."""


def ended_subscription(message: Incoming, sent: Callable[[RequestId], Message | None]) -> RequestId | None:
    """The id of the subscription that ``message`` ends; None if it ends none.

    Args:
        message: The received message.
        sent: Returns the request in flight of an id.
    """
    request_id = cancelled_id(message)
    request = None if request_id is None else sent(request_id)
    return request_id if request is not None and getattr(request, "method", None) == LISTEN else None
