"""What rephrasing did: leaks, likelihood under the frozen LLM, and how much was changed. The paper measures none of it.

All in one table, a line for each kind of text: R0, R, and where they are given the right answers and other rephrasings.
Rows whose audio is the request are left out: nothing is hidden there. Intervals are over clips.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

import numpy as np

from earnest.alignment.asking import slices
from earnest.alignment.edits import Reason
from earnest.alignment.leaks import leak
from earnest.alignment.rephrase import surrogate_conversation
from earnest.alignment.rows import Target
from earnest.finding import Finding, Metric, Table
from earnest.statistics import bootstrap, rate, wilson

if TYPE_CHECKING:
    from earnest.engines.local import LocalEngine

RAW, REPHRASED, GROUND_TRUTH = "raw", "rephrased", "ground_truth"
SCORED_ROWS = 1000
"""Rows whose likelihood is taken by default."""
HEADLINES: dict[str, str] = {
    "leak.raw_of_all": "replies that betray a text, before",
    "leak_reduction": "of these leaks rephrasing removed",
    "nll_same.ratio": "nats a token outside the edits, R to R0",
    "cut": "replies cut at their limit",
}
"""What is told of the findings where there is no room for the table: a metric, and what it is."""
_SHOWN = {RAW: "R0", REPHRASED: "R", GROUND_TRUTH: "ground truth"}
_WORD = re.compile(r"\w+|[^\w\s]")
_UNIT = "nats"


@dataclass(frozen=True)
class Scored:
    """Negative log-likelihoods of one row's texts, in nats.

    Attributes:
        row: whose they are.
        nll: name of a text to the sum over its tokens.
        tokens: name of a text to their number.
        same_nll: of R0 and of R, over the tokens that both have in common.
        same_tokens: the number of these.
    """

    row: Target
    nll: Mapping[str, float]
    tokens: Mapping[str, int]
    same_nll: tuple[float, float] = (0.0, 0.0)
    same_tokens: int = 0

    def to_json(self) -> dict[str, Any]:
        """A plain dict."""
        names = ("nll", "tokens", "same_nll", "same_tokens")
        return {"id": self.row.id, "clip": self.row.clip, **{name: getattr(self, name) for name in names}}


def measure(
    rows: Sequence[Target],
    *,
    engine: LocalEngine | None = None,
    others: Mapping[str, Mapping[str, str]] | None = None,
    scored_rows: int = SCORED_ROWS,
    seed: int = 0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Finding:
    """The table, its metrics, and a record for each row whose likelihood was taken.

    Args:
        rows: targets, and those that were rejected.
        engine: the frozen LLM; None for no likelihoods.
        others: name of another kind of text, such as "foreign_rephrase", to texts by row id.
        scored_rows: rows whose likelihood is taken, drawn.
        seed: of the draw and of the intervals.
        batch_size: texts at once.
        progress: called with (rows whose likelihood was taken, rows in all).
    """
    replied = [row for row in rows if row.raw.strip() and not row.instruction]
    taken = [row for row in replied if row.target is not None]
    kinds = _kinds(taken, others or {})
    lines: dict[str, dict[str, Metric]] = {}
    clips = [row.clip for row in replied]
    cut = rate([row.cut for row in replied], clips, seed=seed)
    metrics = {"leak.raw_of_all": rate([bool(leak(row.raw)) for row in replied], clips, seed=seed), "cut": cut}
    for name, texts in kinds.items():
        lines[name] = _written(name, texts, taken, seed)
    # An edit that still leaks is no target, but it is an edit.
    edited = [row for row in replied if row.target is not None or row.reason == Reason.LEAKS.value]
    metrics["leak_reduction"] = _reduction(edited, seed)
    metrics["leak.edits"] = rate([_leaks(row) for row in edited], [row.clip for row in edited], seed=seed)
    scored: list[Scored] = []
    if engine is not None and taken:
        drawn = sorted(random.Random(f"nll/{seed}").sample(range(len(taken)), min(scored_rows, len(taken))))
        for part in _scored(engine, [taken[k] for k in drawn], kinds, batch_size):
            scored += part
            if progress:
                progress(len(scored), len(drawn))
        for name in kinds:
            lines[name]["nll"] = _mean_nll([each for each in scored if name in each.nll], name, seed)
        metrics |= _compared(scored, lines, seed)
    for name, line in lines.items():
        metrics |= {f"{what}.{name}": metric for what, metric in line.items()}
    titles = {
        "leak": "leak rate", "nll": "NLL a token", "nll_same": "NLL a token outside the edits",
        "edit_distance": "edit distance from R0", "length_ratio": "length / R0",
    }  # fmt: skip
    columns = {name: title for name, title in titles.items() if any(name in line for line in lines.values())}
    table = Table(
        "What rephrasing did",
        ("text", *columns.values()),
        tuple((_SHOWN.get(name, name), *map(line.get, columns)) for name, line in lines.items()),
        "NLL under the LLM given surrogate and question, in nats; outside the edits: over edited rows, the tokens that "
        "R0 and R have in common. Edit distance: Levenshtein over words, by the longer text. Length in characters.",
    )
    notes = (
        f"{len(taken)} of {len(replied)} replies have a target; what is rejected counts in leak.raw_of_all and cut "
        "alone. An edit that still leaks is rejected: how many were, card.json says",
    )
    return Finding("alignment", metrics, (table,), records=tuple(each.to_json() for each in scored), notes=notes)


def edit_distance(one: str, other: str) -> float:
    """Levenshtein distance over words and marks, as a share of the longer text (0 equal, 1 nothing in common)."""
    known: dict[str, int] = {}
    a, b = ([known.setdefault(word, len(known)) for word in _WORD.findall(text)] for text in (one, other))
    longest = max(len(a), len(b))
    # Equal ends change nothing, and are most of two texts that were edited lightly.
    for _ in range(2):
        while a and b and a[-1] == b[-1]:
            a.pop()
            b.pop()
        a.reverse()
        b.reverse()
    places, words = np.arange(len(b) + 1), np.array(b, dtype=np.int64)
    row = places.copy()
    for number, word in enumerate(a, start=1):
        best = np.concatenate(([number], np.minimum(row[1:] + 1, row[:-1] + (words != word))))
        # An insertion adds one to what stands left of it, however many follow each other.
        row = np.minimum.accumulate(best - places) + places
    return float(row[-1]) / longest if longest else 0.0


def _kinds(taken: Sequence[Target], others: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Name of a kind of text to the texts by row id."""
    found = {
        RAW: {row.id: row.raw for row in taken},
        REPHRASED: {row.id: row.target or "" for row in taken},
        GROUND_TRUTH: {row.id: row.answer for row in taken if row.answer},
    }
    ids = set(found[RAW])
    found |= {name: {key: text for key, text in texts.items() if key in ids and text} for name, texts in others.items()}
    return {name: texts for name, texts in found.items() if texts}


def _written(name: str, texts: Mapping[str, str], taken: Sequence[Target], seed: int) -> dict[str, Metric]:
    """What can be told without a model."""
    rows = [row for row in taken if row.id in texts]
    clips = [row.clip for row in rows]
    cells = {"leak": rate([bool(leak(texts[row.id])) for row in rows], clips, seed=seed)}
    if name != RAW:
        distances = [edit_distance(row.raw, texts[row.id]) for row in rows]
        lengths = [len(texts[row.id]) / len(row.raw) for row in rows]
        cells["edit_distance"] = _ratio(distances, np.ones(len(rows)), clips, seed, "fraction")
        cells["length_ratio"] = _ratio(lengths, np.ones(len(rows)), clips, seed, "")
    return cells


def _reduction(taken: Sequence[Target], seed: int) -> Metric:
    """By which share of itself the leak rate falls from R0 to R; where all clips agree, Wilson's interval over them."""
    before = [float(bool(leak(row.raw))) for row in taken]
    after = [float(_leaks(row)) for row in taken]
    fallen = [one - other for one, other in zip(before, after, strict=True)]
    found = _ratio(fallen, before, [row.clip for row in taken], seed, "fraction")
    clips = len({row.clip for row, leaks in zip(taken, before, strict=True) if leaks})
    if not clips or found.low < found.high:
        return found
    alike = wilson(max(0.0, found.value) * clips, clips)
    return replace(found, low=alike.low, high=alike.high, method=f"{alike.method} over {clips} clips that leak")


def _leaks(row: Target) -> bool:
    """Whether the edit of a reply betrays a text, taken or not."""
    return row.target is None or bool(leak(row.target))


def _scored(
    engine: LocalEngine, rows: Sequence[Target], kinds: Mapping[str, Mapping[str, str]], batch_size: int
) -> Iterator[list[Scored]]:
    tokens_of = engine.family.continuation_ids
    for part in slices(rows, max(1, batch_size // len(kinds))):
        asked = [(row, name, tokens_of(kinds[name][row.id])) for row in part for name in kinds if row.id in kinds[name]]
        given = [surrogate_conversation(row) for row, _, _ in asked]
        found = engine.logprobs(given, [tokens for _, _, tokens in asked])
        own = {
            (row.id, name): (tokens, [-value for value in values.tolist()])
            for (row, name, tokens), values in zip(asked, found, strict=True)
        }
        yield [_scored_row(row, {name: own[row.id, name] for name in kinds if (row.id, name) in own}) for row in part]


def _scored_row(row: Target, own: Mapping[str, tuple[list[int], list[float]]]) -> Scored:
    (before, nll_before), (after, nll_after) = own[RAW], own[REPHRASED]
    blocks = SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks()
    return Scored(
        row,
        {name: sum(nll) for name, (_, nll) in own.items()},
        {name: len(tokens) for name, (tokens, _) in own.items()},
        (
            sum(sum(nll_before[block.a : block.a + block.size]) for block in blocks),
            sum(sum(nll_after[block.b : block.b + block.size]) for block in blocks),
        ),
        sum(block.size for block in blocks),
    )


def _mean_nll(scored: Sequence[Scored], name: str, seed: int) -> Metric:
    clips = [each.row.clip for each in scored]
    return _ratio([each.nll[name] for each in scored], [each.tokens[name] for each in scored], clips, seed, _UNIT)


def _compared(scored: Sequence[Scored], lines: Mapping[str, dict[str, Metric]], seed: int) -> dict[str, Metric]:
    """R against R0 outside the edits, and against every other kind over all tokens of the rows that have both."""
    edited = [each for each in scored if each.row.target != each.row.raw]
    clips = [each.row.clip for each in edited]
    same = [each.same_tokens for each in edited]
    for place, name in enumerate((RAW, REPHRASED)):
        lines[name]["nll_same"] = _ratio([each.same_nll[place] for each in edited], same, clips, seed, _UNIT)
    before, after = ([each.same_nll[place] for each in edited] for place in (0, 1))
    found = {"nll_same.ratio": _ratio(after, before, clips, seed, "")}
    for name in lines:
        if name == REPHRASED:
            continue
        both = [each for each in scored if name in each.nll]
        values = np.array(
            [
                [each.nll[REPHRASED], each.tokens[REPHRASED], each.nll[name], each.tokens[name]]
                for each in both
            ]
        )  # fmt: skip
        found[f"nll_ratio.{name}"] = _over_clips(
            values, [each.row.clip for each in both], lambda sums: sums[0] / sums[1] / (sums[2] / sums[3]), seed, ""
        )
    return found


def _ratio(above: Any, below: Any, clips: Sequence[str], seed: int, unit: str) -> Metric:
    """The ratio of two sums over rows."""
    return _over_clips(np.stack([above, below], axis=1), clips, lambda sums: sums[0] / sums[1], seed, unit)


def _over_clips(values: Any, clips: Sequence[str], statistic: Callable[[Any], Any], seed: int, unit: str) -> Metric:
    """A statistic of sums over rows [N, K], with a bootstrap over clips.

    Summed for each clip first: what is drawn then are clips, and a draw is one sum.
    """
    number: dict[str, int] = {}
    places = [number.setdefault(clip, len(number)) for clip in clips]
    sums = np.zeros((len(number), values.shape[1]))
    np.add.at(sums, places, values)

    def of(rows: Any) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(statistic(rows.sum(axis=0)))

    found = bootstrap(sums, of, seed=seed, unit=unit)
    return replace(found, n=len(clips), method=found.method.replace("over items", f"over {len(number)} clips"))
