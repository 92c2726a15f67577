"""K of N samples, targets, and the data set of lessons."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes import FakeEngine
from tests.tiny import tiny_fused, tone

from earnest.audio import Clip
from earnest.audio.edits import measured_snr_db
from earnest.cli import main
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import EarnestError, ManifestError
from earnest.example import Example, load_manifest
from earnest.reliability.known import (
    Drawn,
    check_numbers,
    draw,
    lessons,
    read_drawn,
    read_lessons,
    retargeted,
    split_off,
    target,
    write_data,
)
from earnest.reliability.less_to_hear import NOISE, NOISY_DB, SILENT, emptied_copy, noisy_copies
from earnest.run import RunDirectory


class Sampled(FakeEngine):
    """Question q is answered right by the first q samples of five; the greedy reply is right from 3 on."""

    def __init__(self) -> None:
        super().__init__(lambda _: "")

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation, sampling) for conversation in conversations]

    def _said(self, conversation: Conversation, sampling: Sampling) -> Completion:
        done = self._complete(conversation)
        number = int(conversation.turns[-1].text.split("question ")[1].split("\n")[0])
        if number == 6 and sampling.temperature:
            return replace(done, stop=Stop.FAILED, error="no memory")
        if number == 7 and not sampling.temperature:
            return replace(done, text="<think> for ever", stop=Stop.LENGTH)
        right = number >= 3 if not sampling.temperature else sampling.seed - 40 < number
        if conversation.clips[0].rms == 0:
            right = False
        return replace(done, text=f"<think> heard {number}</think><answer> {'dog' if right else 'cat'}</answer>")


def example(number: int) -> Example:
    return Example(
        f"q{number}", (tone(200 + number, 0.1),), f"question {number}", ("dog", "cat"), "dog", {"modality": "sound"}
    )


SPLITS = ("train", "validation")


def drawn_of(count: int, tmp_path: Path, **more: Any) -> list[Drawn]:
    options: dict[str, Any] = {"samples": 5, "seed": 40, "nothing_share": 0.0, "batch_size": 4}
    return draw(Sampled(), [example(number) for number in range(count)], RunDirectory(tmp_path), **options | more)


def test_k_of_n(tmp_path: Path) -> None:
    drawn = drawn_of(6, tmp_path)
    assert [item.right for item in drawn] == [0, 1, 2, 3, 4, 5]
    assert [sum(item.known(k) for item in drawn) for k in range(1, 6)] == [5, 4, 3, 2, 1]
    # Its own reasoning stays; what it knows gets the right answer even where its greedy reply was wrong.
    assert target(drawn[1], 1) == "<think> heard 1</think><answer> dog</answer>"
    assert target(drawn[1], 2) == "<think> heard 1</think><answer> I don't know</answer>"
    assert target(drawn[5], 5, "i don't know") == "<think> heard 5</think><answer> dog</answer>"
    assert len(lessons(drawn, 5)) == 6


def test_a_failure_is_no_wrong_answer_and_a_cut_reply_no_lesson(tmp_path: Path) -> None:
    drawn = drawn_of(8, tmp_path)
    assert drawn[6].fault == "no memory"
    assert "cut after" in drawn[7].fault
    assert len(lessons(drawn, 3)) == 6
    assert target(drawn[6], 3) is target(drawn[7], 3) is None
    card = write_data(drawn, tmp_path / "data", 3)
    assert card["left_out"].keys() == {"q6", "q7"}


def test_nothing_to_hear_is_never_known(tmp_path: Path) -> None:
    drawn = drawn_of(6, tmp_path, nothing_share=0.5)
    kinds = [item.kind for item in drawn[6:]]
    assert sorted(kinds) == [NOISE, NOISE, SILENT] or sorted(kinds) == [NOISE, SILENT, SILENT]
    assert not any(item.known(1) for item in drawn[6:])
    for item in drawn[6:]:
        assert target(item, 1) is not None
        assert target(item, 1).endswith("<answer> I don't know</answer>")  # type: ignore[union-attr]
    original = example(0)
    quiet, noisy = emptied_copy(original, SILENT), emptied_copy(original, NOISE)
    assert quiet.clip.rms == 0
    assert noisy.clip.rms == pytest.approx(original.clip.rms, rel=0.1)
    assert quiet.clip.samples.shape == noisy.clip.samples.shape == original.clip.samples.shape
    assert np.array_equal(noisy.clip.samples, emptied_copy(original, NOISE).clip.samples)
    assert abs(np.corrcoef(noisy.clip.samples, original.clip.samples)[0, 1]) < 0.1


def test_of_what_cannot_be_heard_that_is_learnt_which_is_not_known_already(tmp_path: Path) -> None:
    quiet: list[int] = []

    class Wary(Sampled):
        """Abstains over silence where the question is even, and fails there at every third."""

        def _said(self, conversation: Conversation, sampling: Sampling) -> Completion:
            done = super()._said(conversation, sampling)
            number = int(conversation.turns[-1].text.split("question ")[1].split("\n")[0])
            if conversation.clips[0].rms:
                return done
            quiet.append(number)
            if number % 2 == 0:
                return replace(done, text="<think> nothing</think><answer> I don't know</answer>")
            return replace(done, stop=Stop.FAILED, error="no memory") if number % 3 == 0 else done

    examples = [example(number + 10) for number in range(40)]
    drawn = draw(Wary(), examples, RunDirectory(tmp_path), samples=1, nothing_share=0.2, batch_size=4)
    nothing = drawn[40:]
    assert [item.kind for item in nothing] == [SILENT] * 4 + [NOISE] * 4
    assert len(set(quiet)) == 16
    news = sum(number % 2 == 1 and number % 3 != 0 for number in quiet)
    learnt = [int(item.example.question.split()[1]) % 2 for item in nothing[:4]]
    assert learnt == [1] * min(4, news) + [0] * max(0, 4 - news)
    assert not any(item.fault for item in nothing)


def test_noisy_copies_lie_at_levels_of_their_own(tmp_path: Path) -> None:
    examples = [replace(example(number), audio=(tone(300 + number, 0.5),)) for number in range(10)]
    quiet = replace(examples[3], audio=(Clip(np.zeros(100, np.float32), 16000),))
    examples[3] = quiet
    copies = noisy_copies(examples, 1.0, tmp_path, seed=2)
    # No noise can be measured against silence.
    assert [copy.id for copy in copies] == [f"q{number}-noisy" for number in range(10) if number != 3]
    levels = [float(copy.groups["snr_db"]) for copy in copies]
    assert len(set(levels)) > 5
    for copy, level in zip(copies, levels, strict=True):
        own = next(each for each in examples if copy.id == f"{each.id}-noisy")
        assert NOISY_DB[0] <= level <= NOISY_DB[1]
        assert measured_snr_db(own.clip, copy.clip) == pytest.approx(level, abs=0.05)
        assert (copy.question, copy.answer) == (own.question, own.answer)
    assert noisy_copies(examples, 0.5, tmp_path, seed=2) == noisy_copies(examples, 0.5, tmp_path, seed=2)
    assert len(noisy_copies(examples[4:], 0.5, tmp_path)) == 3
    assert noisy_copies(examples, 0.0, tmp_path) == []
    with pytest.raises(EarnestError, match="share of noisy copies is 2"):
        check_numbers(5, 5, 0.0, noisy_share=2)


def test_a_killed_drawing_computes_nothing_twice(tmp_path: Path) -> None:
    engine = Sampled()
    examples = [example(number) for number in range(6)]
    options: dict[str, Any] = {"samples": 5, "seed": 40, "batch_size": 4}
    first = draw(engine, examples, RunDirectory(tmp_path), **options)
    asked = len(engine.asked)
    assert draw(engine, examples, RunDirectory(tmp_path), **options) == first
    assert len(engine.asked) == asked


@pytest.mark.parametrize(
    ("reply", "right", "wanted"),
    [
        # Its own words stay where they are right already.
        ("It barks, so: it is a dog.", 5, "It barks, so: it is a dog."),
        ("It barks, so: it is a dog.", 0, "I don't know"),
        ("<think> cat</think><answer>cat</answer>", 5, "<think> cat</think><answer>dog</answer>"),
        # Two answers are a contradiction, whichever is changed.
        ("<answer>cat</answer> no, <answer>bird</answer>", 5, "dog"),
        ("<answer>i don't know</answer>", 0, "<answer>i don't know</answer>"),
    ],
)
def test_a_target_is_what_it_says_it_is(reply: str, right: int, wanted: str) -> None:
    assert target(Drawn(example(1), right, 5, reply), 3) == wanted


def test_a_letter_is_asked_for_where_the_rule_takes_letters() -> None:
    asked = replace(example(1), rule="letter", choices=("cat", "dog"))
    assert target(Drawn(asked, 5, 5, "A"), 3) == "B"


@pytest.mark.parametrize(
    ("reply", "wanted"),
    [
        ("<think> dog</think><answer> dog</answer>", "<think> dog</think><answer> IDK</answer>"),
        ("dog", "IDK"),
        ("<think> a dog</think> dog", "<think> a dog</think> IDK"),
        ("<think> only", "IDK"),
        ("", "IDK"),
    ],
)
def test_only_the_answer_is_retargeted(reply: str, wanted: str) -> None:
    assert retargeted(reply, "IDK") == wanted


def test_the_validation_split_is_stratified() -> None:
    known = [number < 60 for number in range(80)]
    alone = [str(number) for number in range(80)]
    held = split_off(known, alone, seed=1)
    assert sum(held[:60]) == 6
    assert sum(held[60:]) == 2
    assert held == split_off(known, alone, seed=1) != split_off(known, alone, seed=2)
    # A few questions are not all learnt from, and none is held back where none is wanted.
    few = split_off([True, True, True, False, False, False], alone[:6])
    assert (sum(few[:3]), sum(few[3:])) == (1, 1)
    assert not any(split_off(known, alone, share=0.0))


def test_questions_about_one_recording_stay_together(tmp_path: Path) -> None:
    pairs = [str(number // 2) for number in range(80)]
    held = split_off([number % 2 == 0 for number in range(80)], pairs, seed=1)
    assert 8 <= sum(held) <= 16
    assert held[::2] == held[1::2]
    assert not any(split_off([True, False] * 5, ["one"] * 10))
    examples = [example(number) for number in range(1, 6)]
    copies = noisy_copies(examples, 1.0, tmp_path / "noisy")
    emptied = [emptied_copy(copy, SILENT) for copy in copies]
    drawn = [Drawn(each, 5, 5, "<answer> dog</answer>") for each in (*examples, *copies, *emptied)]
    write_data(drawn, tmp_path / "data", 5, share=0.2)
    root = [{row.id.split("-")[0] for row in load_manifest(tmp_path / "data" / f"{name}.jsonl")} for name in SPLITS]
    assert not root[0] & root[1]
    assert root[0] | root[1] == {each.id for each in examples}


def test_the_data_set_reads_back(tmp_path: Path) -> None:
    drawn = drawn_of(6, tmp_path / "run", nothing_share=0.4)
    card = write_data(drawn, tmp_path / "data", 3, made_of={"model": "fake"})
    again = read_drawn(tmp_path / "data" / "drawn.jsonl")
    assert [(item.right, item.samples, item.reply, item.fault, item.kind) for item in again] == [
        (item.right, item.samples, item.reply, item.fault, item.kind) for item in drawn
    ]
    assert [target(item, 2) for item in again] == [target(item, 2) for item in drawn]
    assert [item.example.id for item in again] == [item.example.id for item in drawn]
    taught = read_lessons(tmp_path / "data" / "train.jsonl")
    assert [lesson.reply for lesson in taught] == [
        row.meta["reply"] for row in load_manifest(tmp_path / "data" / "train.jsonl")
    ]
    assert len(taught) + card["validation"] == 8
    with pytest.raises(EarnestError, match="no lesson of the modality 'music': it has sound"):
        read_lessons(tmp_path / "data" / "train.jsonl", "music")
    assert taught[0].conversation().clips[0].duration_s > 0
    assert card["known_by_k"] == {"1": 5, "2": 4, "3": 3, "4": 2, "5": 1}
    assert card["idk_share"]["n"] == len(drawn)
    assert card["idk_share"]["value"] == pytest.approx(5 / 8)
    assert json.loads((tmp_path / "data" / "card.json").read_text()) == card


@pytest.mark.parametrize(
    ("change", "text"),
    [({"samples": 0}, "n is 0"), ({"nothing_share": 2.0}, "share of silent"), ({"temperature": 0.0}, "are the same")],
)
def test_numbers_out_of_range_are_named(change: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(EarnestError, match=text):
        drawn_of(2, tmp_path, **change)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        tone(300 + 100 * number, 0.5).save(tmp_path / f"{number}.wav")
    manifest = tmp_path / "m.csv"
    rows = "".join(f"{k}.wav,what is heard?,dog;cat,dog,sound\n" for k in range(4))
    manifest.write_text("audio,question,choices,answer,modality\n" + rows)
    model, out = str(tiny_fused(tmp_path / "tiny")), tmp_path / "idk"
    asked = ["make", "idk", model, "--data", str(manifest), "-n", "2", "-k", "2", "--output", str(out)]
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--max-new-tokens", "8", "--threads", "1", "--nothing", "0.5"])
    assert ended.value.code in (0, None)
    shown = capsys.readouterr().out
    # Random weights come to no end.
    assert "nothing can be learnt from any question" in shown
    assert "left out, such as" in shown
    assert len(read_drawn(out / "drawn.jsonl")) == 6
    assert {path.name for path in out.iterdir()} >= {"train.jsonl", "validation.jsonl", "card.json", "resolved.toml"}
    # Another question to the same folder is refused; a k beyond n before any model is loaded.
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--temperature", "0.5", "--threads", "1"])
    assert ended.value.code not in (0, None)
    assert "temperature" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["make", "idk", "no-such-model", "--data", str(manifest), "-n", "2", "-k", "3"])
    assert "k is 3" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["make", "idk", "no-such-model", "--data", str(manifest), "--idk", "pass"])
    assert "would not be read as abstaining" in capsys.readouterr().err
    # As if they had come to an end.
    monkeypatch.setattr("earnest.reliability.known._fault", lambda *_: "")
    asked[-1] = str(tmp_path / "ended")
    with pytest.raises(SystemExit) as ended:
        main([*asked, "--max-new-tokens", "8", "--threads", "1", "--nothing", "0.5"])
    assert ended.value.code in (0, None)
    assert "at least 2 of 2 right: 0 of 4, 0.0 % [0.0, 49.0], n = 4" in capsys.readouterr().out


def test_questions_without_answers_are_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="q1: no answer"):
        draw(Sampled(), [replace(example(1), answer=None)], RunDirectory(tmp_path))
