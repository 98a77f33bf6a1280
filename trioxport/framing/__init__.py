"""Framing of byte streams, sans-IO: how payloads are told apart. Linear in the size of the input."""

from typing import Final

from trioxport.framing.base import Decoder, Framing, FramingName, Oversized
from trioxport.framing.length import LENGTH
from trioxport.framing.newline import NEWLINE

FRAMINGS: Final[dict[FramingName, Framing]] = {"newline": NEWLINE, "length": LENGTH}

__all__ = ["FRAMINGS", "LENGTH", "NEWLINE", "Decoder", "Framing", "FramingName", "Oversized"]
