"""Corpora become surrogates: every clip is a row, or is rejected with the reason.

OUT/surrogates.jsonl    the rows (`rows.py`), in the order of their sources
OUT/rejected.jsonl      what is no row, and why
OUT/card.json           rows, hours, different surrogates, by corpus, modality, split and instruction
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from earnest.alignment.cards import surrogates_tally
from earnest.alignment.layouts import check_layout, read_layout
from earnest.alignment.recordings import Reason, Recording, Rejection
from earnest.alignment.rows import SPLITS, save_rows
from earnest.alignment.splitting import Shares, components, draw_splits
from earnest.cells import CellFault, decoded_seconds
from earnest.errors import EarnestError
from earnest.files import write_json, write_json_lines
from earnest.statistics import wilson

MAX_DURATION_S = 60.0
"""Clips are shorter than this (ALARM, arXiv 2603.09556)."""
MIN_DURATION_S = 0.1
"""Clips are at least this long: nothing can be told of less."""
_BATCH = 4096
"""Files that wait for a thread at a time: corpora have millions."""
_FAULTS: dict[str, Reason] = {"is missing": Reason.MISSING_AUDIO, "is empty": Reason.EMPTY_AUDIO}
"""How `decoded_seconds` begins."""


@dataclass(frozen=True)
class Source:
    """One folder or manifest.

    Attributes:
        layout: its form (see `layouts`).
        path: the folder or the manifest.
        split: of all its clips; drawn where it is None.
    """

    layout: str
    path: Path
    split: str | None = None

    def __post_init__(self) -> None:
        """Checks what can be checked before anything is read.

        Raises:
            EarnestError: an unknown layout or split, or no such folder.
        """
        check_layout(self.layout, self.path)
        if self.split is not None and self.split not in SPLITS:
            raise EarnestError(f"split {self.split!r} is unknown: give one of {', '.join(SPLITS)}")

    def recordings(self) -> list[Recording]:
        """Its clips, of its split."""
        found = read_layout(self.layout, self.path)
        return [replace(clip, split=self.split) for clip in found] if self.split else found


@dataclass(frozen=True)
class Rejected:
    """A clip that is no row."""

    clip: Recording
    why: Rejection


def build(
    sources: Sequence[Source],
    out: Path,
    *,
    shares: Shares | None = None,
    seed: int = 0,
    max_duration_s: float = MAX_DURATION_S,
    workers: int = 2,
    ray: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes rows, rejections and the card; the same sources give the same bytes.

    Args:
        sources: read in this order.
        out: the folder; made if it is not there.
        shares: of the components that are held out, where no split is decided.
        seed: of that draw.
        max_duration_s: clips must be shorter.
        workers: threads that decode, or tasks at once under Ray.
        ray: whether Ray Data decodes, on this machine or on the cluster that RAY_ADDRESS names.
        progress: called with (files decoded, files in all).

    Returns:
        The card.

    Raises:
        EarnestError: no source, a number out of range, an id that occurs twice, clips that hang together but are to be
            in two splits; or no clip can be used: then all but the rows is written.
        ManifestError: a table or a manifest with faults.
    """
    shares = shares or Shares()
    _check(sources, max_duration_s, workers)
    clips = [clip for source in sources for clip in source.recordings()]
    _refuse_doubled(clips)
    lengths = _lengths(clips, workers, progress, ray=ray)
    judged = [(clip, lengths[clip.audio], _judge(clip, lengths[clip.audio], max_duration_s)) for clip in clips]
    rejected = [Rejected(clip, why) for clip, _, why in judged if why]
    kept = [(clip, seconds) for clip, seconds, why in judged if not why and isinstance(seconds, float)]
    parts = components([clip for clip, _ in kept])
    splits = draw_splits([clip for clip, _ in kept], parts, shares, seed)
    rows = [clip.row(duration_s, split) for (clip, duration_s), split in zip(kept, splits, strict=True)]
    tally = surrogates_tally()
    for row in rows:
        tally.add(row)
    card = {
        "sources": [{"layout": one.layout, "path": str(one.path), "split": one.split} for one in sources],
        "seed": seed,
        "shares": {"validation": shares.validation, "test": shares.test},
        "max_duration_s": max_duration_s,
        "clips": len(clips),
        **tally.counts(),
        "components": {"count": len(parts), "largest_rows": max(map(len, parts), default=0)},
        **tally.mixes(),
        "rejected": _rejections(rejected, clips),
    }
    write_json_lines(out / "rejected.jsonl", map(_rejected_row, rejected))
    write_json(out / "card.json", card)
    if not rows:
        most = Counter(found.why.reason for found in rejected).most_common(1)[0][0]
        raise EarnestError(f"none of {len(clips)} clips can be used, most for {most}: see {out / 'rejected.jsonl'}")
    save_rows(rows, out / "surrogates.jsonl")
    return card


def _check(sources: Sequence[Source], max_duration_s: float, workers: int) -> None:
    if not sources:
        raise EarnestError("no source: give at least one folder with its layout, or a manifest")
    if not 0 < max_duration_s < math.inf:
        raise EarnestError(
            f"max_duration_s is {max_duration_s:g}: it must be more than 0 s; {MAX_DURATION_S:g} is usual"
        )
    if workers < 1:
        raise EarnestError(f"workers is {workers}: it must be 1 or more")


def _refuse_doubled(clips: Sequence[Recording]) -> None:
    first: dict[str, Recording] = {}
    for clip in clips:
        if (other := first.setdefault(clip.name, clip)) is not clip:
            raise EarnestError(
                f"the id {clip.name!r} occurs twice, for {other.audio} and {clip.audio}: give each source once, and "
                "manifests of one name a column 'corpus'"
            )


def _lengths(
    clips: Sequence[Recording], workers: int, progress: Callable[[int, int], None] | None, *, ray: bool
) -> dict[Path, float | CellFault]:
    """Seconds of each file, or what is wrong with it. Threads do: decoding lets go of the interpreter's lock."""
    paths = list(dict.fromkeys(clip.audio for clip in clips))
    found: dict[Path, float | CellFault] = {}
    with ThreadPoolExecutor(workers) as pool:

        def decoded(batch: Sequence[Path]) -> Iterable[float | CellFault]:
            if not ray:
                return pool.map(decoded_seconds, batch)
            from earnest.scale.ray_data import decoded_by_ray

            return decoded_by_ray(batch, workers)

        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            for path, length in zip(batch, decoded(batch), strict=True):
                found[path] = length
                if progress:
                    progress(len(found), len(paths))
    return found


def _judge(clip: Recording, length: float | CellFault, max_duration_s: float) -> Rejection | None:
    if isinstance(length, CellFault):
        detail = str(length)
        reason = next(
            (reason for start, reason in _FAULTS.items() if detail.startswith(start)), Reason.UNREADABLE_AUDIO
        )
        return Rejection(reason, detail)
    if length >= max_duration_s:
        return Rejection(Reason.TOO_LONG, f"{length:.2f} s: clips must be shorter than {max_duration_s:g} s")
    if length < MIN_DURATION_S:
        return Rejection(Reason.TOO_SHORT, f"{length:.4f} s: clips must be at least {MIN_DURATION_S:g} s")
    return clip.unusable(length)


def _rejected_row(found: Rejected) -> dict[str, Any]:
    return {
        "id": found.clip.name,
        "corpus": found.clip.corpus,
        "audio": os.path.abspath(found.clip.audio),  # noqa: PTH100 (resolve() would follow links)
        "reason": found.why.reason.value,
        "detail": found.why.detail,
    }


# ---- the card


def _rejections(rejected: Sequence[Rejected], clips: Sequence[Recording]) -> dict[str, Any]:
    """Counts and rates, in all, by reason and by corpus, each with its n."""
    of_corpus = Counter(clip.corpus for clip in clips)
    return {
        **_rate(len(rejected), len(clips)),
        "reasons": _rates((found.why.reason.value for found in rejected), lambda _: len(clips)),
        "corpora": _rates((found.clip.corpus for found in rejected), lambda corpus: of_corpus[corpus]),
    }


def _rates(names: Iterable[str], n: Callable[[str], int]) -> dict[str, Any]:
    return {name: _rate(count, n(name)) for name, count in sorted(Counter(names).items())}


def _rate(count: int, n: int) -> dict[str, Any]:
    return {"count": count, "rate": wilson(count, n).to_json()}
