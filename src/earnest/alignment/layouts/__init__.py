"""The forms in which corpora are published, one file each, and the user's own: a manifest.

A reader makes `Recording`s of a folder and decodes nothing. A clip whose audio or text is missing is one all the same:
who builds the corpus says so. A table without its columns is a `ManifestError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from earnest.alignment.layouts import (
    audiocaps,
    clotho,
    dailytalk,
    fsd50k,
    librispeech,
    manifest,
    meld,
    nsynth,
    vctk,
    world,
)
from earnest.alignment.layouts.tree import audio_below
from earnest.alignment.recordings import Recording
from earnest.errors import EarnestError

MANIFEST = "manifest"
"""Name of the layout that is a file, not a folder."""


@dataclass(frozen=True)
class Layout:
    """The form of one corpus.

    Attributes:
        read: makes recordings of its folder.
        holds: what must be there, in words.
        lists: whether a table names the clips: audio that it does not name has no text, and is told of.
    """

    read: Callable[[Path], list[Recording]]
    holds: str
    lists: bool = False


LAYOUTS: dict[str, Layout] = {
    "audiocaps": Layout(audiocaps.read, "train.csv, val.csv or test.csv, and audio named YOUTUBE-ID_START", lists=True),
    "clotho": Layout(clotho.read, "clotho_captions_PART.csv, and PART/*.wav", lists=True),
    "dailytalk": Layout(dailytalk.read, "metadata.json, and data/DIALOG/*.wav", lists=True),
    "fsd50k": Layout(fsd50k.read, "FSD50K.ground_truth/dev.csv or eval.csv, and FSD50K.dev_audio/*.wav", lists=True),
    "librispeech": Layout(librispeech.read, "SPEAKER/CHAPTER/*.flac and *.trans.txt, at any depth"),
    MANIFEST: Layout(manifest.read, "rows with audio and text"),
    "meld": Layout(
        meld.read, "train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv, and audio named diaN_uttN", lists=True
    ),
    "nsynth": Layout(nsynth.read, "examples.json beside audio/*.wav, at most one folder deep", lists=True),
    "vctk": Layout(vctk.read, "wav48_silence_trimmed or wav48, and txt"),
    "world": Layout(world.read, "scenes.jsonl and audio/*.flac, as `earnest make world` writes them"),
}
"""Name to layout."""


def check_layout(name: str, path: Path) -> Layout:
    """The layout of a name.

    Raises:
        EarnestError: an unknown name, or a path that is not there.
    """
    if name not in LAYOUTS:
        close = difflib.get_close_matches(name.lower(), LAYOUTS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(LAYOUTS)}"
        raise EarnestError(f"the layout {name!r} is unknown: {hint}")
    if name != MANIFEST and not path.is_dir():
        raise EarnestError(f"{path} is no folder: the layout {name!r} needs one with {LAYOUTS[name].holds}")
    return LAYOUTS[name]


def read_layout(name: str, path: Path) -> list[Recording]:
    """The recordings of a folder, or of a manifest, in a fixed order.

    Raises:
        EarnestError: an unknown layout, no such folder, or nothing of this layout in it.
        ManifestError: a table that lacks columns, or a manifest with faults, all of them at once.
    """
    layout = check_layout(name, path)
    recordings = layout.read(path)
    if not recordings:
        raise EarnestError(f"{path} holds no clip of the layout {name!r}: it needs {layout.holds}")
    return [*recordings, *_unlisted(name, path, recordings)] if layout.lists else recordings


def _unlisted(corpus: str, folder: Path, listed: Sequence[Recording]) -> list[Recording]:
    """Audio of a corpus that no table names, as recordings without text."""
    known = {clip.audio for clip in listed}
    return [
        Recording(
            id=(place := path.relative_to(folder).as_posix()), corpus=corpus, audio=path, recording=f"{corpus}/{place}"
        )
        for path in audio_below(folder)
        if path not in known
    ]
