"""A timeline as an HTTP Archive (HAR 1.2), which browsers' developer tools and other viewers open.

A request of JSON-RPC with its answer is an entry, also where it was carried over something else than HTTP; its status
is 200 if it was answered, 202 for a notification, and 0 without an answer. Members whose names begin with ``_`` are
additions of this program, as the format allows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from trioxport._version import __version__
from trioxport.diagnosis.recording import RecordedMessage
from trioxport.diagnosis.timeline import RecordedRequest, Step, Timeline

_URL_CHARACTERS: Final = ":/?#[]@!$&'()*+,;=%~"
_NO_TIME: Final = {"send": 0, "wait": 0, "receive": 0}
_MEDIA_TYPE: Final = "application/json"


def har_of(timeline: Timeline) -> dict[str, Any]:
    """The archive as a JSON object, with an entry for each request and each notification."""
    entries = [entry for step in timeline.steps if (entry := _entry(step)) is not None]
    return {
        "log": {
            "version": "1.2",
            "creator": {"name": "trioxport", "version": __version__},
            "pages": [],
            "entries": entries,
        }
    }


def _entry(step: Step) -> dict[str, Any] | None:
    """The entry that begins with a message; None for an answer, and what belongs to a request."""
    exchange = step.exchange
    if exchange is None:
        return None if step.recorded.message is None else _entry_of(step.recorded, None, step.label, "notification")
    if step.recorded is exchange.asked:
        return _entry_of(step.recorded, exchange, exchange.label, exchange.state)
    return None


def _entry_of(asked: RecordedMessage, exchange: RecordedRequest | None, label: str, state: str) -> dict[str, Any]:
    milliseconds = 0.0 if exchange is None else (exchange.latency or 0.0) * 1000
    answer = None if exchange is None else exchange.answer
    return {
        "startedDateTime": datetime.fromtimestamp(asked.time, UTC).isoformat(timespec="milliseconds"),
        "time": milliseconds,
        "request": _request(asked),
        "response": _response(answer, 202 if exchange is None else 200 if answer is not None else 0, state),
        "cache": {},
        "timings": {**_NO_TIME, "wait": milliseconds},
        "comment": f"{label}: {state}",
        "_session": asked.session,
        "_sender": "client" if asked.from_client else "server",
        "_method": label.partition(" ")[0],
        "_state": state,
    }


def _request(asked: RecordedMessage) -> dict[str, Any]:
    return {
        "method": "POST",
        "url": quote(asked.target or "unknown:", safe=_URL_CHARACTERS),
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [{"name": "Content-Type", "value": _MEDIA_TYPE}],
        "queryString": [],
        "postData": {"mimeType": _MEDIA_TYPE, "text": asked.payload},
        "headersSize": -1,
        "bodySize": asked.size,
    }


def _response(answer: RecordedMessage | None, status: int, state: str) -> dict[str, Any]:
    content: dict[str, Any] = {"size": 0, "mimeType": _MEDIA_TYPE}
    if answer is not None:
        content = {"size": answer.size, "mimeType": _MEDIA_TYPE, "text": answer.payload}
    return {
        "status": status,
        "statusText": state,
        "httpVersion": "HTTP/1.1",
        "cookies": [],
        "headers": [{"name": "Content-Type", "value": _MEDIA_TYPE}],
        "content": content,
        "redirectURL": "",
        "headersSize": -1,
        "bodySize": content["size"],
    }
