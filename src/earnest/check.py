"""Is the audio really getting in? A table of checks of any engine, before any of its answers is believed.

    earnest check MODEL [--against server:URL#MODEL]

Each check holds what was given against what arrived, or one way of asking against another that must give the same.
The flip rate, how often a reply changes when only the company changes that it is computed in, is the noise floor of
every later comparison of two runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from earnest.audio import Clip
from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import Engine
from earnest.errors import EarnestError

RATE_HZ = 16_000
QUESTION = "describe the audio."
SECONDS = (0.6, 1.3, 2.0, 3.7, 6.0, 9.0)
"""Lengths of the clips that are checked with."""
REPLY_TOKENS = 24
"""Tokens that are compared: long enough to differ, short enough for a server that is paid by the token."""
LOGPROB_TOLERANCE = 1e-2
"""Nats by which a token's log-probability may differ between two ways of asking the same, in float32. In half precision
the order of a sum moves it by more: there the replies alone decide, and the difference is shown."""


@dataclass(frozen=True)
class Row:
    """One check.

    Attributes:
        name: what is checked.
        passed: None if this engine cannot be checked for it.
        shown: what was found, in words and numbers.
    """

    name: str
    passed: bool | None
    shown: str


@dataclass(frozen=True)
class CheckReport:
    """What `check` returns.

    Attributes:
        rows: one for each check.
        flips: replies that changed with the company they were computed in.
        compared: replies that were compared for it.
    """

    rows: tuple[Row, ...]
    flips: int
    compared: int

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(row.passed is not False for row in self.rows)


def check_clip(number: int, rate_hz: int = RATE_HZ) -> Clip:
    """One of six sounds of 0.6 to 9 s that any ear tells apart: chirps that beat, and noise; always the same.

    Args:
        number: 0 to 5.
        rate_hz: at which it is made, without any resampler.
    """
    rng = np.random.default_rng(number)
    times = np.arange(round(SECONDS[number] * rate_hz)) / rate_hz
    sweep = np.sin(2 * np.pi * (150.0 * (number + 1) * times + 60.0 * (number + 1) * times**2))
    beat = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (number + 1) * times))
    samples = 0.25 * sweep * beat + 0.02 * rng.standard_normal(times.size)
    return Clip(samples.astype(np.float32), rate_hz, f"check-{number}")


def check(
    engine: Engine, against: Engine | None = None, *, progress: Callable[[int, int], None] | None = None
) -> CheckReport:
    """Runs all checks.

    Args:
        engine: who is checked; nothing is written and no weight changes.
        against: the same model elsewhere, such as behind a server: it must say the same about the same tokens.
        progress: called with (checks done, checks in all).
    """
    checks: tuple[Callable[[_Checked], Row], ...] = (
        _answers, _seconds, _placeholders, _sample_rate, _channels, _long_clip, _silence, _swap, _cut, _order,
        _batch, _cached, *((_tokens_there, _replies_there) if against else ()),
    )  # fmt: skip
    checked = _Checked(engine, against)
    rows: list[Row] = []
    for number, run in enumerate(checks):
        name = (run.__doc__ or "").rstrip(".")
        try:
            rows.append(replace(run(checked), name=name))
        # A check is there to find faults: whatever the engine raises is one.
        except Exception as error:
            rows.append(Row(name, False, f"{type(error).__name__}: {error}"))
        if progress:
            progress(number + 1, len(checks))
    flips, compared = checked.flips
    return CheckReport(tuple(rows), flips, compared)


class _Checked:
    """An engine, the clips, and what it said about each of them alone; and the same model elsewhere."""

    def __init__(self, engine: Engine, against: Engine | None) -> None:
        self.engine = engine
        self.against = against
        self.clips = [check_clip(number) for number in range(len(SECONDS))]
        self.alone: list[Completion] = []
        self.there: list[Completion] = []
        self.flips: tuple[int, int] = (0, 0)
        half = engine.settings.get("dtype") in ("bfloat16", "float16")
        self.tolerance = math.inf if half else LOGPROB_TOLERANCE

    def ask(self, conversations: Iterable[Conversation], engine: Engine | None = None) -> list[Completion]:
        """Greedy replies; a failure is raised."""
        done = (engine or self.engine).generate(list(conversations), Sampling(max_new_tokens=REPLY_TOKENS))
        for completion in done:
            if completion.stop is Stop.FAILED:
                raise EarnestError(completion.error)
        return done

    def forget(self) -> None:
        """Empties the engine's caches, if it has any."""
        shared: Any = getattr(self.engine, "shared", None)
        if shared is not None:
            shared.clear()

    @contextmanager
    def together(self) -> Generator[None]:
        """Batches as large as the memory allows, where the engine would split them because a CPU gains nothing."""
        shared: Any = getattr(self.engine, "shared", None)
        if shared is None:
            yield
            return
        enough, shared.enough = shared.enough, math.inf
        try:
            yield
        finally:
            shared.enough = enough

    def about(self, clip: Clip) -> Completion:
        """The reply about one clip."""
        return self.ask([asked(clip)])[0]

    def shift(self, clip: Clip, other: Clip) -> tuple[bool, str]:
        """Whether the reply about `clip` changes when `other` is heard instead, and by how much."""
        return self.moved(asked(clip), asked(other), self.alone[self.clips.index(clip)])

    def moved(self, one: Conversation, other: Conversation, before: Completion) -> tuple[bool, str]:
        """Whether `before`, the reply to `one`, or its log-probability is another one when `other` is asked."""
        changed = not same(before, self.ask([other])[0])
        shown = "the reply changes" if changed else "the reply stays"
        if self.engine.capabilities.logprobs and before.token_ids:
            was, now = (float(score.sum()) for score in self.engine.logprobs([one, other], [before.token_ids] * 2))
            shown += f"; its log-probability moves from {was:.2f} to {now:.2f}"
            changed = changed or abs(was - now) > LOGPROB_TOLERANCE * len(before.token_ids)
        return changed, shown


def asked(clip: Clip) -> Conversation:
    """The question about one clip."""
    return Conversation().user(Audio(clip), f"\n\n{QUESTION}")


def same(one: Completion, other: Completion) -> bool:
    """Whether two replies are the same: by their tokens where both have them, else by their text."""
    if one.token_ids and other.token_ids:
        return one.token_ids == other.token_ids
    return one.text == other.text


def _answers(checked: _Checked) -> Row:
    """every clip gets a reply."""
    checked.alone = [checked.about(clip) for clip in checked.clips]
    distinct = len({completion.text for completion in checked.alone})
    return Row("", True, f"{len(checked.alone)} replies, {distinct} of them different")


def _seconds(checked: _Checked) -> Row:
    """seconds given = seconds encoded."""
    heards = [completion.heard for completion in checked.alone]
    given = sum(heard.seconds_given for heard in heards)
    told = [(heard.seconds_given, heard.lost_s) for heard in heards if heard.lost_s is not None]
    if len(told) < len(heards):
        return Row("", None, f"{given:.1f} s given; a server does not tell what it encoded")
    lost = [f"{missing:.2f} s of a clip of {seconds:.2f} s" for seconds, missing in told if abs(missing) > 0.05]
    shown = f"{given:.1f} s given, {given - sum(missing for _, missing in told):.1f} s encoded"
    return Row("", not lost, shown + (f"; dropped: {', '.join(lost)}" if lost else ""))


def _placeholders(checked: _Checked) -> Row:
    """placeholders = frames."""
    family: Any = getattr(checked.engine, "family", None)
    if family is None:
        return _slope(
            [(clip.duration_s, count) for clip, count in zip(checked.clips, _tokens(checked.alone), strict=True)]
        )
    off: list[str] = []
    total = 0
    for clip in checked.clips:
        placeholders = family.audio_ids(Audio(clip)).count(family.audio_token_id)
        frames = len(family.encode([Audio(clip)])[0])
        total += placeholders
        if frames != placeholders:
            off.append(f"{clip.duration_s:.1f} s: {placeholders} placeholders, {frames} frames")
    return Row("", not off, "; ".join(off) or f"{total} of both in {len(checked.clips)} clips")


def _slope(counts: Sequence[tuple[float, int]]) -> Row:
    """Behind a server: prompt tokens must grow with the seconds."""
    (short, few), (long, many) = min(counts), max(counts)
    if not many:
        return Row("", None, "the server counts no tokens")
    if many == few:
        return Row("", None, f"{few} prompt tokens for {short:.1f} s and for {long:.1f} s: whole windows, or not heard")
    rate = (many - few) / (long - short)
    return Row("", many > few, f"{many - few} prompt tokens more for {long - short:.1f} s more: {rate:.1f} a second")


def _tokens(completions: Iterable[Completion]) -> list[int]:
    """Audio tokens of each; all prompt tokens where the engine does not tell them apart."""
    return [done.heard.audio_tokens or done.prompt_tokens for done in completions]


def _sample_rate(checked: _Checked) -> Row:
    """another sample rate changes nothing."""
    there = checked.ask([asked(check_clip(4, rate)) for rate in (44_100, 48_000, 22_050)])
    tokens, want = _tokens(there), _tokens(checked.alone)[4]
    if not want:
        return Row("", None, "no tokens are counted")
    return Row("", all(abs(count - want) <= 1 for count in tokens), f"{want} tokens at 16 kHz, {tokens} at others")


def _channels(checked: _Checked) -> Row:
    """stereo is heard as its mean."""
    import io

    import soundfile

    clip = checked.clips[3]
    stream = io.BytesIO()
    both = np.stack([clip.samples * 2, np.zeros_like(clip.samples)], axis=1)
    soundfile.write(stream, both, RATE_HZ, format="WAV", subtype="FLOAT")
    mixed = Clip.from_bytes(stream.getvalue(), "stereo")
    checked.forget()
    there = checked.about(mixed)
    equal = same(there, checked.alone[3])
    return Row("", equal, "the same reply" if equal else f"{there.text!r} instead of {checked.alone[3].text!r}")


def _long_clip(checked: _Checked) -> Row:
    """a clip beyond the limit is refused, not cut."""
    family: Any = getattr(checked.engine, "family", None)
    limit = getattr(family, "max_audio_s", None)
    seconds = limit + 5.0 if limit else 40.0
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    clip = Clip((0.2 * np.sin(2 * np.pi * 330.0 * times)).astype(np.float32), RATE_HZ, "check-long")
    done = checked.engine.generate([asked(clip)], Sampling(max_new_tokens=1))[0]
    if done.stop is Stop.FAILED:
        # Behind a server, what is no refusal is a fault: 5xx, a timeout, nobody there.
        refused = family is not None or "answered 4" in done.error
        return Row("", refused, f"{seconds:.0f} s: {'refused' if refused else 'failed'} ({done.error})")
    lost = done.heard.lost_s
    if lost is None:
        return _growth(checked, seconds, *_tokens([done]))
    return Row("", abs(lost) < 0.1, f"{seconds:.0f} s: answered, {lost:.1f} s dropped")


def _growth(checked: _Checked, seconds: float, count: int) -> Row:
    """Behind a server: a long clip must have as many more tokens as the short ones promise."""
    few, many = _tokens([checked.alone[0], checked.alone[-1]])
    rate = (many - few) / (SECONDS[-1] - SECONDS[0])
    if rate <= 0:
        return Row("", None, f"{seconds:.0f} s: answered; its prompt tokens tell nothing of the length")
    short = seconds - SECONDS[-1] - (count - many) / rate
    shown = f"{seconds:.0f} s: answered with {count} prompt tokens"
    return Row("", short < 1.0, shown + (f", {short:.1f} s are missing" if short >= 1.0 else ""))


def _silence(checked: _Checked) -> Row:
    """silence changes the answer."""
    clip = checked.clips[5]
    return Row("", *checked.shift(clip, Clip(np.zeros_like(clip.samples), RATE_HZ)))


def _swap(checked: _Checked) -> Row:
    """another clip changes the answer."""
    return Row("", *checked.shift(checked.clips[5], checked.clips[4]))


def _cut(checked: _Checked) -> Row:
    """a cut clip changes the answer."""
    clip = checked.clips[5]
    return Row("", *checked.shift(clip, clip.crop(0.0, clip.duration_s / 3)))


def _order(checked: _Checked) -> Row:
    """the order of two clips is kept."""
    one, other = checked.clips[1], checked.clips[3]
    forth, back = (Conversation().user(Audio(a), " and ", Audio(b), QUESTION) for a, b in ((one, other), (other, one)))
    changed, shown = checked.moved(forth, back, checked.ask([forth])[0])
    return Row("", changed, f"swapped: {shown}")


def _batch(checked: _Checked) -> Row:
    """in a batch = alone."""
    checked.forget()
    # Each beside a longer one: batches hold what is of similar length, and one of a kind would travel alone.
    longer = [Clip(np.resize(clip.samples, round(1.15 * clip.samples.size)), RATE_HZ) for clip in checked.clips]
    with checked.together():
        both = checked.ask([asked(clip) for clip in (*reversed(checked.clips), *longer)])
    return _compare(checked, both[: len(checked.clips)][::-1])


def _cached(checked: _Checked) -> Row:
    """from caches = computed anew."""
    first = _compare(checked, checked.ask([asked(clip) for clip in checked.clips]))
    if not first.passed:
        return first
    checked.forget()
    return _held(checked.alone, [checked.about(clip) for clip in checked.clips], checked.tolerance)


def _tokens_there(checked: _Checked) -> Row:
    """local = server: the same number of tokens."""
    checked.there = checked.ask([asked(clip) for clip in checked.clips], checked.against)
    here, there = ([done.prompt_tokens for done in all_of] for all_of in (checked.alone, checked.there))
    if not any(here) or not any(there):
        return Row("", None, "one of them counts no tokens")
    off = [
        f"{clip.duration_s:.1f} s: {a} and {b}" for clip, a, b in zip(checked.clips, here, there, strict=True) if a != b
    ]
    return Row("", not off, "; ".join(off) or f"{sum(here)} prompt tokens in {len(here)} requests")


def _replies_there(checked: _Checked) -> Row:
    """local = server: the same replies."""
    return _held(checked.alone, checked.there, checked.tolerance)


def _compare(checked: _Checked, others: Sequence[Completion]) -> Row:
    """Replies against those that each clip got alone; what differs counts for the noise floor."""
    flips = sum(not same(a, b) for a, b in zip(checked.alone, others, strict=True))
    checked.flips = checked.flips[0] + flips, checked.flips[1] + len(others)
    return _held(checked.alone, others, checked.tolerance)


def _held(alone: Sequence[Completion], others: Sequence[Completion], tolerance: float) -> Row:
    """Replies, and their log-probabilities where both have them, against others to the same requests."""
    flips = [place for place, (a, b) in enumerate(zip(alone, others, strict=True)) if not same(a, b)]
    shown = f"{len(flips)} of {len(others)} replies differ"
    gaps = [
        abs(a - b)
        for one, other in zip(alone, others, strict=True)
        if same(one, other) and one.logprobs and other.logprobs
        # A server leaves out the end of the turn.
        for a, b in zip(one.logprobs, other.logprobs, strict=False)
    ]
    if flips:
        shown += "; " + _divergence(alone[flips[0]], others[flips[0]])
    if gaps:
        shown += f"; log-probabilities differ by at most {max(gaps):.1e}"
    return Row("", not flips and all(math.isfinite(gap) and gap < tolerance for gap in gaps), shown)


def _divergence(one: Completion, other: Completion) -> str:
    """Where two replies part."""
    tokens = bool(one.token_ids and other.token_ids)
    pair: tuple[Sequence[Any], Sequence[Any]] = (one.token_ids, other.token_ids) if tokens else (one.text, other.text)
    place = next((k for k, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
    return f"they part at {'token' if tokens else 'character'} {place}: {one.text!r} and {other.text!r}"
