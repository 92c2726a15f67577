"""Targets on disk, written as they come.

targets.jsonl    rows with what is learnt
rejected.jsonl   rows without, with the reason and with what the rephraser said
card.json        how many of which, with intervals
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from earnest.alignment.edits import FAILED
from earnest.alignment.rephrase import Rephrased
from earnest.alignment.rows import Target, as_json
from earnest.files import growing_json_lines, read_json_lines, write_json
from earnest.statistics import rate

TARGETS, REJECTED, CARD = "targets.jsonl", "rejected.jsonl", "card.json"


def save_targets(
    parts: Iterable[Sequence[Rephrased]], out: Path, made_of: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes the three files; nothing of a slice is held when the next one comes.

    Args:
        parts: what `rephrase` gives.
        out: the folder.
        made_of: data, models and settings, for the card.

    Returns:
        The card.
    """
    reasons: list[str] = []
    clips: list[str] = []
    kept: list[bool] = []
    cut: list[bool] = []
    folder = out.resolve()
    with growing_json_lines(out / TARGETS) as keep, growing_json_lines(out / REJECTED) as reject:
        for each in (each for part in parts for each in part):
            row = each.row
            reasons.append(row.reason)
            clips.append(row.clip)
            kept.append(row.target is not None)
            cut.append(row.cut)
            if row.target is None:
                reject({**as_json(row, folder), "said": each.said})
            else:
                keep(as_json(row, folder))
    unkept = {reason for reason, flag in zip(reasons, kept, strict=True) if not flag}
    card = {
        **(made_of or {}),
        "rows": len(reasons),
        "targets": sum(kept),
        "rejected": len(kept) - sum(kept),
        "rates": {"targets": rate(kept, clips).to_json(), "cut": rate(cut, clips).to_json()},
        "reasons": {name: {**row, "rejected": name in unkept} for name, row in reason_rates(reasons, clips).items()},
        "failed_requests": sum(reason in FAILED for reason in reasons),
    }
    write_json(out / CARD, card)
    return card


def read_written(out: Path) -> list[Target]:
    """All rows that `save_targets` wrote, those that have a target first."""
    rows = [row for name in (TARGETS, REJECTED) for row in read_json_lines(out / name)]
    return [
        Target(**{**{name: cell for name, cell in row.items() if name != "said"}, "audio": out / row["audio"]})
        for row in rows
    ]


def reason_rates(reasons: Sequence[str], clips: Sequence[str]) -> dict[str, Any]:
    """How often each reason occurs, most frequent first, with its rate among all rows.

    Args:
        reasons: [N] one per row; rows without a reason have an empty one.
        clips: [N] whose rows they are.
    """
    counts = Counter(reason for reason in reasons if reason)
    return {
        name: {"count": count, "rate": rate([reason == name for reason in reasons], clips).to_json()}
        for name, count in counts.most_common()
    }
