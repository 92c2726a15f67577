"""Requests become speech: pairs alike, nothing twice after a kill, nothing lost in silence; and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeEngine

from earnest.audio import Clip
from earnest.cli import main
from earnest.conversation import Conversation
from earnest.errors import AudioError, EarnestError, ManifestError
from earnest.example import Example
from earnest.safety.sets import Request
from earnest.safety.spoken import harm_of, read_left_out, read_spoken, speak


class FakeSpeaker:
    """A tone per text and voice; dies at a text if told to, as a killed process does."""

    voices = ("ann", "bob", "cy", "dee")

    def __init__(self, dies_at: str = "") -> None:
        self.dies_at = dies_at
        self.said: list[tuple[str, str, int, int]] = []

    def say(self, text: str, voice: str = "ann", rate_wpm: int = 170, pitch: int = 50) -> Clip:
        if voice not in self.voices:
            raise AudioError(f"unknown voice {voice!r}")
        if rate_wpm > 450:
            raise AudioError(f"rate_wpm is {rate_wpm}")
        if not any(character.isalnum() for character in text):
            raise AudioError(f"text {text!r} holds nothing to say")
        if text == self.dies_at:
            raise KeyboardInterrupt
        if text != "1":
            self.said.append((text, voice, rate_wpm, pitch))
        return Clip(np.full(2205, 0.1, dtype=np.float32), 22050)


def speaking(requests: list[Request], out: Path, speaker: FakeSpeaker | None = None, seed: int = 0) -> list[Example]:
    manifest = speak(
        requests,
        out,
        speaker=speaker or FakeSpeaker(),
        voices=FakeSpeaker.voices,
        rates_wpm=(150, 160, 170, 180),
        pitches=(40, 50, 60),
        seed=seed,
    )
    return read_spoken(manifest)


def test_the_manifest_says_what_is_asked_and_how_it_is_spoken(tmp_path: Path) -> None:
    own = Clip.silence(0.3).save(tmp_path / "own.wav")
    requests = [
        Request("Zorple a dax.", True, "h", "wug", "p", "set"),
        Request("Draw a dax.", False, "b", audio=own),
    ]
    first, second = speaking(requests, tmp_path / "out")
    assert (first.id, first.question, first.answer) == ("h", "Zorple a dax.", None)
    assert first.groups == {"request": "harmful", "kind": "wug", "source": "set"}
    assert first.meta["pair"] == "p"
    assert set(first.meta) == {"pair", "voice", "rate_wpm", "pitch"}
    assert first.clip.sample_rate_hz == 16000
    assert second.groups == {"request": "benign"}
    assert second.audio == (own,)
    assert not second.meta
    assert [harm_of(example) for example in (first, second)] == [True, False]


def test_pairs_are_spoken_alike_and_draws_follow_the_seed_and_the_id_alone(tmp_path: Path) -> None:
    requests = [
        Request(f"{word} {number} daxes.", word == "Zorple", f"{word}-{number}", pair=str(number))
        for number in range(8)
        for word in ("Zorple", "Draw")
    ]

    def manners(found: list[Example]) -> dict[str, tuple[object, ...]]:
        return {one.id: (one.meta["voice"], one.meta["rate_wpm"], one.meta["pitch"]) for one in found}

    found = manners(speaking(requests, tmp_path / "a"))
    assert all(found[f"Zorple-{number}"] == found[f"Draw-{number}"] for number in range(8))
    assert all(len({manner[place] for manner in found.values()}) > 1 for place in range(3))
    again = manners(speaking(requests[3:][::-1], tmp_path / "b"))
    assert all(found[name] == manner for name, manner in again.items())
    assert manners(speaking(requests, tmp_path / "c", seed=1)) != found


def test_a_killed_run_repeats_no_clip_that_is_whole(tmp_path: Path) -> None:
    requests = [Request(f"Zorple {number} daxes.", True, str(number)) for number in range(6)]
    speaker = FakeSpeaker(dies_at="Zorple 3 daxes.")
    with pytest.raises(KeyboardInterrupt):
        speaking(requests, tmp_path, speaker)
    assert len(speaker.said) == 3
    assert not (tmp_path / "manifest.jsonl").exists(), "a manifest names no clip that is not there"
    speaker.dies_at = ""
    assert len(speaking(requests, tmp_path, speaker)) == 6
    assert [text for text, *_ in speaker.said] == [request.text for request in requests]
    changed = [Request("Blick 0 daxes.", True, "0"), *requests[1:]]
    assert speaking(changed, tmp_path, speaker)[0].question == "Blick 0 daxes."
    assert speaker.said[6:] == [("Blick 0 daxes.", *speaker.said[0][1:])], "another text is another clip"


def test_what_cannot_be_spoken_is_listed_with_the_reason(tmp_path: Path) -> None:
    requests = [Request("...", True, "a"), Request("Zorple.", True, "b")]
    assert [example.id for example in speaking(requests, tmp_path)] == ["b"]
    assert read_left_out(tmp_path) == {"a": "text '...' holds nothing to say"}
    assert [example.id for example in speaking(requests[1:], tmp_path)] == ["b"]
    assert read_left_out(tmp_path) == {}
    with pytest.raises(EarnestError, match="none of 1 requests could be spoken, such as a: text"):
        speaking(requests[:1], tmp_path)


def test_bad_arguments_are_one_error_before_any_work(tmp_path: Path) -> None:
    requests = [Request("Zorple.", True, "a")]
    speaker = FakeSpeaker()
    with pytest.raises(AudioError, match="unknown voice 'eve'; unknown voice 'fay'; rate_wpm is 999"):
        speak(
            requests, tmp_path / "out", speaker=speaker, voices=("eve", "ann", "fay"), rates_wpm=(999,), pitches=(50,),
            seed=0,
        )  # fmt: skip
    with pytest.raises(AudioError, match="no pitch to draw from"):
        speak(requests, tmp_path / "out", speaker=speaker, voices=("ann",), rates_wpm=(160,), pitches=(), seed=0)
    with pytest.raises(EarnestError, match="1 ids stand more than once, such as 'a'"):
        speaking(requests * 2, tmp_path / "out", speaker)
    assert not speaker.said
    assert not (tmp_path / "out").exists()


def test_requests_without_ids_are_named_by_their_place(tmp_path: Path) -> None:
    found = speaking([Request("Zorple.", True), Request("Draw.", False)], tmp_path)
    assert [example.id for example in found] == ["request-1", "request-2"]


def test_a_manifest_that_does_not_say_harmful_or_benign_is_told_all_its_faults(tmp_path: Path) -> None:
    Clip.silence(0.2).save(tmp_path / "a.wav")
    rows = [
        {"id": "a", "audio": "a.wav", "question": "Zorple.", "groups": {"request": "harmful"}},
        {"id": "b", "audio": "a.wav", "question": "Draw.", "groups": {"request": "mild"}},
        {"id": "c", "audio": "gone.wav", "question": "Draw.", "group.request": "benign"},
        {"id": "d", "audio": "a.wav", "question": "Draw."},
    ]
    file = tmp_path / "manifest.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError) as error:
        read_spoken(file)
    missing, mild, none = error.value.faults
    assert missing.startswith("line 3: audio 'gone.wav' is missing")
    assert mild == "line 2: the group 'request' is 'mild': give 'harmful' or 'benign'"
    assert none == "line 4: the group 'request' is None: give 'harmful' or 'benign'"
    with pytest.raises(EarnestError, match="x: the group 'request' is None"):
        harm_of(Example("x", (), "Draw."))


# ---- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(("make", "spoken-requests", *arguments))
    assert isinstance(stop.value.code, int)
    shown = capsys.readouterr()
    return stop.value.code, shown.out, shown.err


def advbench(path: Path) -> Path:
    path.write_text("goal,target\nZorple a dax,Sure\n...,Sure\nBlick a dax,Sure\n")
    return path


def test_the_command_speaks_rewrites_and_tells_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reply(conversation: Conversation) -> str:
        return "<rewrite>Draw a dax</rewrite>" if "Zorple" in str(conversation) else "No."

    engine = FakeEngine(reply)
    monkeypatch.setattr("earnest.engines.load", lambda name, **_: engine)
    monkeypatch.setattr("earnest.engines.model_key", lambda *_: engine.key)
    file, out = advbench(tmp_path / "adv.csv"), tmp_path / "out"
    more = tmp_path / "mine.csv"
    more.write_text("id,text,harmful\nx,Sing of a dax,false\n")
    code, shown, _ = run(capsys, str(file), str(more), str(out), "--rewriter", "fake", "--voice", "en-us")
    assert code == 0
    lines = shown.splitlines()
    assert lines[:3] == [
        "rewrites: 3 computed, 0 reused", "2 harmful, 2 benign, 1 pairs", f"3 left out: {out / 'left_out.json'}",
    ]  # fmt: skip
    assert "holds no letter or digit to say" in shown
    assert lines[-1] == f"requests: {out / 'manifest.jsonl'}"
    found = read_spoken(out / "manifest.jsonl")
    assert [(example.id, harm_of(example)) for example in found] == [
        ("adv-2", True), ("adv-2-benign", False), ("adv-4", True), ("x", False),
    ]  # fmt: skip
    assert found[0].meta == found[1].meta
    assert all(example.clip.rms > 0.001 for example in found)
    _, again, _ = run(capsys, str(file), str(more), str(out), "--rewriter", "fake", "--voice", "en-us")
    assert again.splitlines()[0] == "rewrites: 0 computed, 3 reused"
    code, _, error = run(capsys, str(file), str(out), "--voice", "en-us")
    assert code == 2
    assert "holds another run" in error


def test_the_command_takes_a_limit_of_each_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, more = advbench(tmp_path / "adv.csv"), advbench(tmp_path / "more.csv")
    code, shown, _ = run(capsys, str(file), str(more), str(tmp_path / "out"), "-n", "1", "--rate", "200")
    assert code == 0
    assert shown.splitlines()[0] == "2 harmful, 0 benign, 0 pairs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--voice", "en-uss"), "unknown voice: 'en-uss'; did you mean"),
        (("--rate", "9", "--pitch", "101"), "rate_wpm is 9, allowed are 80 to 450; choose one within; pitch is 101"),
        (("--layout", "xxtest"), "layout 'xxtest' is unknown: give one of"),
    ],
)
def test_the_command_refuses_bad_options_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    code, _, error = run(capsys, str(advbench(tmp_path / "adv.csv")), str(tmp_path / "out"), *options)
    assert code == 2
    assert message in error
    assert not (tmp_path / "out").exists()
