"""The pipe streams and the batches of stdio: checkpoints, cancellation, closing."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trioxport.frames import Frame
from trioxport.transports._batched import BatchedReceive
from trioxport.transports._queues import BoundedQueue
from trioxport.transports.stdio.pipes import (
    CAPACITY_BYTES,
    READ_BYTES,
    ReadablePipe,
    WritablePipe,
    reader_of,
    send_at_once,
    writer_of,
)

A_LOT: Final = bytes(range(256)) * 16 * 1024
ROOM: Final = CAPACITY_BYTES if sys.platform == "linux" else 16 * 1024
"""What a pipe holds: only on Linux it can be told."""


class Pipe(NamedTuple):
    reader: ReadablePipe
    writer: WritablePipe
    read_end: trio.lowlevel.FdStream
    write_end: trio.lowlevel.FdStream


@asynccontextmanager
async def open_pipe() -> AsyncGenerator[Pipe]:
    read_end, write_end = map(trio.lowlevel.FdStream, os.pipe())
    async with read_end, write_end:
        with trio.fail_after(20):
            yield Pipe(reader_of(read_end), writer_of(write_end), read_end, write_end)


async def read_all(reader: ReadablePipe) -> bytes:
    chunks: list[bytes] = []
    while chunk := bytes(await reader.receive_some()):
        chunks.append(chunk)
    return b"".join(chunks)


async def test_what_is_written_is_read_and_then_the_end_comes() -> None:
    async with open_pipe() as pipe, trio.open_nursery() as nursery:

        async def write() -> None:
            await pipe.writer.send_all(A_LOT)
            await pipe.writer.send_all(b"")
            await pipe.writer.send_all(b"end")
            await pipe.write_end.aclose()

        nursery.start_soon(write)
        assert await read_all(pipe.reader) == A_LOT + b"end"
        assert await pipe.reader.receive_some() == b""


async def test_each_call_is_a_checkpoint_even_if_it_need_not_wait() -> None:
    async with open_pipe() as pipe:
        for size in (0, 3, READ_BYTES, READ_BYTES):
            with assert_checkpoints():
                await pipe.writer.send_all(b"x" * size)
        for size in (READ_BYTES, READ_BYTES, 3):
            with assert_checkpoints():
                assert len(await pipe.reader.receive_some()) == size


async def test_a_cancelled_call_moves_nothing() -> None:
    async with open_pipe() as pipe:
        await pipe.writer.send_all(b"kept")
        with trio.CancelScope() as scope:
            scope.cancel()
            await pipe.reader.receive_some()
        with trio.CancelScope() as scope:
            scope.cancel()
            await pipe.writer.send_all(b"never")
        await pipe.writer.send_all(b" and whole")
        assert await pipe.reader.receive_some() == b"kept and whole"


async def test_a_waiting_call_is_told_that_its_end_was_closed() -> None:
    async with open_pipe() as pipe, trio.open_nursery() as nursery:
        told: list[str] = []

        async def wait_for_data() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pipe.reader.receive_some()
            told.append("reader")

        nursery.start_soon(wait_for_data)
        await wait_all_tasks_blocked()
        await pipe.read_end.aclose()
        await wait_all_tasks_blocked()
        assert told == ["reader"]


async def test_a_waiting_write_is_told_that_its_end_was_closed() -> None:
    async with open_pipe() as pipe, trio.open_nursery() as nursery:

        async def write() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await pipe.writer.send_all(A_LOT)

        nursery.start_soon(write)
        await wait_all_tasks_blocked()
        await pipe.write_end.aclose()


async def test_a_closed_end_can_be_used_no_more() -> None:
    async with open_pipe() as pipe:
        await pipe.write_end.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await pipe.writer.send_all(b"x")
        await pipe.read_end.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await pipe.reader.receive_some()


async def test_writing_to_nobody_is_a_broken_pipe() -> None:
    async with open_pipe() as pipe:
        await pipe.read_end.aclose()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await pipe.writer.send_all(b"x")
        assert isinstance(caught.value.__cause__, BrokenPipeError)


async def test_a_few_bytes_are_written_at_once_or_not_at_all() -> None:
    async with open_pipe() as pipe:
        assert send_at_once(pipe.writer, b"whole\n")
        assert bytes(await pipe.reader.receive_some()) == b"whole\n"
        assert not send_at_once(pipe.writer, bytes(select.PIPE_BUF + 1))
        written = 0
        while send_at_once(pipe.writer, bytes(1000)):
            written += 1000
        assert len(bytes(await pipe.reader.receive_some())) == min(written, READ_BYTES)
        await pipe.read_end.aclose()
        assert not send_at_once(pipe.writer, b"to nobody")
        await pipe.write_end.aclose()
        assert not send_at_once(pipe.writer, b"from nobody")


async def test_a_pipe_holds_a_large_message_in_one_piece() -> None:
    async with open_pipe() as pipe:
        await pipe.writer.send_all(b"x" * ROOM)


async def test_what_is_no_pipe_keeps_its_own_stream(tmp_path: os.PathLike[str]) -> None:
    descriptor = os.open(os.path.join(tmp_path, "file"), os.O_RDWR | os.O_CREAT)
    async with trio.lowlevel.FdStream(descriptor) as stream:
        assert reader_of(stream) is stream
        assert writer_of(stream) is stream


# Batches.


def frames(*payloads: bytes) -> list[Frame]:
    return [Frame(payload) for payload in payloads]


async def test_frames_of_batches_come_one_by_one_at_checkpoints() -> None:
    batches = BoundedQueue[list[Frame]](2)
    async with BatchedReceive(batches) as receive:
        await batches.send(frames(b"1", b"2"))
        await batches.send(frames(b"3"))
        for expected in (b"1", b"2", b"3"):
            with assert_checkpoints():
                assert (await receive.receive()).payload == expected
        batches.end()
        with pytest.raises(trio.EndOfChannel):
            await receive.receive()


async def test_a_cancelled_receive_takes_nothing_from_a_batch() -> None:
    batches = BoundedQueue[list[Frame]](1)
    async with BatchedReceive(batches) as receive:
        await batches.send(frames(b"1", b"2", b"3"))
        assert (await receive.receive()).payload == b"1"
        with trio.CancelScope() as scope:
            scope.cancel()
            await receive.receive()
        assert [(await receive.receive()).payload for _ in range(2)] == [b"2", b"3"]


@pytest.mark.parametrize("tasks", [2, 5])
async def test_tasks_that_wait_together_get_the_frames_in_order(tasks: int) -> None:
    for _ in range(20):
        batches = BoundedQueue[list[Frame]](2)
        got: list[bytes] = []

        async def take(receive: BatchedReceive, got: list[bytes]) -> None:
            with suppress(trio.EndOfChannel):
                while True:
                    got.append((await receive.receive()).payload)

        with trio.fail_after(20):
            async with BatchedReceive(batches) as receive, trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(take, receive, got)
                await wait_all_tasks_blocked()
                batches.put(frames(b"1", b"2"))
                batches.put(frames(b"3", b"4"))
                batches.end()
        assert got == [b"1", b"2", b"3", b"4"]


async def test_closing_a_batched_channel_drops_what_was_not_taken() -> None:
    batches = BoundedQueue[list[Frame]](1)
    receive = BatchedReceive(batches)
    await batches.send(frames(b"1", b"2"))
    await receive.receive()
    await receive.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await receive.receive()
    with pytest.raises(trio.BrokenResourceError):
        await batches.send(frames(b"3"))
