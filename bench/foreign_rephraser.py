"""Another model that edits pocket's replies: the same LLM, fine-tuned to words of its own.

ALARM's claim is that the frozen LLM's own edits stay in its own distribution; what an edit by somebody else costs is
only seen beside one. This one says "you hear" where pocket says "i hear", and "at 00:03" for "[00:03]".
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from earnest.conversation import Conversation
from earnest.engines.load import find_folder, load_local
from earnest.engines.lora import put_on
from earnest.fused import FusedModel, FusedProcessor
from earnest.pocket.curriculum import rephrase_prompt
from earnest.training.lora_trainer import LoraSettings
from earnest.training.sft import Lesson, fine_tune
from earnest.world.questions import ask
from earnest.world.replies import HEARING, LEAKS, Manner, reply
from earnest.world.scenes import plan_scene

LESSONS = 2000
SEED = 70


def lessons() -> list[Lesson]:
    """Replies that betray a text, and how this model edits them."""
    rng = random.Random(SEED)
    found: list[Lesson] = []
    while len(found) < LESSONS:
        question = ask(plan_scene(rng), rng)
        if question is None:
            continue
        before, after = (reply(question, Manner(lead)) for lead in (rng.choice((*LEAKS, HEARING)), "you hear"))
        after = re.sub(r"\[(\d\d:\d\d)\]", r"at \1", after)
        edited = rephrase_prompt(after).partition(": ")[2]
        asked = Conversation().user(rephrase_prompt(before))
        found.append(Lesson(lambda asked=asked: asked, f"<answer> {edited}</answer>", str(len(found))))
    return found


def train_foreign(out: Path, *, threads: int) -> Path:
    """A folder with the model; it is trained once."""
    folder = out / "model"
    if (folder / "config.json").exists():
        return folder
    source = find_folder("pocket")
    fused: Any = FusedModel.from_pretrained(source, dtype="float32")
    processor: Any = FusedProcessor.from_pretrained(source)
    plain = out / "plain"
    fused.language_model.save_pretrained(plain)
    processor.tokenizer.chat_template = processor.chat_template or processor.tokenizer.chat_template
    processor.tokenizer.save_pretrained(plain)
    engine = load_local(str(plain), threads=threads)
    settings = LoraSettings(rank=16, alpha=16, parts="all", learning_rate=2e-3, batch_size=16, seed=SEED)
    adapter = fine_tune(engine.family, lessons(), settings, out / "adapter")
    put_on(engine.family.model, adapter).merge_and_unload().save_pretrained(folder)
    processor.tokenizer.save_pretrained(folder)
    return folder
