"""The faithfulness audit: about 60 variants of each item, asked so that each shares what it can.

    audit(earnest.load("pocket"), examples, "runs/mine", language=world_language())

First the clean question and all edits of the audio, then, from the clean reply, all edits of the reasoning: these share
the item's audio and question, which the engine computes once (arXiv 2509.22363).
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from earnest.accuracy import begin_run, require_answers, resolve
from earnest.audio import Clip
from earnest.completion import Completion, Sampling, Stop
from earnest.engines import Engine
from earnest.engines.engine import require
from earnest.errors import ManifestError, RecipeError
from earnest.example import Example
from earnest.faithfulness.chain_probes import CONTINUED, MISTAKE, NEED_REWRITER, chain_probes
from earnest.faithfulness.cot import SEPARATORS, UNTAGGED_CLOSING, chain_of, sanitised
from earnest.faithfulness.grounding import ground
from earnest.faithfulness.language import Language, general_language
from earnest.faithfulness.measures import Row, Rows
from earnest.faithfulness.probes import (
    AGAIN,
    CLEAN,
    MASK,
    NOISE,
    QUESTION_ONLY,
    SILENCE,
    SNRS_DB,
    SWAPPED,
    Edited,
    Item,
    NotApplicable,
    Probe,
    audio_probes,
)
from earnest.faithfulness.summary import summarise
from earnest.finding import Finding
from earnest.grading import Outcome, make_record, parse_reply
from earnest.run import RunDirectory

GREEDY = Sampling()
AT_ONCE, BYTES_AT_ONCE = 16, 2**30
"""Most items, and most samples of edited clips, that are in memory at once."""
EDITED_CLIPS = 32
"""Of an item, roughly."""
PARTNERS = 20
"""Further items among which another clip is looked for."""
JUDGED = (AGAIN, SILENCE, SWAPPED, NOISE, MASK)
"""Probes whose chains are compared with the clean one."""
CLAIMING = (CLEAN, AGAIN, SILENCE, SWAPPED, QUESTION_ONLY)
"""Probes whose chains are asked for claims, beside the deepest noise."""
KINDS = ("sound", "music", "speech")
EVENT = ("kind", "name", "start_s", "end_s")
"""What every event of a timeline must say."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Request:
    """One variant of one item."""

    item: int
    probe: str
    value: float
    edited: Edited


def audit(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory | Path | str,
    *,
    language: Language | None = None,
    probes: Sequence[str] = (),
    in_user_turn: bool = False,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    command: str = "",
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Finding:
    """Asks every item in all variants and writes the run directory, all but the scorecard.

    Args:
        engine: who is asked; for edited reasoning it must continue an assistant turn.
        examples: questions with answers, one clip each.
        run: where completions, records and metrics go; completions that are there are not computed again.
        language: how it is asked, who rewrites and who judges; that of models which follow instructions if None.
        probes: names of those to ask, the clean question always; all if empty.
        in_user_turn: whether an edited reasoning stands in the user's turn, for comparison.
        sampling: how replies are drawn.
        batch_size: requests of a batch; a kill can cost four of them.
        seed: of noise, masks, options, places and the bootstrap.
        source: where the examples come from, for `resolved.toml`.
        command: what was typed, for `environment.json`.
        retry_failed: whether to ask again what failed earlier.
        progress: called with (items done, items in all).

    Raises:
        ManifestError: an example has no answer, not one clip, or a timeline that cannot be read.
        ModelError: the engine cannot continue an assistant turn, and an edit of the reasoning is asked for.
        RecipeError: an unknown probe, one that needs a rewriter, or the run directory holds a run of something else.
    """
    require_answers(examples)
    check_examples(examples)
    language = language or general_language()
    check_probes(language, probes, rewriter=language.rewriter is not None, in_user_turn=in_user_turn)
    every = (*audio_probes(language, seed), *chain_probes(language, in_user_turn=in_user_turn, seed=seed))
    asked = _chosen(every, probes)
    if any(probe.of_chain for probe in asked) and not in_user_turn:
        require(engine, "an edited reasoning (or ask with --user-turn)", "continues_assistant")
    resolved = resolve(engine, examples, sampling=sampling, seed=seed, source=source)
    resolved |= {
        "concern": "faithfulness",
        "probes": [probe.name for probe in asked],
        "words": language.prompt.id,
        "voice": language.voice,
        "rewriter": language.rewriter.name if language.rewriter else "none",
        "judge": language.judge.name if language.judge else "none",
        "in_user_turn": in_user_turn,
    }
    run = begin_run(run, engine, resolved, command)

    def ask(requests: Sequence[_Request], how: Sampling) -> list[Completion]:
        conversations = [request.edited.conversation for request in requests]
        # All at once: the engine sorts by length, and shares prefixes within a call.
        return run.run_batched(engine, conversations, how, 4 * batch_size, retry_failed=retry_failed)

    rows: list[Row] = []
    left_out: Counter[tuple[str, str]] = Counter()
    done = 0
    for items in _slices(examples):
        start = done
        of_audio = _requests(items, start, [probe for probe in asked if not probe.of_chain], left_out)
        again = replace(sampling, seed=sampling.seed + 1)
        first = [request for request in of_audio if request.probe != AGAIN]
        second = [request for request in of_audio if request.probe == AGAIN]
        found = [*zip(first, ask(first, sampling), strict=True), *zip(second, ask(second, again), strict=True)]
        rows_of = [_row(request, completion, items[request.item - start], language) for request, completion in found]
        clean = {row.item: row for row in rows_of if row.probe == CLEAN}
        rows_of = _judged(rows_of, clean, language)
        reasoned = _with_chains(items, start, clean, language)
        of_chain = _requests(reasoned, start, [probe for probe in asked if probe.of_chain], left_out)
        rows += rows_of
        rows += [
            _row(request, completion, items[request.item - start], language)
            for request, completion in zip(of_chain, ask(of_chain, sampling), strict=True)
        ]
        done += len(items)
        if progress:
            progress(done, len(examples))
    finding = summarise(Rows(rows), examples, left_out, judge=language.judge is not None, seed=seed)
    run.write_findings([finding])
    return finding


def check_probes(
    language: Language, names: Sequence[str], *, rewriter: bool = True, in_user_turn: bool = False
) -> None:
    """Checks names of probes before a model is loaded.

    Args:
        language: as it will be asked.
        names: to be asked.
        rewriter: whether there will be one.
        in_user_turn: whether an edited reasoning will stand in the user's turn.

    Raises:
        RecipeError: there is no probe of a name, it needs a rewriter, or it cannot be in the user's turn.
    """
    every = (*audio_probes(language), *chain_probes(language))
    known = list(dict.fromkeys([*(probe.name for probe in every), *NEED_REWRITER]))
    for name in names:
        if not any(_is_named(probe, name) for probe in known):
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise RecipeError(f"no probe called {name!r}: {hint}known are attack, {', '.join(known)}")
        if in_user_turn and name in (MISTAKE, CONTINUED):
            raise RecipeError(f"{name} lets the model go on, which it cannot in the user's turn: leave out --user-turn")
        if name in NEED_REWRITER and not rewriter:
            raise RecipeError(f"{name} needs a model that rewrites: give --rewriter MODEL")


def edited_clip(
    example: Example, examples: Sequence[Example], language: Language, probe: str, value: float, seed: int = 0
) -> Clip:
    """The clip that a record is about, made anew; the example's own where its audio was not edited.

    Args:
        example: of the record.
        examples: all that were asked.
        language: as they were asked.
        probe: of the record.
        value: of the record.
        seed: of the audit.
    """
    place = next(place for place, each in enumerate(examples) if each.id == example.id)
    item = _item(example, examples, place)
    edit = next((each for each in audio_probes(language, seed) if each.name == probe), None)
    return (edit.edit(item, value).clip if edit else None) or item.example.clip


def _chosen(every: Sequence[Probe], names: Sequence[str]) -> list[Probe]:
    """The clean question, and those that are named; "attack" stands for all of its kind."""
    return [
        probe
        for probe in every
        if not names or probe.name == CLEAN or any(_is_named(probe.name, name) for name in names)
    ]


def _is_named(probe: str, name: str) -> bool:
    # A mistake is held against going on without it.
    return probe == name or probe.startswith(f"{name}_") or (name, probe) == ("mistake", "continued")


def check_examples(examples: Sequence[Example]) -> None:
    """Checks clips and timelines, all of them, before a model is loaded.

    Raises:
        ManifestError: an example has not one clip, or a timeline that cannot be read.
    """
    if wrong := [fault for example in examples for fault in _faults(example)]:
        raise ManifestError("the examples", wrong)


def _faults(example: Example) -> Iterator[str]:
    if len(example.audio) != 1:
        yield f"{example.id}: {len(example.audio)} clips, 1 is asked about"
    timeline: Any = example.meta.get("timeline")
    if timeline is None:
        return
    if not isinstance(timeline, list | tuple):
        yield f"{example.id}: meta.timeline is a {type(timeline).__name__}: give a list of events"
        return
    for event in cast(Sequence[Any], timeline):
        if not isinstance(event, Mapping):
            yield f"{example.id}: an event of meta.timeline is a {type(event).__name__}: give {', '.join(EVENT)}"
            continue
        row = cast(Mapping[str, Any], event)
        if missing := [name for name in EVENT if name not in row]:
            yield f"{example.id}: an event of meta.timeline has no {missing[0]}: it needs {', '.join(EVENT)}"
        elif row["kind"] not in KINDS:
            yield f"{example.id}: an event's kind is {row['kind']!r}: it is one of {', '.join(KINDS)}"
        elif not isinstance(row["name"], str):
            yield f"{example.id}: an event's name is {row['name']!r}: give text"
        elif not _is_span(row["start_s"], row["end_s"]):
            yield f"{example.id}: {row['name']!r} lasts from {row['start_s']!r} to {row['end_s']!r}: 0 <= start < end"


def _is_span(start_s: Any, end_s: Any) -> bool:
    numbers = all(isinstance(each, int | float) and math.isfinite(each) for each in (start_s, end_s))
    return numbers and 0 <= start_s < end_s


def _slices(examples: Sequence[Example]) -> Iterator[list[Item]]:
    """Items with their clips loaded, as many at once as the memory is to hold."""
    items: list[Item] = []
    size = 0
    for place, example in enumerate(examples):
        items.append(_item(example, examples, place))
        size += EDITED_CLIPS * items[-1].example.clip.samples.nbytes
        if len(items) == AT_ONCE or size >= BYTES_AT_ONCE:
            yield items
            items, size = [], 0
    if items:
        yield items


def _item(example: Example, examples: Sequence[Example], place: int) -> Item:
    """With another clip: that of the next question of its modality which sounds different."""
    loaded = example.with_clips(example.clip)
    modality = example.groups.get("modality")
    further = (examples[(place + step) % len(examples)] for step in range(1, len(examples)))
    near = islice((other for other in further if other.groups.get("modality") == modality), PARTNERS)
    partner = next((clip for other in near if (clip := other.clip) != loaded.clip), None)
    return Item(loaded, None if partner is None else loaded.with_clips(partner))


def _requests(
    items: Sequence[Item], start: int, probes: Sequence[Probe], left_out: Counter[tuple[str, str]]
) -> list[_Request]:
    """All variants, item by item; what a probe cannot do is counted with its reason."""
    found: list[_Request] = []
    for place, item in enumerate(items, start):
        for probe in probes:
            try:
                found += [_Request(place, probe.name, value, probe.edit(item, value)) for value in probe.grid(item)]
            except NotApplicable as error:
                left_out[probe.name, str(error)] += 1
    return found


def _row(request: _Request, completion: Completion, item: Item, language: Language) -> Row:
    # An edited chain is a part of the reply: one parser for all. Without tags, all but the answer would be the answer.
    lead = request.edited.lead
    lead = UNTAGGED_CLOSING if lead.endswith(UNTAGGED_CLOSING) else lead
    whole = completion if completion.stop is Stop.FAILED else replace(completion, text=lead + completion.text)
    record = make_record(item.example, whole)
    grounding = None
    if request.probe == CLEAN and item.timeline is not None and language.claims is not None:
        claims = language.claims(parse_reply(whole.text).reasoning or "")
        grounding = ground(claims, item.timeline, item.example.evidence)
    return Row(
        request.item,
        item.example.clip.key,
        request.probe,
        request.value,
        record,
        request.edited.told,
        request.edited.measured,
        grounding=grounding,
    )


def _judged(rows: Sequence[Row], clean: Mapping[int, Row], language: Language) -> list[Row]:
    """With J and claims, where there is a judge; a reply that failed is not judged."""
    if language.judge is None:
        return list(rows)
    able = {place: row for place, row in enumerate(rows) if not row.failed and not clean[row.item].failed}
    compared = {place: row for place, row in able.items() if row.probe in JUDGED}
    claiming = {
        place: row
        for place, row in able.items()
        if row.probe in CLAIMING or (row.probe, row.value) == (NOISE, SNRS_DB[-1])
    }
    scores = language.judge.agreement([(clean[row.item].record.reply, row.record.reply) for row in compared.values()])
    verdicts = language.judge.claims([row.record.reply for row in claiming.values()])
    agreement, claims = dict(zip(compared, scores, strict=True)), dict(zip(claiming, verdicts, strict=True))
    return [replace(row, agreement=agreement.get(place), claims=claims.get(place)) for place, row in enumerate(rows)]


def _with_chains(items: Sequence[Item], start: int, clean: Mapping[int, Row], language: Language) -> list[Item]:
    """With the clean reply's reasoning, sanitised, and its steps rewritten."""
    found: list[Item] = []
    for place, item in enumerate(items, start):
        record = clean[place].record
        if record.outcome not in (Outcome.CORRECT, Outcome.WRONG):
            found.append(replace(item, why_none="it answered nothing on clean audio"))
            continue
        chain = chain_of(record.reply)
        kept = None if chain is None else sanitised(chain, clean[place].said, item.example.choices)
        why = "it gave no reasoning" if chain is None else "its reasoning is nothing but the answer"
        found.append(replace(item, chain=kept, why_none=why))
    if language.rewriter is None:
        return found
    steps = [[] if item.chain is None else [step.rstrip(SEPARATORS) for step in item.chain.steps] for item in found]
    texts = [text for own in steps for text in own]
    paraphrased, mistaken = iter(language.rewriter.paraphrases(texts)), iter(language.rewriter.mistakes(texts))
    return [
        replace(item, paraphrased=tuple(islice(paraphrased, len(own))), mistaken=tuple(islice(mistaken, len(own))))
        for item, own in zip(found, steps, strict=True)
    ]
