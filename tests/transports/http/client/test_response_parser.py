"""The parser of responses: the same responses however the bytes are cut, and nothing kept beyond its bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from trioxport.transports.http.client.stack.response_parser import MAX_BARREN_BYTES, BadResponse, ResponseParser

OK: Final = b"HTTP/1.1 200 OK\r\n"
SHORT: Final = OK + b"content-length: 2\r\n\r\nab"
CHUNKED: Final = OK + b"transfer-encoding: chunked\r\n\r\n"


def read(*parts: bytes) -> tuple[int, bytes, bool, bool]:
    """Return the status and the body of the first response, whether it is over, and whether another may follow."""
    parser, body = ResponseParser(), b""
    for part in parts:
        parser.feed(part)
        body += parser.take()
        if parser.is_over:
            break
    assert parser.head is not None
    found = (parser.head.status_code, body, parser.is_over, parser.keeps_alive)
    parser.close()
    return found


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (SHORT, (200, b"ab", True, True)),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + SHORT, (200, b"ab", True, True)),
        (CHUNKED + b"1\r\na\r\n1;x=y\r\nb\r\n0\r\nt: v\r\n\r\n", (200, b"ab", True, True)),
        (OK + b"connection: close\r\ncontent-length: 2\r\n\r\nab", (200, b"ab", True, False)),
        (SHORT.replace(b"1.1", b"1.0"), (200, b"ab", True, False)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", (204, b"", True, True)),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", (304, b"", True, True)),
        (b"HTTP/1.1 202 \r\ncontent-length: 0\r\n\r\n", (202, b"", True, True)),
        (OK + b"\r\nab", (200, b"ab", False, False)),
    ],
)
def test_a_response_is_the_same_however_its_bytes_are_cut(data: bytes, found: object) -> None:
    assert read(data) == found
    assert read(*(data[place : place + 1] for place in range(len(data)))) == found


@pytest.mark.parametrize("more", [SHORT, b"HTTP", b"x", CHUNKED], ids=["a response", "a part", "no HTTP", "a head"])
def test_what_follows_a_response_is_ignored_and_ends_the_connection(more: bytes) -> None:
    assert read(SHORT + more) == (200, b"ab", True, False)
    assert read(OK + b"connection: close\r\ncontent-length: 2\r\n\r\nab" + more) == (200, b"ab", True, False)


def test_one_response_after_another() -> None:
    parser = ResponseParser()
    for number in range(3):
        parser.begin()
        parser.feed(b"HTTP/1.1 20%d OK\r\nx: %d\r\ncontent-length: 1\r\n\r\n%d" % (number, number, number))
        assert parser.head is not None
        assert (parser.head.status_code, parser.head.headers["x"]) == (200 + number, str(number))
        assert parser.take() == b"%d" % number
        assert parser.keeps_alive


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", "not HTTP/1.1"),
        (OK + b"x: a\x1bb\r\n\r\n", "not HTTP/1.1"),
        (OK + b"x: a\r\n b\r\n\r\n", "not HTTP/1.1"),
        (OK + b"x : a\r\n\r\n", "not HTTP/1.1"),
        (OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\na", "not HTTP/1.1"),
        (OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n", "not HTTP/1.1"),
        (OK + b"content-length: 99999999999999999999999\r\n\r\n", "not HTTP/1.1"),
        (CHUNKED + b"g\r\n", "not HTTP/1.1"),
        (CHUNKED + b"1\r\nab\r\n", "not HTTP/1.1"),
        (CHUNKED.replace(b"chunked", b"gzip, chunked"), "transfer coding"),
        (CHUNKED.replace(b"chunked", b"gzip"), "transfer coding"),
        (SHORT.replace(b"1.1", b"2.0"), "another version"),
        (SHORT.replace(b"1.1", b"0.9"), "another version"),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", "another protocol"),
    ],
)
def test_what_has_no_clear_form_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BadResponse, match=reason):
        read(data)


@pytest.mark.parametrize(
    "data",
    [SHORT[:-1], OK, CHUNKED + b"1\r\na\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["a body", "a head", "chunks", "an informational response"],
)
def test_a_connection_that_ends_within_a_response_is_an_error(data: bytes) -> None:
    parser = ResponseParser()
    parser.feed(data)
    with pytest.raises(BadResponse, match="before the end"):
        parser.end()


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    parser = ResponseParser()
    parser.feed(OK + b"\r\nab")
    parser.end()
    assert (parser.take(), parser.is_over, parser.keeps_alive) == (b"ab", True, False)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (OK + b"x: ", lambda: b"y" * 1000),
        (OK, lambda: b"x: y\r\n" * 100),
        (b"", lambda: b"HTTP/1.1 103 Early\r\n\r\n" * 50),
        (b"", lambda: b"\r\n" * 500),
        (CHUNKED + b"1;", lambda: b"x" * 1000),
        (CHUNKED + b"0\r\n", lambda: b"x: y\r\n" * 100),
    ],
    ids=["a header", "headers", "informational responses", "empty lines", "an extension", "trailers"],
)
def test_what_does_not_end_is_refused_at_the_bound(head: bytes, part: Callable[[], bytes]) -> None:
    parser = ResponseParser()
    if head:
        parser.feed(head)

    def feed() -> None:
        for _ in range(MAX_BARREN_BYTES // 500):
            parser.feed(part())

    with pytest.raises(BadResponse, match=f"more than {MAX_BARREN_BYTES} bytes"):
        feed()
