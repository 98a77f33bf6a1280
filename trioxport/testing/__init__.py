"""For the authors of transports and layers: does it keep the contract, and what does it do when the wire does not?

:func:`check_transport` tries every rule of the contract of a connection on a binding, :func:`check_layer` does so for a
layer. :class:`MemoryWire` is a wire without a wire, and :class:`Faults` a layer that breaks things by seed.
:class:`Replay` plays the other side of what a ``Tap`` recorded.
"""

from trioxport.testing.bench import ContractBroken, Link, MakeLink
from trioxport.testing.contract import check_layer, check_transport
from trioxport.testing.faults import Faults
from trioxport.testing.peer import serve_check_peer
from trioxport.testing.replay import Replay
from trioxport.testing.rules import RULES
from trioxport.transports.memory import MemoryWire

__all__ = [
    "RULES",
    "ContractBroken",
    "Faults",
    "Link",
    "MakeLink",
    "MemoryWire",
    "Replay",
    "check_layer",
    "check_transport",
    "serve_check_peer",
]
