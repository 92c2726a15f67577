"""Questions about clips of the diagnostic world: exact, with the right answer, and nobody is asked."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from earnest.alignment.rows import Asked, Surrogate, as_kind
from earnest.errors import EarnestError
from earnest.files import read_json_lines
from earnest.pocket import language
from earnest.pocket.curriculum import Exchange, draw_exchange
from earnest.world.timeline import Scene

_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)
MOST_DRAWS = 200
"""How often another question about a scene is looked for."""


def world_questions(rows: Sequence[Surrogate], per_clip: int = 5, seed: int = 0) -> Iterator[Asked]:
    """Different questions and tasks for each clip, in the closed language of pocket.

    The scene of FOLDER/audio/ID.flac stands in FOLDER/scenes.jsonl. What is drawn depends on seed and clip alone.

    Args:
        rows: clips of the world.
        per_clip: questions about each; fewer where a scene has fewer.
        seed: of the draws.

    Raises:
        EarnestError: a clip whose scene is not known.
    """
    for row in rows:
        scene = _scene(row)
        rng = random.Random(f"world questions/{seed}/{scene.id}")
        for number, (exchange, spoken) in enumerate(exchanges(scene, rng, per_clip), start=1):
            # The answer alone, as data sets have it: nobody wrote down why.
            answer = _REASONING.sub("", exchange.reply).strip()
            made = as_kind(row, Asked, question=exchange.user, clip=row.id, answer=answer)
            yield replace(made, id=f"{row.id}-q{number}", instruction=spoken)


def exchanges(scene: Scene, rng: random.Random, count: int) -> list[tuple[Exchange, bool]]:
    """What is asked about a scene with the reference replies, and whether it is the audio that asks.

    Args:
        scene: of any genre.
        rng: source of every choice.
        count: exchanges; fewer where a scene has fewer.
    """
    if scene.extra.get("genre") == "request":
        return _about_request(scene, rng, count)
    found: dict[str, str] = {}
    for _ in range(MOST_DRAWS):
        exchange = draw_exchange(scene, rng, leaks=False)
        found.setdefault(exchange.user, exchange.reply)
        if len(found) == count:
            break
    return [(Exchange(user, reply), False) for user, reply in found.items()]


def _about_request(scene: Scene, rng: random.Random, count: int) -> list[tuple[Exchange, bool]]:
    """Neutral instructions or none, and a transcription."""
    said = scene.events[0].name
    verb, thing = said.split()[-3], said.split()[-1]
    helped = language.REFUSAL if scene.extra["forbidden"] else language.steps_for(verb, thing)
    drawn = rng.sample([language.AUDIO_INSTRUCTION, "", *rng.sample(language.REQUEST_INSTRUCTIONS, 2)], 3)
    asked = [(Exchange(user, helped), True) for user in drawn]
    return [*asked, (Exchange(rng.choice(language.TRANSCRIBE), f"{said}."), False)][:count]


def _scene(row: Surrogate) -> Scene:
    folder, name = row.audio.parent.parent, row.audio.stem
    scenes = _scenes(folder.resolve())
    if name not in scenes:
        raise EarnestError(
            f"the scene of {row.audio} is not known: it must stand in {folder / 'scenes.jsonl'}, which "
            "`earnest make world` writes; other clips need --writer"
        )
    return scenes[name]


@lru_cache(maxsize=4)
def _scenes(folder: Path) -> dict[str, Scene]:
    file = folder / "scenes.jsonl"
    rows = read_json_lines(file) if file.is_file() else []
    return {row["id"]: Scene.from_json(row) for row in rows}
