"""What frozen encoders hear, kept on disk by content: each distinct clip is decoded and encoded once, ever.

    FOLDER/clips.jsonl              (path, size, time) -> content key and samples, so that known files are not decoded
    FOLDER/ENCODER/AB/KEY.safetensors    frames [F, L * C] of one encoder, in half precision
    FOLDER/unheard.txt              clips of the last attempt that could not be heard, and why

A folder may be shared by trainings and by models: what lies in it is found by the weights of the encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from earnest.audio import Clip
from earnest.completion import content_key
from earnest.engines.weights import state_key
from earnest.errors import AudioError, ModelError
from earnest.files import append_durably, cut_torn_line, json_line, read_json_lines, write_atomic
from earnest.fused.configuration import SAMPLE_RATE_HZ
from earnest.fused.modeling import FusedModel

CLIPS, UNHEARD = "clips.jsonl", "unheard.txt"
FAULTS_SHOWN = 5
_AT_ONCE = 16


@dataclass(frozen=True)
class HeardClip:
    """A clip whose frames are on disk.

    Attributes:
        key: of its samples, as `Clip.key`.
        samples: at 16 kHz.
    """

    key: str
    samples: int


class Features:
    """Frames of the encoders that a model's first pass uses.

    Args:
        model: whose encoders are run where frames are missing.
        folder: of the cache.
    """

    def __init__(self, model: FusedModel, folder: Path) -> None:
        self._model = model
        used = model.config.pass_specs["first"].adapters
        self._specs = [spec for spec in model.config.encoder_specs if spec.name in used]
        # By what an encoder is, not by what a model calls it: trainings share it.
        self._folders = {
            spec.name: folder / content_key([{**spec.to_dict(), "name": ""}, state_key(model.encoders[spec.name])])[:16]
            for spec in self._specs
        }
        self._index = folder / CLIPS
        self._known: dict[str, HeardClip] = {}
        if self._index.exists():
            cut_torn_line(self._index)
            for row in read_json_lines(self._index):
                self._known[row["file"]] = HeardClip(row["key"], row["samples"])

    def prepare(
        self, paths: Iterable[Path], progress: Callable[[int, int], None] | None = None
    ) -> dict[Path, HeardClip]:
        """Encodes what is missing.

        Args:
            paths: files, each as often as it likes.
            progress: called with (clips that are there, clips in all).

        Raises:
            AudioError: files that cannot be heard, all of them counted; nothing is left out in silence.
        """
        every = list(dict.fromkeys(paths))
        found: dict[Path, HeardClip] = {}
        faults: list[str] = []
        waiting: list[tuple[HeardClip, np.ndarray[Any, Any]]] = []
        for number, path in enumerate(every):
            try:
                heard, samples = self._heard(path)
            except AudioError as error:
                faults.append(str(error))
                continue
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
                continue
            found[path] = heard
            if not all(self._file(heard, spec.name).exists() for spec in self._specs):
                samples = Clip.load(path).resampled(SAMPLE_RATE_HZ).samples if samples is None else samples
                waiting.append((heard, np.array(samples)))
            if len(waiting) == _AT_ONCE:
                self._encode(waiting)
                waiting = []
            if progress:
                progress(number + 1, len(every))
        self._encode(waiting)
        if faults:
            shown = "\n".join(f"  {fault}" for fault in faults[:FAULTS_SHOWN])
            more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
            write_atomic(unheard := self._index.with_name(UNHEARD), "\n".join([*faults, ""]))
            raise AudioError(
                f"{len(faults)} of {len(every)} clips cannot be heard: mend them or take their rows out; all of them "
                f"stand in {unheard}\n{shown}{more}"
            )
        return found

    def frames(self, clips: Sequence[HeardClip]) -> list[Tensor | None]:
        """As `FusedModel.encode`: [N, F, L * C] float32 of each encoder, zeros beyond a clip's end; None if unused."""
        return [
            torch.nn.utils.rnn.pad_sequence(
                [load_file(self._file(clip, spec.name))["frames"].float() for clip in clips], batch_first=True
            )
            if spec.name in self._folders
            else None
            for spec in self._model.config.encoder_specs
        ]

    def _heard(self, path: Path) -> tuple[HeardClip, Any]:
        """A file's clip, and its samples at 16 kHz where it had to be decoded for that."""
        stat = path.stat()
        file = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if file in self._known:
            return self._known[file], None
        clip = Clip.load(path)
        samples = clip.resampled(SAMPLE_RATE_HZ).samples
        heard = HeardClip(clip.key, samples.size)
        self._index.parent.mkdir(parents=True, exist_ok=True)
        append_durably(self._index, json_line({"file": file, "key": heard.key, "samples": heard.samples}))
        self._known[file] = heard
        return heard, samples

    def _file(self, clip: HeardClip, encoder: str) -> Path:
        return self._folders[encoder] / clip.key[:2] / f"{clip.key}.safetensors"

    def _encode(self, clips: Sequence[tuple[HeardClip, Any]]) -> None:
        if not clips:
            return
        features, lengths = self._model.features([samples for _, samples in clips], "first")
        hidden = self._model.encode(features, lengths)
        own = {spec.name: one for spec, one in zip(self._model.config.encoder_specs, hidden, strict=True)}
        for place, (heard, samples) in enumerate(clips):
            for spec in self._specs:
                frames, one = -(-samples.size // spec.geometry.samples_per_frame), own[spec.name]
                assert one is not None, "the pass's encoders have been run"
                kept = one[place, :frames].to("cpu", torch.bfloat16 if one.dtype == torch.bfloat16 else torch.float16)
                if not bool(kept.isfinite().all()):
                    raise ModelError(
                        f"encoder {spec.name!r} gives values beyond half precision for a clip of "
                        f"{samples.size / SAMPLE_RATE_HZ:.1f} s (key {heard.key}): load it in bfloat16"
                    )
                write_atomic(self._file(heard, spec.name), save({"frames": kept.contiguous()}))
