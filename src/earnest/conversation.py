"""The spine: a conversation made of text and audio parts, and the message forms of others.

    Conversation().user(Audio(clip), "How many bells?").assistant("<think> I go back to <seg>2, 3</seg>")

If the last turn is the assistant's, an engine continues it: that is how a chain of thought is edited and how
a crop is inserted in the middle of the reasoning.

Two message forms are read and written: OpenAI's (`input_audio` parts, WAV in base64) and Hugging Face's
(`{"type": "audio", "audio": ...}`). Neither knows of `Audio.fine` or of a crop's place in its clip: both are
lost on the way out.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from earnest.audio import Clip
from earnest.completion import content_key
from earnest.errors import ConversationError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    """A part that is read."""

    text: str


@dataclass(frozen=True)
class Audio:
    """A part that is heard.

    Attributes:
        clip: what is heard.
        fine: a re-listened segment, to be encoded at the finer token rate.
    """

    clip: Clip
    fine: bool = False


Part = Text | Audio


@dataclass(frozen=True)
class Turn:
    """What one role says in one go."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    def written(self, placeholder: str, mark: str | None = None) -> str:
        """The turn as one string.

        Args:
            placeholder: what stands for audio in a model's text, so that no text part may hold it.
            mark: what is written for an audio part, the placeholder alone if None.

        Raises:
            ConversationError: a text part holds the placeholder.
        """
        if any(isinstance(part, Text) and placeholder in part.text for part in self.parts):
            raise ConversationError(
                f"a text part holds {placeholder!r}, which stands for audio; pass the audio as an Audio part"
            )
        return "".join(part.text if isinstance(part, Text) else mark or placeholder for part in self.parts)


@dataclass(frozen=True)
class Conversation:
    """An immutable sequence of turns; every operation returns a new one."""

    turns: tuple[Turn, ...] = ()

    def system(self, *parts: str | Part) -> Conversation:
        """Appends a system turn."""
        return self._turn("system", parts)

    def user(self, *parts: str | Part) -> Conversation:
        """Appends a user turn."""
        return self._turn("user", parts)

    def assistant(self, *parts: str | Part) -> Conversation:
        """Appends a turn of the assistant, which an engine then continues."""
        return self._turn("assistant", parts)

    def append(self, *parts: str | Part) -> Conversation:
        """Appends parts to the last turn.

        Raises:
            ConversationError: there is no turn yet.
        """
        if not self.turns:
            raise ConversationError("nothing to append to: the conversation has no turn; begin with .user(...)")
        last = self.turns[-1]
        return Conversation((*self.turns[:-1], Turn(last.role, last.parts + _parts(parts))))

    @property
    def continues_assistant(self) -> bool:
        """Whether the last turn is the assistant's, to be continued."""
        return bool(self.turns) and self.turns[-1].role == "assistant"

    @property
    def begun(self) -> Turn | None:
        """The assistant's turn that is to be continued, None if a new one is to be opened."""
        return self.turns[-1] if self.continues_assistant else None

    @property
    def answered_turns(self) -> tuple[Turn, ...]:
        """The turns that a reply answers: all but the one that is begun.

        Raises:
            ConversationError: there is none.
        """
        turns = self.turns[:-1] if self.continues_assistant else self.turns
        if not turns:
            raise ConversationError("the conversation has nothing to reply to; begin with .user(...)")
        return turns

    @property
    def audio(self) -> tuple[Audio, ...]:
        """The audio parts, in order."""
        return tuple(part for turn in self.turns for part in turn.parts if isinstance(part, Audio))

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The clips, in order."""
        return tuple(part.clip for part in self.audio)

    @property
    def audio_s(self) -> float:
        """Length of all clips together, in seconds."""
        return sum(clip.duration_s for clip in self.clips)

    @property
    def last_text(self) -> str:
        """The text of the last turn; empty if there is no turn."""
        return self.turns[-1].text if self.turns else ""

    @property
    def key(self) -> str:
        """Content hash [32 hex digits] of all that a model can see.

        A crop's place in its clip is part of it, since engines may write time marks into the prompt.
        """
        return content_key([[turn.role, [_identity(part) for part in turn.parts]] for turn in self.turns])

    def to_openai(self) -> list[dict[str, Any]]:
        """Chat messages with `text` and `input_audio` parts (WAV, base64); text alone is a plain string."""
        return [
            {
                "role": turn.role,
                "content": turn.text
                if all(isinstance(part, Text) for part in turn.parts)
                else [_openai_part(part) for part in turn.parts],
            }
            for turn in self.turns
        ]

    @staticmethod
    def from_openai(messages: Sequence[Mapping[str, Any]]) -> Conversation:
        """Reads chat messages: `text`, `input_audio`, and `audio_url` with a `data:` URL.

        Raises:
            ConversationError: an unknown role or part, or audio that is no base64.
            AudioError: audio that cannot be decoded.
        """
        return _read(messages, Path())

    def to_hf(self) -> list[dict[str, Any]]:
        """Messages for `apply_chat_template`; audio parts hold samples [S] and `sampling_rate` in Hz."""
        return [{"role": turn.role, "content": [_hf_part(part) for part in turn.parts]} for turn in self.turns]

    @staticmethod
    def from_hf(messages: Sequence[Mapping[str, Any]], folder: Path | str = ".") -> Conversation:
        """Reads chat-template messages: `text`, and `audio` under `audio`, `path`, `url` or `audio_url`.

        Args:
            messages: audio as samples [S] with `sampling_rate`, as a mapping {array, sampling_rate}, as a
                local path or as a `data:` URL.
            folder: what relative paths are relative to.

        Raises:
            ConversationError: an unknown role or part, samples without their rate, or a remote URL.
            AudioError: audio that cannot be read.
        """
        return _read(messages, Path(folder))

    def _turn(self, role: Role, parts: Sequence[str | Part]) -> Conversation:
        return Conversation((*self.turns, Turn(role, _parts(parts))))


def _parts(parts: Sequence[str | Part]) -> tuple[Part, ...]:
    return tuple(Text(part) if isinstance(part, str) else part for part in parts)


def _identity(part: Part) -> list[Any]:
    if isinstance(part, Text):
        return ["text", part.text]
    return ["audio", part.clip.key, part.fine, round(part.clip.offset_s, 6)]


def _openai_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "input_audio", "input_audio": {"data": _wav_base64(part.clip), "format": "wav"}}


@lru_cache(maxsize=4)
def _wav_base64(clip: Clip) -> str:
    """The requests about a clip go out one after the other: it is written once for all of them."""
    return base64.b64encode(clip.wav_bytes()).decode()


def _hf_part(part: Part) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "audio", "audio": part.clip.samples, "sampling_rate": part.clip.sample_rate_hz}


def _read(messages: Sequence[Mapping[str, Any]], folder: Path) -> Conversation:
    turns: list[Turn] = []
    for number, message in enumerate(messages, start=1):
        role = message.get("role")
        if role == "developer":
            role = "system"  # OpenAI's newer name for it
        if role not in ROLES:
            raise ConversationError(f"message {number} has the role {role!r}: known are {', '.join(ROLES)}")
        content: Any = message.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not isinstance(content, list | tuple):
            raise ConversationError(
                f"message {number} has a {type(content).__name__} as content: give text or a list of parts"
            )
        parts = [
            read_part(part, f"message {number}, part {place}", folder)
            for place, part in enumerate(cast(Sequence[Any], content), start=1)
        ]
        turns.append(Turn(role, tuple(parts)))
    return Conversation(tuple(turns))


def read_part(part: Any, where: str, folder: Path) -> Part:
    """Reads one content part of either message form.

    Args:
        part: the part.
        where: its place, for the error's text.
        folder: what a relative path is relative to.

    Raises:
        ConversationError: the part cannot be understood.
        AudioError: its audio cannot be read.
    """
    if not isinstance(part, Mapping):
        raise ConversationError(f"{where} is a {type(part).__name__}: give a mapping with a 'type'")
    row = cast(Mapping[str, Any], part)
    kind = row.get("type")
    if kind == "text":
        if not isinstance(row.get("text"), str):
            raise ConversationError(f"{where} is of type text but has no text")
        return Text(row["text"])
    if kind == "input_audio":
        inner = row.get("input_audio")
        data = cast(Mapping[str, Any], inner).get("data") if isinstance(inner, Mapping) else None
        if not isinstance(data, str):
            raise ConversationError(f"{where} has no input_audio.data: give the file's bytes in base64")
        return Audio(Clip.from_bytes(_decode(data, where), where))
    if kind in ("audio", "audio_url"):
        for name in ("audio", "path", "url", "audio_url"):
            if row.get(name) is not None:
                return Audio(_clip(row[name], row.get("sampling_rate"), where, folder))
        raise ConversationError(f"{where} is of type {kind} but has none of audio, path, url, audio_url")
    raise ConversationError(
        f"{where} has the type {kind!r}: known are text, input_audio, audio and audio_url; "
        "images and tools are not understood"
    )


def _clip(value: Any, rate_hz: Any, where: str, folder: Path) -> Clip:
    if isinstance(value, Clip):
        return value
    if isinstance(value, Mapping):
        row = cast(Mapping[str, Any], value)
        if "array" in row:
            return _clip(row["array"], row.get("sampling_rate", rate_hz), where, folder)
        inner = row.get("url") or row.get("path")
        if inner is None:
            raise ConversationError(f"{where} holds audio with the keys {sorted(row)}: give array, path or url")
        return _clip(inner, rate_hz, where, folder)
    if isinstance(value, bytes):
        return Clip.from_bytes(value, where)
    if isinstance(value, str | Path):
        return _load(str(value), where, folder)
    if rate_hz is None:
        raise ConversationError(f"{where} holds samples without a rate: add 'sampling_rate' in Hz")
    return Clip(np.asarray(value, dtype=np.float32), int(rate_hz), where)


def _load(text: str, where: str, folder: Path) -> Clip:
    if text.startswith("data:"):
        head, comma, body = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise ConversationError(f"{where} has a data: URL that is not base64: write data:audio/wav;base64,...")
        return Clip.from_bytes(_decode(body, where), where)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text:
        raise ConversationError(f"{where} points to {text}: nothing is fetched; download it and give the path")
    return Clip.load(folder / text)


def _decode(data: str, where: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError as error:  # binascii.Error, and plain ValueError for non-ASCII text
        raise ConversationError(f"{where} holds audio that is not base64: {error}") from error
