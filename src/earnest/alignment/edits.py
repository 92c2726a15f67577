"""An edited reply: how the reply is shown to who edits it, how the edit is read back, and when it is no target.

Tags are renamed while a reply is edited, so that the rephraser does not take them for its own:
`<think>` is `[think]`, `</answer>` is `[/answer]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from earnest.alignment.asking import THOUGHT
from earnest.alignment.leaks import leak

SHORTEST, LONGEST = 0.5, 1.5
"""Of an edit, as a share of what was edited, in characters (ALARM, section 3)."""
CUT_SLACK_WORDS = 3
"""By how many words an edit may go beyond the place where a cut reply breaks off."""
EXACT_WORDS = 3
"""At most so many are changed at a place that betrays, where an edit must be exact ("the text mentions")."""
_TAG = re.compile(r"</?(?:think|answer|seg)>")
_OWN = re.compile(r"<(/?)(think|answer)>")
_RENAMED = re.compile(r"\[(/?)(think|answer)\]")
_NUMBER = re.compile(r"\d+")
_ANSWERED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_OPEN, _CLOSE = "<answer>", "</answer>"


class Reason(StrEnum):
    """How a target came about, or why there is none."""

    REPHRASED = "rephrased"
    NO_LEAK = "no leak"
    """Nothing was to be hidden, and rows of this kind were not to be edited."""
    INSTRUCTION = "spoken instruction"
    """The audio is the request: nothing is to be hidden."""
    RAW_FAILED = "no reply"
    RAW_EMPTY = "empty reply"
    RAW_CUT = "cut"
    REPHRASE_FAILED = "rephrasing failed"
    NO_ANSWER = "no answer tag"
    LEAKS = "still leaks"
    LENGTH = "length"
    TAGS = "tags"
    COMPLETED = "completed"
    """R0 was cut, and the edit goes on behind the cut."""
    CHANGED = "changed"
    """The edit has other figures (times, counts) than R0, another answer, or, where it must be exact, more changed
    words than those that betray: what is wrong in R0 stays wrong in R."""
    ANSWER_TOKENS = "answer tokens"


FAILED = frozenset({Reason.RAW_FAILED.value, Reason.REPHRASE_FAILED.value})
"""The request failed: it may be asked again."""
KEPT_RAW = "kept raw: "
"""Before the reason why an edit was not taken, where R0 is kept in its place."""


@dataclass(frozen=True)
class Edit:
    """What came of an edit: the text, or why it is none."""

    text: str | None
    reason: Reason


def renamed(reply: str, *, spaced: bool) -> str:
    """A reply with its tags renamed.

    Args:
        reply: R0.
        spaced: whether a blank stands before a closing tag and between two tags, as pocket's LLM learnt it.
    """
    if not spaced:
        return _OWN.sub(r"[\1\2]", reply)
    found = re.sub(r"</(think|answer)>", r" [/\1]", _OWN.sub(_opened, reply))
    return found.replace("[/think][answer]", "[/think] [answer]")


def restored(edited: str, *, spaced: bool) -> str:
    """Inverse of `renamed`."""
    if not spaced:
        return _RENAMED.sub(r"<\1\2>", edited)
    found = re.sub(r"\s*\[(/?)(think|answer)\]", r"<\1\2>", edited)
    return found.replace("</think> <answer>", "</think><answer>")


def read_edit(said: str, raw: str, *, cut: bool, spaced: bool, exact: bool = False) -> Edit:
    """Takes the edited reply out of what a rephraser said, and judges it.

    Args:
        said: all that it said, its own thinking included.
        raw: R0.
        cut: whether R0 was cut at its limit.
        spaced: as in `renamed`.
        exact: whether words that betray nothing must stay as they are, all of them, as pocket's LLM learnt it.
    """
    inner = _answer_in(said)
    if inner is None:
        return Edit(None, Reason.NO_ANSWER)
    # Blanks at the ends are the format's, not the reply's.
    text = restored(inner, spaced=spaced).strip()
    text = raw[: len(raw) - len(raw.lstrip())] + text + raw[len(raw.rstrip()) :]
    if leak(text):
        return Edit(None, Reason.LEAKS)
    if not SHORTEST <= len(text) / len(raw) <= LONGEST:
        return Edit(None, Reason.LENGTH)
    if _TAG.findall(text) != _TAG.findall(raw):
        return Edit(None, Reason.TAGS)
    if cut and _goes_on(raw.split(), text.split()):
        return Edit(None, Reason.COMPLETED)
    if _figures(text, raw, cut) or _answered(text, raw) or (exact and _elsewhere(text, raw)):
        return Edit(None, Reason.CHANGED)
    return Edit(text, Reason.REPHRASED)


def _figures(text: str, raw: str, cut: bool) -> bool:
    """Whether the numbers of the two differ; of a cut one the edit may hold fewer."""
    own, given = _NUMBER.findall(text), _NUMBER.findall(raw)
    return own != (given[: len(own)] if cut else given)


def _answered(text: str, raw: str) -> bool:
    """Whether the answers in tags differ, where that of R0 betrays nothing that must be edited."""
    own, given = (_ANSWERED.findall(one) for one in (text, raw))
    return any(one.split() != two.split() for one, two in zip(own, given, strict=False) if not leak(two))


def _elsewhere(text: str, raw: str) -> bool:
    """Whether more words are changed than those that betray, with their article and verb."""
    before, after = raw.split(), text.split()
    edits = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [before[start:end] for kind, start, end, _, _ in edits if kind != "equal"]
    return any(len(words) > EXACT_WORDS or not leak(" ".join(words)) for words in changed)


def _opened(tag: re.Match[str]) -> str:
    return tag[0] if tag[1] else f"[{tag[2]}]"


def _answer_in(said: str) -> str | None:
    """What stands in the answer's tags behind the rephraser's own thinking, which may mention them."""
    if not said.lstrip().startswith(_OPEN):
        thought, closed, rest = said.partition(THOUGHT)
        said = rest if closed else thought
    _, opened, rest = said.partition(_OPEN)
    inner, closed, _ = rest.rpartition(_CLOSE)
    return inner if opened and closed else None


def _goes_on(before: list[str], after: list[str]) -> bool:
    """Whether more words follow the last ones that both have in common than did before."""
    same = [block for block in SequenceMatcher(None, before, after, autojunk=False).get_matching_blocks() if block.size]
    if not same:
        return False
    left = len(before) - same[-1].a - same[-1].size
    added = len(after) - same[-1].b - same[-1].size
    return added > left + CUT_SLACK_WORDS
