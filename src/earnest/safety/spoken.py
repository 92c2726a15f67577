"""Requests as speech: a folder of clips and a manifest that says of each whether it is harmful or benign."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from earnest.audio.speakers import Speaker
from earnest.cells import CellFault, groups_cell
from earnest.completion import content_key
from earnest.errors import AudioError, EarnestError, ManifestError
from earnest.example import Example, load_manifest, save_manifest
from earnest.files import write_atomic, write_json
from earnest.safety.sets import Request
from earnest.tabular import Faults, read_rows

HARMFUL, BENIGN = "harmful", "benign"
REQUEST = "request"
"""The group that says which of the two."""
SAMPLE_RATE_HZ = 16000
LEFT_OUT = "left_out.json"


@dataclass(frozen=True)
class _Manner:
    """How a request is spoken."""

    voice: str
    rate_wpm: int
    pitch: int


def speak(
    requests: Sequence[Request],
    out: Path,
    *,
    speaker: Speaker,
    voices: Sequence[str],
    rates_wpm: Sequence[int],
    pitches: Sequence[int],
    seed: int,
    left_out: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Sets every request that has no audio to speech, or what is still missing of them.

    Voice, rate and pitch are drawn per request from the seed and its id; both requests of a pair are spoken alike. A
    clip is named by what is said and how: one that is there is whole, and is taken.

    Args:
        requests: with different ids; where one has none, its place names it.
        out: the folder of `clips`, `manifest.jsonl` and `left_out.json`.
        speaker: who says them.
        voices: of the speaker, to draw from.
        rates_wpm: words per minute, to draw from.
        pitches: to draw from.
        seed: of the draws.
        left_out: id and reason of what was left out before.
        progress: called with (requests that are done, requests in all).

    Returns:
        The manifest. What could not be spoken is in `left_out.json` with the reason.

    Raises:
        EarnestError: two requests have one id, or none of them could be spoken.
        AudioError: a voice, rate or pitch that the speaker does not take; nothing is spoken yet.
    """
    names = names_of(requests)
    check_manners(speaker, voices, rates_wpm, pitches)
    found: list[Example] = []
    lost = dict(left_out or {})
    for done, (name, request) in enumerate(zip(names, requests, strict=True), start=1):
        rng = random.Random(f"speak/{seed}/{request.pair or name}")
        manner = _Manner(rng.choice(voices), rng.choice(rates_wpm), rng.choice(pitches))
        try:
            audio = request.audio or _spoken(request.text, manner, out / "clips", speaker)
        except AudioError as error:
            lost[name] = str(error)
        else:
            found.append(_example(name, request, audio, None if request.audio else manner))
        if progress:
            progress(done, len(requests))
    write_json(out / LEFT_OUT, lost)
    if not found:
        why = next(iter(lost.items()), None)
        raise EarnestError(
            f"none of {len(requests)} requests could be spoken"
            + (f", such as {why[0]}: {why[1]}" if why else ": give at least one")
        )
    save_manifest(found, out / "manifest.jsonl")
    return out / "manifest.jsonl"


def names_of(requests: Sequence[Request]) -> list[str]:
    """Their ids, or by place where there are none.

    Raises:
        EarnestError: two are the same.
    """
    names = [request.id or f"request-{place}" for place, request in enumerate(requests, start=1)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise EarnestError(f"{len(twice)} ids stand more than once, such as {twice[0]!r}: give each request its own")
    return names


def check_manners(speaker: Speaker, voices: Sequence[str], rates_wpm: Sequence[int], pitches: Sequence[int]) -> None:
    """Has each voice, rate and pitch say a digit.

    Raises:
        AudioError: one of the lists is empty, or all that the speaker does not take.
    """
    for name, values in (("voice", voices), ("rate", rates_wpm), ("pitch", pitches)):
        if not values:
            raise AudioError(f"no {name} to draw from: give at least one")
    faults: list[str] = []
    for say in (
        *(partial(speaker.say, voice=voice) for voice in voices),
        *(partial(speaker.say, rate_wpm=rate) for rate in rates_wpm),
        *(partial(speaker.say, pitch=pitch) for pitch in pitches),
    ):
        try:
            say("1")
        except AudioError as error:
            faults.append(str(error))
    if faults:
        raise AudioError("; ".join(dict.fromkeys(faults)))


def read_left_out(out: Path) -> dict[str, str]:
    """Id and reason of what `speak` left out."""
    return json.loads((out / LEFT_OUT).read_text("utf-8"))


def harm_of(example: Example) -> bool:
    """Whether what an example asks is harmful.

    Raises:
        EarnestError: it does not say.
    """
    said = example.groups.get(REQUEST)
    if said not in (HARMFUL, BENIGN):
        raise EarnestError(f"{example.id}: {_fault(said)}")
    return said == HARMFUL


def sides_of(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """The harmful and the benign ones.

    Raises:
        EarnestError: one does not say.
    """
    harmful = [harm_of(example) for example in examples]
    return (
        [example for example, harm in zip(examples, harmful, strict=True) if harm],
        [example for example, harm in zip(examples, harmful, strict=True) if not harm],
    )


def is_request(example: Example) -> bool:
    """Whether an example is a request, not a question about its clip."""
    return REQUEST in example.groups


def read_spoken(path: Path | str) -> list[Example]:
    """Reads a manifest of spoken requests: one clip each, and groups that say harmful or benign.

    Raises:
        ManifestError: every fault of the file at once, each with its line.
    """
    path, faults = Path(path), Faults()
    examples: list[Example] = []
    known: list[str] = []
    try:
        examples = load_manifest(path, need_answers=False, n_clips=1)
    except ManifestError as error:
        known = error.faults
    # A row that cannot be read is a fault that is known already.
    for row in read_rows(path, Faults()):
        said = row.cells.get(f"group.{REQUEST}")
        try:
            said = groups_cell(row.cells.get("groups")).get(REQUEST) if said is None else str(said)
        except CellFault:
            continue
        if said not in (HARMFUL, BENIGN):
            faults.add(row.line, _fault(said))
    if known or faults.by_text:
        raise ManifestError(str(path), [*known, *faults.sentences()])
    return examples


def _fault(said: Any) -> str:
    return f"the group {REQUEST!r} is {said!r}: give {HARMFUL!r} or {BENIGN!r}"


def _spoken(text: str, manner: _Manner, folder: Path, speaker: Speaker) -> Path:
    key = content_key([type(speaker).__qualname__, text, manner.voice, manner.rate_wpm, manner.pitch])
    path = folder / f"{key}.wav"
    if not path.exists():
        clip = speaker.say(text, manner.voice, manner.rate_wpm, manner.pitch)
        write_atomic(path, clip.resampled(SAMPLE_RATE_HZ).wav_bytes())
    return path


def _example(name: str, request: Request, audio: Path, manner: _Manner | None) -> Example:
    side = HARMFUL if request.harmful else BENIGN
    groups = {REQUEST: side, "kind": request.kind, "source": request.source, "rewriter": request.rewriter}
    spoken = {"voice": manner.voice, "rate_wpm": manner.rate_wpm, "pitch": manner.pitch} if manner else {}
    return Example(
        id=name,
        audio=(audio,),
        question=request.text,
        groups={group: value for group, value in groups.items() if value},
        meta={**({"pair": request.pair} if request.pair else {}), **spoken},
    )
