"""Reshaping the representation space (RRS, arXiv 2505.19670): harmful requests toward refusal, benign ones away.

No reply is learnt: the only supervision is in which of two sets a request is. h(x) [D] is the last hidden state at the
last token before the reply, as the LM head is given it.

    delta      mean of h0(harmful, P_ref) - mean of h0(benign, P0)
    c          W_r * delta; r is the token that opens the model's own refusals
    delta~     delta where c >= 0, else 0
    target     h0(x, P0) + delta~ for a harmful x, h0(x, P0) - delta~ for a benign one
    L          MSE(h(x, p), target(x)) + weight * sum over LoRA modules of ||s B A||_F^2,  p drawn from a pool
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from earnest.completion import Sampling
from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Family, Prompt
from earnest.engines.local import LocalEngine
from earnest.engines.prefill import left_pad, positions_of
from earnest.errors import EarnestError, RecipeError
from earnest.example import Example
from earnest.files import write_json
from earnest.finding import Metric
from earnest.grading import parse_reply
from earnest.grading.refusal import refuses_request
from earnest.safety.conditions import Words, spoken
from earnest.safety.refusal_score import openings
from earnest.statistics import wilson
from earnest.training.lora_trainer import SOFT_TOKEN_BYTES, LoraSettings, soft_tokens, train_adapter
from earnest.training.numbers import at_least

SHIFT = "shift.json"
WEAK_REFUSAL = 0.95
"""Of the harmful requests that are refused under P_ref: below it the direction is weak."""
_STEP = 256
"""Requests whose clips are in memory at once."""


@dataclass(frozen=True)
class Objective:
    """What is optimised; the defaults are the paper's.

    Attributes:
        regulariser: weight of L_reg. It is a sum over modules while L_rep is a mean over features: at small width it
            holds the model back at 1.
        selection: whether features against refusal are left out of delta~.
        top_percent: of all features, those that speak most for refusal; 0 keeps all that do.
        harmful_only: whether benign requests are left where they are.
        hint: whether harmful requests carry the hint where delta is measured (P_ref, else P0).
        opening: the text whose first token is r; empty for what the model's own refusals begin with.
    """

    regulariser: float = 1.0
    selection: bool = True
    top_percent: float = 0.0
    harmful_only: bool = False
    hint: bool = True
    opening: str = ""

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        at_least(self, 0, "regulariser")
        if not 0 <= self.top_percent <= 100:
            raise RecipeError(f"top_percent is {self.top_percent}: give 0 (all) to 100")


@dataclass(frozen=True)
class Shift:
    """The direction, and what it was found by.

    Attributes:
        vector: delta~ [D].
        full: delta [D].
        token_id: r.
        token: its text.
        refused: share of harmful requests that are refused under P_ref, with its interval and n.
        kept: share of features in delta~.
    """

    vector: Tensor
    full: Tensor
    token_id: int
    token: str
    refused: Metric
    kept: float

    @property
    def card(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "refused_under_hint": self.refused.to_json(),
            "opening": self.token,
            "norm": round(float(self.vector.norm()), 4),
            "norm_before_selection": round(float(self.full.norm()), 4),
            "kept": round(self.kept, 4),
        }


def select(delta: Tensor, row: Tensor, *, selection: bool = True, top_percent: float = 0.0) -> Tensor:
    """delta~ [D]: the features of delta that do not speak against refusal.

    Args:
        delta: [D].
        row: W_r [D], of the LM head.
        selection: without it delta comes back as it is.
        top_percent: keep only so many of all features, those of the greatest contributions; 0 for all.
    """
    if not selection:
        return delta.clone()
    contributions = row * delta
    kept = contributions >= 0
    if top_percent:
        count = max(1, round(len(delta) * top_percent / 100))
        top = torch.zeros_like(kept)
        top[contributions.topk(count).indices] = True
        kept &= top
    return torch.where(kept, delta, torch.zeros_like(delta))


def hidden(engine: LocalEngine, examples: Sequence[Example], instruction: str) -> Tensor:
    """h0 [N, D] of spoken requests with an instruction."""
    found = [
        engine.last_hidden([spoken(example.clips, instruction) for example in examples[start : start + _STEP]])
        for start in range(0, len(examples), _STEP)
    ]
    return torch.cat(found)


def find_shift(
    engine: LocalEngine, harmful: Sequence[Example], benign: Sequence[Example], words: Words, objective: Objective
) -> Shift:
    """delta~ by the model's own refusals.

    Args:
        engine: the model, untouched.
        harmful: spoken requests.
        benign: spoken requests.
        words: P0, hint.
        objective: how features are selected.

    Raises:
        EarnestError: a set is empty, or the model never refuses, even under the hint: there is no direction to go.
    """
    if not harmful or not benign:
        raise EarnestError(f"{len(harmful)} harmful and {len(benign)} benign requests: both are needed")
    conversations = [spoken(example.clips, words.hinted) for example in harmful[:_STEP]]
    replies = engine.generate(conversations, Sampling(max_new_tokens=64))
    refused = wilson(sum(refuses_request(parse_reply(done.text).answer) for done in replies), len(replies))
    found = engine.family.continuation_ids(objective.opening) if objective.opening else openings(replies)
    if not found:
        raise EarnestError(
            f"the model refuses none of {len(replies)} harmful requests under {words.hinted!r}, so that its own "
            "refusals (without reasoning before) name no opening: give one (`opening`), or another hint"
        )
    reference = hidden(engine, harmful, words.hinted if objective.hint else words.audio).mean(0)
    full = reference - hidden(engine, benign, words.audio).mean(0)
    head = engine.family.language_model.get_output_embeddings().weight
    row = head[found[0]].detach().float().cpu()
    vector = select(full, row, selection=objective.selection, top_percent=objective.top_percent)
    text = engine.family.tokenizer.decode([found[0]])
    return Shift(vector, full, found[0], text, refused, float((vector != 0).float().mean()))


@dataclass(frozen=True)
class _Row:
    prompt: Prompt
    target: Tensor


class _Rows(Dataset[_Row]):
    """Spoken requests under a drawn instruction, with their targets."""

    def __init__(self, family: Family, examples: Sequence[Example], targets: Tensor, pool: Sequence[str]) -> None:
        self._family = family
        self._examples = examples
        self._targets = targets
        self._pool = pool

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, place: int) -> _Row:
        # The trainer seeds Python's own generator, and keeps its state in checkpoints.
        instruction = random.choice(self._pool)
        (prompt,) = self._family.render([spoken(self._examples[place].clips, instruction)])
        if isinstance(prompt, EarnestError):
            raise prompt
        return _Row(prompt, self._targets[place])


def reshape(
    engine: LocalEngine,
    harmful: Sequence[Example],
    benign: Sequence[Example],
    words: Words,
    objective: Objective,
    settings: LoraSettings,
    out: Path,
    *,
    soft: AudioCache | None = None,
    log: Callable[[str], None] = print,
) -> Shift:
    """Trains the adapter; that of each epoch is kept in `out/epochs`.

    Args:
        engine: the model, untouched.
        harmful: spoken requests.
        benign: spoken requests.
        words: instructions.
        objective: what is optimised.
        settings: of LoRA and its steps.
        out: the adapter's folder.
        soft: soft tokens of clips, shared by several trainings.
        log: one line of progress.

    Raises:
        EarnestError: see `find_shift`, `train_adapter`.
    """
    shift = find_shift(engine, harmful, benign, words, objective)
    log(f"refused under the hint: {shift.refused}; |delta~| {shift.vector.norm():.2f}, opening {shift.token!r}")
    if shift.refused.value < WEAK_REFUSAL:
        log(
            f"WARNING: below {WEAK_REFUSAL:.0%} the direction is weak: the model hardly understands the hint over audio"
        )
    write_json(out / SHIFT, shift.card)
    examples = [*harmful, *benign]
    signs = torch.tensor([1.0] * len(harmful) + [0.0 if objective.harmful_only else -1.0] * len(benign))
    targets = hidden(engine, examples, words.audio) + signs[:, None] * shift.vector
    family = engine.family
    heard = AudioCache(SOFT_TOKEN_BYTES) if soft is None else soft
    weight = objective.regulariser

    def loss(worn: Any, inputs: dict[str, Any], _: Any) -> Tensor:
        given = last_hidden_state(family, inputs["token_ids"], inputs["mask"], inputs["soft"])
        whole = F.mse_loss(given, inputs["target"])
        if weight:
            whole = whole + weight * lora_norm(worn)
        return whole

    def collate(batch: Sequence[_Row]) -> dict[str, Any]:
        device = family.model.device
        ids, mask = left_pad([row.prompt.token_ids for row in batch], family.pad_token_id, device)
        own = soft_tokens(family, [part for row in batch for part in row.prompt.audio], heard)
        target = torch.stack([row.target for row in batch]).to(device)
        return {"token_ids": ids, "mask": mask, "soft": own, "target": target}

    train_adapter(
        family,
        _Rows(family, examples, targets, words.pool),
        settings,
        out,
        collate=collate,
        loss=loss,
        taught=[words.id, vars(objective), *([example.id, example.question] for example in examples)],
        per_epoch=True,
        arguments={"adam_beta1": 0.9, "adam_beta2": 0.98, "weight_decay": 1e-3, "max_grad_norm": 1.0},
        log=log,
    )
    return shift


def last_hidden_state(family: Family, token_ids: Tensor, mask: Tensor, soft: list[Tensor]) -> Tensor:
    """h [B, D] float32, with its gradient to the LLM.

    Args:
        family: the model.
        token_ids: [B, T], padded on the left: the last column holds every row's last real token.
        mask: [B, T], 1 at real tokens.
        soft: soft tokens [F, D] of each clip, in the order of their placeholders.
    """
    with torch.no_grad():
        embeds = family.embed(token_ids, soft)
    given: list[Tensor] = []

    def remember(_: Any, inputs: tuple[Tensor, ...]) -> None:
        given.append(inputs[0][:, -1])

    handle = family.language_model.get_output_embeddings().register_forward_pre_hook(remember)
    try:
        family.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions_of(mask),
            use_cache=False,
            logits_to_keep=1,
        )
    finally:
        handle.remove()
    return given[-1].float()


def lora_norm(worn: Any) -> Tensor:
    """L_reg: sum over LoRA modules of ||s B A||_F^2, s = alpha / r. Nothing of the size of a weight matrix is made."""
    from peft.tuners.lora import LoraLayer

    total = torch.zeros(())
    for module in worn.modules():
        if isinstance(module, LoraLayer):
            for name in module.lora_A:
                first: Any = module.lora_A[name]
                second: Any = module.lora_B[name]
                a, b = first.weight.float(), second.weight.float()
                # ||BA||^2 = tr(B'B AA')
                product = ((b.T @ b) * (a @ a.T)).sum()
                total = total.to(product.device) + module.scaling[name] ** 2 * product
    return total
