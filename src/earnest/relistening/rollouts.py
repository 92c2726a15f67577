"""Rollouts for GRPO: sampled replies that go back to the audio, by the engine that answers users too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from earnest.completion import Sampling, Stop
from earnest.conversation import Audio
from earnest.engines.local import LocalEngine
from earnest.errors import EarnestError
from earnest.example import Example
from earnest.files import read_json_lines, write_json_lines
from earnest.prompts import Prompt
from earnest.relistening.loop import Relistened, hears_finer, relisten
from earnest.relistening.reward import Reward, reward
from earnest.relistening.segments import Bounds
from earnest.relistening.summary import found_evidence
from earnest.training.grpo import Roll
from earnest.training.policy import Generated, Rollout


def roller(
    engine: LocalEngine,
    words: Prompt,
    bounds: Bounds,
    sampling: Sampling,
    *,
    by_confidence: bool = False,
    seen: Callable[[Example, Relistened, Reward], None] | None = None,
) -> Roll:
    """Answers questions by the policy that the engine's model is at the moment, and says what each reply earns.

    Replies are drawn from the very probabilities that are scored: a repetition penalty of the model's is taken away.

    Args:
        engine: around the model that is trained.
        words: what asks for segments.
        bounds: how often and how much.
        sampling: of every generation; each reply has a seed of its own.
        by_confidence: the variant of the reward.
        seen: given each question, its reply and what it earned.
    """

    engine.family.model.generation_config.repetition_penalty = 1.0

    def roll(examples: Sequence[Example], seeds: Sequence[int]) -> list[Rollout]:
        # A clip is read once for its whole group.
        apart = {example.id: example for example in examples}
        held = {name: example.with_clips(example.clip) for name, example in apart.items()}
        asked = [held[example.id] for example in examples]
        replies = relisten(
            engine.generate,
            engine.capabilities,
            asked,
            [replace(sampling, seed=seed) for seed in seeds],
            words=words,
            bounds=bounds,
            fine=hears_finer(engine),
        )
        rollouts: list[Rollout] = []
        for example, reply in zip(asked, replies, strict=True):
            earned = reward(reply, example, by_confidence=by_confidence)
            if seen:
                seen(example, reply, earned)
            rollouts.append(Rollout(generations(engine, reply), earned.total, _record(example, reply, earned)))
        return rollouts

    return roll


def generations(engine: LocalEngine, reply: Relistened) -> tuple[Generated, ...]:
    """A reply as the engine generated it: prompts and drawn tokens of each turn; none of a turn that failed.

    Raises:
        EarnestError: a prompt cannot be rendered again.
    """
    turns = [turn for turn in reply.turns if turn.completion.token_ids]
    prompts = engine.family.render([turn.conversation for turn in turns])
    found: list[Generated] = []
    for turn, prompt in zip(turns, prompts, strict=True):
        if isinstance(prompt, EarnestError):
            raise prompt
        found.append(Generated(prompt, turn.completion.token_ids))
    return tuple(found)


def _record(example: Example, reply: Relistened, earned: Reward) -> dict[str, Any]:
    return {
        "correct": float(earned.outcome.value == "correct"),
        "format": float(earned.format > 0),
        "failed": float(reply.stop is Stop.FAILED),
        "segments": float(len(reply.segments)),
        "heard_again_s": reply.heard_again_s,
        **({"hits": float(found_evidence(reply.heard_spans, example))} if example.evidence else {}),
    }


class RolloutLog:
    """Keeps rollouts of some steps to be read and listened to: `rollouts.jsonl`, and what was heard in `audio/`.

    Args:
        folder: where to.
        every: steps between two that are kept.
        replies: of such a step.
    """

    def __init__(self, folder: Path, every: int, replies: int) -> None:
        self._folder, self._every, self._replies = folder, every, replies
        self._seen: list[tuple[Example, Relistened, Reward]] = []

    def see(self, example: Example, reply: Relistened, earned: Reward) -> None:
        """Takes a reply of the step under way."""
        self._seen.append((example, reply, earned))

    def step(self, number: int, _: Sequence[Rollout]) -> None:
        """Ends a step: its replies are written, or forgotten."""
        kept, self._seen = self._seen[: self._replies], []
        if number % self._every:
            return
        file = self._folder / "rollouts.jsonl"
        # A training that goes on from a checkpoint makes the steps behind it again.
        before = [row for row in read_json_lines(file) if row["step"] < number] if file.exists() else []
        write_json_lines(file, [*before, *(self._row(number, *one) for one in kept)])

    def _row(self, number: int, example: Example, reply: Relistened, earned: Reward) -> dict[str, Any]:
        heard = [part.clip for part in reply.parts if isinstance(part, Audio)]
        return {
            "step": number,
            "id": example.id,
            "question": example.question,
            "answer": example.answer,
            "reply": reply.text,
            "reward": earned.total,
            "outcome": earned.outcome.value,
            "heard": [str(clip.kept_in(self._folder / "audio").relative_to(self._folder)) for clip in heard],
        }
