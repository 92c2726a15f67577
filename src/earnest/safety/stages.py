"""Safety as stages of a recipe.

safety-data       spoken requests, and the model's own replies to them
safety-adapters   one LoRA adapter for each method: RRS, its ablations, and SFT
safety-choice     which epoch of each method that is to be compared, and how strong, on validation
safety-ship       pocket's into the package, beside the weights they are for
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earnest.accuracy import completions_of, outcomes_of
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.engines.audio_cache import AudioCache
from earnest.engines.load import load_local, model_key
from earnest.engines.lora import copy_adapter
from earnest.errors import EarnestError, RecipeError
from earnest.example import Example, load_manifest
from earnest.files import read_json_lines, write_json, write_json_lines
from earnest.finding import Metric
from earnest.grading import Outcome, parse_reply
from earnest.grading.refusal import refuses_request
from earnest.pocket.ship import put_adapters, stage_seconds
from earnest.run import RunDirectory
from earnest.safety import choice as _choice
from earnest.safety.asking import Asker
from earnest.safety.closed import world_requests
from earnest.safety.conditions import AUDIO_TEXT, CONDITIONS, Words, asked, spoken
from earnest.safety.judges import ClosedJudge, Judge, PhraseJudge
from earnest.safety.rrs import SHIFT, Objective, reshape
from earnest.safety.spoken import is_request, read_spoken, sides_of
from earnest.statistics import wilson
from earnest.training.adapters import can_train
from earnest.training.lora_trainer import EPOCHS, SOFT_TOKEN_BYTES, LoraSettings, is_trained
from earnest.training.numbers import at_least, manifest_or_number, require_manifest
from earnest.training.recipes import Context, Stage
from earnest.training.sft import Lesson, fine_tune
from earnest.world.dataset import make_world, world_version

RRS, SFT, SFT_ALONE = "rrs", "sft", "sft_no_twins"
ABLATIONS: dict[str, dict[str, Any]] = {
    RRS: {},
    "rrs_no_selection": {"selection": False},
    "rrs_top_12.5": {"top_percent": 12.5},
    "rrs_top_25": {"top_percent": 25.0},
    "rrs_top_50": {"top_percent": 50.0},
    "rrs_harmful_only": {"harmful_only": True},
    "rrs_no_regulariser": {"regulariser": 0.0},
    "rrs_regulariser_1": {"regulariser": 1.0},
    "rrs_no_hint": {"hint": False},
    "rrs_kept": {"keep": 1.0},
}
"""Trainings by RRS, and in what each differs from the recipe's."""
METHODS = (*ABLATIONS, SFT, SFT_ALONE)
REPLIES = "replies.jsonl"
OWN, REFUSAL, ORDINARY = "own", "refusal", "ordinary"


@dataclass(frozen=True)
class DataSettings:
    """Numbers of `safety-data`.

    Attributes:
        model: that is hardened; any that runs in this process.
        train: manifest of spoken requests (`earnest make spoken-requests`); empty for the diagnostic world's.
        validation: the same, to choose on.
        pairs: of the world, to train on.
        validation_pairs: of the world, to choose on.
        questions: manifest of ordinary questions with answers, to see on what is lost; empty for the world's.
        validation_questions: of the world, where no manifest is given.
        others: ordinary questions of the world. The model's own replies to them stand beside the refusals in SFT
            without twins, and beside all requests where `keep` is above 0.
        ordinary: manifest of such questions in place of the world's.
        seed: of the world.
        max_new_tokens: longest reply.
        batch_size: requests at once.
        threads: of torch.
    """

    model: str = "pocket"
    train: str = ""
    validation: str = ""
    pairs: int = 0
    validation_pairs: int = 0
    questions: str = ""
    validation_questions: int = 290
    others: int = 0
    ordinary: str = ""
    seed: int = 50
    max_new_tokens: int = 256
    batch_size: int = 64
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: a manifest is not there, or not one of it and a number of pairs is given.
        """
        manifest_or_number(self, "train", "pairs")
        manifest_or_number(self, "validation", "validation_pairs")
        for name in ("questions", "ordinary"):
            require_manifest(self, name)
        if self.ordinary and self.others:
            raise RecipeError(f"others is {self.others}, and a manifest is taken whole: leave the number out")
        at_least(self, 0, "others", "validation_questions")

    @property
    def words(self) -> Words:
        """What stands beside a request."""
        return Words.load("pocket" if self.model == "pocket" else "general")

    @property
    def judge(self) -> Judge:
        """Who says what replies do."""
        return ClosedJudge() if self.model == "pocket" else PhraseJudge()


@dataclass(frozen=True)
class AdapterSettings:
    """Numbers of `safety-adapters`: LoRA's are the paper's; see `LoraSettings` and `rrs.Objective`.

    Attributes:
        methods: what is trained, parted by commas; see `METHODS`.
        regulariser: weight of L_reg.
        opening: of refusals, see `rrs.Objective`.
        keep: see `rrs.Objective`; above 0 SFT with twins learns from the ordinary questions as well.
        rank: see `LoraSettings`.
        alpha: see there.
        dropout: see there.
        learning_rate: see there.
        epochs: see there.
        batch_size: see there.
        accumulate: see there.
        seed: see there.
        threads: of torch.
    """

    methods: str = f"{RRS},{SFT},{SFT_ALONE}"
    regulariser: float = 1.0
    opening: str = ""
    keep: float = 0.0
    rank: int = 16
    alpha: int = 4
    dropout: float = 0.1
    learning_rate: float = 5e-5
    epochs: int = 10
    batch_size: int = 16
    accumulate: int = 1
    seed: int = 0
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range, or an unknown method.
        """
        self.lora()
        if unknown := set(self.named) - set(METHODS):
            raise RecipeError(f"unknown method(s) {', '.join(sorted(unknown))}: known are {', '.join(METHODS)}")
        for name in self.named:
            if name in ABLATIONS:
                self.objective(name)

    @property
    def named(self) -> tuple[str, ...]:
        """The methods."""
        return tuple(name.strip() for name in self.methods.split(","))

    def lora(self) -> LoraSettings:
        """As a training takes them."""
        return LoraSettings.of(self, parts="all")

    def objective(self, method: str) -> Objective:
        """Of RRS or one of its ablations."""
        changed: dict[str, Any] = {
            "regulariser": self.regulariser,
            "opening": self.opening,
            "keep": self.keep,
            **ABLATIONS[method],
        }
        return Objective(**changed)


@dataclass(frozen=True)
class ChoiceSettings:
    """Numbers of `safety-choice`: none."""


@dataclass(frozen=True)
class ShipSettings:
    """Numbers of `safety-ship`: none."""


def _requests(settings: DataSettings, context: Context, split: str) -> list[Example]:
    if given := getattr(settings, split):
        found = read_spoken(given)
        if not all(sides_of(found)):
            raise RecipeError(f"{given} has requests of one kind only: harmful and benign ones are both needed")
        return found
    pairs = settings.pairs if split == "train" else settings.validation_pairs
    return world_requests(context.root / "safety-data" / split, split, settings.seed, pairs)


def _questions(settings: DataSettings, context: Context, split: str, n: int) -> list[Example]:
    folder = context.root / "safety-data" / f"world-{split}"
    return load_manifest(make_world(folder, n, split=split, seed=settings.seed, workers=settings.threads))


def _others(settings: DataSettings, context: Context) -> list[Example]:
    if settings.ordinary:
        return load_manifest(settings.ordinary)
    return _questions(settings, context, "train", settings.others) if settings.others else []


def _require_apart(learnt: Sequence[Example], asked: Sequence[Example], names: tuple[str, str]) -> None:
    """What is chosen on must not have been learnt.

    Raises:
        RecipeError: a clip is in both.
    """
    known = {clip.key: example.id for example in learnt for clip in example.clips}
    twice = [(one.id, known[clip.key]) for one in asked for clip in one.clips if clip.key in known]
    if twice:
        raise RecipeError(
            f"{len(twice)} clips of {names[1]} are in {names[0]}, too, such as {twice[0][0]} ({twice[0][1]} there): "
            "the choice would be made on what was learnt"
        )


def _write_data(settings: DataSettings, context: Context) -> None:
    examples = _requests(settings, context, "train")
    _require_apart(examples, _requests(settings, context, "validation"), ("train", "validation"))
    harmful, benign = sides_of(examples)
    others = _others(settings, context)
    if settings.ordinary and settings.questions:
        _require_apart(others, load_manifest(settings.questions), ("ordinary", "questions"))
    if twice := {example.id for example in examples} & {example.id for example in others}:
        raise RecipeError(f"{len(twice)} ids of ordinary are in train, too, such as {min(twice)}: rename them")
    engine = load_local(settings.model, threads=settings.threads, batch_size=settings.batch_size)
    run = RunDirectory(context.folder / "run")
    words = settings.words
    sampling = Sampling(max_new_tokens=settings.max_new_tokens)

    def refused(example: Example) -> Conversation:
        return spoken(example.clips, words.hinted)

    def answered(example: Example) -> Conversation:
        return asked(example, AUDIO_TEXT, words) if is_request(example) else example.conversation()

    def replies(own: Sequence[Example], what: str) -> list[Completion]:
        return completions_of(
            engine,
            own,
            refused if what == REFUSAL else answered,
            run,
            sampling,
            settings.batch_size,
            progress=lambda count: context.log(f"{count} of {len(own)} replies ({what})"),
        )

    rows: list[dict[str, str]] = []
    left: dict[str, int] = {}
    for own, what in ((harmful, REFUSAL), (benign, OWN), (others, ORDINARY)):
        for example, done in zip(own, replies(own, what), strict=True):
            if not teaches(done, what):
                left[what] = left.get(what, 0) + 1
            else:
                rows.append({"id": example.id, "reply": done.text})
    write_json_lines(context.folder / REPLIES, rows)
    card = {
        "model": settings.model,
        "key": engine.key,
        "words": words.id,
        "harmful": len(harmful),
        "benign": len(benign),
        "others": len(others),
        "without_own_reply": left,
    }
    write_json(context.folder / "card.json", card)
    context.log(str(card))


def teaches(reply: Completion, what: str) -> bool:
    """Whether a reply of the model's own is a lesson.

    What is cut would teach to stop there, a refusal that is none to answer. To an ordinary question "no" is an answer.

    Args:
        reply: the model's own.
        what: `REFUSAL`, `OWN` (a benign request's answer) or `ORDINARY`.
    """
    if reply.stop is not Stop.END:
        return False
    return what == ORDINARY or refuses_request(parse_reply(reply.text).answer) is (what == REFUSAL)


def _train(settings: AdapterSettings, context: Context) -> None:
    source: DataSettings = context.stages["safety-data"]
    harmful, benign = sides_of(_requests(source, context, "train"))
    others = _others(source, context)
    replies = {row["id"]: row["reply"] for row in read_json_lines(context.root / "safety-data" / REPLIES)}
    engine = load_local(source.model, threads=settings.threads)
    ordinary = sft_lessons([], others, replies, source.words, settings.seed)
    # Every method hears the same clips.
    soft = AudioCache(SOFT_TOKEN_BYTES)
    for name in settings.named:
        out = context.folder / name
        if is_trained(out):
            continue

        def log(line: str, name: str = name) -> None:
            context.log(f"{name}: {line}")

        if name in ABLATIONS:
            reshape(
                engine,
                harmful,
                benign,
                source.words,
                settings.objective(name),
                settings.lora(),
                out,
                ordinary=ordinary,
                soft=soft,
                log=log,
            )
        else:
            beside = others if name == SFT_ALONE else [*benign, *(others if settings.keep else [])]
            if replies.keys().isdisjoint(example.id for example in harmful):
                raise EarnestError(
                    f"{source.model} refuses no harmful request even under {source.words.hinted!r}: there is no "
                    f"refusal of its own for {name} to learn, leave it out of methods"
                )
            lessons = sft_lessons(harmful, beside, replies, source.words, settings.seed)
            fine_tune(engine.family, lessons, settings.lora(), out, soft=soft, per_epoch=True, log=log)


def sft_lessons(
    harmful: Sequence[Example], beside: Sequence[Example], replies: dict[str, str], words: Words, seed: int
) -> list[Lesson]:
    """Lessons of the baseline: the model's own refusals of harmful requests, its own answers to the others.

    A spoken request is asked under an instruction that is drawn from the pool, as in RRS.

    Args:
        harmful: spoken requests.
        beside: benign ones, or ordinary questions.
        replies: its own, by id; what has none is left out.
        words: instructions.
        seed: of the draws.
    """
    rng = random.Random(f"safety/sft/{seed}")
    lessons: list[Lesson] = []
    for example in (*harmful, *beside):
        if example.id not in replies:
            continue
        if not is_request(example):
            lessons.append(Lesson(example.conversation, replies[example.id], example.id))
            continue
        instruction = rng.choice(words.pool)

        def conversation(example: Example = example, instruction: str = instruction) -> Conversation:
            return spoken(example.clips, instruction)

        lessons.append(Lesson(conversation, replies[example.id], f"{example.id}/{instruction}"))
    return lessons


def _choose(_: ChoiceSettings, context: Context) -> None:
    source: DataSettings = context.stages["safety-data"]
    trained: AdapterSettings = context.stages["safety-adapters"]
    requests = _requests(source, context, "validation")
    questions = (
        load_manifest(source.questions)
        if source.questions
        else _questions(source, context, "validation", source.validation_questions)
    )
    engine = load_local(source.model, threads=source.threads, batch_size=source.batch_size)
    run = RunDirectory(context.folder / "run")
    sampling = Sampling(max_new_tokens=source.max_new_tokens)

    def standing() -> _choice.Standing:
        asker = Asker(engine, run, source.words, source.judge, sampling, source.batch_size)
        found = {name: asker.ask(requests, name) for name in CONDITIONS}
        return _choice.Standing(
            {name: own.attack_success for name, own in found.items()},
            {name: own.over_rejection for name, own in found.items()},
            {name: own.unhelped for name, own in found.items()},
        )

    def accuracy() -> Metric:
        outcomes = outcomes_of(engine, questions, run, sampling, source.batch_size)
        return wilson(sum(outcome is Outcome.CORRECT for outcome in outcomes.values()), len(outcomes))

    before, known = standing(), accuracy()
    context.log(f"untouched: {before.said(before)}")
    methods = [name for name in trained.named if name in (RRS, SFT, SFT_ALONE)]
    cards: dict[str, Any] = {}
    for method in methods:
        standings: dict[_choice.Candidate, _choice.Standing] = {}
        for epoch in range(1, trained.epochs + 1):
            for strength in _choice.STRENGTHS:
                with engine.wearing(_epoch(context, method, epoch), strength):
                    own = standings[epoch, strength] = standing()
                context.log(f"{method}, epoch {epoch} at {strength:g}: {own.said(before)}")
        kept: dict[_choice.Candidate, Metric] = {}

        def lost(one: _choice.Candidate, method: str = method, kept: dict[Any, Metric] = kept) -> float:
            with engine.wearing(_epoch(context, method, one[0]), one[1]):
                kept[one] = accuracy()
            context.log(f"{method}, epoch {one[0]} at {one[1]:g}: accuracy {kept[one]} after {known}")
            return known.value - kept[one].value

        best = _choice.chosen(standings, before, lost)
        copy_adapter(_epoch(context, method, best[0]), context.folder / method, best[1])
        used, cost = standings[best].used(before), known.value - kept[best].value
        broken = used > 1 or cost > _choice.MOST_LOST + 1e-9
        warning = "WARNING, no candidate keeps its bounds: " if broken else ""
        context.log(f"{warning}{method}, epoch {best[0]} at {best[1]:g} is taken")
        cards[method] = {
            "epoch": best[0],
            "strength": best[1],
            "bounds_used": round(used, 4),
            "comprehension_lost": round(cost, 4),
            "candidates": {f"epoch {epoch} at {at:g}": own.to_json() for (epoch, at), own in standings.items()},
        }
    shift = json.loads((context.root / "safety-adapters" / RRS / SHIFT).read_text("utf-8"))
    card = {"key": engine.key, "rule": _choice.RULE, "before": before.to_json(), "accuracy": known.to_json(), **shift}
    write_json(context.folder / _choice.CARD, {**card, "methods": cards})


def _epoch(context: Context, method: str, number: int) -> Path:
    return context.root / "safety-adapters" / method / EPOCHS / str(number)


def _ship(_: ShipSettings, context: Context) -> None:
    from earnest.pocket import SAFETY_CARD, safety_folder

    source: DataSettings = context.stages["safety-data"]
    folders = {name: context.root / "safety-choice" / name for name in (RRS, SFT, SFT_ALONE)}
    card = json.loads((context.root / "safety-choice" / _choice.CARD).read_text("utf-8"))
    seconds = stage_seconds(context.root, ("safety-data", "safety-adapters", "safety-choice"))
    put_adapters(folders, safety_folder(), source.model, SAFETY_CARD, {**card, "seconds": seconds})
    context.log(f"in {safety_folder()}")


def _made_of(settings: DataSettings) -> list[str]:
    given = [settings.train, settings.validation, settings.questions, settings.ordinary]
    return [model_key(settings.model), world_version(), *(Path(one).read_text("utf-8") for one in given if one)]


def _can_choose(_: ChoiceSettings, stages: dict[str, object]) -> None:
    source, trained = stages.get("safety-data"), stages.get("safety-adapters")
    if isinstance(source, DataSettings) and not source.questions and not source.validation_questions:
        raise RecipeError(
            "validation_questions is 0 and there is no manifest of questions: the choice asks what is lost, give one "
            "of them"
        )
    if isinstance(trained, AdapterSettings) and RRS not in trained.named:
        raise RecipeError(f"methods is {trained.methods!r}: the choice is among the epochs of {RRS}, add it")


def _can_train(settings: AdapterSettings, stages: dict[str, object]) -> None:
    can_train(settings, stages)
    source = stages.get("safety-data")
    if isinstance(source, DataSettings) and not source.others and not source.ordinary:
        if SFT_ALONE in settings.named:
            raise RecipeError(
                f"{SFT_ALONE} needs ordinary questions beside the refusals: give safety-data a number of others, or a "
                "manifest as ordinary"
            )
        for name in settings.named:
            if keep := settings.objective(name).keep if name in ABLATIONS else settings.keep:
                raise RecipeError(
                    f"keep is {keep:g} for {name}: it needs ordinary questions to keep, give safety-data a number of "
                    "others, or a manifest as ordinary"
                )


def _can_ship(_: ShipSettings, stages: dict[str, object]) -> None:
    source, trained = stages.get("safety-data"), stages.get("safety-adapters")
    if isinstance(source, DataSettings) and source.model != "pocket":
        raise RecipeError(f"only pocket's adapters are shipped, these are for {source.model}: leave safety-ship out")
    if isinstance(trained, AdapterSettings) and not {RRS, SFT, SFT_ALONE} <= set(trained.named):
        raise RecipeError(f"methods is {trained.methods!r}: {RRS}, {SFT} and {SFT_ALONE} are shipped together")


data = Stage(DataSettings, _write_data, made_of=_made_of)
adapters = Stage(AdapterSettings, _train, ("safety-data",), check=_can_train)
choice = Stage(ChoiceSettings, _choose, ("safety-data", "safety-adapters"), check=_can_choose)
ship = Stage(ShipSettings, _ship, ("safety-data", "safety-adapters", "safety-choice"), publishes=True, check=_can_ship)
