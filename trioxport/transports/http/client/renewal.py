"""A new session in place of one that the server forgot: one handshake, however many tasks need the session.

Specification 2025-11-25, basic/transports, section Session Management.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio

from trioxport._diagnostics import logger
from trioxport.errors import ProtocolViolation, SessionExpired, TransportError
from trioxport.messages import Request
from trioxport.transports.http import failures
from trioxport.transports.http.client.exchange import post_one_way
from trioxport.transports.http.client.responses import RefusedRequest, ResponseReader
from trioxport.transports.http.client.session import ClientSession


@attrs.define(eq=False)
class _Attempt:
    """One repetition of the handshake, for which any number of tasks wait."""

    done: trio.Event = attrs.Factory(trio.Event)
    error: TransportError | None = None


class SessionRenewal:
    """Begins new sessions by repeating the application's handshake.

    Args:
        session: The connection's state.
        reader: Reads the answers.
        nursery: The connection's nursery: a handshake goes on when the task that wanted it is cancelled, because
            others wait for it too.
        timeout: Seconds for a handshake.
        renewed: Called when there is a new session.
    """

    def __init__(
        self,
        session: ClientSession,
        reader: ResponseReader,
        nursery: trio.Nursery,
        timeout: float,
        renewed: Callable[[], object],
    ) -> None:
        self._session = session
        self._reader = reader
        self._endpoint = reader.endpoint
        self._settings = reader.scope.settings
        self._nursery = nursery
        self._timeout = timeout
        self._renewed = renewed
        self._attempt: _Attempt | None = None

    async def replace(self, expired: str | None) -> None:
        """Return once there is another session than ``expired``. Raises ``SessionExpired`` if there will be none."""
        if self._session.id != expired:
            return
        if self._attempt is None:
            self._attempt = _Attempt()
            self._nursery.start_soon(self._run, self._attempt)
        attempt = self._attempt
        await attempt.done.wait()
        if attempt.error is not None:
            raise SessionExpired(
                f"the server does not know the session any more, and a new one did not begin: {attempt.error.reason}"
            ) from attempt.error

    async def _run(self, attempt: _Attempt) -> None:
        attempt.error = SessionExpired(f"the handshake was not over within {self._timeout:g} s")
        try:
            with trio.move_on_after(self._timeout):
                await self._repeat_handshake()
                attempt.error = None
        except Exception as error:
            attempt.error = failures.of_exchange(error)
        finally:
            self._attempt = None
            attempt.done.set()
        if attempt.error is None:
            logger.info("%s: the server forgot the session; a new one has begun", self._settings.target)
            self._renewed()

    async def _repeat_handshake(self) -> None:
        session, initialize = self._session, self._session.initialize
        assert initialize is not None
        assert isinstance(initialize.message, Request)
        fresh = session.anew()
        answer = await self._reader.ask(initialize, initialize.message, fresh)
        if isinstance(answer, RefusedRequest):
            raise answer.failure
        if fresh.version is None or fresh.version != session.version:
            raise ProtocolViolation(f"its answer to initialize names the version {fresh.version}")
        if session.initialized is not None:
            await post_one_way(self._endpoint, fresh, session.initialized, self._settings.limits.max_message_size)
        session.adopt(fresh)
