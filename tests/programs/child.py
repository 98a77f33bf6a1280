"""A child process that answers requests a line at a time, and misbehaves as the method says. Standard library only."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

KEEP_RUNNING: Final = "--keep-running"
"""With this argument the end of standard input does not end the program."""

ANNOUNCEMENT: Final = b'{"jsonrpc":"2.0","method":"flood"}\n'


def echo(params: Any) -> object:
    return params


def environment(_params: Any) -> object:
    return dict(os.environ)


def place(_params: Any) -> object:
    return {"cwd": os.getcwd(), "pid": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0)}


def leave(params: Any) -> None:
    """Exit at once with ``code``, after the last words ``stderr``."""
    os.write(2, params.get("stderr", "").encode())
    os._exit(params["code"])


def kill(params: Any) -> None:
    os.kill(os.getpid(), params["signal"] if params else signal.SIGKILL)


def say(params: Any) -> object:
    """Write ``line`` (in base64) ``times`` times, as it is, to standard output, and ``end`` after it."""
    write(1, base64.b64decode(params["line"]) * params.get("times", 1) + params.get("end", "").encode())
    return "said"


def repeat(params: Any) -> object:
    return params["text"] * params["times"]


def complain(params: Any) -> object:
    """Write ``lines`` numbered lines of 100 bytes to standard error."""
    for number in range(params["lines"]):
        write(2, f"line {number}".encode().ljust(99) + b"\n")
    return "complained"


def flood(params: Any) -> object:
    write(1, ANNOUNCEMENT * params["count"])
    return "flooded"


def flood_for_ever(_params: Any) -> None:
    while True:
        write(1, ANNOUNCEMENT * 10_000)


def ignore_sigterm(_params: Any) -> object:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return "deaf"


def note_sigterm(params: Any) -> object:
    def leave_a_mark(_number: int, _frame: object) -> None:
        with open(params["mark"], "w") as mark:
            mark.write("SIGTERM")
        os._exit(0)

    signal.signal(signal.SIGTERM, leave_a_mark)
    return "noted"


def pause(_params: Any) -> None:
    """Stop reading."""
    while True:
        signal.pause()


def close_stdout(_params: Any) -> None:
    os.close(1)


def close_stdin(_params: Any) -> None:
    os.close(0)
    write(1, b'{"jsonrpc":"2.0","method":"closed"}\n')
    pause(None)


def fork(params: Any) -> object:
    """Leave a process behind that holds all of the pipes, and ``fifo`` too, so that its end can be waited for."""
    fifo = os.open(params["fifo"], os.O_WRONLY)

    def say_so(_number: int, _frame: object) -> None:
        os.write(fifo, b"SIGTERM")
        os._exit(0)

    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if params["deaf"] else say_so)
        os.write(fifo, b"here")
        pause(None)
    os.close(fifo)
    return "forked"


def say_goodbye_slowly(params: Any) -> None:
    """Close standard output, wait for the end of standard input, and leave a mark that this was not cut short."""
    os.close(1)
    while os.read(0, 65536):
        pass
    with open(params["mark"], "w") as mark:
        mark.write("done")
    os._exit(0)


METHODS: Final[dict[str, Callable[[Any], object]]] = {
    method.__name__: method
    for method in (
        *(close_stdin, close_stdout, complain, echo, environment, flood, flood_for_ever, fork, ignore_sigterm),
        *(kill, leave, note_sigterm, pause, place, repeat, say, say_goodbye_slowly),
    )
}


def write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def answer(request_id: object, result: object) -> None:
    write(1, json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode() + b"\n")


def main() -> None:
    for line in sys.stdin.buffer:
        message = json.loads(line)
        result = METHODS[message["method"]](message.get("params"))
        if result is not None:
            answer(message["id"], result)
    if KEEP_RUNNING in sys.argv:
        pause(None)


main()
