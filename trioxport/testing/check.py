"""A check of the contract, with its requirements, and advice for its failure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import attrs

from trioxport.testing.harness import ContractHarness
from trioxport.testing.pair import TransportPair

Need: TypeAlias = Literal["wire", "cut", "serve", "unreachable", "taken", "no broker"]


@attrs.frozen
class Check:
    """One check of one rule, as :func:`transport_checks` returns them.

    Attributes:
        rule: The number of the rule.
        look_at: The place of the likely cause when the check fails.
    """

    rule: int
    run: Callable[[ContractHarness], Awaitable[None]]
    look_at: str
    needs: tuple[Need, ...] = ()

    @property
    def name(self) -> str:
        """The name of the check."""
        return self.run.__name__

    @property
    def __name__(self) -> str:
        """The id of the check in pytest."""
        return f"{self.rule}-{self.name}"

    def reason_to_skip(self, pair: TransportPair) -> str | None:
        """The reason why the check cannot be made on ``pair``, if there is one."""
        return next((reason for need in self.needs if (reason := _missing(need, pair))), None)


def _missing(need: Need, pair: TransportPair) -> str | None:
    match need:
        case "wire":
            return None if pair.continuous else "the pair says continuous=False"
        case "cut":
            here = pair.serve is not None and pair.cut is None
            return "the pair has no cut=, and its peer runs in this process" if here else None
        case "serve":
            return "the server is in another process" if pair.serve is None else None
        case "unreachable":
            return "the pair has no unreachable=" if pair.unreachable is None else None
        case "taken":
            return "the pair has no taken=" if pair.taken is None else None
        case "no broker":
            return None if pair.restore is None else "cut= stops a broker, and with it the listener (restore=)"
