"""A server that is a command: whether it is found and starts, and what it writes to its standard streams."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, TypeGuard

import attrs
import msgspec

from trioxport.abc import Layer
from trioxport.config.server import ConfiguredTarget
from trioxport.diagnosis.doctor.conversation import STEPS, ConversationOptions, check_conversation
from trioxport.diagnosis.doctor.findings import ServerFindings
from trioxport.errors import ConnectError, ConnectionLost, ConnectTimeout, SpawnError, TransportError
from trioxport.layers import Tap
from trioxport.transports.http_stdio import HttpStdio
from trioxport.transports.stdio import Stdio
from trioxport.transports.stdio.command import CommandOptions

SHOWN_LINES: Final = 3
"""Lines of a standard stream that a finding shows."""
MAX_LINE_CHARACTERS: Final = 200


async def check_command(
    configured: ConfiguredTarget,
    target: Stdio | HttpStdio,
    options: ConversationOptions,
    findings: ServerFindings,
    layers: Sequence[Layer],
) -> None:
    """Check the command ``target`` of a server, up to the list of what that offers; ``layers`` are frame layers."""
    if not _check_program(target, findings):
        findings.skip(["start", "stdout", "stderr", *STEPS], "there is no command to start")
        return
    streams = _Streams()
    later = ServerFindings(lambda finding: None)
    run = attrs.evolve(configured, transport=attrs.evolve(target, stderr=streams.take_error))
    failure = await check_conversation(run, options, later, [*layers, Tap(streams.take_output)])
    _check_start(failure, streams, findings)
    streams.report(failure, findings)
    for finding in later.all:
        findings.take(finding)


def _check_program(target: CommandOptions, findings: ServerFindings) -> bool:
    command = os.fspath(target.command)
    if target.cwd is not None and not os.path.isdir(target.cwd):
        findings.add("command", "failed", f"there is no folder {os.fspath(target.cwd)}", "Check --cwd")
        return False
    if os.path.dirname(command):
        path = os.path.join(target.cwd or "", command)
        found = command if os.access(path, os.X_OK) and not os.path.isdir(path) else None
        missing = f"{command} cannot be run: " + ("no permission" if os.path.exists(path) else "there is no such file")
    else:
        variables = target.env or {}
        found = shutil.which(command, path=variables.get("PATH", os.environ.get("PATH")))
        missing = f"there is no program {command!r} on PATH"
    if found is None:
        remedy = "Install it, or write its whole path: programs of a desktop have a shorter PATH than a shell"
        findings.add("command", "failed", missing, remedy)
        return False
    findings.add("command", "ok", found if found == command else f"{command} is {found}")
    return True


class _Streams:
    """The output of a command that is no message."""

    def __init__(self) -> None:
        self.messages = 0
        self._pollution = _Lines()
        self._errors = _Lines()

    def take_output(self, line: bytes) -> None:
        record = msgspec.json.decode(line, type=dict[str, Any])
        if record["direction"] == "received":
            payload = str(record.get("payload", record.get("base64", "")))
            if payload.lstrip().startswith(("{", "[")) and "error" not in record:
                self.messages += 1
            elif payload.strip():
                self._pollution.add(payload)

    def take_error(self, line: str) -> None:
        if line.strip():
            self._errors.add(line)

    def report(self, failure: TransportError | None, findings: ServerFindings) -> None:
        if _is_no_http2(failure):
            findings.add("stdout", "failed", failure.reason, failure.hint)
        elif self._pollution.count:
            text = f"lines that are no messages: {self._pollution.count}; the last: {self._pollution}"
            remedy = "Write logs to standard error: standard output is for messages alone"
            findings.add("stdout", "failed", text, remedy)
        else:
            findings.add("stdout", "ok", f"nothing but messages: {self.messages}")
        if self._errors.count:
            findings.add("stderr", "ok", f"lines: {self._errors.count}; the last: {self._errors}")
        else:
            findings.add("stderr", "ok", "nothing")


class _Lines:
    """A number of lines, and the last of them."""

    def __init__(self) -> None:
        self.count = 0
        self._last = deque[str](maxlen=SHOWN_LINES)

    def add(self, line: str) -> None:
        self.count += 1
        self._last.append(line.strip()[:MAX_LINE_CHARACTERS])

    def __str__(self) -> str:
        return " | ".join(self._last)


def _is_no_http2(failure: TransportError | None) -> TypeGuard[ConnectError]:
    """Whether the output of the command is not HTTP/2, over HTTP over stdio."""
    return isinstance(failure, ConnectError) and not isinstance(failure, SpawnError | ConnectTimeout)


def _check_start(failure: TransportError | None, streams: _Streams, findings: ServerFindings) -> None:
    if isinstance(failure, SpawnError):
        findings.add("start", "failed", failure.reason, failure.hint)
    elif isinstance(failure, ConnectionLost) and not streams.messages:
        code = "" if failure.exit_code is None else f" with exit code {failure.exit_code}"
        remedy = "Run the command by hand; below is what it wrote to standard error"
        findings.add("start", "failed", f"the command ended{code} before it answered", remedy)
    elif failure is not None and not streams.messages and not _is_no_http2(failure):
        remedy = "Check that the command is an MCP server on its standard streams, and what it waits for"
        findings.add("start", "failed", "the command runs, and sends no message", remedy)
    else:
        text = "the command starts" if _is_no_http2(failure) else "the command starts, and answers"
        findings.add("start", "ok", text)
