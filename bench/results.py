"""Claims are data: `bench/results/NAME.json` in, `docs/results.md` and the README's number out.

    python bench/results.py             write both texts
    python bench/results.py --check     say what differs, write nothing, exit code 1 if anything does
    python bench/results.py --measure   first run the command of every claim that was measured on weights
                                        other than those shipped (with --all: of every claim, with --only bench:
                                        of all whose names begin so), and print all claims

A claim is {claim, value, low, high, n, unit, seed, split, command, seconds, machine, model}, and optionally
`goal` (as in ">= 0.7" or "0.7..0.92") and `note`. `model` is the content key of the weights that it was measured on,
null if it depends on none. An unmet goal needs a note that says why.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "results.md"
README = ROOT / "README.md"
HEADLINE = "pocket.accuracy"
"""The claim that the README's number is made of."""

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt}
_PAGE_TEXT = """\
# Results

Every number that the project claims, with its interval and the command that alone recomputes it. Rates are in
per cent of all items: nothing that failed, was refused or could not be read has left the denominator.
Intervals are of 95 %; those of ratios between times are the least and the greatest of n repetitions.
This page is written by `make results` from the files in `bench/results/`.

<!-- results -->
<!-- /results -->
"""


@dataclass(frozen=True)
class Claim:
    """One measured number.

    Attributes:
        claim: dotted name, also the name of the file.
        value: a rate is a fraction of 1.
        low: lower end of the 95 % interval, or the least of n repetitions of a ratio between times; None for a single
            reading.
        high: upper end.
        n: number of items or readings.
        unit: fraction, log10 (of a ratio), plain (a bare number), points, s, min, x, ...
        seed: seed of the items.
        split: split of the items.
        command: recomputes this file.
        seconds: how long the command took.
        machine: what it ran on.
        model: content key of the weights, adapters included; None if the claim depends on none.
        goal: what was to be reached, as in ">= 0.7", "0.7..0.92" or ">= 0.4, low > 0.25" (the interval's lower end).
        note: what a reader must know; why a goal is not met.
    """

    claim: str
    value: float
    low: float | None
    high: float | None
    n: int
    unit: str
    seed: int | None
    split: str | None
    command: str
    seconds: float
    machine: str
    model: str | None
    goal: str | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return all(self._meets(part.strip()) for part in self.goal.split(","))

    def _meets(self, goal: str) -> bool:
        if ".." in goal:
            low, high = goal.split("..")
            return float(low) <= self.value <= float(high)
        value = self.value
        if goal.startswith("low "):
            assert self.low is not None, f"{self.claim} has no interval"
            value, goal = self.low, goal.removeprefix("low ")
        sign, limit = goal.split()
        return _COMPARISONS[sign](value, float(limit))

    @property
    def text(self) -> str:
        """As in `74.6 % [71.3, 77.7]`."""
        number = _number(self.value, self.unit)
        if self.low is None or self.high is None:
            return number
        scale, digits = _scale(self.unit)
        return f"{number} [{self.low * scale:.{digits}f}, {self.high * scale:.{digits}f}]"


def negated(metric: Any) -> Any:
    """A loss as a gain, or the other way round (`earnest.finding.Metric`)."""
    return replace(metric, value=-metric.value, low=-metric.high, high=-metric.low)


def ratio_of(slow: Sequence[float], fast: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of the medians of repetitions that took turns, least and greatest ratio of a pair."""
    each = [a / b for a, b in zip(slow, fast, strict=True)]
    return statistics.median(slow) / statistics.median(fast), min(each), max(each)


def spent(out: Path, started: float) -> float:
    """Seconds of a measurement in all its sessions; noted in its run directory."""
    clock = out / "seconds.json"
    seconds = round(time.time() - started + (json.loads(clock.read_text()) if clock.exists() else 0.0), 1)
    clock.write_text(json.dumps(seconds))
    return seconds


def machine() -> str:
    """The machine in words: processor, cores in use, system."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}"


def write_claim(claim: Claim, folder: Path = RESULTS) -> Path:
    """Writes a claim's file; equal claims give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{claim.claim}.json"
    row = {key: value for key, value in asdict(claim).items() if key not in ("goal", "note") or value}
    # JSON has neither infinity nor "no number": the log of a ratio may be one.
    row |= {key: str(row[key]) for key in ("value", "low", "high") if row[key] and not math.isfinite(row[key])}
    path.write_text(json.dumps(row, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


class Claims:
    """The claims of one command, printed as they come.

    Args:
        command: recomputes them.
        seconds: how long it took.
        seed: of the items.
        split: of the items.
        model: content key of what was measured.
    """

    def __init__(self, command: str, seconds: float, seed: int, split: str, model: str) -> None:
        self._common = command, seconds, machine(), model
        self._where = seed, split
        self._notes: dict[str, str] = json.loads((ROOT / "bench" / "notes.json").read_text("utf-8"))
        self._claims: list[Claim] = []

    def put(self, name: str, metric: Any, goal: str | None = None) -> None:
        """Takes one metric (`earnest.finding.Metric`) as a claim."""
        print(f"{name:<62}{metric}  {goal or ''}")
        numbers = metric.value, metric.low, metric.high, metric.n, metric.unit or _bare(name)
        self._claims.append(Claim(name, *numbers, *self._where, *self._common, goal, self._notes.get(name, "")))

    def write(self) -> None:
        """Writes all of them."""
        for claim in self._claims:
            write_claim(claim)


def read_claims(folder: Path = RESULTS) -> list[Claim]:
    """Reads all claims, sorted by name.

    Raises:
        SystemExit: faults of the files, all of them at once.
    """
    claims: list[Claim] = []
    faults: list[str] = []
    names = {field.name for field in fields(Claim)}
    for path in sorted(folder.glob("*.json")):
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        wrong = sorted((set(row) - names) | (names - {"goal", "note"} - set(row)))
        if wrong:
            faults.append(f"{path.name}: missing or unknown keys {', '.join(wrong)}")
            continue
        row |= {key: float(row[key]) for key in ("value", "low", "high") if isinstance(row[key], str)}
        claim = Claim(**row)
        if claim.claim != path.stem:
            faults.append(f"{path.name}: holds the claim {claim.claim}: name the file after it")
        if claim.met is False and not claim.note:
            faults.append(f"{path.name}: {claim.text} misses the goal {claim.goal}: say why in 'note'")
        claims.append(claim)
    if faults:
        raise SystemExit("\n".join(faults))
    return claims


def page(claims: list[Claim]) -> str:
    """The table of `docs/results.md`, without its markers."""
    if not claims:
        return "Nothing is measured yet."
    lines = [
        "| claim | value [interval] | n | goal | split, seed | model | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim in claims:
        goal = f"{claim.goal} {'met' if claim.met else '**not met**'}" if claim.goal else ""
        where = ", ".join(str(part) for part in (claim.split, claim.seed) if part is not None)
        model = f"`{claim.model[:8]}`" if claim.model else ""
        cells = (f"`{claim.claim}`", claim.text, claim.n, goal, where, model, f"{claim.seconds:.0f}")
        lines.append(f"| {' | '.join(str(cell) for cell in cells)} |")
    notes = [f"- `{claim.claim}`: {claim.note}" for claim in claims if claim.note]
    if notes:
        lines += ["", "Notes:", "", *notes]
    commands: dict[str, list[Claim]] = {}
    for claim in claims:
        commands.setdefault(claim.command, []).append(claim)
    lines += ["", "Recomputed by:", ""]
    for command, made in commands.items():
        lines.append(f"- `{command}`: {', '.join(f'`{claim.claim}`' for claim in made)} ({made[0].machine})")
    return "\n".join(lines)


def headline(claims: list[Claim]) -> str:
    """The README's number, without its markers."""
    found = [claim for claim in claims if claim.claim == HEADLINE]
    if not found:
        return "not measured yet"
    claim = found[0]
    return (
        f"**{claim.text}** of {claim.n} held-out questions are answered correctly by the shipped model "
        f"(split {claim.split}, seed {claim.seed}; `{claim.command}`)."
    )


def between(text: str, marker: str, body: str) -> str:
    """The text with `body` between `<!-- marker -->` and `<!-- /marker -->`.

    Raises:
        SystemExit: the markers are missing.
    """
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if start not in text or end not in text:
        raise SystemExit(f"the markers {start} and {end} are missing: put them where the {marker} shall stand")
    return text.split(start)[0] + f"{start}\n{body}\n{end}" + text.split(end, 1)[1]


def texts(claims: list[Claim]) -> dict[Path, str]:
    """Both generated files as they should be."""
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else _PAGE_TEXT
    return {
        PAGE: between(current, "results", page(claims)),
        README: between(README.read_text(encoding="utf-8"), "number", headline(claims)),
    }


def differing(claims: list[Claim]) -> list[Path]:
    """The generated files that are not as they should be."""
    wanted = texts(claims)
    return [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def stale(claims: list[Claim], shipped: set[str]) -> list[Claim]:
    """The claims that were measured on other weights than those shipped."""
    return [claim for claim in claims if claim.model is not None and claim.model not in shipped]


def shipped_key() -> str:
    """Content key of the shipped weights alone."""
    from earnest.engines.load import model_key

    return model_key("pocket")


def shipped_keys() -> set[str]:
    """Content keys of what is shipped: the weights, and the weights with each concern's adapters."""
    from earnest.pocket import hardened_folder, idk_folder, relistening_folder, safety_folder

    folders = (idk_folder(), hardened_folder(), safety_folder(), relistening_folder())
    return {shipped_key(), *map(adapters_key, folders)}


def adapters_key(folder: Path) -> str:
    """Content key of the shipped weights together with the adapters in a folder."""
    from earnest.completion import content_key
    from earnest.engines.lora import adapter_key

    folders = sorted(path.parent for path in folder.rglob("adapter_config.json"))
    return content_key([shipped_key(), *(adapter_key(each) for each in folders)])


def measure(claims: list[Claim]) -> None:
    """Runs the command of each claim once; a killed run goes on where it stopped: what is done is not stale.

    Raises:
        SystemExit: a command failed.
    """
    for command in dict.fromkeys(claim.command for claim in claims):
        print(f"$ {command}", flush=True)
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        status = subprocess.run(shlex.split(command), cwd=ROOT, env=environment, check=False).returncode
        if status:
            raise SystemExit(f"{command}: exit status {status}; repeat with --measure to go on from here")


def _bare(name: str) -> str:
    """What a number without a unit is: an index of reliability is a logarithm."""
    return "log10" if name.startswith("reliability.") else "plain"


def _scale(unit: str) -> tuple[float, int]:
    return (100.0, 1) if unit == "fraction" else (1.0, {"log10": 2, "ratio": 3, "plain": 3}.get(unit, 1))


def _number(value: float, unit: str) -> str:
    scale, digits = _scale(unit)
    name = {"fraction": "%", "log10": "", "plain": ""}.get(unit, unit)
    return f"{value * scale:.{digits}f} {name}".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="say what differs, write nothing")
    parser.add_argument("--measure", action="store_true", help="run the commands of claims on other weights first")
    parser.add_argument("--all", action="store_true", help="with --measure: the commands of all claims")
    parser.add_argument("--only", default="", help="with --measure: of the claims whose names begin so, all")
    arguments = parser.parse_args()
    claims = read_claims()
    if arguments.measure:
        chosen = [claim for claim in claims if claim.claim.startswith(arguments.only)]
        if not chosen:
            raise SystemExit(f"--only {arguments.only}: no claim begins so")
        measure(chosen if arguments.all or arguments.only else stale(chosen, shipped_keys()))
        claims = read_claims()
        for claim in claims:
            print(f"{claim.claim:<48}{claim.text:<28}{f'goal {claim.goal}' if claim.goal else ''}")
    if arguments.check:
        wrong = differing(claims)
        for path in wrong:
            print(f"{path.relative_to(ROOT)} differs from bench/results: run `make results`")
        raise SystemExit(bool(wrong))
    for path, text in texts(claims).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
