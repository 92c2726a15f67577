"""What a clip became inside the model, kept by content so that each distinct clip is encoded once."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AudioKey = tuple[str, bool]
"""(clip key, fine): the same samples at the two token rates are two entries."""


class AudioCache:
    """Least recently used soft tokens leave first, as soon as all of them together exceed `max_bytes`.

    Attributes:
        hits: look-ups that found something.
        misses: look-ups that did not.
        bytes: what is held now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self.bytes = 0
        self._entries: OrderedDict[AudioKey, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: AudioKey) -> Tensor | None:
        """The soft tokens [F, D] of a clip, or None."""
        found = self._entries.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return found

    def put(self, key: AudioKey, tokens: Tensor) -> None:
        """Keeps the soft tokens [F, D] of a clip; one that alone exceeds the bound is not kept."""
        size = tokens.numel() * tokens.element_size()
        if key in self._entries or size > self.max_bytes:
            return
        self._entries[key] = tokens
        self.bytes += size
        while self.bytes > self.max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.bytes -= oldest.numel() * oldest.element_size()

    def clear(self) -> None:
        """Forgets everything, for instance because the weights have changed."""
        self._entries.clear()
        self.bytes = 0
