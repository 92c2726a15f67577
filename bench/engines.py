"""The engine against plain `generate`, side by side in one process: `python bench/engines.py`.

(a) the model's own `generate`, one request at a time; (b) the same in padded batches of 8 in the given order, as the
common harnesses do; (c) earnest. Four loads, each on pocket and on a small Qwen2-Audio with random weights that has an
eighth of the width and of the depth of the 7B model, in the ear as in the LLM, so that each has its share of the work:

    mixed_run          200 clips of 2 to 28 s, a question each
    faithfulness_load  one clip, 30 requests that share audio and question
    group              8 samples of one prompt
    relistening        6 turns on a 30 s clip, each goes back to a part of it; (a) submits everything anew

Every repetition runs all ways one after the other; the ratio is that of the medians, its interval the least and the
greatest ratio of one repetition. The mixed run is long and is run once. Replies of (c) must be those of (a).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results import ROOT, Claim, machine, ratio_of, shipped_key, write_claim

from earnest.audio import Clip
from earnest.completion import Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.families.family import Prompt
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine

sys.path.insert(0, str(ROOT))
RATE_HZ = 16_000
BATCH = 8
Rounds = Sequence[Sequence[Conversation]]
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


def small_qwen2_audio(path: Path) -> Path:
    """Qwen2-Audio at an eighth of the 7B model's width and depth: 4 of 32 layers in ear and LLM, random weights."""
    from tests.tiny_hearing import tiny_qwen2_audio

    ear = {"d_model": 160, "encoder_layers": 4, "encoder_attention_heads": 2, "encoder_ffn_dim": 640}
    text = {
        "hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 4,
    }  # fmt: skip
    return tiny_qwen2_audio(path, ear, text, gain=2.0)


def loads(items: int) -> dict[str, list[list[Conversation]]]:
    """The requests of each load, in rounds: a round is asked when the one before it is answered."""
    rng = np.random.default_rng(0)
    questions = ("what sound comes first?", "how many sounds are there?", "which word is spoken?", "is there a dog?")
    mixed = [
        Conversation().user(Audio(clip(float(rng.uniform(2, 28)), k)), "\n\n" + questions[k % 4]) for k in range(items)
    ]
    asked = Conversation().user(Audio(clip(20.0, 900)), "\n\nwhat sound comes after the dog?")
    edits = [asked.assistant(f"<think> i hear dog [00:{k:02d}], bell [00:{k + 2:02d}]") for k in range(30)]
    whole = clip(30.0, 901)
    turns = [Conversation().user(Audio(whole), "\n\nwhat sound comes last?").assistant("<think>")]
    for turn in range(5):
        # A fixed text stands for the reply, so that all ways are asked the same.
        part = whole.crop(4.0 * turn, 4.0 * turn + 5.0)
        turns.append(turns[-1].append(f" so i listen to part {turn} again ", Audio(part)))
    return {
        "mixed_run": [mixed], "faithfulness_load": [edits], "group": [[asked] * 8],
        "relistening": [[conversation] for conversation in turns],
    }  # fmt: skip


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
        gc.collect()
        # glibc keeps what the run before has freed, which would hide this one's peak.
        ctypes.CDLL(None).malloc_trim(0)
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
        over_floor: prompt tokens that went through the language model, over the least number.
        padded_over_floor: the same with the padding of batches.
    """

    seconds: list[float] = field(default_factory=list[float])
    replies: list[list[int]] = field(default_factory=list[list[int]])
    peak_mb: float = 0.0
    over_floor: float = 0.0
    padded_over_floor: float = 0.0


def one_by_one(stock: Stock, rounds: Rounds, sampling: Sampling) -> list[list[int]]:
    """(a); in every round everything is submitted anew."""
    return [stock.generate([conversation], sampling)[0] for asked in rounds for conversation in asked]


def padded(stock: Stock, rounds: Rounds, sampling: Sampling) -> list[list[int]]:
    """(b)."""
    batches = [asked[k : k + BATCH] for asked in rounds for k in range(0, len(asked), BATCH)]
    return [row for batch in batches for row in stock.generate(batch, sampling)]


def earnest(engine: LocalEngine, rounds: Rounds, sampling: Sampling) -> list[list[int]]:
    """(c)."""
    replies: list[list[int]] = []
    for asked in rounds:
        samplings = [replace(sampling, seed=k) if sampling.temperature else sampling for k in range(len(asked))]
        replies += [list(done.token_ids) for done in engine.generate(asked, samplings)]
    return replies


def least_tokens(engine: LocalEngine, rounds: Rounds) -> int:
    """Distinct prefixes of all prompts."""
    distinct: set[bytes] = set()
    for prompt in engine.family.render([conversation for asked in rounds for conversation in asked]):
        assert isinstance(prompt, Prompt), prompt
        symbols = engine.shared.symbols(prompt)
        distinct |= {symbols[: end + 1].tobytes() for end in range(len(symbols))}
    return len(distinct)


def measure(model: str, name: str, rounds: Rounds, options: argparse.Namespace) -> dict[str, Run]:
    """All ways through a load, one after the other, several times; every way begins with a model just loaded."""
    sampling = Sampling(options.new_tokens, temperature=1.0 if name == "group" else 0.0)
    ways: dict[str, Run] = {"one_by_one": Run(), "earnest": Run()}
    if len(rounds) == 1:
        ways["padded_batches"] = Run()

    def fresh() -> LocalEngine:
        return load_local(model, device=options.device, threads=options.threads)

    least = least_tokens(fresh(), rounds)
    for repetition in range(1 if name == "mixed_run" else options.repeats):
        for way, run in list(ways.items())[:: -1 if repetition % 2 else 1]:
            engine = fresh()
            stock = Stock(engine.family)
            # Once without a clock: what is built at the first call is nobody's work.
            stock.generate([Conversation().user("hello")], Sampling(2))
            torch.manual_seed(0)
            with PeakMemory() as memory:
                began = time.perf_counter()
                if way == "one_by_one":
                    run.replies = one_by_one(stock, rounds, sampling)
                elif way == "padded_batches":
                    run.replies = padded(stock, rounds, sampling)
                else:
                    run.replies = earnest(engine, rounds, sampling)
                run.seconds.append(time.perf_counter() - began)
            run.peak_mb = max(run.peak_mb, memory.megabytes)
            run.over_floor = engine.shared.tokens_run / least
            run.padded_over_floor = engine.shared.columns_run / least
    if not sampling.temperature:
        assert ways["earnest"].replies == ways["one_by_one"].replies, f"{name}: an answer differs"
    if name == "mixed_run":
        said = ways["one_by_one"].replies
        # A model of random weights says something else of every clip; pocket knows few words.
        distinct = len(set(map(tuple, said)))
        assert distinct > (5 if model == "pocket" else len(said) // 2), f"{distinct} different replies in {len(said)}"
    return ways


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dry", action="store_true", help="print, write no claim")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, Run]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for model in (str(small_qwen2_audio(Path(folder) / "qwen2_audio")), "pocket"):
            for name, rounds in loads(options.items).items():
                runs = measure(model, name, rounds, options)
                found.setdefault(name, {})[Path(model).name] = runs
                shown = ", ".join(f"{way} {statistics.median(run.seconds):.2f} s" for way, run in runs.items())
                print(f"{Path(model).name} {name}: {shown}", flush=True)
    command = (
        f"python bench/engines.py --items {options.items} --repeats {options.repeats} "
        f"--new-tokens {options.new_tokens} --threads {options.threads} --device {options.device}"
    )
    for name, models in found.items():
        for row in claims(name, models, command):
            print(f"{row.claim}: {row.text} {row.goal or ''} {row.note}")
            if not options.dry:
                write_claim(row)


def claims(name: str, models: dict[str, dict[str, Run]], command: str) -> list[Claim]:
    """Ratios, tokens over the least number, and peak memory of one load."""
    made: list[Claim] = []
    notes: dict[str, str] = json.loads((ROOT / "bench" / "notes.json").read_text())
    seconds = round(sum(sum(run.seconds) for runs in models.values() for run in runs.values()), 1)
    for model, ways in models.items():
        ours = ways["earnest"]
        pocket = model == "pocket"

        def put(
            what: str, value: float, unit: str, low: float | None = None, high: float | None = None, note: str = "",
            *, pocket: bool = pocket, n: int = len(ours.seconds),
        ) -> None:  # fmt: skip
            goal = GOALS[name].get(what) or ("<= 1.15" if what == "tokens_over_floor" else None)
            full = f"bench.{name}.{'pocket.' if pocket else ''}{what}"
            key = shipped_key() if pocket else None
            made.append(
                Claim(
                    full, round(value, 3), low, high, n, unit, 0, None, command, seconds, machine(), key,
                    None if pocket else goal, notes.get(full, note),
                )
            )  # fmt: skip

        for way in ("one_by_one", "padded_batches"):
            if way in ways:
                ratio, low, high = ratio_of(ways[way].seconds, ours.seconds)
                what = "ratio_to_resubmit" if name == "relistening" else f"ratio_to_{way}"
                several = len(ours.seconds) > 1
                put(what, ratio, "x", *((round(low, 2), round(high, 2)) if several else ()))
        put(
            "tokens_over_floor",
            ours.over_floor,
            "x",
            note=f"with the padding of batches {ours.padded_over_floor:.2f} x",
        )
        peaks = ", ".join(f"{way} {run.peak_mb:.0f} MB" for way, run in ways.items() if way != "earnest")
        put("peak_mb", ours.peak_mb, "MB", note=f"beyond what the process had before; {peaks}")
    return made


if __name__ == "__main__":
    main()
