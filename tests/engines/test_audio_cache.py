import torch

from earnest.engines.audio_cache import AudioCache


def test_the_least_recently_used_leaves_first() -> None:
    cache = AudioCache(max_bytes=3 * 40)
    for name in "abc":
        cache.put((name, False), torch.zeros(5, 2))
    assert cache.get(("a", False)) is not None
    cache.put(("d", False), torch.zeros(5, 2))
    assert cache.get(("b", False)) is None
    assert cache.get(("a", False)) is not None
    assert (len(cache), cache.bytes, cache.hits, cache.misses) == (3, 120, 2, 1)


def test_what_alone_exceeds_the_bound_is_not_kept() -> None:
    cache = AudioCache(max_bytes=30)
    cache.put(("a", False), torch.zeros(5, 2))
    assert (len(cache), cache.bytes) == (0, 0)


def test_the_two_rates_are_two_entries() -> None:
    cache = AudioCache(max_bytes=1000)
    cache.put(("a", False), torch.zeros(1, 2))
    assert cache.get(("a", True)) is None
    cache.clear()
    assert cache.get(("a", False)) is None
