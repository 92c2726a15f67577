"""Contrastive lessons, their counterparts, and the recipe on a tiny model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_fused

from earnest.completion import Stop
from earnest.errors import EarnestError, RecipeError
from earnest.example import Example
from earnest.faithfulness.closed import world_language
from earnest.faithfulness.hardening import (
    CONTRASTIVE,
    NOTHING_HEARD,
    Shares,
    contrastive,
    named_in,
    read_lessons,
    save_lessons,
)
from earnest.faithfulness.presence import is_told, presence_items, rendered, told_items
from earnest.grading import Outcome, grade
from earnest.pocket.ship import put_adapters
from earnest.training.recipes import load, run

LANGUAGE = world_language("train")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    return rendered("train", 3, range(60), tmp_path_factory.mktemp("world"))


def _source(lesson: Example) -> str:
    return lesson.id.partition(f"-{lesson.meta['kind']}")[0]


def replies(examples: list[Example]) -> list[tuple[str, Stop]]:
    """All right but for every tenth."""
    return [
        (f"<think> i hear it.</think><answer> {example.answer if number % 10 else 'nonsense'}</answer>", Stop.END)
        for number, example in enumerate(examples)
    ]


def test_each_kind_teaches_what_it_should(examples: list[Example], tmp_path: Path) -> None:
    said = replies(examples)
    lessons = contrastive(examples, said, LANGUAGE, tmp_path, Shares(0.1, 0.1, 0.1, 0.3), 4)
    kinds = Counter(str(lesson.meta["kind"]) for lesson in lessons)
    assert kinds["clean"] + kinds["told"] == 54
    assert kinds["silent"] == kinds["noise"] == 5
    assert kinds["swapped"] == 5
    # Of four modes and forms as many each; a statement can be made about few items.
    injected = Counter(lesson.id.partition("-attack_")[2] for lesson in lessons if lesson.meta["kind"] == "injected")
    assert injected["splice_option_wrong"] == injected["overlay_option_wrong"] == 4
    assert 1 <= injected["splice_statement_wrong"] <= 4
    own = {example.id: (example, reply) for example, reply in zip(examples, (text for text, _ in said), strict=True)}
    for lesson in lessons:
        kind, reply = lesson.meta["kind"], lesson.meta["reply"]
        if kind not in CONTRASTIVE:
            assert (lesson.clip, reply) == (own[lesson.id][0].clip, own[lesson.id][1])
            continue
        example, before = own[_source(lesson)]
        assert lesson.meta["counterpart"] == before
        outcome = grade(reply, Stop.END, example).outcome
        assert outcome is (Outcome.CORRECT if kind == "injected" else Outcome.ABSTAINED)
        if kind == "silent":
            assert lesson.clip.rms == 0
        elif kind == "noise":
            assert lesson.clip.rms == pytest.approx(example.clip.rms, rel=0.01)
        elif kind == "swapped":
            name = named_in(example)
            assert name is not None
            assert f"no {name}" in reply or f"no word {name}" in reply
            assert lesson.clip != example.clip
        else:
            assert example.groups["modality"] != "speech"
            assert lesson.clip != example.clip


def test_the_control_learns_the_counterparts(examples: list[Example], tmp_path: Path) -> None:
    lessons = contrastive(examples, replies(examples), LANGUAGE, tmp_path / "edited", Shares(), 4)
    save_lessons(lessons, tmp_path / "lessons.jsonl")
    hardened, control = (
        read_lessons(tmp_path / "lessons.jsonl", LANGUAGE, control=control) for control in (False, True)
    )
    assert len(hardened) == len(control) == len(lessons)
    clips = {example.id: example.clip.key for example in examples}
    for one, two, lesson in zip(hardened, control, lessons, strict=True):
        (clip,) = two.conversation().clips
        if lesson.meta["kind"] in CONTRASTIVE:
            assert clip.key == clips[_source(lesson)]
            assert one.conversation().clips[0].key != clip.key
            assert two.reply == lesson.meta["counterpart"]
        else:
            assert one.reply == two.reply
            assert one.conversation().key == two.conversation().key


def test_what_a_question_presupposes() -> None:
    def asked(text: str, *choices: str) -> str | None:
        return named_in(Example("q", (), text, choices))

    assert asked("what sound comes after the dog?", "cat", "bell") == "dog"
    assert asked("who says the word red?", "man", "woman") == "red"
    assert asked("is there a dog?", "yes", "no") is None
    assert asked("how often do you hear the dog?", "0", "1", "2") is None
    assert asked("which comes first, the dog or the cat?", "dog", "cat") is None
    assert asked("what sound comes first?", "dog", "cat") is None


def test_presence_with_and_without_a_voice(tmp_path: Path) -> None:
    indices = presence_items("train", 3, 10, 2, 3)
    assert len(set(indices)) == 5
    assert min(indices) >= 10
    found = rendered("train", 3, indices, tmp_path)
    assert [example.groups["template"] for example in found] == ["sound_presence"] * 5
    assert sum(map(is_told, found)) == 2
    assert all(example.answer == "yes" for example in found if is_told(example))
    told = rendered("train", 3, told_items("train", 3, 0, 3), tmp_path)
    assert all(map(is_told, told))
    assert "narrated" in {example.groups["template"] for example in told}


def test_numbers_are_checked() -> None:
    with pytest.raises(EarnestError, match="injected is 2: it is a share"):
        Shares(injected=2)
    with pytest.raises(EarnestError, match="would not be read as abstaining"):
        contrastive([], [], LANGUAGE, Path(), Shares(), nothing="silence.")


def recipe_of(tmp_path: Path, extra: str, ship: bool = False) -> Path:
    file = tmp_path / "tiny.toml"
    file.write_text(
        f'out = "{tmp_path / "out"}"\n[[stage]]\nname = "hardening-data"\n{extra}\nmax_new_tokens = 3\nthreads = 1\n'
        '[[stage]]\nname = "hardening-adapters"\nlearning_rate = 1e-2\nepochs = 1\nthreads = 1\n'
        + ('[[stage]]\nname = "hardening-ship"\n' if ship else "")
    )
    return file


def test_the_recipe_runs_on_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Random weights are never right: every reply counts as right here, whatever it says.
    monkeypatch.setattr("earnest.faithfulness.hardening._is_right", lambda *_: True)
    model = tiny_fused(tmp_path / "model")
    recipe = recipe_of(tmp_path, f'model = "{model}"\nitems = 20\ntold = 1\npresence = 1')
    lines: list[str] = []
    run(recipe, log=lines.append)
    out = tmp_path / "out"
    card = json.loads((out / "hardening-data" / "card.json").read_text())
    assert card["lessons"]["told"] >= 1
    assert card["lessons"]["injected"] >= 4
    adapters = [
        load_file(out / "hardening-adapters" / name / "adapter_model.safetensors")
        for name in ("hardened", "clean_only")
    ]
    assert any(not torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    put_adapters(
        {name: out / "hardening-adapters" / name for name in ("hardened", "clean_only")},
        tmp_path / "shipped",
        "pocket",
        "hardened.json",
        card,
    )
    config = json.loads((tmp_path / "shipped" / "hardened" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "pocket"
    again: list[str] = []
    run(recipe, log=again.append)
    assert not any("step" in line for line in again)


def test_the_recipe_that_comes_with_earnest_is_sound() -> None:
    recipe = load(Path(__file__).parents[2] / "recipes" / "pocket" / "faithfulness.toml")
    assert [name for name, _, _ in recipe.stages] == ["hardening-data", "hardening-adapters", "hardening-ship"]


@pytest.mark.parametrize(
    ("extra", "ship", "said"),
    [
        ("items = 0", False, "train is '' and its items 0"),
        ('train = "no.jsonl"', False, "'no.jsonl' is no file"),
        ('items = 5\nnothing = "silence."', False, "would not be read as abstaining"),
        ("items = 5\nsilent = 3.0", False, "silent is 3"),
        ('items = 5\nmodel = "some/folder"', True, "leave hardening-ship out"),
    ],
)
def test_faults_are_named_before_anything_runs(extra: str, ship: bool, said: str, tmp_path: Path) -> None:
    with pytest.raises((EarnestError, RecipeError), match=said):
        load(recipe_of(tmp_path, extra, ship))


def test_the_reply_to_silence_abstains_and_claims_nothing() -> None:
    from earnest.faithfulness.closed import WorldJudge

    example = Example("q", (), "?", ("a", "b"), "a")
    assert grade(NOTHING_HEARD, Stop.END, example).outcome is Outcome.ABSTAINED
    assert WorldJudge().claims([NOTHING_HEARD]) == [False]
