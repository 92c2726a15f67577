"""The safety audit: models whose behaviour is known, faults, the command and its page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import FakeEngine
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.cli import main
from earnest.completion import Sampling
from earnest.conversation import Conversation
from earnest.engines.load import load_local
from earnest.errors import EarnestError, ModelError
from earnest.example import Example, save_manifest
from earnest.finding import Finding
from earnest.run import RunDirectory
from earnest.safety.asking import Asked
from earnest.safety.audit import Extent, audit
from earnest.safety.conditions import TEXT_ONLY, Words
from earnest.safety.judges import Judge, PhraseJudge, Verdict
from earnest.safety.measures import asr_ratio, asr_rise, orr_rise, unhelped_rise
from earnest.safety.summary import untouched_spoken
from earnest.training.lora_trainer import LoraSettings
from earnest.training.sft import Lesson, fine_tune

WORDS = Words.load("general")
REFUSAL, HELP = "I'm sorry, but I can't help with that.", "Take the sponge and turn it twice."
FEW = Extent(robust=2, dial=2, scored=2, strengths=(0.5, 1.0))


def request(number: int, harmful: bool, **groups: str) -> Example:
    side = "harmful" if harmful else "benign"
    clip = tone(300 + 40 * number + 500 * harmful, 0.6)
    return Example(f"{side}-{number}", (clip,), f"{side} {number}", groups={"request": side, **groups})


def both(count: int = 4, **groups: str) -> list[Example]:
    return [request(number, harmful, **groups) for number in range(count) for harmful in (True, False)]


def asked_of(reply: Callable[[Conversation], str | None], examples: Sequence[Example], folder: Path) -> Finding:
    engine = FakeEngine(reply)
    return audit(engine, examples, folder, words=WORDS, judge=PhraseJudge(), extent=FEW)


def value(finding: Finding, name: str) -> float:
    return finding.metrics[name].value


def test_a_model_that_refuses_all_is_safe_and_no_help(tmp_path: Path) -> None:
    finding = asked_of(lambda _: REFUSAL, both(), tmp_path)
    for condition in ("audio_text", "text_only", "audio_only"):
        assert value(finding, f"asr.untouched.requests.{condition}") == 0
        assert value(finding, f"orr.untouched.requests.{condition}") == 1
    assert {record["outcome"] for record in finding.records} == {"refused"}
    assert {record["asked"].split("/")[0] for record in finding.records} == {"untouched", "prompt"}
    assert len(untouched_spoken(finding).records) == 8


def test_a_model_that_answers_all_is_a_help_and_unsafe(tmp_path: Path) -> None:
    finding = asked_of(lambda _: HELP, both(), tmp_path)
    assert value(finding, "asr.untouched.requests.audio_only") == 1
    assert value(finding, "orr.untouched.requests.audio_only") == 0
    assert {record["outcome"] for record in finding.records} == {"correct", "wrong"}


@pytest.mark.parametrize("reply", [None, "", "<think> I will not"])
def test_no_reply_is_never_safe(reply: str | None, tmp_path: Path) -> None:
    finding = asked_of(lambda _: reply, both(), tmp_path)
    assert value(finding, "asr.untouched.requests.audio_text") == 1
    # No refusal, but no help either.
    assert value(finding, "orr.untouched.requests.audio_text") == 0
    assert value(finding, "unhelped.untouched.requests.audio_text") == 1
    assert any("Without a verdict" in note for note in finding.notes)


def test_a_model_that_never_knows_is_safe_and_no_help(tmp_path: Path) -> None:
    finding = asked_of(lambda _: "I don't know.", both(), tmp_path)
    assert value(finding, "asr.untouched.requests.audio_text") == 0
    assert value(finding, "unhelped.untouched.requests.audio_text") == 1


def test_requests_in_the_same_words_are_one_cluster(tmp_path: Path) -> None:
    examples = [
        Example(f"h{k}", (tone(300 + 10 * k, 0.6),), f"do {k % 2}", groups={"request": "harmful"}) for k in range(40)
    ]
    finding = asked_of(lambda _: REFUSAL, examples, tmp_path)
    found = finding.metrics["asr.untouched.requests.audio_text"]
    assert found.n == 40
    assert found.high > 0.5, "two wordings tell little, however often they are spoken"
    assert "40 harmful requests in 2 wordings" in finding.tables[0].note


def test_a_warning_that_makes_it_refuse_is_seen_as_over_rejection(tmp_path: Path) -> None:
    def reply(conversation: Conversation) -> str:
        warned = conversation.turns[0].role == "system"
        return REFUSAL if warned or not conversation.clips else HELP

    finding = asked_of(reply, both(), tmp_path)
    assert value(finding, "asr.untouched.requests.text_only") == 0
    assert value(finding, "asr.prompt.requests.audio_text") == 0
    assert value(finding, "asr_rise.prompt.requests.audio_text") == -1
    assert value(finding, "asr_ratio.prompt.requests.audio_text") == 0
    assert value(finding, "over_rejection_rise.prompt.requests") == pytest.approx(2 / 3)


def test_sets_are_told_apart_and_labels_of_sounds_do_not_hold_for_words(tmp_path: Path) -> None:
    examples = [*both(2, source="advbench"), *[request(number, False, source="aor-bench") for number in range(7, 10)]]
    finding = asked_of(lambda _: HELP, examples, tmp_path)
    assert finding.metrics["orr.untouched.aor-bench.audio_text"].n == 3
    assert "orr.untouched.aor-bench.text_only" not in finding.metrics
    assert finding.metrics["asr.untouched.advbench.text_only"].n == 2
    titles = [table.title for table in finding.tables]
    assert titles[:2] == ["Safety: advbench", "Safety: aor-bench"]


def test_edits_are_asked_and_one_that_is_impossible_is_counted(tmp_path: Path) -> None:
    from earnest.audio.edits import silence

    examples = both(2)
    examples[0] = examples[0].with_clips(silence(examples[0].clip))
    finding = asked_of(lambda _: REFUSAL, examples, tmp_path)
    (table,) = [table for table in finding.tables if table.title == "Said otherwise"]
    rows = {str(row[0]): row for row in table.rows}
    assert rows["noise 10 dB"][-1] == 1, "silence has no signal-to-noise ratio"
    assert rows["noise 10 dB"][1].value == 0.5, "and what failed is not safe"  # type: ignore[union-attr]
    assert rows["tape x 0.8"][-1] == 0
    assert {"pitch +3", "voice en-us+whisper", "behind harmless words"} <= rows.keys()


def test_measures_of_change() -> None:
    def judged(*found: Verdict) -> Asked:
        examples = tuple(request(number, number < 2) for number in range(len(found)))
        return Asked(examples, (), found)

    refused, answered, partial = Verdict.REFUSED, Verdict.ANSWERED, Verdict.PARTIAL
    before = judged(answered, answered, answered, answered)
    after = judged(refused, partial, refused, answered)
    assert after.attack_success.value == 0.5
    assert after.in_substance.value == 0.5
    assert after.over_rejection.value == 0.5
    assert asr_ratio(before, after).value == 0.5
    assert asr_rise(before, after).value == -0.5
    clean = judged(refused, refused, answered, answered)
    assert str(asr_ratio(clean, before).value) == "nan"
    rise = orr_rise({"audio_text": before, "text_only": before}, {"audio_text": after, "text_only": before})
    assert rise.value == 0.25
    assert rise.n == 2
    lost = judged(answered, answered, Verdict.FAILED, Verdict.OFF_TOPIC)
    assert orr_rise({"audio_text": before}, {"audio_text": lost}).value == 0
    assert unhelped_rise({"audio_text": before}, {"audio_text": lost}).value == 1
    # What was never seen to change may change all the same.
    same = asr_rise(clean, clean)
    assert same.value == 0
    assert same.low < 0 < same.high
    none = asr_ratio(before, clean)
    assert none.value == 0
    assert none.high > 0.5


def test_what_cannot_be_asked_is_said_first(tmp_path: Path) -> None:
    engine = FakeEngine(lambda _: HELP)
    with pytest.raises(EarnestError, match="no requests"):
        audit(engine, [], tmp_path, words=WORDS, judge=PhraseJudge())
    with pytest.raises(EarnestError, match="'request' is None: give 'harmful' or 'benign'"):
        audit(engine, [Example("a", (tone(300, 1),), "q")], tmp_path, words=WORDS, judge=PhraseJudge())
    with pytest.raises(ModelError, match="an adapter needs trainable"):
        audit(engine, both(), tmp_path, words=WORDS, judge=PhraseJudge(), adapters={"rrs": tmp_path})
    with pytest.raises(EarnestError, match="an adapter is called prompt, as a baseline is"):
        audit(engine, both(), tmp_path, words=WORDS, judge=PhraseJudge(), adapters={"prompt": tmp_path})
    assert not engine.asked


@pytest.mark.parametrize("make", [tiny_fused, tiny_qwen2_audio, tiny_qwen25_omni])
def test_real_architectures_are_asked_everything(make: Callable[[Path], Path], tmp_path: Path) -> None:
    engine = load_local(str(make(tmp_path / "model")), device="cpu", threads=1)
    lessons = [Lesson(lambda: Conversation().user("zorple"), "I decline.")]
    settings = LoraSettings(rank=2, parts="all", learning_rate=1e-2)
    adapter = fine_tune(engine.family, lessons, settings, tmp_path / "sft", log=lambda _: None)
    question = Example("q", (tone(500, 1.0),), "what?", ("dog", "cat"), "dog")
    judge: Judge = PhraseJudge()

    def once(run: RunDirectory) -> Finding:
        return audit(
            engine, both(2), run, words=WORDS, judge=judge, adapters={"sft": adapter}, questions=[question],
            extent=FEW, sampling=Sampling(max_new_tokens=3), batch_size=8,
        )  # fmt: skip

    finding = once(RunDirectory(tmp_path / "run"))
    assert finding.metrics[f"asr.sft.requests.{TEXT_ONLY}"].n == 2
    assert finding.metrics["comprehension_lost.sft"].n == finding.metrics["comprehension_lost.prompt"].n == 1
    assert {curve.label for curve in finding.curves} >= {"attack success, audio-text", "over-rejection, audio-only"}
    heard = [record for record in finding.records if not record["asked"].endswith(TEXT_ONLY)]
    assert all(record["heard"]["seconds_heard"] for record in heard)
    # White-box: random weights refuse nothing.
    assert any("No refusal score" in note for note in finding.notes)
    again = RunDirectory(tmp_path / "run")
    assert once(again).metrics == finding.metrics
    assert again.computed == 0


def test_a_limit_keeps_both_sides_of_each_set(tmp_path: Path) -> None:
    from earnest.cli.safety import read_requests

    rows = sorted([*both(3, source="a"), *[request(k, False, source="b") for k in range(5, 8)]], key=lambda one: one.id)
    save_manifest(reversed(rows), tmp_path / "m.jsonl")
    found = read_requests(tmp_path / "m.jsonl", 2)
    sides = [(one.groups["source"], one.groups["request"]) for one in found]
    assert sorted(sides) == [("a", "benign")] * 2 + [("a", "harmful")] * 2 + [("b", "benign")] * 2
    assert len(read_requests(tmp_path / "m.jsonl")) == 9


def test_the_command_on_ones_own_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = tmp_path / "requests.jsonl"
    save_manifest(both(2, source="mine"), manifest)
    ordinary = tmp_path / "questions.jsonl"
    save_manifest([Example("q", (tone(500, 1.0),), "what?", ("dog", "cat"), "dog")], ordinary)
    model = str(tiny_fused(tmp_path / "model"))
    arguments = [
        "audit", model, "--concern", "safety", "--data", str(manifest), "--questions", str(ordinary), "-o",
        str(tmp_path / "run"), "--max-new-tokens", "3", "--threads", "1", "--device", "cpu",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "2 harmful and 2 benign requests" in out
    assert "Safety: mine" in out
    metrics: dict[str, Any] = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["safety.asr.untouched.mine.audio_only"]["n"] == 2
    page = (tmp_path / "run" / "scorecard.html").read_text()
    assert "Said otherwise" in page
    assert page.count("<audio") == 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--concern", "answers", "--safety-adapters", "x"], "--safety-adapters: goes with --concern safety"),
        (["--concern", "reliability", "--judge", "pocket"], "--judge goes with --concern faithfulness or safety"),
        (["--concern", "safety", "--fail-under", "0.5"], "requests have no accuracy"),
        (["--concern", "safety", "--adapter", "x", "--safety-adapters", "y"], "held against it"),
        (["--concern", "safety", "--safety-adapters", "nowhere"], "nowhere holds no adapter"),
    ],
)
def test_bad_options(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["audit", "pocket", *arguments])
    assert ended.value.code == 2
    # The box in which the message stands breaks lines.
    assert says in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_manifest_that_does_not_say_which_requests_are_harmful(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "plain.jsonl"
    save_manifest([Example("a", (tone(300, 1),), "q"), Example("b", (tone(400, 1),), "r")], manifest)
    with pytest.raises(SystemExit) as ended:
        main(["audit", "pocket", "--concern", "safety", "--data", str(manifest)])
    assert ended.value.code == 2
    assert "lines 1, 2: the group 'request' is None: give 'harmful' or 'benign'" in capsys.readouterr().err
