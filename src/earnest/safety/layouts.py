"""The forms in which sets of requests are published: which columns tell a set, which of its requests are harmful.

Our own layout has the columns id, text, harmful (true or false), kind, pair and audio, of which text and harmful are
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from earnest.cells import CellFault

OWN = "earnest"
"""Name of our own layout."""

Cells: TypeAlias = Mapping[str, Any]
Harm: TypeAlias = Callable[[Cells, str], bool | None]
"""Whether a row's request is harmful, by its cells and its file's name; None where the row does not tell."""


@dataclass(frozen=True)
class Layout:
    """The form of one published set.

    Attributes:
        needs: the columns that tell it.
        text: columns of the request, joined; the last one is needed, what stands before it is context.
        harm: which of its requests are harmful.
        id: columns of the id, joined; without them a request is named by its line.
        kind: column of the category.
        pair: column that tells twins.
        audio: column of a sound file.
        by_name: taken only where it is named, since its columns tell nothing.
        one_per_text: rows of one text are answers to one request.
    """

    needs: frozenset[str]
    text: tuple[str, ...]
    harm: Harm
    id: tuple[str, ...] = ()
    kind: str = ""
    pair: str = ""
    audio: str = ""
    by_name: bool = False
    one_per_text: bool = False


def _all(_cells: Cells, _name: str) -> bool:
    return True


def _aor_bench(cells: Cells, _name: str) -> bool:
    if "audio" not in cells:
        raise CellFault("no 'audio': without the sounds around the words a request may not be benign")
    return False


def _by_name(words: Mapping[str, bool], published: str) -> Harm:
    """Told by words in the file's name alone."""

    def harm(_cells: Cells, name: str) -> bool:
        told = {harmful for word, harmful in words.items() if word in name.lower()}
        if len(told) != 1:
            raise CellFault(f"the name {name!r} does not tell harmful from benign: call the file {published}")
        return told.pop()

    return harm


def _harmbench(cells: Cells, _name: str) -> bool:
    if "ImageFileName" in cells:
        raise CellFault("the request is about an image ('ImageFileName'): take the text behaviours")
    return True


def _beavertails(cells: Cells, _name: str) -> bool | None:
    return None if _word("is_safe", cells["is_safe"], {"true": True, "false": False}) else True


def _xstest(cells: Cells, _name: str) -> bool:
    label = cells.get("label")
    if label is None:
        return str(cells["type"]).startswith("contrast_")
    return _word("label", label, {"unsafe": True, "safe": False})


def _own(cells: Cells, _name: str) -> bool:
    return _word("harmful", cells["harmful"], {"true": True, "false": False})


def _word(column: str, value: Any, words: Mapping[str, bool]) -> bool:
    if (word := str(value).strip().lower()) not in words:
        raise CellFault(f"{column} is {value!r}: give {' or '.join(words)}")
    return words[word]


LAYOUTS: dict[str, Layout] = {
    OWN: Layout(frozenset({"text", "harmful"}), ("text",), _own, id=("id",), kind="kind", pair="pair", audio="audio"),
    "advbench": Layout(frozenset({"goal", "target"}), ("goal",), _all),
    "harmbench": Layout(
        frozenset({"Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"}),
        # HarmBench's own order: the context, then what is asked about it.
        ("ContextString", "Behavior"),
        _harmbench,
        id=("BehaviorID",),
        kind="SemanticCategory",
    ),
    # FigStep's; `instruction` is the text of its picture. Its topics include legal, financial and medical advice.
    "safebench": Layout(
        frozenset({"category_id", "task_id", "category_name", "question", "instruction"}),
        ("question",),
        _all,
        id=("category_id", "task_id"),
        kind="category_name",
    ),
    "jailbreakbench": Layout(
        frozenset({"Index", "Goal", "Target", "Behavior", "Category"}),
        ("Goal",),
        _by_name({"harmful": True, "benign": False}, "harmful-behaviors or benign-behaviors, as published"),
        id=("Index",),
        kind="Category",
        pair="Index",
    ),
    # `is_safe` judges an answer, not the prompt. A prompt that drew an unsafe answer is taken as harmful; safe answers
    # alone make none benign, since harmful prompts get them too: such a prompt is left out, as one that nothing tells.
    "beavertails": Layout(
        frozenset({"prompt", "response", "category", "is_safe"}),
        ("prompt",),
        _beavertails,
        kind="category",
        one_per_text=True,
    ),
    "beavertails-evaluation": Layout(
        frozenset({"prompt", "category", "category_id"}), ("prompt",), _all, kind="category"
    ),
    # Files without `label` are older: there the type tells.
    "xstest": Layout(frozenset({"prompt", "type"}), ("prompt",), _xstest, id=("id",), kind="type"),
    "or-bench": Layout(
        frozenset({"prompt", "category"}),
        ("prompt",),
        _by_name(
            {"toxic": True, "80k": False, "hard": False},
            "or-bench-80k, or-bench-hard-1k (benign) or or-bench-toxic (harmful), as published",
        ),
        kind="category",
    ),
    # arXiv 2606.21147. The hub has 500 clips of it and no table: list them in one with audio and text (what is said).
    # All are benign by what sounds around the words; the text alone may be harmful, so ask these with their audio.
    "aor-bench": Layout(
        frozenset({"text", "audio"}), ("text",), _aor_bench, id=("id",), kind="kind", audio="audio", by_name=True
    ),
}
"""Name to layout."""
