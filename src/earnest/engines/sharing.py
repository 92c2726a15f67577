"""Batches of requests whose common beginnings are computed once, and whose clips are encoded once.

The requests of a call are planned into a radix tree (`prefixes.py`). Stretches that two or more of them wait for are
run first, level by level and in batches; then what each request has of its own. What was computed stays for the next
call, within a bound in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from earnest.conversation import Audio
from earnest.engines.audio_cache import AudioCache, AudioKey
from earnest.engines.families.family import Family, Prompt
from earnest.engines.kv_cache import holds_prefixes
from earnest.engines.prefill import Prefilled, joined, prefill
from earnest.engines.prefixes import Layers, Prefix, PrefixTree, Symbols
from earnest.errors import ModelError

ENCODE_SECONDS = 600.0
"""Audio that is encoded at once, padding included, in seconds."""
MOST_PADDING = 0.1
"""Of a batch whose prompts are run, as a share of what it holds: beyond that a shorter row begins another one."""
FILLS_A_CPU = 2**33
"""Weights times tokens of a batch of whole prompts: beyond that more rows make a CPU no faster, and add padding."""
MOST_LOGITS = 2**26
"""Numbers that the LM head gives back at once: rows times wanted tokens times vocabulary."""
CLIP_SYMBOLS = 2**24
"""Symbols that a clip may take: soft tokens of one clip, at most."""


@dataclass(eq=False)
class Request:
    """A prompt to run.

    Attributes:
        place: among the caller's requests.
        prompt: its tokens and clips.
        new_tokens: that may follow.
        keep: last tokens whose logits are wanted.
        symbols: [T], what its tokens are known by in the tree.
        planned: what it may share: all tokens but the last `keep`.
        behind: the known prefix that it was run behind.
    """

    place: int
    prompt: Prompt
    new_tokens: int = 0
    keep: int = 1
    symbols: Symbols = field(default_factory=lambda: np.zeros(0, np.int64))
    planned: Prefix | None = None
    behind: Prefix | None = None

    @property
    def columns(self) -> int:
        """Most columns that it may take in a batch."""
        return len(self.prompt.token_ids) + self.new_tokens

    @property
    def known(self) -> Prefix:
        """The longest prefix with keys and values."""
        assert self.planned is not None, "the request is not planned"
        node = self.planned
        for prefix in reversed(self.planned.path()):
            if prefix.layers is None:
                assert prefix.parent is not None, "only the root stands behind nothing"
                node = prefix.parent
        return node


Answer = Callable[[list[Request], Prefilled], None]
"""What is done with a batch whose prompts have been run."""
Refuse = Callable[[Request, ModelError], None]
"""What is done with a request for which the memory does not suffice."""


class SharedPrefill:
    """Runs prompts in batches of similar length.

    Memory is bounded three times. A batch holds at most `token_budget` rows times columns and asks for at most
    `MOST_LOGITS` logits, and holds at least one row; where the memory does not suffice for it, `token_budget` is halved
    and the batch is run again in halves; where it does not suffice for one row, that request is refused. Prefixes that
    requests under way wait for hold at most `token_budget` tokens beyond one request's. What is kept beyond a call
    holds at most `prefix_cache_bytes` (keys and values) and `audio_cache_bytes` (soft tokens); the least recently used
    leave first.

    Args:
        family: the loaded model.
        batch_size: most rows of a batch.
        token_budget: most rows times columns of a batch.
        prefix_cache_bytes: bound of the keys and values that are kept; 0 shares within a call alone.
        audio_cache_bytes: bound of the soft tokens that are kept.

    Attributes:
        tokens_run: prompt tokens that went through the language model so far.
        columns_run: the same with the padding of batches.
        enough: tokens of whole prompts that fill the device: no row is added to a batch of prompts beyond that.
    """

    def __init__(
        self, family: Family, *, batch_size: int, token_budget: int, prefix_cache_bytes: int, audio_cache_bytes: int
    ) -> None:
        self.family = family
        self.batch_size = batch_size
        self.token_budget = token_budget
        self.tree = PrefixTree(prefix_cache_bytes)
        self.audio_cache = AudioCache(audio_cache_bytes)
        self.tokens_run = self.columns_run = 0
        self._shares = holds_prefixes(family.language_model.config)
        self._clips: dict[AudioKey, int] = {}
        # A GPU takes all that the memory holds.
        weights = sum(p.numel() for p in family.model.parameters())
        self.enough = FILLS_A_CPU / weights if family.model.device.type == "cpu" else math.inf
        self._vocabulary = int(family.language_model.get_output_embeddings().weight.shape[0])

    def clear(self) -> None:
        """Forgets all that depends on the weights."""
        self.tree.clear()
        self.audio_cache.clear()
        self._clips.clear()

    def run(self, requests: Sequence[Request], answer: Answer, refuse: Refuse) -> None:
        """Runs all prompts; each request is handed over once, in a batch that was run or as refused, in any order."""
        try:
            for request in requests:
                request.symbols = self.symbols(request.prompt)
                shared = max(0, len(request.symbols) - request.keep) if self._shares else 0
                request.planned = self.tree.plan(request.symbols[:shared])
            for chunk in self._chunks(requests):
                self._run_requests(self._run_shared(chunk, refuse), answer, refuse)
        finally:
            for request in requests:
                self._release(request)
            self.tree.evict()

    def keep(self, request: Request, layers: Layers, reply_ids: Sequence[int]) -> None:
        """Keeps what was run behind a request's known prefix, for requests that go on from there.

        Args:
            request: under way.
            layers: keys and values [heads, n, D] of n tokens: the rest of its prompt, then of its reply.
            reply_ids: at least those tokens of the reply that `layers` holds.
        """
        behind = request.behind
        assert behind is not None, "the request was not run"
        if self._shares:
            whole = np.concatenate([request.symbols, np.asarray(reply_ids, np.int64)])
            count = layers[0][0].shape[1]
            self.tree.keep(behind, whole[behind.end : behind.end + count], layers)

    # Planning

    def symbols(self, prompt: Prompt) -> Symbols:
        """What the tokens of a prompt [T] are known by: equal symbols have equal keys and values."""
        symbols = np.asarray(prompt.token_ids, np.int64).copy()
        places = np.flatnonzero(symbols == self.family.audio_token_id)
        begin = 0
        for part, count in zip(prompt.audio, prompt.audio_tokens, strict=True):
            number = self._clips.setdefault(audio_key(part), len(self._clips))
            symbols[places[begin : begin + count]] = -1 - number * CLIP_SYMBOLS - np.arange(count)
            begin += count
        return symbols

    def _chunks(self, requests: Sequence[Request]) -> Iterator[list[Request]]:
        """Requests that share are neighbours; the prefixes that a chunk computes hold at most `token_budget` tokens."""
        chunk: list[Request] = []
        planned: set[Prefix] = set()
        tokens = 0
        for request in sorted(requests, key=lambda request: request.symbols.astype(">i8").tobytes()):
            new = {node for node in _shared(request) if node.layers is None} - planned
            more = sum(len(node.symbols) for node in new)
            if chunk and tokens + more > self.token_budget:
                yield chunk
                chunk, planned, tokens = [], set(), 0
            chunk.append(request)
            planned |= new
            tokens += more
        if chunk:
            yield chunk

    def _release(self, request: Request) -> None:
        if request.planned is not None:
            self.tree.release(request.planned)
            request.planned = None

    # Running

    def _run_shared(self, requests: Sequence[Request], refuse: Refuse) -> list[Request]:
        """Computes all stretches that several requests wait for, those nearest to the beginning first.

        Returns:
            The requests that are not refused.
        """
        left = list(requests)

        def too_long(row: _Stretch, error: ModelError) -> None:
            for request in [request for request in left if row.node in _shared(request)]:
                left.remove(request)
                refuse(request, error)
                self._release(request)

        while True:
            level: dict[Prefix, Request] = {}
            for request in left:
                node = next((node for node in _shared(request) if node.layers is None), None)
                if node is not None:
                    level.setdefault(node, request)
            if not level:
                return left
            stretches = [_Stretch.of(node, request) for node, request in level.items()]
            for batch in self._batches(stretches, MOST_PADDING, self.enough):
                self._within_memory(batch, self._fill, too_long)

    def _fill(self, batch: list[_Stretch]) -> None:
        begun = self._prefill(batch, 1)
        # All or none: where the memory ends in between, the batch is run again.
        layers = [begun.new_layers(place) for place in range(len(batch))]
        for row, own in zip(batch, layers, strict=True):
            self.tree.fill(row.node, own)

    def _run_requests(self, requests: Sequence[Request], answer: Answer, refuse: Refuse) -> None:
        """Runs what each request has of its own; equal prompts of a batch are run once.

        Requests that will be replied to are a batch whatever their lengths: their prompts are run in parts of similar
        length, which are then joined, since padding costs little where one token is run at a time.
        """
        replies = all(request.new_tokens for request in requests)
        joins = self._shares and replies

        def run(batch: list[_Row]) -> None:
            distinct: dict[bytes, int] = {}
            rows: list[_Row] = []
            places: list[int] = []
            for row in batch:
                place = distinct.setdefault(row.request.symbols.tobytes(), len(rows))
                if place == len(rows):
                    rows.append(row)
                places.append(place)
                row.request.behind = row.prefix
            parts = self._batches(rows, MOST_PADDING, self.enough) if joins else [rows]
            keep = max(row.keep for row in batch)
            begun = joined(self.family.language_model, [self._prefill(part, keep) for part in parts])
            answer([row.request for row in batch], begun.repeated(places))
            for row in batch:
                self._release(row.request)
            self.tree.evict()

        rows = [
            _Row(request, request.known, len(request.symbols), request.columns, request.keep) for request in requests
        ]

        def too_long(row: _Row, error: ModelError) -> None:
            refuse(row.request, error)
            self._release(row.request)

        # Replies are always given in large batches.
        enough = math.inf if replies else self.enough
        for batch in self._batches(rows, math.inf if joins else MOST_PADDING, enough):
            self._within_memory(batch, run, too_long)

    def _batches(self, rows: Sequence[RowT], most_padding: float, enough: float) -> Iterator[list[RowT]]:
        """Rows of similar length together, the longest first, equal ones side by side, within all bounds.

        Args:
            rows: in any order.
            most_padding: of a batch, as a share of what it holds.
            enough: tokens of whole prompts beyond which no row is added.
        """
        batch: list[RowT] = []
        filled = wanted = 0
        for row in sorted(rows, key=lambda row: (-row.columns, row.request.symbols.tobytes(), row.request.place)):
            # The first is the longest.
            columns = (len(batch) + 1) * batch[0].columns if batch else 0
            logits = (len(batch) + 1) * max(wanted, row.keep) * self._vocabulary if batch else 0
            if (
                len(batch) == self.batch_size
                or columns > self.token_budget
                or columns > (1 + most_padding) * (filled + row.columns)
                or (filled >= enough and not row.prefix.end)
                or logits > MOST_LOGITS
            ):
                yield batch
                batch, filled, wanted = [], 0, 0
            batch.append(row)
            filled += row.columns
            wanted = max(wanted, row.keep)
        if batch:
            yield batch

    def _within_memory(
        self, batch: list[RowT], run: Callable[[list[RowT]], None], refuse: Callable[[RowT, ModelError], None]
    ) -> bool:
        """Runs a batch; in halves, and smaller ones from now on, where the memory does not suffice.

        Returns:
            Whether a row was refused.
        """
        if self._fits(batch, run):
            return False
        if len(batch) > 1:
            before, half = self.token_budget, len(batch) // 2
            self.token_budget = max(1, min(before, len(batch) * batch[0].columns) // 2)
            refused = [self._within_memory(part, run, refuse) for part in (batch[:half], batch[half:])]
            if any(refused):
                # One that never fits says nothing of what the others may take.
                self.token_budget = before
            return any(refused)
        # What is only kept for later must not decide.
        self.tree.evict(0)
        self.audio_cache.clear()
        if self._fits(batch, run):
            return False
        refuse(
            batch[0],
            ModelError(
                f"the memory does not suffice for a prompt of {batch[0].end} tokens: crop the audio, ask for "
                "fewer new tokens, or load the model with a smaller dtype"
            ),
        )
        return True

    @staticmethod
    def _fits(batch: list[RowT], run: Callable[[list[RowT]], None]) -> bool:
        """Runs a batch, and says whether the memory sufficed."""
        try:
            run(batch)
            return True
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
        # Not within the handler, where the error's frames would hold what is to be given back.
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False

    def _prefill(self, rows: Sequence[_Row], keep: int) -> Prefilled:
        segments = [row.request.prompt.token_ids[row.prefix.end : row.end] for row in rows]
        self.tokens_run += sum(map(len, segments))
        self.columns_run += len(segments) * max(map(len, segments))
        wanted = [self._slots(row) for row in rows]
        soft = self._encode([part for slots in wanted for part, _, _ in slots])
        for row in rows:
            for part, count in zip(row.request.prompt.audio, row.request.prompt.audio_tokens, strict=True):
                tokens = soft.get(audio_key(part))
                if tokens is not None and len(tokens) != count:
                    raise ModelError(
                        f"the prompt holds {count} placeholders for the clip {part.clip.source or part.clip.key}, the "
                        f"ear gave {len(tokens)} soft tokens: the model and its processor do not belong together"
                    )
        fillings = [soft[audio_key(part)][begin:end] for slots in wanted for part, begin, end in slots]
        return prefill(
            self.family.language_model,
            [row.prefix for row in rows],
            segments,
            partial(self.family.embed, audio=fillings),
            pad_id=self.family.pad_token_id,
            device=self.family.model.device,
            keep=keep,
        )

    def _slots(self, row: _Row) -> list[tuple[Audio, int, int]]:
        """The clips that a row's new tokens hold, each with the range of its soft tokens that they hold."""
        marks = row.request.symbols < 0
        first, last = int(marks[: row.prefix.end].sum()), int(marks[: row.end].sum())
        found: list[tuple[Audio, int, int]] = []
        begin = 0
        for part, count in zip(row.request.prompt.audio, row.request.prompt.audio_tokens, strict=True):
            inside = max(first, begin) - begin, min(last, begin + count) - begin
            if inside[0] < inside[1]:
                found.append((part, *inside))
            begin += count
        return found

    def _encode(self, audio: Sequence[Audio]) -> dict[AudioKey, Tensor]:
        """Soft tokens [F, D] of every distinct clip, from the cache or encoded in groups of similar duration."""
        found: dict[AudioKey, Tensor] = {}
        missing: dict[AudioKey, Audio] = {}
        for part in audio:
            key = audio_key(part)
            if key in found or key in missing:
                continue
            tokens = self.audio_cache.get(key)
            if tokens is None:
                missing[key] = part
            else:
                found[key] = tokens
        for group in _groups(list(missing.values())):
            for part, tokens in zip(group, self.family.encode(group), strict=True):
                found[audio_key(part)] = tokens
                self.audio_cache.put(audio_key(part), tokens)
        return found


@dataclass(eq=False)
class _Row:
    """A row of a batch: a request's tokens from the end of a known prefix up to `end`, and how many logits it wants."""

    request: Request
    prefix: Prefix
    end: int
    columns: int
    keep: int


@dataclass(eq=False)
class _Stretch(_Row):
    """A row whose tokens are those of one planned prefix."""

    node: Prefix

    @classmethod
    def of(cls, node: Prefix, request: Request) -> _Stretch:
        """A prefix and one of the requests that wait for it."""
        assert node.parent is not None, "the root is never planned"
        return cls(request, node.parent, node.end, node.end, 1, node)


RowT = TypeVar("RowT", bound=_Row)


def _shared(request: Request) -> list[Prefix]:
    """The stretches of a request that others wait for as well."""
    assert request.planned is not None, "the request is not planned"
    return [node for node in request.planned.path() if node.waiting > 1]


def audio_key(audio: Audio) -> AudioKey:
    """What a clip's soft tokens are known by."""
    return audio.clip.key, audio.fine


def _groups(audio: list[Audio]) -> Iterator[list[Audio]]:
    """Audio parts of similar duration together, padded at most `ENCODE_SECONDS` at once, at least one."""
    group: list[Audio] = []
    for part in sorted(audio, key=lambda part: -part.clip.duration_s):
        if group and (len(group) + 1) * group[0].clip.duration_s > ENCODE_SECONDS:
            yield group
            group = []
        group.append(part)
    if group:
        yield group
