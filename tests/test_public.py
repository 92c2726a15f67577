"""The public surface: its names, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import earnest

NAMES = {
    "Audio", "Clip", "Completion", "Conversation", "EarnestError", "Example", "Finding", "Metric", "Outcome",
    "Reply", "RunDirectory", "Sampling", "Text", "Turn", "__version__", "ask", "audit", "load", "load_manifest",
    "save_manifest",
}  # fmt: skip


def test_the_public_names_are_these_and_all_of_them_exist() -> None:
    assert set(earnest.__all__) == NAMES
    for name in NAMES:
        assert getattr(earnest, name) is not None
    assert callable(earnest.audit)
    assert callable(earnest.ask)
    assert callable(earnest.load)


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(earnest, "nothing")


def test_importing_takes_less_than_half_a_second_and_no_torch() -> None:
    script = (
        "import time; start = time.perf_counter(); import earnest; seconds = time.perf_counter() - start;"
        "import sys; heavy = {'torch', 'transformers', 'scipy', 'soundfile', 'matplotlib'} & set(sys.modules);"
        "print(seconds, *heavy)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(3)
    ]
    assert all(len(run) == 1 for run in runs), runs
    # The best of three: other processes share the machine.
    assert min(float(run[0]) for run in runs) < 0.5


def test_the_command_line_starts_without_torch() -> None:
    script = "import sys, earnest.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
