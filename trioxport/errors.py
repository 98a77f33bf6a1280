"""The errors that trioxport raises.

An error says what happened, to which target, and what to do. ``retryable`` says whether the same attempt may succeed
later. ``outcome`` says of the message concerned whether the peer can have acted on it:

* ``"not_sent"``: the peer has not got the message, or has not acted on it, so sending it again repeats nothing;
* ``"unknown"``: the peer may have acted on it.

The errors of a channel whose connection is dead are also :class:`trio.BrokenResourceError`.
The code that raises an error redacts the target: no error contains a credential.
"""

from __future__ import annotations

import copyreg
from typing import Any, ClassVar, Literal, TypeAlias, TypedDict, Unpack

import trio

Outcome: TypeAlias = Literal["not_sent", "unknown"]


class TransportError(Exception):
    """A failure between this program and its peer; the base class of all errors of trioxport.

    Args:
        reason: The failure, as a sentence without its full stop.
        target: The target of the connection, redacted.
        hint: Advice; by default that of the class.
        outcome: ``"not_sent"`` or ``"unknown"`` if a message is concerned; by default that of the class.
        retryable: Whether another attempt may succeed; by default that of the class.
        retry_after: Seconds to wait before another attempt, as the peer asks.
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
        """Copy and pickle it by its attributes, so that subclasses may require other arguments."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # no stub

    def __str__(self) -> str:
        text = f"{self.target}: {self.reason}" if self.target else self.reason
        return f"{text}. {self.hint}" if self.hint else text


class ConnectError(TransportError):
    """The connection could not be opened; nothing was sent."""

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class NameResolutionError(ConnectError):
    """The host name has no address."""

    default_hint = "Check the spelling of the host name and the name service of this machine"


class ServerUnreachable(ConnectError):
    """No server accepts connections at the address."""

    default_hint = "Check that the server runs and that the address is the one it listens on"


class ConnectTimeout(ConnectError):
    """The peer did not complete the connection in time."""

    default_hint = "Check that the peer speaks this protocol, or raise connect_timeout"


class TLSError(ConnectError):
    """The TLS handshake failed."""

    default_retryable = False
    default_hint = "Check the certificate's names, dates and issuer, or trust it by a ca file or an ssl_context"


class _Details(TypedDict, total=False):
    """The arguments of every error, besides its reason."""

    target: str | None
    hint: str | None
    outcome: Outcome | None
    retryable: bool | None
    retry_after: float | None


class SpawnError(ConnectError):
    """The child process could not be started, or ended before it could be talked to.

    Args:
        exit_code: The exit code of the child process; negative if that signal ended it; None if it never ran.
        stderr_tail: The last lines of the child process on its standard error.
    """

    default_retryable = False
    default_hint = "Check the command, its permissions, PATH and the working directory"

    def __init__(
        self, reason: str, *, exit_code: int | None = None, stderr_tail: str = "", **details: Unpack[_Details]
    ) -> None:
        super().__init__(reason, **details)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        return _with_tail(super().__str__(), self.stderr_tail)


class ConnectionLost(TransportError, trio.BrokenResourceError):
    """An open connection broke, or the peer ended it before it had answered.

    Args:
        exit_code: The exit code of the child process behind the connection; negative if that signal ended it.
        stderr_tail: The last lines of the child process on its standard error.
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
        return _with_tail(super().__str__(), self.stderr_tail)


def _with_tail(text: str, tail: str) -> str:
    return f"{text}\nThe end of its standard error:\n{tail}" if tail else text


class SessionExpired(TransportError, trio.BrokenResourceError):
    """The server no longer knows the session (HTTP 404 to a request with a session id)."""

    default_retryable = True
    default_hint = "Open a new session"
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class AuthenticationError(TransportError):
    """The server requires valid credentials (HTTP 401)."""

    default_hint = "Check the credentials and their expiry"
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class OAuthError(AuthenticationError):
    """Authorization by OAuth failed. The server is the ``target``.

    Args:
        step: The step that failed, such as ``"token request"``.
        issuer: The authorization server, if it is known.
        section: The section of the specification or RFC that the peer broke, if it broke one.
        code: The error code of the authorization server, such as ``"invalid_grant"``, if it sent one.
    """

    default_hint = "Run trioxport doctor auth URL to see each step"

    def __init__(
        self,
        reason: str,
        *,
        step: str,
        issuer: str | None = None,
        section: str | None = None,
        code: str | None = None,
        target: str | None = None,
        hint: str | None = None,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            reason, target=target, hint=hint, outcome=outcome, retryable=retryable, retry_after=retry_after
        )
        self.step = step
        self.issuer = issuer
        self.section = section
        self.code = code

    def __str__(self) -> str:
        broken = f" ({self.section})" if self.section else ""
        issuer = f", authorization server {self.issuer}" if self.issuer else ""
        text = f"OAuth, {self.step}{issuer}: {self.reason}{broken}"
        text = f"{self.target}: {text}" if self.target else text
        return f"{text}. {self.hint}" if self.hint else text


class InteractionRequired(AuthenticationError):
    """Authorization needs a person: nothing failed, and nothing can go on without consent.

    Args:
        url: The page to open, or None if no page is known yet.
        user_code: The code to enter there, with device authorization.
        issuer: The authorization server, if it is known.
    """

    default_hint = "Log in with trioxport login URL, or open the page"

    def __init__(
        self,
        reason: str,
        *,
        url: str | None = None,
        user_code: str | None = None,
        issuer: str | None = None,
        target: str | None = None,
        hint: str | None = None,
        outcome: Outcome | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            reason, target=target, hint=hint, outcome=outcome, retryable=retryable, retry_after=retry_after
        )
        self.url = url
        self.user_code = user_code
        self.issuer = issuer


class PermissionDenied(TransportError):
    """The server refuses these credentials the permission (HTTP 403)."""

    default_hint = "Check the scopes or the permissions of the credentials"
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class HTTPStatusError(TransportError):
    """The server answered with an HTTP status of failure that has no class of its own.

    Args:
        status: The HTTP status.
    """

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
    """No answer came in time; the request was cancelled on the wire if the transport can do that."""

    default_retryable = True
    default_hint = "Raise the timeout, or ask for progress, which extends it"
    default_outcome: ClassVar[Outcome | None] = "unknown"


class DeliveryFailed(TransportError):
    """A queue gave a request up: no server of those that it was delivered to has answered, or it waited too long."""

    default_hint = "Check the log of the servers, and whether enough of them run"
    default_outcome: ClassVar[Outcome | None] = "unknown"


class MessageTooLarge(TransportError):
    """A message is larger than ``Limits.max_message_size``."""

    default_hint = "Raise Limits.max_message_size on both sides, or send less at once"


class DecodeError(TransportError):
    """The codec cannot decode a payload: it is not JSON, not UTF-8, nested too deep ..."""


class ProtocolViolation(TransportError):
    """The peer broke the protocol: a payload can be decoded, but is not a valid message here."""


class VersionMismatch(TransportError):
    """Client and server have no protocol version in common."""

    default_hint = "Update the older of the two programs"


class UsageError(TransportError):
    """This program asked for something impossible: the mistake is on this side."""

    default_outcome: ClassVar[Outcome | None] = "not_sent"


class CircuitOpen(TransportError):
    """The circuit breaker is open: the target failed too often, and gets no requests for a while."""

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "not_sent"


class RateLimited(TransportError):
    """The rate limit is used up, here or at the peer (HTTP 429)."""

    default_retryable = True
    default_outcome: ClassVar[Outcome | None] = "not_sent"
