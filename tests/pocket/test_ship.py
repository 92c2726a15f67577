import json
from pathlib import Path

import pytest

from earnest.errors import RecipeError
from earnest.pocket.ship import CARD, ShipSettings, ship


def _trained(root: Path) -> None:
    folder = root / "adapters"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"_name_or_path": "runs/a", "ears": [{"_name_or_path": "b", "size": 3}]})
    )
    (folder / "model.safetensors").write_bytes(b"0" * 10)
    (folder / "stage.json").write_text(json.dumps({"settings": {}, "seconds": 90.0, "complete": True}))
    (folder / "checkpoint.pt").write_bytes(b"0")


def test_the_model_and_its_card_are_shipped_and_nothing_else(tmp_path: Path) -> None:
    _trained(tmp_path)
    target = tmp_path / "weights"
    target.mkdir()
    (target / "stale.json").write_text("{}")
    ship(ShipSettings(), tmp_path, {"adapters": ShipSettings()}, target, log=lambda _: None)
    assert sorted(path.name for path in target.iterdir()) == ["config.json", "model.safetensors", CARD]
    assert json.loads((target / CARD).read_text())["adapters"]["seconds"] == 90.0
    assert json.loads((target / "config.json").read_text()) == {"ears": [{"size": 3}]}


def test_an_untrained_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="run the stage 'adapters' first"):
        ship(ShipSettings(), tmp_path, {}, tmp_path / "weights")
