"""The ground truth of a scene: who sounds when, and nothing about how it is rendered.

A `Scene` is the exact timeline of a clip. The synthesis renders it, the surrogate writes it down, the
questions ask about it; none of them knows the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["sound", "music", "speech"]


@dataclass(frozen=True)
class Event:
    """One thing that is heard.

    Attributes:
        kind: sound (`name` is the class), music (`name` is the instrument) or speech (`name` is the text).
        name: sound class, instrument, or the words that are spoken, lower case, separated by blanks.
        start_s: onset in seconds from the start of the clip.
        end_s: end in seconds; `end_s > start_s`.
        gain_db: level relative to the scene's reference level (0 dB).
        distance: 0 (close) to 1 (far: quieter and duller).
        pitch: music only: low, middle or high.
        tempo: music only: slow or fast.
        speaker: speech only: man or woman (one voice per gender in a scene).
        voice: speech only: the name of the voice in `voices.py`.
        style: speech only: words (plain), narration ("there is a dog") or request ("how do i ...").
    """

    kind: Kind
    name: str
    start_s: float
    end_s: float
    gain_db: float = 0.0
    distance: float = 0.0
    pitch: str | None = None
    tempo: str | None = None
    speaker: str | None = None
    voice: str | None = None
    style: str | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Scene:
    """The timeline of one clip, its events sorted by onset.

    Attributes:
        id: unique within a split; derived from split, seed and index.
        duration_s: length of the clip in seconds (2 to 60).
        events: sorted by `start_s`.
        snr_db: signal-to-noise ratio of the background noise; None is clean.
        noise: colour of the background noise: white, pink or brown; None is clean.
        seed: seed from which the rendering draws (event parameters, noise).
        split: train, validation or test; decides voices, sound parameters and wordings.
    """

    id: str
    duration_s: float
    events: tuple[Event, ...]
    snr_db: float | None = None
    noise: str | None = None
    seed: int = 0
    split: str = "train"
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    def of_kind(self, kind: Kind) -> tuple[Event, ...]:
        """The events of one kind, in order of onset."""
        return tuple(event for event in self.events if event.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `None` fields of events are left out."""
        row = asdict(self)
        row["events"] = [{key: value for key, value in event.items() if value is not None} for event in row["events"]]
        return row

    @staticmethod
    def from_json(row: dict[str, Any]) -> Scene:
        """Inverse of `to_json`."""
        events = tuple(Event(**event) for event in row["events"])
        rest: dict[str, Any] = {key: value for key, value in row.items() if key != "events"}
        return Scene(events=events, **rest)
