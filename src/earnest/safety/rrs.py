"""Reshaping the representation space (RRS, arXiv 2505.19670): harmful requests toward refusal, benign ones away.

No reply is learnt: the only supervision is in which of two sets a request is. h(x) [D] is the last hidden state at the
last token before the reply, as the LM head is given it.

    delta      mean of h0(harmful, P_ref) - mean of h0(benign, P0)
    c          W_r * delta; r is the token that opens the model's own refusals
    delta~     delta where c >= 0, else 0
    target     h0(x, P0) + delta~ for a harmful x, h0(x, P0) - delta~ for a benign one
    L          MSE(h(x, p), target(x)) + weight * sum over LoRA modules of ||s B A||_F^2,  p drawn from a pool

Ours, and off unless asked for: ordinary questions may stand among the requests, and everywhere in the model's own reply
to them h is to stay what it was (h0 is the target, as if delta~ were 0).
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
from earnest.engines.prefill import positions_of
from earnest.errors import EarnestError, RecipeError
from earnest.example import Example
from earnest.files import write_json
from earnest.finding import Metric
from earnest.grading import parse_reply
from earnest.grading.refusal import refuses_request
from earnest.safety.conditions import Words, spoken
from earnest.safety.refusal_score import openings
from earnest.statistics import wilson
from earnest.training.lora_trainer import SOFT_TOKEN_BYTES, LoraSettings, padded, prompt_of, train_adapter
from earnest.training.numbers import at_least
from earnest.training.sft import Lesson

SHIFT = "shift.json"
WEAK_REFUSAL = 0.95
"""Of the harmful requests that are refused under P_ref: below it the direction is weak."""
_STEP = 256
"""Requests whose clips are in memory at once."""
_KEPT_STEP = 16
"""Replies that are read at once."""


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
        keep: what an ordinary question, where any are given, counts beside a request.
    """

    regulariser: float = 1.0
    selection: bool = True
    top_percent: float = 0.0
    harmful_only: bool = False
    hint: bool = True
    opening: str = ""
    keep: float = 0.0

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        at_least(self, 0, "regulariser", "keep")
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
    """A request or a question.

    Attributes:
        prompt: of it.
        reply: what is said after it, but for the last token; nothing after a request.
        target: [n, D] float32: where the states of the last n tokens shall be.
        weight: of their distance.
    """

    prompt: Prompt
    reply: tuple[int, ...]
    target: Tensor
    weight: float


class _Rows(Dataset[_Row]):
    """Spoken requests under a drawn instruction, and behind them ordinary questions; tokens when they are asked for."""

    def __init__(
        self,
        family: Family,
        examples: Sequence[Example],
        ordinary: Sequence[Lesson],
        targets: Sequence[Tensor],
        pool: Sequence[str],
        keep: float,
    ) -> None:
        self._family = family
        self._examples = examples
        self._ordinary = ordinary
        self._targets = targets
        self._pool = pool
        self._keep = keep

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, place: int) -> _Row:
        target = self._targets[place]
        if place < len(self._examples):
            # The trainer seeds Python's own generator, and keeps its state in checkpoints.
            instruction = random.choice(self._pool)
            return _Row(prompt_of(self._family, spoken(self._examples[place].clips, instruction)), (), target, 1.0)
        prompt, reply = _said(self._family, self._ordinary[place - len(self._examples)])
        return _Row(prompt, reply, target, self._keep)


def _said(family: Family, lesson: Lesson) -> tuple[Prompt, tuple[int, ...]]:
    """A question, and all of its reply by which a token is predicted: the end of the turn predicts none."""
    return prompt_of(family, lesson.conversation()), tuple(family.continuation_ids(lesson.reply))


def _part(family: Family, rows: Sequence[_Row], whole: int, heard: AudioCache) -> dict[str, Any]:
    """Rows of a batch of `whole` rows: `target` [B, n, D] and `weights` [B, n] of the last n tokens beside the tokens.

    Each row counts alike, however long its reply.
    """
    longest = max(len(row.target) for row in rows)
    target = torch.stack([F.pad(row.target, (0, 0, longest - len(row.target), 0)) for row in rows])
    weights = torch.zeros(len(rows), longest)
    for place, row in enumerate(rows):
        weights[place, longest - len(row.target) :] = row.weight / len(row.target) / whole
    ids, mask, soft = padded(family, [(row.prompt, row.reply) for row in rows], heard)
    return {
        "token_ids": ids,
        "mask": mask,
        "soft": soft,
        "target": target.to(ids.device),
        "weights": weights.to(ids.device),
    }


def _loss(family: Family, part: dict[str, Any]) -> Tensor:
    """Sum of the weighted squared distances, each a mean over D, of what `_part` makes."""
    given = last_hidden_states(family, part["token_ids"], part["mask"], part["soft"], part["target"].shape[1])
    return ((given - part["target"]).square().mean(-1) * part["weights"]).sum()


def own_states(family: Family, lessons: Sequence[Lesson], heard: AudioCache) -> list[Tensor]:
    """h0 [n, D] float32 on the CPU at every place of a reply that predicts one of its n tokens, its end among them.

    All of them stay in memory: of 1,000 replies of 100 tokens 1.4 GB where D is 3,584.

    Args:
        family: the model, untouched.
        lessons: questions, and the model's own replies.
        heard: soft tokens of clips.

    Raises:
        EarnestError: a question that the model cannot take.
    """
    assert not family.model.training, "targets without dropout"
    found: list[Tensor] = []
    for start in range(0, len(lessons), _KEPT_STEP):
        rows = [_said(family, lesson) for lesson in lessons[start : start + _KEPT_STEP]]
        with torch.no_grad():
            last = 1 + max(len(reply) for _, reply in rows)
            states = last_hidden_states(family, *padded(family, rows, heard), last).cpu()
        found.extend(own[-len(reply) - 1 :].clone() for own, (_, reply) in zip(states, rows, strict=True))
    return found


def reshape(
    engine: LocalEngine,
    harmful: Sequence[Example],
    benign: Sequence[Example],
    words: Words,
    objective: Objective,
    settings: LoraSettings,
    out: Path,
    *,
    ordinary: Sequence[Lesson] = (),
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
        ordinary: questions with the model's own replies, over which it stays as it is; if `objective.keep` is above 0.
        soft: soft tokens of clips, shared by several trainings.
        log: one line of progress.

    Raises:
        EarnestError: there is nothing to keep although `objective.keep` is above 0; see `find_shift`, `train_adapter`.
    """
    ordinary = ordinary if objective.keep else ()
    if objective.keep and not ordinary:
        raise EarnestError(f"keep is {objective.keep:g} and no ordinary question has a reply to keep: give some, or 0")
    shift = find_shift(engine, harmful, benign, words, objective)
    log(f"refused under the hint: {shift.refused}; |delta~| {shift.vector.norm():.2f}, opening {shift.token!r}")
    if shift.refused.value < WEAK_REFUSAL:
        log(
            f"WARNING: below {WEAK_REFUSAL:.0%} the direction is weak: the model hardly understands the hint over audio"
        )
    write_json(out / SHIFT, {**shift.card, "keep": objective.keep, "ordinary_questions": len(ordinary)})
    examples = [*harmful, *benign]
    signs = torch.tensor([1.0] * len(harmful) + [0.0 if objective.harmful_only else -1.0] * len(benign))
    targets = hidden(engine, examples, words.audio) + signs[:, None] * shift.vector
    family = engine.family
    heard = AudioCache(SOFT_TOKEN_BYTES) if soft is None else soft
    kept = [*(target[None] for target in targets), *own_states(family, ordinary, heard)]
    rows = _Rows(family, examples, ordinary, kept, words.pool, objective.keep)
    weight = objective.regulariser

    def loss(worn: Any, inputs: dict[str, Any], _: Any) -> Tensor:
        whole = weight * lora_norm(worn) if weight else torch.zeros((), device=family.model.device)
        return whole + sum(_loss(family, part) for part in inputs["parts"])

    def collate(batch: Sequence[_Row]) -> dict[str, Any]:
        # Questions are several times as long as requests: apart, neither pads the other.
        parts = [[row for row in batch if bool(row.reply) is replied] for replied in (False, True)]
        return {"parts": [_part(family, own, len(batch), heard) for own in parts if own]}

    train_adapter(
        family,
        rows,
        settings,
        out,
        collate=collate,
        loss=loss,
        taught=[
            words.id,
            vars(objective),
            *([example.id, example.question] for example in examples),
            *([lesson.name, lesson.reply] for lesson in ordinary),
        ],
        per_epoch=True,
        arguments={"adam_beta1": 0.9, "adam_beta2": 0.98, "weight_decay": 1e-3, "max_grad_norm": 1.0},
        log=log,
    )
    return shift


def last_hidden_states(family: Family, token_ids: Tensor, mask: Tensor, soft: list[Tensor], last: int = 1) -> Tensor:
    """h [B, last, D] float32 at each row's last tokens, with its gradient to the LLM.

    Args:
        family: the model.
        token_ids: [B, T], padded on the left: the last column holds every row's last real token.
        mask: [B, T], 1 at real tokens.
        soft: soft tokens [F, D] of each clip, in the order of their placeholders.
        last: how many.
    """
    with torch.no_grad():
        embeds = family.embed(token_ids, soft)
    given: list[Tensor] = []

    def remember(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        given.append(inputs[0][:, -last:])
        # Logits are not asked for: those of one place are made.
        return (inputs[0][:, -1:],)

    handle = family.language_model.get_output_embeddings().register_forward_pre_hook(remember)
    try:
        family.language_model(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions_of(mask),
            use_cache=False,
            logits_to_keep=last,
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
