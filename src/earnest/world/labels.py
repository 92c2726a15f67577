"""Frame labels of a scene: what encoders are trained on before they are frozen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from earnest.world.mixing import event_level_db, word_spans
from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import INSTRUMENTS, PITCHES, SOUNDS, SPEAKERS, SPOKEN, TEMPI

CLASSES: dict[str, tuple[str, ...]] = {
    "sound": SOUNDS,
    "instrument": INSTRUMENTS,
    "pitch": PITCHES,
    "tempo": TEMPI,
    "word": SPOKEN,
    "speaker": SPEAKERS,
}
"""Tasks and their names; label 0 is "none", label i + 1 the i-th name."""


def frame_labels(scene: Scene, n_frames: int, frame_s: float) -> dict[str, npt.NDArray[np.int64]]:
    """Labels of each frame for each task of `CLASSES`.

    A frame belongs to what sounds at its centre; where two events of one kind overlap, the louder one wins
    (the later one, if they are equally loud). A word has at least one frame.

    Args:
        scene: the timeline, planned with the lengths of rendered events.
        n_frames: number of frames F.
        frame_s: seconds from one frame to the next; frame i covers [i, i + 1) * frame_s.

    Returns:
        Per task an array [F] of 0 (none) or 1 + index into the task's names.
    """
    labels = {task: np.zeros(n_frames, dtype=np.int64) for task in CLASSES}

    def mark(task: str, name: str | None, start_s: float, end_s: float) -> None:
        if name is not None:
            first = max(0, round(start_s / frame_s))
            end = max(first + 1, round(end_s / frame_s))
            labels[task][first:end] = 1 + CLASSES[task].index(name)

    # What is marked later stands: the quietest first.
    for event in sorted(scene.events, key=lambda event: (event_level_db(event), event.start_s)):
        for task, name in _event_names(event):
            mark(task, name, event.start_s, event.end_s)
        if event.kind == "speech":
            for word, start_s, end_s in word_spans(event):
                mark("word", word, start_s, end_s)
    return labels


def _event_names(event: Event) -> tuple[tuple[str, str | None], ...]:
    if event.kind == "sound":
        return (("sound", event.name),)
    if event.kind == "music":
        return ("instrument", event.name), ("pitch", event.pitch), ("tempo", event.tempo)
    return (("speaker", event.speaker),)
