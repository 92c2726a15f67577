"""A key-value cache that grows in place.

transformers' `DynamicLayer` copies all keys and values for every new token, which at small widths costs as much
as the model itself. Here a layer reserves columns ahead and writes into them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

from earnest.engines.prefixes import Prefix

ROOM = 64
"""Columns reserved ahead each time that a layer is full."""


class ReservedLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values [B, heads, T, D] are views of a larger store."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stores: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Appends new columns [B, heads, n, D] and returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        keys, values = self._room(start, end, key_states, value_states)
        keys[:, :, start:end] = key_states
        values[:, :, start:end] = value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def adopt(self, keys: Tensor, values: Tensor, width: int) -> None:
        """Begins with stores [B, heads, n, D] whose first `width` columns are filled."""
        self.lazy_initialization(keys, values)
        self._stores = (keys, values)
        self.keys, self.values = keys[:, :, :width], values[:, :, :width]

    def _room(self, start: int, end: int, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """The stores, with room for `end` columns; what an inherited operation has replaced is copied back in."""
        if self._stores is not None:
            keys, values = self._stores
            held = cast(Tensor, self.keys)
            if end <= keys.shape[-2] and held.data_ptr() == keys.data_ptr() and held.shape[0] == keys.shape[0]:
                return keys, values
        stores: list[Tensor] = []
        for held, new in ((self.keys, key_states), (self.values, value_states)):
            batch, heads, _, width = new.shape
            store = new.new_empty(batch, heads, end + ROOM, width)
            if start:
                store[:, :, :start] = cast(Tensor, held)
            stores.append(store)
        self._stores = (stores[0], stores[1])
        return self._stores


def growing_cache(config: PretrainedConfig) -> DynamicCache:
    """A cache for a model of this config: plain layers grow in place, sliding and other ones stay stock."""
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def holds_prefixes(config: PretrainedConfig) -> bool:
    """Whether all layers keep all keys and values, so that a prefix can be taken out and put in again."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=config).layers)


def assembled_cache(config: PretrainedConfig, paths: Sequence[Sequence[Prefix]], width: int) -> DynamicCache:
    """A growing cache that begins with known prefixes.

    Args:
        config: of the language model.
        paths: for each row, the stretches of its prefix, all with keys and values.
        width: columns; shorter prefixes are padded on the left with zeros.
    """
    cache = growing_cache(config)
    stretch = next(path[0] for path in paths if path)
    assert stretch.layers is not None, "a prefix must be computed before it is used"
    for number, layer in enumerate(cache.layers):
        stores: list[Tensor] = []
        for part in (0, 1):
            like = stretch.layers[number][part]
            store = like.new_zeros(len(paths), like.shape[0], width + ROOM, like.shape[2])
            for row, path in enumerate(paths):
                gap = width - (path[-1].end if path else 0)
                for prefix in path:
                    assert prefix.layers is not None, "a prefix must be computed before it is used"
                    store[row, :, gap + prefix.begin : gap + prefix.end] = prefix.layers[number][part]
            stores.append(store)
        cast(ReservedLayer, layer).adopt(stores[0], stores[1], width)
    return cache


def joined_cache(config: PretrainedConfig, caches: Sequence[DynamicCache], width: int) -> DynamicCache:
    """One growing cache with the rows of several plain ones, which are used up.

    Args:
        config: of the language model.
        caches: at most `width` columns each; they are padded on the left with zeros.
        width: columns.
    """
    joined = growing_cache(config)
    rows = [len(cast(Any, cache.layers[0]).keys) for cache in caches]
    for number, layer in enumerate(joined.layers):
        stores: list[Tensor] = []
        for name in ("keys", "values"):
            like: Tensor = getattr(caches[0].layers[number], name)
            store = like.new_zeros(sum(rows), like.shape[1], width + ROOM, like.shape[3])
            for begin, cache in zip(np.cumsum([0, *rows]), caches, strict=False):
                held: Tensor = getattr(cache.layers[number], name)
                store[begin : begin + len(held), :, width - held.shape[2] : width] = held
            stores.append(store)
        for cache in caches:
            # What was copied is given back at once.
            cache.layers[number] = ReservedLayer()
        cast(ReservedLayer, layer).adopt(stores[0], stores[1], width)
    return joined
