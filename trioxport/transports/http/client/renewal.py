"""A new session in place of one that the server forgot: the handshake is repeated, once for all who need it.

Specification 2025-11-25, basic/transports, section Session Management.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.errors import ProtocolViolation, SessionExpired, TransportError
from trioxport.frames import Frame
from trioxport.messages import ErrorResponse, Request, Response
from trioxport.transports.http import failures
from trioxport.transports.http.client.exchange import PendingRequest, ResponseReader, post_one_way
from trioxport.transports.http.client.session import ClientSession


@attrs.define(eq=False)
class _Attempt:
    """One repetition of the handshake, for which any number of tasks wait."""

    over: trio.Event = attrs.Factory(trio.Event)
    error: TransportError | None = None


class SessionRenewal:
    """Begins sessions anew.

    Args:
        session: The connection's state.
        answers: Where what comes back goes, except the answer itself.
        nursery: The connection's: whoever needs the session may be cancelled, and the others still need it.
        seconds: How long the handshake may take.
        renewed: Called when there is a new session.
    """

    def __init__(
        self,
        session: ClientSession,
        answers: ResponseReader,
        nursery: trio.Nursery,
        seconds: float,
        renewed: Callable[[], object],
    ) -> None:
        self._session = session
        self._answers = attrs.evolve(answers, deliver=self._deliver_others)
        self._deliver = answers.deliver
        self._wire = answers.wire
        self._nursery = nursery
        self._seconds = seconds
        self._renewed = renewed
        self._attempt: _Attempt | None = None

    async def after(self, expired: str | None) -> None:
        """Return once there is another session than ``expired``. Raises ``SessionExpired`` if there will be none."""
        if self._session.id != expired:
            return
        if self._attempt is None:
            self._attempt = _Attempt()
            self._nursery.start_soon(self._run, self._attempt)
        attempt = self._attempt
        await attempt.over.wait()
        if attempt.error is not None:
            raise SessionExpired(
                f"the server does not know the session any more, and a new one did not begin: {attempt.error.reason}"
            ) from attempt.error

    async def _run(self, attempt: _Attempt) -> None:
        attempt.error = SessionExpired(f"the handshake was not over within {self._seconds:g} s")
        try:
            with trio.move_on_after(self._seconds):
                await self._repeat_handshake()
                attempt.error = None
        except Exception as error:
            attempt.error = failures.of_exchange(error)
        finally:
            self._attempt = None
            attempt.over.set()
        if attempt.error is None:
            logger.info("%s: the server forgot the session; a new one has begun", self._answers.scope.settings.target)
            self._renewed()

    async def _repeat_handshake(self) -> None:
        session, initialize = self._session, self._session.initialize
        assert initialize is not None
        assert isinstance(initialize.message, Request)
        fresh = session.anew()
        exchange = PendingRequest(initialize, initialize.message)
        answers = attrs.evolve(self._answers, session=fresh)
        fields, refusal = fresh.post_fields(initialize), None
        with exchange.scope:
            async with self._wire.exchange("POST", fields, initialize.payload) as (response, body):
                refusal = await answers.take(exchange, response, body)
        if refusal is not None:
            raise refusal.failure
        if fresh.version is None or fresh.version != session.version:
            raise ProtocolViolation(f"its answer to initialize names the version {fresh.version}")
        if session.initialized is not None:
            await post_one_way(
                self._wire, fresh, session.initialized, self._answers.scope.settings.limits.max_message_size
            )
        session.adopt(fresh)

    async def _deliver_others(self, frames: list[Frame]) -> None:
        """The application has had its answer to ``initialize``."""
        await self._deliver([frame for frame in frames if not isinstance(frame.message, Response | ErrorResponse)])
