"""GRPO on replies that hold more than the policy's own tokens, behind the frozen ear of real architectures."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.completion import Completion, Heard, Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Family, Prompt
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine
from earnest.engines.lora import flags_restored
from earnest.engines.sharing import audio_key
from earnest.engines.weights import state_key
from earnest.errors import EarnestError, ModelError
from earnest.training.grpo import METRICS, GRPOSettings, advantages, policy_loss, train_policy
from earnest.training.lora_trainer import is_trained
from earnest.training.policy import Generated, Rollout, rows_of, token_logprobs

SETTINGS = GRPOSettings(
    steps=3, prompts=2, group=4, learning_rate=1e-2, warm_up=0, rank=4, alpha=8, every=1, most_tokens=600
)
MODELS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "fused": (tiny_fused, True),
    "qwen2_audio": (tiny_qwen2_audio, False),
    "qwen2_5_omni": (tiny_qwen25_omni, False),
}


def engine_of(folder: Path | str, adapter: Path | None = None) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


@pytest.fixture(scope="module", params=list(MODELS))
def heard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalEngine, bool]:
    make, fine = MODELS[request.param]
    return engine_of(make(tmp_path_factory.mktemp(request.param))), fine


def asked(number: int) -> Conversation:
    return Conversation().user(Audio(tone(300 + 50 * number, 1.0 + 0.5 * (number % 3))), f"what is {number}?")


def prompt_of(family: Family, conversation: Conversation) -> Prompt:
    (prompt,) = family.render([conversation])
    assert isinstance(prompt, Prompt)
    return prompt


# ---- advantages and loss


def test_advantages_are_within_each_group() -> None:
    found = advantages(torch.tensor([[1.0, 0.0, 0.5, 0.5], [2.0, 4.0, 6.0, 8.0]]), eps=0.0)
    one, two = math.sqrt(0.5 / 3), math.sqrt(20 / 3)
    expected = [[0.5 / one, -0.5 / one, 0.0, 0.0], [-3 / two, -1 / two, 1 / two, 3 / two]]
    torch.testing.assert_close(found, torch.tensor(expected))
    (damped,) = advantages(torch.tensor([[1.0, 0.0, 0.5, 0.5]]), eps=one)
    torch.testing.assert_close(damped, torch.tensor(expected[0]) / 2)


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7, 1.2, 1.4000001])
@pytest.mark.parametrize("group", [2, 3, 5, 7, 8])
def test_equal_rewards_teach_nothing_at_all(reward: float, group: int) -> None:
    assert advantages(torch.full((1, group), reward)).tolist() == [[0.0] * group]


LOGP = [[-1.0, -2.0, -0.5], [-0.3], [-1.5, -0.7]]
OLD = [[-1.0, -2.5, -0.1], [-0.9], [-0.8, -0.75]]
REFERENCE = [[-1.2, -1.0, -0.5], [-2.0], [-1.5, -0.2]]
GAINS = [1.5, 0.7, -0.8]


def by_hand(clip: float, kl: float) -> tuple[float, list[list[float]], float, int]:
    """Loss, its gradient, KL in all, clipped ratios."""
    total, divergence, clipped = 0.0, 0.0, 0
    gradients: list[list[float]] = []
    for logp, old, reference, gain in zip(LOGP, OLD, REFERENCE, GAINS, strict=True):
        gradients.append([])
        for p, o, q in zip(logp, old, reference, strict=True):
            ratio = math.exp(p - o)
            bounded = min(max(ratio, 1 - clip), 1 + clip)
            k3 = math.exp(q - p) - (q - p) - 1
            total += (-min(ratio * gain, bounded * gain) + kl * k3) / len(logp)
            slope = -ratio * gain if ratio * gain <= bounded * gain else 0.0
            gradients[-1].append((slope + kl * (1 - math.exp(q - p))) / len(logp))
            divergence += k3
            clipped += ratio != bounded
    return total, gradients, divergence, clipped


@pytest.mark.parametrize(("clip", "kl"), [(0.2, 0.04), (0.2, 0.0), (0.5, 1.0), (0.999, 0.04)])
def test_the_loss_and_its_gradient_are_those_by_hand(clip: float, kl: float) -> None:
    logp = [torch.tensor(row, requires_grad=True) for row in LOGP]
    loss, notes = policy_loss(
        logp, [torch.tensor(row) for row in OLD], [torch.tensor(row) for row in REFERENCE], GAINS, clip=clip, kl=kl
    )
    total, gradients, divergence, clipped = by_hand(clip, kl)
    assert loss.item() == pytest.approx(total)
    loss.backward()
    for own, expected in zip(logp, gradients, strict=True):
        assert own.grad is not None
        assert own.grad.tolist() == pytest.approx(expected)
    assert notes == {"kl": pytest.approx(divergence / 6 if kl else 0.0), "clipped": pytest.approx(clipped / 6)}
    assert (clipped > 0) == (clip < 0.9)


def test_every_reply_counts_alike_however_long() -> None:
    long, short = torch.zeros(10, requires_grad=True), torch.zeros(1, requires_grad=True)
    policy_loss([long, short], [torch.zeros(10), torch.zeros(1)], None, [1.0, 1.0], clip=0.2, kl=0.04)[0].backward()
    assert long.grad is not None and short.grad is not None
    assert float(long.grad.sum()) == pytest.approx(float(short.grad.sum())) == pytest.approx(-1.0)


# ---- rows


def written(*ids: int) -> Prompt:
    return Prompt(ids, (), (), Heard())


def test_generations_whose_prompts_go_on_are_one_row() -> None:
    rollout = Rollout(
        (
            Generated(written(1, 2, 3), (4, 5)),
            Generated(written(1, 2, 3, 4, 5, 90, 91), (6,)),
            Generated(written(1, 2, 3, 4, 5, 90, 91, 6), (7, 8)),
        ),
        1.0,
    )
    (row,) = rows_of(rollout)
    assert row.token_ids == (1, 2, 3, 4, 5, 90, 91, 6, 7, 8)
    assert [token for token, own in zip(row.token_ids, row.own, strict=True) if own] == [4, 5, 6, 7, 8]
    assert row.prompt is rollout.generations[-1].prompt


def test_generations_that_stand_elsewhere_are_rows_of_their_own() -> None:
    rollout = Rollout(
        (
            Generated(written(1, 2), (4, 5)),
            Generated(written(1, 2, 4, 6, 90), (7,)),
            Generated(written(1, 2, 4, 6, 90, 7, 91), (8, 9)),
            Generated(written(1, 2, 4), (8,)),
        ),
        1.0,
    )
    rows = rows_of(rollout)
    assert [row.token_ids for row in rows] == [(1, 2, 4, 5), (1, 2, 4, 6, 90, 7, 91, 8, 9), (1, 2, 4, 8)]
    own = [[token for token, own in zip(row.token_ids, row.own, strict=True) if own] for row in rows]
    assert own == [[4, 5], [7, 8, 9], [8]]


def test_a_generation_that_failed_has_no_row() -> None:
    failed = Generated(written(9, 9), ())
    assert rows_of(Rollout((failed,), 0.0)) == []
    (row,) = rows_of(Rollout((Generated(written(1, 2), (3,)), failed), 0.0))
    assert (row.token_ids, row.own) == ((1, 2, 3), (False, False, True))


# ---- log-probabilities of replies with audio in between

CITED = "<think> a dog <seg>0.2, 0.7</seg>"


def scripted(engine: LocalEngine, fine: bool, number: int, text: str = CITED, seed: int = 0) -> tuple[Rollout, Any]:
    """A reply whose first generation is this text, and whose second, behind the crop, is sampled; and its logp."""
    family = engine.family
    question = asked(number)
    ids = family.continuation_ids(text)
    crop = Audio(question.clips[0].crop(0.2, 0.7), fine=fine)
    again = question.assistant(text, crop)
    (said,) = engine.generate([again], Sampling(max_new_tokens=12, temperature=1.0, seed=seed))
    assert said.logprobs is not None
    rollout = Rollout(
        (Generated(prompt_of(family, question), tuple(ids)), Generated(prompt_of(family, again), said.token_ids)), 0.0
    )
    return rollout, torch.cat([engine.logprobs([question], [ids])[0], torch.tensor(said.logprobs)])


def test_logprobs_behind_inserted_audio_are_those_of_generation(heard: tuple[LocalEngine, bool]) -> None:
    engine, fine = heard
    made = [scripted(engine, fine, number, text, number) for number, text in enumerate((CITED, " so <seg>0, 1</seg>"))]
    rows = [row for rollout, _ in made for row in rows_of(rollout)]
    assert len(rows) == len(made), "each prompt goes on from the one before"
    with torch.no_grad():
        found = token_logprobs(engine.family, rows, AudioCache(2**20))
    for own, (_, said) in zip(found, made, strict=True):
        torch.testing.assert_close(own, said, atol=1e-4, rtol=1e-4)
    halved = token_logprobs(engine.family, rows, AudioCache(2**20), temperature=2.0)
    assert not torch.allclose(halved[0], found[0], atol=1e-2)


def test_logprobs_of_sampled_generations_in_rows_of_their_own(heard: tuple[LocalEngine, bool]) -> None:
    engine, fine = heard
    question = asked(1)
    samplings = [Sampling(max_new_tokens=9, temperature=1.0, seed=seed) for seed in range(6)]
    first = engine.generate([question] * 6, samplings)
    crop = Audio(question.clips[0].crop(0.5, 1.0), fine=fine)
    again = [question.assistant(f"{one.text}<seg>0.5, 1</seg>", crop) for one in first]
    second = engine.generate(again, samplings)
    rows, logp = [], []
    for one, conversation, two in zip(first, again, second, strict=True):
        generated = [
            Generated(prompt_of(engine.family, question), one.token_ids),
            Generated(prompt_of(engine.family, conversation), two.token_ids),
        ]
        own = rows_of(Rollout(tuple(generated), 0.0))
        rows += own
        logp += [torch.tensor(one.logprobs), torch.tensor(two.logprobs)]
    assert len(rows) > 6, "bytes that are no character are not read back as they were drawn"
    with torch.no_grad():
        found = torch.cat(token_logprobs(engine.family, rows, AudioCache(2**20)))
    torch.testing.assert_close(found, torch.cat(logp), atol=1e-4, rtol=1e-4)


def test_the_mask_holds_neither_prompt_nor_inserted_audio_nor_its_marks(heard: tuple[LocalEngine, bool]) -> None:
    engine, fine = heard
    rollout, _ = scripted(engine, fine, 0)
    (row,) = rows_of(rollout)
    own = [token for token, mine in zip(row.token_ids, row.own, strict=True) if mine]
    assert own == [token for generated in rollout.generations for token in generated.reply_ids]
    others = [token for token, mine in zip(row.token_ids, row.own, strict=True) if not mine]
    assert others.count(engine.family.audio_token_id) == sum(row.prompt.audio_tokens)
    start = len(rollout.generations[0].prompt.token_ids) + len(rollout.generations[0].reply_ids)
    inserted = row.prompt.token_ids[start:]
    assert not any(row.own[start : start + len(inserted)])
    assert inserted.count(engine.family.audio_token_id) == row.prompt.audio_tokens[1] > 0
    assert len(inserted) > row.prompt.audio_tokens[1], "there are marks around what is heard"


def test_only_the_policys_own_tokens_get_a_gradient(heard: tuple[LocalEngine, bool]) -> None:
    engine, fine = heard
    family: Any = engine.family
    rows = [row for number in (0, 1) for row in rows_of(scripted(engine, fine, number)[0])]
    soft = AudioCache(2**20)
    known = rows[0].prompt.audio
    kept = [tokens.detach().clone().requires_grad_() for tokens in family.encode(list(known))]
    for part, tokens in zip(known, kept, strict=True):
        soft.put(audio_key(part), tokens)
    given: list[torch.Tensor] = []

    def llm(**inputs: Any) -> Any:
        output = family.language_model(**{**inputs, "logits_to_keep": 0})
        output.logits.retain_grad()
        given.append(output.logits)
        output.logits = output.logits[:, -inputs["logits_to_keep"] :]
        return output

    with flags_restored(family.model):
        family.model.requires_grad_(True)
        logp = token_logprobs(family, rows, soft, model=llm)
        reference = [own.detach() - 0.3 for own in logp]
        loss, _ = policy_loss(logp, [own.detach() for own in logp], reference, [1.0, -1.0], clip=0.2, kl=0.04)
        loss.backward()
    moved = [name for name, parameter in family.model.named_parameters() if parameter.grad is not None]
    family.model.zero_grad(set_to_none=True)
    assert moved
    assert not [name for name in moved if "language_model" not in name and "lm_head" not in name], "the ear is frozen"
    assert soft.misses == len(rows[1].prompt.audio)
    assert [tokens.grad for tokens in kept] == [None] * len(kept)
    assert given[0].grad is not None
    for place, row in enumerate(rows):
        # The logits at a token are of the next one.
        padding = given[0].shape[1] - len(row.own)
        assert (given[0].grad[place].abs().sum(-1) > 0).tolist() == [*[False] * padding, *row.own[1:], False]


# ---- training


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
