import pytest

from earnest.alignment.packs import IGNORED, Lesson, batches_of, collated, packed

AUDIO = 9


def test_what_lessons_share_stands_once() -> None:
    lessons = [Lesson((1, AUDIO, 2, 3), (4, 5)), Lesson((1, AUDIO, 2, 6), (7,)), Lesson((1, AUDIO, 2), (8, 8))]
    (pack,) = packed(lessons, [0, 0, 0], AUDIO, 8)
    assert pack.ids == (1, AUDIO, 2, 3, 4, 2, 6, 2, 8)
    assert pack.branches == (0, 0, 1, 1, 1, 2, 2, 3, 3)
    assert pack.positions == (0, 1, 2, 3, 4, 2, 3, 2, 3)
    assert pack.labels == (IGNORED, IGNORED, IGNORED, 4, 5, IGNORED, 7, 8, 8)
    batch = collated([pack])
    assert batch.seen[0, 0, 4].tolist() == [True] * 5 + [False] * 4
    assert batch.seen[0, 0, 6].tolist() == [True, True, False, False, False, True, True, False, False]


def test_a_clip_behind_what_differs_is_not_shared() -> None:
    lessons = [Lesson((1, AUDIO, 2), (4,)), Lesson((3, AUDIO, 2), (5,)), Lesson((1, AUDIO, 2), (6,))]
    assert [pack.lessons for pack in packed(lessons, [0, 0, 1], AUDIO, 8)] == [(0,), (1,), (2,)]
    assert [pack.lessons for pack in packed([lessons[0]] * 3, [0] * 3, AUDIO, 2)] == [(0, 1), (2,)]


def test_padding_sees_itself_and_is_not_seen() -> None:
    packs = packed([Lesson((1, AUDIO), (4,)), Lesson((1, AUDIO, 2, 2), (4, 5))], [0, 1], AUDIO, 8)
    batch = collated(packs)
    assert batch.ids.shape == (2, 5)
    assert batch.seen.any(-1).all(), "a row that sees nothing gives NaN"
    assert not batch.seen[0, 0, :2, 2:].any()
    assert (batch.labels[0, 2:] == IGNORED).all()


def test_batches_are_full_near_in_length_and_fixed_by_the_seed() -> None:
    packs = packed([Lesson((1, AUDIO, *[2] * (k % 50)), (4,)) for k in range(103)], list(range(103)), AUDIO, 1)
    batches = batches_of(packs, 10, seed=3, epoch=1)
    assert batches == batches_of(packs, 10, seed=3, epoch=1) != batches_of(packs, 10, seed=3, epoch=2)
    assert [len(batch) for batch in batches] == [10] * 10
    assert len({place for batch in batches for place in batch}) == 100
    spread = [max(len(packs[p].ids) for p in b) - min(len(packs[p].ids) for p in b) for b in batches]
    assert sum(spread) / len(spread) < 10


@pytest.mark.parametrize("most", [1, 4])
def test_every_lesson_is_in_one_pack(most: int) -> None:
    lessons = [Lesson((1, AUDIO, k), (k,)) for k in range(10)]
    packs = packed(lessons, [k % 2 for k in range(10)], AUDIO, most)
    assert sorted(place for pack in packs for place in pack.lessons) == list(range(10))
    assert all(len(pack.lessons) <= most for pack in packs)
