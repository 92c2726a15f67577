"""Questions: what is written, what is rejected and why, that draws are fair and seeded, that the world is exact."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine

from earnest.alignment.asking import Asking
from earnest.alignment.cards import questions_tally
from earnest.alignment.questions import (
    Candidate,
    Reason,
    Writing,
    instructions,
    prompt_ids,
    save_questions,
    write_questions,
)
from earnest.alignment.rows import Asked, Surrogate, load_rows
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import EarnestError
from earnest.files import read_json_lines, write_json_lines
from earnest.pocket import language
from earnest.pocket.clips import adapter_scene
from earnest.pocket.world_questions import world_questions
from earnest.run import RunDirectory
from earnest.world.surrogates import scene_surrogate

UNBOUND = Writing(thinking_tokens=0)
WRITTEN = "\n".join(f"{k}. What is thing {k}?" for k in range(1, 6))


def clip(name: str, **change: Any) -> Surrogate:
    return replace(Surrogate(name, Path(f"{name}.wav"), f"[00:00-00:03] |{name}| (duration: 3s)", 3.0), **change)


class Scripted(FakeEngine):
    """Writes and judges; a reply is text, None (it fails), (text, stop), or a function of what was asked."""

    def __init__(self, written: Any = WRITTEN, verdict: Any = "It is.\nVerdict: valid", **settings: Any) -> None:
        super().__init__(lambda _: "", **settings)
        self.replies = {"Judge what is asked": verdict, "things that somebody": written}
        self.seen: Counter[str] = Counter()

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation) for conversation in conversations]

    def _said(self, conversation: Conversation) -> Completion:
        done = self._complete(conversation)
        text = conversation.turns[-1].text
        role, reply = next((role, reply) for role, reply in self.replies.items() if role in text)
        self.seen[role] += 1
        reply = reply(text) if callable(reply) else reply
        if reply is None:
            return replace(done, text="", stop=Stop.FAILED, error="no memory")
        text, stop = reply if isinstance(reply, tuple) else (reply, Stop.END)
        return replace(done, text=text, stop=stop)


def made(engine: Any, rows: Sequence[Surrogate], folder: Path, **more: Any) -> list[Candidate]:
    asking = Asking(RunDirectory(folder), batch_size=8)
    more = {"how": UNBOUND, **more}
    return [each for part in write_questions(engine, more.pop("judge", engine), rows, asking, **more) for each in part]


def number_in(text: str) -> int:
    found = re.search(r"thing (\d)", text)
    assert found
    return int(found[1])


def test_one_sound_question_is_drawn_for_each_clip_and_others_change_nothing(tmp_path: Path) -> None:
    engine = Scripted()
    rows = [clip(f"c{k}") for k in range(40)]
    found = made(engine, rows, tmp_path)
    assert [each.row.clip for each in found] == [row.id for row in rows]
    assert all(each.reason is None and each.row.id == f"{each.clip.id}-q{each.number}" for each in found)
    assert set(Counter(each.number for each in found)) == {1, 2, 3, 4, 5}
    assert engine.seen == {"Judge what is asked": 40, "things that somebody": 40}, "no more are judged than are needed"
    again = made(Scripted(), rows[7:], tmp_path / "b", slice_rows=3)
    assert [each.row for each in again] == [each.row for each in found[7:]]
    other = made(Scripted(), rows, tmp_path / "c", seed=1)
    assert [each.number for each in other] != [each.number for each in found]


def test_the_writer_sees_the_surrogate_and_the_judge_the_question_too(tmp_path: Path) -> None:
    texts: list[str] = []

    def written(text: str) -> str:
        texts.append(text)
        return "1. What is it?"

    def verdict(text: str) -> str:
        texts.append(text)
        return "Verdict: valid"

    made(Scripted(written, verdict), [clip("dog")], tmp_path, count=7)
    assert "[00:00-00:03] |dog| (duration: 3s)" in texts[0] and "Write 7 different" in texts[0]
    assert "[00:00-00:03] |dog| (duration: 3s)" in texts[1] and "Asked: What is it?" in texts[1]
    assert len(set(prompt_ids())) == 2


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("No.\nVerdict: unanswerable", Reason.UNANSWERABLE),
        ("**Verdict: reveals**", Reason.REVEALS),
        ("I do not know.", Reason.UNJUDGED),
        ("Verdict: valid\nVerdict: reveals", Reason.UNJUDGED),
        ("Verdict: valid\nor not", Reason.UNJUDGED),
        (("Verdict: valid", Stop.LENGTH), Reason.UNJUDGED),
        (None, Reason.JUDGE_FAILED),
    ],
)
def test_what_the_judge_does_not_find_sound_is_rejected(tmp_path: Path, verdict: Any, reason: Reason) -> None:
    found = made(Scripted(verdict=verdict), [clip("dog")], tmp_path)
    assert [each.reason for each in found] == [reason] * 5


class Thinker(FakeEngine):
    """Opens a thought that its template began, which goes on until it is closed; then it writes."""

    def __init__(self) -> None:
        super().__init__(lambda _: "")
        self.begun: list[str] = []

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation, sampling) for conversation in conversations]

    def _said(self, conversation: Conversation, sampling: Sampling) -> Completion:
        done = self._complete(conversation)
        judges = "Judge what is asked" in conversation.turns[0].text
        if sampling.stop:
            assert sampling.stop == ("</think>",) and sampling.max_new_tokens == 40
            return replace(done, text="Drafts:\n1. A draft?\nVerdict: perhaps", stop=Stop.LENGTH)
        self.begun.append(conversation.turns[-1].text)
        return replace(done, text="It is.\nVerdict: valid" if judges else WRITTEN, stop=Stop.END)


def test_thinking_that_takes_too_long_is_closed_and_drafts_are_no_candidates(tmp_path: Path) -> None:
    engine = Thinker()
    (taken,) = made(engine, [clip("dog")], tmp_path, how=Writing(100, 40))
    assert taken.reason is None and taken.text.startswith("What is thing")
    writer, judge = engine.begun
    drafts = "Drafts:\n1. A draft?\nVerdict: perhaps"
    assert writer == f"{drafts}\n\nI have thought enough. Now I write the numbered lines.\n</think>\n\n"
    assert judge.endswith("I have thought enough. Now I give my reasons and the verdict.\n</think>\n\n")


def test_candidates_that_leak_are_found_without_a_judge_and_the_next_one_is_looked_at(tmp_path: Path) -> None:
    written = "\n".join(f"{k}) What does the caption say of thing {k}?" for k in range(1, 5)) + "\n5: And thing 5?"
    engine = Scripted(written)
    found = made(engine, [clip(f"c{k}") for k in range(6)], tmp_path)
    taken = [each for each in found if each.reason is None]
    assert [each.number for each in taken] == [5] * 6
    assert {each.reason for each in found} == {None, Reason.LEAKS} and len(found) > 6
    assert next(each for each in found if each.reason).detail == "caption"
    assert engine.seen["Judge what is asked"] == 6


def test_sound_candidates_are_equally_likely_whatever_stands_between_them(tmp_path: Path) -> None:
    engine = Scripted(verdict=lambda text: f"Verdict: {'valid' if number_in(text) % 2 else 'unanswerable'}")
    found = made(engine, [clip(f"c{k}") for k in range(300)], tmp_path)
    counts = Counter(each.number for each in found if each.reason is None)
    assert set(counts) == {1, 3, 5} and min(counts.values()) > 70


def test_several_a_clip_and_fewer_where_fewer_are_sound(tmp_path: Path) -> None:
    engine = Scripted(verdict=lambda text: f"Verdict: {'valid' if number_in(text) != 2 else 'reveals'}")
    found = made(engine, [clip("a"), clip("b")], tmp_path, per_clip=9)
    taken = [each.row.id for each in found if each.reason is None]
    assert sorted(taken) == sorted(f"{name}-q{k}" for name in "ab" for k in (1, 3, 4, 5))


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("<think>1. not this?</think>\n1. This?\n2. this?\n3. That?", {"This?", "That?"}),
        (("1. This?\n2. That one th", Stop.LENGTH), {"This?"}),
        ("Sure:\n- This?\n 12 .  That?  ", {"That?"}),
    ],
)
def test_what_is_read(tmp_path: Path, written: Any, texts: set[str]) -> None:
    found = made(Scripted(written), [clip("a")], tmp_path, per_clip=5)
    assert {each.text for each in found} == texts


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (None, Reason.WRITER_FAILED),
        ("I cannot.", Reason.NOTHING_WRITTEN),
        (("<think>1. Is it?", Stop.LENGTH), Reason.NOTHING_WRITTEN),
    ],
)
def test_a_clip_without_candidates_is_accounted_for(tmp_path: Path, written: Any, reason: Reason) -> None:
    found = made(Scripted(written), [clip("a")], tmp_path)
    assert [(each.number, each.reason) for each in found] == [(0, reason)]


def test_a_spoken_request_gets_a_neutral_instruction_or_none_and_nobody_is_asked(tmp_path: Path) -> None:
    engine = Scripted()
    found = made(engine, [clip(f"c{k}", instruction=True) for k in range(60)], tmp_path)
    assert {each.text for each in found} == {"", *instructions()}
    assert not engine.seen


def test_questions_are_written_with_a_card_and_again_only_what_failed_is_asked(tmp_path: Path) -> None:
    rows = [clip("a"), clip("b"), clip("c", instruction=True)]
    asking = Asking(RunDirectory(tmp_path), batch_size=8)
    broken = Scripted(written=lambda text: None if "|b|" in text else WRITTEN)
    card = save_questions(write_questions(broken, broken, rows, asking, how=UNBOUND), tmp_path, {"x": 1})
    assert (card["x"], card["clips"], card["clips_without"], card["rows"], card["failed_requests"]) == (
        1,
        3,
        1,
        2,
        1,
    )
    assert [row["reason"] for row in read_json_lines(tmp_path / "rejected.jsonl")] == ["writer failed"]
    sound = Scripted()
    asking = Asking(RunDirectory(tmp_path), batch_size=8)
    card = save_questions(write_questions(sound, sound, rows, asking, how=UNBOUND), tmp_path)
    assert sound.seen == {"Judge what is asked": 1, "things that somebody": 1}
    found = load_rows(tmp_path / "questions.jsonl", Asked)
    assert [row.clip for row in found] == ["a", "b", "c"] and card["rejected_for"] == {}
    assert found[0].audio == tmp_path / "a.wav" or found[0].audio.name == "a.wav"


def test_the_card_counts_hours_prompts_and_tasks() -> None:
    def row(name: str, question: str, seconds: float = 1800.0, **change: Any) -> Asked:
        return replace(Asked(name, Path(f"{name[0]}.wav"), "x", seconds, question=question, clip=name[0]), **change)

    tally = questions_tally()
    for each in (
        row("a1", "What is it?", modality="sound"),
        row("a2", "Describe it.", modality="sound"),
        row("b1", "What is it?", 3600.0, modality="speech", split="test"),
        row("c1", "", instruction=True, modality="speech"),
        row("d1", "Answer it.", instruction=True, modality="speech", corpus="mine"),
    ):
        tally.add(each)
    card = {**tally.counts(), **tally.mixes()}
    assert (card["rows"], card["files"], card["hours"], card["unique_prompts"]) == (5, 4, 2.5, 4)
    assert {name: counts["rows"] for name, counts in card["tasks"].items()} == {
        "question": 2, "task": 1, "spoken request": 1, "spoken request with an instruction": 1,
    }  # fmt: skip
    assert card["modalities"]["sound"] == {"rows": 2, "files": 1, "hours": 0.5, "unique_prompts": 2}
    assert (card["splits"]["test"]["hours"], card["corpora"]["mine"]["rows"]) == (1.0, 1)


# ---- the world


def world(folder: Path, count: int = 12) -> list[Surrogate]:
    scenes = [adapter_scene("train", 5, number) for number in range(count)]
    write_json_lines(folder / "scenes.jsonl", (scene.to_json() for scene in scenes))
    return [
        Surrogate(
            f"world/{scene.id}", folder / "audio" / f"{scene.id}.flac", scene_surrogate(scene), scene.duration_s,
            instruction=scene.extra["genre"] == "request",
        )
        for scene in scenes
    ]  # fmt: skip


def test_the_world_asks_exactly_and_knows_the_answers(tmp_path: Path) -> None:
    rows = world(tmp_path)
    found = list(world_questions(rows, 4))
    assert {row.clip for row in found} == {row.id for row in rows}
    assert len({row.id for row in found}) == len(found) > 40
    assert all(row.answer for row in found) and not any("description" in row.answer for row in found)
    requests = [row for row in found if row.clip in {each.id for each in rows if each.instruction}]
    assert Counter(row.instruction for row in requests) == {True: 9, False: 3}
    assert all(row.answer.startswith("first take a") for row in requests if row.instruction)
    assert all(row.question in language.TRANSCRIBE for row in requests if not row.instruction)
    assert list(world_questions(rows[3:4], 4)) == [row for row in found if row.clip == rows[3].id]
    assert [row.question for row in world_questions(rows, 4, seed=1)] != [row.question for row in found]
    per_clip = Counter((row.clip, row.question) for row in found)
    assert max(per_clip.values()) == 1


def test_a_clip_of_no_known_scene_is_named(tmp_path: Path) -> None:
    with pytest.raises(EarnestError, match=r"scenes\.jsonl, which `earnest make world` writes"):
        list(world_questions([clip("dog", audio=tmp_path / "audio" / "dog.flac")]))
