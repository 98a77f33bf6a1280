"""The parser of requests: the same answers however the bytes are cut, and nothing kept beyond its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioxport.transports.http.server.http1.received_head import BadRequest
from trioxport.transports.http.server.http1.request_parser import RequestParser
from trioxport.transports.http.server.options import MAX_FIELDS

BOUND: Final = 1000
HEAD: Final = b"POST /mcp HTTP/1.1\r\nhost: a\r\n"
CHUNKED: Final = HEAD + b"transfer-encoding: chunked\r\n\r\n"
GET: Final = b"GET /next HTTP/1.1\r\nhost: b\r\n\r\n"


def read(*parts: bytes) -> list[object]:
    """Return the head and the body of each request, or the status of the refusal, after which nothing is read."""
    parser, found, body = RequestParser(BOUND), list[object](), None
    try:
        for part in parts:
            parser.receive(part)
            while body is not None or (parser.keeps_alive and parser.read_head()):
                if body is None:
                    head = parser.head
                    found.append((head.method, head.target, head.version, head.headers))
                body = (body or b"") + parser.read_body()
                if not parser.is_over:
                    break
                found.append(body)
                body = None
    except BadRequest as refused:
        found.append(refused.status)
    finally:
        parser.close()
    return found


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (HEAD + b"content-length: 2\r\n\r\nab" + GET, [b"ab", b""]),
        (HEAD + b"content-length: 0002\r\n\r\nab" + GET, [b"ab", b""]),
        (HEAD + b"\r\n" + GET, [b"", b""]),
        (CHUNKED + b"2\r\nab\r\n00003;x=y\r\ncde\r\n0\r\n\r\n" + GET, [b"abcde", b""]),
        (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\nt: v\r\nu: w\r\n\r\n" + GET, [b"\r\n\r\n", b""]),
        (HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nab" + GET, [b"ab", b""]),
        (HEAD + b"connection: upgrade\r\nupgrade: h2c\r\n\r\n" + GET, [b"", b""]),
        (
            CHUNKED.replace(b"a\r\n", b"a\r\nconnection: upgrade\r\nupgrade: x\r\n", 1) + b"1\r\na\r\n0\r\n\r\n" + GET,
            [b"a", b""],
        ),
        (HEAD + b"connection: x, Close\r\n\r\n" + GET, [b""]),
        (HEAD.replace(b"1.1", b"1.0") + b"connection: keep-alive\r\n\r\n" + GET, [b""]),
        (CHUNKED + b"2\r\nabc\r\n0\r\n\r\n" + GET, [400]),
        (CHUNKED + b"2\r\nab\r\n0\r\n x: y\r\n\r\n" + GET, [400]),
        (CHUNKED + b"2;\r\nab\r\n0\r\n\r\n" + GET, [400]),
        (CHUNKED + b"g\r\n" + GET, [400]),
    ],
)
def test_the_end_of_a_request_is_known_however_the_bytes_are_cut(data: bytes, answers: Sequence[object]) -> None:
    whole = read(data)
    assert [answer for answer in whole if not isinstance(answer, tuple)] == list(answers)
    assert read(*(data[place : place + 1] for place in range(len(data)))) == whole
    for cut in range(len(data)):
        assert read(data[:cut], data[cut:]) == whole


@given(st.lists(st.integers(0, 600), max_size=8), st.integers(0, 3))
def test_requests_behind_each_other_are_cut_at_their_ends(cuts: list[int], chunks: int) -> None:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [b"GET / HTTP/1.1\r\n\r\n"] * chunks)
    data = (CHUNKED + body + b"0\r\nx: y\r\n\r\n" + HEAD + b"content-length: 18\r\n\r\nGET / HTTP/1.1\r\n\r\n") * 3
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    found = read(*(data[start:end] for start, end in pairwise(places)))
    assert found == read(data)
    assert [answer for answer in found if isinstance(answer, bytes)] == [
        b"GET / HTTP/1.1\r\n\r\n" * chunks,
        b"GET / HTTP/1.1\r\n\r\n",
    ] * 3
    assert len(found) == 12


@pytest.mark.parametrize(
    "data",
    [
        b"POST /" + b"a" * BOUND,
        HEAD + b"x: " + b"y" * BOUND,
        b"\r\n" * BOUND,
        HEAD + b"x: y\r\n" * (MAX_FIELDS // 4) * 5,
        CHUNKED + b"1;" + b"x" * BOUND,
        CHUNKED + (b"1;" + b"x" * 100 + b"\r\na\r\n") * 20,
        CHUNKED + b"0\r\nx: " + b"y" * BOUND,
        CHUNKED + b"0\r\n" + b"x: y\r\n" * BOUND,
    ],
)
def test_a_part_without_an_end_is_refused_at_the_bound(data: bytes) -> None:
    """It is refused before the client has sent twice the bound, and if it is cut differently just as well."""
    assert read(data)[-1] == 431
    assert read(*(data[place : place + 7] for place in range(0, 2 * BOUND, 7)))[-1] == 431


def test_many_small_chunks_are_no_flood_of_extensions() -> None:
    data = b"1\r\na\r\n" * BOUND
    assert read(CHUNKED + data + b"0\r\n\r\n")[1:] == [b"a" * BOUND]


def test_headers_beyond_the_number_are_refused() -> None:
    parser = RequestParser(64 * 1024)
    parser.receive(HEAD + b"x: y\r\n" * MAX_FIELDS + b"\r\n")
    with pytest.raises(BadRequest) as refused:
        parser.read_head()
    assert refused.value.status == 431


REQUESTS: Final = (
    HEAD + b"content-length: 3\r\n\r\nabc",
    HEAD + b"content-length: 3\r\n\r\n\r\n\r",
    HEAD + b"content-length: 0\r\n\r\n",
    HEAD + b"expect: 100-continue\r\ncontent-length: 1\r\n\r\na",
    CHUNKED + b"2\r\nab\r\n0\r\nx: y\r\n\r\n",
    HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 2\r\n\r\nab",
    b"GET http://other/x%20y?q HTTP/1.1\r\nhost: b\r\n\r\n",
    GET,
)


@given(st.lists(st.sampled_from(REQUESTS), max_size=12), st.lists(st.integers(0, 900), max_size=4))
def test_a_head_that_is_known_is_read_like_one_that_is_not(requests: list[bytes], cuts: list[int]) -> None:
    data = b"".join(requests)
    places = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    each = [answer for part in requests for answer in read(part)]
    assert read(*(data[start:end] for start, end in pairwise(places))) == each
