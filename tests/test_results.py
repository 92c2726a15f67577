"""The claims, and the texts that are written from them."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", ROOT / "bench" / "results.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["results"] = module
    spec.loader.exec_module(module)
    return module


results = load_script()
CLAIM = results.Claim(
    claim="pocket.accuracy",
    value=0.746,
    low=0.713,
    high=0.777,
    n=700,
    unit="fraction",
    seed=1,
    split="test",
    command="earnest audit pocket",
    seconds=61.0,
    machine="a machine",
    model="0123456789abcdef",
    goal=">= 0.7",
)


def test_the_generated_texts_say_what_the_claims_say() -> None:
    assert results.differing(results.read_claims()) == [], "run `make results`"


def test_no_claim_was_measured_on_other_weights_than_those_shipped() -> None:
    claims = [claim for claim in results.read_claims() if claim.model is not None]
    if claims:
        stale = results.stale(claims, results.shipped_keys())
        assert [claim.claim for claim in stale] == [], "measure again: `make bench`"


def test_a_claim_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = results.write_claim(CLAIM, tmp_path)
    assert path.name == "pocket.accuracy.json"
    assert results.read_claims(tmp_path) == [CLAIM]


def test_faults_of_claims_are_named_all_at_once(tmp_path: Path) -> None:
    results.write_claim(replace(CLAIM, value=0.6), tmp_path)
    row = {**asdict(CLAIM), "colour": "red"}
    del row["seconds"]
    (tmp_path / "other.json").write_text(json.dumps(row))
    with pytest.raises(SystemExit) as stop:
        results.read_claims(tmp_path)
    assert "misses the goal >= 0.7" in str(stop.value)
    assert "colour, seconds" in str(stop.value)


def test_an_unmet_goal_stands_there_with_its_reason() -> None:
    page = results.page([replace(CLAIM, value=0.6, note="the encoder is too small")])
    assert "**not met**" in page
    assert "the encoder is too small" in page


def test_the_page_and_the_headline_hold_number_interval_and_command() -> None:
    for text in (results.page([CLAIM]), results.headline([CLAIM])):
        assert "74.6 % [71.3, 77.7]" in text
        assert "`earnest audit pocket`" in text
    assert results.headline([]) == "not measured yet"


def test_text_goes_between_its_markers() -> None:
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb"
    assert results.between(text, "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb"
    with pytest.raises(SystemExit, match="markers"):
        results.between("a", "x", "new")


def test_stale_claims_are_those_of_other_weights() -> None:
    free = replace(CLAIM, claim="world.times_real_time", model=None)
    assert results.stale([CLAIM, free], {"0123456789abcdef"}) == []
    assert results.stale([CLAIM, free], {"another"}) == [CLAIM]


def test_a_goal_may_be_about_the_interval_too() -> None:
    gain = replace(CLAIM, value=0.45, low=0.26, high=math.inf, goal=">= 0.4, low > 0.25", unit="log10")
    assert gain.met
    assert not replace(gain, low=0.25).met
    assert not replace(gain, value=0.39).met
    assert gain.text == "0.45 [0.26, inf]"


def test_what_is_no_number_is_written(tmp_path: Path) -> None:
    row = json.loads(results.write_claim(replace(CLAIM, value=math.nan, low=-math.inf), tmp_path).read_text())
    assert (row["value"], row["low"]) == ("nan", "-inf")


def test_infinity_reads_back(tmp_path: Path) -> None:
    gain = replace(CLAIM, value=math.inf, high=math.inf)
    path = results.write_claim(gain, tmp_path)
    assert json.loads(path.read_text())["value"] == "inf"
    assert results.read_claims(tmp_path) == [gain]


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "bench").glob("*.py")))
def test_every_script_finds_what_it_imports(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if script == "server_client":
        pytest.importorskip("inspect_ai")
    monkeypatch.syspath_prepend(ROOT / "bench")
    importlib.import_module(script)
