"""The LLM answers from textual surrogates and rephrases itself as if it had heard (ALARM, arXiv 2603.09556, section 3).

R0 is the LLM's own reply to surrogate and question. The same LLM, or another one, is given R0 alone and edits what
betrays a text: R. Its own thinking about that is bounded, and is no target. What is no sound edit is rejected with its
reason; R0 stands in its place only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from earnest.alignment.asking import SLICE_ROWS, THINKING_TOKENS, Asking, slices, thought_out
from earnest.alignment.edits import FAILED, KEPT_RAW, Reason, read_edit, renamed
from earnest.alignment.leaks import leak, list_key
from earnest.alignment.rows import Asked, Target, as_kind
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import RecipeError
from earnest.prompts import Prompt, filled
from earnest.run import Generator

WORDS: dict[str, str] = {"general": "rephrase-1", "pocket": "rephrase-pocket-1"}
"""For models that follow instructions, and in the closed language of pocket."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How targets are made.

    Attributes:
        words: key of `WORDS`.
        max_new_tokens: longest R0, in tokens.
        temperature: of R0; 0 is greedy. Edits are greedy.
        top_p: of R0.
        seed: of R0, where it is drawn.
        thinking_tokens: that the rephraser may think before it is made to write; 0 for no bound, which alone works with
            engines that do not go on with a reply.
        only_leaking: whether an R0 without a leak is its own target, unedited; the paper edits all.
        keep_raw: whether R0 is the target where its edit is rejected.
        keep_cut: whether an R0 that was cut at its limit is kept, as a prefix.
        answer_tokens: fewest and most tokens of a target; None for any.
    """

    words: str = "general"
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    thinking_tokens: int = THINKING_TOKENS
    only_leaking: bool = False
    keep_raw: bool = False
    keep_cut: bool = True
    answer_tokens: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            RecipeError: unknown words, a negative bound, or an empty range.
        """
        if self.words not in WORDS:
            raise RecipeError(f"no words called {self.words!r}: known are {', '.join(WORDS)}")
        if self.thinking_tokens < 0:
            raise RecipeError(f"thinking_tokens is {self.thinking_tokens}: give 1 or more, or 0 for no bound")
        if self.answer_tokens and not 0 <= self.answer_tokens[0] <= self.answer_tokens[1]:
            raise RecipeError(f"answer_tokens is {self.answer_tokens}: give the fewest, then the most")

    @property
    def raw_sampling(self) -> Sampling:
        """Of R0."""
        return Sampling(self.max_new_tokens, self.temperature, self.top_p, self.seed)

    def made_of(self, model_key: str, rephraser_key: str) -> dict[str, Any]:
        """All that decides what is made of a row: another run is not continued in the same folder."""
        return {
            "makes": "targets",
            "model_key": model_key,
            "rephraser_key": rephraser_key,
            **asdict(self),
            "prompt": prompt_of(self.words).id,
            "leaks": list_key(),
        }

    @property
    def needs(self) -> tuple[str, ...]:
        """Capabilities that the rephraser must have."""
        return ("continues_assistant",) if self.thinking_tokens else ()


@dataclass(frozen=True)
class Rephrased:
    """A row, and what its rephraser said in full (empty where it was not asked)."""

    row: Target
    said: str = ""


def surrogate_conversation(row: Asked) -> Conversation:
    """What stands for a clip with its question, as the LLM is asked for R0."""
    gap = "\n\n" if row.question else ""
    return Conversation().user(f"<start_audio>{row.surrogate}<end_audio>{gap}{row.question}")


def raw_replies(engine: Generator, rows: Sequence[Asked], asking: Asking, settings: Settings) -> list[Completion]:
    """R0 of each row."""
    return asking(engine, [surrogate_conversation(row) for row in rows], settings.raw_sampling)


def rephrase(
    engine: Generator,
    rephraser: Generator,
    rows: Sequence[Asked],
    asking: Asking,
    settings: Settings,
    *,
    tokens_of: Callable[[str], int] | None = None,
    slice_rows: int = SLICE_ROWS,
    progress: Progress | None = None,
) -> Iterator[list[Rephrased]]:
    """Targets of all rows, slice by slice; each slice's requests are done before it is given out.

    Args:
        engine: the backbone, which gives R0.
        rephraser: who edits: the backbone itself, or another model. See `Settings.needs`.
        rows: what is asked.
        asking: the run.
        settings: how targets are made.
        tokens_of: tokens of a text; needed for `Settings.answer_tokens` alone.
        slice_rows: rows of a slice.
        progress: called with (rows that are done, rows in all).
    """
    assert tokens_of or not settings.answer_tokens, "a limit in tokens needs who counts them"
    done = 0
    for part in slices(rows, slice_rows):
        raws = raw_replies(engine, part, asking, settings)
        wanted = [k for k, row in enumerate(part) if _as_it_is(row, raws[k], settings) is None]
        said = dict(zip(wanted, _edits(rephraser, [raws[k].text for k in wanted], asking, settings), strict=True))
        found = [_target(row, raws[k], said.get(k), settings) for k, row in enumerate(part)]
        yield [_within(each, settings.answer_tokens, tokens_of) for each in found]
        done += len(part)
        if progress:
            progress(done, len(rows))


def prompt_of(words: str) -> Prompt:
    """The words with which is asked for an edit."""
    return Prompt.load("alignment", WORDS[words])


def _as_it_is(row: Asked, raw: Completion, settings: Settings) -> Reason | None:
    """What becomes of a reply that is not edited; None for one that is."""
    if raw.stop is Stop.FAILED:
        return Reason.RAW_FAILED
    if not raw.text.strip():
        return Reason.RAW_EMPTY
    if raw.stop is Stop.LENGTH and not settings.keep_cut:
        return Reason.RAW_CUT
    if row.instruction:
        return Reason.INSTRUCTION
    return Reason.NO_LEAK if settings.only_leaking and not leak(raw.text) else None


def _edits(rephraser: Generator, replies: list[str], asking: Asking, settings: Settings) -> list[Completion]:
    """All that the rephraser says to each reply, its thinking included, and closed where it took too long."""
    words = prompt_of(settings.words)
    spaced = settings.words == "pocket"
    asked = [
        Conversation().user(filled(words.texts["rephrase"], reply=renamed(reply, spaced=spaced))) for reply in replies
    ]
    return thought_out(
        asking,
        rephraser,
        asked,
        # Twice what R0 could have: what is too long is seen to be, not taken for one without an end.
        2 * settings.max_new_tokens,
        thinking_tokens=settings.thinking_tokens,
        closing=words.texts["closing"],
        writes=lambda text: text.lstrip().startswith("<answer>"),
    )


def _target(row: Asked, raw: Completion, edit: Completion | None, settings: Settings) -> Rephrased:
    cut = raw.stop is Stop.LENGTH
    made = as_kind(row, Target, raw=raw.text, cut=cut)
    if edit is None:
        reason = _as_it_is(row, raw, settings)
        assert reason, "only what is not to be edited has no edit"
        kept = reason in (Reason.INSTRUCTION, Reason.NO_LEAK)
        return Rephrased(replace(made, target=raw.text if kept else None, reason=reason.value), raw.error)
    if edit.stop is Stop.FAILED:
        text, reason, said = None, Reason.REPHRASE_FAILED, edit.error
    else:
        closed = settings.words == "pocket"
        read = read_edit(edit.text, raw.text, cut=cut, spaced=closed, exact=closed)
        text, reason, said = read.text, read.reason, edit.text
    if text is None and settings.keep_raw and reason.value not in FAILED:
        return Rephrased(replace(made, target=raw.text, reason=KEPT_RAW + reason.value), said)
    return Rephrased(replace(made, target=text, reason=reason.value), said)


def _within(found: Rephrased, limits: tuple[int, int] | None, tokens_of: Callable[[str], int] | None) -> Rephrased:
    """Rejects a target of too few or too many tokens."""
    target = found.row.target
    if target is None or limits is None or tokens_of is None or limits[0] <= tokens_of(target) <= limits[1]:
        return found
    return replace(found, row=replace(found.row, target=None, reason=Reason.ANSWER_TOKENS.value))
