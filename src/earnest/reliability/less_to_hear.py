"""Questions with less to hear: over silence, over noise alone, and over audio that lies in noise.

The first two teach that nothing is known where nothing is heard. The third makes unknown what a model knows too well:
where nearly all answers are right, as pocket's about music, there is hardly a lesson in not knowing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from earnest.audio.edits import add_noise, noise_alone, silence
from earnest.example import Example

SILENT, NOISE = "silent", "noise"
COPY_OF = "copy_of"
"""Key of a copy's `meta`: the id of the question that it is a copy of."""
TRIED = 4
"""Questions that are asked without their audio for each that is to be learnt so: what a model already says that it does
not know teaches it little."""
NOISY_DB = (-20.0, 0.0)
"""Signal-to-noise ratios of the noisy copies: where a model begins to mishear."""


def emptied_copy(example: Example, kind: str) -> Example:
    """The question over silence, or over noise of its clips' levels, for as long as they last."""
    clips = (silence(clip) if kind == SILENT else noise_alone(clip, 0) for clip in example.clips)
    meta = {**example.meta, COPY_OF: example.id}
    return replace(example.with_clips(*clips), id=f"{example.id}-{kind}", evidence=None, meta=meta)


def nothing_of(count: int, share: float, seed: int) -> dict[int, str]:
    """Place of each question that is asked without its audio, and what stands there instead, in the order drawn."""
    wanted = min(count, TRIED * nothing_wanted(count, share))
    chosen = random.Random(f"nothing to hear/{seed}").sample(range(count), wanted)
    return {place: (SILENT, NOISE)[number % 2] for number, place in enumerate(chosen)}


def nothing_wanted(count: int, share: float) -> int:
    """How many of so many questions are to be learnt without their audio: one of each kind at least, if any."""
    return min(count, max(2, round(share * count))) if share else 0


def noisy_copies(examples: Sequence[Example], share: float, folder: Path, seed: int = 0) -> list[Example]:
    """Copies of some questions whose audio lies in white noise, each at a level of its own, as files.

    Args:
        examples: the questions; silent clips, which no noise can be measured against, are passed over.
        share: of the questions, 0 to 1, drawn by the seed.
        folder: for the files; those that are there are taken as they are.
        seed: of what is drawn, of the levels and of the noise.
    """
    rng = random.Random(f"noisy copies/{seed}")
    found: list[Example] = []
    for place in sorted(rng.sample(range(len(examples)), round(share * len(examples)))):
        example, snr_db = examples[place], round(rng.uniform(*NOISY_DB), 1)
        clips = example.clips
        if any(clip.rms == 0 for clip in clips):
            continue
        copy = example.with_clips(*(add_noise(clip, snr_db, seed) for clip in clips))
        groups = {**example.groups, "snr_db": f"{snr_db:g}"}
        meta = {**example.meta, COPY_OF: example.id}
        found.append(saved(replace(copy, id=f"{example.id}-noisy", groups=groups, meta=meta), folder))
    return found


def saved(example: Example, folder: Path) -> Example:
    """The example with files in place of clips."""
    return replace(example, audio=tuple(clip.kept_in(folder) for clip in example.clips))
