"""The page of a timeline in a real browser: it shows what is recorded, and a hostile recording runs nothing."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from tests.diagnosis.lines import CONVERSATION, line, recorded, request
from tests.support.browser import Page, open_browser, unpacked_chromium
from trioxport.diagnosis import timeline_page as page_module
from trioxport.diagnosis.recording import Recording
from trioxport.diagnosis.timeline import timeline_of
from trioxport.diagnosis.timeline_page import timeline_page

HOSTILE: Final = """</pre></title></style></svg><script>document.title='taken'</script>
<img src=x onerror="document.title='taken'">
"'><a href="javascript:alert(1)">&amp;\u202e\x00\ud800]]>"""

in_a_browser = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the browser from npm is for Linux on x86-64"
)


@pytest.fixture(scope="module")
def chromium() -> Generator[list[str]]:
    with unpacked_chromium() as command:
        yield command


def page_of(folder: Path, *lines: str, name: str = "r.jsonl") -> str:
    """Write the page of a recording, and return its address."""
    text = timeline_page(timeline_of(Recording(recorded(folder / "r.jsonl", *lines))), name)
    (folder / "page.html").write_text(text, encoding="utf-8")
    return (folder / "page.html").as_uri()


async def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = await page.value(f"[...document.querySelectorAll({selector!r})].map(each => each.textContent)")
    return found


@in_a_browser
@pytest.mark.deadline(60)
async def test_a_recording_in_a_browser(chromium: list[str], tmp_path: Path) -> None:
    address = page_of(tmp_path, *CONVERSATION)
    with trio.fail_after(50):
        async with open_browser(chromium) as page:
            await page.open(address)
            assert await texts(page, "svg .name") == ["Client 1", "Client 2", "Server"]
            labels = await texts(page, "svg .label")
            assert labels[:4] == ["initialize", "initialize: 250 ms", "notifications/initialized", "tools/call slow"]
            assert labels[6] == "tools/call broken: 500 ms, tool error"
            assert await page.value("document.querySelectorAll('svg .bar').length") == 5
            assert await texts(page, "tr.failed a") == ["tools/call broken", "no/such", "tools/list"]
            await page.value("document.querySelector('svg a').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
            assert await page.value("location.hash") == "#m1"
            assert '"name": "c"' in (await texts(page, "#m1 pre"))[0]
            assert await page.value("document.querySelector('svg').getBoundingClientRect().height") > 500
            assert (await page.screenshot()).startswith(b"\x89PNG")
            assert [each["params"]["request"]["url"] for each in page.named("Network.requestWillBeSent")] == [address]
            assert page.named("Log.entryAdded") == []


@in_a_browser
@pytest.mark.deadline(60)
async def test_a_hostile_recording_runs_no_script(chromium: list[str], tmp_path: Path) -> None:
    text = HOSTILE.replace("\ud800", "")  # no tap writes it
    lines: list[str] = [
        line(0, "client", request(HOSTILE, HOSTILE, name=HOSTILE, uri=HOSTILE), text, target=text),
        line(1, "server", {"id": HOSTILE, "error": {"code": 1, "message": HOSTILE}}, text),
        line(2, "server", {"method": HOSTILE}, error=text),
        line(3, "client", text),
    ]
    with trio.fail_after(50):
        async with open_browser(chromium) as page:
            await page.open(page_of(tmp_path, *lines, name=HOSTILE))
            await page.value("document.querySelectorAll('details').forEach(each => each.open = true)")
            assert not (await page.value("document.title")).startswith("taken")
            assert (
                await page.value("document.querySelectorAll('script, img, [onerror], [href^=javascript]').length") == 0
            )
            assert await page.value("document.querySelectorAll('details').length") == 4
            payload: Any = (await texts(page, "#m1 pre"))[0]
            assert "<script>document.title='taken'</script>" in payload
            assert "\\u202e" in payload
            assert len(page.named("Network.requestWillBeSent")) == 1
            # The policy of the page would hold even if something were not escaped.
            await page.value(
                "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')"
            )
            assert [each for each in page.named("Log.entryAdded") if "Content Security Policy" in json.dumps(each)]


def test_nothing_of_a_message_stands_in_the_page_unescaped(tmp_path: Path) -> None:
    page_of(tmp_path, line(0, "client", request(HOSTILE, HOSTILE, name=HOSTILE)), name=HOSTILE)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert 'href="javascript' not in text
    assert "\u202e" not in text


def test_the_page_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "MAX_STEPS", 2)
    monkeypatch.setattr(page_module, "MAX_PAYLOAD_CHARACTERS", 100)
    large = line(0, "client", request(1, "tools/call", name="x" * 5000))
    page_of(tmp_path, large, *CONVERSATION)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("<details") == 2
    assert "16 messages; the first 2 are shown" in text
    assert "characters)" in text
    assert "x" * 200 not in text


def test_many_clients_share_a_lifeline(tmp_path: Path) -> None:
    page_of(tmp_path, *(line(number, "client", request(1, "tools/list"), str(number)) for number in range(5)))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "5 clients" in text
    assert "[5] tools/list" in text


def test_an_empty_selection_is_a_page(tmp_path: Path) -> None:
    page_of(tmp_path)
    assert "No messages." in (tmp_path / "page.html").read_text(encoding="utf-8")
