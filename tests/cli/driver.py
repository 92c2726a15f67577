"""The command line with a fake engine behind it: `python driver.py LOG SECONDS earnest-arguments...`."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes import FakeEngine, oracle

from earnest.cli import main
from earnest.example import load_manifest


def fake_load(name: str, **settings: object) -> FakeEngine:
    data = sys.argv[sys.argv.index("--data") + 1]
    return oracle(load_manifest(data), log=Path(sys.argv[1]), seconds=float(sys.argv[2]))


if __name__ == "__main__":
    with mock.patch("earnest.engines.load", fake_load), mock.patch("earnest.engines.model_key", lambda *_: "fake"):
        main(sys.argv[3:])
