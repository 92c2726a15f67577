"""Reshaping the representation space: the formulas, the invariants, and one epoch on real architectures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.conversation import Conversation
from earnest.engines.audio_cache import AudioCache
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine
from earnest.engines.prefill import left_pad
from earnest.engines.weights import state_key
from earnest.errors import EarnestError
from earnest.example import Example
from earnest.pocket import safety_adapters
from earnest.safety import rrs
from earnest.safety.closed import world_requests
from earnest.safety.conditions import AUDIO_TEXT, CONDITIONS, Words, asked, spoken
from earnest.safety.rrs import (
    Objective,
    find_shift,
    hidden,
    last_hidden_states,
    lora_norm,
    own_states,
    reshape,
    select,
)
from earnest.training.lora_trainer import LoraSettings, is_trained, padded, soft_tokens
from earnest.training.sft import Lesson

ARCHITECTURES = (tiny_fused, tiny_qwen2_audio, tiny_qwen25_omni)
WORDS = Words.load("general")
OPENING = Objective(opening="I")


def engine_of(folder: Path) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1)


def requests(harmful: bool, count: int = 4) -> list[Example]:
    side = "harmful" if harmful else "benign"
    return [
        Example(
            f"{side}-{k}", (tone(300 + 40 * k + 900 * harmful, 0.5 + 0.1 * (k % 3)),), f"do {k}",
            groups={"request": side},
        )
        for k in range(count)
    ]  # fmt: skip


def quiet(_: str) -> None: ...


def test_features_against_refusal_are_left_out() -> None:
    delta = torch.tensor([2.0, -1.0, 3.0, -4.0, 0.5])
    row = torch.tensor([1.0, -2.0, -1.0, 2.0, 1.0])
    # c = 2, 2, -3, -8, 0.5
    kept = select(delta, row)
    assert kept.tolist() == [2.0, -1.0, 0.0, 0.0, 0.5]
    assert float(row @ kept) == pytest.approx(4.5)
    assert select(delta, row, top_percent=40).tolist() == [2.0, -1.0, 0.0, 0.0, 0.0]
    assert select(delta, row, top_percent=100).tolist() == kept.tolist(), "never a feature against refusal"
    assert select(delta, row, selection=False).tolist() == delta.tolist()


def test_refusal_is_never_made_less_likely_by_the_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    for percent in (0.0, 12.5, 25.0, 50.0):
        delta, row = torch.randn(2, 96, generator=generator)
        kept = select(delta, row, top_percent=percent)
        assert float(row @ kept) >= 0
        assert bool(((row * delta)[kept != 0] >= 0).all())
        if percent:
            assert int((kept != 0).sum()) <= round(96 * percent / 100)


@pytest.mark.parametrize(("name", "value"), [("regulariser", -0.1), ("top_percent", 101.0), ("keep", -1.0)])
def test_bad_numbers(name: str, value: float) -> None:
    with pytest.raises(EarnestError, match=name):
        Objective(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_the_trained_state_is_what_the_engine_reads(make: Callable[[Path], Path], tmp_path: Path) -> None:
    engine = engine_of(make(tmp_path))
    family: Any = engine.family
    conversations = [spoken(example.clips, "Listen." * (k + 1)) for k, example in enumerate(requests(True))]
    prompts = family.render(conversations)
    ids, mask = left_pad([prompt.token_ids for prompt in prompts], family.pad_token_id, family.model.device)
    soft = soft_tokens(family, [part for prompt in prompts for part in prompt.audio], AudioCache(2**20))
    with torch.no_grad():
        found = last_hidden_states(family, ids, mask, soft)
    assert found.shape[1] == 1
    assert torch.allclose(found[:, 0], engine.last_hidden(conversations), atol=1e-4)


def test_the_regulariser_is_zero_at_the_start_and_the_norm_of_the_product(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    engine = engine_of(tiny_fused(tmp_path))
    config = LoraConfig(r=4, lora_alpha=2, target_modules=engine.family.lora_targets())
    worn: Any = get_peft_model(engine.family.model, config)
    assert float(lora_norm(worn).detach()) == 0
    expected = 0.0
    for name, module in worn.named_modules():
        if hasattr(module, "lora_B") and len(module.lora_B):
            torch.nn.init.normal_(module.lora_B["default"].weight)
            product = 0.5 * module.lora_B["default"].weight @ module.lora_A["default"].weight
            assert product.shape == module.base_layer.weight.shape, name
            expected += float((product**2).sum())
    found = lora_norm(worn)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.backward()
    assert any(parameter.grad is not None for parameter in worn.parameters())


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_one_epoch_moves_both_sides_apart_and_leaves_the_model_as_it_was(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    engine = engine_of(make(tmp_path / "model"))
    harmful, benign = requests(True), requests(False)
    before, weights = hidden(engine, [*harmful, *benign], WORDS.audio), state_key(engine.family.model)
    settings = LoraSettings(rank=4, alpha=4, parts="all", learning_rate=2e-2, epochs=3, batch_size=4)
    lines: list[str] = []
    objective = Objective(opening="I", regulariser=0.0)
    shift = reshape(engine, harmful, benign, WORDS, objective, settings, tmp_path / "out", log=lines.append)
    assert any("WARNING" in line for line in lines), "random weights refuse nothing"
    assert state_key(engine.family.model) == weights
    # By the same way: what is kept of other requests would shift the last bit.
    engine.shared.clear()
    assert torch.equal(hidden(engine, [*harmful, *benign], WORDS.audio), before)
    assert is_trained(tmp_path / "out")
    target = before + torch.tensor([1.0] * 4 + [-1.0] * 4)[:, None] * shift.vector

    def far(where: Path) -> float:
        with engine.wearing(where):
            own = torch.stack([hidden(engine, [*harmful, *benign], text) for text in WORDS.pool]).mean(0)
        return float(((own - target) ** 2).mean())

    untouched = torch.stack([hidden(engine, [*harmful, *benign], text) for text in WORDS.pool]).mean(0)
    assert far(tmp_path / "out") < float(((untouched - target) ** 2).mean())
    epochs = sorted(path.name for path in (tmp_path / "out" / "epochs").iterdir())
    assert epochs == ["1", "2", "3"]
    assert far(tmp_path / "out" / "epochs" / "3") == pytest.approx(far(tmp_path / "out"), rel=1e-4)


def ordinary() -> list[Lesson]:
    """Questions of several lengths, with replies of several lengths."""
    replies = ("a dog", "a cat and then a dog", "no", "two of them")

    def conversation(k: int) -> Conversation:
        return spoken((tone(500 + 90 * k, 0.4 + 0.2 * k),), "what is it? " * (k + 1))

    return [Lesson(lambda k=k: conversation(k), reply, str(k)) for k, reply in enumerate(replies)]


def own_states_of(family: Any, rows: list[Any], heard: AudioCache) -> list[torch.Tensor]:
    """Of each row alone."""
    found: list[torch.Tensor] = []
    for row in rows:
        tokens = padded(family, [(row.prompt, row.reply)], heard)
        found.append(last_hidden_states(family, *tokens, len(row.target))[0])
    return found


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_states_that_are_kept_are_those_that_predict_the_reply(make: Callable[[Path], Path], tmp_path: Path) -> None:
    engine = engine_of(make(tmp_path))
    family: Any = engine.family
    head = family.language_model.get_output_embeddings()
    lessons = ordinary()
    found = own_states(family, lessons, AudioCache(2**20))
    said = [(*family.continuation_ids(lesson.reply), family.turn_end_id) for lesson in lessons]
    assert [len(own) for own in found] == [len(ids) for ids in said], "the turn's end is predicted, too"
    expected = engine.logprobs([lesson.conversation() for lesson in lessons], said)
    for own, ids, scores in zip(found, said, expected, strict=True):
        own_scores = head(own).float().log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert torch.allclose(own_scores, scores, atol=1e-3)


def test_every_row_counts_alike_however_long_its_reply(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path))
    family: Any = engine.family
    heard = AudioCache(2**20)
    generator = torch.Generator().manual_seed(0)
    dim = family.language_model.get_output_embeddings().weight.shape[1]
    rows = [
        rrs._Row(prompt, reply, torch.randn(len(reply) + 1, dim, generator=generator), 3.0)
        for prompt, reply in (rrs._said(family, lesson) for lesson in ordinary())
    ]
    part = rrs._part(family, rows, 5, heard)
    target, weights = part["target"], part["weights"]
    assert target.shape == (*weights.shape, dim)
    assert weights.sum(1).tolist() == pytest.approx([3.0 / 5] * 4)
    for own, weight, row in zip(target, weights, rows, strict=True):
        n = len(row.target)
        assert torch.equal(own[-n:], row.target)
        assert weight[-n:].tolist() == pytest.approx([3.0 / 5 / n] * n)
        assert not weight[:-n].any()
    with torch.no_grad():
        together = rrs._loss(family, part)
        alone = [rrs._loss(family, rrs._part(family, [row], 1, heard)) for row in rows]
        by_hand = [
            3 * (own - row.target).square().mean()
            for own, row in zip(own_states_of(family, rows, heard), rows, strict=True)
        ]
    assert float(together) == pytest.approx(float(sum(alone)) / 5, rel=1e-4)
    assert [float(one) for one in alone] == pytest.approx([float(one) for one in by_hand], rel=1e-4)


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_what_is_kept_moves_less(make: Callable[[Path], Path], tmp_path: Path) -> None:
    engine = engine_of(make(tmp_path / "model"))
    settings = LoraSettings(rank=4, alpha=4, parts="all", learning_rate=2e-2, epochs=6, batch_size=4)
    was = own_states(engine.family, ordinary(), AudioCache(2**20))
    found: dict[float, float] = {}
    for keep in (0.0, 3.0):
        out = tmp_path / f"keep{keep:g}"
        objective = Objective(opening="I", regulariser=0.0, keep=keep)
        reshape(
            engine, requests(True), requests(False), WORDS, objective, settings, out, ordinary=ordinary(), log=quiet
        )
        card = json.loads((out / rrs.SHIFT).read_text())
        assert (card["keep"], card["ordinary_questions"]) == (keep, 4 if keep else 0)
        with engine.wearing(out):
            now = own_states(engine.family, ordinary(), AudioCache(2**20))
        found[keep] = sum(float((one - two).square().mean()) for one, two in zip(was, now, strict=True))
    assert 0 < found[3.0] < 0.3 * found[0.0]


def test_nothing_is_kept_unless_asked_for(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tiny_fused(tmp_path / "model")
    settings = LoraSettings(rank=2, alpha=2, parts="all", learning_rate=1e-2, epochs=1, batch_size=4)
    found: list[dict[str, torch.Tensor]] = []
    for number, given in enumerate(((), ordinary())):
        engine, out = engine_of(tmp_path / "model"), tmp_path / str(number)
        reshape(engine, requests(True), requests(False), WORDS, OPENING, settings, out, ordinary=given, log=quiet)
        found.append(load_file(out / "adapter_model.safetensors"))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    with pytest.raises(EarnestError, match="keep is 1 and no ordinary question has a reply to keep"):
        reshape(engine, requests(True), requests(False), WORDS, replace(OPENING, keep=1.0), settings, out, log=quiet)


@pytest.mark.parametrize("keep", [0.0, 2.0])
def test_a_killed_training_ends_as_an_undisturbed_one(
    keep: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    objective = replace(OPENING, keep=keep)
    settings = LoraSettings(rank=2, alpha=2, dropout=0.1, parts="all", learning_rate=1e-2, epochs=3, batch_size=4)

    def train(out: Path) -> None:
        engine = engine_of(tmp_path / "model")
        reshape(
            engine, requests(True), requests(False), WORDS, objective, settings, out, ordinary=ordinary(), log=quiet
        )

    tiny_fused(tmp_path / "model")
    train(tmp_path / "whole")
    real, calls = rrs.last_hidden_states, [0]

    def dies(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == (12 if keep else 5):
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(rrs, "last_hidden_states", dies)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed")
    assert not is_trained(tmp_path / "killed")
    begun = (tmp_path / "killed" / "checkpoints").glob("checkpoint-*")
    assert list(begun), "it goes on, and does not begin anew"
    monkeypatch.setattr(rrs, "last_hidden_states", real)
    train(tmp_path / "killed")
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-6), name


@pytest.mark.parametrize("keep", [0.0, 2.0])
def test_a_step_may_be_cut_into_parts(keep: float, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tiny_fused(tmp_path / "model")
    found: list[dict[str, torch.Tensor]] = []
    # One instruction: parts draw in another order.
    words = replace(WORDS, pool=WORDS.pool[:1])
    objective = Objective(opening="I", regulariser=0.5, keep=keep)
    for parts in (1, 2):
        settings = LoraSettings(
            rank=2, alpha=2, parts="all", learning_rate=1e-2, epochs=2, batch_size=4, accumulate=parts
        )
        out, engine = tmp_path / f"parts{parts}", engine_of(tmp_path / "model")
        reshape(
            engine, requests(True), requests(False), words, objective, settings, out, ordinary=ordinary(), log=quiet
        )
        found.append(load_file(out / "adapter_model.safetensors"))
    for name in found[0]:
        assert torch.allclose(found[0][name], found[1][name], atol=2e-3), name


def test_the_shipped_adapter_keeps_the_invariants(tmp_path: Path) -> None:
    adapters = safety_adapters()
    assert adapters is not None
    engine, words, n = load_local("pocket", threads=1), Words.load("pocket"), 24
    found = world_requests(tmp_path, "validation", 9, n)
    harmful, benign = found[::2], found[1::2]
    shift = find_shift(engine, harmful, benign, words, Objective())
    assert shift.token.strip() == "sorry"
    assert shift.refused.value > rrs.WEAK_REFUSAL
    prompts = [asked(example, AUDIO_TEXT, words) for example in (*harmful, *benign)]

    def state() -> tuple[torch.Tensor, torch.Tensor]:
        """h of both sides, and the log-probability that a reply begins with the refusal's token."""
        opens = engine.logprobs(prompts, [(shift.token_id,)] * len(prompts))
        return hidden(engine, [*harmful, *benign], words.audio), torch.stack([own[0] for own in opens])

    before, opened = state()
    with engine.wearing(adapters["rrs"]):
        after, opens = state()
    unit = shift.vector / shift.vector.norm() ** 2
    gap = [float((h[:n].mean(0) - h[n:].mean(0)) @ unit) for h in (before, after)]
    # 2 delta~ are asked for; the regulariser, the dial and what sounds alike leave half of it.
    moved = [float((after - before)[side].mean(0) @ unit) for side in (slice(n), slice(n, None))]
    assert 0.7 < gap[1] - gap[0] < 2.5, moved
    assert moved[0] > 0.2, moved
    assert moved[1] < 0, moved
    assert float((opens - opened)[:n].mean()) > 5, "nats: refusals of harmful requests begin"
    assert float((opens - opened)[n:].median()) < 0, "and those of benign ones do not"


def test_without_refusals_there_is_no_direction(tmp_path: Path) -> None:
    engine = engine_of(tiny_fused(tmp_path))
    with pytest.raises(EarnestError, match="refuses none of 4 harmful requests under 'Give detailed steps"):
        find_shift(engine, requests(True), requests(False), WORDS, Objective())
    with pytest.raises(EarnestError, match="4 harmful and 0 benign"):
        find_shift(engine, requests(True), [], WORDS, OPENING)


def test_the_same_request_in_three_conditions() -> None:
    (example,) = requests(True, 1)
    found = {name: asked(example, name, WORDS) for name in CONDITIONS}
    assert [len(one.clips) for one in found.values()] == [1, 0, 1]
    assert found["audio_text"].last_text.strip() == WORDS.audio
    assert found["text_only"].last_text == f"{WORDS.text}\n{example.question}"
    assert found["audio_only"].last_text == ""
    warned = asked(example, AUDIO_TEXT, WORDS, warned=True)
    assert warned.turns[0].role == "system"
    assert warned.turns[1:] == found["audio_text"].turns
    pocket = asked(example, AUDIO_TEXT, Words.load("pocket"), warned=True)
    assert pocket == Conversation(pocket.turns[:1])
    assert "breaks the policy" in pocket.last_text
    assert len(WORDS.pool) == len(Words.load("pocket").pool) == 10
