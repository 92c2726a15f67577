"""How long `make demo` takes after installation: `python bench/demo.py`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import Claim, machine, shipped_key, write_claim


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("earnest")), "demo", "--output", folder]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        page = next(Path(folder).rglob("scorecard.html"))
        size = page.stat().st_size / 2**20
    claim = Claim(
        "demo.seconds", round(seconds, 1), None, None, 1, "s", 0, "test", "python bench/demo.py",
        round(seconds, 1), machine(), shipped_key(), "<= 180", f"wall clock, one run; the scorecard has {size:.1f} MiB",
    )  # fmt: skip
    write_claim(claim)
    print(claim.text)


if __name__ == "__main__":
    main()
