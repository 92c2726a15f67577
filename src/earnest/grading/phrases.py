"""Phrase lists as data files: what an abstention and a refusal sound like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

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
    text = (Path(__file__).parent / "data" / f"{name}.txt").read_text("utf-8")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    anywhere = [plainly(line) for line in lines if not line.startswith("=")]
    whole = frozenset(plainly(line.removeprefix("=")) for line in lines if line.startswith("="))
    pattern = "|".join(re.escape(phrase) for phrase in sorted(anywhere, key=len, reverse=True))
    return Phrases(re.compile(rf"(?<!\w)(?:{pattern})(?!\w)"), whole)
