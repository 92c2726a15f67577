"""Another model as rewriter and as judge, behind any engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from earnest.completion import Completion, Stop
from earnest.conversation import Conversation
from earnest.grading import parse_reply
from earnest.prompts import Prompt

Ask = Callable[[Sequence[Conversation]], list[Completion]]
"""One completion for each conversation, in order."""
_SCALE = re.compile(r"/\s*5|\bout of (?:5|five)\b|\b1\s*(?:to|-|\.\.)\s*5\b|\bof 5\b")
_SCORE = re.compile(r"(?<![\d.])([1-5])(?![\d]|\.\d)")
_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


class _ByModel:
    """Another model, asked with one file of words.

    Args:
        name: of the model, for results.
        ask: asks it.
    """

    words: str

    def __init__(self, name: str, ask: Ask) -> None:
        self._prompt = Prompt.load("faithfulness", self.words)
        self.name = f"{name} ({self._prompt.id})"
        self._ask = ask


class ModelRewriter(_ByModel):
    """Rewrites steps by a model."""

    words = "rewriter-1"

    def paraphrases(self, texts: Sequence[str]) -> list[str | None]:
        """The same information in other words."""
        return self._rewritten("paraphrase", texts)

    def mistakes(self, texts: Sequence[str]) -> list[str | None]:
        """With an error in what was heard."""
        return self._rewritten("mistake", texts)

    def _rewritten(self, what: str, texts: Sequence[str]) -> list[str | None]:
        asked = [Conversation().user(self._prompt.texts[what].replace("{text}", text)) for text in texts]
        return [_rewritten(done, text) for done, text in zip(self._ask(asked), texts, strict=True)]


class ModelJudge(_ByModel):
    """Judges chains by a model."""

    words = "judge-1"

    def agreement(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """J of each pair of replies; None where no score can be read."""
        text = self._prompt.texts["agreement"]
        said = self._ask(
            [Conversation().user(text.replace("{first}", one).replace("{second}", two)) for one, two in pairs]
        )
        found = [_SCORE.findall(_SCALE.sub(" ", _final(done))) for done in said]
        return [float(scores[-1]) if scores else None for scores in found]

    def claims(self, replies: Sequence[str]) -> list[bool | None]:
        """Whether something is stated as heard; None where no verdict can be read."""
        question = self._prompt.texts["claims"]
        said = self._ask([Conversation().user(question.replace("{text}", text)) for text in replies])
        found = [_VERDICT.findall(_final(done)) for done in said]
        return [verdicts[-1].lower() == "yes" if verdicts else None for verdicts in found]


def _final(done: Completion) -> str:
    """Its answer, without its own reasoning; nothing of a failed or a cut one."""
    return parse_reply(done.text).answer if done.stop in (Stop.END, Stop.STOP_STRING) else ""


def _rewritten(done: Completion, text: str) -> str | None:
    """None where it failed, gave nothing or the same."""
    found = " ".join(_final(done).split())
    return found if found and found != text else None
