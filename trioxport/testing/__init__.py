"""Checks and test tools for the authors of transports and layers.

:func:`check_transport` checks a binding against every rule of the contract of a connection, :func:`check_pair` two
transports, :func:`check_layer` a layer. ``python -m trioxport.testing TARGET`` checks an installed binding.
:class:`MemoryWire` is a wire in memory, :class:`CuttableProxy` one of TCP that can be cut, and :class:`Faults` a layer
that injects faults by seed. :class:`Replay` plays the other side of what a ``Tap`` recorded.
"""

from trioxport.testing.check import Check
from trioxport.testing.contract import check_layer, check_pair, check_transport
from trioxport.testing.faults import Faults
from trioxport.testing.pair import MakePair, TransportPair
from trioxport.testing.peer import serve_check_peer
from trioxport.testing.proxy import CuttableProxy, open_cuttable_proxy, tcp_pair
from trioxport.testing.replay import Replay
from trioxport.testing.report import CheckResult, ContractBroken, ContractReport
from trioxport.testing.rules import RULES, transport_checks
from trioxport.transports.memory import MemoryWire

__all__ = [
    "RULES",
    "Check",
    "CheckResult",
    "ContractBroken",
    "ContractReport",
    "CuttableProxy",
    "Faults",
    "MakePair",
    "MemoryWire",
    "Replay",
    "TransportPair",
    "check_layer",
    "check_pair",
    "check_transport",
    "open_cuttable_proxy",
    "serve_check_peer",
    "tcp_pair",
    "transport_checks",
]
