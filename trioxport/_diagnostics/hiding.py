"""Texts that no error may show, such as a secret that is part of a target."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, cast

from trioxport.errors import TransportError
from trioxport.messages import HIDDEN

_TEXTS: Final = ("reason", "target", "hint", "stderr_tail")


def without(hidden: Collection[str], text: str) -> str:
    """``text`` with ``***`` in place of each text of ``hidden``."""
    for each in sorted(hidden, key=len, reverse=True):
        text = text.replace(each, HIDDEN)
    return text


def hide_in(error: TransportError, hidden: Collection[str]) -> None:
    """Replace the texts of ``hidden`` in an error; a cause that quotes one is left out."""
    for name in _TEXTS:
        if isinstance(text := getattr(error, name, None), str):
            setattr(error, name, without(hidden, text))
    error.args = tuple(without(hidden, each) if isinstance(each, str) else each for each in error.args)
    if hasattr(error, "__notes__"):
        error.__notes__ = [without(hidden, note) for note in error.__notes__]
    if any(each in f"{cause} {cause!r}" for cause in _causes(error) for each in hidden):
        error.__cause__ = error.__context__ = None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    waiting = [error.__cause__, error.__context__]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__]
            if isinstance(each, BaseExceptionGroup):
                waiting += cast("BaseExceptionGroup[BaseException]", each).exceptions
