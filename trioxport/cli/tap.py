"""``trioxport tap``: a pass-through that records what a client and a server say; and ``tap show``, which shows it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from trioxport import UsageError
from trioxport.cli._commands import CONTEXT, GroupWithDefault, cli_command
from trioxport.cli._output import complain, one_line, write
from trioxport.cli._timeline import timeline_lines, timeline_text
from trioxport.cli._wire_log import wire_log
from trioxport.cli.connecting import resolve
from trioxport.cli.options import (
    ConnectionOptions,
    Seconds,
    connection_options,
    json_errors_option,
    target_argument,
)
from trioxport.codecs.forwarding import Forwarding
from trioxport.diagnosis.har import har_of
from trioxport.diagnosis.recorder import Recorder, open_recorder
from trioxport.diagnosis.recording import Recording
from trioxport.diagnosis.timeline import Selection, timeline_of
from trioxport.diagnosis.timeline_page import timeline_page
from trioxport.frames import MIB
from trioxport.layers.recording_files import PERMISSIONS
from trioxport.running import run_server
from trioxport.servers import open_bridge
from trioxport.servers.bridge.bridge import Sharing
from trioxport.targets import STANDARD_STREAMS


@click.group(
    cls=GroupWithDefault, default="record", usage="LISTEN TARGET -o FILE | show FILE", context_settings=CONTEXT
)
def command() -> None:
    """Record what a client and a server say to each other, and show it.

    tap LISTEN TARGET -o FILE passes messages between clients of LISTEN and the server TARGET, and records them;
    tap show FILE shows a recording.
    """


@cli_command
@click.argument("listen", metavar="LISTEN")
@target_argument
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), metavar="FILE", help="Append to FILE.")
@click.option(
    "--upstream",
    type=click.Choice(["per-session", "shared"]),
    default="per-session",
    show_default=True,
    help="A connection to the server for each client, or one for all of them. In the modern era over HTTP each request \
is a client of its own: then shared starts a command once.",
)
@click.option(
    "--redact",
    multiple=True,
    metavar="PATH",
    help="Hide the value at this place too, as params.arguments.password; * is any member. May be repeated.",
)
@click.option(
    "--max-size",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    metavar="MIB",
    help="At this size begin FILE anew, and keep three older ones as FILE.1 to FILE.3.",
)
@json_errors_option
@connection_options
async def record(
    listen: str,
    target: str,
    output: str,
    upstream: Sharing,
    redact: Sequence[str],
    max_size: int,
    options: ConnectionOptions,
) -> int:
    """Pass messages between clients and a server, and record them, until Ctrl-C or SIGTERM.

    LISTEN is where clients connect: http://127.0.0.1:8001/mcp, ws://..., tcp://HOST:PORT, unix:///PATH, or stdio: or
    http+stdio: for the client that starts this command. TARGET is the server. The recording is one line of JSON for
    each message, without credentials.
    """
    if options.era is not None:
        raise UsageError("--era does not apply: the client decides", hint="Leave it out")
    async with (
        open_recorder(output, redact=redact, max_size=max_size * MIB) as recorder,
        open_bridge(
            resolve(target, options),
            sharing=upstream,
            layers=[wire_log()] if options.verbose else [],
            connect_timeout=options.timeout,
            allow_plaintext=options.allow_plaintext,
        ) as bridge,
    ):
        await run_server(
            bridge.handler,
            listen,
            layers=[recorder.layer()],
            codec=Forwarding(),
            allow_plaintext=options.allow_plaintext,
            on_listening=lambda addresses: _announce(addresses, output),
        )
    return _outcome(recorder, output)


def _announce(addresses: Sequence[str], output: str) -> None:
    for address in addresses:
        if address not in STANDARD_STREAMS:  # the parent of this process knows
            write(f"serving {address}, recording to {output}", sys.stderr)


def _outcome(recorder: Recorder, output: str) -> int:
    if not recorder.left_out:
        return 0
    complain(f"the recording {output} is incomplete: {recorder.left_out} bytes were not written")
    return 1


@cli_command
@click.argument("file", metavar="FILE")
@click.option("--method", metavar="PATTERN", help="Show requests of this method, as tools/call or 'tools/*'.")
@click.option("--id", "request_id", metavar="ID", help="Show the request of this id.")
@click.option("--session", type=click.IntRange(1), metavar="NUMBER", help="Show this connection.")
@click.option(
    "--slower", type=Seconds(), metavar="SECONDS", help="Show requests that took longer, or were not answered."
)
@click.option("--failed", is_flag=True, help="Show requests that failed.")
@click.option("--html", type=click.Path(dir_okay=False), metavar="OUT", help="Write a page with a sequence diagram.")
@click.option("--har", type=click.Path(dir_okay=False), metavar="OUT", help="Write an HTTP Archive (HAR 1.2).")
@click.option("--json", "as_json", is_flag=True, help="Print each line, or an error, as a JSON object.")
async def show(
    file: str,
    method: str | None,
    request_id: str | None,
    session: int | None,
    slower: float | None,
    failed: bool,
    html: str | None,
    har: str | None,
    as_json: bool,
) -> int:
    """Show a recording: its messages with their latencies, and the latencies by method.

    --html and --har write a file instead. The options of selection hold for all three.
    """
    recording = Recording(file)
    selection = Selection(method, request_id, session, slower, failed)
    timeline = selection.of(timeline_of(recording))
    for note in _notes(recording):
        complain(note)
    if html is not None:
        _save(html, timeline_page(timeline, Path(file).name))
    if har is not None:
        _save(har, json.dumps(har_of(timeline), indent=1))
    if as_json:
        for line in timeline_lines(timeline):
            write(one_line(line), sys.stdout)
    elif html is None and har is None:
        write(timeline_text(timeline), sys.stdout)
    return 0


command.add_command(record, "record")
command.add_command(show, "show")


def _notes(recording: Recording) -> list[str]:
    """The gaps of a recording that was read, in words."""
    notes: list[str] = []
    if recording.damaged:
        notes.append(f"lines that cannot be read, and are left out: {recording.damaged}")
    if recording.dropped:
        notes.append(f"the recording has gaps: {recording.dropped} bytes were not recorded")
    return notes


def _save(path: str, text: str) -> None:
    """Write a file for this user only, since messages may hold what is not for others. Raises ``UsageError``."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PERMISSIONS)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {path!r}: {error.strerror}") from error
