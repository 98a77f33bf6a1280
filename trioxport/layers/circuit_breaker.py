"""A circuit breaker: refuses requests to a target for a while after it failed too often."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import ClassVar, Final, Literal, TypeAlias

import attrs
import trio
from trio.abc import SendChannel

from trioxport._diagnostics import logger
from trioxport._diagnostics.validators import COUNT, FUNCTION, SECONDS, instance_of
from trioxport.abc import FrameChannels, MessageChannels, Scope, Transport
from trioxport.errors import (
    AuthenticationError,
    CircuitOpen,
    HTTPStatusError,
    MessageTooLarge,
    PermissionDenied,
    RateLimited,
    SessionExpired,
    TransportError,
    UsageError,
    VersionMismatch,
)
from trioxport.layers._circuit import Circuit, CircuitState, FailureRate
from trioxport.layers._support import ANSWERS, PassingReceive, ended_subscription
from trioxport.messages import ErrorResponse, Incoming, Message, Request, RequestId, Response, Undelivered
from trioxport.protocol import cancelled_id
from trioxport.targets import Target, describe, to_transport

Transition: TypeAlias = Callable[[CircuitState, CircuitState], object]

_NOT_THE_TARGETS_FAILURE: Final = (
    AuthenticationError,
    CircuitOpen,
    MessageTooLarge,
    PermissionDenied,
    RateLimited,
    SessionExpired,
    UsageError,
    VersionMismatch,
)


def counts_as_failure(error: TransportError) -> bool:
    """Whether an error is a failure of the target: it is unreachable, lost, late, or answers with nonsense.

    A refusal by a working server is none, nor is a mistake of this side.
    """
    if isinstance(error, HTTPStatusError):
        return error.status >= 500 or error.status == 408
    return not isinstance(error, _NOT_THE_TARGETS_FAILURE)


def _closed(breaker: CircuitBreaker) -> Circuit:
    def log_and_report(old: CircuitState, new: CircuitState) -> None:
        logger.info("a circuit breaker was %s and is %s", old, new)
        if breaker.on_transition is not None:
            try:
                breaker.on_transition(old, new)
            except Exception:
                logger.exception("on_transition of a circuit breaker failed")

    return Circuit(breaker.failures, breaker.failure_rate, breaker.reset_timeout, log_and_report)


@attrs.frozen(eq=False)
class CircuitBreaker:
    """Refuses requests to a target that keeps failing, and probes it with one request after ``reset_timeout``.

    *Closed*, it lets requests pass and counts those that come back :class:`~trioxport.Undelivered`, or whose ``send``
    raises; an answer, also an error response, resets the count. *Open*, ``send`` raises ``CircuitOpen`` at once,
    with the remaining seconds as ``retry_after``. After ``reset_timeout`` it is *half-open*: one request may pass,
    the others still raise ``CircuitOpen``. If that request is answered the breaker closes, if it fails it opens again;
    if it is cancelled, or not answered within ``reset_timeout``, the next request is the probe.

    Only requests are refused: notifications and responses always pass. On a server the layer applies to the server's
    own requests to the client. An error that settles several requests, such as the loss of a connection, counts once.

    The state is shared by every connection that is opened with the same instance, within one run of Trio: use one
    instance for each target. A connection that fails to open has no channels; :meth:`guard` counts that failure
    too.

    Args:
        failures: Failures in a row that open it.
        reset_timeout: Seconds that it stays open.
        failure_rate: A share of failures within a window that opens it too; None to count failures in a row only.
        is_failure: Returns whether an error counts; :func:`counts_as_failure` by default.
        on_transition: Called with the old and the new state at each change. Its exceptions are logged.
    """

    level: ClassVar[Literal["message"]] = "message"

    failures: int = attrs.field(default=5, validator=COUNT)
    reset_timeout: float = attrs.field(default=30.0, validator=SECONDS)
    failure_rate: FailureRate | None = attrs.field(
        default=None, validator=instance_of(FailureRate, "a FailureRate(...)").or_none(), kw_only=True
    )
    is_failure: Callable[[TransportError], bool] = attrs.field(
        default=counts_as_failure, validator=FUNCTION, kw_only=True
    )
    on_transition: Transition | None = attrs.field(default=None, validator=FUNCTION.or_none(), kw_only=True)
    _circuit: Circuit = attrs.field(default=attrs.Factory(_closed, takes_self=True), init=False, repr=False)

    @property
    def state(self) -> CircuitState:
        """The state now; an open breaker becomes half-open with the first request after ``reset_timeout``."""
        return self._circuit.state

    def wrap(self, channels: MessageChannels, scope: Scope) -> MessageChannels:
        passes = _Passes(self, self._circuit, scope.settings.target)
        scope.defer(passes.release_all)
        return MessageChannels(_GuardedSend(channels.send, passes), PassingReceive(channels.receive, passes.received))

    def guard(self, target: Target) -> Transport:
        """Return a transport that opens ``target`` unless the breaker is open, and counts a failure to open it.

        ::

            async with open_transport(breaker.guard("https://..."), layers=[breaker]) as connection: ...

        Opening raises ``CircuitOpen`` while the breaker is open. A successful opening does not close the breaker; the
        first answered request does.
        """
        return _Guarded(to_transport(target), describe(target), self, self._circuit)


def _circuit_open(circuit: Circuit, now: float, target: str) -> CircuitOpen:
    seconds = circuit.retry_after(now)
    when = "another request is trying it" if seconds is None else f"it is tried again in {seconds:.3g} s"
    return CircuitOpen(f"the target failed too often; {when}", target=target, retry_after=seconds)


@attrs.frozen
class _Guarded:
    transport: Transport = attrs.field(repr=False)
    name: str
    breaker: CircuitBreaker
    circuit: Circuit

    def __str__(self) -> str:
        return self.name

    @asynccontextmanager
    async def __call__(self, scope: Scope) -> AsyncGenerator[FrameChannels]:
        started = trio.current_time()
        period = self.circuit.enter(started)
        if period is None:
            raise _circuit_open(self.circuit, started, scope.settings.target)
        opened = False
        try:
            async with self.transport(scope) as channels:
                opened = True
                self.circuit.release(period)
                yield channels
        except BaseException as error:
            if not opened:
                self._note(error, period, late=trio.current_time() - started >= scope.settings.connect_timeout)
            raise

    def _note(self, error: BaseException, period: int, *, late: bool) -> None:
        """A cancellation is no failure, unless it is how the connect timeout comes."""
        failed = late if isinstance(error, trio.Cancelled) else isinstance(error, Exception)
        if failed and not (isinstance(error, TransportError) and not self.breaker.is_failure(error)):
            self.circuit.fail(period, trio.current_time())
        else:
            self.circuit.release(period)


class _Passes:
    """The requests of one connection that were let pass, and how they end."""

    def __init__(self, breaker: CircuitBreaker, circuit: Circuit, target: str) -> None:
        self.circuit = circuit
        self.target = target
        self.held: dict[RequestId, tuple[Request, int]] = {}
        self._is_failure = breaker.is_failure
        self._last_failure: TransportError | None = None

    def fail(self, request_id: RequestId, error: BaseException) -> None:
        held = self.held.pop(request_id, None)
        if held is None:
            return
        _, period = held
        if isinstance(error, TransportError) and error is not self._last_failure and self._is_failure(error):
            self._last_failure = error
            self.circuit.fail(period, trio.current_time())
        else:
            self.circuit.release(period)

    def release(self, request_id: RequestId) -> None:
        held = self.held.pop(request_id, None)
        if held is not None:
            self.circuit.release(held[1])

    def received(self, message: Incoming) -> Incoming:
        if isinstance(message, ANSWERS):
            self._settle(message)
        elif (ended := ended_subscription(message, self._request)) is not None:
            self.release(ended)
        return message

    def _settle(self, answer: Response | ErrorResponse) -> None:
        if answer.id is None:
            return
        if isinstance(answer, Undelivered):
            self.fail(answer.id, answer.cause)
        elif (held := self.held.pop(answer.id, None)) is not None:
            self.circuit.succeed(held[1], trio.current_time())

    def _request(self, request_id: RequestId) -> Request | None:
        held = self.held.get(request_id)
        return None if held is None else held[0]

    def release_all(self) -> None:
        for request_id in list(self.held):
            self.release(request_id)


class _GuardedSend(SendChannel[Message]):
    def __init__(self, inner: SendChannel[Message], passes: _Passes) -> None:
        self._inner = inner
        self._passes = passes

    async def send(self, value: Message) -> None:
        if type(value) is Request:
            return await self._send_request(value)
        passes = self._passes
        request_id = cancelled_id(value)
        cancelled = None if request_id is None else passes.held.get(request_id)
        await self._inner.send(value)
        if request_id is not None and passes.held.get(request_id) is cancelled:  # the id may be used again by now
            passes.release(request_id)
        return None

    async def _send_request(self, request: Request) -> None:
        passes = self._passes
        if request.id in passes.held:
            return await self._inner.send(request)  # which refuses it: the id is in flight
        now = trio.current_time()
        period = passes.circuit.enter(now)
        if period is None:
            await trio.lowlevel.checkpoint()
            raise _circuit_open(passes.circuit, now, passes.target)
        held = passes.held[request.id] = (request, period)
        try:
            await self._inner.send(request)
        except BaseException as error:
            if passes.held.get(request.id) is held:
                passes.fail(request.id, error)
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
