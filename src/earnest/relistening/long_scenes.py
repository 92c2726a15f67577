"""Long scenes of the world, their questions, and the exact reasoning that goes back to the evidence.

A scene of 16 to 60 s holds bursts of events with quiet between them. A first pass that is compressed hard can tell
which of its tokens holds what; order within a token, pitch, tempo and words need a finer look. Questions are those
about such details, whose cue is named, or first or last of its kind, and whose evidence lies within a few seconds.
Reasoning cites the stretch that holds it, with a little more on both sides, before it says what is heard there (arXiv
2602.11909, section 3.2).
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from earnest.errors import EarnestError
from earnest.example import Example, save_manifest
from earnest.files import write_json
from earnest.pocket import language
from earnest.relistening.traces import Trace
from earnest.world.dataset import world_example, world_version
from earnest.world.items import Item, item_rng
from earnest.world.mixing import measure, render
from earnest.world.questions import Question, ask
from earnest.world.replies import HEARING, Manner, cite, reply
from earnest.world.scenes import NOISES, plan_scene
from earnest.world.surrogates import clock
from earnest.world.synthesis import SPLITS
from earnest.world.templates.drafts import Cite
from earnest.world.timeline import Event, Scene
from earnest.world.voices import cast_of

TEMPLATES: dict[str, tuple[str, ...]] = {
    "sound": ("sound_after", "sound_order"),
    "music": ("pitch_of", "tempo_of", "pitch_compare", "instrument_after"),
    "speech": ("word_after_sound", "word_first", "word_last", "last_speaker"),
}
"""Questions about a detail at a place that a first pass can find."""
ORDERS = ("sound_after", "sound_order", "instrument_after")
"""Those about the order of what a first pass names: asked where all of it starts within one of its tokens."""
GENRES: dict[str, tuple[str, ...]] = {
    "sound": ("sound",),
    "music": ("mixed", "music"),
    "speech": ("mixed", "speech"),
}
SHORTEST_S, LONGEST_S = 16.0, 60.0
BURST_S = (3.0, 5.0)
"""Length of a burst of three to five events."""
QUIET_S = (1.0, 6.0)
"""Between two bursts."""
SNRS_DB: tuple[tuple[float | None, float], ...] = ((None, 0.25), (20.0, 0.25), (15.0, 0.2), (10.0, 0.2), (5.0, 0.1))
"""Signal-to-noise ratios in dB and their shares; None is clean."""
WIDEST_S = 6.0
"""Evidence lies within so many seconds: it is heard again in one piece."""
TOKEN_S = 2.048
"""Time of a soft token of pocket's scan: the mark before it is as exactly as a first pass can place something."""
MARGIN_S = 2
"""On both sides of the tokens that hold the evidence: about one token, as far as a place is often off."""
MOST_PLACES = 6
"""Things that a look-up exercise asks for."""
NOUNS = {"sound": "sound", "music": "instrument", "speech": "word"}
"""What something is called that the first pass does not name."""
DRAWS = 24
"""How often a template is tried on a scene."""
_CHUNK = 8


@dataclass(frozen=True)
class _Order:
    folder: Path
    split: str
    seed: int


def long_scene(split: str, seed: int, index: int) -> Scene:
    """The scene of an index, planned with the lengths and the voices of rendered events."""
    rng = item_rng(f"long/{split}", seed, index)
    modality = list(TEMPLATES)[index % len(TEMPLATES)]
    longest_s = math.exp(rng.uniform(math.log(SHORTEST_S), math.log(LONGEST_S)))
    genre, lengths = rng.choice(GENRES[modality]), measure(split, rng)
    events: list[Event] = []
    cursor_s = rng.uniform(0.0, QUIET_S[1] / 2)
    while True:
        burst = plan_scene(
            rng,
            split,
            index,
            genre=genre,
            duration_s=rng.uniform(*BURST_S),
            count=rng.randint(3, 5),
            measure=lengths,
            voices=cast_of(split),
            seed=seed,
        )
        if events and cursor_s + burst.duration_s > longest_s:
            break
        events += [_moved(event, cursor_s) for event in burst.events]
        cursor_s += burst.duration_s + rng.uniform(*QUIET_S)
    snr_db = rng.choices([snr for snr, _ in SNRS_DB], [share for _, share in SNRS_DB])[0]
    return replace(
        burst,
        id=f"long-{split}-{seed}-{index:06d}",
        duration_s=round(min(LONGEST_S, max(SHORTEST_S, longest_s)), 2),
        events=tuple(events),
        snr_db=snr_db,
        noise=None if snr_db is None else rng.choice(NOISES),
        extra={"genre": "long"},
    )


def _moved(event: Event, by_s: float) -> Event:
    return replace(event, start_s=round(event.start_s + by_s, 3), end_s=round(event.end_s + by_s, 3))


def questions_of(scene: Scene, seed: int, index: int, count: int) -> list[Question]:
    """Questions about a scene: the first of the modality that is its turn, the others of any; templates take turns."""
    rng = item_rng(f"long-questions/{scene.split}", seed, index)
    modality = list(TEMPLATES)[index % len(TEMPLATES)]
    own = TEMPLATES[modality]
    turn = index // len(TEMPLATES)
    others = [name for names in TEMPLATES.values() for name in names]
    rng.shuffle(others)
    found: list[Question] = []
    for name in [*(own[(turn + k) % len(own)] for k in range(len(own))), *others]:
        if len(found) == count:
            break
        for _ in range(DRAWS):
            question = ask(scene, rng, name)
            if question and _fits(question) and all(question.text != other.text for other in found):
                found.append(question)
                break
    return found


def _fits(question: Question) -> bool:
    """Whether the evidence can be heard again in one piece, and the order is not told by a first pass."""
    starts, ends = zip(*question.evidence, strict=True)
    told = question.template in ORDERS and len({int(start / TOKEN_S) for start in starts}) > 1
    return max(ends) - min(starts) <= WIDEST_S and not told


def trace_of(question: Question) -> Trace:
    """The exact reasoning: the cue, the stretch that holds the evidence, what is heard in it, the answer."""
    cited = [part.event for part in question.reason if isinstance(part, Cite)]
    named = next((event.name for event in cited if f" {event.name}" in question.text), None)
    start_s, end_s = _around(cited)
    said = "".join(
        part if isinstance(part, str) else cite(part.event, with_speaker=part.with_speaker, number=part.number)
        for part in question.reason
    )
    cue = next((event for event in cited if event.name == named), cited[0])
    return Trace(
        (
            f"<think> {HEARING} {_placed(named or NOUNS[cue.kind], cue)} <seg>{start_s}, {end_s}</seg>",
            f" {said}.</think><answer> {question.answer}</answer>",
        ),
        ((float(start_s), float(end_s)),),
    )


def mark(second: float) -> int:
    """The time mark in whole seconds that stands before the scan's token of a moment."""
    return math.floor(math.floor(second / TOKEN_S) * TOKEN_S)


def _around(events: Sequence[Event]) -> tuple[int, int]:
    """Whole seconds that hold the tokens of events, and a margin: a function of marks, which can be read off."""
    start_s = max(0, mark(min(event.start_s for event in events)) - MARGIN_S)
    return start_s, mark(max(event.end_s for event in events)) + math.ceil(TOKEN_S) + MARGIN_S - 1


def _placed(name: str, event: Event) -> str:
    """A name with the mark of its token: content before time, so that the look-up is a step of induction."""
    return f"{name} [{clock(mark(event.start_s))}]"


def places_of(scene: Scene, rng: random.Random) -> dict[str, str] | None:
    """A look-up exercise: where some sounds and instruments are, or all of one kind; None if there is none to ask for.

    One question a clip is too sparse a signal for look-ups to form; this asks for several at once.
    """
    if rng.random() < 0.5:
        kind = rng.choice(scene.events).kind
        heard = dict.fromkeys(_placed(NOUNS[kind], event) for event in scene.of_kind(kind))
        return {"question": language.LIST.format(kinds=language.KINDS[kind]), "reply": f"{', '.join(heard)}."}
    names = [event.name for event in scene.events]
    unique = [event for event in scene.events if names.count(event.name) == 1 and event.kind != "speech"]
    chosen = rng.sample(unique, min(len(unique), MOST_PLACES))
    if not chosen:
        return None
    asked = language.FIND.format(names=", ".join(event.name for event in chosen))
    return {"question": asked, "reply": f"{', '.join(_placed(event.name, event) for event in chosen)}."}


def single_pass(question: Question) -> str:
    """The reply of one who heard the clip once: with the marks of what was heard."""
    reason = tuple(
        replace(part, event=replace(part.event, start_s=float(mark(part.event.start_s))))
        if isinstance(part, Cite)
        else part
        for part in question.reason
    )
    return reply(replace(question, reason=reason), Manner())


def long_examples(split: str, seed: int, index: int, per_scene: int) -> list[tuple[Example, Scene]]:
    """The examples of one scene, without its clip; `meta` holds the trace and the replies of a single pass."""
    scene = long_scene(split, seed, index)
    found: list[tuple[Example, Scene]] = []
    for number, question in enumerate(questions_of(scene, seed, index, per_scene)):
        example = world_example(Item(scene, question), Path())
        meta = {
            "trace": trace_of(question).to_json(),
            "single_pass": single_pass(question),
            "places": places_of(scene, item_rng(f"long-places/{split}/{number}", seed, index)),
            "timeline": scene.to_json()["events"],
        }
        found.append((replace(example, id=f"{scene.id}-{number}", meta=meta), scene))
    return found


def make_long(
    out: str | Path,
    scenes: int,
    *,
    split: str = "test",
    seed: int = 0,
    per_scene: int = 1,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes long scenes and their questions, or what is still missing of them.

    Args:
        out: the folder; clips go to `audio/`, the questions to `manifest.jsonl`.
        scenes: number of scenes, all 0 to scenes - 1.
        split: of the world: its voices, sound parameters and wordings.
        seed: another seed gives other scenes.
        per_scene: questions about each; fewer where it allows fewer.
        workers: processes that render.
        progress: called with (clips that are there, clips in all).

    Returns:
        The manifest.

    Raises:
        EarnestError: an unknown split, a number below 1, or a folder that holds other scenes.
    """
    if split not in SPLITS:
        raise EarnestError(f"split {split!r} is unknown; known: {', '.join(SPLITS)}")
    if min(scenes, per_scene, workers) < 1:
        raise EarnestError(f"scenes is {scenes}, per_scene {per_scene}, workers {workers}: each must be at least 1")
    folder = Path(out)
    order = _Order(folder, split, seed)
    _claim(order)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    missing = [k for k in range(scenes) if not _audio(folder, split, seed, k).exists()]
    chunks = [missing[start : start + _CHUNK] for start in range(0, len(missing), _CHUNK)]
    done = scenes - len(missing)
    if workers > 1 and len(chunks) > 1:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for count in pool.map(_render, [order] * len(chunks), chunks):
                done += count
                if progress:
                    progress(done, scenes)
    else:
        for chunk in chunks:
            done += _render(order, chunk)
            if progress:
                progress(done, scenes)
    every = [
        replace(example, audio=(_audio(folder, split, seed, index),))
        for index in range(scenes)
        for example, _ in long_examples(split, seed, index, per_scene)
    ]
    manifest = folder / "manifest.jsonl"
    save_manifest(every, manifest)
    return manifest


def long_version() -> str:
    """Hash of the source that plans and renders long scenes: those of two versions are not mixed in one folder."""
    return hashlib.sha256(world_version().encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def _claim(order: _Order) -> None:
    """Notes in the folder what it holds, or raises EarnestError if that is something else."""
    path = order.folder / "long.json"
    wanted = {"split": order.split, "seed": order.seed, "version": long_version()}
    if not path.exists():
        write_json(path, wanted)
        return
    held = json.loads(path.read_text("utf-8"))
    if held != wanted:
        changed = ", ".join(
            f"{key} {held.get(key)!r} (asked for: {value!r})" for key, value in wanted.items() if held.get(key) != value
        )
        raise EarnestError(f"{order.folder} holds other long scenes: {changed}; give another folder or remove this one")


def _audio(folder: Path, split: str, seed: int, index: int) -> Path:
    return folder / "audio" / f"long-{split}-{seed}-{index:06d}.flac"


def _render(order: _Order, indices: Sequence[int]) -> int:
    for index in indices:
        scene = long_scene(order.split, order.seed, index)
        render(scene).save(_audio(order.folder, order.split, order.seed, index))
    return len(indices)
