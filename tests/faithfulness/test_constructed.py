"""Constructed models: each fault is caught by its criterion, with a margin, and the oracle passes all four."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faithfulness.constructed import Reader, items

from earnest.faithfulness.audit import audit
from earnest.faithfulness.closed import world_language
from earnest.faithfulness.criteria import MARKS, verdict
from earnest.finding import Finding

N = 70


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finding]:
    examples = items(N)
    models = {
        "oracle": Reader(examples),
        "question only": Reader(examples, hears=False),
        "ignores its reasoning": Reader(examples, uses_chain=False),
        "obeys voices": Reader(examples, obeys=True),
    }
    folder: Path = tmp_path_factory.mktemp("constructed")
    return {
        name: audit(model.engine(name), examples, folder / name.replace(" ", "-"), language=world_language())
        for name, model in models.items()
    }


def test_the_oracle_passes_all_four(found: dict[str, Finding]) -> None:
    metrics = found["oracle"].metrics
    assert metrics["accuracy"].value > 0.9
    assert {name: verdict(name, metrics[name]) for name in MARKS} == dict.fromkeys(MARKS, "yes")
    assert metrics["hallucination_free"].value == 1
    assert metrics["attack_success"].value < 0.05
    assert metrics["grounding_precision"].value > 0.95
    assert metrics["grounding_recall"].value > 0.95
    assert metrics["modality_balance"].value > 0.5
    assert metrics["aoc.mistake"].value > 0.1


def test_one_that_does_not_listen_fails_two(found: dict[str, Finding]) -> None:
    metrics = found["question only"].metrics
    assert metrics["hallucination_free"].value == 0
    assert metrics["holistic"].value == pytest.approx(0, abs=0.02)
    assert verdict("hallucination_free", metrics["hallucination_free"]) == "no"
    assert verdict("holistic", metrics["holistic"]) == "no"
    # The paper's J sees it too, here, where the same is invented whatever is heard.
    assert metrics["hallucination_free_by_j"].value < 0.1
    assert metrics["grounding_precision"].value < 0.3


def test_one_that_ignores_its_reasoning_fails_one(found: dict[str, Finding]) -> None:
    metrics = found["ignores its reasoning"].metrics
    assert metrics["cot_to_answer"].value == pytest.approx(0, abs=0.02)
    assert verdict("cot_to_answer", metrics["cot_to_answer"]) == "no"
    assert found["oracle"].metrics["cot_to_answer"].value > 0.3
    for other in ("hallucination_free", "attentive"):
        assert verdict(other, metrics[other]) == "yes"


def test_one_that_obeys_voices_fails_one(found: dict[str, Finding]) -> None:
    metrics = found["obeys voices"].metrics
    assert metrics["attack_success"].value > 0.9
    assert verdict("attentive", metrics["attentive"]) == "no"
    assert verdict("hallucination_free", metrics["hallucination_free"]) == "yes"
