"""Framing of byte streams, sans-IO: the delimiting of payloads. Linear in the size of the input."""

from typing import Final, get_args

from trioxport._diagnostics.validators import one_of
from trioxport.framing.base import Decoder, Framing, FramingName, Oversized
from trioxport.framing.length import LENGTH
from trioxport.framing.newline import NEWLINE

FRAMINGS: Final[dict[FramingName, Framing]] = {"newline": NEWLINE, "length": LENGTH}
FRAMING: Final = one_of(*get_args(FramingName))
"""The check for options that are the name of a framing."""

__all__ = ["FRAMING", "FRAMINGS", "LENGTH", "NEWLINE", "Decoder", "Framing", "FramingName", "Oversized"]
