"""One question about one clip (or several), and manifests of them in and out.

A manifest is JSONL, JSON, CSV or TSV. Its columns:

    audio      path, relative to the manifest, or a list of paths  (also audio_path, audio_id, audios, file)
    question   text                                                (also instruction)
    answer     text, one of the choices or its letter              (also answer_gt)
    choices    list of texts; in CSV "a|b|c", "a;b;c" or JSON      (also options, or choice_a, choice_b, ...)
    id         unique; "line-N" where it is missing                (also index)
    evidence   list of [start_s, end_s]; in CSV "1.5-2; 4-5"       (also segments)
    rule       how the answer is matched: option, mmau or letter
    groups     an object of names and values; or columns called group.NAME; or one of `GROUP_COLUMNS`
    meta       an object that is carried along; or one of `META_COLUMNS`
    messages   instead of question and answer: ms-swift rows {"messages", "audios"}, OpenAI or HF parts

So the rows of MMAU, MMAR, MMSU, AIR-Bench, Kimi-Audio-Evalkit and ms-swift read as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from earnest.audio import Clip
from earnest.cells import (
    CellFault,
    answer_cell,
    choices_cell,
    decoded_seconds,
    groups_cell,
    json_cell,
    messages_cells,
    object_cell,
    segments_cell,
    shorten,
    text_cell,
)
from earnest.conversation import Audio, Conversation, Part, Text
from earnest.errors import AudioError, ManifestError
from earnest.files import write_json_lines
from earnest.tabular import Faults, Row, read_rows

RULES: tuple[str, ...] = ("option", "mmau", "letter")
"""How an answer may be matched; `earnest.grading` implements them."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "index"),
    "audio": ("audio", "audio_path", "audio_id", "audios", "file"),
    "question": ("question", "instruction"),
    "choices": ("choices", "options"),
    "answer": ("answer", "answer_gt"),
    "evidence": ("evidence", "segments"),
    "rule": ("rule",),
    "groups": ("groups",),
    "meta": ("meta",),
    "messages": ("messages",),
}
"""Field to the column names under which it may stand."""
GROUP_COLUMNS: tuple[str, ...] = (
    "modality", "task", "task_name", "category", "sub-category", "subset", "dataset", "dataset_name",
    "difficulty", "template", "snr_db", "hops", "language", "speaker", "split",
)  # fmt: skip
META_COLUMNS: tuple[str, ...] = (
    "timestamp", "thinking", "cue", "url", "source",
    "model_output", "model_prediction", "answer_prediction", "response",
)  # fmt: skip
_CHOICE_COLUMN = re.compile(r"choice_([a-z])")
_NAMES = {alias: name for name, aliases in COLUMNS.items() for alias in aliases}


@dataclass(frozen=True)
class Example:
    """One question.

    Attributes:
        id: unique in its manifest.
        audio: clips, or paths that are loaded when they are asked for (and not kept).
        question: what is asked.
        choices: the options, at least two; None for an open question.
        answer: the right answer, one of the choices; None where it is withheld.
        groups: name to value, by which results are split (modality, template, ...).
        evidence: where in the clip the answer lies, as (start_s, end_s); None if unknown.
        rule: how a reply is matched, one of `RULES`.
        meta: carried along, never shown to a model.
    """

    id: str
    audio: tuple[Clip | Path, ...]
    question: str
    choices: tuple[str, ...] | None = None
    answer: str | None = None
    groups: dict[str, str] = field(default_factory=dict[str, str], hash=False)
    evidence: tuple[tuple[float, float], ...] | None = None
    rule: str = "option"
    meta: dict[str, Any] = field(default_factory=dict[str, Any], hash=False)

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All clips, loaded now.

        Raises:
            AudioError: a file cannot be read.
        """
        return tuple(audio if isinstance(audio, Clip) else Clip.load(audio) for audio in self.audio)

    @property
    def clip(self) -> Clip:
        """The only clip, loaded now.

        Raises:
            AudioError: the file cannot be read, or there is not exactly one clip.
        """
        if len(self.audio) != 1:
            raise AudioError(f"{self.id} has {len(self.audio)} clips, 1 is needed: use `clips`")
        return self.clips[0]

    def with_clips(self, *clips: Clip) -> Example:
        """The same question about other clips."""
        return replace(self, audio=clips)

    def conversation(self, instruction: str | None = None) -> Conversation:
        """The question as one user turn: the audio first, then the text.

        Args:
            instruction: a last line, such as how to answer or that "I don't know" is allowed.

        Raises:
            AudioError: a file cannot be read.
        """
        text = f"\n\n{self.question}"
        if self.choices:
            text += f"\nChoices: {'; '.join(self.choices)}."
        if instruction:
            text += f"\n{instruction}"
        parts: list[Part] = [Audio(clip) for clip in self.clips]
        return Conversation().user(*parts, Text(text))


def load_manifest(path: Path | str, *, need_answers: bool = True, n_clips: int | None = None) -> list[Example]:
    """Reads a manifest and checks all of it before anything runs; its audio files are decoded, each of them once.

    Args:
        path: a .jsonl, .json, .csv or .tsv file.
        need_answers: whether a row without an answer is a fault (else its `answer` is None).
        n_clips: how many clips a row must have; None for any number.

    Raises:
        ManifestError: every fault of the file at once, each with its line.
    """
    path = Path(path)
    faults = Faults()
    reader = _Reader(path.parent, need_answers, n_clips, faults)
    examples = [reader.read(row) for row in read_rows(path, faults)]
    faults.settle(path, examples, "no rows: give at least one with audio, question and answer")
    return examples


def save_manifest(examples: Iterable[Example], path: Path | str) -> None:
    """Writes a JSONL manifest atomically; clips that are no files yet become WAV files in `clips/` beside it.

    Paths inside the manifest's folder are written relative to it, so that the folder can be moved. The WAV
    files have 16 bits (see `Clip.wav_bytes`).

    Raises:
        ManifestError: the suffix is not .jsonl.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise ManifestError(str(path), [f"the suffix is {path.suffix!r}: manifests are written as .jsonl"])
    write_json_lines(path, (_to_row(example, path.parent) for example in examples))


def _to_row(example: Example, folder: Path) -> dict[str, Any]:
    audio = [_saved(audio, folder) for audio in example.audio]
    row: dict[str, Any] = {
        "id": example.id,
        "audio": audio[0] if len(audio) == 1 else audio,
        "question": example.question,
        "choices": example.choices,
        "answer": example.answer,
        "groups": example.groups or None,
        "evidence": example.evidence,
        "rule": example.rule,
        "meta": example.meta or None,
    }
    return {name: value for name, value in row.items() if value is not None}


def _saved(audio: Clip | Path, folder: Path) -> str:
    if isinstance(audio, Clip):
        audio = audio.kept_in(folder / "clips")
    file, home = audio.resolve(), folder.resolve()
    return file.relative_to(home).as_posix() if file.is_relative_to(home) else str(file)


class _Reader:
    """Turns rows into examples; all that is wrong goes to `faults`."""

    def __init__(self, folder: Path, need_answers: bool, n_clips: int | None, faults: Faults) -> None:
        self.folder = folder
        self.need_answers = need_answers
        self.n_clips = n_clips
        self.faults = faults
        self.line_of_id: dict[str, int] = {}

    def read(self, row: Row) -> Example:
        """One example; where a cell is at fault the example holds a stand-in and is never returned."""
        fields, groups, meta = self._columns(row)
        choices = self._cell(row, None, lambda: choices_cell(fields.get("choices")))
        audio = self._cell(row, (), lambda: self._audio(row, fields.get("audio")))
        rule = str(fields.get("rule", "option"))
        if rule not in RULES:
            self.faults.add(row.line, f"rule {rule!r} is unknown: give one of {', '.join(RULES)}")
        elif rule != "option" and choices is None and "choices" not in fields:
            self.faults.add(row.line, f"rule {rule!r} needs choices: add the column or use the rule 'option'")
        return Example(
            id=self._id(row, fields.get("id")),
            audio=audio,
            question=self._cell(
                row, "", lambda: text_cell("question", fields["question"]) if "question" in fields else ""
            ),
            choices=choices,
            answer=self._cell(row, None, lambda: answer_cell(fields.get("answer"), choices)),
            groups=self._cell(row, {}, lambda: {**groups_cell(fields.get("groups")), **groups}),
            evidence=self._cell(row, None, lambda: self._evidence(fields.get("evidence"), audio)),
            rule=rule,
            meta={**meta, **self._cell(row, {}, lambda: object_cell("meta", fields.get("meta")))},
        )

    def _cell(self, row: Row, otherwise: Any, read: Any) -> Any:
        try:
            return read()
        except CellFault as fault:
            self.faults.add(row.line, str(fault))
            return otherwise

    def _columns(self, row: Row) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
        """Sorts the cells into fields, groups and meta; unknown, missing and doubled columns are faults."""
        fields: dict[str, Any] = {}
        groups: dict[str, str] = {}
        meta: dict[str, Any] = {}
        letters: dict[str, Any] = {}
        excused: set[str] = set()
        for column, value in row.cells.items():
            if value is None:
                continue
            if column in _NAMES:
                if _NAMES[column] in fields:
                    self.faults.add(row.line, f"column {column!r} says '{_NAMES[column]}' a second time: drop one")
                fields[_NAMES[column]] = value
            elif column in GROUP_COLUMNS or column.startswith("group."):
                groups[column.removeprefix("group.")] = str(value)
            elif column in META_COLUMNS:
                meta[column] = value
            elif _CHOICE_COLUMN.fullmatch(column):
                letters[column] = value
            else:
                close = difflib.get_close_matches(column.lower(), [*_NAMES, *GROUP_COLUMNS], n=1, cutoff=0.7)
                excused |= {_NAMES[name] for name in close if name in _NAMES}
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(COLUMNS)}, group.NAME"
                self.faults.add(row.line, f"unknown column {column!r}: {hint}")
        if letters and "choices" in fields:
            self.faults.add(row.line, f"column {min(letters)!r} says 'choices' a second time: drop one")
        elif letters:
            fields["choices"] = [letters[column] for column in sorted(letters)]
            wanted = [f"choice_{chr(ord('a') + place)}" for place in range(len(letters))]
            if absent := [column for column in wanted if column not in letters]:
                # The answer "C" would otherwise name another choice than the author meant.
                self.faults.add(row.line, f"{absent[0]!r} is empty although {max(letters)!r} is not: leave no gap")
        if "messages" in fields:
            fields = {**fields, **self._cell(row, {}, lambda: messages_cells(fields, self.folder))}
            excused |= {"audio", "question"}
        for name in ("audio", "question", "answer") if self.need_answers else ("audio", "question"):
            # A misspelt column is one fault, not also a missing one.
            if name not in fields and name not in excused:
                self.faults.add(row.line, f"no {name!r}: the column is missing or empty")
        return fields, groups, meta

    def _id(self, row: Row, value: Any) -> str:
        name = f"line-{row.line}" if value is None else str(value)
        first = self.line_of_id.setdefault(name, row.line)
        if first != row.line:
            self.faults.add(row.line, f"id {name!r} stands on line {first} already: ids must be unique")
        return name

    def _audio(self, row: Row, value: Any) -> tuple[Clip | Path, ...]:
        if value is None:
            return ()
        if isinstance(value, str) and value.lstrip().startswith("["):
            value = json_cell("audio", value)
        values: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
        audio: list[Clip | Path] = []
        for item in values:
            if isinstance(item, Clip):
                audio.append(item)
            elif isinstance(item, str):
                path = self.folder / item
                if isinstance(fault := decoded_seconds(path), CellFault):
                    self.faults.add(row.line, f"audio {shorten(item)!r} {fault}")
                audio.append(path)
            else:
                raise CellFault(f"audio is a {type(item).__name__}: give a path or a list of paths")
        if self.n_clips is not None and len(audio) != self.n_clips:
            raise CellFault(f"{len(audio)} clips in a row: {self.n_clips} is asked about")
        return tuple(audio)

    def _evidence(self, value: Any, audio: Sequence[Clip | Path]) -> tuple[tuple[float, float], ...] | None:
        if value is None:
            return None
        segments = segments_cell(value)
        ends = [decoded_seconds(item) if isinstance(item, Path) else item.duration_s for item in audio]
        known = [end for end in ends if not isinstance(end, CellFault)]
        for start_s, end_s in segments:
            if not 0 <= start_s < end_s:
                raise CellFault(f"evidence {start_s:g}-{end_s:g} s is no segment: it needs 0 <= start < end")
            # 0.05 s: MP3 files hold whole frames.
            if known and end_s > max(known) + 0.05:
                raise CellFault(f"evidence {start_s:g}-{end_s:g} s ends after the clip ({max(known):.2f} s)")
        return segments
