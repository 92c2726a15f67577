import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.errors import ModelError, RecipeError
from earnest.finding import Finding, Metric
from earnest.run import RunDirectory, environment, read_findings, read_metrics, read_records


class Echo:
    """Answers with the question's own text and remembers what it was asked."""

    key = "echo"

    def __init__(self, breaks_at: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.breaks_at = breaks_at

    def generate(self, conversations: Sequence[Conversation], sampling: Sampling) -> list[Completion]:
        if len(self.batches) == self.breaks_at:
            raise RuntimeError("power cut")
        self.batches.append([conversation.last_text for conversation in conversations])
        return [
            Completion(text, Stop.FAILED if text == "7" else Stop.END, error="no" if text == "7" else "")
            for text in self.batches[-1]
        ]


def questions(n: int) -> list[Conversation]:
    return [Conversation().user(str(index)) for index in range(n)]


def test_batches_are_saved_and_never_computed_twice(tmp_path: Path):
    seen: list[tuple[int, int]] = []
    broken = Echo(breaks_at=2)
    with pytest.raises(RuntimeError):
        RunDirectory(tmp_path).run_batched(broken, questions(10), Sampling(), 3)
    engine, run = Echo(), RunDirectory(tmp_path)
    got = run.run_batched(engine, questions(10), Sampling(), 3, lambda *at: seen.append(at))
    assert [completion.text for completion in got] == [str(index) for index in range(10)]
    assert broken.batches + engine.batches == [["0", "1", "2"], ["3", "4", "5"], ["6", "7", "8"], ["9"]]
    assert (run.reused, run.computed) == (6, 4)
    assert seen == [(6, 10), (9, 10), (10, 10)]


def test_another_model_sampling_or_text_is_another_completion(tmp_path: Path):
    run, engine = RunDirectory(tmp_path), Echo()
    run.run_batched(engine, questions(1), Sampling(), 1)
    run.run_batched(engine, questions(1), Sampling(max_new_tokens=9), 1)
    other = Echo()
    other.key = "other"
    run.run_batched(other, questions(1), Sampling(), 1)
    run.run_batched(engine, questions(2), Sampling(), 8)
    assert (run.computed, run.reused) == (4, 1)


def test_a_repeated_conversation_is_completed_once(tmp_path: Path):
    run, engine = RunDirectory(tmp_path), Echo()
    got = run.run_batched(engine, [*questions(2), *questions(2)], Sampling(), 8)
    assert [completion.text for completion in got] == ["0", "1", "0", "1"] and engine.batches == [["0", "1"]]


def test_failed_completions_are_retried_on_demand_only(tmp_path: Path):
    engine, run = Echo(), RunDirectory(tmp_path)
    run.run_batched(engine, questions(8), Sampling(), 8)
    run.run_batched(engine, questions(8), Sampling(), 8)
    assert len(engine.batches) == 1
    run.run_batched(engine, questions(8), Sampling(), 8, retry_failed=True)
    assert engine.batches[1:] == [["7"]]
    assert len(RunDirectory(tmp_path).run_batched(engine, questions(8), Sampling(), 8)) == 8


def test_a_torn_line_is_computed_again_and_a_damaged_one_is_named(tmp_path: Path):
    engine = Echo()
    RunDirectory(tmp_path).run_batched(engine, questions(3), Sampling(), 3)
    file = tmp_path / "completions.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert len(RunDirectory(tmp_path).run_batched(engine, questions(3), Sampling(), 3)) == 3
    assert engine.batches[1:] == [["2"]] and len(file.read_text().splitlines()) == 3
    file.write_text('{"no": "completion"}\n' + file.read_text())
    with pytest.raises(RecipeError, match=r"no completion .* delete that line"):
        RunDirectory(tmp_path)


def test_engine_that_loses_an_item(tmp_path: Path):
    class Short(Echo):
        def generate(self, conversations, sampling):
            return super().generate(conversations, sampling)[1:]

    with pytest.raises(ModelError, match="2 completions for 3 conversations"):
        RunDirectory(tmp_path).run_batched(Short(), questions(3), Sampling(), 3)
    with pytest.raises(RecipeError, match="batch_size is 0"):
        RunDirectory(tmp_path).run_batched(Echo(), questions(3), Sampling(), 0)


def test_a_folder_holds_one_configuration(tmp_path: Path):
    asked = {"model": "pocket", "limit": None, "sampling": {"seed": 0, "stop": ["</seg>"]}}
    RunDirectory(tmp_path).settle(asked)
    RunDirectory(tmp_path).settle(asked)
    with pytest.raises(RecipeError, match=r"sampling\.seed is 0 there, 1 here.*another folder"):
        RunDirectory(tmp_path).settle({**asked, "sampling": {"seed": 1, "stop": ["</seg>"]}})
    with pytest.raises(RecipeError, match="limit is None there, 8 here"):
        RunDirectory(tmp_path).settle({**asked, "limit": 8})


def test_findings_read_back(tmp_path: Path):
    run = RunDirectory(tmp_path)
    with pytest.raises(RecipeError, match="no finished run"):
        read_findings(tmp_path)
    metric = Metric(0.5, 0.4, 0.6, 10, "wilson 95 %")
    findings = [
        Finding("b", {"z": metric, "a": metric}, records=({"id": "1"}, {"id": "2"})),
        Finding("a", {"m": metric}, records=({"id": "3"},)),
    ]
    run.write_findings(findings)
    assert read_findings(tmp_path) == findings
    assert read_metrics(tmp_path) == {"a.m": metric, "b.a": metric, "b.z": metric}
    assert [row["finding"] for row in read_records(tmp_path)] == ["b", "b", "a"]
    run.write_environment({"device": "cpu"})
    assert json.loads((tmp_path / "environment.json").read_text())["device"] == "cpu"
    assert environment()["packages"]["numpy"]


SLOW = """
    import sys, time
    from earnest.completion import Completion, Sampling, Stop
    from earnest.conversation import Conversation
    from earnest.example import Example
    from earnest.finding import Finding
    from earnest.grading import make_record
    from earnest.run import RunDirectory
    from earnest.statistics import end_state_metrics

    class Slow:
        key = "slow"
        def generate(self, conversations, sampling):
            with open(sys.argv[2], "a") as log:
                log.write("".join(c.last_text.split()[0] + "\\n" for c in conversations))
            time.sleep(float(sys.argv[3]))
            return [Completion(f"<answer> {'dog' if len(c.key.strip('0123')) % 2 else 'cat'}</answer>", Stop.END)
                    for c in conversations]

    examples = [Example(str(i), (), f"{i} what?", ("dog", "cat"), "dog") for i in range(20)]
    run = RunDirectory(sys.argv[1])
    run.settle({"model": "slow"})
    done = run.run_batched(Slow(), [e.conversation() for e in examples], Sampling(), 2)
    records = [make_record(e, c) for e, c in zip(examples, done)]
    run.write_findings([Finding("answers", end_state_metrics([r.outcome for r in records]),
                                records=tuple(r.to_json() for r in records))])
"""


def test_sigkill_loses_one_batch_at_most_and_changes_no_metric(tmp_path: Path):
    script = tmp_path / "slow.py"
    script.write_text(textwrap.dedent(SLOW))

    def start(name: str, pause_s: float) -> subprocess.Popen[bytes]:
        arguments = [str(tmp_path / name), str(tmp_path / f"{name}.log"), str(pause_s)]
        return subprocess.Popen([sys.executable, str(script), *arguments], env=os.environ)

    assert start("whole", 0).wait(60) == 0
    process = start("killed", 0.2)
    file = tmp_path / "killed" / "completions.jsonl"
    patience_s = time.monotonic() + 30
    while not file.exists() or file.read_bytes().count(b"\n") < 6:
        assert time.monotonic() < patience_s
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    saved = file.read_bytes().count(b"\n")
    assert 6 <= saved < 20 and not (tmp_path / "killed" / "metrics.json").exists()
    assert start("killed", 0).wait(60) == 0
    for name in ("metrics.json", "records.jsonl", "findings.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    asked = (tmp_path / "killed.log").read_text().split()
    assert sorted(set(asked), key=int) == [str(index) for index in range(20)]
    assert len(asked) - 20 <= 2  # the batch that was being computed, at most
    keys = [json.loads(line)["key"] for line in file.read_text().splitlines()]
    assert len(keys) == len(set(keys)) == 20
