"""Tiny models that are taught one trace: they cite a stretch of a clip, and go on from what is heard again.

Random weights hardly ever write a citation, let alone one that can be heard: a few steps of the real SFT teach it.
"""

from __future__ import annotations

from pathlib import Path

from tests.tiny import tone

from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine
from earnest.example import Example
from earnest.prompts import Prompt
from earnest.relistening.lessons import trace_lessons
from earnest.relistening.loop import hears_finer, question_of
from earnest.relistening.traces import Trace
from earnest.training.lora_trainer import LoraSettings
from earnest.training.sft import Lesson, fine_tune

TRACE = Trace(("<think> i hear dog <seg>1, 2</seg>", " dog.</think><answer> dog</answer>"), ((1.0, 2.0),))
ONCE = "<think> cat.</think><answer> cat</answer>"
"""What they say if they are to hear the clip once."""
SHORT = Prompt("short", {"listen": "refer.", "once": "", "go_on": "go on.", "unheard": "go on."})
SETTINGS = LoraSettings(rank=16, alpha=16, parts="all", learning_rate=1e-2, epochs=80, batch_size=4)


def question(number: int, answer: str = "dog", evidence: tuple[float, float] = (1.0, 2.0), **groups: str) -> Example:
    """About a clip of 3 s, with the trace that answers "dog" from its second second."""
    clip = tone(300 + 50 * number, 3.0)
    meta = {"trace": TRACE.to_json()}
    return Example(f"q{number}", (clip,), f"what {number}?", ("dog", "cat"), answer, groups, (evidence,), meta=meta)


def engine_of(folder: Path, adapter: Path | None = None) -> LocalEngine:
    """On the CPU, with one thread."""
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


def taught(model: Path, to: Path, words: Prompt = SHORT, settings: LoraSettings = SETTINGS) -> Path:
    """The folder of an adapter with which a model says `TRACE` where it may listen again, and `ONCE` where not."""
    engine = engine_of(model)
    examples = [question(number) for number in range(2)]
    single = [Lesson(lambda one=one: question_of(one, words, listen=False), ONCE, f"{one.id}/once") for one in examples]
    lessons = [*trace_lessons(examples, words, fine=hears_finer(engine)), *single]
    return fine_tune(engine.family, lessons, settings, to, log=lambda _: None)
