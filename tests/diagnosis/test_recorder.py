"""The recorder: nothing waits for the disk, and what is lost is said."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trioxport import UsageError
from trioxport.diagnosis import recorder as recorder_module
from trioxport.diagnosis.recorder import open_recorder
from trioxport.layers.recording_files import RotatingFile


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


async def test_all_that_was_put_is_written_on_leaving_even_if_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with trio.CancelScope() as scope:
        async with open_recorder(path) as recorder:
            for number in range(1000):
                recorder.put(b'{"n":%d}\n' % number)
            scope.cancel()
            await trio.sleep_forever()
    assert [each["n"] for each in lines_of(path)] == list(range(1000))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (recorder.left_out, recorder.error) == (0, None)


async def test_the_file_is_appended_to_and_renamed_when_it_is_large(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    for number in range(4):
        async with open_recorder(path, max_size=20, keep=2) as recorder:
            recorder.put(b'{"dropped_bytes":%d}\n' % number)
    assert [lines_of(tmp_path / name)[0]["dropped_bytes"] for name in ("r.jsonl.2", "r.jsonl.1", "r.jsonl")] == [
        1,
        2,
        3,
    ]


async def test_a_slow_disk_holds_up_nothing_and_the_gap_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    begun = threading.Event()
    write = RotatingFile.write

    def slow(self: RotatingFile, line: bytes) -> None:
        begun.set()
        goes_on.wait(10)
        write(self, line)

    monkeypatch.setattr(RotatingFile, "write", slow)
    monkeypatch.setattr(recorder_module, "MAX_WAITING_BYTES", 30)
    async with open_recorder(tmp_path / "r") as recorder:
        recorder.put(b'{"n":1}\n')
        await trio.to_thread.run_sync(begun.wait, 10)
        for number in range(2, 7):
            recorder.put(b'{"n":%d}\n' % number)
        goes_on.set()
        while len(lines_of(tmp_path / "r")) < 4:
            await wait_all_tasks_blocked(0.01)
        recorder.put(b'{"n":7}\n')
    assert lines_of(tmp_path / "r") == [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}, {"dropped_bytes": 16}, {"n": 7}]
    assert recorder.left_out == 16


async def test_a_full_disk_is_logged_once_and_marked_when_it_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: RotatingFile, line: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with open_recorder(tmp_path / "r") as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(RotatingFile, "write", full)
            for number in (1, 2):
                recorder.put(b"{}\n")
                while recorder.left_out < 3 * number:
                    await wait_all_tasks_blocked(0.01)
        recorder.put(b'{"n":1}\n')
    assert lines_of(tmp_path / "r") == [{"dropped_bytes": 6}, {"n": 1}]
    assert recorder.left_out == 6
    assert isinstance(recorder.error, OSError)
    assert caplog.text.count("is incomplete: No space left on device") == 1


async def test_a_disk_that_hangs_holds_up_the_end_for_five_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumping_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    goes_on = threading.Event()
    opened: list[RotatingFile] = []

    def hang(self: RotatingFile, line: bytes) -> None:
        opened.append(self)
        goes_on.wait(10)

    monkeypatch.setattr(RotatingFile, "write", hang)
    try:
        async with open_recorder(tmp_path / "r") as recorder:
            recorder.put(b"{}\n")
            await wait_all_tasks_blocked(0.01)
            recorder.put(b"{}\n")
            begun = trio.current_time()
        assert trio.current_time() - begun == pytest.approx(5)
        assert recorder.left_out == 3
    finally:
        goes_on.set()
        opened[0].close()
    assert "did not take the last messages in time" in caplog.text


async def test_destinations_that_cannot_be(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, reason in ((tmp_path / "fifo", "no regular file"), (tmp_path / "no" / "x", "No such file")):
        with pytest.raises(UsageError, match=reason):
            async with open_recorder(path):
                raise AssertionError("not entered")


@pytest.mark.parametrize("content", ["print('Hello')\n", '{"mcpServers": {}}', '{"time":1,"level":"info"}\n', "\n"])
async def test_a_file_that_is_no_recording_is_left_alone(content: str, tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match="is no recording, and nothing is appended to it"):
        async with open_recorder(path):
            raise AssertionError("not entered")
    assert path.read_text(encoding="utf-8") == content
