"""Targets about one clip as one sequence: what they share, the clip above all, is computed once.

Each target sees the shared beginning and itself, at the positions that it would have alone: the loss is the same as if
each stood in a row of its own (test), at a fraction of the tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Lesson:
    """A request about a clip, with its placeholders, and the tokens that are learnt behind it."""

    prompt: tuple[int, ...]
    reply: tuple[int, ...]


@dataclass(frozen=True)
class Pack:
    """Several lessons about one clip.

    Attributes:
        clip: number of the clip.
        ids: [T] the shared beginning, then what each lesson has of its own.
        positions: [T] as if each lesson stood alone.
        branches: [T] 0 for the shared beginning, k for lesson k.
        labels: [T] the token to be written next, `IGNORED` where nothing is learnt.
        lessons: their places in the list that was packed.
    """

    clip: int
    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: tuple[int, ...]
    labels: tuple[int, ...]
    lessons: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """Packs padded on the right.

    Attributes:
        clips: [B] numbers.
        ids: [B, T].
        positions: [B, T].
        seen: [B, 1, T, T] bool, which token sees which.
        labels: [B, T].
    """

    clips: list[int]
    ids: Tensor
    positions: Tensor
    seen: Tensor
    labels: Tensor


def packed(lessons: Sequence[Lesson], clips: Sequence[int], audio_token_id: int, most: int) -> list[Pack]:
    """Packs of at most `most` lessons about one clip, in the order of the clips' first lessons.

    Args:
        lessons: to pack.
        clips: the clip of each.
        audio_token_id: the placeholder: a beginning that does not hold the whole clip is not shared.
        most: lessons a pack; 1 packs none.
    """
    of: dict[int, list[int]] = {}
    for place, clip in enumerate(clips):
        of.setdefault(clip, []).append(place)
    packs: list[Pack] = []
    for clip, places in of.items():
        for start in range(0, len(places), most):
            packs += _packs(clip, places[start : start + most], lessons, audio_token_id)
    return packs


def _packs(clip: int, places: Sequence[int], lessons: Sequence[Lesson], audio_token_id: int) -> list[Pack]:
    shared = _common([lessons[place].prompt for place in places])
    if audio_token_id in lessons[places[0]].prompt[shared:] and len(places) > 1:
        return [pack for place in places for pack in _packs(clip, [place], lessons, audio_token_id)]
    ids = list(lessons[places[0]].prompt[:shared])
    positions, branches, labels = list(range(shared)), [0] * shared, [IGNORED] * shared
    for number, place in enumerate(places, start=1):
        lesson = lessons[place]
        own = [*lesson.prompt[shared:], *lesson.reply]
        asked = len(lesson.prompt) - shared
        # The last token of all predicts nothing: it need not be computed.
        ids += own[:-1]
        positions += range(shared, shared + len(own) - 1)
        branches += [number] * (len(own) - 1)
        labels += [*[IGNORED] * (asked - 1), *lesson.reply]
    return [Pack(clip, tuple(ids), tuple(positions), tuple(branches), tuple(labels), tuple(places))]


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with; one is left to each, as it predicts the first of its reply."""
    most = min(map(len, prompts)) - 1
    first = prompts[0]
    return next((k for k in range(most) if any(prompt[k] != first[k] for prompt in prompts[1:])), most)


def collated(packs: Sequence[Pack]) -> Batch:
    """Pads packs on the right."""
    longest = max(len(pack.ids) for pack in packs)

    def padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*row, *[fill] * (longest - len(row))] for row in rows])

    branches = padded([pack.branches for pack in packs], -1)
    before = torch.ones(longest, longest, dtype=torch.bool).tril()
    own = (branches[:, None, :] == branches[:, :, None]) | (branches[:, None, :] == 0)
    return Batch(
        [pack.clip for pack in packs],
        padded([pack.ids for pack in packs], 0),
        padded([pack.positions for pack in packs], 0),
        (own & before)[:, None],
        padded([pack.labels for pack in packs], IGNORED),
    )


def batches_of(packs: Sequence[Pack], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch, as places in `packs`: of similar length, in an order drawn by seed and epoch.

    All are full: what is left over waits for the next epoch's draw. A batch is at most as large as there are packs.
    """
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(packs)))
    rng.shuffle(order)
    order = order[: len(order) // batch_size * batch_size]
    window = 16 * batch_size
    found: list[list[int]] = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda place: len(packs[place].ids))
        found += [near[k : k + batch_size] for k in range(0, len(near), batch_size)]
    rng.shuffle(found)
    return found
