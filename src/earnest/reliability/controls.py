"""Controls: does it abstain because it does not hear? The same questions over silence, noise and other audio.

A reliable model abstains where there is nothing to hear, the more the deeper the audio lies in noise, and hardly ever
on what it answered right when all was clean. (The paper has no such control.)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from itertools import zip_longest

from earnest.audio.edits import add_noise, silence, swap
from earnest.example import Example
from earnest.finding import Curve, Metric, Table
from earnest.grading import Outcome
from earnest.statistics import wilson

CLEAN, SILENT, OPEN = "clean", "silent", "silent, open"
SNRS_DB = (-20.0, -15.0, -10.0, -5.0, 0.0, 10.0, 20.0)
Condition = Callable[[Sequence[Example]], list[Example]]
"""Examples to the same questions about other clips; what cannot be made is left out."""


def conditions(seed: int = 0) -> dict[str, Condition]:
    """All conditions by name, the clean one first.

    Args:
        seed: of the noise.
    """
    noisy = {f"noise at {snr:g} dB": partial(_noisy, snr_db=snr, seed=seed) for snr in SNRS_DB}
    return {CLEAN: list, SILENT: _silent, "swapped": _swapped, **noisy}


def spread(examples: Sequence[Example], count: int, seed: int = 0) -> list[Example]:
    """So many of them, drawn by the seed, of every modality in turn; all if there are fewer."""
    rng = random.Random(f"controls/{seed}")
    by_modality: dict[str, list[Example]] = {}
    for example in examples:
        by_modality.setdefault(example.groups.get("modality", ""), []).append(example)
    for found in by_modality.values():
        rng.shuffle(found)
    in_turn = [example for row in zip_longest(*by_modality.values()) for example in row if example is not None]
    return in_turn[:count]


def control_findings(
    outcomes: Mapping[str, Mapping[str, Mapping[str, Outcome]]],
    found: Mapping[str, Metric],
    unanswerable: Container[str] = (),
) -> tuple[dict[str, Metric], Table, list[Curve]]:
    """What was abstained from where.

    Args:
        outcomes: method, to condition, to outcome by the example's id.
        found: what was found on all items, with `METHOD.abstention_on_known`.
        unanswerable: ids of the items that are open at silence.

    Returns:
        Metrics `METHOD.abstention.CONDITION` ("silent_open" of the unanswerable alone), a table of them beside what was
        abstained from of all clean items that were right before, and rejection by signal-to-noise ratio.
    """
    metrics: dict[str, Metric] = {}
    rows: list[tuple[str | Metric, ...]] = []
    curves: list[Curve] = []
    names: list[str] = []
    for method, by_condition in outcomes.items():
        rates: dict[str, Metric] = {}
        for name, said in by_condition.items():
            rates[name] = _abstention(list(said.values()))
            if name == SILENT:
                rates[OPEN] = _abstention([outcome for key, outcome in said.items() if key in unanswerable])
        on_known = found[f"{method}.abstention_on_known"]
        metrics |= {f"{method}.abstention.{_slug(name)}": rate for name, rate in rates.items()}
        names = list(rates)
        rows.append((method, on_known, *rates.values()))
        levels = [(snr, rates[name]) for snr in SNRS_DB if (name := f"noise at {snr:g} dB") in rates]
        curves.append(
            Curve.of(
                "abstention by signal-to-noise ratio",
                method,
                "SNR in dB",
                "share abstained",
                (snr for snr, _ in levels),
                (rate for _, rate in levels),
            )
        )
    n = max((len(said[CLEAN]) for said in outcomes.values()), default=0)
    known = max((row[1].n for row in rows if isinstance(row[1], Metric)), default=0)
    table = Table(
        f"Controls: how much is abstained from, n = {n}",
        ("method", "clean, right before", *names),
        tuple(rows),
        "White noise over the whole clip, at a ratio to the clip's own power; swapped: another question's clip, of the "
        "same modality; silent, open: where no choice says that nothing is there. Clean, right before: of all items, "
        f"n = {known}.",
    )
    return metrics, table, curves


def _abstention(outcomes: Sequence[Outcome]) -> Metric:
    return wilson(sum(outcome is Outcome.ABSTAINED for outcome in outcomes), len(outcomes))


def _slug(name: str) -> str:
    return name.replace(", ", "_").replace(" ", "_").replace("noise_at_", "snr_").replace("_dB", "_db")


def _silent(examples: Sequence[Example]) -> list[Example]:
    return [example.with_clips(*(silence(clip) for clip in example.clips)) for example in examples]


def _noisy(examples: Sequence[Example], snr_db: float, seed: int) -> list[Example]:
    """Without those that are silent already: they have no ratio to noise."""
    return [
        example.with_clips(*(add_noise(clip, snr_db, seed) for clip in example.clips))
        for example in examples
        if all(clip.rms > 0 for clip in example.clips)
    ]


def _swapped(examples: Sequence[Example]) -> list[Example]:
    """With clips of the same modality; without those of a modality in which all clips sound the same."""
    found: dict[str, Example] = {}
    for modality in {example.groups.get("modality") for example in examples}:
        own = [example for example in examples if example.groups.get("modality") == modality]
        clips = [clip for example in own for clip in example.clips]
        if len({clip.key for clip in clips}) < 2:
            continue
        others = iter(swap(clips, shift=max(len(example.audio) for example in own)))
        found |= {example.id: example.with_clips(*(next(others) for _ in example.audio)) for example in own}
    return [found[example.id] for example in examples if example.id in found]
