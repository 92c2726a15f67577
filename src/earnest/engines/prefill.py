"""Running prompts up to where their replies begin, behind prefixes whose keys and values are known.

Every row stands as [padding, known prefix, padding, new tokens]: both parts are padded on the left, the paddings are
masked and positions are explicit, so that the last column is every row's last token and no row depends on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache

from earnest.engines.kv_cache import assembled_cache, growing_cache, joined_cache
from earnest.engines.prefixes import Layers, Prefix


@dataclass
class Prefilled:
    """A batch whose prompts have been run.

    Attributes:
        logits: [B, n, V] of each row's last n tokens.
        cache: keys and values, W columns.
        mask: [B, W] int64, 1 at real tokens.
        lengths: [B, 1] real tokens of each row, which is the position of the next one.
        begins: each row's first column behind its known prefix.
        rows: which row of those that were run each of the B rows is.
    """

    logits: Tensor
    cache: DynamicCache
    mask: Tensor
    lengths: Tensor
    begins: list[int]
    rows: list[int]

    def repeated(self, rows: Sequence[int]) -> Prefilled:
        """The batch that has these rows, each as often as it is named, in this order."""
        if list(rows) == self.rows:
            return self
        index = torch.tensor(rows, device=self.mask.device)
        self.cache.batch_select_indices(index)
        begins = [self.begins[row] for row in rows]
        return Prefilled(self.logits[index], self.cache, self.mask[index], self.lengths[index], begins, list(rows))

    def new_layers(self, row: int) -> Layers:
        """Keys and values [heads, n, D] of the tokens behind a row's known prefix."""
        columns = row_columns(self.mask[row], self.begins[row])
        return row_layers(self.cache, row, columns)


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both [B, T] int64, padded on the left."""
    width = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([[pad_id] * (width - len(s)) + list(s) for s in sequences], device=device)
    lengths = torch.tensor([len(s) for s in sequences], device=device)
    mask = (torch.arange(width, device=device)[None] >= width - lengths[:, None]).long()
    return ids, mask


def positions_of(mask: Tensor) -> Tensor:
    """Positions [B, T] of left-padded rows: 0 at the first real token."""
    return (mask.cumsum(-1) - 1).clamp_(min=0)


def row_columns(mask: Tensor, begin: int) -> Tensor:
    """Real columns of one row [W] from `begin` on."""
    return mask[begin:].nonzero()[:, 0] + begin


def row_layers(cache: DynamicCache, row: int, columns: Tensor) -> Layers:
    """Copies of one row's keys and values at some columns, for every layer."""
    found: Layers = []
    for layer in cache.layers:
        held: Any = layer
        found.append((held.keys[row].index_select(1, columns), held.values[row].index_select(1, columns)))
    return found


def prefill(
    language_model: Any,
    prefixes: Sequence[Prefix],
    token_ids: Sequence[Sequence[int]],
    embed: Callable[[Tensor], Tensor],
    *,
    pad_id: int,
    device: torch.device,
    keep: int = 1,
) -> Prefilled:
    """Runs new tokens behind known prefixes.

    Args:
        language_model: maps embeddings to logits, with a transformers cache.
        prefixes: one for each row, with keys and values; the root for none.
        token_ids: the new tokens of each row, at least `keep`.
        embed: padded token ids [B, T] -> embeddings [B, T, D], soft tokens included.
        pad_id: a token for the padding.
        device: where the model is.
        keep: logits of the last so many tokens.
    """
    ids, new = left_pad(token_ids, pad_id, device)
    ends = torch.tensor([prefix.end for prefix in prefixes], device=device)[:, None]
    known = max(prefix.end for prefix in prefixes)
    if known:
        old = (torch.arange(known, device=device)[None] >= known - ends).long()
        cache = assembled_cache(language_model.config, [prefix.path() for prefix in prefixes], known)
        mask = torch.cat([old, new], dim=1)
    else:
        cache, mask = growing_cache(language_model.config), new
    output = language_model(
        inputs_embeds=embed(ids),
        attention_mask=mask,
        position_ids=ends + positions_of(new),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    rows = list(range(len(mask)))
    return Prefilled(output.logits, cache, mask, mask.sum(-1, keepdim=True), [known] * len(mask), rows)


def joined(language_model: Any, parts: Sequence[Prefilled]) -> Prefilled:
    """One batch of several whose logits are of the last token alone; their caches, which must be plain, are used up."""
    if len(parts) == 1:
        return parts[0]
    width = max(part.mask.shape[1] for part in parts)
    gaps = [width - part.mask.shape[1] for part in parts]
    cache = joined_cache(language_model.config, [part.cache for part in parts], width)
    mask = torch.cat([F.pad(part.mask, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)])
    begins = [begin + gap for part, gap in zip(parts, gaps, strict=True) for begin in part.begins]
    logits, lengths = torch.cat([part.logits for part in parts]), torch.cat([part.lengths for part in parts])
    return Prefilled(logits, cache, mask, lengths, begins, list(range(len(mask))))
