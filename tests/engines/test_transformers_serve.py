"""The client against a real server: `transformers serve` with a tiny Qwen2-Audio, held against the same model here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from tests.tiny import tone
from tests.tiny_hearing import tiny_qwen2_audio

from earnest.check import check
from earnest.completion import Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import load
from earnest.engines.load import load_local
from earnest.engines.server import ServerEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that never says a special token: the server does not ban them, as earnest does."""
    from safetensors.torch import load_file, save_file

    path = tiny_qwen2_audio(tmp_path_factory.mktemp("served") / "qwen2_audio")
    weights = load_file(path / "model.safetensors")
    head = next(name for name in weights if name.endswith("lm_head.weight"))
    specials = load_local(str(path), device="cpu", threads=1).family.structural_token_ids
    weights[head][torch.tensor(sorted(specials))] = 0.0
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("log") / "serve.log"
    program = Path(sys.executable).with_name("transformers")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arguments = ["serve", str(folder), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as stream:
        process = subprocess.Popen([program, *arguments], stdout=stream, stderr=stream, env=environment)
        try:
            for _ in range(240):
                assert process.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
                    break
                except (urllib.error.URLError, ConnectionError, TimeoutError):
                    time.sleep(0.5)
            else:
                raise AssertionError(log.read_text())
            yield f"server:http://127.0.0.1:{port}/v1#{folder}"
        finally:
            process.terminate()
            process.wait(20)


def test_it_says_what_the_model_says_here(served: str, folder: Path) -> None:
    here, there = load_local(str(folder), device="cpu", threads=1), load(served)
    asked = [
        Conversation().user(Audio(tone(400, 1.0)), "what is it?"),
        Conversation().user(Audio(tone(500, 2.5)), Audio(tone(900, 0.7)), "which comes first?"),
        Conversation().user("no audio at all"),
    ]
    ours, theirs = here.generate(asked, Sampling(max_new_tokens=12)), there.generate(asked, Sampling(max_new_tokens=12))
    assert [c.error for c in theirs] == ["", "", ""]
    assert [c.prompt_tokens for c in theirs] == [c.prompt_tokens for c in ours]
    assert [c.text for c in theirs] == [c.text for c in ours]
    assert all(c.stop == Stop.LENGTH for c in theirs)


def test_check_holds_the_two_against_each_other(served: str, folder: Path) -> None:
    here, there = load_local(str(folder), device="cpu", threads=1), load(served)
    report = check(here, there)
    assert report.passed, report.rows
    rows = {row.name: row for row in report.rows}
    assert rows["local = server: the same number of tokens"].passed
    assert rows["local = server: the same replies"].passed


def test_check_notices_another_model_behind_the_server(served: str, tmp_path: Path) -> None:
    other = load_local(str(tiny_qwen2_audio(tmp_path / "other", gain=4.0)), device="cpu", threads=1)
    report = check(other, load(served))
    assert [row.name for row in report.rows if row.passed is False] == ["local = server: the same replies"]


def test_an_unknown_model_is_the_items_failure(served: str) -> None:
    engine = ServerEngine(served.removeprefix("server:").partition("#")[0], "no/such-model", retries=0)
    done = engine.generate([Conversation().user("hello?")])[0]
    assert done.stop == Stop.FAILED
    assert done.error
