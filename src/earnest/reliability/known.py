"""What a model knows, told by its own samples, and lessons in saying that it does not.

N answers per question are drawn from the model itself; it knows the answer if at least K of them are right
(arXiv 2505.19294, section 4.2; Cheng et al., arXiv 2401.13275). What it knows keeps its answer, what it does not is
retargeted to "I don't know", both behind the model's own reasoning. A few silent and noise-only clips teach silence.
The paper takes K = N = 5; wherever the model is drawn at T = 1 and not near certain, that throws right answers away: K
is a dial, and `Drawn` holds what every K needs.
"""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from earnest.accuracy import SLICE_BATCHES, require_answers
from earnest.completion import Completion, Sampling, Stop
from earnest.engines import Engine
from earnest.errors import EarnestError
from earnest.example import Example, load_manifest, save_manifest
from earnest.files import write_json
from earnest.grading import Outcome, abstains, answer_span, grade
from earnest.reliability.less_to_hear import COPY_OF, NOISE, SILENT, emptied_copy, nothing_of, nothing_wanted, saved
from earnest.run import RunDirectory
from earnest.statistics import wilson
from earnest.training.sft import Lesson

IDK = "I don't know"
VALIDATION_SHARE = 0.1
"""Kept apart from the known and from the unknown separately (Cheng et al., section 3)."""
QUESTION = "question"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Drawn:
    """A question with what the model said about it.

    Attributes:
        example: the question.
        right: samples that were right.
        samples: how many were drawn.
        reply: the model's own greedy reply.
        fault: why nothing can be learnt from it (a cut reply, a failed request); empty if something can.
        kind: "question", or what stands in place of the audio: "silent", "noise".
    """

    example: Example
    right: int
    samples: int
    reply: str
    fault: str = ""
    kind: str = QUESTION

    def known(self, k: int) -> bool:
        """Whether at least k samples were right; never where there is nothing to hear."""
        return self.kind == QUESTION and self.right >= k


def draw(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory,
    *,
    samples: int = 5,
    temperature: float = 1.0,
    nothing_share: float = 0.03,
    seed: int = 0,
    batch_size: int = 64,
    max_new_tokens: int = 256,
    progress: Progress | None = None,
) -> list[Drawn]:
    """Asks every question once greedily and several times at a temperature; what the run holds is not computed again.

    Args:
        engine: the model that is to learn.
        examples: questions with answers.
        run: where completions go.
        samples: per question, drawn with the seeds `seed` to `seed + samples - 1`.
        temperature: of the samples.
        nothing_share: silent and noise-only copies that are added, half each, as a share of the questions. Several
            times as many are asked, and those are preferred about which the model does not abstain yet: where "no" or
            "0" is what it says, and a few lessons would not teach it better.
        seed: of the samples, and of which questions are copied.
        batch_size: questions at once.
        max_new_tokens: longest reply.
        progress: called with (questions asked, questions in all).

    Raises:
        EarnestError: `samples` is below 1, or `nothing_share` is no share.
        ManifestError: a question has no answer.
    """
    check_numbers(samples, 1, nothing_share, temperature=temperature)
    require_answers(examples)
    kinds = nothing_of(len(examples), nothing_share, seed)
    samplings = [
        Sampling(max_new_tokens=max_new_tokens),
        *(
            Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed + number)
            for number in range(samples)
        ),
    ]
    drawn: list[Drawn] = []
    nothing: dict[int, Drawn] = {}
    step = batch_size * SLICE_BATCHES
    for start in range(0, len(examples), step):
        part = [example.with_clips(*example.clips) for example in examples[start : start + step]]
        conversations = [example.conversation() for example in part]
        greedy, *others = (run.run_batched(engine, conversations, how, batch_size) for how in samplings)
        for place, loaded in enumerate(part):
            own = [completions[place] for completions in others]
            right = sum(_right(loaded, completion) for completion in own)
            # With the paths that were given, not the samples that were loaded.
            drawn.append(
                Drawn(examples[start + place], right, samples, greedy[place].text, _fault(greedy[place], *own))
            )
        # As files: all of them in memory would be much.
        places = [place for place in sorted(kinds) if start <= place < start + len(part)]
        emptied = [saved(emptied_copy(part[place - start], kinds[place]), run.path / "nothing") for place in places]
        said = run.run_batched(engine, [example.conversation() for example in emptied], samplings[0], batch_size)
        for place, example, reply in zip(places, emptied, said, strict=True):
            nothing[place] = Drawn(example, 0, samples, reply.text, _fault(reply), kinds[place])
        if progress:
            progress(start + len(part), len(examples))
    return [*drawn, *_worth_learning([nothing[place] for place in kinds], nothing_wanted(len(examples), nothing_share))]


def _worth_learning(nothing: Sequence[Drawn], wanted: int) -> list[Drawn]:
    """Half of each kind: first those about which the model does not abstain yet, what taught nothing last."""

    def taught(item: Drawn) -> int:
        return 2 if item.fault else grade(item.reply, Stop.END, item.example).outcome is Outcome.ABSTAINED

    quota = {SILENT: (wanted + 1) // 2, NOISE: wanted // 2}
    return [
        item
        for kind, count in quota.items()
        for item in sorted((item for item in nothing if item.kind == kind), key=taught)[:count]
    ]


def check_numbers(
    samples: int, k: int, nothing_share: float, idk: str = IDK, temperature: float = 1.0, noisy_share: float = 0.0
) -> None:
    """Checks what can be checked before a model is loaded.

    Raises:
        EarnestError: a number is out of its range, or the words of `idk` are not understood as abstaining.
    """
    if samples < 1:
        raise EarnestError(f"n is {samples}: draw at least one answer per question")
    if not 1 <= k <= samples:
        raise EarnestError(f"k is {k}: of {samples} samples, 1 to {samples} may be asked to be right")
    if not 0 <= nothing_share <= 1:
        raise EarnestError(f"the share of silent and noise-only items is {nothing_share}: give 0 to 1")
    if not 0 <= noisy_share <= 1:
        raise EarnestError(f"the share of noisy copies is {noisy_share}: give 0 to 1")
    if not temperature > 0:
        raise EarnestError(f"the temperature is {temperature}: at 0 all samples are the same, give about 1")
    if not abstains(idk):
        raise EarnestError(f"{idk!r} would not be read as abstaining: take words such as {IDK!r}")


def retargeted(reply: str, answer: str) -> str:
    """A reply with another answer behind the same reasoning; the answer alone where none can be told apart."""
    span = answer_span(reply)
    return answer if span is None else f"{reply[: span[0]]}{answer}{reply[span[1] :]}"


def target(drawn: Drawn, k: int, idk: str = IDK) -> str | None:
    """The reply that is to be learnt: one that would be graded right, or abstained.

    The model's own reply where it is that already; else its reasoning with another answer; else the answer alone. None
    where it gave no reply to build on.
    """
    if drawn.fault:
        return None
    example = drawn.example
    assert example.answer is not None, "draw() takes questions with answers alone"
    known = drawn.known(k)
    wanted = Outcome.CORRECT if known else Outcome.ABSTAINED
    answers = [example.answer if known else idk]
    if known and example.rule == "letter" and example.choices:
        answers.append(string.ascii_uppercase[example.choices.index(example.answer)])
    tried = [drawn.reply, *(retargeted(drawn.reply, answer) for answer in answers), *answers]
    return next((reply for reply in tried if grade(reply, Stop.END, example).outcome is wanted), None)


def lessons(drawn: Sequence[Drawn], k: int, idk: str = IDK) -> list[Lesson]:
    """What is to be learnt, in the order of the questions; those without a target are left out."""
    found: list[Lesson] = []
    for item in drawn:
        reply = target(item, k, idk)
        if reply is not None:
            found.append(Lesson(item.example.conversation, reply, item.example.id))
    return found


def read_lessons(manifest: Path | str, modality: str | None = None) -> list[Lesson]:
    """Lessons that `write_data` wrote as `train.jsonl`.

    Args:
        manifest: the file.
        modality: those of one modality alone, for an adapter of its own.

    Raises:
        ManifestError: it is no manifest, or a clip is gone.
        EarnestError: it has no lesson of this modality.
    """
    examples = load_manifest(manifest)
    own = [example for example in examples if modality in (None, example.groups.get("modality"))]
    if not own:
        there = ", ".join(sorted({example.groups.get("modality", "none") for example in examples}))
        raise EarnestError(
            f"{manifest} has no lesson of the modality {modality!r}: it has {there}; leave it out for all"
        )
    return [Lesson(example.conversation, example.meta["reply"], example.id) for example in own]


def split_off(
    known: Sequence[bool], sources: Sequence[str], *, share: float = VALIDATION_SHARE, seed: int = 0
) -> list[bool]:
    """Which items [N] are for validation: a share of the known and, separately, of the unknown, one of two at least.

    Args:
        known: [N].
        sources: [N] the recording that each is about; those about one stay together, so that a share may be exceeded.
            Of a single recording none is held back: nothing would be left to learn from.
        share: for validation; 0 for none.
        seed: of what is drawn.
    """
    rng = random.Random(f"validation/{seed}")
    together: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        together.setdefault(source, []).append(place)
    held: set[int] = set()
    for kind in (True, False):
        places = [place for place, flag in enumerate(known) if flag is kind]
        wanted = max(round(share * len(places)), share > 0 and len(places) > 1)
        have = sum(place in held for place in places)
        for place in rng.sample(places, len(places)):
            if have >= wanted:
                break
            new = set(together[sources[place]]) - held
            if len(held | new) == len(known):
                break
            have += sum(known[other] is kind for other in new)
            held |= new
    return [place in held for place in range(len(known))]


def write_data(
    drawn: Sequence[Drawn],
    out: Path,
    k: int,
    *,
    idk: str = IDK,
    share: float = VALIDATION_SHARE,
    seed: int = 0,
    made_of: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the data set: `drawn.jsonl`, `train.jsonl`, `validation.jsonl` and `card.json`.

    All three are manifests; their `meta` holds what was drawn, and in the latter two `reply`, the target.

    Args:
        drawn: questions with samples.
        out: the folder.
        k: samples that must be right.
        idk: what the unknown is retargeted to.
        share: that is kept for validation; 0 where there are other questions for that.
        seed: of the split.
        made_of: model, temperature and the like, for the card.

    Returns:
        The card.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_manifest((_with_meta(item) for item in drawn), out / "drawn.jsonl")
    targets = [target(item, k, idk) for item in drawn]
    taught = [(item, reply) for item, reply in zip(drawn, targets, strict=True) if reply is not None]
    sources = _recordings(drawn)
    known = [item.known(k) for item, _ in taught]
    held = split_off(known, [sources[item.example.id] for item, _ in taught], share=share, seed=seed)
    for name, wanted in (("train", False), ("validation", True))[: 1 + (share > 0)]:
        save_manifest(
            (
                _with_meta(item, reply=reply, known=item.known(k))
                for (item, reply), apart in zip(taught, held, strict=True)
                if apart is wanted
            ),
            out / f"{name}.jsonl",
        )
    unknown = sum(not item.known(k) for item, _ in taught)
    card = {
        **(made_of or {}),
        "k": k,
        "idk": idk,
        "split_seed": seed,
        "items": dict(Counter(item.kind for item in drawn)),
        "left_out": {
            item.example.id: item.fault or "no reply of the right form could be made of it"
            for item, reply in zip(drawn, targets, strict=True)
            if reply is None
        },
        "validation": sum(held),
        "questions": sum(item.kind == QUESTION and not item.fault for item in drawn),
        "idk_share": wilson(unknown, len(taught)).to_json(),
        "known_by_k": {
            str(each): sum(item.known(each) for item in drawn if not item.fault)
            for each in range(1, max((item.samples for item in drawn), default=0) + 1)
        },
    }
    write_json(out / "card.json", card)
    return card


def read_drawn(manifest: Path) -> list[Drawn]:
    """What `write_data` wrote as `drawn.jsonl`.

    Raises:
        ManifestError: it is no manifest, or a clip is gone.
    """
    found: list[Drawn] = []
    for example in load_manifest(manifest):
        meta = dict(example.meta)
        kept = {name: meta.pop(name) for name in ("right", "samples", "said", "fault", "kind")}
        found.append(
            Drawn(
                replace(example, meta=meta),
                kept["right"],
                kept["samples"],
                kept["said"],
                kept["fault"],
                kept["kind"],
            )
        )
    return found


def _right(example: Example, completion: Completion) -> bool:
    return grade(completion.text, completion.stop, example).outcome is Outcome.CORRECT


def _fault(greedy: Completion, *samples: Completion) -> str:
    """Why nothing can be learnt; a failed sample is no wrong answer."""
    failed = next((each.error for each in (greedy, *samples) if each.stop is Stop.FAILED), None)
    if failed is not None:
        return failed or "the request failed"
    return "" if greedy.stop is Stop.END else f"the reply was cut after {len(greedy.token_ids)} tokens"


def _recordings(drawn: Sequence[Drawn]) -> dict[str, str]:
    """What each question is about, by its id: its clips, and those of the question that it is a copy of."""
    examples = {item.example.id: item.example for item in drawn}

    def of(example: Example) -> str:
        original = examples.get(example.meta.get(COPY_OF, ""))
        if original is not None:
            return of(original)
        return "+".join(str(audio) if isinstance(audio, Path) else audio.key for audio in example.audio)

    return {name: of(example) for name, example in examples.items()}


def _with_meta(item: Drawn, **more: Any) -> Example:
    held = {
        "right": item.right, "samples": item.samples, "said": item.reply, "fault": item.fault, "kind": item.kind,
    }  # fmt: skip
    return replace(item.example, meta={**item.example.meta, **held, **more})
