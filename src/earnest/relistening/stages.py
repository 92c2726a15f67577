"""Re-listening as stages of a recipe.

scan              pocket's cheap first pass over long clips (`scan.py`)
relistening-data  long scenes of the world: traces to learn from, questions for RL, questions to choose on
relistening-sft   one LoRA adapter: to cite segments, and to go on from what is heard again
relistening-grpo  another one on top, by reward
relistening-ship  pocket's into the package: the scan and both adapters, beside the weights they are for
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earnest.completion import Sampling
from earnest.engines.families.added_ears import save_added
from earnest.engines.load import load_local, model_key
from earnest.engines.local import LocalEngine
from earnest.engines.lora import chained, put_on
from earnest.errors import RecipeError
from earnest.example import Example, load_manifest
from earnest.files import read_json_lines
from earnest.pocket.ship import put_adapters, stage_seconds
from earnest.prompts import Prompt
from earnest.relistening import scan as _scan
from earnest.relistening.lessons import FORMS, INTERLEAVED, trace_lessons
from earnest.relistening.long_scenes import long_version, make_long
from earnest.relistening.loop import WORDS, hears_finer
from earnest.relistening.rollouts import RolloutLog, roller
from earnest.relistening.segments import Bounds
from earnest.training.adapters import AdapterSettings, can_train
from earnest.training.grpo import METRICS, GRPOSettings, train_policy
from earnest.training.numbers import at_least, manifest_or_number, one_of
from earnest.training.recipes import Context, Stage, is_main
from earnest.training.sft import fine_tune

TRAIN, RL = "train", "rl"
ADAPTER = "adapter"


@dataclass(frozen=True)
class DataSettings:
    """Numbers of `relistening-data`.

    Attributes:
        train: manifest with traces (`earnest make grounded`); empty for the world's.
        rl: manifest with answers, without traces; empty for the world's.
        scenes: of the world, to learn traces from.
        per_scene: questions about each.
        rl_scenes: of the world, for RL.
        rl_per_scene: questions about each.
        seed: of the world; another one than the scan's, whose own clips it hears too well.
        workers: processes that render.
    """

    train: str = ""
    rl: str = ""
    scenes: int = 0
    per_scene: int = 4
    rl_scenes: int = 0
    rl_per_scene: int = 2
    seed: int = 61
    workers: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: a manifest is not there, not one of it and a number of scenes is given, or a number is below 1.
        """
        manifest_or_number(self, TRAIN, "scenes")
        manifest_or_number(self, RL, "rl_scenes")
        at_least(self, 1, "per_scene", "rl_per_scene", "workers")


@dataclass(frozen=True)
class SFTSettings(AdapterSettings):
    """Numbers of `relistening-sft`; LoRA's: see `AdapterSettings`.

    Attributes:
        model: that learns; empty for what the stage `scan` made.
        words: that ask for segments, a key of `loop.WORDS`; empty: pocket's where the stage scan is of it.
        form: interleaved, or tags (the paper's: no audio is heard again yet).
        single: share of the lessons that are learnt as a single pass, where the manifest has such replies.
        places: share that is learnt as a look-up of several places, where the manifest has such exercises.
    """

    model: str = ""
    words: str = ""
    form: str = INTERLEAVED
    single: float = 0.0
    places: float = 0.0
    rank: int = 32
    alpha: int = 32
    parts: str = "all"
    learning_rate: float = 2e-3
    epochs: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        super().__post_init__()
        if self.words and self.words not in WORDS:
            raise RecipeError(f"words is {self.words!r}: give one of {', '.join(WORDS)}, or leave it out")
        one_of(self, "form", FORMS)
        if min(self.single, self.places) < 0 or self.single + self.places >= 1:
            raise RecipeError(
                f"single is {self.single}, places {self.places}: both must be at least 0, and below 1 together"
            )


@dataclass(frozen=True)
class RLSettings(GRPOSettings):
    """Numbers of `relistening-grpo`; see `GRPOSettings` and `Bounds`.

    Attributes:
        max_new_tokens: of one generation.
        by_confidence: the variant of the reward.
        log_every: steps between two whose rollouts are kept, with what was heard.
        batch_size: replies at once.
    """

    learning_rate: float = 1e-4
    alpha: int = 16
    turns: int = 8
    longest_s: float = 30.0
    total_s: float = 60.0
    max_new_tokens: int = 96
    by_confidence: bool = False
    log_every: int = 10
    batch_size: int = 64
    threads: int = 2

    def __post_init__(self) -> None:
        """Checks the numbers.

        Raises:
            RecipeError: one is out of its range.
        """
        super().__post_init__()
        self.bounds()
        self.sampling()
        at_least(self, 1, "log_every", "batch_size")

    def grpo(self) -> GRPOSettings:
        """As the training takes them."""
        names = GRPOSettings.__dataclass_fields__
        return GRPOSettings(**{name: getattr(self, name) for name in names})

    def bounds(self) -> Bounds:
        """Of a reply."""
        return Bounds(turns=self.turns, longest_s=self.longest_s, total_s=self.total_s)

    def sampling(self) -> Sampling:
        """Of each generation."""
        return Sampling(max_new_tokens=self.max_new_tokens, temperature=self.temperature)


@dataclass(frozen=True)
class ShipSettings:
    """Numbers of `relistening-ship`.

    Attributes:
        dtype: of the weights.
    """

    dtype: str = "float16"


def _run_scan(settings: _scan.ScanSettings, context: Context) -> None:
    _scan.train(settings, context.folder, log=context.log)


def _write_data(settings: DataSettings, context: Context) -> None:
    for name, scenes, per_scene, seed in (
        (TRAIN, settings.scenes, settings.per_scene, settings.seed),
        (RL, settings.rl_scenes, settings.rl_per_scene, settings.seed + 1),
    ):
        if not scenes:
            continue
        manifest = make_long(
            context.folder / name, scenes, split="train", seed=seed, per_scene=per_scene, workers=settings.workers
        )
        context.log(f"{manifest}: {scenes} clips")


def examples_of(root: Path, settings: DataSettings, name: str) -> list[Example]:
    """The examples of one part, from the user's manifest or the world's."""
    given = getattr(settings, name)
    return load_manifest(given or root / "relistening-data" / name / "manifest.jsonl")


def _model_of(settings: SFTSettings, context: Context) -> str:
    return settings.model or str(context.root / "scan")


def _words(context: Context) -> Prompt:
    sft: SFTSettings = context.stages["relistening-sft"]
    return Prompt.load("relistening", WORDS[sft.words or ("pocket" if _of_pocket(context.stages) else "general")])


def _of_pocket(stages: Any) -> bool:
    source = stages.get("scan")
    return isinstance(source, _scan.ScanSettings) and source.model == "pocket"


def _train(settings: SFTSettings, context: Context) -> None:
    source: DataSettings = context.stages["relistening-data"]
    engine = load_local(_model_of(settings, context), threads=settings.threads)
    lessons = trace_lessons(
        examples_of(context.root, source, TRAIN),
        _words(context),
        form=settings.form,
        single=settings.single,
        places=settings.places,
        fine=hears_finer(engine),
        seed=settings.seed,
    )
    context.log(f"{len(lessons)} lessons")
    fine_tune(engine.family, lessons, settings.sft(), context.folder / ADAPTER, log=context.log)


def _reinforce(settings: RLSettings, context: Context) -> None:
    source: DataSettings = context.stages["relistening-data"]
    sft: SFTSettings = context.stages["relistening-sft"]
    learnt = context.root / "relistening-sft" / ADAPTER
    engine: LocalEngine = load_local(_model_of(sft, context), threads=settings.threads, batch_size=settings.batch_size)
    # What was learnt so far becomes part of the weights: the reference is the model with the new adapter disabled.
    put_on(engine.family.model, learnt).merge_and_unload()
    questions = examples_of(context.root, source, RL)
    kept = RolloutLog(context.folder, settings.log_every, settings.group)
    roll = roller(
        engine,
        _words(context),
        settings.bounds(),
        settings.sampling(),
        by_confidence=settings.by_confidence,
        seen=kept.see if is_main() else None,
    )
    taught = [settings.turns, settings.longest_s, settings.total_s, settings.max_new_tokens, settings.by_confidence]
    own = train_policy(
        engine.family,
        questions,
        roll,
        settings.grpo(),
        context.folder / "own",
        taught=[*taught, [question.id for question in questions]],
        on_step=kept.step,
        log=context.log,
    )
    if settings.rank and is_main():
        # One adapter for the model that the user has, not for one that SFT was merged into.
        chained([learnt, own], context.folder / ADAPTER)


def _ship(settings: ShipSettings, context: Context) -> None:
    from transformers import AutoModelForCausalLM

    from earnest.pocket import RELISTENING_CARD, relistening_folder

    folders = {"sft": context.root / "relistening-sft" / ADAPTER, "grpo": context.root / "relistening-grpo" / ADAPTER}
    model: Any = AutoModelForCausalLM.from_pretrained(context.root / "scan", dtype=settings.dtype)
    ears = context.folder / "ears"
    shutil.rmtree(ears, ignore_errors=True)
    save_added(model, ears, (_scan.EAR,), ("first",), {"fine": "first"})
    curve = [
        {name: row[name] for name in ("step", "reward", "correct", "hits", "format")}
        for row in read_json_lines(context.root / "relistening-grpo" / "own" / METRICS)
    ]
    content = {
        "key": model_key("pocket"),
        "heard": _scan.read_card(context.root / "scan"),
        "grpo": curve,
        "seconds": stage_seconds(context.root, ("scan", "relistening-data", "relistening-sft", "relistening-grpo")),
    }
    target = relistening_folder()
    put_adapters(
        folders, target, "pocket", RELISTENING_CARD, content, beside=sorted(ears.iterdir()), dtype=settings.dtype
    )
    context.log(f"in {target}")


def made_of(manifests: Sequence[str]) -> list[str]:
    """What stages read of the user's files, and the world."""
    return [long_version(), *(Path(one).read_text("utf-8") for one in manifests if one)]


def _can_ship(_: ShipSettings, stages: dict[str, object]) -> None:
    sft, grpo = stages.get("relistening-sft"), stages.get("relistening-grpo")
    if not _of_pocket(stages) or (isinstance(sft, SFTSettings) and sft.model):
        raise RecipeError("only pocket's adapters are shipped: leave relistening-ship out")
    if isinstance(grpo, RLSettings) and not grpo.rank:
        raise RecipeError("relistening-grpo has rank 0: only adapters are shipped, give it one")


def _can_learn(settings: SFTSettings, stages: dict[str, object]) -> None:
    can_train(settings, stages)
    if not settings.model and "scan" not in stages:
        raise RecipeError("model is empty: name one, or let the stage scan make pocket's")


scan = Stage(_scan.ScanSettings, _run_scan, made_of=lambda settings: [model_key(settings.model), long_version()])
data = Stage(DataSettings, _write_data, made_of=lambda settings: made_of([settings.train, settings.rl]))
sft = Stage(
    SFTSettings,
    _train,
    ("relistening-data",),
    builds_on=("scan",),
    made_of=lambda settings: [model_key(settings.model)] if settings.model else [],
    check=_can_learn,
)
grpo = Stage(
    RLSettings,
    _reinforce,
    ("relistening-data", "relistening-sft"),
    builds_on=("scan",),
    check=can_train,
    parallel=True,
)
ship = Stage(
    ShipSettings,
    _ship,
    ("scan", "relistening-data", "relistening-sft", "relistening-grpo"),
    publishes=True,
    check=_can_ship,
)
