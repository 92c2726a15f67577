import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from earnest.errors import RecipeError
from earnest.training import recipes
from earnest.training.recipes import Context, Stage

ROOT = Path(__file__).parents[2]
SHARED = ("alignment-single", "alignment-ca", "alignment-perceiver", "alignment-concat", "relistening-grpo")
"""Stages whose training runs under accelerate."""
STAGES = dict(recipes.STAGES)


@dataclass(frozen=True)
class Numbers:
    steps: int = 3
    rate: float = 0.5
    threads: int = 2


CALLS: list[str] = []


def _run(settings: Numbers, context: Context) -> None:
    CALLS.append(context.folder.name)
    context.log("half")
    if settings.steps == 13:
        raise KeyboardInterrupt


first = Stage(Numbers, _run)
second = Stage(Numbers, _run)


@pytest.fixture(autouse=True)
def _stages(monkeypatch: pytest.MonkeyPatch) -> None:
    CALLS.clear()
    module = __name__
    monkeypatch.setattr(recipes, "STAGES", {"first": f"{module}:first", "second": f"{module}:second"})


def _recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.toml"
    path.write_text(f'out = "{tmp_path / "out"}"\n{text}')
    return path


def test_stages_run_in_order_once(tmp_path: Path) -> None:
    path = _recipe(tmp_path, '[[stage]]\nname = "first"\n[[stage]]\nname = "second"\nsteps = 4\n')
    lines: list[str] = []
    recipes.run(path, log=lines.append)
    recipes.run(path, log=lines.append)
    assert CALLS == ["first", "second"]
    assert sum("complete" in line for line in lines) == 4


def test_a_changed_number_runs_the_stage_again(tmp_path: Path) -> None:
    recipes.run(_recipe(tmp_path, '[[stage]]\nname = "first"\n'), log=lambda _: None)
    recipes.run(_recipe(tmp_path, '[[stage]]\nname = "first"\nsteps = 5\n'), log=lambda _: None)
    assert CALLS == ["first", "first"]


def test_an_interrupted_stage_is_not_complete_and_its_time_is_kept(tmp_path: Path) -> None:
    path = _recipe(tmp_path, '[[stage]]\nname = "first"\nsteps = 13\n')
    with pytest.raises(KeyboardInterrupt):
        recipes.run(path, log=lambda _: None)
    row = json.loads((tmp_path / "out" / "first" / "stage.json").read_text())
    assert row["complete"] is False
    assert row["settings"]["steps"] == 13


def test_all_faults_come_at_once(tmp_path: Path) -> None:
    path = _recipe(
        tmp_path, 'colour = 1\n[[stage]]\nname = "third"\n[[stage]]\nname = "first"\nsteps = "many"\nstep = 1\n'
    )
    with pytest.raises(RecipeError) as error:
        recipes.load(path)
    text = str(error.value)
    assert all(word in text for word in ("4 fault(s)", "'colour'", "'third'", "'step'", "'many'"))


def test_what_was_made_with_other_numbers_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    recipes.run(_recipe(tmp_path, '[[stage]]\nname = "first"\n'), log=lines.append)
    recipes.run(_recipe(tmp_path, '[[stage]]\nname = "first"\nsteps = 5\n'), log=lines.append)
    assert any("first: was made with steps = 3 (now 5); that is removed, and it is made anew" in line for line in lines)


def test_a_nameless_and_a_misspelt_stage(tmp_path: Path) -> None:
    path = _recipe(tmp_path, '[[stage]]\nnmae = "first"\nsteps = 3\n[[stage]]\nname = "frist"\n')
    with pytest.raises(RecipeError) as error:
        recipes.load(path)
    assert "a stage has no name; it has nmae, steps" in str(error.value)
    assert "unknown stage 'frist'; did you mean 'first'?" in str(error.value)
    with pytest.raises(RecipeError, match=r"none\.toml: No such file or directory; give a recipe"):
        recipes.load(tmp_path / "none.toml")


def test_overrides_reach_only_stages_that_know_them(tmp_path: Path) -> None:
    path = _recipe(tmp_path, '[[stage]]\nname = "first"\n')
    [(_, _, settings)] = recipes.load(path, {"threads": 1, "workers": 9}).stages
    assert settings.threads == 1


def test_what_a_stage_needs_runs_it_again_and_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_recipes.second", Stage(Numbers, _run, needs=("first",)))
    text = '[[stage]]\nname = "first"\nsteps = {}\n[[stage]]\nname = "second"\n'
    with pytest.raises(RecipeError, match="'second' needs first"):
        recipes.run(_recipe(tmp_path, text.format(3)), only="second", log=lambda _: None)
    recipes.run(_recipe(tmp_path, text.format(3)), log=lambda _: None)
    stale = tmp_path / "out" / "second" / "checkpoint.pt"
    stale.write_text("old")
    recipes.run(_recipe(tmp_path, text.format(4)), log=lambda _: None)
    assert CALLS == ["first", "second", "first", "second"]
    assert not stale.exists()


def test_what_a_stage_builds_on_counts_where_the_recipe_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_recipes.second", Stage(Numbers, _run, builds_on=("first",)))
    alone = '[[stage]]\nname = "second"\n'
    recipes.run(_recipe(tmp_path, alone), log=lambda _: None)
    assert CALLS == ["second"]
    both = '[[stage]]\nname = "first"\nsteps = {}\n[[stage]]\nname = "second"\n'
    with pytest.raises(RecipeError, match="'second' needs first: run it before"):
        recipes.run(_recipe(tmp_path, both.format(3)), only="second", log=lambda _: None)
    recipes.run(_recipe(tmp_path, both.format(3)), log=lambda _: None)
    recipes.run(_recipe(tmp_path, both.format(3)), log=lambda _: None)
    assert CALLS == ["second", "first", "second"]
    recipes.run(_recipe(tmp_path, both.format(4)), log=lambda _: None)
    assert CALLS == ["second", "first", "second", "first", "second"], "it was built on what the old number made"


def test_what_is_published_runs_again_and_only_in_the_recipes_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("test_recipes.second", Stage(Numbers, _run, publishes=True))
    path = _recipe(tmp_path, '[[stage]]\nname = "first"\n[[stage]]\nname = "second"\n')
    lines: list[str] = []
    seconds = recipes.run(path, out=tmp_path / "elsewhere", log=lines.append)
    assert CALLS == ["first"] and list(seconds) == ["first"]
    assert any("second: left out" in line for line in lines)
    recipes.run(path, log=lines.append)
    recipes.run(path, log=lines.append)
    assert CALLS == ["first", "first", "second", "second"]


def test_another_number_of_threads_changes_nothing(tmp_path: Path) -> None:
    path = _recipe(tmp_path, '[[stage]]\nname = "first"\n')
    recipes.run(path, log=lambda _: None)
    recipes.run(path, overrides={"threads": 1}, log=lambda _: None)
    assert CALLS == ["first"]


def test_processes_of_torchrun_share_parallel_stages_alone(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    context = Context(tmp_path, folder, {}, lambda _: None)

    def follow(stage: Stage, complete: bool) -> list[str]:
        CALLS.clear()
        (folder / "stage.json").write_text(json.dumps({"key": "k", "complete": complete}))
        recipes._follow("first", stage, Numbers(), "k", None, context)  # pyright: ignore[reportPrivateUsage]
        return CALLS

    assert follow(Stage(Numbers, _run), complete=False) == []
    assert follow(Stage(Numbers, _run, parallel=True), complete=False) == ["first"]
    assert follow(Stage(Numbers, _run, parallel=True), complete=True) == []


def test_trainings_under_accelerate_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "STAGES", STAGES)
    found = {name for name in STAGES if recipes._stage(name).parallel}  # pyright: ignore[reportPrivateUsage]
    assert found == set(SHARED)


def test_unknown_single_stage(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no stage 'x'; it has first"):
        recipes.run(_recipe(tmp_path, '[[stage]]\nname = "first"\n'), only="x")


def test_the_shipped_recipes_are_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for path in sorted((ROOT / "recipes").rglob("*.toml")):
        assert recipes.load(path).stages
