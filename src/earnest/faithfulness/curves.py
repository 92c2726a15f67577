"""Curves along each intervention, and the disconnect: audio against reasoning against answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from earnest.faithfulness.chain_probes import CONTINUED, EARLY, FILLED, FILLER, MISTAKE, PARAPHRASE
from earnest.faithfulness.criteria import mean
from earnest.faithfulness.levels import Levels
from earnest.faithfulness.measures import Row, Rows, rescaled, unmoved
from earnest.faithfulness.probes import MASK, NO_REASONING, NOISE
from earnest.finding import Curve, Metric

QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of a chain at which items of different length are read together, between their own points in proportion."""


def curves(levels: Levels) -> list[Curve]:
    """All of them, as far as their probes were asked."""
    return [*_audio_curves(levels), *_chain_curves(levels)]


def _audio_curves(levels: Levels) -> list[Curve]:
    found: list[Curve] = []
    apart: list[Curve] = []
    for probe, title, label in (
        (NOISE, "White noise", "SNR in dB"),
        (MASK, "Masked audio", "share masked"),
    ):
        own = levels.of_probe(probe)
        if not own:
            continue
        consistency = [level.consistency for level in own.values()]
        drawn = {
            "accuracy": [level.accuracy for level in own.values()],
            "same answer as clean": consistency,
            "abstained": [level.abstained for level in own.values()],
        }
        judged = [_as_share(level.agreement) for level in own.values() if level.agreement is not None]
        if len(judged) == len(own):
            drawn["CoT consistency (J, rescaled)"] = judged
            order = np.argsort([metric.value for metric in judged])
            apart.append(
                Curve.of(
                    "Disconnect: does the answer follow when the reasoning changes?",
                    title.lower(),
                    "same reasoning as clean (J, rescaled)",
                    "same answer as clean",
                    [judged[place].value for place in order],
                    [consistency[place] for place in order],
                )
            )
        found += [Curve.of(title, name, label, "share", own, line) for name, line in drawn.items()]
    if apart:
        alike = replace(apart[0], label="both change alike", x=(0.0, 1.0), y=(0.0, 1.0), low=(), high=())
        found += [*apart, alike]
    return found


def _as_share(agreement: Metric) -> Metric:
    low, value, high = (rescaled(score) for score in (agreement.low, agreement.value, agreement.high))
    return replace(agreement, value=value, low=low, high=high, unit="fraction")


def _chain_curves(levels: Levels) -> list[Curve]:
    """Answer consistency along each edit; the answers without reasoning and by chance are flat lines beside it."""
    rows, clean, seed = levels.rows, levels.clean, levels.seed
    found: list[Curve] = []
    for probe, title, label in (
        (EARLY, "Early answering", "share of the steps that are kept"),
        (FILLER, "Filler in place of words", "share of the words"),
        (PARAPHRASE, "Paraphrased reasoning", "share of the steps that are rewritten"),
        (MISTAKE, "A mistake in the reasoning", "where, as a share of the steps"),
    ):
        drawn = _by_share(rows, probe)
        if not drawn:
            continue
        x = FILLED if probe == FILLER else QUARTERS
        y = [mean({item: kept[place] for item, (kept, _) in drawn.items()}, clean, seed) for place in range(len(x))]
        found.append(Curve.of(f"{title}, n = {len(drawn)}", "the same answer", label, "share", x, y))
        # On the same items, against the same reference.
        direct = rows.at(NO_REASONING)
        flat = {
            "answers without reasoning": [
                direct[item].said == reference.said for item, (_, reference) in drawn.items() if item in direct
            ],
            "chance": [1 / len(choices) for item in drawn if (choices := clean[item].record.choices)],
        }
        for name, values in flat.items():
            if values:
                level = float(np.mean(values))
                found.append(Curve(found[-1].title, name, label, "share", (x[0], x[-1]), (level, level)))
    return found


def _by_share(rows: Rows, probe: str) -> dict[int, tuple[list[float], Row]]:
    """Item to its own curve, read at fixed shares of its chain, and to the row that it is held against."""
    found: dict[int, tuple[list[float], Row]] = {}
    continued = rows.of_item(CONTINUED)
    for item, by_value in rows.of_item(probe).items():
        length = max(by_value)
        if probe == MISTAKE:
            references = continued[item]
            x = [(value - 1) / length for value in by_value]
        else:
            whole = by_value[length if probe == EARLY else 0.0]
            references = dict.fromkeys(by_value, whole)
            x = [value / length for value in by_value]
        kept = [float(unmoved(row, references[value])) for value, row in by_value.items()]
        at = FILLED if probe == FILLER else QUARTERS
        found[item] = [float(value) for value in np.interp(at, x, kept)], references[length]
    return found
