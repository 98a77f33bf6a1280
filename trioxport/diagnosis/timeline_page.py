"""A timeline as one HTML page, which needs no network and runs no script.

What peers wrote stands in it as text alone: it is escaped, and the page's own policy forbids scripts, so that a
recording of a hostile peer can be opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from trioxport.diagnosis.latencies import duration
from trioxport.diagnosis.sequence_diagram import sequence_diagram, shortened, text_of
from trioxport.diagnosis.timeline import FAILED, RecordedRequest, Step, Timeline

MAX_STEPS: Final = 2000
"""Messages on a page; of more, the first are shown."""
MAX_PAYLOAD_CHARACTERS: Final = 20_000
"""Characters of a payload on a page."""

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8a94a6; --text: #1d2433; --faint: #69748a; --ground: #fff; --panel: #f3f5f9;
  --accent: #2459c4; --answer: #1b7f4d; --bad: #c0312b; }
@media (prefers-color-scheme: dark) { :root { --line: #6b7588; --text: #e4e8f0; --faint: #98a2b5; --ground: #14171e;
  --panel: #1e232d; --accent: #7fa8ff; --answer: #5fcf94; --bad: #ff8078; } }
* { box-sizing: border-box }
body { font: 14px/1.45 system-ui, sans-serif; color: var(--text); background: var(--ground); margin: 24px }
h1 { font-size: 20px; margin: 0 0 4px } h2 { font-size: 16px; margin: 28px 0 8px }
p { margin: 0 0 8px; color: var(--faint) }
table { border-collapse: collapse } th, td { text-align: left; padding: 3px 14px 3px 0; vertical-align: top }
th { color: var(--faint); font-weight: 600 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
tr.failed td { color: var(--bad) } a { color: inherit }
td.share { width: 200px } td.share span { display: block; height: 9px; margin-top: 6px; background: var(--accent);
  border-radius: 2px; min-width: 1px } tr.failed td.share span { background: var(--bad) }
.diagram { overflow-x: auto } svg text { font: 12px system-ui, sans-serif; fill: var(--text) }
svg .name, svg .label { text-anchor: middle } svg .name { font-weight: 600 }
svg .time { text-anchor: end; fill: var(--faint) }
svg .lifeline { stroke: var(--line); stroke-dasharray: 3 4 } svg .head { fill: var(--panel); stroke: var(--line) }
svg .message line { stroke: var(--accent); stroke-width: 1.5 } svg .answer line { stroke: var(--answer) }
svg .notification line { stroke-dasharray: 5 4 } svg .failed line { stroke: var(--bad) }
svg .failed .label { fill: var(--bad) }
svg .bar { fill: var(--answer); opacity: .45 } svg .bar.failed { fill: var(--bad) }
svg marker path { fill: var(--line) }
svg a:hover .label, svg a:focus .label { text-decoration: underline }
details { border-top: 1px solid var(--panel); padding: 4px 0 } details:target { background: var(--panel) }
summary { cursor: pointer } pre { background: var(--panel); padding: 10px; overflow-x: auto; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: 6px 0 }
"""


def timeline_page(timeline: Timeline, name: str) -> str:
    """The page.

    Args:
        timeline: The messages to show; the first ``MAX_STEPS`` of them.
        name: The name of the recording.
    """
    steps = timeline.steps[:MAX_STEPS]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text_of(name)}: timeline</title><style>{_STYLE}</style></head><body>",
            f"<h1>{text_of(name)}</h1><p>{text_of(_about(timeline, len(steps)))}</p>",
            f'<h2>Sequence</h2><div class="diagram">{sequence_diagram(timeline, steps)}</div>',
            *_methods(timeline),
            *_requests(timeline.exchanges[:MAX_STEPS], steps),
            "<h2>Messages</h2>",
            *(_message(timeline, number, step) for number, step in enumerate(steps, 1)),
            "</body></html>",
        ]
    )


def _about(timeline: Timeline, shown: int) -> str:
    if not timeline.steps:
        return "No messages."
    begin = datetime.fromtimestamp(timeline.begin, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    sessions = len({step.recorded.session for step in timeline.steps})
    count = len(timeline.steps)
    first = "" if shown == count else f"; the first {shown} are shown"
    return f"{count} messages{first}, {len(timeline.exchanges)} requests, {sessions} connections, from {begin}"


def _methods(timeline: Timeline) -> Iterator[str]:
    yield '<h2>Latencies</h2><table><tr><th>method</th><th class="number">requests</th><th class="number">failed</th>'
    yield '<th class="number">median</th><th class="number">95 %</th><th class="number">maximum</th></tr>'
    for summary in timeline.summaries():
        figures = [_figure(seconds) for seconds in (summary.median, summary.p95, summary.maximum)]
        cells = "".join(
            f'<td class="number">{text_of(text)}</td>' for text in (str(summary.count), str(summary.failed), *figures)
        )
        yield f"<tr><td>{text_of(shortened(summary.method))}</td>{cells}</tr>"
    yield "</table>"


def _requests(exchanges: Sequence[RecordedRequest], steps: Sequence[Step]) -> Iterator[str]:
    anchors = {id(step.recorded): number for number, step in enumerate(steps, 1)}
    longest = max((each.latency or 0.0 for each in exchanges), default=0.0)
    yield '<h2>Requests</h2><table><tr><th class="number">#</th><th>request</th><th>id</th><th>state</th>'
    yield '<th class="number">latency</th><th></th></tr>'
    for exchange in exchanges:
        share = 100 * (exchange.latency or 0.0) / longest if longest else 0.0
        anchor = anchors.get(id(exchange.asked))
        label = text_of(shortened(exchange.label))
        link = label if anchor is None else f'<a href="#m{anchor}">{label}</a>'
        yield (
            f'<tr class="{"failed" if exchange.state in FAILED else "ok"}"><td class="number">{exchange.number}</td>'
            f"<td>{link}</td><td>{text_of(shortened(str(exchange.request.id)))}</td><td>{text_of(exchange.state)}</td>"
            f'<td class="number">{text_of(_figure(exchange.latency))}</td>'
            f'<td class="share"><span style="width:{share:.1f}%"></span></td></tr>'
        )
    yield "</table>"


def _message(timeline: Timeline, number: int, step: Step) -> str:
    recorded = step.recorded
    sender = "client" if recorded.from_client else "server"
    kind = "answer" if step.is_answer else "message"
    facts = f"{duration(recorded.time - timeline.begin)} · connection {recorded.session} · {kind} of the {sender}"
    fault = "" if recorded.error is None else f"<p>{text_of(recorded.error)}</p>"
    return (
        f'<details id="m{number}"><summary>{number}. {text_of(shortened(step.label))} '
        f"<small>{text_of(facts)} · {recorded.size} bytes</small></summary>"
        f"{fault}<pre>{text_of(_payload(recorded.payload))}</pre></details>"
    )


def _payload(payload: str) -> str:
    if len(payload) > MAX_PAYLOAD_CHARACTERS:
        return f"{payload[:MAX_PAYLOAD_CHARACTERS]}\n... ({len(payload)} characters)"
    try:
        return json.dumps(json.loads(payload), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return payload


def _figure(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)
