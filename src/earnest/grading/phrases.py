"""Phrase lists as data files: what an abstention and a refusal sound like."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_SPACED = re.compile(r"[\u0020-\u052f\u1e00-\u1fff]")
"""Letters of scripts that part words by blanks: Latin, Greek, Cyrillic."""
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'"})


@dataclass(frozen=True)
class Phrases:
    """One list.

    Attributes:
        anywhere: matches a phrase as whole words anywhere.
        whole: phrases that count only if they are all that is said.
    """

    anywhere: re.Pattern[str]
    whole: frozenset[str]

    def find(self, plain: str) -> re.Match[str] | None:
        """The first phrase in a text that `plainly` has made plain."""
        if plain.strip(" .!?,;:\"'()[]*") in self.whole:
            return re.match(".*", plain)
        return self.anywhere.search(plain)


def plainly(text: str) -> str:
    """Lower case, straight apostrophes, single blanks, no Markdown stars."""
    return " ".join(text.translate(_QUOTES).replace("*", "").lower().split())


@cache
def load_phrases(name: str) -> Phrases:
    """Reads `data/NAME.txt`: a phrase per line, `= phrase` if it must be all that is said, `#` comments."""
    lines = read_lines(Path(__file__).parent / "data" / f"{name}.txt")
    anywhere = [plainly(line) for line in lines if not line.startswith("=")]
    whole = frozenset(plainly(line.removeprefix("=")) for line in lines if line.startswith("="))
    return Phrases(any_of(anywhere), whole)


def read_lines(file: Path) -> list[str]:
    """The phrases of a list, without comments and blank lines."""
    lines = (line.strip() for line in file.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def any_of(phrases: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the phrases as whole words in a text that `plainly` has made plain, the longest first."""
    return re.compile("|".join(_bounded(phrase) for phrase in sorted(dict.fromkeys(phrases), key=len, reverse=True)))


def _bounded(phrase: str) -> str:
    """A phrase as whole words; scripts that write no blanks, or add endings, have no such bounds."""
    before = r"(?<!\w)" if _SPACED.match(phrase[0]) else ""
    after = r"(?!\w)" if _SPACED.match(phrase[-1]) else ""
    return before + re.escape(phrase) + after
