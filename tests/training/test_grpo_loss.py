"""The loss of GRPO and its rows, of replies that hold more than the policy's own tokens, behind real architectures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.policies import MODELS, asked, engine_of

from earnest.completion import Heard, Sampling
from earnest.conversation import Audio
from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Prompt
from earnest.engines.local import LocalEngine
from earnest.engines.lora import flags_restored
from earnest.engines.sharing import audio_key
from earnest.training.grpo import advantages, policy_loss
from earnest.training.lora_trainer import prompt_of
from earnest.training.policy import Generated, Rollout, rows_of, token_logprobs


@pytest.fixture(scope="module", params=list(MODELS))
def heard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalEngine, bool]:
    make, fine = MODELS[request.param]
    return engine_of(make(tmp_path_factory.mktemp(request.param))), fine


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
