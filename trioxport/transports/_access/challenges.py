"""Challenges: the headers with which a server says which token it wants (RFC 6750, 9449 and 9728)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs

Scheme: TypeAlias = Literal["Bearer", "DPoP"]
Fields: TypeAlias = list[tuple[bytes, bytes]]

_UNQUOTABLE: Final = re.compile(r"[^ !#-\[\]-~]")
"""The characters that RFC 6750, section 3, does not allow in a parameter."""


@attrs.frozen
class Challenge:
    """The parameters of a challenge.

    Args:
        error: The error code; None where the client sent no credentials.
        description: The reason, for people.
        metadata: The URL of the metadata of the resource.
        scopes: The scopes that are needed.
        algorithms: The signatures of DPoP proofs.
    """

    error: str | None = None
    description: str | None = None
    metadata: str | None = None
    scopes: Sequence[str] = ()
    algorithms: Sequence[str] = ()

    def fields(self, *schemes: Scheme) -> Fields:
        """A header for each scheme."""
        return [(b"www-authenticate", self._value(scheme).encode()) for scheme in schemes]

    def _value(self, scheme: Scheme) -> str:
        parameters = {
            "error": self.error,
            "error_description": self.description,
            "resource_metadata": self.metadata,
            "scope": " ".join(self.scopes),
            "algs": " ".join(self.algorithms) if scheme == "DPoP" else None,
        }
        written = (f'{name}="{_UNQUOTABLE.sub("", value)}"' for name, value in parameters.items() if value)
        return f"{scheme} {', '.join(written)}".rstrip()
