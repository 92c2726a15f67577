"""Stage `targets`: the frozen LLM answers from textual surrogates and rephrases itself (ALARM, section 3).

R0 is the LLM's own greedy reply to surrogate and question; where it speaks of a text, the same LLM edits
those phrases (R). A row whose R still leaks, or whose length leaves [0.5, 1.5] of R0, is rejected with its
reason. The adapters are trained on R alone.
"""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from earnest.files import write_json, write_json_lines
from earnest.pocket import language
from earnest.pocket.clips import adapter_scene
from earnest.pocket.curriculum import draw_exchange, rephrase_prompt
from earnest.pocket.greedy import GreedyWriter
from earnest.world.items import item_rng
from earnest.world.surrogates import scene_surrogate
from earnest.world.timeline import Scene

LEAK = re.compile(r"\b(description|transcript|text|caption)\b")
"""Words that betray a text."""


@dataclass(frozen=True)
class TargetSettings:
    """Numbers of the stage.

    Attributes:
        scenes: clips.
        turns: questions and tasks for each.
        seed: of scenes and questions.
        batch_size: prompts decoded together.
        threads: of the LLM.
    """

    scenes: int = 4000
    turns: int = 5
    seed: int = 20
    batch_size: int = 256
    threads: int = 2


@dataclass(frozen=True)
class Target:
    """One row: the clip's number, the user's text, R0 and what is learned (None where rejected)."""

    scene: int
    user: str
    raw: str
    target: str | None
    reason: str


def users_of(scene: Scene, rng: random.Random, turns: int) -> list[str]:
    """What is asked about a clip: questions and tasks, or instructions where a voice makes a request."""
    if scene.extra["genre"] == "request":
        instructions = [language.AUDIO_INSTRUCTION, *rng.sample(language.REQUEST_INSTRUCTIONS, 2), "", ""]
        return [*rng.sample(instructions, 3), rng.choice(language.TRANSCRIBE)][:turns]
    users: list[str] = []
    while len(users) < turns:
        user = draw_exchange(scene, rng, leaks=False).user
        if user not in users:
            users.append(user)
    return users


def write(settings: TargetSettings, llm: Path, out: Path, *, log: Callable[[str], None] = print) -> Path:
    """Writes `out/targets.jsonl` and `out/card.json`; an interrupted run goes on where it stopped.

    Args:
        settings: numbers of the stage.
        llm: folder of the text LLM.
        out: folder of the stage.
        log: one line of progress a batch of scenes.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "targets.jsonl"
    done = _scenes_in(path)
    writer = GreedyWriter(llm, batch_size=settings.batch_size, threads=settings.threads)
    started = time.time()
    chunk = 500
    for start in range(done, settings.scenes, chunk):
        rows = _rows(range(start, min(settings.scenes, start + chunk)), settings, writer)
        with path.open("a") as file:
            file.writelines(json.dumps(asdict(row)) + "\n" for row in rows)
        log(f"{start + chunk} clips, {len(rows)} rows more, {time.time() - started:.0f} s")
    card = _card(read(path))
    write_json(out / "card.json", card)
    log(json.dumps(card))
    return path


def read(path: Path) -> list[Target]:
    """All rows of a stage."""
    with path.open() as file:
        return [Target(**json.loads(line)) for line in file]


def _scenes_in(path: Path) -> int:
    """Number of clips that are complete; a torn last line is cut off."""
    if not path.exists():
        return 0
    rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    if not rows:
        path.unlink()
        return 0
    last = rows[-1]["scene"]
    write_json_lines(path, (row for row in rows if row["scene"] < last))
    return last


def _rows(numbers: range, settings: TargetSettings, writer: GreedyWriter) -> list[Target]:
    asked: list[tuple[int, str, str]] = []
    for number in numbers:
        scene = adapter_scene("train", settings.seed, number)
        rng = item_rng("questions", settings.seed, number)
        surrogate = scene_surrogate(scene)
        asked += [(number, surrogate, user) for user in users_of(scene, rng, settings.turns)]
    raw = writer.write([(surrogate, user) for _, surrogate, user in asked])
    leaking = {k: reply for k, reply in enumerate(raw) if reply is not None and LEAK.search(reply)}
    edits = writer.write([(None, rephrase_prompt(reply)) for reply in leaking.values()])
    edited = dict(zip(leaking, edits, strict=True))
    return [
        Target(number, user, raw[k] or "", *_judge(raw[k], edited.get(k), leaks=k in edited))
        for k, (number, _, user) in enumerate(asked)
    ]


def _judge(raw: str | None, edited: str | None, *, leaks: bool) -> tuple[str | None, str]:
    """The target and why it is one, or None and why not. A cut reply is no target: it would teach to stop there."""
    if raw is None or (leaks and edited is None):
        return None, "cut"
    if edited is None:
        return raw, "no leak"
    inner = re.fullmatch(r"\s*<answer>(.*)</answer>\s*", edited, re.DOTALL)
    if inner is None:
        return None, "no answer tag"
    text = re.sub(r"\s*\[/(think|answer)\]", r"</\1>", inner[1])
    text = re.sub(r"\s*\[(think|answer)\]", r"<\1>", text).replace("</think> <answer>", "</think><answer>")
    if LEAK.search(text):
        return None, "still leaks"
    if not 0.5 <= len(text) / len(raw) <= 1.5:
        return None, "length"
    if text.count("<think>") != raw.count("<think>") or text.count("<answer>") != raw.count("<answer>"):
        return None, "tags"
    return text.strip(), "rephrased"


def _card(rows: list[Target]) -> dict[str, Any]:
    reasons = Counter(row.reason for row in rows)
    leaks = sum(bool(LEAK.search(row.raw)) for row in rows)
    return {"rows": len(rows), "leak_rate_before": leaks / len(rows), "reasons": dict(reasons)}


def grouped(rows: list[Target]) -> Iterator[tuple[int, list[Target]]]:
    """Rows that are targets, by clip, in order."""
    clips: dict[int, list[Target]] = {}
    for row in rows:
        if row.target is not None:
            clips.setdefault(row.scene, []).append(row)
    yield from clips.items()
