"""Content codings (RFC 9110, section 8.4.1): gzip, deflate, zstd and brotli, none of which expands beyond a limit.

gzip and deflate come with Python, and zstd does from 3.14 on; the others are extras, imported when they are used.
"""

from __future__ import annotations

import sys
import zlib
from functools import cache
from importlib import import_module
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

import attrs

from trioxport._diagnostics.hints import install_hint
from trioxport.errors import DecodeError, MessageTooLarge, UsageError
from trioxport.frames import EXCERPT_BYTES

Coding: TypeAlias = Literal["gzip", "deflate", "zstd", "br"]
"""The name of a content coding, as HTTP has it."""

CODINGS: Final[tuple[Coding, ...]] = get_args(Coding)

PIECE_BYTES: Final = 64 * 1024
"""Bytes that are expanded in one step."""

_MAX_WINDOW_LOG: Final = 23
"""Base-two logarithm of the largest zstd window: 8 MiB (RFC 9659)."""

_EXTRAS: Final = {"zstd": "zstd", "br": "brotli"}
_ZLIB_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_EFFORTS: Final = {"gzip": (0, 9, 4), "deflate": (0, 9, 4), "zstd": (1, 19, 3), "br": (0, 11, 4)}


class Expander(Protocol):
    """An incremental decoder of one coded stream."""

    def feed(self, data: bytes) -> None:
        """Add the next bytes of the stream. Everything that the bytes before them expand to has to be read first."""
        ...

    def read(self) -> bytes:
        """Return the next expanded bytes, a few pieces at most; none at the end or if more has to be fed.

        Raises:
            DecodeError: The stream is damaged.
        """
        ...

    @property
    def over(self) -> bool:
        """Whether the end of the stream was read."""
        ...

    @property
    def surplus(self) -> bool:
        """Whether more was fed than the stream is long."""
        ...


@attrs.frozen
class Unexpanded:
    """A payload that could not be expanded.

    Args:
        error: The reason.
        excerpt: The beginning of the expanded payload.
    """

    error: DecodeError | MessageTooLarge
    excerpt: bytes


def require(coding: Coding) -> None:
    """Raise ``UsageError`` for a coding that is unknown or not installed, with the extra to install as its hint."""
    if coding not in CODINGS:
        raise UsageError(f"{coding!r} is no content coding known here", hint=f"Use one of {', '.join(CODINGS)}")
    expander(coding)


def known(name: str) -> Coding | None:
    """The coding of that name; None for an unknown one."""
    return next((coding for coding in CODINGS if coding == name), None)


def is_available(coding: Coding) -> bool:
    """Whether this program can use the coding."""
    try:
        require(coding)
    except UsageError:
        return False
    return True


@cache
def accepted_codings() -> str:
    """The codings that are installed, as ``Accept-Encoding`` lists them (RFC 9110, section 12.5.3)."""
    return ", ".join(coding for coding in CODINGS if is_available(coding))


def accepts(field: str, coding: Coding) -> bool:
    """Whether an ``Accept-Encoding`` field names ``coding`` (RFC 9110, section 12.5.3)."""
    qualities: dict[str, bool] = {}
    for member in field.split(","):
        name, _, weight = member.partition(";")
        _, _, quality = weight.partition("=")
        qualities[name.strip().lower()] = quality.strip(" 0.") != "" or not weight
    return qualities.get(coding, qualities.get("*", False))


def check_effort(coding: Coding, effort: int | None) -> None:
    """Raise ``UsageError`` for an effort that the coding does not have."""
    least, most, _ = _EFFORTS[coding]
    if effort is not None and not least <= effort <= most:
        raise UsageError(f"the effort of {coding} is from {least} to {most}, not {effort}")


def compress(coding: Coding, payload: bytes, effort: int | None = None) -> bytes:
    """Compress ``payload``. Raises ``UsageError`` if the coding is not installed."""
    effort = _EFFORTS[coding][2] if effort is None else effort
    if coding == "zstd":
        return bytes(_zstd().compress(payload, level=effort))
    if coding == "br":
        return bytes(_brotli().compress(payload, quality=effort))
    compressor = zlib.compressobj(effort, wbits=_ZLIB_WINDOW_BITS[coding])
    return compressor.compress(payload) + compressor.flush()


def expander(coding: Coding) -> Expander:
    """An expander for one stream. Raises ``UsageError`` if the coding is not installed."""
    if coding == "zstd":
        return _Zstd(_zstd())
    if coding == "br":
        return _Brotli(_brotli())
    return _Zlib(_ZLIB_WINDOW_BITS[coding])


def expand(coding: Coding, payload: bytes, max_size: int) -> bytes | Unexpanded:
    """Expand ``payload``, which has to be one complete stream and ``max_size`` bytes at most.

    Expanding stops a few pieces after ``max_size`` bytes. Raises ``UsageError`` if the coding is not installed.
    """
    stream = expander(coding)
    expanded = bytearray()
    error: DecodeError | MessageTooLarge | None = None
    try:
        stream.feed(payload)
        while len(expanded) <= max_size and (piece := stream.read()):
            expanded += piece
        if len(expanded) > max_size:
            error = MessageTooLarge(f"a message in {coding} expands to more than the limit of {max_size} bytes")
        elif not stream.over:
            error = DecodeError(f"a message in {coding} is cut short")
        elif stream.surplus:
            error = DecodeError(f"something follows a message in {coding}")
    except DecodeError as found:
        error = found
    return bytes(expanded) if error is None else Unexpanded(error, bytes(expanded[:EXCERPT_BYTES]))


class _Zlib:
    def __init__(self, window: int) -> None:
        self._stream = zlib.decompressobj(window)
        self._name = "gzip" if window > zlib.MAX_WBITS else "deflate"
        self._waiting = memoryview(b"")

    def feed(self, data: bytes) -> None:
        self._waiting = memoryview(bytes(self._waiting) + data)

    def read(self) -> bytes:
        piece = b""
        while not piece and not self.over:
            data: bytes | memoryview = self._stream.unconsumed_tail
            if not data:  # in slices, because what is not consumed is copied each time
                data, self._waiting = self._waiting[:PIECE_BYTES], self._waiting[PIECE_BYTES:]
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise _broken(self._name, error) from error
            if not data:
                break
        return piece

    @property
    def over(self) -> bool:
        return self._stream.eof

    @property
    def surplus(self) -> bool:
        return bool(self._stream.unused_data) or (self.over and bool(self._waiting))


class _Zstd:
    def __init__(self, module: Any) -> None:
        self._stream = module.ZstdDecompressor(options={module.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
        self._error: type[Exception] = module.ZstdError
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        self._waiting += data

    def read(self) -> bytes:
        if self.over:
            return b""
        data, self._waiting = self._waiting, b""
        try:
            return bytes(self._stream.decompress(data, PIECE_BYTES))
        except self._error as error:
            raise _broken("zstd", error) from error

    @property
    def over(self) -> bool:
        return bool(self._stream.eof)

    @property
    def surplus(self) -> bool:
        return bool(self._waiting) or (self.over and bool(self._stream.unused_data))


class _Brotli:
    def __init__(self, module: Any) -> None:
        self._stream = module.Decompressor()
        self._error: type[Exception] = module.error
        self._waiting = b""

    def feed(self, data: bytes) -> None:
        self._waiting += data

    def read(self) -> bytes:
        if self.over:
            return b""
        data = b""
        if self._stream.can_accept_more_data():
            data, self._waiting = self._waiting, b""
        try:
            return bytes(self._stream.process(data, output_buffer_limit=PIECE_BYTES))
        except self._error as error:
            raise _broken("br", error) from error

    @property
    def over(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def surplus(self) -> bool:
        return bool(self._waiting)


def _broken(coding: str, error: Exception) -> DecodeError:
    return DecodeError(f"a message in {coding} is damaged: {error}")


def _zstd() -> Any:
    return _imported("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "zstd")


def _brotli() -> Any:
    module = _imported("brotli", "br")
    if not hasattr(module.Decompressor, "can_accept_more_data"):
        raise UsageError("this release of brotli cannot limit the size of its output", hint=install_hint("brotli"))
    return module


def _imported(name: str, coding: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"{coding} is not installed", hint=install_hint(_EXTRAS[coding])) from error
