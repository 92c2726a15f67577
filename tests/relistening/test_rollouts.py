"""Rollouts by the engine that answers users: what is recorded, what a failure costs, what is kept to be listened to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.tiny import tiny_fused, tone
from tests.tiny_citing import SHORT, TRACE, engine_of, question, taught

from earnest.audio import Clip
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Audio, Conversation, Text
from earnest.engines.audio_cache import AudioCache
from earnest.engines.local import LocalEngine
from earnest.example import Example
from earnest.files import read_json_lines
from earnest.grading import Outcome
from earnest.relistening.loop import Relistened, Turn
from earnest.relistening.reward import Reward, confident, deciding_probability, reward
from earnest.relistening.rollouts import RolloutLog, roller
from earnest.relistening.segments import Bounds
from earnest.training.grpo import GRPOSettings, Roll, train_policy
from earnest.training.policy import Rollout, rows_of, token_logprobs

GREEDY = Sampling(max_new_tokens=60)
DRAWN = Sampling(max_new_tokens=60, temperature=0.8)
Seen = tuple[Example, Relistened, Reward]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, and the adapter that cites."""
    root = tmp_path_factory.mktemp("citing")
    model = tiny_fused(root / "model")
    return model, taught(model, root / "adapter")


@pytest.fixture(scope="module")
def engine(folders: tuple[Path, Path]) -> LocalEngine:
    return engine_of(*folders)


def rolling(engine: LocalEngine, sampling: Sampling = GREEDY, **more: object) -> tuple[Roll, list[Seen]]:
    seen: list[Seen] = []
    roll = roller(
        engine, SHORT, Bounds(), sampling, seen=lambda *one: seen.append(one), **more  # type: ignore[arg-type]
    )  # fmt: skip
    return roll, seen


def test_what_is_recorded_of_a_reply(engine: LocalEngine) -> None:
    roll, seen = rolling(engine)
    elsewhere, nowhere = question(0, evidence=(2.0, 3.0)), replace(question(0), evidence=None)
    asked = [question(0), question(1, "cat"), replace(elsewhere, id="else"), replace(nowhere, id="none")]
    rollouts = roll(asked, range(4))
    assert [reply.text for _, reply, _ in seen] == [TRACE.text] * 4
    assert [rollout.reward for rollout in rollouts] == [1.5, 0.5, 1.5, 1.5]
    right = {"correct": 1.0, "format": 1.0, "failed": 0.0, "hits": 1.0, "segments": 1.0, "heard_again_s": 1.0}
    assert [rollout.record for rollout in rollouts] == [
        right, right | {"correct": 0.0}, right | {"hits": 0.0},
        # Without evidence nothing can be hit or missed.
        {name: value for name, value in right.items() if name != "hits"},
    ]  # fmt: skip
    assert [example.id for example, _, _ in seen] == [example.id for example in asked]
    for rollout in rollouts:
        first, second = rollout.generations
        tokens = [engine.family.tokenizer.decode(one.reply_ids) for one in rollout.generations]
        assert tokens == [TRACE.texts[0], f"{TRACE.texts[1]}<|end|>"]
        assert second.prompt.token_ids[: len(first.prompt.token_ids)] == first.prompt.token_ids
        assert [part.fine for part in second.prompt.audio] == [False, True]
        assert second.prompt.heard.seconds_given == 4.0


def test_a_reply_is_scored_as_it_was_generated(engine: LocalEngine) -> None:
    roll, seen = rolling(engine, DRAWN)
    rollouts = roll([question(0)] * 6, range(6))
    again = [reply for _, reply, _ in seen if reply.heard_again_s]
    assert len(again) > 3
    rows = [rows_of(rollout) for rollout in rollouts]
    with torch.no_grad():
        found = [token_logprobs(engine.family, own, AudioCache(2**20)) for own in rows]
    for own, (_, reply, _) in zip(found, seen, strict=True):
        said = reply.completion.logprobs
        assert said is not None
        torch.testing.assert_close(torch.cat(own), torch.tensor(said), atol=1e-4, rtol=1e-4)


def test_replies_are_drawn_without_a_penalty_that_is_not_scored(tmp_path: Path) -> None:
    model = tiny_fused(tmp_path / "model")
    engine = engine_of(model, taught(model, tmp_path / "adapter"))
    engine.family.model.generation_config.repetition_penalty = 100.0
    roll, seen = rolling(engine)
    roll([question(0)], (0,))
    assert seen[0][1].text == TRACE.text, "it says tags twice, and words of the question"
    assert engine.family.repetition_penalty == 1.0


def test_every_reply_has_a_seed_of_its_own(engine: LocalEngine) -> None:
    hot = replace(DRAWN, temperature=2.0)

    def texts(seeds: Sequence[int]) -> list[str]:
        roll, seen = rolling(engine, hot)
        roll([question(0)] * len(seeds), seeds)
        return [reply.text for _, reply, _ in seen]

    one = texts([1, 2, 1, 3])
    assert one[0] == one[2]
    assert len(set(one)) == 3
    assert texts([3, 1]) == [one[3], one[0]], "whatever batch it travels in"


def test_the_clip_of_a_group_is_read_once(engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [question(number).clip.save(tmp_path / f"{number}.flac") for number in range(2)]
    asked = [replace(question(number), audio=(files[number],)) for number in (0, 0, 0, 1, 1, 1)]
    loaded: list[Path] = []
    load = Clip.load

    def noted(path: Path) -> Clip:
        loaded.append(path)
        return load(path)

    monkeypatch.setattr(Clip, "load", noted)
    roll, seen = rolling(engine)
    roll(asked, range(6))
    assert loaded == files
    assert len(seen) == 6


def test_the_variant_by_confidence(engine: LocalEngine) -> None:
    roll, seen = rolling(engine, by_confidence=True)
    (right, wrong) = roll([question(0), question(1, "cat")], (0, 0))
    for rollout, (example, reply, earned), correct in zip((right, wrong), seen, (True, False), strict=True):
        probability = deciding_probability(reply.completion, example.choices)
        assert probability is not None and probability > 0.5
        assert earned.accuracy == confident(probability, right=correct)
        assert rollout.reward == pytest.approx(0.5 + earned.accuracy + 0.5 * correct)
    assert right.reward < 1.5
    assert wrong.reward < 0.5


# ---- failures


def too_long() -> Example:
    """Beyond the last moment that the tokenizer has a piece for."""
    return Example("long", (tone(300, 45.0),), "what 0?", ("dog", "cat"), "dog", evidence=((1.0, 2.0),))


def test_a_reply_that_failed_earns_nothing_and_the_others_go_on(engine: LocalEngine) -> None:
    roll, seen = rolling(engine)
    failed, fine = roll([too_long(), question(0)], (0, 0))
    assert seen[0][1].stop is Stop.FAILED
    assert seen[0][2].outcome is Outcome.FAILED
    assert (failed.generations, failed.reward) == ((), 0.0)
    assert failed.record == {
        "correct": 0.0, "format": 0.0, "failed": 1.0, "hits": 0.0, "segments": 0.0, "heard_again_s": 0,
    }  # fmt: skip
    assert fine.reward == 1.5


def test_a_reply_that_fails_after_it_listened_keeps_what_it_drew_and_earns_nothing(tmp_path: Path) -> None:
    model = tiny_fused(tmp_path / "model")
    adapter = taught(model, tmp_path / "adapter")
    engine = engine_of(model, adapter)
    whole, _ = rolling(engine)
    (before,) = whole([question(0)], (0,))
    # There is room for the citation, but not for what it cites.
    engine.family.context_tokens = len(rows_of(before)[0].token_ids) - 20
    roll, seen = rolling(engine)
    (rollout,) = roll([question(0)], (0,))
    assert seen[0][1].stop is Stop.FAILED
    assert [one.reply_ids for one in rollout.generations] == [before.generations[0].reply_ids]
    assert (rollout.reward, rollout.record["failed"], rollout.record["segments"]) == (0.0, 1.0, 1.0)


def test_a_training_with_a_question_that_always_fails_goes_through(folders: tuple[Path, Path], tmp_path: Path) -> None:
    engine = engine_of(folders[0])
    roll, _ = rolling(engine, DRAWN)
    settings = GRPOSettings(steps=1, prompts=2, group=2, learning_rate=1e-2, rank=2, warm_up=0)
    out = train_policy(
        engine.family, [question(0), too_long()], roll, settings, tmp_path, taught="t", log=lambda _: None
    )
    (row,) = read_json_lines(out / "metrics.jsonl")
    assert row["failed"] == 0.5
    assert (out / "adapter_model.safetensors").is_file()


# ---- what is kept


def said(number: int, *spans: tuple[float, float]) -> Seen:
    example = question(number)
    parts = [Text("a"), *(part for span in spans for part in (Audio(example.clip.crop(*span)), Text("b")))]
    turn = Turn(Conversation(), Completion("a", Stop.END))
    reply = Relistened(f"reply {number}", Stop.END, (), (turn,), tuple(parts))
    return example, reply, reward(reply, example)


def test_some_steps_are_kept_to_be_read_and_listened_to(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path, every=2, replies=2)
    nothing: list[Rollout] = []
    for step in range(1, 6):
        for number in range(3):
            log.see(*said(10 * step + number, (0.5, 1.5), (1.0, 3.0)))
        log.step(step, nothing)
    rows = read_json_lines(tmp_path / "rollouts.jsonl")
    assert [(row["step"], row["id"]) for row in rows] == [(2, "q20"), (2, "q21"), (4, "q40"), (4, "q41")]
    first = rows[0]
    assert {name: first[name] for name in ("question", "answer", "reply", "reward", "outcome")} == {
        "question": "what 20?", "answer": "dog", "reply": "reply 20", "reward": 0.0, "outcome": "malformed",
    }  # fmt: skip
    heard = [Clip.load(tmp_path / name) for name in first["heard"]]
    assert [clip.duration_s for clip in heard] == [1.0, 2.0]
    assert abs(heard[0].samples - question(20).clip.crop(0.5, 1.5).samples).max() < 1e-4
    assert len(list((tmp_path / "audio").iterdir())) == 8


def test_a_step_that_is_made_again_is_kept_once(tmp_path: Path) -> None:
    nothing: list[Rollout] = []

    def steps(first: int, last: int, offset: int) -> None:
        log = RolloutLog(tmp_path, every=2, replies=1)
        for step in range(first, last + 1):
            log.see(*said(offset + step))
            log.step(step, nothing)

    steps(1, 5, 0)
    # Killed behind step 5, its last checkpoint behind step 3.
    steps(4, 6, 30)
    rows = read_json_lines(tmp_path / "rollouts.jsonl")
    assert [(row["step"], row["id"]) for row in rows] == [(2, "q2"), (4, "q34"), (6, "q36")]
