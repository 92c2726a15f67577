"""The engine against plain `generate`, side by side in one process: `python bench/engines.py`.

(a) the model's own `generate`, one request at a time; (b) the same in padded batches of 8 in the given order, as the
common harnesses do; (c) earnest. Four loads, each on a tiny Qwen2-Audio with random weights and on pocket:

    mixed_run          200 clips of 2 to 28 s, a question each
    faithfulness_load  one clip, 30 requests that share audio and question
    group              8 samples of one prompt
    relistening        6 turns on a 30 s clip, each goes back to a part of it; (a) submits everything anew

Every repetition runs all ways one after the other; the ratio is that of the medians, its interval the least and the
greatest ratio of one repetition. Replies of (c) must be those of (a). The claims are those of the tiny Qwen2-Audio;
pocket's ratios stand in their notes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import ROOT, Claim, machine, write_claim

from earnest.audio import Clip
from earnest.completion import Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine

sys.path.insert(0, str(ROOT))
RATE_HZ = 16_000
BATCH = 8
GOALS = {
    "mixed_run": {"ratio_to_padded_batches": ">= 1.5"},
    "faithfulness_load": {"ratio_to_one_by_one": ">= 8", "ratio_to_padded_batches": ">= 4"},
    "group": {"ratio_to_one_by_one": ">= 4"},
    "relistening": {"ratio_to_resubmit": ">= 3"},
}


def clip(seconds: float, number: int) -> Clip:
    """A sweep with noise, another one for each number."""
    rng = np.random.default_rng(number)
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    sweep = np.sin(2 * np.pi * (200 + 30 * (number % 40)) * times * (1 + times / 40))
    return Clip((0.3 * sweep + 0.02 * rng.standard_normal(times.size)).astype(np.float32), RATE_HZ, f"clip-{number}")


def loads(items: int) -> dict[str, list[Conversation]]:
    """The requests of each load; those of re-listening grow turn by turn."""
    rng = np.random.default_rng(0)
    questions = ("what sound comes first?", "how many sounds are there?", "which word is spoken?", "is there a dog?")
    mixed = [
        Conversation().user(Audio(clip(float(rng.uniform(2, 28)), k)), "\n\n" + questions[k % 4]) for k in range(items)
    ]
    asked = Conversation().user(Audio(clip(20.0, 900)), "\n\nwhat sound comes after the dog?")
    edits = [asked.assistant(f"<think> i hear dog [00:{k:02d}], bell [00:{k + 2:02d}]") for k in range(30)]
    listened = Conversation().user(Audio(clip(30.0, 901)), "\n\nwhat sound comes last?").assistant("<think>")
    return {"mixed_run": mixed, "faithfulness_load": edits, "group": [asked] * 8, "relistening": [listened]}


@dataclass
class Stock:
    """The model's own processor and `generate`."""

    family: Any
    banned: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.banned = sorted(self.family.structural_token_ids)

    def inputs(self, batch: Sequence[Conversation]) -> dict[str, Any]:
        """By the processor, padded on the left."""
        # Ours takes clips, since a crop knows its place in the recording; the others take samples.
        ours = self.family.model.config.model_type == "earnest_fused"
        clips = [part.clip if ours else part.clip.resampled(RATE_HZ).samples for c in batch for part in c.audio]
        texts = [self.family.text(conversation) for conversation in batch]
        given: dict[str, Any] = {"sampling_rate": RATE_HZ} if clips else {}
        return self.family.processor(text=texts, audio=clips or None, padding=True, return_tensors="pt", **given)

    def generate(self, batch: Sequence[Conversation], sampling: Sampling) -> list[list[int]]:
        """Replies as token ids."""
        inputs = self.inputs(batch)
        options: dict[str, Any] = (
            {"do_sample": True, "temperature": sampling.temperature, "top_k": 0}
            if sampling.temperature > 0
            else {"do_sample": False}
        )
        whole = self.family.model.generate(
            **inputs, max_new_tokens=sampling.max_new_tokens, suppress_tokens=self.banned, **options
        )
        return whole[:, inputs["input_ids"].shape[1] :].tolist()


class PeakMemory:
    """Peak of the process's resident memory beyond what it had at the start, in MB."""

    def __enter__(self) -> PeakMemory:
        self._start = self._now()
        self.megabytes = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.megabytes = max(self.megabytes, (self._now() - self._start) / 2**20)

    @staticmethod
    def _now() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@dataclass
class Run:
    """One way through a load.

    Attributes:
        seconds: of each repetition.
        replies: token ids of the last repetition.
        peak_mb: greatest.
        tokens: prompt tokens that went through the language model.
    """

    seconds: list[float] = field(default_factory=list[float])
    replies: list[list[int]] = field(default_factory=list[list[int]])
    peak_mb: float = 0.0
    tokens: int = 0


def one_by_one(stock: Stock, asked: Sequence[Conversation], sampling: Sampling, turns: int) -> list[list[int]]:
    """(a); for re-listening everything is submitted anew in every turn."""
    if not turns:
        return [stock.generate([conversation], sampling)[0] for conversation in asked]
    return relisten(lambda c: stock.generate([c], sampling)[0], stock.family, asked[0], turns)


def padded(stock: Stock, asked: Sequence[Conversation], sampling: Sampling) -> list[list[int]]:
    """(b)."""
    return [row for k in range(0, len(asked), BATCH) for row in stock.generate(asked[k : k + BATCH], sampling)]


def earnest(engine: LocalEngine, asked: Sequence[Conversation], sampling: Sampling, turns: int) -> list[list[int]]:
    """(c)."""
    if not turns:
        samplings = [
            Sampling(sampling.max_new_tokens, sampling.temperature, seed=k) if sampling.temperature else sampling
            for k in range(len(asked))
        ]
        return [list(done.token_ids) for done in engine.generate(asked, samplings)]
    return relisten(lambda c: list(engine.generate([c], sampling)[0].token_ids), engine.family, asked[0], turns)


def relisten(
    answer: Callable[[Conversation], list[int]], family: Any, asked: Conversation, turns: int
) -> list[list[int]]:
    """Turns that each end by going back to five seconds of the clip."""
    replies: list[list[int]] = []
    whole = asked.clips[0]
    for turn in range(turns):
        replies.append(answer(asked))
        # A fixed text stands for the reply, so that all ways are asked the same.
        asked = asked.append(f" so i listen to part {turn} again ", Audio(whole.crop(4.0 * turn, 4.0 * turn + 5.0)))
    return replies


def least_tokens(engine: LocalEngine, prompts: Sequence[Conversation]) -> int:
    """Distinct prefixes of all prompts."""
    distinct: set[bytes] = set()
    for prompt in engine.family.render(prompts):
        symbols = engine.shared.symbols(prompt)  # type: ignore[arg-type]
        distinct |= {symbols[: end + 1].tobytes() for end in range(len(symbols))}
    return len(distinct)


def measure(family: Any, name: str, asked: list[Conversation], options: argparse.Namespace) -> dict[str, Run]:
    """All ways through a load, one after the other, several times."""
    sampling = Sampling(options.new_tokens, temperature=1.0 if name == "group" else 0.0)
    turns = 6 if name == "relistening" else 0
    stock = Stock(family)
    ways: dict[str, Run] = {"one_by_one": Run(), "earnest": Run()}
    if not turns:
        ways["padded_batches"] = Run()
    for _ in range(options.repeats):
        for way, run in ways.items():
            engine = LocalEngine(family, name="bench")
            torch.manual_seed(0)
            with PeakMemory() as memory:
                began = time.perf_counter()
                if way == "one_by_one":
                    run.replies = one_by_one(stock, asked, sampling, turns)
                elif way == "padded_batches":
                    run.replies = padded(stock, asked, sampling)
                else:
                    run.replies = earnest(engine, asked, sampling, turns)
                run.seconds.append(time.perf_counter() - began)
            run.peak_mb = max(run.peak_mb, memory.megabytes)
            run.tokens = engine.shared.tokens_run
    if name != "group":
        assert ways["earnest"].replies == ways["one_by_one"].replies, f"{name}: an answer differs"
    prompts = list(asked)
    if turns:
        relisten(lambda c: prompts.append(c) or [], family, asked[0], turns)  # type: ignore[func-returns-value]
    ways["earnest"].tokens = round(1000 * ways["earnest"].tokens / least_tokens(LocalEngine(family, name="x"), prompts))
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print, write no claim")
    options = parser.parse_args()
    from tests.tiny_hearing import tiny_qwen2_audio

    found: dict[str, dict[str, dict[str, Run]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in (str(tiny_qwen2_audio(Path(folder) / "qwen2_audio")), "pocket"):
            family = load_local(model, device="cpu", threads=options.threads).family
            for name, asked in loads(options.items).items():
                runs = measure(family, name, asked, options)
                found.setdefault(name, {})[Path(model).name] = runs
                shown = ", ".join(f"{way} {statistics.median(run.seconds):.2f} s" for way, run in runs.items())
                print(f"{Path(model).name} {name}: {shown}", flush=True)
    command = f"python bench/engines.py --items {options.items} --repeats {options.repeats}"
    for name, models in found.items():
        for row in claims(name, models, command):
            print(f"bench.{name} {row.claim}: {row.text} {row.goal or ''} {row.note}")
            if not options.dry:
                write_claim(row)


def claims(name: str, models: dict[str, dict[str, Run]], command: str) -> list[Claim]:
    """Ratios, tokens over the least number, and peak memory of one load."""
    ours, pocket = models["qwen2_audio"], models["pocket"]
    made: list[Claim] = []

    def put(what: str, value: float, low: float | None, high: float | None, n: int, unit: str, note: str) -> None:
        goal = GOALS[name].get(what) or ("<= 1.15" if what == "tokens_over_floor" else None)
        seconds = round(sum(sum(run.seconds) for runs in models.values() for run in runs.values()), 1)
        made.append(
            Claim(
                f"bench.{name}.{what}", round(value, 3), low, high, n, unit, 0, None, command, seconds, machine(), None,
                goal, note,
            )
        )  # fmt: skip

    for way in ("one_by_one", "padded_batches"):
        if way not in ours:
            continue
        ratio, low, high = ratio_of(ours[way], ours["earnest"])
        there = ratio_of(pocket[way], pocket["earnest"])[0]
        what = "ratio_to_resubmit" if name == "relistening" else f"ratio_to_{way}"
        put(what, ratio, round(low, 2), round(high, 2), len(ours[way].seconds), "x", f"on pocket {there:.1f} x")
    over, there = ours["earnest"].tokens / 1000, pocket["earnest"].tokens / 1000
    put("tokens_over_floor", over, None, None, 1, "x", f"on pocket {there:.3f} x")
    peaks = ", ".join(f"{way} {run.peak_mb:.0f} MB" for way, run in ours.items() if way != "earnest")
    put("peak_mb", ours["earnest"].peak_mb, None, None, 1, "MB", f"beyond the start; {peaks}")
    return made


def ratio_of(slow: Run, fast: Run) -> tuple[float, float, float]:
    """Ratio of medians, least and greatest ratio of one repetition."""
    each = [a / b for a, b in zip(slow.seconds, fast.seconds, strict=True)]
    return statistics.median(slow.seconds) / statistics.median(fast.seconds), min(each), max(each)


if __name__ == "__main__":
    main()
