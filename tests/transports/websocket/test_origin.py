"""Which requests a server refuses by their Host and Origin."""

from __future__ import annotations

import pytest

from trioxport.transports._origin import Admission

LOCAL = Admission("127.0.0.1")
NAMED = Admission("0.0.0.0", hosts=["mcp.example.com"], origins=["https://app.example.org"])
ANYWHERE = Admission("192.0.2.1")


@pytest.mark.parametrize(
    ("admission", "host", "origin"),
    [
        (LOCAL, "127.0.0.1:8000", None),
        (LOCAL, "localhost", None),
        (LOCAL, "[::1]:8000", None),
        (LOCAL, "LOCALHOST:8000", "http://localhost:3000"),
        (LOCAL, "127.0.0.1:8000", "http://127.0.0.1:8000"),
        (Admission("localhost"), "127.0.0.1", None),
        (Admission("127.0.0.1", hosts=["mcp.test"]), "mcp.test:8000", "http://mcp.test:8000"),
        (Admission("127.0.0.1", origins=["*"]), "localhost", "https://anywhere.example"),
        (Admission("127.0.0.1", origins=["null"]), "localhost", "null"),
        (NAMED, "mcp.example.com", "https://app.example.org:443"),
        (NAMED, "mcp.example.com:443", "https://MCP.example.com"),
        (ANYWHERE, "whatever.example", None),
    ],
)
def test_admitted(admission: Admission, host: str, origin: str | None) -> None:
    assert admission.refusal(host, origin) is None


@pytest.mark.parametrize(
    ("admission", "host", "origin", "about"),
    [
        (LOCAL, None, None, "Host"),
        (LOCAL, "", None, "Host"),
        (LOCAL, "evil.example:8000", "http://evil.example:8000", "Host"),  # a rebound name
        (LOCAL, "localhost.evil.example", None, "Host"),
        (LOCAL, "evil.example@localhost", None, "Host"),
        (LOCAL, "localhost:port", None, "Host"),
        (LOCAL, "localhost", "https://evil.example", "Origin"),
        (LOCAL, "localhost", "null", "Origin"),
        (LOCAL, "localhost", "", "Origin"),
        (LOCAL, "localhost", "http://[", "Origin"),
        (NAMED, "other.example.com", None, "Host"),
        (NAMED, "mcp.example.com", "http://app.example.org", "Origin"),
        (NAMED, "mcp.example.com", "https://app.example.org:8443", "Origin"),
        (ANYWHERE, "evil.example", "http://evil.example", "Origin"),  # nobody said that this is its own name
    ],
)
def test_refused(admission: Admission, host: str | None, origin: str | None, about: str) -> None:
    refusal = admission.refusal(host, origin)
    assert refusal is not None and about in refusal.client_reason
    assert refusal.counted_as == f"403 Forbidden ({about})"
