"""Layers: configuration that wraps a connection's channels. One module each, all in the same order: configuration,
send side, receive side."""

from trioxport.layers.compression import Compression
from trioxport.layers.logging import Logging
from trioxport.layers.tap import Tap

__all__ = ["Compression", "Logging", "Tap"]
