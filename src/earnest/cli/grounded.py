"""`earnest make grounded`: questions with reasoning that cites segments, by any model or from the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earnest.cli.console import console, progress
from earnest.cli.options import MODEL_HELP, BaseUrl, Device, Dtype, MaxConnections, Threads

if TYPE_CHECKING:
    from earnest.completion import Completion, Sampling
    from earnest.conversation import Conversation
    from earnest.engines import Engine

RL_SHARE = 0.25


class Late:
    """A model that is loaded when it is first asked: a run that is finished needs none.

    Args:
        key: its content key.
        load: loads it.
    """

    def __init__(self, key: str, load: Callable[[], Engine]) -> None:
        self.key = key
        self._load = load
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The model, loaded now if it is not yet."""
        self._engine = self._engine or self._load()
        return self._engine

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        """One completion for each conversation, in order."""
        return self.engine.generate(conversations, sampling)

    def release(self) -> None:
        """Lets the weights go, so that two models need not fit into the memory at once."""
        self._engine = None


def grounded(
    out: Annotated[Path, typer.Argument(help="Folder for sft.jsonl, rl.jsonl, rejected.jsonl and card.json.")],
    data: Annotated[
        Path | None, typer.Option(help="Metadata: audio, events (start, end, label), description, speech, music.")
    ] = None,
    writer: Annotated[str | None, typer.Option(help=f"Writes questions and reasoning: {MODEL_HELP}")] = None,
    judge: Annotated[str | None, typer.Option(help="Judges both. Default: the writer.")] = None,
    describer: Annotated[
        str | None, typer.Option(help=f"Listens, and describes what the metadata does not: {MODEL_HELP}")
    ] = None,
    world: Annotated[
        int | None, typer.Option("--world", min=1, help="Long scenes of the diagnostic world, in place of --data.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of the world: train, validation or test. Default: train.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of the world's scenes, and of those for RL. Default: 0.")
    ] = None,
    rl_share: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help=f"Of the world's scenes for RL. Default: {RL_SHARE}.")
    ] = None,
    per_scene: Annotated[int | None, typer.Option(min=1, help="Questions about each scene. Default: 1.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that render the world. Default: 2.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", "--n", min=1, help="Only so many clips of --data, from the first.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests at once; also what a kill can cost.")] = 64,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest reply of either model, in tokens.")] = 2048,
    threads: Threads = 2,
    device: Device = None,
    dtype: Dtype = None,
    base_url: BaseUrl = None,
    max_connections: MaxConnections = 16,
) -> None:
    """Make questions with reasoning that cites segments, for SFT and RL; repeat a killed command to complete it."""
    if data is not None and world is None:
        own = {"--split": split, "--seed": seed, "--rl-share": rl_share, "--per-scene": per_scene, "--workers": workers}
        _refuse("--world", own)
        if writer is None:
            raise typer.BadParameter("--data needs --writer MODEL, who writes the questions")
        settings = {
            "batch_size": batch_size, "device": device, "dtype": dtype, "threads": threads, "base_url": base_url,
            "max_connections": max_connections,
        }  # fmt: skip
        _from_metadata(out, data, writer, judge or writer, describer, limit, max_new_tokens, settings)
    elif world is not None and data is None:
        _refuse("--data", {"--writer": writer, "--judge": judge, "--describer": describer, "--limit": limit})
        share = RL_SHARE if rl_share is None else rl_share
        _from_world(out, world, split or "train", seed or 0, share, per_scene or 1, workers or 2)
    else:
        raise typer.BadParameter("give either --data METADATA with --writer MODEL, or --world N")


def _refuse(other: str, given: dict[str, Any]) -> None:
    if named := [name for name, value in given.items() if value is not None]:
        raise typer.BadParameter(f"{', '.join(named)}: only with {other}")


def _from_world(out: Path, scenes: int, split: str, seed: int, rl_share: float, per_scene: int, workers: int) -> None:
    from earnest.relistening.grounded import make_grounded_world

    with progress("rendering") as report:
        card = make_grounded_world(
            out,
            scenes,
            split=split,
            seed=seed,
            rl_share=rl_share,
            per_scene=per_scene,
            workers=workers,
            progress=report,
        )
    console.print(f"{scenes} scenes, {card['questions']} questions: {card['sft']} sft, {card['rl']} rl", markup=False)
    _print_cot(card["cot"])
    console.print(f"lessons: {out / 'sft.jsonl'} and rl.jsonl, card.json", markup=False)


def _from_metadata(
    out: Path,
    data: Path,
    writer: str,
    judge: str,
    describer: str | None,
    limit: int | None,
    max_new_tokens: int,
    settings: dict[str, Any],
) -> None:
    from earnest.relistening.metadata import read_metadata

    clips = read_metadata(data)[:limit]

    from earnest.cli.data import source_of
    from earnest.engines import load, model_key
    from earnest.errors import EarnestError
    from earnest.finding import Metric
    from earnest.relistening import grounded
    from earnest.run import RunDirectory

    models = dict.fromkeys(name for name in (describer, writer, judge) if name)
    keys = {name: model_key(name, settings["base_url"]) for name in models}
    made_of = {
        "makes": "grounded questions", **source_of(data), "writer": writer, "writer_key": keys[writer],
        "judge": judge, "judge_key": keys[judge], "max_new_tokens": max_new_tokens,
        "prompts": grounded.prompt_ids(described=describer is not None),
        **({"describer": describer, "describer_key": keys[describer]} if describer else {}),
    }  # fmt: skip
    run = RunDirectory(out)
    run.settle(made_of)
    engines = {name: Late(key, lambda name=name: load(name, **settings)) for name, key in keys.items()}
    how: dict[str, Any] = {"batch_size": settings["batch_size"], "max_new_tokens": max_new_tokens}
    if describer:
        with progress("describing") as report:
            clips = grounded.describe(engines[describer], clips, run, **how, progress=report)
        made_of["undescribed"] = sum(not text for clip in clips for text in (clip.description, clip.speech, clip.music))
        if describer != writer:
            engines[describer].release()
        if made_of["undescribed"]:
            lacking = f"{made_of['undescribed']} of {3 * len(clips)} descriptions are missing: not answered to the end"
            console.print(f"{lacking}; repeat the command to ask again", markup=False)
    with progress("writing") as report:
        items = grounded.write(engines[writer], clips, run, **how, progress=report)
    if judge != writer:
        engines[writer].release()
    for what in grounded.JUDGED:
        with progress(f"judging: {what}") as report:
            items = grounded.judge(engines[judge], items, run, what, **how, progress=report)
    card = grounded.save(items, out, made_of)
    console.print(f"requests: {run.computed} computed, {run.reused} reused", markup=False)
    console.print(
        f"{card['clips']} clips: {card['sft']} sft, {card['rl']} rl, {card['rejected']} rejected", markup=False
    )
    for title, found in (("rejected for", card["rejected_for"]), ("reasoning rejected for", card["cot_rejected_for"])):
        for reason, row in found.items():
            console.print(f"  {title} {reason}: {row['count']}, {Metric.from_json(row['rate'])}", markup=False)
    _print_cot(card["cot"])
    if card["failed_requests"]:
        console.print(f"{card['failed_requests']} requests failed; repeat the command to ask again", markup=False)
    if not card["sft"] and not card["rl"]:
        most = next(iter(card["rejected_for"]))
        found = next(item.rejection.detail for item in items if item.rejection and item.rejection.reason == most)
        raise EarnestError(
            f"none of {len(items)} clips gave a question that can be used, most often for {most} ({found}): "
            f"see {out / 'rejected.jsonl'}"
        )
    console.print(f"lessons: {out / 'sft.jsonl'} and rl.jsonl, rejected.jsonl, card.json", markup=False)


def _print_cot(cot: dict[str, Any]) -> None:
    if cot["n"]:
        console.print(
            f"reasoning: {cot['mean_words']:.1f} words and {cot['mean_citations']:.1f} citations of "
            f"{cot['mean_cited_s']:.1f} s on average",
            markup=False,
        )
