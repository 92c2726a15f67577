"""Grounded questions: what is read, what is rejected and why, that a kill repeats nothing, that the world is exact."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes import FakeEngine
from tests.tiny import tone

from earnest.audio import Clip
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import EarnestError, ManifestError
from earnest.example import load_manifest
from earnest.files import read_json_lines
from earnest.grading import Outcome, grade
from earnest.relistening.drafts import Draft, Reason, Rejection, read_draft
from earnest.relistening.grounded import (
    JUDGED,
    Grounded,
    Place,
    _scenes_for_rl,  # pyright: ignore[reportPrivateUsage]
    describe,
    judge,
    make_grounded_world,
    save,
    write,
)
from earnest.relistening.metadata import Described, Event, read_metadata
from earnest.relistening.reward import well_formed
from earnest.relistening.traces import Trace
from earnest.run import RunDirectory

COT = (
    "i go to the start, where <seg>0.5, 2</seg> a dog barks twice, then to <seg>2.25, 4</seg> what follows, a bell. "
    "The answer is a bell."
)
DRAFT: dict[str, Any] = {
    "question": "What follows the dog?", "options": ["a bell", "a horn", "a cat"], "answer": "a bell", "cot": COT,
}  # fmt: skip
VALID = "It holds.\nVerdict: valid"


def saying(**change: Any) -> str:
    return f"```json\n{json.dumps({**DRAFT, **change})}\n```"


def clip_of(folder: Path, name: str = "a", **change: Any) -> Described:
    audio = Clip(np.full(16000 * 5, 0.1, dtype=np.float32), 16000).save(folder / "clips" / f"{name}.wav")
    events = (Event(0.5, 2.0, "dog"), Event(2.25, 4.0, "bell"))
    return replace(Described(name, audio, 5.0, events, f"clip {name}"), **change)


class Scripted(FakeEngine):
    """Writes, and judges question and reasoning; a reply is text, None (it fails) or (text, stop)."""

    def __init__(self, said: Any = None, question: Any = VALID, cot: Any = VALID, **settings: Any) -> None:
        super().__init__(lambda _: "", **settings)
        self.replies = {"Judge the question.": question, "Judge the reasoning.": cot, "Write one": said or saying()}
        self.roles: list[str] = []
        self.prompts: list[str] = []

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        return [self._said(conversation) for conversation in conversations]

    def _said(self, conversation: Conversation) -> Completion:
        done = self._complete(conversation)
        text = conversation.turns[-1].text
        role, reply = next((role, reply) for role, reply in self.replies.items() if role in text)
        self.roles.append(role)
        self.prompts.append(text)
        reply = reply(text) if callable(reply) else reply
        if reply is None:
            return replace(done, text="", stop=Stop.FAILED, error="no memory")
        text, stop = reply if isinstance(reply, tuple) else (reply, Stop.END)
        return replace(done, text=text, stop=stop)


def made(engine: Scripted, clips: Sequence[Described], folder: Path, **options: Any) -> list[Grounded]:
    run = RunDirectory(folder)
    items = write(engine, clips, run, **options)
    for what in JUDGED:
        items = judge(engine, items, run, what, **options)
    return items


def one(tmp_path: Path, engine: Scripted, **change: Any) -> Grounded:
    """One item, beside a sound one that keeps the engine from failing at everything."""
    sound = Scripted()
    usual = dict(engine.replies)

    def only_a(role: str) -> Any:
        def reply(text: str) -> Any:
            own = usual[role] if "clip a" in text else sound.replies[role]
            return own(text) if callable(own) else own

        return reply

    engine.replies = {role: only_a(role) for role in usual}
    item, other = made(engine, [clip_of(tmp_path, **change), clip_of(tmp_path, "b")], tmp_path / "out")
    assert other.place is Place.SFT
    return item


# ---- what a model hears


def test_what_is_not_described_is_listened_to(tmp_path: Path) -> None:
    clips = [clip_of(tmp_path), clip_of(tmp_path, "b", description="", music="a harp"), clip_of(tmp_path, "c")]
    for number, clip in enumerate(clips):
        tone(300 + 100 * number, 5.0).save(clip.audio)
    unheard = Clip.load(clips[2].audio).key

    def hears(conversation: Conversation) -> str | None:
        (turn,) = conversation.turns
        (audio,) = conversation.audio
        if "word for word" in turn.text:
            # One cannot be heard: it stays as it is.
            return None if audio.clip.key == unheard else "no\nspeech."
        return "drums." if "instruments" in turn.text else "a dog, then a bell."

    run = RunDirectory(tmp_path / "out")
    engine, seen = FakeEngine(hears), []
    found = describe(engine, clips, run, batch_size=2, progress=lambda *at: seen.append(at))
    assert [(clip.description, clip.speech, clip.music) for clip in found] == [
        ("clip a", "no speech.", "drums."), ("a dog, then a bell.", "no speech.", "a harp"), ("clip c", "", "drums."),
    ]  # fmt: skip
    assert [replace(clip, description="", speech="", music="") for clip in found] == [
        replace(clip, description="", speech="", music="") for clip in clips
    ]
    assert (len(engine.asked), seen) == (6, [(2, 6), (4, 6), (6, 6)])
    # What was answered is not asked again; what failed is.
    assert describe(engine, clips, RunDirectory(tmp_path / "out")) == found
    assert len(engine.asked) == 7
    assert "Speech: no speech." in found[0].simulation


# ---- metadata


def test_metadata_is_read_under_the_names_that_people_use_and_told_as_text(tmp_path: Path) -> None:
    Clip.silence(5.006).save(tmp_path / "a.wav")
    row = {
        "audio_path": "a.wav", "duration_s": 5, "caption": " a  yard ", "transcript": ["sit", "good\ndog"],
        "events": [
            {"start": "2.5", "end": 5.3, "text": "sit"}, {"start_s": 0, "end_s": 1.5, "label": "speech", "text": "hm"},
        ],
        "groups": {"modality": "sound"}, "meta": {"license": "CC0"},
    }  # fmt: skip
    (tmp_path / "m.json").write_text(json.dumps([row]))
    (clip,) = read_metadata(tmp_path / "m.json")
    assert clip.simulation == (
        "Duration: 5.00 s\nDescription: a yard\nSpeech: sit good dog\nMusic: not described\nEvents:\n"
        "  0.00 to 1.50 s: speech: hm\n  2.50 to 5.00 s: sit"
    )
    assert (clip.id, clip.groups, clip.meta) == ("line-1", {"modality": "sound"}, {"license": "CC0"})


def test_all_faults_of_the_metadata_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    Clip.silence(5.0).save(tmp_path / "a.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    good: dict[str, Any] = {"audio": "a.wav", "events": [{"start": 1, "end": 2, "label": "dog"}]}

    def events(**change: Any) -> dict[str, Any]:
        return {**good, "events": [good["events"][0], {**good["events"][0], **change}]}

    rows = [
        {**good, "audio": "gone.wav"}, {**good, "audio": "broken.wav"}, {**good, "duration": 9},
        {**good, "duration": "long"}, {**good, "events": []}, {"audio": "a.wav"}, {**good, "captoin": "x"},
        {**good, "caption": "x", "description": "y"}, events(start=2), events(end=5.6), events(start="soon"),
        events(label=" "), events(lable="dog"), {**good, "speech": {"said": "x"}}, {**good, "id": "x"},
        {**good, "id": "x"}, {"audoi": "a.wav", "events": good["events"]}, events(start_s=1), {**good, "events": "[1]"},
        {**good, "events": "["},
    ]  # fmt: skip
    file = tmp_path / "m.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "[]\n{")
    with pytest.raises(ManifestError) as error:
        read_metadata(file)
    wanted = [
        (1, "audio 'gone.wav' is missing"), (2, "audio 'broken.wav' cannot be"),
        (3, "duration is 9 s, the file holds 5.00 s"), (4, "duration is 'long': give seconds"),
        (5, "events is no list with"), (6, "no 'events': the column"), (7, "unknown column 'captoin': did you mean"),
        (8, "column 'description' says 'description' a second"), (9, "event 2: 2 to 2 s is no segment"),
        (10, "event 2: 1 to 5.6 s reaches outside the clip (5.00 s)"), (11, "event 2: start is 'soon': give"),
        (12, "event 2: no 'label' and no 'text'"), (13, "event 2: unknown key 'lable'"), (14, "speech is a dict: give"),
        (16, "id 'x' stands on line 15"), (17, "unknown column 'audoi': did you mean 'audio'"),
        (18, "event 2: 2 times called 'start'"), (19, "event 1: a int: give"), (20, "events '[' is no JSON"),
        (21, "a list where an object"), (22, "no JSON"),
    ]  # fmt: skip
    found = sorted(error.value.faults, key=lambda fault: int(fault.split(":")[0].removeprefix("line ")))
    assert len(found) == len(wanted), found
    for fault, (line, text) in zip(found, wanted, strict=True):
        assert fault.startswith(f"line {line}: {text}"), fault
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ManifestError, match="no rows"):
        read_metadata(tmp_path / "none.jsonl")


# ---- what a writer wrote


@pytest.mark.parametrize(
    "said",
    [
        saying(),
        json.dumps(DRAFT),
        f"Here it is.\n{saying()}\nDone.",
        f"<think> a draft:\n```json\n{{}}\n```\n</think>\n{saying()}",
        f"the prompt opened it </think> {json.dumps(DRAFT)}",
        saying(question="What  follows\nthe dog?"),
    ],
)
def test_a_draft_is_one_json_object_in_a_block_or_alone(said: str) -> None:
    assert read_draft(said) == Draft(DRAFT["question"], tuple(DRAFT["options"]), "a bell", COT)


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ("", "no JSON object"),
        ("I cannot hear it.", "no JSON object"),
        (saying() + "\n" + saying(), "2 fenced blocks"),
        ("```json\n[]\n```", "a list in place of an object"),
        (saying(why="x"), "the keys are question, options, answer, cot, why"),
        ('{"question": "x"}', "the keys are question; wanted"),
        (saying(options="a bell"), "options is no list of texts"),
        (saying(options=["a bell", 3]), "options is no list of texts"),
        (saying(answer=None), "answer is no text"),
        (saying(cot=" "), "cot is no text, or empty"),
        (f"<think> {saying()}", "its own reasoning never ends"),
        ("[" * 100_000, "no JSON object"),
    ],
)
def test_what_cannot_be_read_is_malformed(said: str, detail: str) -> None:
    found = read_draft(said)
    assert isinstance(found, Rejection)
    assert found.reason is Reason.MALFORMED
    assert detail in found.detail


@pytest.mark.parametrize(
    ("said", "reason", "detail"),
    [
        (lambda _: None, Reason.WRITER_FAILED, "no memory"),
        ((saying(), Stop.LENGTH), Reason.CUT, "does not end"),
        ("No.", Reason.MALFORMED, "no JSON"),
        (saying(options=["a bell"]), Reason.OPTIONS, "two or more"),
        (saying(options=[]), Reason.OPTIONS, "two or more"),
        (saying(options=["a bell", "a horn", "The bell."]), Reason.OPTIONS, "two or more"),
        (saying(answer="a drum"), Reason.ANSWER, "'a drum' is none of"),
        (saying(answer="A"), Reason.ANSWER, "'A' is none of"),
    ],
)
def test_a_question_that_fails_a_check_is_rejected_and_never_judged(
    tmp_path: Path, said: Any, reason: Reason, detail: str
) -> None:
    engine = Scripted(said)
    item = one(tmp_path, engine)
    assert item.place is Place.REJECTED
    assert item.rejection
    assert item.rejection.reason is reason
    assert detail in item.rejection.detail
    assert engine.roles == ["Write one", "Write one", "Judge the question.", "Judge the reasoning."]


def cot(text: str) -> str:
    return saying(cot=f"{text} The answer is a bell.")


@pytest.mark.parametrize(
    ("said", "reason", "detail"),
    [
        (cot("i hear a dog."), Reason.UNCITED, "no <seg>"),
        (cot("i hear <seg>soon</seg> it."), Reason.CITATION, "<seg>soon</seg> is malformed"),
        (cot("i hear <seg>2, 1</seg> it."), Reason.CITATION, "is inverted"),
        (cot("i hear <seg>1, 1</seg> it."), Reason.CITATION, "is empty"),
        (cot("i hear <seg>1, 1.1</seg> it."), Reason.CITATION, "is short"),
        (cot("i hear <seg>6, 7</seg> it."), Reason.CITATION, "is outside"),
        (cot("i hear <seg>1, 5.1</seg> it."), Reason.CITATION, "is outside (the clip has 5.00 s)"),
        (cot("i hear <seg>1, 2 it."), Reason.CITATION, "no pairs"),
        (cot("i hear <seg>1, 2</seg> it <SEG>1, 2</SEG>."), Reason.CITATION, "no pairs"),
        (cot("i hear <seg>1, 2</seg> it </seg>."), Reason.CITATION, "no pairs"),
        (cot("i hear <seg>1, 2</seg> it, and <seg>4, 5</seg> more."), Reason.ELSEWHERE, "<seg>4, 5</seg> shares no"),
        (saying(answer="<seg>3, 4</seg>", options=["a cat", "<seg>3, 4</seg>"]), Reason.CITATION, "no pairs"),
        (saying(cot="i hear <seg>1, 2</seg> a bell."), Reason.FINAL_ANSWER, "ends in 'i hear"),
        (saying(cot="it <seg>1, 2</seg> rings. The answer is a horn."), Reason.FINAL_ANSWER, "says 'a horn'"),
        (saying(cot="The answer is a bell, as <seg>1, 2</seg> it rings."), Reason.FINAL_ANSWER, "ends in"),
        (cot("</think><answer>a bell</answer> i hear <seg>1, 2</seg> it."), Reason.FORM, "holds tags"),
        (cot("<Think> i hear <seg>1, 2</seg> it."), Reason.FORM, "holds tags"),
    ],
)
def test_reasoning_that_fails_a_check_leaves_a_valid_question_for_rl(
    tmp_path: Path, said: str, reason: Reason, detail: str
) -> None:
    engine = Scripted(said)
    item = one(tmp_path, engine)
    assert item.cot
    assert (item.place, item.cot.reason) == (Place.RL, reason)
    assert detail in item.cot.detail
    assert item.example.meta == {"cot_rejected": reason.value}
    assert item.example.evidence is None
    assert engine.roles.count("Judge the question.") == 2
    assert engine.roles.count("Judge the reasoning.") == 1, "it is known to be no good"


# ---- what a judge says


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Two options fit.\n**Verdict: invalid**", Reason.QUESTION_INVALID),
        ("verdict: Invalid.", Reason.QUESTION_INVALID),
        ("It is valid.", Reason.QUESTION_UNJUDGED),
        ("", Reason.QUESTION_UNJUDGED),
        ("Verdict: valid or invalid", Reason.QUESTION_UNJUDGED),
        ("Verdict: not valid", Reason.QUESTION_UNJUDGED),
        ("Verdict: valid\nVerdict: invalid", Reason.QUESTION_UNJUDGED),
        ("Verdict: valid\nOr so.", Reason.QUESTION_UNJUDGED),
        (("Verdict: valid", Stop.LENGTH), Reason.QUESTION_UNJUDGED),
        ("<think> hm\nVerdict: valid", Reason.QUESTION_UNJUDGED),
        (lambda _: None, Reason.JUDGE_FAILED),
    ],
)
def test_a_question_without_a_valid_verdict_is_rejected(tmp_path: Path, said: Any, reason: Reason) -> None:
    engine = Scripted(question=said)
    item = one(tmp_path, engine)
    assert item.rejection
    assert (item.place, item.rejection.reason) == (Place.REJECTED, reason)
    assert engine.roles.count("Judge the reasoning.") == 1, "of an invalid question no reasoning is judged"


@pytest.mark.parametrize(
    ("said", "reason", "place"),
    [
        ("The dog barks once.\nVerdict: invalid", Reason.COT_INVALID, Place.RL),
        ("Rather good.", Reason.COT_UNJUDGED, Place.REJECTED),
        (lambda _: None, Reason.JUDGE_FAILED, Place.REJECTED),
    ],
)
def test_a_missing_judgement_of_the_reasoning_is_no_verdict(
    tmp_path: Path, said: Any, reason: Reason, place: Place
) -> None:
    item = one(tmp_path, Scripted(cot=said))
    assert item.cot
    assert (item.place, item.cot.reason) == (place, reason)
    if reason is Reason.COT_INVALID:
        assert item.cot.detail == "The dog barks once."


@pytest.mark.parametrize(
    "said", ["Verdict: valid", "<think> Verdict: invalid </think>\n\nVerdict: **valid**.\n", VALID]
)
def test_a_verdict_is_the_last_line(tmp_path: Path, said: str) -> None:
    assert one(tmp_path, Scripted(question=said, cot=said)).place is Place.SFT


def test_judges_see_the_clip_and_what_was_written_and_marks_in_it_stay_as_they_are(tmp_path: Path) -> None:
    engine = Scripted(saying(question="What is {answer}?"))
    (item,) = made(engine, [clip_of(tmp_path, description="{cot}")], tmp_path / "out")
    assert item.place is Place.SFT
    writing, question, reasoning = engine.prompts
    assert item.clip.simulation in writing
    for prompt in (question, reasoning):
        assert item.clip.simulation in prompt
        assert "What is {answer}?" in prompt
        assert "- a bell\n- a horn\n- a cat" in prompt
    assert COT in reasoning
    assert COT not in question


# ---- the files


def test_the_sets_are_manifests_with_traces_that_are_graded_as_right(tmp_path: Path) -> None:
    def said(text: str) -> str:
        return {"b": cot("i hear a dog."), "c": "No."}.get(text.split("clip ")[1][0], saying(answer="A BELL"))

    out = tmp_path / "out"
    clips = [clip_of(tmp_path, name, meta={"from": name}, groups={"modality": "sound"}) for name in "abcd"]
    card = save(made(Scripted(said), clips, out), out, {"writer": "fake"})
    sft, rl = (load_manifest(out / f"{name}.jsonl") for name in ("sft", "rl"))
    (rejected,) = read_json_lines(out / "rejected.jsonl")
    assert ([e.id for e in sft], [e.id for e in rl], rejected["id"]) == (["a", "d"], ["b"], "c")
    assert (rejected["reason"], rejected["said"]) == ("malformed", "No.")
    first = sft[0]
    trace = Trace.from_json(first.meta["trace"])
    assert trace.segments == first.evidence == ((0.5, 2.0), (2.25, 4.0))
    assert trace.text == f"<think> {COT} </think><answer>a bell</answer>"
    assert all(text.endswith("</seg>") for text in trace.texts[:-1])
    assert well_formed(trace.text, Stop.END)
    assert grade(trace.text, Stop.END, first).outcome is Outcome.CORRECT
    assert [round(part.clip.duration_s, 2) for part in trace.parts(first.clip)[1::2]] == [1.5, 1.75]  # type: ignore[union-attr]
    assert (first.meta["from"], first.groups) == ("a", {"modality": "sound"})
    assert rl[0].meta == {"from": "b", "cot_rejected": "uncited"}
    assert card == json.loads((out / "card.json").read_text())
    assert {name: card[name] for name in ("writer", "clips", "sft", "rl", "rejected", "failed_requests")} == {
        "writer": "fake", "clips": 4, "sft": 2, "rl": 1, "rejected": 1, "failed_requests": 0,
    }  # fmt: skip
    assert card["rejected_for"]["malformed"]["count"] == 1
    assert card["rejected_for"]["malformed"]["rate"]["n"] == 4
    assert card["cot_rejected_for"]["uncited"]["rate"]["n"] == 3
    assert card["answer_places"] == {"1": 3}
    assert card["cot"] == {
        "n": 2, "mean_words": len(COT.replace("<seg>0.5, 2</seg>", "").replace("<seg>2.25, 4</seg>", "").split()),
        "mean_citations": 2.0, "mean_cited_s": 1.625, "with_broken_sentences": 0,
    }  # fmt: skip


def test_a_kill_repeats_nothing_and_a_failure_is_asked_again(tmp_path: Path) -> None:
    dying = {"now": True}

    def said(text: str) -> str | None:
        if dying["now"] and "clip 4" in text:
            raise KeyboardInterrupt
        return None if dying["now"] and "clip 0" in text else saying()

    clips = [clip_of(tmp_path, str(number)) for number in range(6)]
    engine = Scripted(said)
    with pytest.raises(KeyboardInterrupt):
        made(engine, clips, tmp_path / "out", batch_size=2)
    first = list(engine.asked)
    assert len(first) == 5
    dying["now"] = False
    items = made(engine, clips, tmp_path / "out", batch_size=2)
    assert [item.place for item in items] == [Place.SFT] * 6
    assert engine.asked[5:8] == [first[0], first[4], engine.asked[7]], (
        "the one that failed, and the batch that was lost"
    )
    assert len(engine.asked) == 5 + 3 + 12
    made(engine, clips, tmp_path / "out", batch_size=2)
    assert len(engine.asked) == 20


def test_failed_requests_are_counted_apart_from_what_was_judged(tmp_path: Path) -> None:
    clip = clip_of(tmp_path)
    engines = (Scripted(lambda _: None), Scripted(question=lambda _: None), Scripted(cot=lambda _: None))
    for number, engine in enumerate(engines):
        items = made(engine, [clip], tmp_path / str(number))
        assert save(items, tmp_path / "out")["failed_requests"] == 1
        assert read_json_lines(tmp_path / "out" / "rejected.jsonl")[0]["detail"] == "no memory"


# ---- the world


def test_the_world_gives_exact_traces_and_questions_without(tmp_path: Path) -> None:
    card = make_grounded_world(tmp_path, 6, split="train", seed=3, rl_share=0.5)
    sft, rl = load_manifest(tmp_path / "sft.jsonl"), load_manifest(tmp_path / "rl.jsonl")
    assert (len(sft), len(rl)) == (card["sft"], card["rl"])
    assert len(sft) + len(rl) == card["questions"] == 6
    assert 2 <= len(rl) <= 4
    for example in sft:
        trace = Trace.from_json(example.meta["trace"])
        assert grade(trace.text, Stop.END, example).outcome is Outcome.CORRECT
        assert example.evidence
        assert all(any(start <= a and b <= end for start, end in trace.segments) for a, b in example.evidence)
    assert all(example.evidence and not example.meta for example in rl)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "audio").iterdir()}
    more = make_grounded_world(tmp_path, 7, split="train", seed=3, rl_share=0.5)
    assert more["questions"] == 7
    assert all(path.stat().st_mtime_ns == at for path, at in before.items()), "nothing is rendered twice"
    assert {e.id for e in rl} <= {row["id"] for row in read_json_lines(tmp_path / "rl.jsonl")}
    assert {e.id for e in sft} <= {row["id"] for row in read_json_lines(tmp_path / "sft.jsonl")}


def test_the_share_for_rl_holds_for_any_number_of_scenes_and_takes_every_kind() -> None:
    for share in (0.0, 0.1, 0.25, 0.7, 1.0):
        chosen = _scenes_for_rl(2000, share, "train/0")
        for count in (4, 40, 400, 2000):
            assert abs(len([scene for scene in chosen if scene < count]) - share * count) <= 1, (share, count)
        assert _scenes_for_rl(400, share, "train/0") == {scene for scene in chosen if scene < 400}
    chosen = _scenes_for_rl(2000, 0.25, "train/0")
    # Modalities come in turn, and so do the templates of each.
    kinds = Counter((scene % 3, scene // 3 % 4) for scene in chosen)
    assert len(kinds) == 12
    assert min(kinds.values()) > 20
    assert chosen != _scenes_for_rl(2000, 0.25, "train/1")


@pytest.mark.parametrize(
    ("change", "text"),
    [({"split": "tests"}, "split 'tests' is unknown"), ({"rl_share": 1.5}, "share of scenes for RL is 1.5"),
     ({"per_scene": 0}, "per_scene 0"), ({"seed": -1}, "seed -1")],
)  # fmt: skip
def test_a_bad_number_is_told_before_anything_is_made(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    with pytest.raises(EarnestError, match=text):
        make_grounded_world(tmp_path / "out", 2, **change)
    assert not (tmp_path / "out").exists()
