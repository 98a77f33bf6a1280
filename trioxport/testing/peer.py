"""The peer that ``check_transport`` talks to: it does what the methods of its requests say."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from weakref import WeakKeyDictionary

import attrs
import trio
from trio.abc import SendChannel

from trioxport._rpc import members_of
from trioxport.abc import Codec, FrameChannels, Layer, Scope
from trioxport.codecs.json import JSON
from trioxport.config import Target
from trioxport.connection import Connection
from trioxport.errors import ConnectionLost
from trioxport.frames import Frame, Limits
from trioxport.messages import Notification, Request, RequestId, Response
from trioxport.opening import serve_transport

LIMITS: Final = Limits(max_message_size=256 * 1024)
"""What both sides of a check keep to: small, so that messages over the limit are cheap to make."""


RAW_MESSAGE: Final = Notification("check/raw")
"""What a payload that is no message is sent as."""


@attrs.frozen
class RawAccess:
    """A frame layer that lets the kit send, under a connection's codec, what no codec would write."""

    level: ClassVar[Literal["frame"]] = "frame"

    _channels: WeakKeyDictionary[Scope, SendChannel[Frame]] = attrs.field(
        factory=WeakKeyDictionary[Scope, SendChannel[Frame]], init=False
    )

    def wrap(self, channels: FrameChannels, scope: Scope) -> FrameChannels:
        self._channels[scope] = channels.send
        return channels

    async def send(self, connection: Connection, payload: bytes, *, about: Request | None = None) -> None:
        """Send ``payload`` as a frame of ``connection``, which may be about a request that is in flight."""
        message = RAW_MESSAGE if about is None else attrs.evolve(RAW_MESSAGE, metadata=_about(about))
        await self._channels[connection.scope].send(Frame(payload, message))


RAW: Final = RawAccess()


@attrs.define
class CheckPeer:
    """One connection's worth of the peer.

    Args:
        noted: The numbers that ``check/note`` notifications brought, in order.
    """

    connection: Connection
    noted: list[int] = attrs.Factory(list[int])
    _at_end: list[Request] = attrs.Factory(list[Request])

    async def run(self) -> None:
        """Answer until the other side is done, or told this one to end."""
        tx, rx = self.connection
        async for message in rx:
            if isinstance(message, Notification) and message.method == "check/note":
                self.noted.append(_params(message)["number"])
            elif isinstance(message, Request) and await self._obey(message) == "end":
                return
        for request in self._at_end:
            await tx.send(Response(request.id, {"noted": self.noted}))

    async def _obey(self, request: Request) -> Literal["end"] | None:
        tx = self.connection.tx
        params = _params(request)
        match request.method:
            case "check/echo":
                await tx.send(Response(request.id, params))
            case "check/noted":
                await tx.send(Response(request.id, {"noted": self.noted}))
            case "check/notify":
                for number in range(params["count"]):
                    await tx.send(Notification("check/note", {"number": number}, metadata=_about(request)))
                await tx.send(Response(request.id, params))
            case "check/silent":
                pass
            case "check/answer_at_end":
                self._at_end.append(request)
            case "check/pause":
                await tx.send(Response(request.id, params))
                await trio.sleep(params["seconds"])
            case "check/linger":
                await tx.send(Response(request.id, params))
                await trio.sleep_forever()
            case "check/garbage":
                await RAW.send(self.connection, params["bytes"].encode("latin-1"), about=request)
                await tx.send(Response(request.id, params))
            case "check/too_large":
                answer = self.connection.scope.codec.encode(Response(request.id, "x" * LIMITS.max_message_size))
                await RAW.send(self.connection, answer, about=request)
            case "check/half_close":
                await tx.aclose()
            case "check/kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "check/end":
                return "end"
            case method:
                raise ValueError(f"the check peer knows no method {method!r}")
        return None


async def check_peer(connection: Connection) -> None:
    """The check peer as a handler: the connection may be lost under it, and often is."""
    try:
        await CheckPeer(connection).run()
    except ConnectionLost:
        return


async def serve_check_peer(target: Target, *, codec: Codec = JSON, layers: Sequence[Layer] = ()) -> None:
    """Serve the peer that ``check_transport`` talks to, in a process of its own, until cancelled.

    Args:
        target: What to serve, as for ``serve_transport``.
        codec: The codec that the check uses.
        layers: The layers that the check names as the peer's.
    """
    await serve_transport(check_peer, target, codec=codec, layers=[*layers, RAW], limits=LIMITS, close_timeout=1.0)


def _about(request: Request) -> dict[str, RequestId]:
    return {"related_request": request.id}


def _params(message: Request | Notification) -> Mapping[str, Any]:
    """The parameters, without what layers may have added to them."""
    return {name: value for name, value in members_of(message.params).items() if name != "_meta"}
