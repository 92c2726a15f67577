"""What requests have in common, computed once: a radix tree of prompts with their keys and values.

Requests about one clip share its audio and often the question; samples of a group share all of the prompt; a
re-listening turn goes on where the last one ended. A prompt is a row of symbols: token ids, and for every soft
token a number of its own clip and place, so that equal symbols have equal keys and values.

Nodes that requests under way are waiting for stay; of the rest the least recently used leave first, leaves before
what they stand on, as soon as all of them together exceed `max_bytes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Symbols = NDArray[np.int64]
Layers = list[tuple["Tensor", "Tensor"]]
"""Keys and values [heads, n, D] of every layer, for n symbols."""


class Prefix:
    """A stretch of symbols behind those of its parents.

    Attributes:
        parent: what stands before; None for the root.
        symbols: [n] of this stretch alone.
        begin: symbols before it.
        layers: its keys and values, None while they are only planned.
        children: by their first symbol.
        waiting: requests under way that begin with it.
        used: when it was last wanted; never earlier than its children.
    """

    __slots__ = ("begin", "children", "layers", "parent", "symbols", "used", "waiting")

    def __init__(self, parent: Prefix | None, symbols: Symbols, begin: int) -> None:
        self.parent = parent
        self.symbols = symbols
        self.begin = begin
        self.layers: Layers | None = None
        self.children: dict[int, Prefix] = {}
        self.waiting = 0
        self.used = 0

    @property
    def end(self) -> int:
        """Symbols up to here."""
        return self.begin + len(self.symbols)

    @property
    def bytes(self) -> int:
        """Size of its keys and values."""
        return sum(t.numel() * t.element_size() for pair in self.layers or () for t in pair)

    def path(self) -> list[Prefix]:
        """All stretches from the beginning up to this one, without the root."""
        return [*self.parent.path(), self] if self.parent is not None else []


class PrefixTree:
    """Prefixes of prompts, planned or computed.

    Args:
        max_bytes: bound of the keys and values that no request is waiting for.

    Attributes:
        bytes: what is held now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._root = Prefix(None, np.zeros(0, np.int64), 0)
        self._tick = 0

    def plan(self, symbols: Symbols) -> Prefix:
        """Registers a request that begins with `symbols` [T]; `release` the node when it is answered."""
        self._tick += 1
        node = self._insert(self._root, symbols)
        for prefix in (self._root, *node.path()):
            prefix.waiting += 1
            prefix.used = self._tick
        return node

    def release(self, node: Prefix) -> None:
        """The request of a planned node is answered; stretches without keys that nobody waits for go."""
        for prefix in (self._root, *node.path()):
            prefix.waiting -= 1
        while node.parent is not None and node.layers is None and not node.waiting and not node.children:
            del node.parent.children[int(node.symbols[0])]
            node = node.parent

    def fill(self, node: Prefix, layers: Layers) -> None:
        """The keys and values of a planned node; those of its parents are there already."""
        assert node.layers is None, "this prefix was computed before"
        node.layers = layers
        self.bytes += node.bytes

    def keep(self, node: Prefix, symbols: Symbols, layers: Layers) -> None:
        """Adds what was computed behind a node, such as the rest of a prompt and its reply.

        Args:
            node: with keys and values, or the root's child to be.
            symbols: [n] behind it.
            layers: theirs.
        """
        if not len(symbols) or self.max_bytes == 0:
            return
        self._tick += 1
        last = self._insert(node, symbols)
        for prefix in last.path():
            prefix.used = self._tick
            if prefix.layers is None:
                begin, end = prefix.begin - node.end, prefix.end - node.end
                self.fill(prefix, [(k[:, begin:end].clone(), v[:, begin:end].clone()) for k, v in layers])

    @property
    def root(self) -> Prefix:
        """The empty prefix."""
        return self._root

    def evict(self, max_bytes: int | None = None) -> None:
        """Forgets the least recently used until the bound, or a smaller one, is kept; what is waited for stays."""
        bound = self.max_bytes if max_bytes is None else max_bytes
        if self.bytes <= bound:
            return
        held = [node for node in self._nodes() if node.layers is not None and not node.waiting]
        for node in sorted(held, key=lambda node: (node.used, -node.begin)):
            if self.bytes <= bound:
                return
            if any(child.layers is not None for child in node.children.values()):
                continue
            self.bytes -= node.bytes
            node.layers = None
            if not node.children and node.parent is not None:
                del node.parent.children[int(node.symbols[0])]

    def clear(self) -> None:
        """Forgets everything; no request may be under way."""
        assert not self._root.waiting, "requests are under way"
        self._root.children.clear()
        self.bytes = 0

    def _nodes(self) -> Iterator[Prefix]:
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            stack += node.children.values()
            yield node

    def _insert(self, node: Prefix, symbols: Symbols) -> Prefix:
        """The node that ends with `symbols` behind `node`; stretches are split and added as needed."""
        while len(symbols):
            child = node.children.get(int(symbols[0]))
            if child is None:
                child = Prefix(node, symbols, node.end)
                node.children[int(symbols[0])] = child
                return child
            same = _common(child.symbols, symbols)
            if same < len(child.symbols):
                child = self._split(child, same)
            symbols = symbols[same:]
            node = child
        return node

    def _split(self, node: Prefix, count: int) -> Prefix:
        """Cuts a stretch in two and returns the first part; `node` stays the second, since it is known by its end."""
        parent = node.parent
        assert parent is not None
        first = Prefix(parent, node.symbols[:count], node.begin)
        first.waiting, first.used = node.waiting, node.used
        if node.layers is not None:
            # Copies: a view would hold on to the other part when that is forgotten.
            first.layers = [(keys[:, :count].clone(), values[:, :count].clone()) for keys, values in node.layers]
            node.layers = [(keys[:, count:].clone(), values[:, count:].clone()) for keys, values in node.layers]
        parent.children[int(node.symbols[0])] = first
        node.parent, node.symbols, node.begin = first, node.symbols[count:], node.begin + count
        first.children[int(node.symbols[0])] = node
        return first


def _common(one: Symbols, other: Symbols) -> int:
    """How many symbols two rows begin with alike."""
    length = min(len(one), len(other))
    differ = np.flatnonzero(one[:length] != other[:length])
    return int(differ[0]) if len(differ) else length
