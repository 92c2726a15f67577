"""The policy that GRPO trains, and how the probability of what it drew is computed again.

A reply of several generations (re-listening) is scored as it was generated: each generation behind the prompt that the
engine was given, audio that was inserted meanwhile included. Where each prompt goes on from the one before, one row
holds them all. The reference is the model with its adapter disabled.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earnest.engines.audio_cache import AudioCache
from earnest.engines.families.family import Family, Prompt
from earnest.engines.prefill import left_pad
from earnest.errors import needs_extra
from earnest.training.lora_trainer import last_logits, soft_tokens


@dataclass(frozen=True)
class Generated:
    """One generation of a reply: what stood before, and the tokens that the policy drew."""

    prompt: Prompt
    reply_ids: tuple[int, ...]


@dataclass(frozen=True)
class Rollout:
    """A sampled reply.

    Attributes:
        generations: in order; each prompt holds all that was generated and inserted before.
        reward: what it earns.
        record: what is logged of it.
    """

    generations: tuple[Generated, ...]
    reward: float
    record: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Row:
    """Tokens of one forward pass.

    Attributes:
        prompt: with the clips of all placeholders.
        token_ids: the prompt's, and what was drawn last.
        own: [len(token_ids)], True at the policy's own tokens.
    """

    prompt: Prompt
    token_ids: tuple[int, ...]
    own: tuple[bool, ...]


def rows_of(rollout: Rollout) -> list[Row]:
    """The rollout as rows: one, where each prompt goes on from the tokens before it; none of what drew no token."""
    rows: list[Row] = []
    for generated in rollout.generations:
        if not generated.reply_ids:
            continue
        ids = generated.prompt.token_ids
        before = rows[-1] if rows and ids[: len(rows[-1].token_ids)] == rows[-1].token_ids else None
        own = list(before.own) if before else []
        own += [False] * (len(ids) - len(own)) + [True] * len(generated.reply_ids)
        row = Row(generated.prompt, (*ids, *generated.reply_ids), tuple(own))
        if before:
            rows[-1] = row
        else:
            rows.append(row)
    return rows


def token_logprobs(
    family: Family, rows: Sequence[Row], heard: AudioCache, temperature: float = 1.0, model: Any = None
) -> list[Tensor]:
    """Natural log-probabilities of each row's own tokens, [n] each; gradients flow where they are enabled.

    Args:
        family: the model.
        rows: scored together.
        heard: soft tokens of clips that are known; the others go through the ear, without a gradient, and into it.
        temperature: divides the logits.
        model: stands in for the family's LLM.
    """
    ids, mask = left_pad([row.token_ids for row in rows], family.pad_token_id, family.model.device)
    soft = soft_tokens(family, [part for row in rows for part in row.prompt.audio], heard)
    width = ids.shape[1]
    keep = max(len(row.own) - row.own.index(True) for row in rows)
    logits = last_logits(family, ids, mask, soft, keep, model)
    # Only where there is something of its own: the softmax over the vocabulary is most of the memory.
    own = torch.zeros(len(rows), width, dtype=torch.bool)
    for place, row in enumerate(rows):
        own[place, width - len(row.own) :] = torch.tensor(row.own)
    own = own[:, width - keep :].to(logits.device)
    logp = (logits[own].float() / temperature).log_softmax(-1)
    chosen = logp.gather(1, ids[:, width - keep :][own][:, None])[:, 0]
    return list(chosen.split([sum(row.own) for row in rows]))


class Policy:
    """What is trained: LoRA matrices in the LLM, or all of it, beside its reference.

    Args:
        family: the loaded model.
        rank: of the LoRA matrices; 0 trains the whole LLM, with a copy as the reference.
        alpha: their product counts alpha / rank.
        parts: of the LLM's matrices: "attention", "mlp" or "all".
        temperature: of the probabilities.
        seed: of LoRA's weights.
    """

    def __init__(self, family: Family, *, rank: int, alpha: int, parts: str, temperature: float, seed: int) -> None:
        with needs_extra("train"):
            from peft import LoraConfig, get_peft_model
        self.family = family
        self.temperature = temperature
        self._reference: Any = None
        self._worn: Any = None
        torch.manual_seed(seed)
        if rank:
            named = () if parts == "all" else (parts,)
            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=family.lora_targets(*named))
            self._worn = get_peft_model(family.model, config)
            self.parameters = [p for p in self._worn.parameters() if p.requires_grad]
            return
        self._reference = copy.deepcopy(family.language_model)
        for module in _modules(self._reference):
            module.requires_grad_(False).eval()
        # Embeddings and head may be one.
        self.parameters = list(dict.fromkeys(p for m in _modules(family.language_model) for p in m.parameters()))
        self._before = [parameter.detach().clone() for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.requires_grad_(True)

    def logprobs(
        self, chosen: Sequence[int], rows: Mapping[int, Sequence[Row]], heard: AudioCache, *, reference: bool = False
    ) -> dict[int, Tensor]:
        """Log-probabilities of the own tokens of each reply [n]."""
        flat = [row for k in chosen for row in rows[k]]
        if reference and self._worn is not None:
            with self._worn.disable_adapter():
                found = token_logprobs(self.family, flat, heard, self.temperature)
        else:
            model = self._reference if reference else None
            found = token_logprobs(self.family, flat, heard, self.temperature, model)
        parts = iter(found)
        return {k: torch.cat([next(parts) for _ in rows[k]]) for k in chosen}

    def average(self, accelerator: Any) -> None:
        """Gradients of all processes become their mean."""
        if accelerator.num_processes > 1:
            for parameter in self.parameters:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad = accelerator.reduce(parameter.grad, "mean")

    def state(self) -> list[Tensor]:
        """The trained weights."""
        return [parameter.detach().cpu().clone() for parameter in self.parameters]

    def load(self, state: Sequence[Tensor]) -> None:
        """Takes back what `state` gave."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state, strict=True):
                parameter.copy_(value)

    def save(self, out: Path) -> None:
        """As peft does, or the whole model."""
        if self._worn is not None:
            self._worn.save_pretrained(out, save_embedding_layers=False)
        else:
            self.family.model.save_pretrained(out)
            getattr(self.family, "processor", self.family.tokenizer).save_pretrained(out)

    def close(self) -> None:
        """The model is what it was."""
        if self._worn is not None:
            self._worn.unload()
            return
        self.load(self._before)


def _modules(language_model: Any) -> list[torch.nn.Module]:
    """The LLM with its head: one module, or the two that a family calls as one."""
    whole = isinstance(language_model, torch.nn.Module)
    return [language_model] if whole else [language_model.decoder, language_model.head]
