"""Targets: what is asked, how an edit is bounded and read, every reason of a rejection, and resuming."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine

import earnest
from earnest.alignment.asking import Asking
from earnest.alignment.edits import Reason, read_edit, renamed, restored
from earnest.alignment.layouts.world import world_rows
from earnest.alignment.leaks import leak
from earnest.alignment.rephrase import Rephrased, Settings, prompt_of, rephrase
from earnest.alignment.rows import Asked, Target, load_rows
from earnest.alignment.writing import save_targets
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import ManifestError, RecipeError
from earnest.files import read_json_lines, write_json_lines
from earnest.pocket.clips import adapter_scene
from earnest.pocket.curriculum import rephrase_prompt
from earnest.pocket.world_questions import world_questions
from earnest.run import RunDirectory
from earnest.world.replies import LEAKS

RAW = "The description says a dog barks.\n</think>\n\nIt is a dog, says the description."
EDIT = "I hear a dog bark, I think.\n[/think]\n\nIt is a dog, from what I hear."
HEARD = "I hear a dog bark, I think.\n</think>\n\nIt is a dog, from what I hear."


def row_of(name: str = "a", **change: Any) -> Asked:
    row = Asked(name, Path(f"{name}.wav"), "[00:00-00:03] |dog| (duration: 3s)", 3.0, question="what is it?", clip=name)
    return replace(row, **change)


class Scripted(FakeEngine):
    """Says R0 and edits it. A reply is text, None (it fails) or (text, stop); edits are a list, one for each call."""

    def __init__(self, raw: Any = RAW, *edits: Any, **settings: Any) -> None:
        super().__init__(lambda _: "", **settings)
        self.raw = raw
        self.edits = list(edits) or ["short.</think>", f"<answer>{EDIT}</answer>"]
        self.seen: list[tuple[Conversation, Sampling]] = []

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation, sampling) for conversation in conversations]

    def _said(self, conversation: Conversation, sampling: Sampling) -> Completion:
        done = self._complete(conversation)
        self.seen.append((conversation, sampling))
        first = conversation.turns[0].text.startswith("<start_audio>")
        reply = self.raw if first else self.edits[len(conversation.turns) - 1]
        if callable(reply):
            reply = reply(conversation)
        if reply is None:
            return replace(done, text="", stop=Stop.FAILED, error="no memory")
        text, stop = reply if isinstance(reply, tuple) else (reply, Stop.END)
        ended = any(text.endswith(mark) for mark in sampling.stop)
        return replace(done, text=text, stop=Stop.STOP_STRING if ended else stop)


def made(
    engine: Any, rows: Sequence[Asked], folder: Path, settings: Settings | None = None, **more: Any
) -> list[Rephrased]:
    asking = Asking(RunDirectory(folder), batch_size=4)
    parts = rephrase(engine, more.pop("rephraser", engine), rows, asking, settings or Settings(), **more)
    return [each for part in parts for each in part]


def one(tmp_path: Path, engine: Any, settings: Settings | None = None, **change: Any) -> Target:
    return made(engine, [row_of(**change)], tmp_path / "run", settings)[0].row


# ---- what is asked


def test_r0_is_asked_of_surrogate_and_question_and_the_edit_of_r0_alone(tmp_path: Path) -> None:
    engine = Scripted()
    row = one(tmp_path, engine)
    (asked, sampling), (edit, thinking), (begun, rest) = engine.seen
    assert asked.turns[0].text == "<start_audio>[00:00-00:03] |dog| (duration: 3s)<end_audio>\n\nwhat is it?"
    assert sampling == Sampling(max_new_tokens=512)
    words = edit.turns[0].text
    assert words.endswith(RAW.replace("</think>", "[/think]")) and "what is it?" not in words and "|dog|" not in words
    assert thinking == Sampling(max_new_tokens=1536, stop=("</think>",))
    assert begun.begun and begun.begun.text == "short.</think>" and rest == Sampling(max_new_tokens=1024)
    assert (row.raw, row.target, row.reason, row.cut) == (RAW, HEARD, "rephrased", False)


def test_thinking_that_takes_too_long_is_closed_and_goes_on_to_the_answer(tmp_path: Path) -> None:
    engine = Scripted(RAW, ("I must write <answer>, but", Stop.LENGTH), f"<answer>\n{EDIT}\n</answer>")
    assert one(tmp_path, engine).target == HEARD
    begun = engine.seen[-1][0].begun
    closing = prompt_of("general").texts["closing"]
    assert begun and begun.text == f"I must write <answer>, but\n\n{closing}\n</think>\n\n"


def test_who_does_not_think_is_asked_once_and_without_a_bound_nobody_goes_on(tmp_path: Path) -> None:
    engine = Scripted(RAW, f"<answer>{EDIT}</answer>")
    assert one(tmp_path, engine).target == HEARD
    assert len(engine.seen) == 2
    free = Scripted(RAW, f"I write <answer>.</think><answer>{EDIT}</answer>")
    assert one(tmp_path / "free", free, Settings(thinking_tokens=0)).target == HEARD
    assert free.seen[-1][1] == Sampling(max_new_tokens=1024)
    slow = Scripted(RAW, (f"<answer>{EDIT[:9]}", Stop.LENGTH), f"{EDIT[9:]}</answer>")
    assert one(tmp_path / "slow", slow).target == HEARD


def test_a_spoken_instruction_is_not_edited_and_needs_no_question(tmp_path: Path) -> None:
    engine = Scripted("Sure, here is the text.")
    row = one(tmp_path, engine, instruction=True, question="")
    assert (row.target, row.reason) == ("Sure, here is the text.", "spoken instruction")
    assert engine.seen[0][0].turns[0].text.endswith("<end_audio>")
    assert len(engine.seen) == 1


def test_only_what_leaks_is_edited_where_that_is_asked_for(tmp_path: Path) -> None:
    engine = Scripted("I hear a dog.", "nothing")
    assert one(tmp_path, engine).reason == "no answer tag"
    row = one(tmp_path / "leaking", engine, Settings(only_leaking=True))
    assert (row.target, row.reason) == ("I hear a dog.", "no leak")


def test_another_model_may_rephrase(tmp_path: Path) -> None:
    own, other = Scripted(name="own"), Scripted(name="other")
    rows = made(own, [row_of()], tmp_path, rephraser=other)
    assert rows[0].row.target == HEARD
    assert [len(own.seen), len(other.seen)] == [1, 2]


# ---- reasons


@pytest.mark.parametrize(
    ("raw", "edit", "reason"),
    [
        (None, "", Reason.RAW_FAILED),
        (" \n", "", Reason.RAW_EMPTY),
        (RAW, None, Reason.REPHRASE_FAILED),
        (RAW, EDIT, Reason.NO_ANSWER),
        (RAW, f"<answer>{EDIT}", Reason.NO_ANSWER),
        (RAW, f"<answer>{EDIT} So says the caption.</answer>", Reason.LEAKS),
        (RAW, "<answer>A dog.[/think]</answer>", Reason.LENGTH),
        (RAW, f"<answer>{EDIT}{EDIT}</answer>", Reason.LENGTH),
        (RAW, f"<answer>{EDIT.replace('[/think]', '')}</answer>", Reason.TAGS),
        (RAW, "<answer></answer>", Reason.LENGTH),
    ],
)
def test_what_is_no_sound_edit_is_rejected_with_its_reason(tmp_path: Path, raw: Any, edit: Any, reason: Reason) -> None:
    row = one(tmp_path, Scripted(raw, edit))
    assert (row.target, row.reason) == (None, reason.value)
    kept = one(tmp_path / "kept", Scripted(raw, edit), Settings(keep_raw=True))
    if reason in (Reason.RAW_FAILED, Reason.RAW_EMPTY, Reason.REPHRASE_FAILED):
        assert kept.target is None
    else:
        assert (kept.target, kept.reason) == (raw, f"kept raw: {reason.value}")


def test_a_cut_reply_is_kept_as_a_prefix_and_may_not_be_completed(tmp_path: Path) -> None:
    raw = ("So, the description says that first a dog and then", Stop.LENGTH)
    prefix = "So, what I can hear is that first a dog and then"
    row = one(tmp_path, Scripted(raw, f"<answer>{prefix}</answer>"))
    assert (row.target, row.cut) == (prefix, True)
    longer = f"<answer>{prefix} a bell rings.\n[/think]</answer>"
    assert one(tmp_path / "b", Scripted(raw, longer)).reason == "tags"
    assert one(tmp_path / "c", Scripted(raw, f"<answer>{prefix} a bell rings twice.</answer>")).reason == "completed"
    row = one(tmp_path / "d", Scripted(raw, longer), Settings(keep_cut=False))
    assert (row.target, row.reason, row.cut) == (None, "cut", True)


def test_targets_outside_of_a_range_of_tokens_are_left_out_where_one_is_given(tmp_path: Path) -> None:
    def count(text: str) -> int:
        return len(text.split())

    words = count(HEARD)
    ranges = {(words, words): "rephrased", (words + 1, 99): "answer tokens", (1, 5): "answer tokens"}
    for limits, reason in ranges.items():
        folder = tmp_path / str(limits)
        rows = made(Scripted(), [row_of()], folder, Settings(answer_tokens=limits), tokens_of=count)
        assert rows[0].row.reason == reason


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(RecipeError, match="known are general, pocket"):
        Settings(words="french")
    with pytest.raises(RecipeError, match="0 for no bound"):
        Settings(thinking_tokens=-1)
    with pytest.raises(RecipeError, match="the fewest, then the most"):
        Settings(answer_tokens=(9, 1))
    assert Settings().needs and not Settings(thinking_tokens=0).needs


# ---- tags


@pytest.mark.parametrize(
    "reply", ["<think> a [00:01].</think><answer> b</answer>", "x\n</think>\n\ny <seg>1, 2</seg>", "<think>\ncut"]
)
def test_renaming_is_undone_exactly(reply: str) -> None:
    assert restored(renamed(reply, spaced=False), spaced=False) == reply
    assert "think>" not in renamed(reply, spaced=False)


def test_pocket_is_shown_its_own_form(tmp_path: Path) -> None:
    raw = "<think> the text mentions a dog [00:01].</think><answer> yes</answer>"
    words = prompt_of("pocket").texts["rephrase"]
    assert words.format(reply=renamed(raw, spaced=True)) == rephrase_prompt(raw)
    said = "<answer> [think] i hear a dog [00:01]. [/think] [answer] yes [/answer]</answer>"
    edit = read_edit(said, raw, cut=False, spaced=True)
    assert (edit.text, edit.reason) == ("<think> i hear a dog [00:01].</think><answer> yes</answer>", Reason.REPHRASED)


def pocket_rows(folder: Path, clips: int) -> list[Asked]:
    scenes = [adapter_scene("train", 77, number) for number in range(1, clips + 1)]
    write_json_lines(folder / "scenes.jsonl", (scene.to_json() for scene in scenes))
    return list(world_questions(world_rows(scenes, folder), 5))


def test_pocket_rephrases_itself(tmp_path: Path) -> None:
    engine = earnest.load("pocket", threads=1)
    settings = Settings(words="pocket", only_leaking=True)
    found = [each.row for each in made(engine, pocket_rows(tmp_path / "world", 12), tmp_path, settings, slice_rows=16)]
    assert sum(bool(leak(row.raw)) for row in found) / len(found) > 0.2
    assert not any(leak(row.target or "") for row in found)
    edited = [row for row in found if row.reason == Reason.REPHRASED.value]
    assert len(edited) > 4
    for row in edited:
        lead = next(lead for lead in LEAKS if lead in row.raw)
        assert row.target == row.raw.replace(lead, "i hear")


# ---- on disk, and again


def test_targets_and_rejected_rows_are_written_with_a_card(tmp_path: Path) -> None:
    def edit(conversation: Conversation) -> str:
        return EDIT if "bell" in conversation.turns[0].text else f"<answer>{EDIT}</answer>"

    def raw(conversation: Conversation) -> str:
        return RAW.replace("dog", "bell") if "|bell|" in conversation.turns[0].text else RAW

    rows = [row_of(f"{k}", clip=str(k // 2), surrogate="|bell|" if k == 3 else f"|dog {k}|") for k in range(6)]
    asking = Asking(RunDirectory(tmp_path), batch_size=4)
    parts = rephrase(Scripted(raw, edit), Scripted(raw, edit), rows, asking, Settings())
    card = save_targets(parts, tmp_path, {"a": 1})
    assert [row.id for row in load_rows(tmp_path / "targets.jsonl", Target)] == ["0", "1", "2", "4", "5"]
    rejected = read_json_lines(tmp_path / "rejected.jsonl")
    assert [(row["id"], row["reason"], row["said"]) for row in rejected] == [("3", "no answer tag", EDIT)]
    assert (card["a"], card["rows"], card["targets"], card["rejected"], card["failed_requests"]) == (1, 6, 5, 1, 0)
    assert {name: row["count"] for name, row in card["reasons"].items()} == {"rephrased": 5, "no answer tag": 1}
    assert not list(tmp_path.glob(".*.part"))


def test_faults_of_targets_say_what_fits(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"{k}", "audio": "a.wav", "surrogate": "|dog|", "duration_s": 1.0, "clip": "c", "target": "a dog"}
        for k in range(3)
    ]
    del rows[0]["target"]
    rows[1]["split"] = "foo"
    rows[2]["duration_s"] = 0
    write_json_lines(tmp_path / "odd.jsonl", rows)
    with pytest.raises(ManifestError) as error:
        load_rows(tmp_path / "odd.jsonl", Target)
    for words in (
        "no 'target': every row needs it", "split = 'foo': give one of train, validation, test",
        "duration_s = 0: give seconds above 0",
    ):  # fmt: skip
        assert words in str(error.value)


def test_a_second_run_asks_nothing_but_what_failed(tmp_path: Path) -> None:
    rows = [row_of(f"{k}", surrogate=f"|dog {k}|") for k in range(9)]
    fails: Callable[[Conversation], str | None] = lambda c: None if "|dog 5|" in c.turns[0].text else RAW  # noqa: E731
    first = made(Scripted(fails), rows, tmp_path)
    assert [each.row.reason for each in first].count("no reply") == 1
    again = Scripted()
    second = made(again, rows, tmp_path)
    assert len(again.seen) == 1
    assert all(each.row.target == HEARD for each in second)


CHILD = """
import sys
from pathlib import Path
from test_rephrase import Scripted, made, row_of
rows = [row_of(f"{k}", surrogate=f"|dog {k}|") for k in range(40)]
made(Scripted(seconds=0.01, log=Path(sys.argv[2])), rows, Path(sys.argv[1]), slice_rows=16)
"""


def test_a_kill_loses_one_batch_at_most_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    log, out = tmp_path / "asked.txt", tmp_path / "run"
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(out), str(log)], env={**os.environ, "PYTHONPATH": path})
    while not (log.exists() and len(log.read_text().split()) > 18):
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    before = log.read_text().split()
    saved = {row["key"] for row in read_json_lines(out / "completions.jsonl")} if out.exists() else set()
    assert 0 < len(saved) < 40
    rows = [row_of(f"{k}", surrogate=f"|dog {k}|") for k in range(40)]
    found = made(Scripted(log=log), rows, out, slice_rows=16)
    assert [each.row.id for each in found] == [row.id for row in rows]
    assert all(each.row.target == HEARD for each in found)
    counts = Counter(log.read_text().split())
    doubled = sum(counts.values()) - len(counts)
    assert doubled <= 4, "only the batch that was being computed is asked again"
    assert len(before) >= len(saved)


@pytest.mark.parametrize(
    ("raw", "edited", "cut", "taken"),
    [
        ("<think>The text says 3 dogs at 0:04.</think><answer>3</answer>", "I hear 3 dogs at 0:04.|3", False, True),
        ("<think>The text says 3 dogs at 0:04.</think><answer>3</answer>", "I hear 3 dogs at 0:05.|3", False, False),
        (
            "<think>The text says 3 dogs at 0:04.</think><answer>two</answer>",
            "I hear 3 dogs at 0:04.|three",
            False,
            False,
        ),
        ("<think>The text says a dog.</think><answer>the text</answer>", "I hear a dog.|the audio", False, True),
    ],
)
def test_what_is_wrong_in_the_reply_stays_wrong(raw: str, edited: str, cut: bool, taken: bool) -> None:
    thought, answer = edited.split("|")
    said = f"<answer>[think]{thought}[/think][answer]{answer}[/answer]</answer>"
    edit = read_edit(said, raw, cut=cut, spaced=False)
    assert edit.reason == (Reason.REPHRASED if taken else Reason.CHANGED)


@pytest.mark.parametrize(
    ("edited", "taken"),
    [
        ("i hear click [00:09], then trumpet, low, fast [00:22].", True),
        ("i hear click [00:09], then trumpet [00:22].", False),
        ("i hear cow [00:09], then trumpet, low, fast [00:22].", False),
        ("i hear click, man [00:09], then trumpet, low, fast [00:22].", False),
    ],
)
def test_an_exact_edit_changes_what_betrays_and_no_other_word(edited: str, taken: bool) -> None:
    raw = "<think> the text mentions click [00:09], then trumpet, low, fast [00:22].</think><answer> trumpet</answer>"
    said = f"<answer> [think] {edited} [/think] [answer] trumpet [/answer]</answer>"
    assert read_edit(said, raw, cut=False, spaced=True, exact=True).reason == (
        Reason.REPHRASED if taken else Reason.CHANGED
    )
    assert read_edit(said, raw, cut=False, spaced=True).reason == Reason.REPHRASED


def test_a_cut_reply_may_lose_figures_at_its_end_alone() -> None:
    raw = "<think>The text says dog 1, dog 2 and dog 3"
    said = "<answer>[think]I hear dog 1, dog {} and dog</answer>"
    assert read_edit(said.format(2), raw, cut=True, spaced=False).reason is Reason.REPHRASED
    assert read_edit(said.format(3), raw, cut=True, spaced=False).reason is Reason.CHANGED
