"""IDK fine-tuning as stages of a recipe: draw, train for every K and modality, choose on validation, ship.

idk-data       the model's own greedy reply to each question, and N samples
idk-adapters   one LoRA adapter for each K and modality
idk-choice     K, by the rule of `choice.chosen_k`, on validation items; the dial's sweep; the chosen adapters
idk-ship       pocket's into the package, the chosen ones and the paper's K = 5, beside the weights they are for
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earnest.accuracy import outcomes_of
from earnest.completion import Sampling
from earnest.engines.audio_cache import AudioCache
from earnest.engines.load import load_local, model_key
from earnest.engines.lora import copy_adapter
from earnest.errors import RecipeError
from earnest.example import Example, load_manifest
from earnest.files import write_json
from earnest.finding import Metric
from earnest.grading import Outcome
from earnest.pocket.ship import put_adapters, stage_seconds
from earnest.reliability import choice as _choice
from earnest.reliability.controls import SILENT, conditions, spread
from earnest.reliability.fine_tuned import find_adapters, own_adapter, require_own
from earnest.reliability.known import IDK, check_numbers, draw, lessons, read_drawn, write_data
from earnest.reliability.less_to_hear import noisy_copies
from earnest.run import RunDirectory
from earnest.statistics import wilson
from earnest.training.adapters import AdapterSettings, can_train
from earnest.training.lora_trainer import SOFT_TOKEN_BYTES, is_trained
from earnest.training.numbers import require_manifest
from earnest.training.recipes import Context, Stage
from earnest.training.sft import fine_tune
from earnest.world.dataset import make_world, world_version

PAPERS_K = 5
SILENT_ITEMS = 150
"""Validation questions that each K is asked over silence, of every modality alike."""


@dataclass(frozen=True)
class DataSettings:
    """Numbers of `idk-data`.

    Attributes:
        model: whose knowledge it is; any that runs in this process.
        train: manifest of the questions to learn from; empty for the diagnostic world's training split.
        validation: manifest of those to choose on; empty for its validation split.
        train_items: questions of the world's training split; a manifest is taken whole.
        validation_items: of its validation split.
        seed: of the worlds and of the samples.
        samples: drawn per question.
        temperature: of the samples.
        nothing_share: silent and noise-only items, as a share of the questions.
        noisy_share: copies of training questions whose audio lies in noise, as a share of them (`less_to_hear`).
        noisy_modality: whose questions are copied so, where one modality is known too well; empty for all.
        idk: what the unknown is retargeted to.
        max_new_tokens: longest reply.
        batch_size: questions at once.
        threads: of torch.
        workers: processes that render.
    """

    model: str = "pocket"
    train: str = ""
    validation: str = ""
    train_items: int = 0
    validation_items: int = 0
    seed: int = 20
    samples: int = 5
    temperature: float = 1.0
    nothing_share: float = 0.03
    noisy_share: float = 0.0
    noisy_modality: str = ""
    idk: str = IDK
    max_new_tokens: int = 256
    batch_size: int = 64
    threads: int = 2
    workers: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            EarnestError: one is out of its range.
            RecipeError: a manifest is not there, or not both or neither of it and a number of items is given.
        """
        check_numbers(self.samples, 1, self.nothing_share, self.idk, self.temperature, self.noisy_share)
        for name, items in (("train", self.train_items), ("validation", self.validation_items)):
            require_manifest(self, name)
            manifest = getattr(self, name)
            if manifest and items:
                raise RecipeError(f"{name}_items is {items}, and a manifest is taken whole: leave the number out")
            if not manifest and items < 1:
                raise RecipeError(f"{name}_items is {items}: the world needs at least 1, or name a manifest as {name}")
        if self.noisy_modality and not self.noisy_share:
            raise RecipeError(
                f"noisy_modality is {self.noisy_modality!r} and noisy_share 0: say which share, or leave both out"
            )


@dataclass(frozen=True)
class ChoiceSettings:
    """Numbers of `idk-choice`.

    Attributes:
        batch_size: questions at once.
        threads: of torch.
    """

    batch_size: int = 64
    threads: int = 2


@dataclass(frozen=True)
class ShipSettings:
    """Numbers of `idk-ship`: none."""


def _manifest(settings: DataSettings, context: Context, split: str) -> Path:
    """The questions of a split; the world's are rendered into the folder of `idk-data`."""
    if given := getattr(settings, split):
        return Path(given)
    n = getattr(settings, f"{split}_items")
    folder = context.root / "idk-data" / f"world-{split}"
    return make_world(folder, n, split=split, seed=settings.seed, workers=settings.workers)


def _examples(settings: DataSettings, context: Context, split: str) -> list[Example]:
    return load_manifest(_manifest(settings, context, split))


def _write_data(settings: DataSettings, context: Context) -> None:
    examples, held = _examples(settings, context, "train"), _examples(settings, context, "validation")
    for split, asked in (("train", examples), ("validation", held)):
        nameless = [example.id for example in asked if not example.groups.get("modality")]
        if nameless:
            raise RecipeError(
                f"{len(nameless)} questions of {split} have no modality, such as {nameless[0]}: add it, an adapter "
                "is trained for each"
            )
    if untaught := {each.groups["modality"] for each in held} - {each.groups["modality"] for each in examples}:
        raise RecipeError(f"no question of train is about {', '.join(sorted(untaught))}, and some of validation are")
    known_well = [each for each in examples if settings.noisy_modality in ("", each.groups["modality"])]
    if not known_well:
        raise RecipeError(f"noisy_modality is {settings.noisy_modality!r}: no question of train is about it")
    examples += noisy_copies(known_well, settings.noisy_share, context.folder / "noisy", settings.seed)
    context.log(f"{len(examples)} questions to learn from, {len(held)} to choose on")
    engine = load_local(settings.model, threads=settings.threads, batch_size=settings.batch_size)
    drawn = draw(
        engine,
        examples,
        RunDirectory(context.folder / "run"),
        samples=settings.samples,
        temperature=settings.temperature,
        nothing_share=settings.nothing_share,
        seed=settings.seed,
        batch_size=settings.batch_size,
        max_new_tokens=settings.max_new_tokens,
        progress=lambda done, total: context.log(f"{done} of {total} questions drawn"),
    )
    made_of = {"model": settings.model, "key": engine.key, "temperature": settings.temperature, "seed": settings.seed}
    card = write_data(drawn, context.folder, settings.samples, idk=settings.idk, share=0.0, made_of=made_of)
    context.log(f"known by K: {card['known_by_k']}, left out: {len(card['left_out'])}")


def _train(settings: AdapterSettings, context: Context) -> None:
    source: DataSettings = context.stages["idk-data"]
    drawn = read_drawn(context.root / "idk-data" / "drawn.jsonl")
    modalities = dict.fromkeys(item.example.groups["modality"] for item in drawn)
    engine = load_local(source.model, threads=settings.threads)
    # Every K hears the same clips.
    soft = AudioCache(SOFT_TOKEN_BYTES)
    for k in range(1, source.samples + 1):
        for modality in modalities:
            out = context.folder / f"k{k}" / modality
            if is_trained(out):
                continue
            own = [item for item in drawn if item.example.groups["modality"] == modality]
            fine_tune(
                engine.family,
                lessons(own, k, source.idk),
                settings.sft(),
                out,
                soft=soft,
                log=lambda line, k=k, modality=modality: context.log(f"K = {k}, {modality}: {line}"),
            )


def _choose(settings: ChoiceSettings, context: Context) -> None:
    source: DataSettings = context.stages["idk-data"]
    examples = _examples(source, context, "validation")
    require_own(find_adapters(context.root / "idk-adapters" / "k1"), examples)
    engine = load_local(source.model, threads=settings.threads, batch_size=settings.batch_size)
    run = RunDirectory(context.folder / "run")
    sampling = Sampling(max_new_tokens=source.max_new_tokens)
    before = outcomes_of(engine, examples, run, sampling, settings.batch_size)

    silent = conditions()[SILENT](spread(examples, SILENT_ITEMS, source.seed))
    modalities = [example.groups["modality"] for example in examples]

    def asked(about: Sequence[Example], k: int, strength: float = 1.0) -> list[Outcome]:
        adapters = find_adapters(context.root / "idk-adapters" / f"k{k}")
        found: dict[str, Outcome] = {}
        for name, folder in adapters.items():
            own = [example for example in about if own_adapter(adapters, example.groups) == name]
            with engine.wearing(folder, strength):
                found |= outcomes_of(engine, own, run, sampling, settings.batch_size)
        return [found[example.id] for example in about]

    def measure(k: int, strength: float = 1.0) -> dict[str, Metric]:
        return _choice.measured([before[example.id] for example in examples], asked(examples, k, strength), modalities)

    def at_silence(k: int) -> Metric:
        said = asked(silent, k)
        return wilson(said.count(Outcome.ABSTAINED), len(said))

    by_k: dict[int, dict[str, Metric]] = {}
    for k in range(1, source.samples + 1):
        by_k[k] = {**measure(k), "silence": at_silence(k)}
        context.log(f"K = {k}: {_choice.said(by_k[k])}")
    best = _choice.chosen_k(by_k)
    dial: dict[float, dict[str, Metric]] = {}
    for strength in _choice.DIAL:
        dial[strength] = by_k[best] if strength == 1 else measure(best, strength)
        context.log(f"K = {best}, dial at {strength:g}: {_choice.said(dial[strength])}")
    _copy(context.root / "idk-adapters" / f"k{best}", context.folder / _choice.CHOSEN)
    write_json(context.folder / _choice.CARD, _choice.card(engine.key, best, by_k, dial))


def _ship(_: ShipSettings, context: Context) -> None:
    from earnest.pocket import idk_folder

    ship_adapters(context.root, "pocket", idk_folder())
    context.log(f"in {idk_folder()}")


def ship_adapters(root: Path, model: str, target: Path) -> None:
    """Puts the chosen adapters and the paper's in place, all or none of them.

    Args:
        root: folder of the recipe.
        model: the name of the model that they are for.
        target: where to; what lies there is replaced.
    """
    card = json.loads((root / "idk-choice" / _choice.CARD).read_text("utf-8"))
    card["seconds"] = stage_seconds(root, ("idk-data", "idk-adapters", "idk-choice"))
    sources = {
        _choice.CHOSEN: root / "idk-choice" / _choice.CHOSEN,
        f"k{PAPERS_K}": root / "idk-adapters" / f"k{PAPERS_K}",
    }
    folders = {f"{which}/{name}": own for which, of in sources.items() for name, own in find_adapters(of).items()}
    put_adapters(folders, target, model, _choice.CARD, card)


def _copy(adapters: Path, to: Path) -> None:
    """Of each modality's adapter what peft needs."""
    shutil.rmtree(to, ignore_errors=True)
    for name, folder in find_adapters(adapters).items():
        copy_adapter(folder, to / name)


def _made_of(settings: DataSettings) -> list[str]:
    given = [Path(manifest).read_text("utf-8") for manifest in (settings.train, settings.validation) if manifest]
    return [model_key(settings.model), world_version(), *given]


def _can_ship(_: ShipSettings, stages: dict[str, object]) -> None:
    source = stages.get("idk-data")
    if not isinstance(source, DataSettings):
        return
    if source.model != "pocket":
        raise RecipeError(f"only pocket's adapters are shipped, these are for {source.model}: leave idk-ship out")
    if source.samples != PAPERS_K:
        raise RecipeError(f"samples is {source.samples}: the paper's K = N = {PAPERS_K} is shipped beside, draw 5")


data = Stage(DataSettings, _write_data, made_of=_made_of)
adapters = Stage(AdapterSettings, _train, ("idk-data",), check=can_train)
choice = Stage(ChoiceSettings, _choose, ("idk-data", "idk-adapters"))
ship = Stage(ShipSettings, _ship, ("idk-data", "idk-adapters", "idk-choice"), publishes=True, check=_can_ship)
