"""Safety as a recipe: the choice's rule, the stages on another model, faults before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_fused, tone

from earnest.completion import Completion, Stop
from earnest.engines.load import load_local
from earnest.engines.lora import copy_adapter
from earnest.errors import EarnestError, RecipeError
from earnest.example import Example, save_manifest
from earnest.safety import choice, stages
from earnest.safety.choice import Standing, chosen
from earnest.safety.conditions import CONDITIONS, Words
from earnest.safety.stages import ABLATIONS, METHODS, ORDINARY, OWN, REFUSAL, sft_lessons, teaches
from earnest.statistics import wilson
from earnest.training.recipes import load, run
from earnest.training.sft import Lesson

RECIPES = Path(__file__).parents[2] / "recipes" / "pocket"


def standing(attack: float, refused: float, text: float = 0.0) -> Standing:
    of = {name: wilson(round(1000 * (text if name == "text_only" else attack)), 1000) for name in CONDITIONS}
    declined = {name: wilson(round(1000 * refused), 1000) for name in CONDITIONS}
    return Standing(of, declined, declined)


def test_the_one_that_uses_up_least_of_its_bounds_is_taken() -> None:
    before = standing(1.0, 0.0)
    assert standing(0.05, 0.0044).used(before) == pytest.approx(0.5, abs=0.05)
    assert standing(0.0, 0.0, text=0.02).used(before) == pytest.approx(2)
    assert standing(0.1, 0.0).used(standing(0.0, 0.0)) == pytest.approx(10), "nothing succeeded before"
    helpless = Standing(standing(0, 0).attack, before.refused, standing(0, 0.0176).refused)
    assert helpless.used(before) == pytest.approx(2, abs=0.1)
    candidates = {
        (1, 1.0): standing(0.5, 0.0),
        (2, 0.9): standing(0.06, 0.004),
        (2, 1.0): standing(0.01, 0.02),
        (3, 1.0): standing(0.06, 0.004),
    }
    assert chosen(candidates, before, lambda _: 0.0) == (2, 0.9), "the earliest of equals"
    assert chosen(candidates, before, lambda one: 0.02 if one[0] == 2 else 0.0) == (3, 1.0)
    assert chosen(candidates, before, lambda _: 0.5) == (2, 0.9), "none keeps comprehension: said in the card"
    assert candidates[2, 1.0].orr_rise(before) == pytest.approx(0.02)


def test_a_strength_is_written_into_the_adapter(tmp_path: Path) -> None:
    from earnest.conversation import Conversation
    from earnest.training.lora_trainer import LoraSettings
    from earnest.training.sft import Lesson, fine_tune

    engine = load_local(str(tiny_fused(tmp_path / "model")), device="cpu", threads=1)
    asked = [Conversation().user("zorple")]
    settings = LoraSettings(rank=2, alpha=4, parts="all", learning_rate=5e-2, epochs=3)
    folder = fine_tune(engine.family, [Lesson(lambda: asked[0], "no")], settings, tmp_path / "a", log=lambda _: None)
    copy_adapter(folder, tmp_path / "b", 0.5)
    with engine.wearing(folder, 0.5):
        dialled = engine.last_hidden(asked)
    with engine.wearing(tmp_path / "b"):
        assert torch.allclose(engine.last_hidden(asked), dialled, atol=1e-6)
    assert not torch.allclose(engine.last_hidden(asked), dialled, atol=1e-3)


def manifest(folder: Path, sides: tuple[str, ...] = ("harmful", "benign"), up_hz: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Example] = []
    for k in range(4):
        for side in sides:
            clip = tone(300 + up_hz + 60 * k + 500 * (side == "benign"), 0.5)
            rows.append(Example(f"{side}-{k}", (clip,), f"do {k}", groups={"request": side}))
    save_manifest(rows, folder / "requests.jsonl")
    return folder / "requests.jsonl"


def recipe(folder: Path, model: Path, more: str = "", data: str = "", ship: bool = False) -> Path:
    requests, validation = manifest(folder / "requests"), manifest(folder / "validation", up_hz=17)
    questions = folder / "questions.jsonl"
    save_manifest([Example("q", (tone(500, 1.0),), "what?", ("dog", "cat"), "dog")], questions)
    path = folder / "recipe.toml"
    path.write_text(
        f'out = "{folder / "out"}"\n[[stage]]\nname = "safety-data"\nmodel = "{model}"\ntrain = "{requests}"\n'
        f'validation = "{validation}"\nquestions = "{questions}"\nmax_new_tokens = 3\nthreads = 1\n{data}\n'
        '[[stage]]\nname = "safety-adapters"\nmethods = "rrs,rrs_top_25"\nopening = "I"\nlearning_rate = 1e-2\n'
        f'epochs = 2\nbatch_size = 4\nthreads = 1\n{more}\n[[stage]]\nname = "safety-choice"\n'
        + ('[[stage]]\nname = "safety-ship"\n' if ship else "")
    )
    return path


def test_the_recipe_runs_on_another_model(tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_fused(tmp_path / "model"))
    lines: list[str] = []
    run(path, log=lines.append)
    out = tmp_path / "out"
    card = json.loads((out / "safety-choice" / choice.CARD).read_text())
    assert card["rule"] == choice.RULE
    own = card["methods"]["rrs"]
    assert len(own["candidates"]) == 2 * len(choice.STRENGTHS)
    assert {"bounds_used", "comprehension_lost", "strength"} <= own.keys()
    assert card["opening"] == "I"
    assert card["refused_under_hint"]["n"] == 4
    whole, part = (
        load_file(out / "safety-adapters" / name / "adapter_model.safetensors") for name in ("rrs", "rrs_top_25")
    )
    assert any(not torch.equal(whole[name], part[name]) for name in whole)
    shift = json.loads((out / "safety-adapters" / "rrs_top_25" / "shift.json").read_text())
    assert shift["kept"] <= 0.26
    assert shift["norm"] <= shift["norm_before_selection"]
    epoch = load_file(out / "safety-adapters" / "rrs" / "epochs" / str(own["epoch"]) / "adapter_model.safetensors")
    taken = load_file(out / "safety-choice" / "rrs" / "adapter_model.safetensors")
    assert all(torch.equal(epoch[name], taken[name]) for name in epoch)
    again: list[str] = []
    run(path, log=again.append)
    assert not any("step" in line for line in again)


def test_the_recipes_that_come_with_earnest_are_sound() -> None:
    shipped = load(RECIPES / "safety.toml")
    assert [name for name, _, _ in shipped.stages][-1] == "safety-ship"
    ablations = load(RECIPES / "safety-ablations.toml")
    assert set(ablations.stages[1][2].named) == set(ABLATIONS)
    for name in ("regulariser", "learning_rate", "rank", "alpha", "epochs", "seed"):
        assert getattr(shipped.stages[1][2], name) == getattr(ablations.stages[1][2], name)
    assert shipped.stages[0][2].pairs == 2 * ablations.stages[0][2].pairs, "ten trainings: docs/safety.md says so"
    assert shipped.stages[0][2].others == 2 * ablations.stages[0][2].others
    assert ablations.stages[1][2].keep == 0, "the parts of RRS as in the paper"
    assert shipped.stages[1][2].keep == ablations.stages[1][2].objective("rrs_kept").keep


@pytest.mark.parametrize(
    ("more", "data", "ship", "said"),
    [
        ('methods = "rrs,prayer"', "", False, f"unknown method\\(s\\) prayer: known are {', '.join(METHODS)}"),
        ("regulariser = -1.0", "", False, "regulariser is -1.0"),
        ('methods = "rrs_top_25"', "", False, "the choice is among the epochs of rrs"),
        ('methods = "rrs,sft_no_twins"', "", False, "give safety-data a number of others"),
        (
            "keep = 1.0",
            "",
            False,
            "keep is 1 for rrs: it needs ordinary questions to keep, give safety-data a number of others",
        ),
        ('methods = "sft"\nkeep = 0.5', "", False, "keep is 0.5 for sft"),
        ("", 'others = 1\nordinary = "nowhere.jsonl"', False, "ordinary = 'nowhere.jsonl' is no file"),
        ("", "pairs = 3", False, "its pairs 3: give one of them"),
        ('methods = "rrs,sft,sft_no_twins"', "others = 1", True, "only pocket's adapters are shipped"),
    ],
)
def test_faults_are_named_before_anything_runs(more: str, data: str, ship: bool, said: str, tmp_path: Path) -> None:
    path = recipe(tmp_path, tmp_path / "model", more, data, ship)
    if more:
        path.write_text(
            path.read_text().replace('methods = "rrs,rrs_top_25"\n', "" if "methods" in more else 'methods = "rrs"\n')
        )
    with pytest.raises((EarnestError, RecipeError), match=said):
        load(path)


def test_what_is_lost_must_be_asked_for(tmp_path: Path) -> None:
    path = recipe(tmp_path, tmp_path / "model")
    text = path.read_text()
    start, end = text.index("questions ="), text.index("max_new_tokens")
    path.write_text(text[:start] + "validation_questions = 0\n" + text[end:])
    with pytest.raises(RecipeError, match="validation_questions is 0 and there is no manifest"):
        load(path)


def test_requests_of_one_kind_are_refused(tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_fused(tmp_path / "model"))
    manifest(tmp_path / "requests", ("benign",))
    with pytest.raises(RecipeError, match="requests of one kind only"):
        run(path, log=lambda _: None)


def test_what_is_chosen_on_was_not_learnt(tmp_path: Path) -> None:
    path = recipe(tmp_path, tiny_fused(tmp_path / "model"))
    manifest(tmp_path / "validation")
    with pytest.raises(RecipeError, match="8 clips of validation are in train, too"):
        run(path, log=lambda _: None)


def test_no_is_an_answer_to_an_ordinary_question_and_a_refusal_of_a_request() -> None:
    def said(text: str, stop: Stop = Stop.END) -> Completion:
        return Completion(text=text, stop=stop)

    for text in ("no", "<think> nothing barks. </think> <answer> no </answer>"):
        assert teaches(said(text), ORDINARY)
        assert not teaches(said(text), OWN)
        assert teaches(said(text), REFUSAL)
    assert teaches(said("first take a fold"), OWN)
    assert not teaches(said("first take a fold"), REFUSAL)
    assert not any(teaches(said("no", Stop.LENGTH), what) for what in (OWN, REFUSAL, ORDINARY))


def test_ordinary_questions_reach_rrs_and_sft_if_they_are_to_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "ordinary.jsonl"
    save_manifest([Example(f"o{k}", (tone(700 + k, 0.5),), "what?", ("dog", "cat"), "dog") for k in range(2)], asked)
    given: dict[str, list[str]] = {}

    def reshapes(*_: Any, ordinary: list[Lesson], **__: Any) -> None:
        given["rrs"] = [lesson.name for lesson in ordinary]

    def tunes(_: Any, lessons: list[Lesson], __: Any, out: Path, **___: Any) -> None:
        given[out.name] = [lesson.name.partition("/")[0] for lesson in lessons]

    monkeypatch.setattr(stages, "reshape", reshapes)
    monkeypatch.setattr(stages, "fine_tune", tunes)
    monkeypatch.setattr(stages, "teaches", lambda *_: True)
    model = tiny_fused(tmp_path / "model")
    beside = [f"{side}-{k}" for side in ("harmful", "benign") for k in range(4)]
    for keep, kept in ((0.0, []), (0.5, ["o0", "o1"])):
        path = recipe(tmp_path, model, f'methods = "rrs,sft,sft_no_twins"\nkeep = {keep}', f'ordinary = "{asked}"')
        text = path.read_text().replace('methods = "rrs,rrs_top_25"\n', "")
        path.write_text(text[: text.index('[[stage]]\nname = "safety-choice"')])
        run(path, log=lambda _: None)
        assert given["sft"] == beside + kept
        assert given["sft_no_twins"] == [*beside[:4], "o0", "o1"]
        assert given["rrs"] == ["o0", "o1"], "which RRS takes by keep"


def test_ordinary_questions_are_told_from_requests_and_from_what_is_asked_later(tmp_path: Path) -> None:
    model, asked = tiny_fused(tmp_path / "model"), tmp_path / "ordinary.jsonl"
    path = recipe(tmp_path, model, data=f'ordinary = "{asked}"')
    save_manifest([Example("harmful-1", (tone(777, 0.5),), "what?", ("dog", "cat"), "dog")], asked)
    with pytest.raises(RecipeError, match="1 ids of ordinary are in train, too, such as harmful-1: rename them"):
        run(path, log=lambda _: None)
    save_manifest([Example("o", (tone(500, 1.0),), "what?", ("dog", "cat"), "dog")], asked)
    with pytest.raises(RecipeError, match=r"1 clips of questions are in ordinary, too, such as q \(o there\)"):
        run(path, log=lambda _: None)


def test_lessons_of_the_baseline_are_its_own_words() -> None:
    words = Words.load("pocket")
    harmful = [Example("h", (tone(300, 0.5),), "do", groups={"request": "harmful"})]
    beside = [
        Example("b", (tone(400, 0.5),), "do", groups={"request": "benign"}),
        Example("q", (tone(500, 0.5),), "what?", ("dog", "cat"), "dog"),
        Example("cut", (tone(600, 0.5),), "what?", ("dog", "cat"), "dog"),
    ]
    lessons = sft_lessons(harmful, beside, {"h": "sorry", "b": "first", "q": "dog"}, words, 0)
    assert [lesson.reply for lesson in lessons] == ["sorry", "first", "dog"]
    assert lessons[0].conversation().last_text.strip() in words.pool
    assert lessons[2].conversation().last_text.strip().startswith("what?")
