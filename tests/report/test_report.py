"""The scorecard: complete in itself, and true to the finding."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import oracle

from earnest.accuracy import audit
from earnest.audio import Clip
from earnest.example import Example
from earnest.finding import Curve
from earnest.report import Header, write_scorecard
from earnest.report.players import Pair, audio_uri, choose, player
from earnest.report.plots import RATE_HZ, ROWS, curves_svg, spectrogram, spectrogram_png


def tone(frequency_hz: float, duration_s: float = 1.0, rate_hz: int = 16000, level: float = 0.5) -> Clip:
    times = np.arange(int(duration_s * rate_hz)) / rate_hz
    return Clip((level * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32), rate_hz)


def examples() -> list[Example]:
    timeline = [
        {"kind": "sound", "name": "dog", "start_s": 0.1, "end_s": 0.6},
        {"kind": "speech", "name": "<b>red</b>", "start_s": 0.4, "end_s": 0.9, "speaker": "man"},
    ]
    return [
        Example(
            f"q{i}",
            (tone(200 + 50 * i),),
            f"What is <heard> in number {i}?",
            ("dog", "cat"),
            ("dog", "cat")[i % 2],
            {"modality": ("sound", "speech")[i // 2 % 2], "snr_db": ("clean", "10", "0", "-10")[i % 4]},
            evidence=((0.1, 0.6),),
            meta={"timeline": timeline},
        )
        for i in range(24)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    asked = examples()
    replies: dict[str, str | None] = {
        "q1": "<answer> dog</answer>",
        "q2": "<answer> i don't know</answer>",
        "q3": None,
        "q4": "<script>alert(1)</script>",
    }
    finding = audit(oracle(asked, replies), asked, folder, question_only=True)
    header = Header("a <model>", "24 questions", "earnest audit x", {"python": "3.11"})
    return write_scorecard(folder / "scorecard.html", finding, asked, header).read_text()


class Reader(HTMLParser):
    """Notes what a browser would fetch, and that every element is closed."""

    VOID = frozenset(("meta", "link", "img", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.scripts = 0
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_from_outside_and_is_well_formed(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.sources
    assert all(source.startswith("data:") for source in reader.sources)
    assert "url(" not in page and "@import" not in page and "http" not in page
    assert reader.scripts == 1, "what a model writes is shown, never run"


def test_the_page_says_what_the_finding_says(page: str) -> None:
    assert page.index("Heard 23.0 of 24.0 s") < page.index('class="big"')
    assert '<div class="big">83.3<small> %' in page
    for title in ("Accuracy by modality", "question only", "official rule", "confused with what", "over noise"):
        assert title in page
    assert "prefers-color-scheme: dark" in page


def test_twenty_examples_can_be_heard_and_rare_outcomes_are_among_them(page: str) -> None:
    assert page.count("<audio ") == 20
    for outcome in ("wrong", "abstained", "failed"):
        assert re.search(rf'class="badge"[^>]*>{outcome}<', page)
    assert 'class="evidence" style="left:10.0%;width:50.0%"' in page


def test_what_is_played_is_the_clip() -> None:
    clip = tone(440, 0.5, 44100)
    uri = audio_uri(clip)
    decoded = Clip.from_bytes(base64.b64decode(uri.partition(",")[2]))
    assert decoded.sample_rate_hz == 16000
    assert np.abs(decoded.samples - clip.resampled(16000).samples).max() < 1e-4
    loud = Clip.from_bytes(base64.b64decode(audio_uri(tone(440, level=2.0)).partition(",")[2]))
    assert 0.99 < np.abs(loud.samples).max() <= 1.0


def test_overlapping_events_lie_in_two_lanes() -> None:
    example = examples()[0]
    record = {
        "reply": "<think> why</think><answer> dog</answer>",
        "answer": "dog",
        "outcome": "correct",
        "heard": {"seconds_given": 1.0, "seconds_heard": 1.0, "audio_tokens": 4},
    }
    shown = player(example, record)
    assert [(bar.lane, bar.left, bar.width) for bar in shown.bars] == [(0, 10.0, 50.0), (1, 40.0, 50.0)]
    assert shown.bars[1].label == "<b>red</b>, man"
    assert shown.reasoning == "why"


def test_choosing_takes_turns() -> None:
    records = [{"groups": {"modality": "sound"}, "outcome": "correct" if i else "failed"} for i in range(30)]
    chosen = choose(records, 5)
    assert chosen == [0, 1, 2, 3, 4]
    assert choose(records[:3], 5) == [0, 1, 2]


def test_the_spectrogram_shows_a_tone_where_it_is() -> None:
    levels = spectrogram(tone(1000.0))
    mels = np.linspace(1127 * np.log1p(50 / 700), 1127 * np.log1p(7800 / 700), ROWS)
    loudest = 700 * (np.exp(mels[levels.mean(axis=1).argmax()] / 1127) - 1)
    assert abs(loudest - 1000) < 40
    assert spectrogram(Clip.silence(1.0)).max() == 0
    assert spectrogram(Clip(np.ones(1, np.float32), RATE_HZ)).shape == (ROWS, 1)
    assert spectrogram(Clip.silence(60.0)).shape[1] <= 720
    assert spectrogram_png(tone(300)).startswith(b"\x89PNG")


def test_a_curve_skips_what_is_not_finite() -> None:
    curve = Curve("t", "l", "x", "y", (0.0, 1.0, 2.0), (0.1, float("nan"), 0.3))
    (points,) = re.findall(r'<polyline[^>]*points="([^"]*)"', curves_svg([curve]))
    assert len(points.split()) == 2


def test_faults_are_heard_before_and_after_and_windows_are_marked(tmp_path: Path) -> None:
    asked = examples()[:2]
    finding = audit(oracle(asked), asked, tmp_path / "run")
    windows = [{"start": 0.0, "end": 0.5, "moved": True}, {"start": 0.5, "end": 1.0, "moved": False}]
    finding = replace(finding, records=tuple({**row, "occlusion": windows} for row in finding.records))
    other = tone(900, 2.0)
    before, after = player(asked[0], finding.records[0]), player(asked[0], finding.records[0], other)
    # What was changed lies elsewhere: the timeline is not shown over it.
    assert (before.duration_s, after.duration_s) == (1.0, 2.0)
    assert before.bars
    assert not after.bars
    assert not after.evidence
    pair = Pair("obeys <a voice>", before, after)
    page = write_scorecard(tmp_path / "page.html", finding, asked, Header("m", "d", "c"), pairs=[pair]).read_text()
    assert "1 faults to listen to" in page
    assert "obeys &lt;a voice&gt;" in page
    assert page.count("<audio") == 4
    assert page.count('class="moves"') == 4
    assert after.audio in page
