"""Greedy replies of the text LLM to many short prompts: batched by length, on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from earnest.pocket.tokenizer import ASSISTANT, AUDIO_END, AUDIO_START, USER


def as_shipped(model: PreTrainedModel) -> PreTrainedModel:
    """The model with weights as float16 holds them, in float32: what is shipped is what wrote the targets."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    return model


class GreedyWriter:
    """A text LLM that replies to (surrogate or None, user's text).

    Args:
        folder: model and tokenizer.
        batch_size: prompts decoded together.
        threads: torch threads.
        max_new_tokens: limit of a reply.
    """

    def __init__(self, folder: Path, *, batch_size: int = 256, threads: int = 2, max_new_tokens: int = 96) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(threads)
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = as_shipped(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).eval()
        self.batch_size = batch_size
        self.max_new_tokens = max_new_tokens

    @torch.inference_mode()
    def write(self, prompts: list[tuple[str | None, str]]) -> list[str | None]:
        """Replies in the order of the prompts, without the end token; None for one that was cut."""
        texts = [self.render(surrogate, user) for surrogate, user in prompts]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        order = sorted(range(len(texts)), key=lambda k: len(ids[k]))
        replies: list[str | None] = [None] * len(texts)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = self.tokenizer.pad({"input_ids": [ids[k] for k in chosen]}, padding=True, return_tensors="pt")
            output = self.model.generate(**batch, max_new_tokens=self.max_new_tokens, do_sample=False)
            for k, row in zip(chosen, output[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
                if self.tokenizer.eos_token_id in row:
                    replies[k] = self.tokenizer.decode(row, skip_special_tokens=True).strip()
        return replies

    @staticmethod
    def render(surrogate: str | None, user: str) -> str:
        """The prompt as the chat template writes it, up to the assistant's turn."""
        audio = "" if surrogate is None else f"{AUDIO_START}{surrogate}{AUDIO_END}"
        gap = "\n\n" if audio and user else ""
        return f"{USER}{audio}{gap}{user}{ASSISTANT}"
