import numpy as np
import pytest
import torch

from earnest.engines.prefixes import Layers, Prefix, PrefixTree, Symbols


def row(text: str) -> Symbols:
    return np.array([ord(letter) for letter in text], np.int64)


def layers_of(symbols: Symbols) -> Layers:
    """Two layers [1, n, 2] that hold the symbols themselves."""
    keys = torch.tensor(symbols, dtype=torch.float32)[None, :, None].expand(1, -1, 2).clone()
    return [(keys, -keys), (keys + 1000, keys + 2000)]


def text_of(node: Prefix) -> str:
    """What the keys along a path say, held against the symbols."""
    found = ""
    for part in node.path():
        assert part.layers is not None
        said = "".join(chr(int(value)) for value in part.layers[0][0][0, :, 0])
        assert said == "".join(map(chr, part.symbols))
        assert torch.equal(part.layers[1][0], part.layers[0][0] + 1000)
        found += said
    return found


def test_what_two_requests_share_is_one_stretch() -> None:
    tree = PrefixTree(10**6)
    nodes = [tree.plan(row(text)) for text in ("clip question", "clip quest", "clip other", "else")]
    assert [["".join(map(chr, p.symbols)) for p in node.path()] for node in nodes] == [
        ["clip ", "quest", "ion"], ["clip ", "quest"], ["clip ", "other"], ["else"],
    ]  # fmt: skip
    assert [[p.waiting for p in node.path()] for node in nodes] == [[3, 2, 1], [3, 2], [3, 1], [1]]
    assert [node.end for node in nodes] == [13, 10, 10, 4]


def test_splitting_a_computed_stretch_splits_its_keys() -> None:
    tree = PrefixTree(10**6)
    tree.keep(tree.root, row("abcdefgh"), layers_of(row("abcdefgh")))
    node = tree.plan(row("abcxy"))
    first, second = node.path()
    assert text_of(first) == "abc"
    assert second.layers is None
    assert text_of(tree.plan(row("abcdefgh"))) == "abcdefgh"


def test_keeping_skips_what_is_held() -> None:
    tree = PrefixTree(10**6)
    tree.keep(tree.root, row("abcdef"), layers_of(row("abcdef")))
    held = tree.bytes
    tree.keep(tree.root, row("abcdxy"), layers_of(row("abcdxy")))
    assert tree.bytes == held + held * 2 // 6
    assert text_of(tree.plan(row("abcdxy"))) == "abcdxy"
    assert text_of(tree.plan(row("abcdef"))) == "abcdef"


def test_a_released_plan_leaves_nothing_behind() -> None:
    tree = PrefixTree(10**6)
    nodes = [tree.plan(row(text)) for text in ("abcd", "abxy")]
    for node in nodes:
        tree.release(node)
    assert not tree.root.children
    tree.clear()


def test_the_least_recently_used_leave_first_and_leaves_before_trunks() -> None:
    one = sum(t.numel() * t.element_size() for pair in layers_of(row("a")) for t in pair)
    tree = PrefixTree(6 * one)
    tree.keep(tree.root, row("abcd"), layers_of(row("abcd")))
    tree.keep(tree.root, row("abxy"), layers_of(row("abxy")))  # 6 symbols
    tree.evict()
    assert tree.bytes == 6 * one
    waiting = tree.plan(row("abcd"))
    tree.keep(tree.root, row("zz"), layers_of(row("zz")))
    tree.evict()
    assert tree.bytes == 6 * one
    assert text_of(waiting) == "abcd", "what is waited for stays"
    assert not tree.root.children[ord("a")].children.get(ord("x"))
    tree.release(waiting)
    tree.keep(tree.root, row("longer"), layers_of(row("longer")))
    tree.evict()
    assert tree.bytes <= 6 * one
    with_keys = [node for node in tree.root.children.values() if node.layers is not None]
    assert ["".join(map(chr, node.symbols)) for node in with_keys] == ["longer"]


def test_nothing_is_kept_beyond_a_bound_of_zero() -> None:
    tree = PrefixTree(0)
    tree.keep(tree.root, row("abc"), layers_of(row("abc")))
    node = tree.plan(row("ab"))
    tree.fill(node, layers_of(row("ab")))
    tree.evict()
    assert tree.bytes > 0, "a request waits for it"
    tree.release(node)
    tree.evict()
    assert tree.bytes == 0


def test_random_requests_always_read_their_own_keys() -> None:
    rng = np.random.default_rng(0)
    tree = PrefixTree(4000)
    for _ in range(300):
        symbols = rng.integers(97, 99, size=rng.integers(1, 12))
        node = tree.plan(symbols)
        known = next((p for p in reversed(node.path()) if all(q.layers is not None for q in p.path())), tree.root)
        assert text_of(known) == "".join(map(chr, symbols[: known.end]))
        tree.keep(known, symbols[known.end :], layers_of(symbols[known.end :]))
        assert text_of(node) == "".join(map(chr, symbols))
        tree.release(node)
        tree.evict()
        assert tree.bytes <= 4000


@pytest.mark.parametrize("empty", [row("")])
def test_an_empty_plan_is_the_root(empty: Symbols) -> None:
    tree = PrefixTree(10)
    assert tree.plan(empty) is tree.root
    tree.release(tree.root)
    tree.clear()
