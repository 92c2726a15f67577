"""The core audit: every question once, every reply one outcome, and how much of the audio was heard at all.

    audit(earnest.load("pocket"), earnest.load_manifest("my.jsonl"), "runs/mine")

What is not correct stays in the denominator, whatever it is. MMAU's official rule stands beside ours, with what
it skips. With `question_only` every question is asked a second time without its audio: what remains of the
accuracy is owed to the text alone.

Intervals hold clips together: questions about one clip, whatever file it came from, are not independent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from earnest.completion import Completion, Sampling, content_key
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.errors import ManifestError
from earnest.example import Example
from earnest.finding import Curve, Finding, Metric, Table
from earnest.grading import Outcome, Record, count, grade, make_record, mmau_match, parse_reply
from earnest.run import Generator, RunDirectory
from earnest.statistics import clusters_of, paired_bootstrap, rate

GREEDY = Sampling()
CONFUSION_ANSWERS = 18
"""Most frequent right answers that the confusion picture shows."""
MAX_GROUP_VALUES = 60
"""A group with more values than this is an identifier, not a group."""
SLICE_BATCHES = 4
"""Batches whose clips are held in memory at once."""
UNREAD = (Outcome.REFUSED, Outcome.MALFORMED, Outcome.UNFINISHED, Outcome.FAILED)
"""Neither right, wrong nor abstained: counted as wrong, and shown."""

Progress = Callable[[int, int], None]


def audit(
    engine: Engine,
    examples: Sequence[Example],
    run: RunDirectory | Path | str,
    *,
    sampling: Sampling = GREEDY,
    batch_size: int = 64,
    question_only: bool = False,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    command: str = "",
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> Finding:
    """Asks every question, grades the replies and writes the run directory, all but the scorecard.

    Args:
        engine: who is asked.
        examples: the questions, each with one clip and an answer.
        run: where completions, records and metrics go; completions that are there are not computed again.
        sampling: how replies are drawn.
        batch_size: questions at once, and what a kill can cost.
        question_only: whether to ask a second time without the audio.
        seed: of the bootstrap.
        source: where the examples come from, for `resolved.toml`; their content is noted there anyway.
        command: what was typed, for `environment.json`.
        retry_failed: whether to ask again what failed earlier.
        progress: called with (replies that are there, replies in all).

    Returns:
        The finding "answers"; its first note is the hearing account.

    Raises:
        ManifestError: an example has no answer.
        AudioError: a clip cannot be read any more.
        RecipeError: the run directory holds a run of something else.
    """
    require_answers(examples)
    resolved = resolve(engine, examples, sampling=sampling, question_only=question_only, seed=seed, source=source)
    run = begin_run(run, engine, resolved, command)
    passes = 1 + question_only

    def ask(asked: Sequence[Example], offset: int) -> tuple[list[Record], list[str]]:
        records: list[Record] = []
        clips: list[str] = []
        step = batch_size * SLICE_BATCHES
        for start in range(0, len(asked), step):
            part = asked[start : start + step]
            # Built slice by slice: a conversation holds its clips.
            conversations = [example.conversation() for example in part]
            completions: list[Completion] = run.run_batched(
                engine, conversations, sampling, batch_size, retry_failed=retry_failed
            )
            for example, conversation, completion in zip(part, conversations, completions, strict=True):
                records.append(make_record(example, completion))
                clips.append("+".join(clip.key for clip in conversation.clips))
            if progress:
                progress(offset + start + len(part), passes * len(examples))
        return records, clips

    records, clips = ask(examples, 0)
    deaf: list[Record] | None = None
    findings: list[Finding] = []
    if question_only:
        deaf, _ = ask([replace(example, audio=()) for example in examples], len(examples))
        findings.append(Finding("question_only", _metrics(deaf, clips, seed), records=_rows(deaf)))
    finding = summarise(records, clips, deaf, seed=seed)
    run.write_findings([finding, *findings])
    return finding


def outcomes_of(
    engine: Generator,
    examples: Sequence[Example],
    run: RunDirectory,
    sampling: Sampling,
    batch_size: int,
    *,
    conversation: Callable[[Example], Conversation] = Example.conversation,
    retry_failed: bool = False,
) -> dict[str, Outcome]:
    """Outcome of each example by id, without a finding."""
    done = completions_of(engine, examples, conversation, run, sampling, batch_size, retry_failed=retry_failed)
    return {
        example.id: grade(completion.text, completion.stop, example).outcome
        for example, completion in zip(examples, done, strict=True)
    }


def completions_of(
    engine: Generator,
    examples: Sequence[Example],
    conversation: Callable[[Example], Conversation],
    run: RunDirectory,
    sampling: Sampling,
    batch_size: int,
    *,
    retry_failed: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Completion]:
    """One completion for each example, in order; conversations, which hold clips, are made slice by slice.

    Args:
        engine: who is asked.
        examples: the questions.
        conversation: what is asked about one of them.
        run: where completions go.
        sampling: how replies are drawn.
        batch_size: requests at once.
        retry_failed: whether to ask again what failed earlier.
        progress: called with the completions that are there after each slice.
    """
    done: list[Completion] = []
    step = batch_size * SLICE_BATCHES
    for start in range(0, len(examples), step):
        part = [conversation(example) for example in examples[start : start + step]]
        done += run.run_batched(engine, part, sampling, batch_size, retry_failed=retry_failed)
        if progress:
            progress(len(done))
    return done


def require_answers(examples: Sequence[Example]) -> None:
    """Checks that there is something to grade.

    Raises:
        ManifestError: an example has no answer, or there are none.
    """
    withheld = [f"{example.id}: no answer" for example in examples if example.answer is None]
    if withheld or not examples:
        raise ManifestError("the examples", withheld or ["there are none"])


def begin_run(
    run: RunDirectory | Path | str, engine: Engine, resolved: Mapping[str, Any], command: str
) -> RunDirectory:
    """Opens a run directory and writes what it is a run of.

    Raises:
        RecipeError: it holds a run of something else.
    """
    run = run if isinstance(run, RunDirectory) else RunDirectory(run)
    run.settle(resolved)
    model = {"name": engine.name, "key": engine.key, **engine.settings}
    run.write_environment({"model": model, **({"command": command} if command else {})})
    return run


def resolve(
    engine: Engine,
    examples: Sequence[Example],
    *,
    sampling: Sampling = GREEDY,
    question_only: bool = False,
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All that can change a result of `audit`, as `resolved.toml` holds it; arguments as there.

    How fast it goes (batch size, threads) is not part of it. Nor is the content of the audio: it is in the key of
    each completion.
    """
    asked = [
        {
            **asdict(replace(example, audio=(), meta={})),
            "audio": [audio.name if isinstance(audio, Path) else audio.key for audio in example.audio],
        }
        for example in examples
    ]
    return {
        "model": engine.name,
        "weights": engine.key,
        "question_only": question_only,
        "seed": seed,
        "engine": dict(engine.settings),
        "sampling": asdict(sampling),
        "questions": {"n": len(examples), "key": content_key(asked), **(source or {})},
    }


def summarise(
    records: Sequence[Record],
    clips: Sequence[str],
    question_only: Sequence[Record] | None = None,
    *,
    seed: int = 0,
) -> Finding:
    """The finding of graded replies.

    Args:
        records: one per question.
        clips: the key of its clip for each record; questions about one clip are not independent.
        question_only: of the same questions asked without the audio, in the same order.
        seed: of the bootstrap.
    """
    metrics = _metrics(records, clips, seed)
    if question_only is not None:
        metrics |= _gains(records, question_only, clips, seed)
    tables = [_group_table(name, records, clips, question_only, seed) for name in _group_names(records)]
    official = _official(records, clips, seed)
    if official is not None:
        metrics["official_mmau"] = official
        tables.append(_rules_table(metrics["accuracy"], official, len(records)))
    confusion = _confusion(records)
    return Finding(
        "answers",
        metrics,
        tables=(*tables, *([confusion] if confusion else [])),
        curves=_snr_curve(records, clips, seed),
        records=_rows(records),
        notes=(hearing_account(records), *_notes(records, metrics)),
    )


def hearing_account(records: Sequence[Record]) -> str:
    """One sentence: seconds given, seconds heard, audio tokens; and who was cut, if anything was."""
    given = sum(record.heard.seconds_given for record in records)
    lost = _lost_s(records)
    if lost is None:
        return (
            f"Gave {given:.1f} s of audio in {len(records)} questions; the server does not tell how much of it was "
            "heard (`earnest check` measures it)."
        )
    heard = given - sum(lost)
    tokens = sum(record.heard.audio_tokens for record in records)
    share = f" ({100 * heard / given:.1f} %)" if given else ""
    seconds = f"{heard:.1f} of {given:.1f} s of audio{share}"
    text = f"Heard {seconds} in {len(records)} questions, as {tokens} audio tokens."
    # 0.05 s: a clip's last frame may be short.
    cut = [record for record, seconds in zip(records, lost, strict=True) if seconds > 0.05]
    if cut:
        names = ", ".join(record.id for record in cut[:5]) + (", ..." if len(cut) > 5 else "")
        missing = f"{sum(lost):.1f} s of {len(cut)} clip(s)"
        text += f" NOT ALL WAS HEARD: {missing} never reached the model ({names})."
    return text


def _lost_s(records: Iterable[Record]) -> list[float] | None:
    """Seconds that each model call did not hear; None where the engine does not tell."""
    lost = [record.heard.lost_s for record in records]
    return None if None in lost else [seconds for seconds in lost if seconds is not None]


def _rows(records: Iterable[Record]) -> tuple[dict[str, object], ...]:
    return tuple(record.to_json() for record in records)


def _right(records: Iterable[Record]) -> list[float]:
    return [float(record.outcome is Outcome.CORRECT) for record in records]


def _metrics(records: Sequence[Record], clips: Sequence[str], seed: int) -> dict[str, Metric]:
    metrics = {"accuracy": _accuracy(records, clips, range(len(records)), seed)}
    for modality, members in _split(records, "modality").items():
        metrics[f"accuracy.{modality}"] = _accuracy(records, clips, members, seed)
    for outcome in Outcome:
        metrics[f"share.{outcome.value}"] = rate([r.outcome is outcome for r in records], clips, seed=seed)
    given = sum(record.heard.seconds_given for record in records)
    lost = _lost_s(records)
    if given and lost is not None:
        share = (given - sum(lost)) / given
        metrics["heard"] = Metric(share, share, share, len(records), "exact")
    return metrics


def _gains(
    records: Sequence[Record], question_only: Sequence[Record], clips: Sequence[str], seed: int
) -> dict[str, Metric]:
    clusters = clusters_of(clips)
    gains = {
        "gain_over_question_only": paired_bootstrap(
            _right(question_only), _right(records), seed=seed, clusters=clusters
        )
    }
    for modality, members in _split(records, "modality").items():
        gains[f"gain_over_question_only.{modality}"] = paired_bootstrap(
            _right(question_only[index] for index in members),
            _right(records[index] for index in members),
            seed=seed,
            clusters=[clips[index] for index in members] if clusters else None,
        )
    return gains


def _accuracy(records: Sequence[Record], clips: Sequence[str], members: Sequence[int], seed: int) -> Metric:
    """Of the records at the given indices."""
    right = [records[index].outcome is Outcome.CORRECT for index in members]
    return rate(right, [clips[index] for index in members], seed=seed)


def _split(records: Sequence[Record], name: str) -> dict[str, list[int]]:
    """Indices of the records by the value of a group, in the order in which values are shown."""
    found: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        if name in record.groups:
            found.setdefault(record.groups[name], []).append(index)
    return dict(sorted(found.items(), key=lambda item: _order(name, item[0])))


def _order(name: str, value: str) -> tuple[float, str]:
    """From easy to hard: "clean" before falling signal-to-noise ratios; other numbers rise; texts by alphabet."""
    place = {"clean": -math.inf, "easy": -math.inf, "hard": math.inf}.get(value)
    if place is not None:
        return place, value
    try:
        return (-float(value) if name == "snr_db" else float(value)), value
    except ValueError:
        return 0.0, value


def _group_names(records: Sequence[Record]) -> list[str]:
    """The groups that split the records: the world's first, then the user's, each with 2 or more values."""
    names = dict.fromkeys(("modality", "template", "difficulty", "snr_db", "hops"))
    names |= dict.fromkeys(name for record in records for name in record.groups)
    return [name for name in names if 2 <= len(_split(records, name)) <= MAX_GROUP_VALUES]


def _group_table(
    name: str, records: Sequence[Record], clips: Sequence[str], question_only: Sequence[Record] | None, seed: int
) -> Table:
    rows: list[tuple[str | int | float | Metric | None, ...]] = []
    for value, members in _split(records, name).items():
        outcomes = count(records[index].outcome for index in members)
        deaf = [_accuracy(question_only, clips, members, seed)] if question_only is not None else []
        rows.append(
            (
                value,
                _accuracy(records, clips, members, seed),
                *deaf,
                len(members),
                outcomes[Outcome.WRONG],
                outcomes[Outcome.ABSTAINED],
                sum(outcomes[outcome] for outcome in UNREAD),
            )
        )
    columns = (name, "accuracy", *(["question only"] if question_only is not None else []))
    return Table(
        f"Accuracy by {name.replace('_', ' ')}",
        (*columns, "n", "wrong", "abstained", "other"),
        tuple(rows),
        "Other: refused, malformed, unfinished or failed.",
    )


def _official(records: Sequence[Record], clips: Sequence[str], seed: int) -> Metric | None:
    """MMAU's rule, which skips records without a prediction; None if no question has choices.

    Its prediction is the final answer as the model wrote it, not the choice that our own rule reads in it.
    """
    counted = [
        (mmau_match(parse_reply(record.reply).answer, record.expected, record.choices), clip)
        for record, clip in zip(records, clips, strict=True)
        if record.choices and record.reply.strip()
    ]
    return rate([right for right, _ in counted], [clip for _, clip in counted], seed=seed) if counted else None


def _rules_table(strict: Metric, official: Metric, total: int) -> Table:
    return Table(
        "The official rule beside ours",
        ("rule", "accuracy", "counted", "skipped"),
        (
            ("earnest: one outcome each, all counted", strict, strict.n, 0),
            (
                "MMAU string match (v05.15.25), empty replies skipped",
                official,
                official.n,
                total - official.n,
            ),
        ),
        "MMAU's rule is given the text of the last answer tag as the model wrote it; without tags, all but the "
        "reasoning. It knows no letters and accepts a choice inside other words.",
    )


def _confusion(records: Sequence[Record]) -> Table | None:
    """Right answers against given answers, for the most frequent right answers to questions with choices."""
    asked = [record for record in records if record.choices]
    frequent = [answer for answer, _ in Counter(record.expected for record in asked).most_common(CONFUSION_ANSWERS)]
    if len(frequent) < 2:
        return None
    shown = _kin(frequent, [record.choices or () for record in asked])
    columns = [*shown, "another", "no answer"]
    cells: Counter[tuple[str, str]] = Counter()
    for record in asked:
        given = record.answer if record.answer in shown else "another"
        if record.outcome not in (Outcome.CORRECT, Outcome.WRONG):
            given = "no answer"
        cells[record.expected, given] += 1
    return Table(
        "What was confused with what",
        ("right \\ given", *columns),
        tuple((answer, *(cells[answer, column] for column in columns)) for answer in shown),
        f"The {len(shown)} most frequent right answers. "
        "No answer: abstained, refused, malformed, unfinished or failed.",
    )


def _kin(answers: Sequence[str], offered: Iterable[Sequence[str]]) -> list[str]:
    """The answers sorted so that those which were offered together, as digits or instruments, stand together."""
    kin = {answer: {answer} for answer in answers}
    for choices in offered:
        together: set[str] = set().union(*(kin[choice] for choice in choices if choice in kin))
        for answer in together:
            kin[answer] = together
    return sorted(answers, key=lambda answer: (-len(kin[answer]), min(kin[answer]), answer))


def _snr_curve(records: Sequence[Record], clips: Sequence[str], seed: int) -> tuple[Curve, ...]:
    """Accuracy over the noise, where at least three levels were asked; clean items are on no axis."""
    levels = {value: members for value, members in _split(records, "snr_db").items() if value != "clean"}
    if len(levels) < 3:
        return ()
    points = sorted((float(value), _accuracy(records, clips, members, seed)) for value, members in levels.items())
    return (
        Curve.of(
            "Accuracy over noise",
            "accuracy",
            "signal-to-noise ratio in dB",
            "fraction correct",
            (level for level, _ in points),
            (metric for _, metric in points),
        ),
    )


def _notes(records: Sequence[Record], metrics: Mapping[str, Metric]) -> list[str]:
    notes: list[str] = []
    outcomes = count(record.outcome for record in records)
    if "gain_over_question_only" in metrics:
        notes.append(f"Gain over the same questions without their audio: {metrics['gain_over_question_only']}.")
    if number := outcomes[Outcome.UNFINISHED]:
        notes.append(f"{number} replies were cut at the limit of new tokens: raise --max-new-tokens.")
    if number := outcomes[Outcome.FAILED]:
        causes = Counter(record.detail for record in records if record.outcome is Outcome.FAILED)
        text = "; ".join(f"{cause} ({times})" for cause, times in causes.most_common(3))
        notes.append(f"{number} requests failed and count as not correct: {text}.")
    return notes
