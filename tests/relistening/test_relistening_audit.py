"""The re-listening audit: a listener whose ears are known, a model that was taught to cite, faults before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes import FakeEngine
from tests.tiny import tiny_fused, tone
from tests.tiny_citing import SETTINGS, SHORT, TRACE, engine_of, question, taught

from earnest.accuracy import begin_run
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import Capabilities
from earnest.engines.load import load_local
from earnest.errors import AudioError, ManifestError, ModelError, RecipeError
from earnest.example import Example
from earnest.finding import Finding, Metric
from earnest.pocket import relistening_folder
from earnest.relistening.audit import Extent, audit
from earnest.relistening.loop import FILLER, fillers_of
from earnest.relistening.segments import Bounds
from earnest.run import RunDirectory

FEW = Extent(budgets_s=(0.0, 1.0, 4.0), budget_items=4)
EVIDENCE = (4.0, 6.0)


def asked(count: int = 12) -> list[Example]:
    """Clips of 20 s, evidence in the fifth and sixth second; every answer is "dog"."""
    return [
        Example(
            f"q{number}", (tone(300 + 10 * number, 20.0),), f"what {number}?", ("dog", "cat"), "dog",
            {"modality": ("sound", "music", "speech")[number % 3]}, (EVIDENCE,),
        )
        for number in range(count)
    ]  # fmt: skip


class Listener(FakeEngine):
    """Cites the evidence, but every fourth time another place; knows the answer once it hears the evidence finely.

    Args:
        finer: whether it has a finer pass, at which it tells what is there; else it always does.
        single: whether a single pass is enough for it.
    """

    def __init__(self, *, finer: bool = True, single: bool = False, name: str = "listener") -> None:
        super().__init__(lambda _: "", name=name)
        self.capabilities = Capabilities(continues_assistant=True, audio_in_assistant=True)
        self.single = single
        self.stops: set[tuple[str, ...]] = set()
        if finer:
            self.family: Any = SimpleNamespace(
                processor=SimpleNamespace(budgets={"first": {}, "fine": {}}), audio_token_id=7,
                continuation_ids=lambda text: [1] * text.count("."),
                audio_ids=lambda audio: [7] * round((4 if audio.fine else 1) * audio.clip.duration_s),
            )  # fmt: skip
        self.finer = finer

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        self.stops.add(sampling.stop)
        return [self._said(conversation) for conversation in conversations]

    def _said(self, conversation: Conversation) -> Completion:
        done = self._complete(conversation)
        number = int(conversation.turns[0].text.split("what ")[1].split("?")[0])
        if conversation.begun is None:
            if "refer." not in conversation.turns[0].text:
                text = f"<think>.</think><answer>{'dog' if self.single else 'cat'}</answer>"
                return replace(done, text=text, stop=Stop.END)
            cited = "14, 16" if number % 4 == 3 else "3, 7"
            return replace(done, text=f"<think> <seg>{cited}</seg>", stop=Stop.STOP_STRING)
        found = any(self._tells(audio) for audio in conversation.begun.parts if isinstance(audio, Audio))
        return replace(done, text=f" so.</think><answer>{'dog' if found else 'cat'}</answer>", stop=Stop.END)

    def _tells(self, audio: Audio) -> bool:
        start_s = audio.clip.offset_s
        held = start_s <= EVIDENCE[0] and start_s + audio.clip.duration_s >= EVIDENCE[1]
        return held and (audio.fine or not self.finer) and bool(audio.clip.samples.any())


def value(finding: Finding, name: str) -> float:
    return finding.metrics[name].value


def test_the_controls_tell_that_what_is_heard_again_matters(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    engine = Listener()
    finding = audit(
        engine, asked(), tmp_path, words=SHORT, extent=FEW, progress=lambda done, every: seen.append((done, every))
    )
    accuracies = {name.removeprefix("accuracy."): metric.value for name, metric in finding.metrics.items()
                  if name.startswith("accuracy.") and name.count(".") == 1}  # fmt: skip
    elsewhere = accuracies.pop("random_segment")
    assert accuracies == {
        "single": 0.0, "ours_model": 0.75, "silence": 0.0, "filler": 0.0, "whole_again": 0.0, "whole_fine": 1.0,
        "oracle_segment": 1.0,
    }  # fmt: skip
    assert elsewhere <= 0.25
    assert value(finding, "gain_over_single") == value(finding, "gain_over_silence") == 0.75
    assert value(finding, "gap_to_oracle_segment") == 0.25
    assert value(finding, "hit_rate") == 0.75
    assert value(finding, "overlap") == pytest.approx(0.75 * 0.5)
    assert value(finding, "heard_again_s") == pytest.approx(0.75 * 4 + 0.25 * 2)
    assert value(finding, "accuracy.ours_model.music") == 0.75
    assert len(finding.records) == 12
    assert engine.stops == {(), ("</seg>",)}
    conditions = {str(row[0]): row for row in finding.tables[0].rows}
    again = {name: row[3].value for name, row in conditions.items() if isinstance(row[3], Metric)}
    assert again == {
        "single": 0.0, "ours": 3.5, "random segment": 3.5, "silence": 3.5, "filler": 0.0, "whole again": 20.0,
        "whole fine": 20.0, "oracle segment": 3.5,
    }  # fmt: skip
    assert seen[-1] == (len(asked()) * 8 + 3 * 4, len(asked()) * 8 + 3 * 4)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_the_budget_curve_is_of_some_questions_from_all_over(tmp_path: Path) -> None:
    finding = audit(Listener(), asked(), tmp_path, words=SHORT, extent=replace(FEW, controls=False))
    allowed, heard, _ = finding.curves
    # Of q0, q3, q6 and q9 the second cites another place; within a second nothing holds the evidence.
    assert (allowed.x, allowed.y) == ((0.0, 1.0, 4.0), (0.0, 0.0, 0.75))
    assert heard.x == (0.0, 1.0, pytest.approx(3.5))
    assert not [name for name in finding.metrics if "silence" in name]


def test_an_engine_of_one_rate_is_asked_all_but_the_finer_whole(tmp_path: Path) -> None:
    finding = audit(Listener(finer=False), asked(), tmp_path, words=SHORT, extent=Extent(budgets_s=()))
    assert "accuracy.whole_fine" not in finding.metrics
    assert value(finding, "accuracy.whole_again") == 1.0
    assert value(finding, "accuracy.filler") == 0.0
    assert value(finding, "gain_over_whole_again") == -0.25
    assert finding.curves == ()


def test_an_engine_without_audio_in_its_turn_gets_it_in_a_further_one(tmp_path: Path) -> None:
    class Served(Listener):
        def _said(self, conversation: Conversation) -> Completion:
            users = [turn for turn in conversation.turns if turn.role == "user"]
            if len(users) > 1:
                assert users[1].text == f"\n\n{SHORT.texts['go_on']}"
                assert [part.fine for part in users[1].parts if isinstance(part, Audio)] == [False]
                conversation = conversation.assistant(*users[1].parts)
            return super()._said(conversation)

    engine = Served(finer=False)
    engine.capabilities = Capabilities()
    finding = audit(engine, asked(8), tmp_path, words=SHORT, extent=Extent(controls=False, budgets_s=()))
    assert value(finding, "accuracy") == 0.75


# ---- run directory


def test_a_second_run_computes_nothing_and_a_killed_one_goes_on(tmp_path: Path) -> None:
    def once(engine: FakeEngine, run: RunDirectory, **more: Any) -> Finding:
        return audit(engine, asked(), run, words=SHORT, extent=FEW, batch_size=5, **more)

    whole = once(Listener(), RunDirectory(tmp_path / "whole"))

    class Dying(Listener):
        def _said(self, conversation: Conversation) -> Completion:
            if len(self.asked) == 40:
                raise KeyboardInterrupt
            return super()._said(conversation)

    with pytest.raises(KeyboardInterrupt):
        once(Dying(), RunDirectory(tmp_path / "run"))
    run, engine = RunDirectory(tmp_path / "run"), Listener()
    assert once(engine, run) == whole
    first = len(engine.asked)
    assert run.computed == first > 40
    again, silent = RunDirectory(tmp_path / "run"), Listener()
    assert once(silent, again) == whole
    assert (again.computed, silent.asked) == (0, [])
    assert (tmp_path / "run" / "metrics.json").read_bytes() == (tmp_path / "whole" / "metrics.json").read_bytes()
    # What is asked is part of what the folder holds.
    for change in ({"bounds": Bounds(total_s=5.0)}, {"seed": 1}):
        with pytest.raises(RecipeError, match="holds another run"):
            once(Listener(), RunDirectory(tmp_path / "run"), **change)


def test_bounds_hold_in_every_condition(tmp_path: Path) -> None:
    finding = audit(
        Listener(), asked(4), tmp_path, words=SHORT, bounds=Bounds(total_s=0.0), extent=Extent(budgets_s=())
    )
    assert value(finding, "accuracy") == value(finding, "accuracy.oracle_segment") == 0.0
    assert "4 of them invalid (spent 4)" in finding.notes[2]


# ---- a model that was taught


def test_stages_of_a_training_are_held_against_each_other(tmp_path: Path) -> None:
    model = tiny_fused(tmp_path / "model")
    sft = taught(model, tmp_path / "sft")
    grpo = taught(model, tmp_path / "grpo", settings=replace(SETTINGS, seed=1))
    # The clip's second second: taught is that it is cited. One question's answer is another, one's evidence elsewhere.
    examples = [question(0), replace(question(1, "cat"), id="cat"), question(1, evidence=(2.0, 3.0))]
    engine = engine_of(model)

    def once(run: RunDirectory, *, every_stage: bool = False) -> Finding:
        return audit(
            engine, examples, run, words=SHORT, adapters={"sft": sft, "grpo": grpo}, sampling=Sampling(60),
            extent=Extent(every_stage=every_stage, budgets_s=(0.0, 8.0)), batch_size=2,
        )  # fmt: skip

    before = engine.key
    finding = once(RunDirectory(tmp_path / "run"))
    assert engine.key == before, "adapters are taken off again"
    assert [record["reply"] for record in finding.records] == [TRACE.text] * 3
    for stage in ("sft", "grpo"):
        assert value(finding, f"accuracy.ours_{stage}") == pytest.approx(2 / 3)
    assert value(finding, "accuracy.single") == value(finding, "accuracy.single_sft") == pytest.approx(1 / 3)
    assert value(finding, "gain_over_last_stage") == 0.0
    assert value(finding, "hit_rate") == pytest.approx(2 / 3)
    assert value(finding, "well_formed") == 1.0
    assert {f"accuracy.{name}" for name in ("random_segment", "whole_fine", "filler")} <= finding.metrics.keys()
    assert "accuracy.silence_sft" not in finding.metrics, "controls are of the last stage"
    whole = once(RunDirectory(tmp_path / "whole"), every_stage=True)
    assert {"accuracy.silence_sft", "accuracy.oracle_segment_sft", "accuracy.silence"} <= whole.metrics.keys()
    assert value(finding, "turns") == 2.0
    assert finding.records[0]["heard"]["seconds_heard"] == pytest.approx(4.0)
    assert finding.records[0]["segments"] == [{"text": "1, 2", "start_s": 1.0, "end_s": 2.0, "fault": "", "cut": False}]
    again = RunDirectory(tmp_path / "run")
    assert once(again).metrics == finding.metrics
    assert again.computed == 0


def test_filler_is_as_long_as_what_it_stands_for_in_tokens() -> None:
    family = load_local("pocket", threads=1, adapter=relistening_folder()).family
    fillers = fillers_of(SimpleNamespace(family=family), fine=True)
    assert fillers is not None
    for seconds in (2.0, 7.3):
        heard = Audio(tone(300, seconds), fine=True)
        said = len(family.continuation_ids(FILLER * fillers(heard)))
        assert said == pytest.approx(len(family.audio_ids(heard)), abs=1)


# ---- faults


def test_what_cannot_be_asked_is_said_before_anything_is(tmp_path: Path) -> None:
    engine, examples = Listener(), asked(2)
    with pytest.raises(ManifestError, match="q1: no answer"):
        audit(engine, [examples[0], replace(examples[1], answer=None)], tmp_path / "a", words=SHORT)
    with pytest.raises(ManifestError, match="there are none"):
        audit(engine, [], tmp_path / "a", words=SHORT)
    several = replace(examples[1], audio=examples[1].audio * 2)
    with pytest.raises(AudioError, match=r"q1 has not exactly one clip \(1 such\)"):
        audit(engine, [examples[0], several], tmp_path / "a", words=SHORT)
    with pytest.raises(ModelError, match="an adapter needs trainable, which listener does not offer"):
        audit(engine, examples, tmp_path / "a", words=SHORT, adapters={"sft": tmp_path})
    local = engine_of(tiny_fused(tmp_path / "model"))
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        audit(local, examples, tmp_path / "a", words=SHORT, adapters={"sft": tmp_path})
    assert not engine.asked
    assert not (tmp_path / "a").exists()


def test_a_folder_of_another_concern_is_refused(tmp_path: Path) -> None:
    engine = Listener()
    begin_run(tmp_path, engine, {"concern": "safety"}, "")
    with pytest.raises(RecipeError, match="concern is 'safety' there, 'relistening' here"):
        audit(engine, asked(2), tmp_path, words=SHORT)
    assert not engine.asked
