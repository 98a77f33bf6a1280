"""Recordings as timelines: their messages matched, selected and summed up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.diagnosis.lines import CONVERSATION, line, recorded, request
from trioxport import Connection, UsageError, open_transport, serve_transport
from trioxport.diagnosis.latencies import duration, histogram, percentile
from trioxport.diagnosis.recording import Recording
from trioxport.diagnosis.timeline import Selection, Timeline, timeline_of
from trioxport.layers import Tap
from trioxport.messages import Request, Response
from trioxport.transports.memory import MemorySwitch


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    return timeline_of(Recording(recorded(tmp_path / "r.jsonl", *CONVERSATION)))


def test_each_request_has_its_answer_and_its_end(timeline: Timeline) -> None:
    found = [(each.label, each.state, each.latency and round(each.latency, 3)) for each in timeline.exchanges]
    assert found == [
        ("initialize", "answered", 0.25),
        ("tools/call slow", "answered", 2.0),
        ("tools/call broken", "tool error", 0.5),
        ("sampling/createMessage", "answered", 0.2),
        ("resources/read file:///x", "cancelled", None),
        ("no/such", "error", 0.1),
        ("tools/list", "unanswered", None),
    ]


def test_messages_belong_to_requests_of_their_connection(timeline: Timeline) -> None:
    belongs = [(step.label, step.recorded.session, step.exchange and step.exchange.number) for step in timeline.steps]
    assert belongs[2] == ("notifications/initialized", 1, None)
    assert belongs[5] == ("notifications/progress", 1, 2)
    assert belongs[8] == ("sampling/createMessage", 1, 4)
    assert belongs[9] == ("tools/call slow", 1, 2)
    assert belongs[11] == ("notifications/cancelled", 2, 5)


@pytest.mark.parametrize(
    ("selection", "labels"),
    [
        (Selection(method="tools/*"), ["tools/call slow", "tools/call broken", "tools/list"]),
        (Selection(id="1"), ["tools/call slow", "sampling/createMessage"]),
        (Selection(id="four"), ["no/such"]),
        (Selection(session=2), ["resources/read file:///x", "no/such", "tools/list"]),
        (Selection(slower=0.4), ["tools/call slow", "tools/call broken", "resources/read file:///x", "tools/list"]),
        (Selection(failed=True), ["tools/call broken", "no/such", "tools/list"]),
        (Selection(method="no/*", session=1), []),
    ],
)
def test_selections(timeline: Timeline, selection: Selection, labels: list[str]) -> None:
    chosen = selection.of(timeline)
    assert [each.label for each in chosen.exchanges] == labels
    assert {step.exchange.label for step in chosen.steps if step.exchange} == set(labels)


def test_messages_without_a_request_are_selected_by_method_and_connection(timeline: Timeline) -> None:
    assert [step.label for step in Selection(method="notifications/*").of(timeline).steps] == [
        "notifications/initialized"
    ]
    assert len(Selection(session=1).of(timeline).steps) == 10


def test_the_latencies_by_method(timeline: Timeline) -> None:
    calls = timeline.summaries()[0]
    assert (calls.method, calls.count, calls.failed) == ("tools/call", 2, 1)
    assert (calls.median, calls.p95, calls.maximum) == pytest.approx((0.5, 2.0, 2.0))
    assert [each.median for each in timeline.summaries() if each.method == "tools/list"] == [None]


def test_damage_and_gaps_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = (
        CONVERSATION[0],
        '{"dropped_bytes":42}',
        "",
        '{"time": 1e40}',
        "[1]",
        line(0.5, "server", {"id": 0, "result": 1}),
    )
    path = recorded(tmp_path / "r.jsonl", *lines)
    with open(path, "a") as file:
        file.write(CONVERSATION[3][:40])  # the program was killed
    recording = Recording(path)
    assert [each.state for each in timeline_of(recording).exchanges] == ["answered"]
    assert (recording.damaged, recording.dropped) == (3, 42)


def test_payloads_that_are_no_messages(tmp_path: Path) -> None:
    lines = (
        line(0, "client", "no JSON", error="not JSON"),
        line(1, "server", {"id": 9, "result": 0}),
        line(2, "server", {"id": None, "error": {"code": 1, "message": "m"}}),
        line(3, "client", {"method": "notifications/cancelled", "params": {"requestId": 99}}),
        '{"time":4,"direction":"sent","size":10}',
        '{"time":5,"direction":"sent","base64":"/w=="}',
        '{"time":5,"direction":"sent","base64":"/"}',
    )
    recording = Recording(recorded(tmp_path / "r.jsonl", *lines))
    timeline = timeline_of(recording)
    assert [step.label for step in timeline.steps] == [
        "(no message)",
        "(an answer to no request)",
        "(an answer to no request)",
        "notifications/cancelled",
        "(no message)",
        "(no message)",
    ]
    assert [step.recorded.payload for step in timeline.steps[4:]] == ["(10 bytes)", "\ufffd"]
    assert timeline.steps[4].recorded.from_client  # a recording without a role is that of a client
    assert recording.damaged == 1
    assert [step.recorded.error for step in Selection(failed=True).of(timeline).steps] == ["not JSON"]


def test_a_message_that_was_not_accepted_is_one(tmp_path: Path) -> None:
    sent = line(0, "server", request(1, "roots/list"))
    refused = line(0.1, "server", request(1, "roots/list"), error="ConnectionLost")
    timeline = timeline_of(Recording(recorded(tmp_path / "r.jsonl", sent, refused)))
    assert [each.state for each in timeline.exchanges] == ["not sent"]
    assert len(timeline.steps) == 1


@pytest.mark.parametrize("content", [None, "no recording\n"])
def test_a_file_that_is_no_recording(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "r").write_text(content)
    with pytest.raises(UsageError, match=r"cannot read the recording|is no recording"):
        list(Recording(str(tmp_path / "r")))


async def test_the_recording_of_a_client_and_that_of_a_server_are_the_same_timeline(tmp_path: Path) -> None:
    import trio

    async def handler(connection: Connection) -> None:
        async for message in connection.rx:
            assert isinstance(message, Request)
            await connection.tx.send(Response(message.id, {}))

    switch = MemorySwitch()
    files = [str(tmp_path / "client"), str(tmp_path / "server")]
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda **options: serve_transport(handler, switch, layers=[Tap(files[1])], **options))
        async with open_transport(switch, layers=[Tap(files[0])]) as (tx, rx):
            await tx.send(Request(1, "ping"))
            await rx.receive()
        nursery.cancel_scope.cancel()
    for file in files:
        steps = timeline_of(Recording(file)).steps
        assert [(step.label, step.recorded.from_client) for step in steps] == [("ping", True), ("ping", False)]


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, percent) for percent in (50, 95, 99, 99.9, 100)] == [50, 95, 99, 100, 100]
    assert percentile([3.0], 50) == 3.0


def test_a_histogram_begins_with_the_first_value_and_keeps_empty_bars() -> None:
    assert histogram([]) == []
    bars = histogram([0.0015, 0.002, 0.015])
    assert [bar.upper for bar in bars] == pytest.approx([0.002, 0.005, 0.01, 0.02])
    assert [bar.count for bar in bars] == [2, 0, 0, 1]


def test_durations_to_read() -> None:
    assert [duration(seconds) for seconds in (0, 1.5e-6, 0.0009999, 0.00123, 0.0456, 0.789, 12.34, 3600)] == [
        "0 s",
        "1.50 µs",
        "1.00 ms",
        "1.23 ms",
        "45.6 ms",
        "789 ms",
        "12.3 s",
        "3600 s",
    ]
