"""Secrets: texts that are hidden wherever they would be shown."""

from __future__ import annotations

import hmac
from typing import Any, NoReturn, Self, final

from trioxport.messages import HIDDEN


@final
class Secret:
    """A text that is shown as ``***`` when it is printed, formatted, logged or inspected in a debugger.

    It can neither be pickled nor written as JSON. A comparison takes the same time wherever two secrets differ.

    Args:
        value: The text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself, for the place where it is sent."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, format_spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self), _bytes(other))

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: the pickle would show it")


def _bytes(secret: Secret) -> bytes:
    return secret.reveal().encode(errors="surrogatepass")


def secret(value: str | Secret) -> Secret:
    """``value`` as a secret."""
    return value if isinstance(value, Secret) else Secret(value)
