"""The progress of a check: its side, its step and that step's condition, and the state of both sides."""

from __future__ import annotations

import math
import sysconfig
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, cast

import attrs
import trio

import trioxport
from trioxport._core.nursery import sole_exception
from trioxport._core.supervisor import Supervisor
from trioxport.abc import Role
from trioxport.errors import TransportError

SHOWN_CHARACTERS: Final = 300
"""Characters of a message or an error that a finding shows."""

_LIBRARIES: Final = tuple(str(Path(module.__file__ or "").parent) for module in (trio, trioxport, attrs))
_OF_A_WIRE: Final = (TransportError, trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, OSError)
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib")


class Finding(Exception):
    """A violation of the rule that a check is about."""


class CheckSkipped(Exception):
    """The reason why a check cannot be made on a transport."""


def expect(holds: bool, otherwise: str) -> None:
    """Raise the finding ``otherwise`` unless it ``holds``."""
    if not holds:
        raise Finding(otherwise)


def shown(value: object) -> str:
    """``value`` as a finding shows it; long text without its middle."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= SHOWN_CHARACTERS:
        return text
    half = SHOWN_CHARACTERS // 2
    return f"{text[:half]} … {text[-half:]}"


@attrs.frozen
class Place:
    """The step in which a check failed, and the state of both sides at that time."""

    side: Role
    step: int
    waiting_for: str
    condition: str
    sides: tuple[str, ...]


@attrs.define
class CheckProgress:
    """The steps of one check, and the connections that it made.

    Args:
        timeout: Seconds that a step may take.
        serves: Whether the server is in this process.
        condition: The special configuration of the connections, as text for findings; empty for none.
    """

    timeout: float
    serves: bool
    side: Role = "client"
    step: int = 0
    waiting_for: str = "the pair to be set up"
    condition: str = ""
    scopes: list[Supervisor] = attrs.Factory(list[Supervisor])
    hints: list[str] = attrs.Factory(list[str])
    _raised: dict[BaseException, Place] = attrs.Factory(dict[BaseException, Place])

    def on(self, side: Role) -> None:
        """Begin with one side."""
        self.side = side
        self.step = 0

    def begin(self, what: str) -> None:
        """Begin the next step, which waits for ``what``."""
        self.step += 1
        self.waiting_for = what

    @contextmanager
    def awaiting(self, what: str, seconds: float | None = None) -> Generator[None]:
        """A step that waits for ``what``, for ``seconds``, or the timeout, at most."""
        with self.bounding() as bound:
            bound.begin(what, seconds)
            yield

    @contextmanager
    def bounding(self) -> Generator[Bound]:
        """A block of steps of which some have a bound. Raises a finding if one takes longer."""
        scope = trio.CancelScope()
        bound = Bound(self, scope)
        with scope:
            yield bound
        if scope.cancelled_caught:
            finding = Finding(f"waited {bound.seconds:g} s for {bound.what}, in vain")
            self.note(finding)
            raise finding

    @contextmanager
    def noting(self) -> Generator[None]:
        """Note the place of an exception that leaves the block."""
        try:
            yield
        except Exception as error:
            self.note(error)
            raise

    def note(self, error: BaseException) -> None:
        """Record the place of an exception; only the first time counts, since cleaning up follows."""
        if error not in self._raised:
            self._raised[error] = Place(self.side, self.step, self.waiting_for, self.condition, self._sides())

    def place_of(self, error: BaseException) -> Place:
        """The place where an exception was raised, and the bugs of transports that came up until the pair was left."""
        self.note(error)
        place = self._raised[error]
        bugs = (self._account(scope.settings.role) for scope in self.scopes if _is_bug(scope))
        return attrs.evolve(place, sides=tuple(dict.fromkeys((*place.sides, *bugs))))

    def _sides(self) -> tuple[str, ...]:
        return tuple(self._account(role) for role in ("client", "server") if role == "client" or self.serves)

    def _account(self, role: Literal["client", "server"]) -> str:
        scopes = [scope for scope in self.scopes if scope.settings.role == role]
        if not scopes:
            return f"{role}: no connection was {'opened' if role == 'client' else 'accepted'}"
        failed = [scope for scope in scopes if scope.failure is not None]
        crashed = [scope for scope in failed if _is_bug(scope)]
        scope = (crashed or failed or scopes)[-1]
        if scope.failure is None:
            return f"{role}: the connection is {scope.state}"
        if scope in crashed:
            return f"{role}: its transport raised {raised(sole_exception(scope.failure.__cause__ or scope.failure))}"
        return f"{role}: the connection is lost: {shown(str(scope.failure))}"


def _is_bug(scope: Supervisor) -> bool:
    """Whether a connection failed by a bug of its transport, rather than by its wire."""
    cause = None if scope.failure is None else scope.failure.__cause__
    return cause is not None and not isinstance(sole_exception(cause), _OF_A_WIRE)


@attrs.define
class Bound:
    """The limit of a step in a block of several."""

    _progress: CheckProgress
    _scope: trio.CancelScope
    what: str = ""
    seconds: float = math.inf

    def begin(self, what: str, seconds: float | None = None) -> None:
        """Begin a step that waits for ``what``, for ``seconds``, or the timeout, at most."""
        self._progress.begin(what)
        self.what = what
        self.seconds = self._progress.timeout if seconds is None else seconds
        self._scope.deadline = trio.current_time() + self.seconds

    def end(self) -> None:
        """Set no limit to what follows: its steps have their own."""
        self._scope.deadline = math.inf


def crash_in(error: BaseException) -> Exception | None:
    """The first ``Exception`` in nested groups, of which the others may be cancellations."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return next((crash for inner in group.exceptions if (crash := crash_in(inner)) is not None), None)
    return error if isinstance(error, Exception) else None


def raised(error: BaseException) -> str:
    """An exception and the place where it was raised, in a binding's code if that is known."""
    place = code_place_of(error.__traceback__)
    text = shown(error)
    return f"{text} in {place}" if place else text


def code_place_of(traceback: TracebackType | None) -> str | None:
    """The innermost place outside Trio, trioxport and the standard library; the innermost of all without one."""
    frames: list[tuple[str, str]] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append((code.co_filename, f"{code.co_name} ({Path(code.co_filename).name}:{traceback.tb_lineno})"))
        traceback = traceback.tb_next
    foreign = [place for filename, place in frames if not is_library(filename)]
    places = foreign or [place for _, place in frames]
    return places[-1] if places else None


def is_library(filename: str) -> bool:
    """Whether a file belongs to Trio, trioxport or the standard library."""
    standard = filename.startswith((_STANDARD_LIBRARY, "<")) and "site-packages" not in filename
    return standard or filename.startswith(_LIBRARIES)
