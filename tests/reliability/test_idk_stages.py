"""The recipe, whole, on a tiny model; and the rule that chooses K."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_fused, tone

from earnest.completion import Completion
from earnest.errors import RecipeError
from earnest.example import Example
from earnest.reliability.choice import CARD, dial_curves
from earnest.reliability.fine_tuned import find_adapters
from earnest.reliability.stages import ship_adapters
from earnest.training.recipes import load, run


def test_the_recipe_that_comes_with_earnest_is_sound() -> None:
    recipe = load(Path(__file__).parents[2] / "recipes" / "pocket" / "reliability.toml")
    assert [name for name, _, _ in recipe.stages] == ["idk-data", "idk-adapters", "idk-choice", "idk-ship"]


ITEMS = "train_items = 30\nvalidation_items = 29\n"


def recipe_of(tmp_path: Path, model: Path, samples: int = 5, **more: str) -> Path:
    file = tmp_path / "tiny.toml"
    extra = "".join(f"{name} = {value}\n" for name, value in more.items())
    file.write_text(
        f'out = "{tmp_path / "out"}"\n'
        f'[[stage]]\nname = "idk-data"\nmodel = "{model}"\n{extra or ITEMS}'
        f"samples = {samples}\nnothing_share = 0.2\nmax_new_tokens = 3\nthreads = 1\nworkers = 1\n"
        '[[stage]]\nname = "idk-adapters"\nlearning_rate = 1e-2\nthreads = 1\n'
        '[[stage]]\nname = "idk-choice"\nthreads = 1\n'
    )
    return file


def test_the_recipe_runs_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Random weights finish no reply and know nothing: item number n is said to be right in n % 6 of five samples.
    asked: Counter[str] = Counter()

    def right(example: Example, _: Completion) -> bool:
        asked[example.id] += 1
        return asked[example.id] <= int(example.id.split("-")[-1]) % 6

    monkeypatch.setattr("earnest.reliability.known._fault", lambda *_: "")
    monkeypatch.setattr("earnest.reliability.known._right", right)
    model = tiny_fused(tmp_path / "model")
    recipe = recipe_of(tmp_path, model)
    lines: list[str] = []
    run(recipe, log=lines.append)
    out = tmp_path / "out"
    assert json.loads((out / "idk-data" / "card.json").read_text())["known_by_k"] == {
        "1": 25, "2": 20, "3": 15, "4": 10, "5": 5,
    }  # fmt: skip
    trained = {
        (k, modality): load_file(out / "idk-adapters" / f"k{k}" / modality / "adapter_model.safetensors")
        for k in (1, 5) for modality in ("sound", "music")
    }  # fmt: skip
    differ = [
        any(not torch.equal(one[name], two[name]) for name in one) for one, two in combinations(trained.values(), 2)
    ]
    assert all(differ), "Ks or modalities are mixed up"
    card = json.loads((out / "idk-choice" / CARD).read_text())
    assert set(card["by_k"]) == {"1", "2", "3", "4", "5"}
    assert card["by_k"]["1"]["accuracy"]["n"] == 29
    assert find_adapters(out / "idk-choice" / "chosen").keys() == {"sound", "music", "speech"}
    assert card["by_k"]["1"]["silence"]["n"] == 29
    assert {"rgi_group.sound", "rgi_group.music", "rgi_group.speech"} <= card["by_k"]["5"].keys()
    assert dial_curves(out / "idk-choice" / "chosen", card["key"])
    # Shipped all or not at all; the machine's folder is not told.
    target = tmp_path / "shipped"
    ship_adapters(out, "pocket", target)
    assert {path.name for path in target.iterdir()} == {"chosen", "k5", CARD}
    config = json.loads((target / "k5" / "music" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pocket"
    # Complete stages are skipped; other weights make them anew.
    again: list[str] = []
    run(recipe, log=again.append)
    assert [line.split(" (")[0] for line in again] == [
        "idk-data: complete", "idk-adapters: complete", "idk-choice: complete",
    ]  # fmt: skip
    tiny_fused(model, seed=1)
    with pytest.raises(RecipeError, match="'idk-adapters' needs idk-data"):
        run(recipe, only="idk-adapters", log=again.append)


def test_faults_are_named_before_anything_runs(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, tmp_path / "no-model", samples=0)
    with pytest.raises(RecipeError, match="n is 0"):
        load(recipe)
    recipe = recipe_of(tmp_path, tmp_path / "no-model", train='"missing.jsonl"', train_items="3", validation_items="3")
    with pytest.raises(RecipeError, match="is no file"):
        load(recipe)
    recipe.write_text(recipe.read_text().replace('"missing.jsonl"', f'"{recipe}"'))
    with pytest.raises(RecipeError, match="a manifest is taken whole"):
        load(recipe)
    with pytest.raises(RecipeError, match="noisy_modality is 'music' and noisy_share 0"):
        load(
            recipe_of(tmp_path, tmp_path / "no-model", train_items="3", validation_items="3", noisy_modality='"music"')
        )
    recipe = recipe_of(tmp_path, tmp_path / "no-model")
    recipe.write_text(recipe.read_text() + '[[stage]]\nname = "idk-ship"\n')
    with pytest.raises(RecipeError, match="only pocket's adapters are shipped"):
        load(recipe)
    recipe.write_text(recipe.read_text().replace(f'model = "{tmp_path / "no-model"}"', 'model = "pocket"'))
    recipe.write_text(recipe.read_text().replace("samples = 5", "samples = 4"))
    with pytest.raises(RecipeError, match="samples is 4"):
        load(recipe)
    recipe.write_text(recipe.read_text().replace("learning_rate = 1e-2", 'parts = "ears"'))
    with pytest.raises(RecipeError, match="parts is 'ears'"):
        load(recipe)


def test_questions_of_a_manifest_need_their_modality(tmp_path: Path) -> None:
    tone(300, 0.5).save(tmp_path / "a.wav")
    manifest = tmp_path / "m.csv"
    manifest.write_text("audio,question,choices,answer\na.wav,what is heard?,dog;cat,dog\n")
    given = {"train": f'"{manifest}"', "validation": f'"{manifest}"'}
    with pytest.raises(RecipeError, match="have no modality"):
        run(recipe_of(tmp_path, tiny_fused(tmp_path / "model"), **given), log=lambda _: None)


def test_copies_in_noise_are_of_the_modality_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tone(300, 0.5).save(tmp_path / "a.wav")
    manifest = tmp_path / "m.csv"
    rows = [f"a.wav,what is heard?,dog;cat,dog,{modality}" for modality in ("sound", "music", "music")]
    manifest.write_text("\n".join(["audio,question,choices,answer,modality", *rows, ""]))
    given = {"train": f'"{manifest}"', "validation": f'"{manifest}"', "noisy_share": "1.0"}
    model = tiny_fused(tmp_path / "model")

    class Asked(Exception):
        pass

    def asked(_: object, examples: list[Example], *__: object, **___: object) -> None:
        raise Asked(" ".join(example.id for example in examples))

    monkeypatch.setattr("earnest.reliability.stages.draw", asked)
    with pytest.raises(Asked, match=r"^line-2 line-3 line-4 line-3-noisy line-4-noisy$"):
        run(recipe_of(tmp_path, model, **given, noisy_modality='"music"'), log=lambda _: None)
    with pytest.raises(RecipeError, match="noisy_modality is 'speech': no question of train is about it"):
        run(recipe_of(tmp_path, model, **given, noisy_modality='"speech"'), log=lambda _: None)
