"""Hardening as stages of a recipe.

hardening-data       the model's own replies, and contrastive lessons made of them
hardening-adapters   one LoRA adapter on all lessons, one on their clean counterparts: the control
hardening-ship       pocket's into the package, both, beside the weights they are for
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from earnest.accuracy import completions_of
from earnest.completion import Sampling
from earnest.engines.load import load_local, model_key
from earnest.errors import RecipeError
from earnest.example import load_manifest
from earnest.faithfulness.closed import world_language
from earnest.faithfulness.hardening import (
    NOT_HEARD,
    NOTHING_HEARD,
    Shares,
    contrastive,
    read_lessons,
    require_abstaining,
    save_lessons,
)
from earnest.faithfulness.language import Language, general_language
from earnest.faithfulness.presence import presence_items, rendered
from earnest.files import write_json
from earnest.pocket.ship import put_adapters, stage_seconds
from earnest.run import RunDirectory
from earnest.training.adapters import AdapterSettings, can_train
from earnest.training.lora_trainer import is_trained
from earnest.training.numbers import at_least, manifest_or_number
from earnest.training.recipes import Context, Stage
from earnest.training.sft import fine_tune
from earnest.world.dataset import world_version

HARDENED, CONTROL = "hardened", "clean_only"
LESSONS = "lessons.jsonl"


@dataclass(frozen=True)
class DataSettings:
    """Numbers of `hardening-data`.

    Attributes:
        model: that is hardened; any that runs in this process.
        train: manifest of the questions; empty for the diagnostic world's training split.
        items: questions of the world.
        told: further ones of the world in which a voice of the clip tells of a sound that is asked about.
        presence: further ones of the world that ask whether a sound is there.
        silent: see `hardening.Shares`.
        noise: see there.
        swapped: see there.
        injected: see there.
        nothing: the reply where nothing is heard.
        not_heard: the reply where {name} is not heard.
        seed: of the world and of all that is drawn.
        max_new_tokens: longest reply.
        batch_size: questions at once.
        threads: of torch.
    """

    model: str = "pocket"
    train: str = ""
    items: int = 0
    told: int = 0
    presence: int = 0
    silent: float = 0.05
    noise: float = 0.05
    swapped: float = 0.1
    injected: float = 0.4
    nothing: str = NOTHING_HEARD
    not_heard: str = NOT_HEARD
    seed: int = 30
    max_new_tokens: int = 256
    batch_size: int = 64
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range, the manifest is not there, or not one of it and a number of items is
                given.
        """
        self.shares()
        manifest_or_number(self, "train", "items")
        at_least(self, 0, "told", "presence")
        require_abstaining(self.nothing, self.not_heard)

    def shares(self) -> Shares:
        """Of the kinds of lessons."""
        return Shares(self.silent, self.noise, self.swapped, self.injected)


@dataclass(frozen=True)
class HardeningSettings(AdapterSettings):
    """Numbers of `hardening-adapters`; see `LoraSettings`."""

    epochs: int = 2


@dataclass(frozen=True)
class ShipSettings:
    """Numbers of `hardening-ship`: none."""


def _language(settings: DataSettings) -> Language:
    return world_language("train") if settings.model == "pocket" else general_language()


def _write_data(settings: DataSettings, context: Context) -> None:
    if settings.train:
        examples = load_manifest(settings.train, n_clips=1)
        random.Random(f"hardening/{settings.seed}").shuffle(examples)
    else:
        world = [
            *range(settings.items),
            *presence_items("train", settings.seed, settings.items, settings.told, settings.presence),
        ]
        examples = rendered("train", settings.seed, world, context.folder / "world")
    context.log(f"{len(examples)} questions")
    engine = load_local(settings.model, threads=settings.threads, batch_size=settings.batch_size)
    run = RunDirectory(context.folder / "run")
    sampling = Sampling(max_new_tokens=settings.max_new_tokens)
    language = _language(settings)
    done = completions_of(
        engine,
        examples,
        language.asked,
        run,
        sampling,
        settings.batch_size,
        progress=lambda count: context.log(f"{count} of {len(examples)} questions answered"),
    )
    replies = [(completion.text, completion.stop) for completion in done]
    lessons = contrastive(
        examples,
        replies,
        language,
        context.folder / "edited",
        settings.shares(),
        settings.seed,
        nothing=settings.nothing,
        not_heard=settings.not_heard,
    )
    save_lessons(lessons, context.folder / LESSONS)
    kinds = dict(Counter(str(lesson.meta["kind"]) for lesson in lessons))
    write_json(context.folder / "card.json", {"model": settings.model, "key": engine.key, "lessons": kinds})
    context.log(f"lessons: {kinds}")


def _train(settings: HardeningSettings, context: Context) -> None:
    source: DataSettings = context.stages["hardening-data"]
    engine = load_local(source.model, threads=settings.threads)
    manifest = context.root / "hardening-data" / LESSONS
    for name in (HARDENED, CONTROL):
        out = context.folder / name
        if is_trained(out):
            continue
        lessons = read_lessons(manifest, _language(source), control=name == CONTROL)
        fine_tune(
            engine.family,
            lessons,
            settings.sft(),
            out,
            log=lambda line, name=name: context.log(f"{name}: {line}"),
        )


def _ship(_: ShipSettings, context: Context) -> None:
    from earnest.pocket import HARDENED_CARD, hardened_folder

    source: DataSettings = context.stages["hardening-data"]
    folders = {name: context.root / "hardening-adapters" / name for name in (HARDENED, CONTROL)}
    lessons = json.loads((context.root / "hardening-data" / "card.json").read_text("utf-8"))
    seconds = stage_seconds(context.root, ("hardening-data", "hardening-adapters"))
    put_adapters(folders, hardened_folder(), source.model, HARDENED_CARD, {**lessons, "seconds": seconds})
    context.log(f"in {hardened_folder()}")


def _made_of(settings: DataSettings) -> list[str]:
    given = [Path(settings.train).read_text("utf-8")] if settings.train else []
    return [model_key(settings.model), world_version(), *given]


def _can_ship(_: ShipSettings, stages: dict[str, object]) -> None:
    source = stages.get("hardening-data")
    if isinstance(source, DataSettings) and source.model != "pocket":
        raise RecipeError(f"only pocket's adapters are shipped, these are for {source.model}: leave hardening-ship out")


data = Stage(DataSettings, _write_data, made_of=_made_of)
adapters = Stage(HardeningSettings, _train, ("hardening-data",), check=can_train)
ship = Stage(ShipSettings, _ship, ("hardening-data", "hardening-adapters"), publishes=True, check=_can_ship)
