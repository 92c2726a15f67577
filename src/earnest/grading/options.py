"""Which of the choices does an answer name? One matcher for audits, rewards and re-scoring.

An answer names a choice by its text ("a dog", "The dog."), by its letter ("B", "(b)", "option B"), by both
("B. dog"), or by mentioning it in a sentence ("I hear a dog, not a cat"). A letter counts only where it can
be nothing else: "I hear" is not option I and "A dog" is not option A. Naming two choices is naming none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from earnest.grading.phrases import plainly

_WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W_]+(?:'[^\W_]+)?")
_ARTICLES = frozenset(("a", "an", "the"))
_NEGATIONS = frozenset(("not", "no", "never", "without", "isn't", "wasn't", "neither", "nor"))
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        (
            "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
            "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
            "nineteen", "twenty",
        )
    )
}  # fmt: skip
_LETTER_ALONE = re.compile(r"\W*(?:option|choice|answer)?\W*\b([a-z])\b\W*")
_LETTER_FIRST = re.compile(r"\W*(?:(?:option|choice)\s+([a-z])\b|\(([a-z])\)|([a-z])\s*[.):](?!\w)|([a-z])\s+-\s)")
_LETTER_STATED = re.compile(r"\W*(?:([b-hj-z])\b(?!')|([ai])(?=\s*(?:[.,;:)]|$|because\b|since\b|as\b)))")
_LETTER_CHOSEN = re.compile(r"\b(?:option|choice)\s+\(?([a-z])\b(?!')")
_FINAL = re.compile(r"\b(?:(?:final|correct|right|best|my|the)\s+)*(?:answer|option|choice)(?:\s+is\b|\s*:)")


@dataclass(frozen=True)
class OptionMatch:
    """What an answer names.

    Attributes:
        index: place of the choice; None if no single one is named.
        how: "text", "letter", "letter and text" or "mention"; empty if none is named.
        named: places of all choices that are named; several, or none, where `index` is None.
        detail: why no single one is named.
    """

    index: int | None
    how: str = ""
    named: tuple[int, ...] = ()
    detail: str = ""


def words(text: str) -> tuple[str, ...]:
    """The words of a text in a form that can be compared: lower case, no articles, numbers as digits."""
    found: list[str] = _WORD.findall(plainly(text))
    # A text of nothing but articles is the option "A".
    kept = [word for word in found if word not in _ARTICLES] or found
    return tuple(_NUMBERS.get(word, word) for word in kept)


def match_option(answer: str, choices: Sequence[str]) -> OptionMatch:
    """Finds the one choice that an answer names.

    Args:
        answer: the final answer, without the reasoning.
        choices: the options, in the order in which letters count them.
    """
    plain = plainly(answer)
    # Letters come before words, in which articles are dropped: "(a) cat" is more than "cat".
    if (exact := _literal(plain, choices)) is not None:
        return OptionMatch(exact, "text", (exact,))
    if (alone := _LETTER_ALONE.fullmatch(plain)) and (index := _place(alone.group(1), choices)) is not None:
        return OptionMatch(index, "letter", (index,))
    if first := _LETTER_FIRST.match(plain):
        index = _place(next(group for group in first.groups() if group), choices)
        if index is not None:
            return _with_letter(index, plain[first.end() :], choices)
    if (exact := _equal(plain, choices)) is not None:
        return OptionMatch(exact, "text", (exact,))
    final = list(_FINAL.finditer(plain))
    if final and (found := _stated(plain[final[-1].end() :], choices)):
        return found
    named = mentions(plain, choices)
    letters = _LETTER_CHOSEN.findall(plain)
    chosen = {index for letter in letters if (index := _place(letter, choices)) is not None}
    if len(chosen) == 1 and not named:
        index = chosen.pop()
        return OptionMatch(index, "letter", (index,))
    return _only(named, choices)


def mentions(text: str, choices: Sequence[str]) -> tuple[int, ...]:
    """Places of the choices that a text mentions as whole words, unless it negates them ("not a cat").

    A choice inside a longer one that is mentioned there ("dog" in "dog barking") does not count by itself.
    """
    said = words(text)
    spans: list[tuple[int, int, int]] = []
    for index, choice in enumerate(choices):
        wanted = words(choice)
        spans += [
            (start, start + len(wanted), index)
            for start in range(len(said) - len(wanted) + 1)
            if wanted and said[start : start + len(wanted)] == wanted
        ]
    kept = {
        index
        for start, end, index in spans
        if not (start and said[start - 1] in _NEGATIONS)
        and not any(a <= start and end <= b and b - a > end - start for a, b, _ in spans)
    }
    return tuple(sorted(kept))


def _literal(plain: str, choices: Sequence[str]) -> int | None:
    """The choice whose text this is, but for case and the marks around it."""
    said = plain.strip(" .\"'")
    same = [index for index, choice in enumerate(choices) if plainly(choice).strip(" .\"'") == said]
    return same[0] if len(same) == 1 else None


def _equal(plain: str, choices: Sequence[str]) -> int | None:
    """The choice whose text this is, literally or else word for word ("2 dogs" for "two dogs")."""
    if (literal := _literal(plain, choices)) is not None:
        return literal
    said = words(plain)
    same = [index for index, choice in enumerate(choices) if said and words(choice) == said]
    return same[0] if len(same) == 1 else None


def _with_letter(index: int, rest: str, choices: Sequence[str]) -> OptionMatch:
    exact = _equal(rest, choices)
    named = mentions(rest, choices) if exact is None else (exact,)
    if index in named:
        return OptionMatch(index, "letter and text", (index,))
    if named:
        letter, other = chr(ord("A") + index), choices[named[0]]
        return OptionMatch(
            None, "", (index, *named), f"the letter {letter} is {choices[index]!r}, the text is {other!r}"
        )
    return OptionMatch(index, "letter", (index,))


def _stated(rest: str, choices: Sequence[str]) -> OptionMatch | None:
    """What follows the last "the answer is"; None if that names nothing."""
    sentence = re.split(r"(?<=[^\d\W]{2})[.!?](?:\s|$)", rest, maxsplit=1)[0]
    exact = _equal(sentence, choices)
    if exact is not None:
        return OptionMatch(exact, "text", (exact,))
    if stated := _LETTER_STATED.match(sentence):
        index = _place(stated.group(1) or stated.group(2), choices)
        if index is not None:
            return _with_letter(index, sentence[stated.end() :], choices)
    named = mentions(sentence, choices)
    return _only(named, choices) if named else None


def _only(named: Sequence[int], choices: Sequence[str]) -> OptionMatch:
    if len(named) == 1:
        return OptionMatch(named[0], "mention", (named[0],))
    if named:
        return OptionMatch(
            None, "", tuple(named), f"names {len(named)} choices: {', '.join(choices[i] for i in named)}"
        )
    return OptionMatch(None, detail="names none of the choices")


def _place(letter: str, choices: Sequence[str]) -> int | None:
    index = ord(letter) - ord("a")
    return index if index < len(choices) else None
