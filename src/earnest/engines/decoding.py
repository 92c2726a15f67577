"""Batched decoding behind prompts that have been run: one token for every unfinished row at a time.

Padding is masked and positions are explicit, so that a row's answer does not depend on it. Rows end independently;
finished ones are dropped from the batch once an eighth of it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from earnest.completion import Sampling, Stop
from earnest.engines.choosing import TokenChooser
from earnest.engines.prefill import Prefilled, row_columns, row_layers
from earnest.engines.prefixes import Layers


@dataclass(frozen=True)
class Job:
    """One row of a batch.

    Attributes:
        sampling: how to draw; `max_new_tokens` is already within the model's context.
        key: the conversation's key, from which sampling is seeded.
        text_of: text of the reply so far, from its token ids.
        prompt_ids: what it replies to, for repetition penalties.
    """

    sampling: Sampling
    key: str
    text_of: Callable[[Sequence[int]], str]
    prompt_ids: Sequence[int] = ()


@dataclass
class Reply:
    """What a row has said so far: token ids, their log-probabilities, why it ended and its text."""

    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    stop: Stop = Stop.LENGTH
    text: str = ""


class StopFinder:
    """Finds stop strings in the text of a reply, without decoding at every step.

    A reply's text is only looked at when its newest token contains the last character of one of its stop strings.
    Which tokens do is worked out once per character. Blanks and characters outside ASCII may be spread over tokens
    in ways that single tokens do not show: for stop strings that end in one, every token is a candidate.

    Args:
        token_texts: text of every token id by itself.
    """

    def __init__(self, token_texts: Callable[[], Sequence[str]]) -> None:
        self._token_texts = token_texts
        self._texts: Sequence[str] | None = None
        self._candidates: dict[str, frozenset[int] | None] = {}

    def candidates(self, stop: tuple[str, ...]) -> frozenset[int] | None:
        """Token ids that may complete one of the stop strings; None for all."""
        found: set[int] = set()
        for string in stop:
            ids = self._completing(string[-1])
            if ids is None:
                return None
            found |= ids
        return frozenset(found)

    def _completing(self, character: str) -> frozenset[int] | None:
        if character not in self._candidates:
            plain = character.isascii() and character.isprintable() and not character.isspace()
            self._candidates[character] = self._containing(character) if plain else None
        return self._candidates[character]

    def _containing(self, character: str) -> frozenset[int]:
        if self._texts is None:
            self._texts = self._token_texts()
        return frozenset(index for index, text in enumerate(self._texts) if character in text)


def cut_after_stop(text: str, stop: tuple[str, ...]) -> str | None:
    """The text up to and with the stop string that ends first, or None if there is none."""
    ends = [start + len(string) for string in stop if (start := text.find(string)) >= 0]
    return text[: min(ends)] if ends else None


def decode(
    language_model: Any,
    begun: Prefilled,
    jobs: Sequence[Job],
    *,
    end_ids: frozenset[int],
    banned_ids: Iterable[int],
    stops: StopFinder,
    repetition_penalty: float = 1.0,
    on_reply: Callable[[int, Layers, Sequence[int]], None] | None = None,
) -> list[Reply]:
    """Answers a batch.

    Args:
        language_model: maps `input_ids` to logits, with a transformers cache.
        begun: the batch's prompts, run. Its cache is used up.
        jobs: one for each row.
        end_ids: tokens that end a turn. They are part of the reply's ids, not of its text.
        banned_ids: tokens that a reply never holds.
        stops: finder of stop strings.
        repetition_penalty: for tokens that stand in the prompt or the reply (arXiv 1909.05858, section 4.1).
        on_reply: given each row when it ends, the keys and values [heads, n, D] of all that was run behind its known
            prefix (the rest of its prompt and its reply without the last token), and the reply's ids.

    Returns:
        One reply for each row. Log-probabilities are the model's own: of the softmax at temperature 1 over the
        whole vocabulary, before anything is banned or penalised.
    """
    mask, lengths, cache = begun.mask, begun.lengths, begun.cache
    width, device = mask.shape[1], mask.device
    replies = [Reply() for _ in jobs]
    limits = [job.sampling.max_new_tokens for job in jobs]
    candidates = [stops.candidates(job.sampling.stop) for job in jobs]
    columns = torch.cat([mask, mask.new_ones(len(jobs), max(limits))], dim=1)
    rows = list(range(len(jobs)))
    unfinished = set(rows)
    logits = begun.logits[:, -1]
    chooser = TokenChooser(
        [job.sampling for job in jobs],
        [job.key for job in jobs],
        banned_ids,
        vocabulary=logits.shape[-1],
        device=device,
        repetition_penalty=repetition_penalty,
        prompts=[job.prompt_ids for job in jobs],
    )
    for step in range(max(limits)):
        logits = logits.float()  # [R, V]
        total = logits.logsumexp(-1)
        tokens = chooser.choose(logits, step)  # [R]
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - total
        for place, (row, token, logprob) in enumerate(zip(rows, tokens.tolist(), logprobs.tolist(), strict=True)):
            if row not in unfinished:
                continue
            reply = replies[row]
            reply.token_ids.append(token)
            reply.logprobs.append(logprob)
            if token in end_ids:
                reply.stop = Stop.END
            elif (maybe := candidates[row]) is None or token in maybe:
                text = cut_after_stop(jobs[row].text_of(reply.token_ids), jobs[row].sampling.stop)
                if text is not None:
                    reply.stop, reply.text = Stop.STOP_STRING, text
            if reply.stop != Stop.LENGTH or step + 1 == limits[row]:
                unfinished.remove(row)
                if on_reply is not None:
                    run = row_columns(columns[place, : width + step], begun.begins[row])
                    on_reply(row, row_layers(cache, place, run), reply.token_ids)
        if not unfinished:
            break
        if len(rows) - len(unfinished) >= max(1, len(rows) // 8):
            kept = [place for place, row in enumerate(rows) if row in unfinished]
            rows = [rows[place] for place in kept]
            index = torch.tensor(kept, device=device)
            cache.batch_select_indices(index)
            chooser.keep_rows(index)
            tokens, lengths, columns = tokens[index], lengths[index], columns[index]
        logits = language_model(
            input_ids=tokens[:, None],
            attention_mask=columns[:, : width + step + 1],
            position_ids=lengths + step,
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    for job, reply in zip(jobs, replies, strict=True):
        if reply.stop != Stop.STOP_STRING:
            said = reply.token_ids[:-1] if reply.stop == Stop.END else reply.token_ids
            reply.text = job.text_of(said)
    return replies
