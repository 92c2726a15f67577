"""The re-listening audit: a single pass, going back to the audio, and the controls that show what going back is worth.

    single           the clip is heard once
    ours             each cited stretch is heard again
    random_segment   another stretch of the same length
    silence          silence of the same length
    filler           meaningless text of the same length in tokens
    whole_again      the whole clip once more, at the first pass's rate
    whole_fine       the whole clip at the finer rate: what could be heard if tokens cost nothing
    oracle_segment   the stretch that holds the evidence

Only the controls tell whether what is heard again matters, or just that something is (the paper has none of them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from earnest.accuracy import begin_run, require_answers, resolve
from earnest.completion import Completion, Sampling
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.engines.engine import require, worn
from earnest.engines.lora import adapter_key
from earnest.errors import AudioError
from earnest.example import Example
from earnest.finding import Finding
from earnest.prompts import Prompt
from earnest.relistening.loop import (
    WORDS,
    Inserted,
    Relistened,
    Turn,
    as_cited,
    filler,
    fillers_of,
    hears_finer,
    oracle_segment,
    question_of,
    random_segment,
    relisten,
    silence,
    whole_clip,
)
from earnest.relistening.segments import Bounds
from earnest.relistening.summary import (
    FILLER,
    ORACLE,
    OURS,
    RANDOM,
    SILENCE,
    SINGLE,
    WHOLE,
    WHOLE_FINE,
    Listened,
    spans_of,
    summarise,
)
from earnest.run import RunDirectory

GREEDY = Sampling(max_new_tokens=256)
BUDGETS_S = (0.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Seconds that a reply may hear again, for the budget curve."""
BUDGET_ITEMS = 200
UNTRAINED = "model"
"""The name of a model that wears no adapter."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Extent:
    """What is asked beside a single pass and re-listening.

    Attributes:
        controls: whether the controls are.
        every_stage: whether they are after each stage of a training, not after the last alone.
        budgets_s: bounds of the budget curve, in seconds; none leaves it out.
        budget_items: questions of the curve.
    """

    controls: bool = True
    every_stage: bool = False
    budgets_s: tuple[float, ...] = BUDGETS_S
    budget_items: int = BUDGET_ITEMS


def audit(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory | Path | str,
    *,
    words: Prompt | None = None,
    adapters: Mapping[str, Path] | None = None,
    bounds: Bounds | None = None,
    extent: Extent | None = None,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    command: str = "",
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Finding:
    """Asks every question under every condition and writes the run directory, all but the scorecard.

    Args:
        engine: who is asked.
        examples: questions about one clip each, with answers; those with evidence have an oracle.
        run: where completions, records and metrics go; completions that are there are not computed again.
        words: what asks for segments; the general ones if None.
        adapters: stages of a training by name, in order, such as "sft" and "grpo": each is asked in a single pass and
            with re-listening, the last one also under the controls (`extent`). None: the model as it is.
        bounds: how often and how much a reply may hear again.
        extent: what else is asked.
        sampling: of every generation.
        batch_size: questions at once, whose clips are in memory together.
        seed: of the bootstrap and of the random segments.
        source: where the examples come from, for `resolved.toml`.
        command: what was typed, for `environment.json`.
        retry_failed: whether to ask again what failed earlier.
        progress: called with (replies that are there, replies in all).

    Raises:
        ManifestError: an example has no answer.
        AudioError: an example has not exactly one clip.
        ModelError: the engine cannot wear adapters, or one does not fit.
        RecipeError: the run directory holds a run of something else.
    """
    require_answers(examples)
    if several := [example.id for example in examples if len(example.audio) != 1]:
        raise AudioError(f"{several[0]} has not exactly one clip ({len(several)} such): segments are of one clip")
    bounds, extent = bounds or Bounds(), extent or Extent()
    words = words or Prompt.load("relistening", WORDS["general"])
    if adapters:
        require(engine, "an adapter", "trainable")
    resolved = resolve(engine, examples, sampling=sampling, seed=seed, source=source)
    resolved |= {
        "concern": "relistening",
        "words": words.id,
        "adapters": {name: adapter_key(path) for name, path in (adapters or {}).items()},
        "bounds": [bounds.turns, bounds.shortest_s, bounds.longest_s, bounds.total_s],
        "budgets_s": list(extent.budgets_s),
        "controls": [extent.controls, extent.every_stage],
    }
    run = begin_run(run, engine, resolved, command)
    fine = hears_finer(engine)
    asker = _Asker(engine, run, words, bounds, sampling, batch_size, retry_failed, fine)
    stages = dict(adapters or {UNTRAINED: None})
    last = list(stages)[-1]
    controls = _controls(engine, seed, fine=fine) if extent.controls else {}
    curve = spread(examples, extent.budget_items)
    controlled = list(stages) if extent.every_stage else [last]
    total = len(examples) * (2 * len(stages) + len(controls) * len(controlled)) + len(extent.budgets_s) * len(curve)
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress(done, total)

    found: dict[str, dict[str, list[Listened]]] = {}
    budgets: dict[float, list[Listened]] = {}
    for stage, folder in stages.items():
        with worn(engine, folder):
            own = found[stage] = {
                SINGLE: asker.once(examples, step),
                OURS: asker.again(examples, as_cited, step),
            }
            if stage in controlled:
                own |= {name: asker.again(examples, inserted, step) for name, inserted in controls.items()}
            if stage == last:
                for budget_s in extent.budgets_s:
                    budgets[budget_s] = asker.again(curve, as_cited, step, replace(bounds, total_s=budget_s))
    finding = summarise(found, budgets, words=words.id, seed=seed)
    run.write_findings([finding])
    return finding


def spread(examples: Sequence[Example], count: int) -> list[Example]:
    """So many of the examples, from all over them."""
    return list(examples[:: max(1, len(examples) // max(1, count))])[:count]


@dataclass(frozen=True)
class _Asker:
    engine: Engine
    run: RunDirectory
    words: Prompt
    bounds: Bounds
    sampling: Sampling
    batch_size: int
    retry_failed: bool
    fine: bool

    def ask(self, conversations: Sequence[Conversation], samplings: Sequence[Sampling]) -> list[Completion]:
        assert len(set(samplings)) <= 1, "every question of an audit is sampled alike"
        return self.run.run_batched(
            self.engine, conversations, samplings[0], self.batch_size, retry_failed=self.retry_failed
        )

    def once(self, examples: Sequence[Example], step: Callable[[int], None]) -> list[Listened]:
        """A single pass."""
        found: list[Listened] = []
        for part in self._slices(examples):
            asked = [question_of(example, self.words, listen=False) for example in part]
            for example, conversation, completion in zip(
                part, asked, self.ask(asked, [self.sampling] * len(asked)), strict=True
            ):
                turn = Turn(conversation, completion)
                reply = Relistened(completion.text, completion.stop, (), (turn,), ())
                found.append(Listened.of(example, reply))
            step(len(part))
        return found

    def again(
        self,
        examples: Sequence[Example],
        inserted: Inserted,
        step: Callable[[int], None],
        bounds: Bounds | None = None,
    ) -> list[Listened]:
        """With re-listening."""
        found: list[Listened] = []
        for part in self._slices(examples):
            replies = relisten(
                self.ask,
                self.engine.capabilities,
                part,
                self.sampling,
                words=self.words,
                bounds=bounds or self.bounds,
                inserted=inserted,
                fine=self.fine,
            )
            found += [Listened.of(example, reply) for example, reply in zip(part, replies, strict=True)]
            step(len(part))
        return found

    def _slices(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Clips are in memory slice by slice."""
        starts = range(0, len(examples), self.batch_size)
        return [list(examples[start : start + self.batch_size]) for start in starts]


def _controls(engine: Engine, seed: int, *, fine: bool) -> dict[str, Inserted]:
    return {
        RANDOM: random_segment(seed),
        SILENCE: silence,
        FILLER: filler(fillers_of(engine, fine=fine)),
        WHOLE: whole_clip(fine=False),
        **({WHOLE_FINE: whole_clip(fine=True)} if fine else {}),
        ORACLE: oracle_segment(spans_of),
    }
