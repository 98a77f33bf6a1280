"""A catalogue of what WebSocket peers send, and of what RFC 6455 makes of it.

The sections are those of the Autobahn catalogue: 1 messages, 2 pings, 3 reserved bits, 4 reserved opcodes, 5 fragments,
6 UTF-8, 7 closing, 9 limits (of smaller sizes here) and 10 one long message in many fragments. Within a section the
order is the catalogue's, as far as its descriptions tell. Section 0 is what the RFC has besides: lengths and masks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

import attrs

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

KIB: Final = 1024

Chop: TypeAlias = int | Literal["whole", "frames", "pauses"]
"""How it is sent: in pieces of so many bytes, all at once, a frame at a time, or so with pauses."""
Said: TypeAlias = tuple[int, bytes]
"""The opcode and the payload of a frame that is answered."""


@attrs.frozen
class Sent:
    """A frame that a peer sends; ``size`` is how its length is written, where that is not the shortest way."""

    opcode: int
    payload: bytes = attrs.field(default=b"", repr=lambda payload: repr(payload[:40]))
    final: bool = True
    reserved: int = 0
    size: bytes | None = None
    wrong_mask: bool = False

    def written(self, key: bytes | None) -> bytes:
        """The bytes of the frame, masked if there is a key, or just then not."""
        if self.wrong_mask:
            key = b"\x01\x02\x03\x04" if key is None else None
        first = self.final << 7 | self.reserved << 4 | self.opcode
        size = self.size or _size(len(self.payload))
        masked = b"" if key is None else key
        payload = self.payload if key is None else masked_with(key, self.payload)
        return bytes([first, size[0] | (0x80 if masked else 0)]) + size[1:] + masked + payload


def masked_with(key: bytes, payload: bytes) -> bytes:
    """The payload masked, or unmasked."""
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")


def _size(size: int) -> bytes:
    if size < 126:
        return bytes([size])
    return b"\x7e" + size.to_bytes(2, "big") if size < 1 << 16 else b"\x7f" + size.to_bytes(8, "big")


@attrs.frozen
class Case:
    """The bytes that are sent, and the behaviour that has to follow.

    Args:
        number: Its place in the catalogue.
        frames: What is sent.
        answers: What is answered, in this order.
        close: The code of the close frame in the end; 1005 for one without a code.
        chop: How it is sent.
        cut_short: Whether answers may be missing at the end: what is behind a violation or a close frame in the same
            piece can be looked at before the messages in front of it are answered.
    """

    number: str
    frames: Sequence[Sent]
    answers: Sequence[Said] = ()
    close: int = 1000
    chop: Chop = "whole"
    cut_short: bool = False

    @property
    def section(self) -> str:
        return self.number.partition(".")[0]

    @property
    def binary(self) -> bool:
        """Whether it is about binary messages."""
        return any(frame.opcode == BINARY for frame in self.frames)


def close_frame(code: int | None = 1000, reason: bytes = b"") -> Sent:
    return Sent(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)


def fine(number: str, frames: Iterable[Sent], answers: Iterable[Said], chop: Chop = "whole") -> Case:
    """It is all allowed; in the end the connection is closed as it should be."""
    return Case(number, [*frames, close_frame()], [*answers], chop=chop)


def wrong(number: str, frames: Iterable[Sent], before: Iterable[Said] = (), chop: Chop = "whole") -> Case:
    """It ends in a protocol error."""
    return Case(number, [*frames], [*before], 1002, chop, cut_short=True)


def parts(opcode: int, *payloads: bytes) -> list[Sent]:
    """One message in so many frames."""
    last = len(payloads) - 1
    return [Sent(CONTINUATION if at else opcode, payload, at == last) for at, payload in enumerate(payloads)]


def octets(payload: bytes) -> list[bytes]:
    return [payload[at : at + 1] for at in range(len(payload))]


def pieces(payload: bytes, size: int) -> list[bytes]:
    return [payload[at : at + size] for at in range(0, len(payload), size)]


def beyond() -> Iterator[Case]:
    """Lengths and masks."""
    for at, (size, length) in enumerate(
        [(b"\x7e\x00\x05", 5), (b"\x7e\x00\x7d", 125), (_wide(5), 5), (_wide(65535), 65535)]
    ):
        yield wrong(f"0.1.{at + 1}", [Sent(TEXT, b"*" * length, size=size)])
    yield wrong("0.1.5", [Sent(BINARY, size=b"\x7f" + b"\xff" * 8)])
    yield wrong("0.1.6", [Sent(BINARY, size=_wide(1 << 63))])
    for at, opcode in enumerate((TEXT, BINARY, PING, PONG, CLOSE)):
        yield wrong(f"0.2.{at + 1}", [Sent(opcode, b"", wrong_mask=True)])
    yield wrong("0.2.6", [Sent(TEXT, b"one"), Sent(TEXT, b"two", wrong_mask=True)], [(TEXT, b"one")])
    yield wrong("0.2.7", [Sent(TEXT, b"one", final=False), Sent(CONTINUATION, b"two", wrong_mask=True)])


def _wide(size: int) -> bytes:
    return b"\x7f" + size.to_bytes(8, "big")


def messages() -> Iterator[Case]:
    sizes: list[tuple[int, Chop]] = [(size, "whole") for size in (0, 125, 126, 127, 128, 65535, 65536)]
    for group, opcode, filling in ((1, TEXT, b"*"), (2, BINARY, b"\xfe")):
        for at, (size, chop) in enumerate([*sizes, (65536, 997)]):
            payload = filling * size
            yield fine(f"1.{group}.{at + 1}", [Sent(opcode, payload)], [(opcode, payload)], chop)


def pings() -> Iterator[Case]:
    raw = bytes.fromhex("00fffefdfcfb00ff")
    for at, payload in enumerate((b"", b"Hello, world!", raw, b"\xfe" * 125)):
        yield fine(f"2.{at + 1}", [Sent(PING, payload)], [(PONG, payload)])
    yield wrong("2.5", [Sent(PING, b"\xfe" * 126)])
    yield fine("2.6", [Sent(PING, b"\xfe" * 125)], [(PONG, b"\xfe" * 125)], 1)
    yield fine("2.7", [Sent(PONG)], [])
    yield fine("2.8", [Sent(PONG, b"unsolicited")], [])
    yield fine("2.9", [Sent(PONG, b"unsolicited"), Sent(PING, b"asked")], [(PONG, b"asked")])
    names = [b"payload-%d" % number for number in range(10)]
    ways: list[tuple[str, Chop]] = [("2.10", "whole"), ("2.11", 1)]
    for number, chop in ways:
        yield fine(number, [Sent(PING, name) for name in names], [(PONG, name) for name in names], chop)


def reserved_bits() -> Iterator[Case]:
    hello, ping = Sent(TEXT, b"Hello, world!"), Sent(PING)
    answer = [(TEXT, b"Hello, world!")]
    yield wrong("3.1", [Sent(TEXT, b"Hello, world!", reserved=1)])
    ways: list[tuple[int, Chop]] = [(2, "whole"), (3, "frames"), (4, 1)]
    for at, (bits, chop) in enumerate(ways):
        yield wrong(f"3.{at + 2}", [hello, Sent(TEXT, b"Hello, world!", reserved=bits), ping], answer, chop)
    yield wrong("3.5", [Sent(BINARY, b"\x00\xff\xfe", reserved=5)])
    yield wrong("3.6", [Sent(PING, b"Hello, world!", reserved=6)])
    yield wrong("3.7", [Sent(CLOSE, b"\x03\xe8", reserved=7)])


def reserved_opcodes() -> Iterator[Case]:
    hello, ping = Sent(TEXT, b"Hello, world!"), Sent(PING)
    for group, first in ((1, 3), (2, 11)):
        yield wrong(f"4.{group}.1", [Sent(first)])
        yield wrong(f"4.{group}.2", [Sent(first + 1, b"reserved opcode")])
        followed: list[tuple[bytes, Chop]] = [(b"", "whole"), (b"reserved opcode", "frames"), (b"reserved opcode", 1)]
        for at, (payload, chop) in enumerate(followed):
            frames = [hello, Sent(first + 2 + at, payload), ping]
            yield wrong(f"4.{group}.{at + 3}", frames, [(TEXT, b"Hello, world!")], chop)


def fragments() -> Iterator[Case]:
    for number, opcode in ((1, PING), (2, PONG)):
        yield wrong(f"5.{number}", parts(opcode, b"fragment1", b"fragment2"))
    two = parts(TEXT, b"fragment1", b"fragment2")
    whole = (TEXT, b"fragment1fragment2")
    ways: list[Chop] = ["whole", "frames", 1]
    for at, chop in enumerate(ways):
        yield fine(f"5.{3 + at}", two, [whole], chop)
        yield fine(f"5.{6 + at}", [two[0], Sent(PING, b"ping"), two[1]], [(PONG, b"ping"), whole], chop)
        for first, final in ((9, True), (12, False)):
            lost = Sent(CONTINUATION, b"non-continuation payload", final)
            yield wrong(f"5.{first + at}", [lost, Sent(TEXT, b"Hello, world!")], chop=chop)
    yield wrong("5.15", [*two, Sent(CONTINUATION, b"fragment3", final=False), Sent(TEXT, b"fragment4")], [whole])
    for at, final in enumerate((False, True)):
        lost = Sent(CONTINUATION, b"fragment1", final)
        yield wrong(f"5.{16 + at}", [lost, *two, lost, *two])
    yield wrong("5.18", [Sent(TEXT, b"fragment1", final=False), Sent(TEXT, b"fragment2")])
    five = parts(TEXT, *(b"fragment%d" % number for number in range(1, 6)))
    five[2:2] = [Sent(PING, b"pongme 1!")]
    five[5:5] = [Sent(PING, b"pongme 2!")]
    answers = [(PONG, b"pongme 1!"), (PONG, b"pongme 2!"), (TEXT, b"fragment1fragment2fragment3fragment4fragment5")]
    yield fine("5.19", five, answers, "pauses")
    yield fine("5.20", five, answers)


def text(
    number: str, payload: bytes, fragments: Sequence[bytes] | None = None, *, valid: bool, chop: Chop = "whole"
) -> Case:
    """A text, which is echoed if it is UTF-8, or else ends the connection with 1007."""
    frames = parts(TEXT, *([payload] if fragments is None else fragments))
    return fine(number, frames, [(TEXT, payload)], chop) if valid else Case(number, frames, close=1007, chop=chop)


KOSME: Final = "κόσμε".encode()
UMLAUTS: Final = "Hello-µ@ßöäüàá-UTF-8!!".encode()
TOO_HIGH: Final = bytes.fromhex("f4908080")
SURROGATE: Final = bytes.fromhex("eda080")


def some_texts() -> Iterator[Case]:
    yield text("6.1.1", b"", valid=True)
    yield text("6.1.2", b"", [b"", b"", b""], valid=True)
    yield text("6.1.3", b"middle frame payload", [b"", b"middle frame payload", b""], valid=True)
    yield text("6.2.1", UMLAUTS, valid=True)
    yield text("6.2.2", UMLAUTS, [UMLAUTS[:12], UMLAUTS[12:]], valid=True)
    yield text("6.2.3", UMLAUTS, octets(UMLAUTS), valid=True)
    yield text("6.2.4", KOSME, octets(KOSME), valid=True)
    broken = KOSME + SURROGATE + b"edited"
    yield text("6.3.1", broken, valid=False)
    yield text("6.3.2", broken, octets(broken), valid=False)
    ways: list[tuple[bytes, Chop]] = [
        (KOSME, "frames"),
        (KOSME + TOO_HIGH[:2], "frames"),
        (KOSME, "pauses"),
        (KOSME, 1),
    ]
    for at, (first, chop) in enumerate(ways):
        rest = (KOSME + TOO_HIGH).removeprefix(first)
        yield text(f"6.4.{at + 1}", b"", [first, rest, b"edited"], valid=False, chop=chop)


def _hex(*payloads: str) -> list[bytes]:
    return [bytes.fromhex(payload) for payload in payloads]


_PREFIXES: Final = [KOSME[: at + 1] for at in range(len(KOSME))]
_SURROGATES: Final = ("eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80", "edbfbf")
_NON_CHARACTERS: Final = [chr(plane << 16 | low).encode() for plane in range(17) for low in (0xFFFE, 0xFFFF)]

TEXTS: Final[list[tuple[str, bool, list[bytes]]]] = [
    ("valid sequences", True, [KOSME, "Ω☃𐍈".encode(), b"\x7f", b"\x00"]),
    ("prefixes that end between characters", True, [p for p in _PREFIXES if len(p) in (2, 4, 6, 8, 10)]),
    ("prefixes that end within one", False, [p for p in _PREFIXES if len(p) not in (2, 4, 6, 8, 10)]),
    ("the first of each length", True, _hex("00", "c280", "e0a080", "f0908080")),
    ("the first of lengths that UTF-8 does not have", False, _hex("f888808080", "fc8480808080")),
    ("the last of each length", True, _hex("7f", "dfbf", "efbfbf", "f48fbfbf")),
    ("beyond the last of each length", False, _hex("f7bfbfbf", "fbbfbfbfbf", "fdbfbfbfbfbf")),
    ("at boundaries", True, _hex("ed9fbf", "ee8080", "efbfbd", "f48fbfbf")),
    ("beyond U+10FFFF", False, _hex("f4908080", "f5808080")),
    (
        "continuation bytes",
        False,
        [b"\x80", b"\xbf", *(b"\x80\xbf" * n + b"\x80" * m for n in (1, 2, 3) for m in (0, 1))],
    ),
    ("all continuation bytes", False, [bytes(range(0x80, 0xC0))]),
    (
        "lonely starts",
        False,
        [
            b" ".join(octets(bytes(range(*ends)))) + b" "
            for ends in ((0xC0, 0xE0), (0xE0, 0xF0), (0xF0, 0xF8), (0xF8, 0xFC), (0xFC, 0xFE))
        ],
    ),
    (
        "the last byte missing",
        False,
        _hex("c0", "e080", "f08080", "f8808080", "fc80808080", "df", "efbf", "f7bfbf", "fbbfbfbf", "fdbfbfbfbf"),
    ),
    ("incomplete ones in a row", False, _hex("c0e080f08080f8808080fc80808080dfefbff7bfbffbbfbfbffdbfbfbfbf")),
    ("impossible bytes", False, _hex("fe", "ff", "fefeffff")),
    ("a slash that is too long", False, _hex("c0af", "e080af", "f08080af", "f8808080af", "fc80808080af")),
    ("the last that are too long", False, _hex("c1bf", "e09fbf", "f08fbfbf", "f887bfbfbf", "fc83bfbfbfbf")),
    ("NUL that is too long", False, _hex("c080", "e08080", "f0808080", "f880808080", "fc8080808080")),
    ("single surrogates", False, _hex(*_SURROGATES)),
    (
        "pairs of surrogates",
        False,
        _hex(*(high + low for high in ("eda080", "edadbf", "edae80", "edafbf") for low in ("edb080", "edbfbf"))),
    ),
    ("code points of no character", True, _NON_CHARACTERS),
    ("specials", True, [chr(point).encode() for point in range(0xFFF9, 0x10000)]),
]
"""What the texts of a group have in common, whether they are UTF-8, and the texts: 6.5 and on."""


def many_texts() -> Iterator[Case]:
    for group, (_about, valid, payloads) in enumerate(TEXTS):
        for at, payload in enumerate(payloads):
            yield text(f"6.{5 + group}.{at + 1}", payload, valid=valid)
        yield text(f"6.{5 + group}.{len(payloads) + 1}", payloads[-1], octets(payloads[-1]), valid=valid)


VALID_CODES: Final = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999, 1012, 1013, 1014)
INVALID_CODES: Final = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999)


def closing() -> Iterator[Case]:
    hello, answer = Sent(TEXT, b"Hello World!"), (TEXT, b"Hello World!")
    large = b"BAsd7&jh23" * 26_000
    yield Case("7.1.1", [hello, close_frame()], [answer])
    yield Case("7.1.2", [close_frame(), close_frame()])
    yield Case("7.1.3", [close_frame(), Sent(PING)])
    yield Case("7.1.4", [close_frame(), hello])
    first, last = parts(TEXT, b"fragment1", b"fragment2")
    yield Case("7.1.5", [first, close_frame(), last])
    yield Case("7.1.6", [Sent(TEXT, large), hello, close_frame(), Sent(PING)], [(TEXT, large), answer])
    yield Case("7.3.1", [close_frame(None)], close=1005)
    yield Case("7.3.2", [Sent(CLOSE, b"a")], close=1002)
    for at, reason in enumerate((b"", b"Hello World!", b"*" * 123)):
        yield Case(f"7.3.{at + 3}", [close_frame(1000, reason)])
    yield Case("7.3.6", [close_frame(1000, b"*" * 124)], close=1002)
    yield Case("7.5.1", [close_frame(1000, KOSME + SURROGATE + b"edited")], close=1007)
    for at, code in enumerate(VALID_CODES):
        yield Case(f"7.7.{at + 1}", [close_frame(code)], close=code)
    for at, code in enumerate(INVALID_CODES):
        yield Case(f"7.9.{at + 1}", [close_frame(code)], close=1002)
    for at, code in enumerate((5000, 65535)):
        yield Case(f"7.13.{at + 1}", [close_frame(code)], close=1002)


def limits() -> Iterator[Case]:
    sizes = (64 * KIB, 256 * KIB, KIB * KIB)
    for group, opcode, filling in ((0, TEXT, b"*"), (1, BINARY, b"\xfe")):
        for at, size in enumerate(sizes):
            payload = filling * size
            yield fine(f"9.{group + 1}.{at + 1}", [Sent(opcode, payload)], [(opcode, payload)])
        payload = filling * 256 * KIB
        for at, size in enumerate((64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB)):
            yield fine(f"9.{group + 3}.{at + 1}", parts(opcode, *pieces(payload, size)), [(opcode, payload)])
        for at, chop in enumerate((64, 128, 256, 512, KIB, 2 * KIB)):
            payload = filling * chop * 200
            yield fine(f"9.{group + 5}.{at + 1}", [Sent(opcode, payload)], [(opcode, payload)], chop)
        for at, size in enumerate((0, 16, 64, 256, KIB, 4 * KIB)):
            payload = filling * size
            yield fine(f"9.{group + 7}.{at + 1}", [Sent(opcode, payload)] * 100, [(opcode, payload)] * 100)


def long_message() -> Iterator[Case]:
    payload = b"*" * 65536
    yield fine("10.1.1", parts(TEXT, *pieces(payload, 1300)), [(TEXT, payload)])


CASES: Final = [
    case
    for made in (
        *(beyond, messages, pings, reserved_bits, reserved_opcodes, fragments),
        *(some_texts, many_texts, closing, limits, long_message),
    )
    for case in made()
]
