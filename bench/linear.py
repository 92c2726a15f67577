"""Linear layers by oneDNN against torch's own, side by side in one process: `python bench/linear.py`.

    one_row        weights that no cache holds (50 MB), a row each: a token of a reply
    many_rows      2,048 rows by [1376, 512]
    training_step  forward, backward and optimisers of pocket's text LLM, drawn batches whose shapes differ

The ratio is that of the medians of repetitions that take turns, its interval the least and the greatest of a pair.
Where earnest leaves linear layers to torch (`earnest.engines.linear.pays`) there is nothing to compare.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from results import Claim, machine, ratio_of, write_claim

from earnest.engines.linear import fast_linear, pays
from earnest.pocket import text_llm
from earnest.training import recipes
from earnest.training.optimisers import Optimisers

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "pocket" / "base.toml"
STEPS = 60


def rows_through(rows: int, layers: list[torch.nn.Linear], times: int) -> Callable[[int], None]:
    """Rows through every layer, several times."""
    given = {width: torch.randn(rows, width) for width in {layer.in_features for layer in layers}}

    def run(_: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                for layer in layers:
                    layer(given[layer.in_features])

    return run


def training() -> Callable[[int], None]:
    """Steps of the recipe's stage `text-llm`, on batches that are drawn anew for each repetition."""
    settings = {name: values for name, _, values in recipes.load(RECIPE).stages}["text-llm"]
    tokenizer = text_llm.build_tokenizer()
    model = text_llm.new_model(tokenizer, settings)
    encoder = text_llm.PackEncoder(tokenizer)
    optimisers = Optimisers(
        model.named_parameters(),
        text_llm.hidden_matrix,
        muon_rate=settings.muon_rate,
        learning_rate=settings.learning_rate,
    )

    def run(number: int) -> None:
        rng = random.Random(number)
        packs = [text_llm.draw_pack(rng, settings.mix(settings.steps)) for _ in range(STEPS * settings.batch_size)]
        for batch in text_llm.by_length(encoder.encode(packs), settings.batch_size, rng):
            text_llm.loss_of(model, text_llm.collate(batch), settings.noise).backward()
            optimisers.step(0.0)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="print, write no claim")
    options = parser.parse_args()
    if not pays():
        raise SystemExit("on this processor linear layers are left to torch")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shapes = [*[(512, 512)] * 16, *[(512, 1376)] * 8, *[(1376, 512)] * 4]
    layers = [torch.nn.Linear(width, out, bias=False) for width, out in shapes]
    loads = {
        "one_row": rows_through(1, layers, 20), "many_rows": rows_through(2048, layers[16:17], 20),
        "training_step": training(),
    }  # fmt: skip
    started = time.perf_counter()
    found: dict[str, tuple[float, float, float]] = {}
    for name, run in loads.items():
        spent: dict[bool, list[float]] = {False: [], True: []}
        # Once without a clock: programs are written at the first call.
        for repetition in range(-1, options.repeats):
            for fast in (True, False):
                began = time.perf_counter()
                with fast_linear() if fast else nullcontext():
                    run(repetition)
                if repetition >= 0:
                    spent[fast].append(time.perf_counter() - began)
        found[name] = ratio_of(spent[False], spent[True])
    seconds = round(time.perf_counter() - started, 1)
    command = f"python bench/linear.py --repeats {options.repeats} --threads {options.threads}"
    for name, (ratio, low, high) in found.items():
        claim = Claim(
            f"bench.linear.{name}.ratio_to_torch", round(ratio, 3), round(low, 2), round(high, 2), options.repeats,
            "x", 0, None, command, seconds, machine(), None, None, "",
        )  # fmt: skip
        print(claim.claim, claim.text)
        if not options.dry:
            write_claim(claim)


if __name__ == "__main__":
    main()
