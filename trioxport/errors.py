"""Every error that trioxport raises, on one page.

An error says what happened, to which target, and what to try. ``retryable`` tells whether the same thing may work
later; ``outcome`` tells, where a message was involved, whether the peer can have acted on it:

* ``"not_sent"``: no byte of the message reached the peer, so sending it again repeats nothing;
* ``"unknown"``: the peer may or may not have acted on it.

The errors that a channel raises for a dead connection are also :class:`trio.BrokenResourceError`.
Targets in messages are redacted by whoever raises: no error carries a credential.
"""

from __future__ import annotations

import copyreg
from typing import Any, ClassVar, Literal, TypeAlias

import trio

Outcome: TypeAlias = Literal["not_sent", "unknown"]


class TransportError(Exception):
    """The root of the tree: something between this program and its peer went wrong.

    Args:
        reason: What happened, as a sentence without its full stop.
        target: The redacted target that it happened to.
        hint: What to try; the default is the class's own.
        outcome: Whether the message concerned can have been acted on.
        retryable: Whether trying again may help; the default is the class's own.
        retry_after: Seconds after which the peer asks to be tried again.
    """

    default_retryable: ClassVar[bool] = False
    default_hint: ClassVar[str | None] = None
    default_outcome: ClassVar[Outcome | None] = None

    def __init__(
        self,
        reason: str,
        *,
        target: str | None = None,
        hint: str | None = None,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.target = target
        self.hint = hint if hint is not None else self.default_hint
        self.outcome: Outcome | None = outcome or self.default_outcome
        self.retryable = self.default_retryable if retryable is None else retryable
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled by what it holds, so that subclasses may demand arguments of their own."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # no stub

    def __str__(self) -> str:
        text = f"{self.target}: {self.reason}" if self.target else self.reason
        return f"{text}. {self.hint}" if self.hint else text


class ConnectError(TransportError):
    """No connection came about; nothing was sent."""

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class NameResolutionError(ConnectError):
    """The host name has no address."""

    default_hint = "Check the spelling of the host name and the name service of this machine"


class ServerUnreachable(ConnectError):
    """Nobody accepts connections at the address."""

    default_hint = "Check that the server runs and that the address is the one it listens on"


class ConnectTimeout(ConnectError):
    """The peer did not complete the connection in time."""

    default_hint = "Check that the peer speaks this protocol, or raise connect_timeout"


class TLSError(ConnectError):
    """The TLS handshake failed."""

    default_retryable = False
    default_hint = "Check the certificate's names, dates and issuer, or trust it by a ca file or an ssl_context"


class SpawnError(ConnectError):
    """The child process could not be started."""

    default_retryable = False
    default_hint = "Check the command, its permissions, PATH and the working directory"


class ConnectionLost(TransportError, trio.BrokenResourceError):
    """An open connection broke, or its peer went away in the middle of something.

    Args:
        exit_code: The exit code of the child process behind the connection (negative: ended by that signal).
        stderr_tail: The last lines that the child process wrote to its standard error.
    """

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "unknown"

    def __init__(
        self,
        reason: str,
        *,
        target: str | None = None,
        hint: str | None = None,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        exit_code: int | None = None,
        stderr_tail: str = "",
    ) -> None:
        super().__init__(
            reason, target=target, hint=hint, outcome=outcome, retryable=retryable, retry_after=retry_after
        )
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\nIts last words on stderr:\n{self.stderr_tail}" if self.stderr_tail else text


class SessionExpired(TransportError, trio.BrokenResourceError):
    """The server no longer knows the session (404 to a request that named one)."""

    default_retryable = True
    default_hint = "Open a new session"
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class AuthenticationError(TransportError):
    """The server does not know who is asking (401)."""

    default_hint = "Check the credentials and their expiry"
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class PermissionDenied(TransportError):
    """The server knows who is asking and refuses (403)."""

    default_hint = "Check the scopes or the permissions that the credentials carry"
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class HTTPStatusError(TransportError):
    """The server answered with a status that means failure and has no class of its own."""

    def __init__(
        self,
        reason: str,
        *,
        status: int,
        target: str | None = None,
        hint: str | None = None,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            reason, target=target, hint=hint, outcome=outcome, retryable=retryable, retry_after=retry_after
        )
        self.status = status


class RequestTimeout(TransportError):
    """No answer came in time; the request was cancelled on the wire as far as the transport can."""

    default_retryable = True
    default_hint = "Raise the timeout, or ask for progress, which extends it"
    default_outcome: ClassVar[Outcome | None] = "unknown"


class MessageTooLarge(TransportError):
    """A message is larger than ``Limits.max_message_size``."""

    default_hint = "Raise Limits.max_message_size on both sides, or send less at once"


class DecodeError(TransportError):
    """What arrived is not text of the codec (not JSON, not UTF-8, nested too deep ...)."""


class ProtocolViolation(TransportError):
    """The peer broke the protocol: what arrived can be decoded, yet is no valid message here."""


class VersionMismatch(TransportError):
    """Client and server have no protocol version in common."""

    default_hint = "Update the older of the two programs"


class UsageError(TransportError):
    """This program asked for something that cannot be: the mistake is on this side."""

    default_outcome: ClassVar[Outcome | None] = "not_sent"


class CircuitOpen(TransportError):
    """The circuit breaker is open: the target failed too often and is being left alone for a while."""

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class RateLimited(TransportError):
    """The rate limit is used up, here or at the peer (429)."""

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "not_sent"
