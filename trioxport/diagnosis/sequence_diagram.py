"""The sequence diagram of a timeline, as an SVG element."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

import attrs

from trioxport.diagnosis.latencies import duration
from trioxport.diagnosis.timeline import FAILED, Step, Timeline
from trioxport.messages import Notification

MAX_LIFELINES: Final = 2
"""Clients with a lifeline of their own; more share one."""

MAX_LABEL_CHARACTERS: Final = 44

_ARROW_HEAD: Final = """<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8"
orient="auto-start-reverse"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>"""
_ROW: Final = 34
_TOP: Final = 56
_GUTTER: Final = 110
_SPACING: Final = 420
_CROWDED: Final = 330
_BAR: Final = 8


def text_of(value: str) -> str:
    """A text for HTML, as text or as an attribute: escaped, and without characters that are invisible or turn it."""
    shown = "".join(char if char in "\n\t" or char.isprintable() else f"\\u{ord(char):04x}" for char in value)
    return escape(shown, quote=True)


def shortened(text: str) -> str:
    """A text of at most ``MAX_LABEL_CHARACTERS``."""
    return text if len(text) <= MAX_LABEL_CHARACTERS else text[: MAX_LABEL_CHARACTERS - 1] + "…"


@attrs.frozen
class _Layout:
    """Positions in the diagram: a lifeline for each client and one for the servers, on the right."""

    sessions: Sequence[int]

    @property
    def names(self) -> list[str]:
        if len(self.sessions) == 1:
            return ["Client", "Server"]
        if len(self.sessions) > MAX_LIFELINES:
            return [f"{len(self.sessions)} clients", "Server"]
        return [*(f"Client {session}" for session in self.sessions), "Server"]

    @property
    def spacing(self) -> int:
        return _SPACING if len(self.names) <= 2 else _CROWDED

    @property
    def server(self) -> int:
        return self.place(len(self.names) - 1)

    @property
    def width(self) -> int:
        return self.server + 130

    def place(self, number: int) -> int:
        return _GUTTER + 60 + number * self.spacing

    def client(self, session: int) -> int:
        return self.place(self.sessions.index(session) if len(self.names) - 1 > 1 else 0)


def sequence_diagram(timeline: Timeline, steps: Sequence[Step]) -> str:
    """The diagram of some messages of a timeline.

    Args:
        timeline: The timeline, for its beginning.
        steps: The messages to draw, each a row; message ``n`` links to the anchor ``m<n>``, counted from 1.
    """
    layout = _Layout(list(dict.fromkeys(step.recorded.session for step in steps)))
    height = _TOP + _ROW * len(steps) + 20
    parts = [
        f'<svg class="sequence" width="{layout.width}" height="{height}" role="img" aria-label="Sequence diagram">',
        _ARROW_HEAD,
        *_lifelines(layout, height),
        *_bars(layout, steps),
        *(_arrow(layout, timeline, number, step) for number, step in enumerate(steps)),
        "</svg>",
    ]
    return "\n".join(parts)


def _lifelines(layout: _Layout, height: int) -> Iterator[str]:
    for number, name in enumerate(layout.names):
        x = layout.place(number)
        yield f'<line class="lifeline" x1="{x}" x2="{x}" y1="34" y2="{height - 8}"/>'
        yield f'<rect class="head" x="{x - 52}" y="6" width="104" height="28" rx="4"/>'
        yield f'<text class="name" x="{x}" y="25">{text_of(name)}</text>'


def _bars(layout: _Layout, steps: Sequence[Step]) -> Iterator[str]:
    """The times in which requests are worked on, beside the lifeline of the side that answers."""
    began: dict[int, int] = {}
    for number, step in enumerate(steps):
        exchange = step.exchange
        if exchange is None:
            continue
        if step.recorded is exchange.asked:
            began[exchange.number] = number
        elif step.is_answer and exchange.number in began:
            first = began[exchange.number]
            is_client = not exchange.asked.from_client
            x = layout.client(step.recorded.session) if is_client else layout.server
            lane = exchange.number % 3 * (_BAR + 2)
            x += -_BAR - 2 - lane if is_client else 2 + lane
            kind = "bar failed" if exchange.state in FAILED else "bar"
            height = (number - first) * _ROW
            yield (
                f'<rect class="{kind}" x="{x}" y="{_TOP + first * _ROW + 10}" width="{_BAR}" height="{height}">'
                f"<title>{text_of(shortened(exchange.label))}: {text_of(_latency(step))}</title></rect>"
            )


def _arrow(layout: _Layout, timeline: Timeline, number: int, step: Step) -> str:
    recorded = step.recorded
    y = _TOP + number * _ROW + 10
    client, server = layout.client(recorded.session), layout.server
    begin, end = (client, server) if recorded.from_client else (server, client)
    end += -3 if recorded.from_client else 3
    kinds = ["message", *(["answer"] if step.is_answer else []), *(["failed"] if _has_failed(step) else [])]
    if isinstance(recorded.message, Notification):
        kinds.append("notification")
    middle = (
        (client + server) // 2 if layout.spacing == _SPACING else (server + layout.place(len(layout.names) - 2)) // 2
    )
    return (
        f'<a href="#m{number + 1}" class="{" ".join(kinds)}">'
        f'<text class="time" x="{_GUTTER - 20}" y="{y + 4}">{text_of(duration(recorded.time - timeline.begin))}</text>'
        f'<line x1="{begin}" x2="{end}" y1="{y}" y2="{y}" marker-end="url(#head)"/>'
        f'<text class="label" x="{middle}" y="{y - 5}">{text_of(_caption(layout, step))}</text></a>'
    )


def _caption(layout: _Layout, step: Step) -> str:
    label = shortened(step.label)
    session = f"[{step.recorded.session}] " if len(layout.sessions) > MAX_LIFELINES else ""
    return f"{session}{label}: {_latency(step)}" if step.is_answer else session + label


def _latency(step: Step) -> str:
    exchange = step.exchange
    assert exchange is not None and exchange.latency is not None
    state = "" if exchange.state == "answered" else f", {exchange.state}"
    return duration(exchange.latency) + state


def _has_failed(step: Step) -> bool:
    return step.recorded.error is not None or (
        step.exchange is not None
        and step.exchange.state in FAILED
        and (step.is_answer or step.exchange.answer is None)
        and not isinstance(step.recorded.message, Notification)
    )
