"""The HTTP Archive of a timeline, read by a program of others."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from haralyzer import HarParser  # type: ignore[import-untyped]  # it has no stubs

from tests.diagnosis.lines import CONVERSATION, line, recorded, request
from trioxport.diagnosis.har import har_of
from trioxport.diagnosis.recording import Recording
from trioxport.diagnosis.timeline import timeline_of

REQUIRED = {
    "": {"startedDateTime", "time", "request", "response", "cache", "timings"},
    "request": {"method", "url", "httpVersion", "cookies", "headers", "queryString", "headersSize", "bodySize"},
    "response": {
        *("status", "statusText", "httpVersion", "cookies", "headers", "content", "redirectURL", "headersSize"),
        "bodySize",
    },
}
"""The members that HAR 1.2 requires."""


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        json.dumps(har_of(timeline_of(Recording(recorded(tmp_path / "r", *CONVERSATION)))))
    )
    return found


def test_each_request_and_notification_is_an_entry(archive: dict[str, Any]) -> None:
    entries = [(each["_method"], each["response"]["status"], each["_state"]) for each in archive["log"]["entries"]]
    assert entries == [
        ("initialize", 200, "answered"),
        ("notifications/initialized", 202, "notification"),
        ("tools/call", 200, "answered"),
        ("tools/call", 200, "tool error"),
        ("sampling/createMessage", 200, "answered"),
        ("resources/read", 0, "cancelled"),
        ("no/such", 200, "error"),
        ("tools/list", 0, "unanswered"),
    ]


def test_an_entry_has_all_that_the_format_requires(archive: dict[str, Any]) -> None:
    assert archive["log"]["version"] == "1.2"
    assert {"name", "version"} <= set(archive["log"]["creator"])
    for entry in archive["log"]["entries"]:
        assert set(entry) >= REQUIRED[""]
        assert set(entry["request"]) >= REQUIRED["request"]
        assert set(entry["response"]) >= REQUIRED["response"]
        assert {"size", "mimeType"} <= set(entry["response"]["content"])
        assert entry["time"] == sum(entry["timings"].values())
        assert datetime.fromisoformat(entry["startedDateTime"]).tzinfo is not None


def test_another_program_reads_it(archive: dict[str, Any]) -> None:
    entries = HarParser(archive).har_data["entries"]
    assert len(entries) == 8
    first = HarParser(archive).pages[0].entries[0] if HarParser(archive).pages else None
    assert first is None or first.request.method == "POST"
    from haralyzer import HarEntry

    entry = HarEntry(entries[2])
    assert (entry.status, entry.request.method, entry.request.url) == (200, "POST", "http://127.0.0.1:8001/mcp")
    assert entry.time == pytest.approx(2000)
    assert json.loads(entry.request.text)["params"]["name"] == "slow"


def test_a_target_that_is_no_url_becomes_one(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r", line(0, "client", request(1, "ping"), target='stdio:python "a b".py'))
    [entry] = har_of(timeline_of(Recording(path)))["log"]["entries"]
    assert entry["request"]["url"] == "stdio:python%20%22a%20b%22.py"
