"""The peer of ``check_transport``: the method of each request is a command."""

from __future__ import annotations

import math
import os
import signal
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal
from weakref import WeakKeyDictionary

import attrs
import trio
from trio.abc import SendChannel

from trioxport.abc import Codec, FrameChannels, Layer, Scope
from trioxport.codecs.json import JSON
from trioxport.connection import Connection
from trioxport.errors import ConnectionLost
from trioxport.frames import Frame, Limits
from trioxport.messages import Notification, Request, RequestId, Response
from trioxport.opening import serve_transport
from trioxport.protocol import members_of
from trioxport.targets import Target

LIMITS: Final = Limits(max_message_size=256 * 1024)
"""The limits of both sides of a check: small, so that messages over the limit are cheap to make."""


RAW_MESSAGE: Final = Notification("check/raw")
"""The message of a frame whose payload is no message."""


@attrs.frozen
class RawAccess:
    """A frame layer by which the kit sends payloads that no codec writes."""

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


_INTERPRETER: Final = uuid.uuid4()


def process_name() -> str:
    """A name of this process, by which the peer recognises the process that checks."""
    return f"{os.getpid()} {_INTERPRETER}"


@attrs.define
class CheckPeer:
    """The peer's side of one connection.

    Args:
        noted: The numbers of the ``check/note`` notifications, in order.
        received: The ids of the requests that arrived.
        ended: Set when the peer has seen the end or the loss of the connection.
    """

    connection: Connection
    noted: list[int] = attrs.Factory(list[int])
    received: list[RequestId] = attrs.Factory(list[RequestId])
    ended: trio.Event = attrs.Factory(trio.Event)
    _at_end: list[Request] = attrs.Factory(list[Request])
    _pause: trio.CancelScope = attrs.Factory(trio.CancelScope)

    async def run(self) -> None:
        """Answer until the connection ends or is lost."""
        try:
            await self._answer_all()
        except ConnectionLost:
            return
        finally:
            self.ended.set()

    def resume(self) -> None:
        """End a pause."""
        self._pause.cancel()

    async def _answer_all(self) -> None:
        """Answer until the other side ends, or commands this one to end."""
        tx, rx = self.connection
        async for message in rx:
            if isinstance(message, Notification) and message.method == "check/note":
                self.noted.append(_params(message)["number"])
            elif isinstance(message, Request):
                self.received.append(message.id)
                if await self._execute(message) == "end":
                    return
        for request in self._at_end:
            await tx.send(Response(request.id, {"noted": self.noted}))

    async def _execute(self, request: Request) -> Literal["end"] | None:
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
                with trio.CancelScope(deadline=trio.current_time() + params["seconds"]) as self._pause:
                    await trio.sleep(math.inf)
            case "check/linger":
                await tx.send(Response(request.id, params))
                await trio.sleep_forever()
            case "check/garbage":
                await RAW.send(self.connection, params["bytes"].encode("latin-1"), about=request)
                await tx.send(Response(request.id, params))
            case "check/too_large":
                answer = self.connection.scope.settings.codec.encode(
                    Response(request.id, "x" * LIMITS.max_message_size)
                )
                await RAW.send(self.connection, answer, about=request)
            case "check/half_close":
                await tx.aclose()
            case "check/process":
                await tx.send(Response(request.id, {"process": process_name()}))
            case "check/kill":
                if params["process"] == process_name():
                    raise ValueError("the check peer does not kill the process that checks")
                await trio.sleep(params.get("after", 0.0))
                os.kill(os.getpid(), signal.SIGKILL)
            case "check/end":
                return "end"
            case method:
                raise ValueError(f"the check peer knows no method {method!r}")
        return None


async def check_peer(connection: Connection) -> None:
    """The check peer as a handler."""
    await CheckPeer(connection).run()


async def serve_check_peer(
    target: Target,
    *,
    codec: Codec = JSON,
    layers: Sequence[Layer] = (),
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the peer of ``check_transport`` in a process of its own, until cancelled.

    The peer kills its process when the check commands a crash, unless that is the process that checks.

    Args:
        target: The target to serve, as for ``serve_transport``.
        codec: The codec of the check.
        layers: The ``peer_layers`` of the check.
        task_status: Reports the addresses, as for ``serve_transport``.
    """
    await serve_transport(
        check_peer,
        target,
        codec=codec,
        layers=[*layers, RAW],
        limits=LIMITS,
        close_timeout=1.0,
        task_status=task_status,
    )


def _about(request: Request) -> dict[str, RequestId]:
    return {"related_request": request.id}


def _params(message: Request | Notification) -> Mapping[str, Any]:
    """The parameters, without the ``_meta`` that layers may have added."""
    return {name: value for name, value in members_of(message.params).items() if name != "_meta"}
