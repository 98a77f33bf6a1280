"""The parsers of bytes from outside, as targets for a fuzzer: each with what has to be true for any bytes.

    python -m pip install atheris
    python tests/fuzz/parsers.py TARGET [OPTION OF LIBFUZZER ...]

as ``python tests/fuzz/parsers.py sse -max_total_time=60``. Without a target, the names of all are printed. Inputs that
a target does not stand are written to the current directory; ``parsers.py TARGET FILE`` tries one again.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final


def sse(data: bytes) -> None:
    """Events are the same however the stream is cut, and what is written is read."""
    from trioxport.framing.sse import Event, EventDecoder, encode_event

    cut, stream = _cut(data)
    whole, parted = EventDecoder(64), EventDecoder(64)
    assert whole.feed(stream) == parted.feed(stream[:cut]) + parted.feed(stream[cut:])
    assert (whole.last_event_id, whole.retry) == (parted.last_event_id, parted.retry)
    [event] = EventDecoder(len(data) + 64).feed(encode_event(data))
    assert event == Event(data.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def framing(data: bytes) -> None:
    """The framings of byte streams and of WebSockets find the same however the stream is cut."""
    from trioxport.framing import LENGTH, NEWLINE
    from trioxport.framing.websocket import MessageDecoder

    cut, stream = _cut(data)
    for decoder in (
        lambda: NEWLINE.decoder(64),
        lambda: LENGTH.decoder(64),
        lambda: MessageDecoder(64, masked=True),
        lambda: MessageDecoder(64, masked=False),
    ):
        whole, parted = decoder(), decoder()
        found: list[Any] = [*whole.feed(stream)]
        assert found == [*parted.feed(stream[:cut]), *parted.feed(stream[cut:])]


def json(data: bytes) -> None:
    """A payload that is taken for a message is the same message once written and read again; others are refused."""
    from trioxport.codecs.json import JSON
    from trioxport.errors import DecodeError, ProtocolViolation

    JSON.identify(data)
    JSON.identify_request(data)
    try:
        message = JSON.decode(data)
    except (DecodeError, ProtocolViolation):
        return
    assert JSON.decode(JSON.encode(message)) == message


def msgpack(data: bytes) -> None:
    """The same for MessagePack."""
    from trioxport.codecs import MessagePack
    from trioxport.errors import DecodeError, ProtocolViolation, UsageError

    MessagePack.identify(data)
    MessagePack.identify_request(data)
    try:
        message = MessagePack.decode(data)
        payload = MessagePack.encode(message)
    except (DecodeError, ProtocolViolation, UsageError):
        return
    assert MessagePack.encode(MessagePack.decode(payload)) == payload


def batch(data: bytes) -> None:
    """A batch comes apart into what makes the same batch again."""
    from trioxport.codecs.batch import is_batch, join_batch, split_batch
    from trioxport.errors import DecodeError, ProtocolViolation

    try:
        parts = split_batch(data)
    except (DecodeError, ProtocolViolation):
        return
    assert is_batch(data) and split_batch(join_batch(parts)) == parts


def headers(data: bytes) -> None:
    """A header's value is decoded or refused, and any text has one; no media type is odd enough to trip on."""
    from trioxport.transports.http.headers import decode_value, encode_value
    from trioxport.transports.http.server.validation import _accepted

    decode_value(data.decode("latin-1"))
    decode_value(f"=?base64?{data.decode('latin-1')}?=")
    text = data.decode(errors="replace")
    assert decode_value(encode_value(text)) == text
    _accepted.__wrapped__(data.decode("latin-1"))


def bodies(data: bytes) -> None:
    """Nothing expands beyond the limit, and what was compressed comes back."""
    from trioxport.codecs.content_codings import compress, expand, known

    for name in ("gzip", "deflate", "zstd", "br"):
        coding = known(name)
        assert coding is not None
        found = expand(coding, data, 1000)
        assert not isinstance(found, bytes) or len(found) <= 1000
        if data:
            assert expand(coding, compress(coding, data), len(data)) == data


def responses(data: bytes) -> None:
    """A response of HTTP/1.1 is the same however the stream is cut, or refused in all cases."""
    from trioxport.transports.http.client.stack.response_parser import BadResponse, ResponseParser

    def read(*parts: bytes) -> tuple[object, ...]:
        parser, body = ResponseParser(), b""
        try:
            for part in filter(None, parts):
                parser.feed(part)
                body += parser.take()
            parser.end()
        except BadResponse:
            return ("refused", parser.head, body + parser.take())
        return (parser.head, parser.is_over, body)

    cut, stream = _cut(data)
    assert read(stream) == read(stream[:cut], stream[cut:])


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (sse, framing, json, msgpack, batch, headers, bodies, responses)
}

SEEDS: Final = (
    b"\x05\xef\xbb\xbfid: 1\r\nevent: a\rdata: b\ndata\nretry: 5\n\n: c\n\n",
    b"\x03\x00\x00\x00\x02ab\n\x00\x00\x01\x00",
    b"\x02\x81\x82\x00\x00\x00\x00hi\x89\x00\x01\x01a\x80\x01b\x88\x02\x03\xe8",
    b'{"jsonrpc": "2.0", "id": 1, "method": "a", "params": {"b": [1.5e3, null, "\\ud800\\u00fc"]}}',
    b'[{"jsonrpc":"2.0","id":"x","result":{}},{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":""}}]',
    b"\x84\xa7jsonrpc\xa32.0\xa2id\x01\xa6method\xa1a\xa6params\x81\xa1b\x92\xcb?\xf8\x00\x00\x00\x00\x00\x00\xc0",
    b"=?base64?w7w=?=",
    b"text/event-stream;q=0.5, application/*;q=0, */*",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03K\x04\x00C\xbe\xb7\xe8\x01\x00\x00\x00",
    b"x\x9cK\x04\x00\x00b\x00b",
    b"\x21HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"\x29HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n",
)
"""Something to begin with for every target."""


def _cut(data: bytes) -> tuple[int, bytes]:
    """A place in a stream, and the stream."""
    return (data[0] if data else 0), data[1:]


def main() -> None:
    if len(sys.argv) < 2:
        sys.stdout.write("\n".join(TARGETS) + "\n")
        return
    import atheris  # type: ignore[import-untyped]  # it has no stubs

    target = TARGETS[sys.argv.pop(1)]
    with atheris.instrument_imports(include=["trioxport"]):
        for seed in SEEDS:  # the target's own imports are those that count
            target(seed)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS):
            Path(corpus, str(number)).write_bytes(seed)
        arguments = sys.argv if any(Path(each).is_file() for each in sys.argv[1:]) else [*sys.argv, corpus]
        atheris.Setup(arguments, target)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
