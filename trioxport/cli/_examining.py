"""The examination of a server: its findings in the terminal, or as JSON."""

from __future__ import annotations

import logging
import sys
from typing import Final

from trioxport._diagnostics import logger
from trioxport.cli._commands import cli_command
from trioxport.cli._errors import in_the_shell
from trioxport.cli._output import one_line, write
from trioxport.cli._wire_log import wire_log
from trioxport.cli.connecting import resolve
from trioxport.cli.options import ConnectionOptions, connection_options, json_option, target_argument
from trioxport.diagnosis.doctor import STEPS, StepFinding, examine
from trioxport.diagnosis.latencies import duration
from trioxport.targets import describe

MARKS: Final = {"ok": "ok", "warning": "warning", "failed": "FAILED", "skipped": "skipped"}
_CONNECTING: Final = {"name", "connection", "proxy", "tls", "command", "start", "socket"}
"""The steps without which there is no connection."""
_STEP_WIDTH: Final = max(map(len, STEPS))
_MARK_WIDTH: Final = max(map(len, MARKS.values()))


@cli_command
@target_argument
@json_option
@connection_options
async def server(target: str, as_json: bool, options: ConnectionOptions) -> int:
    """Examine a server step by step, with the finding and the remedy of each.

    Over the network: the name, the connection, the proxy, TLS and its certificate, HTTP, and what a 401 demands. For a
    command: whether it is found and starts, and what it writes to its standard streams. Then the negotiation, and a
    list of what the server offers.

    The exit code is 3 if there is no connection, and 1 if another step failed.
    """
    found = resolve(target, options)
    if not options.verbose:
        logger.addHandler(logging.NullHandler())  # the findings say what its warnings would
    findings = await examine(
        found,
        on_finding=(lambda finding: None) if as_json else _print,
        timeout=options.timeout,
        era=options.era,
        allow_plaintext=options.allow_plaintext,
        layers=[wire_log()] if options.verbose else [],
    )
    if as_json:
        write(in_the_shell(one_line(findings.as_json(describe(found)))), sys.stdout)
    failed = {finding.step for finding in findings.all if finding.status == "failed"}
    return 3 if failed & _CONNECTING else 1 if failed else 0


def _print(finding: StepFinding) -> None:
    took = "" if finding.seconds is None else f"  ({duration(finding.seconds)})"
    write(f"{MARKS[finding.status]:{_MARK_WIDTH}}  {finding.step:{_STEP_WIDTH}}  {finding.text}{took}", sys.stdout)
    if finding.remedy is not None and finding.status in ("warning", "failed"):
        write(f"{'':{_MARK_WIDTH}}  {'':{_STEP_WIDTH}}  -> {in_the_shell(finding.remedy)}", sys.stdout)
