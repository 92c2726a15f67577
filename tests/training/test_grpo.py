"""Trainings by GRPO: what they teach, that they resume to the same weights, and in two processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.policies import MODELS, asked, engine_of
from tests.tiny import tiny_fused

from earnest.completion import Completion, Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.audio_cache import AudioCache
from earnest.engines.local import LocalEngine
from earnest.engines.weights import state_key
from earnest.errors import EarnestError, ModelError
from earnest.training.grpo import METRICS, GRPOSettings, train_policy
from earnest.training.lora_trainer import is_trained, prompt_of
from earnest.training.policy import Generated, Rollout, rows_of, token_logprobs

SETTINGS = GRPOSettings(
    steps=3, prompts=2, group=4, learning_rate=1e-2, warm_up=0, rank=4, alpha=8, every=1, most_tokens=600
)


def questions(count: int = 4) -> list[Conversation]:
    return [asked(number) for number in range(count)]


WANTED = frozenset(range(128))


class Rolls:
    """Samples a few tokens, hears the clip's beginning again, samples again; earns the share of wanted tokens."""

    def __init__(self, engine: LocalEngine, fine: bool = True) -> None:
        self.engine = engine
        self.fine = fine
        self.seeds: list[list[int]] = []
        self.keys: list[str] = []

    def __call__(self, asked: Sequence[Conversation], seeds: Sequence[int]) -> list[Rollout]:
        self.seeds.append(list(seeds))
        self.keys.append(self.engine.key)
        samplings = [Sampling(max_new_tokens=5, temperature=1.0, seed=seed) for seed in seeds]
        first = self.engine.generate(asked, samplings)
        again = [
            question.assistant(one.text, Audio(question.clips[0].crop(0, 0.5), fine=self.fine))
            for question, one in zip(asked, first, strict=True)
        ]
        second = self.engine.generate(again, samplings)
        return [
            self._rollout([(question, one), (more, two)])
            for question, one, more, two in zip(asked, first, again, second, strict=True)
        ]

    def _rollout(self, turns: list[tuple[Conversation, Completion]]) -> Rollout:
        ids = [token for _, said in turns for token in said.token_ids]
        share = sum(token in WANTED for token in ids) / len(ids)
        generated = tuple(Generated(prompt_of(self.engine.family, c), said.token_ids) for c, said in turns)
        return Rollout(generated, share, {"tokens": len(ids), "note": "text"})


def quiet(_: str) -> None: ...


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / METRICS).read_text().splitlines()]


def weights(out: Path, name: str = "adapter_model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(out / name)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("rank", [4, 0])
def test_an_interrupted_training_ends_bit_for_bit_as_an_uninterrupted_one(rank: int, tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))
    settings = replace(SETTINGS, rank=rank, learning_rate=1e-3)
    state, key = state_key(engine.family.model), engine.key

    def train(name: str, **more: Any) -> tuple[Path, Rolls]:
        roll = Rolls(engine)
        out = tmp_path / name
        return train_policy(engine.family, questions(), roll, settings, out, taught="t", log=quiet, **more), roll

    whole, straight = train("whole")

    def fail(step: int, _: Sequence[Rollout]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("cut", on_step=fail)
    assert state_key(engine.family.model) == state
    assert not is_trained(tmp_path / "cut")
    with (tmp_path / "cut" / METRICS).open("a") as file:
        file.write('{"step": 3, "rew')
    cut, resumed = train("cut")
    assert resumed.seeds == straight.seeds[1:]
    name = "adapter_model.safetensors" if rank else "model.safetensors"
    assert same(weights(whole, name), weights(cut, name))
    one, two = ([{k: v for k, v in row.items() if k[-2:] != "_s"} for row in metrics(out)] for out in (whole, cut))
    assert one == two
    assert [row["step"] for row in one] == [1, 2, 3]
    assert abs(one[0]["kl"]) < 1e-6 < one[-1]["kl"], "the reference is where the policy began"
    assert state_key(engine.family.model) == state
    # The key of a loaded folder is of its files; what was trained in place is known by its weights.
    assert (engine.key == key) == bool(rank)


@pytest.mark.parametrize(("name", "rank"), [(name, rank) for name in MODELS for rank in (4, 0)])
def test_a_training_teaches_and_leaves_the_model_as_it_was(name: str, rank: int, tmp_path: Path) -> None:
    make, fine = MODELS[name]
    engine = engine_of(make(tmp_path / "model"))
    model: Any = engine.family.model
    state = state_key(model)
    grads = [parameter.requires_grad for parameter in model.parameters()]
    lines: list[str] = []
    seen: list[tuple[int, int]] = []
    roll = Rolls(engine, fine)
    settings = replace(SETTINGS, rank=rank, learning_rate=1e-2 if rank else 1e-4, updates=2)
    out = train_policy(
        engine.family, questions(), roll, settings, tmp_path / "out", taught="t", log=lines.append,
        on_step=lambda step, rollouts: seen.append((step, len(rollouts))),
    )  # fmt: skip
    assert len(set(roll.keys)) == 3, "each step is rolled out by the policy as it is then"
    assert seen == [(1, 8), (2, 8), (3, 8)]
    assert lines[-1].startswith("step 3 of 3: reward ")
    assert not (out / "checkpoint.pt").exists()
    rows = metrics(out)
    assert rows[0]["generations"] == 2.0
    assert rows[0]["tokens"] > 2
    assert "note" not in rows[0]
    assert rows[-1]["kl"] > 0
    assert state_key(model) == state
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert not any(module.training for module in model.modules())
    trained = engine_of(tmp_path / "model", out) if rank else engine_of(out)
    reply = [[5, 6, 7]]
    assert not torch.equal(trained.logprobs([asked(0)], reply)[0], engine.logprobs([asked(0)], reply)[0])
    if rank:
        assert not [matrix for matrix in weights(out) if "language_model" not in matrix]
    else:
        pairs = zip(model.named_parameters(), trained.family.model.parameters(), strict=True)
        changed = [matrix for (matrix, old), new in pairs if not torch.equal(old, new)]
        assert changed
        assert not [matrix for matrix in changed if "language_model" not in matrix and "lm_head" not in matrix]


@pytest.mark.parametrize("updates", [1, 2])
def test_the_reward_rises(updates: int, tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))
    settings = replace(SETTINGS, steps=16, group=8, updates=updates, learning_rate=3e-2, kl=0.0, every=100)
    out = train_policy(engine.family, questions(), Rolls(engine), settings, tmp_path / "out", taught="t", log=quiet)
    rewards = [row["reward"] for row in metrics(out)]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15, rewards
    clipped = [row["clipped"] for row in metrics(out)]
    assert any(clipped) == (updates > 1), "the first update is where the replies were drawn"


def test_equal_rewards_and_no_reference_leave_the_policy_where_it_is(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))

    class Equal(Rolls):
        def _rollout(self, turns: list[tuple[Conversation, Completion]]) -> Rollout:
            return replace(super()._rollout(turns), reward=0.7)

    settings = replace(SETTINGS, kl=0.0, group=5)
    out = train_policy(engine.family, questions(), Equal(engine), settings, tmp_path / "a", taught="t", log=quiet)
    assert all(not matrix.any() for name, matrix in weights(out).items() if "lora_B" in name)
    assert [row["informative"] for row in metrics(out)] == [0.0] * 3
    assert [row["gradient"] for row in metrics(out)] == [0.0] * 3


def test_a_step_in_small_parts_is_the_same_step(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))
    trained = [
        weights(
            train_policy(
                engine.family, questions(), Rolls(engine), replace(SETTINGS, steps=1, most_tokens=most),
                tmp_path / str(most), taught="t", log=quiet,
            )
        )
        for most in (1, 300, 100_000)
    ]  # fmt: skip
    for other in trained[1:]:
        assert all(torch.allclose(trained[0][name], other[name], atol=1e-4) for name in other)


def test_the_first_step_is_policy_gradient_by_hand(tmp_path: Path) -> None:
    """One update on policy: the ratio is 1, so the gradient is that of -A logp, by mean over tokens and replies."""
    engine = engine_of(tiny_fused(tmp_path / "model"))
    settings = replace(SETTINGS, steps=1, kl=0.0)
    kept: list[Rollout] = []
    out = train_policy(
        engine.family, questions(2), Rolls(engine), settings, tmp_path / "out", taught="t", log=quiet,
        on_step=lambda _, rollouts: kept.extend(rollouts),
    )  # fmt: skip
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=engine.family.lora_targets())
    worn: Any = get_peft_model(engine.family.model, config)
    try:
        rewards = torch.tensor([rollout.reward for rollout in kept]).view(2, 4)
        gains = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        total = torch.zeros(())
        for rollout, gain in zip(kept, gains.flatten().tolist(), strict=True):
            own = torch.cat([token_logprobs(engine.family, [row], AudioCache(0))[0] for row in rows_of(rollout)])
            total = total - gain * own.mean() / len(kept)
        total.backward()
        parameters = {name: p for name, p in worn.named_parameters() if p.requires_grad}
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in parameters.values() if p.grad is not None))
        assert metrics(out)[0]["gradient"] == pytest.approx(norm, rel=1e-3)
        # Adam's first step is the sign of the gradient times the rate.
        found = weights(out)
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            grad = parameter.grad * min(1.0, 1.0 / norm)
            clear = grad.abs() > 1e-5
            moved = found[name.replace(".default", "")] - parameter.detach()
            torch.testing.assert_close(moved[clear], -1e-2 * grad[clear].sign(), atol=1e-4, rtol=0.0)
    finally:
        worn.unload()


def test_a_reply_that_failed_at_once_is_no_hindrance(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))

    class Failing(Rolls):
        def __call__(self, asked: Sequence[Conversation], seeds: Sequence[int]) -> list[Rollout]:
            found = super().__call__(asked, seeds)
            empty = replace(found[0].generations[0], reply_ids=())
            half = (found[1].generations[0], replace(found[1].generations[1], reply_ids=()))
            return [Rollout((empty,), 0.0), Rollout(half, 0.0), *found[2:]]

    out = train_policy(
        engine.family, questions(), Failing(engine), replace(SETTINGS, steps=1), tmp_path / "a", taught="t", log=quiet
    )
    assert all(matrix.isfinite().all() for matrix in weights(out).values())
    assert any(matrix.any() for name, matrix in weights(out).items() if "lora_B" in name)


def test_every_question_comes_once_before_any_comes_again(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))
    drawn: list[list[Conversation]] = []

    class Noting(Rolls):
        def __call__(self, asked: Sequence[Conversation], seeds: Sequence[int]) -> list[Rollout]:
            drawn.append(list(asked))
            return super().__call__(asked, seeds)

    roll = Noting(engine)
    settings = replace(SETTINGS, steps=3, prompts=2, group=2)
    train_policy(engine.family, questions(3), roll, settings, tmp_path / "a", taught="t", log=quiet)
    order = [conversation.key for batch in drawn for conversation in batch]
    assert order[0::2] == order[1::2]
    assert sorted(order[0:6:2]) == sorted(order[6:12:2]) == sorted(question.key for question in questions(3))
    assert len({seed for batch in roll.seeds for seed in batch}) == 12
    one = Noting(engine)
    train_policy(engine.family, questions(1), one, settings, tmp_path / "b", taught="t", log=quiet)
    assert len({seed for batch in one.seeds for seed in batch}) == 12, "a question that is alone is answered anew"


def test_a_training_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path / "model"))
    out = tmp_path / "out"

    def stop(step: int, _: Sequence[Rollout]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    def train(settings: GRPOSettings, taught: str, **more: Any) -> list[int]:
        roll = Rolls(engine)
        try:
            train_policy(engine.family, questions(), roll, settings, out, taught=taught, log=quiet, **more)
        except KeyboardInterrupt:
            return []
        return [row["step"] for row in metrics(out)][-len(roll.seeds) :]

    for settings, taught in ((SETTINGS, "other"), (replace(SETTINGS, clip=0.3), "t")):
        train(SETTINGS, "t", on_step=stop)
        assert (out / "checkpoint.pt").exists()
        assert train(settings, taught) == [1, 2, 3]
        assert len(metrics(out)) == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"group": 1}, "group is 1: an advantage needs at least 2"),
        ({"parts": "ears"}, "parts is 'ears'"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"clip": 1.0}, "clip is 1.0"),
        ({"kl": -0.1}, "kl is -0.1"),
        ({"rank": -1}, "rank is -1"),
        ({"warm_up": -1}, "warm_up is -1"),
        *(({name: 0}, f"{name} is 0") for name in ("steps", "prompts", "updates", "alpha", "most_tokens", "every")),
    ],
)
def test_numbers_out_of_range_are_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(EarnestError, match=text):
        replace(SETTINGS, **change)


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "model")
    engine = engine_of(folder)
    roll = Rolls(engine)
    with pytest.raises(EarnestError, match="nothing to ask"):
        train_policy(engine.family, [], roll, SETTINGS, tmp_path / "a", taught="t")
    settings = replace(SETTINGS, steps=1)
    out = train_policy(engine.family, questions(), roll, settings, tmp_path / "b", taught="t", log=quiet)
    with pytest.raises(ModelError, match="wears an adapter already"):
        train_policy(engine_of(folder, out).family, questions(), roll, SETTINGS, tmp_path / "c", taught="t")


# ---- several processes

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
from tests.training.test_grpo import SETTINGS, Rolls, engine_of, questions, quiet
from earnest.errors import EarnestError
from earnest.training.grpo import train_policy

torch.set_num_threads(1)
engine = engine_of(sys.argv[1])
for name, kl in (("kl", 0.04), ("plain", 0.0)):
    settings = replace(SETTINGS, steps=2, prompts=4, kl=kl)
    train_policy(engine.family, questions(6), Rolls(engine), settings, Path(sys.argv[2]) / name, taught="t", log=quiet)
try:
    train_policy(engine.family, questions(6), Rolls(engine), replace(SETTINGS, prompts=3), Path(sys.argv[2]) / "odd",
                 taught="t", log=quiet)
except EarnestError as error:
    (Path(sys.argv[2]) / "error.txt").write_text(str(error))
"""


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "model")
    engine = engine_of(folder)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    # The script shares this file's questions and rewards: it must find it from wherever it runs.
    root = Path(__file__).parents[2]
    path = os.pathsep.join(part for part in (str(root), os.environ.get("PYTHONPATH", "")) if part)
    done = subprocess.run(
        [*command, str(script), str(folder), str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, kl in (("kl", 0.04), ("plain", 0.0)):
        settings = replace(SETTINGS, steps=2, prompts=4, kl=kl)
        one = train_policy(
            engine.family, questions(6), Rolls(engine), settings, tmp_path / "one" / name, taught="t", log=quiet
        )
        alone, together = weights(one), weights(tmp_path / "two" / name)
        assert all(torch.allclose(alone[matrix], together[matrix], atol=1e-4) for matrix in alone)
        assert [row["step"] for row in metrics(tmp_path / "two" / name)] == [1, 2]
    assert "prompts is 3, which 2 processes cannot share" in (tmp_path / "two" / "error.txt").read_text()
