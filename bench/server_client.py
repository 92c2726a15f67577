"""The server client against inspect_ai, on the same loopback server: `python bench/server_client.py`.

Both audit the same manifest end to end, from files on disk to graded records: 200 questions about 40 clips of 10 s, 16
requests at a time. The server is a process of its own that reads a request and answers after a fixed time, so that what
is measured is the client. Every repetition runs both, one after the other.
"""

from __future__ import annotations

import argparse
import base64
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from results import ROOT, Claim, machine, ratio_of, write_claim

from earnest.accuracy import audit
from earnest.completion import Sampling
from earnest.engines.server import ServerEngine
from earnest.example import Example
from earnest.run import RunDirectory
from engines import clip

sys.path.insert(0, str(ROOT))
CONNECTIONS = 16
TOKENS = 16
CHOICES = ("dog", "cat", "bell", "horn")
LATENCY_S = 0.02


def serve(pipe: Any, audio: Any) -> None:
    """A server that answers every request alike, after a fixed time, and counts the bytes of audio that it gets."""
    from tests.stub_server import reply

    said = reply("<answer> dog</answer>", 250)

    class Quick(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = [part["input_audio"]["data"] for part in body["messages"][-1]["content"] if "input_audio" in part]
            with audio.get_lock():
                audio.value += sum(len(base64.b64decode(text)) for text in data)
            time.sleep(LATENCY_S)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Quick)
    pipe.send(server.server_port)
    server.serve_forever()


def examples(folder: Path, count: int, per_clip: int = 5) -> list[Example]:
    """Questions about clips on disk."""
    made: list[Example] = []
    for number in range(count):
        path = folder / f"{number // per_clip}.wav"
        if not path.exists():
            clip(10.0, number // per_clip).save(path)
        made.append(Example(f"q{number}", (path,), f"which is number {number}?", CHOICES, "dog"))
    return made


def ours(url: str, asked: list[Example], folder: Path) -> None:
    """earnest's audit."""
    engine = ServerEngine(url, "m", max_connections=CONNECTIONS)
    finding = audit(engine, asked, RunDirectory(folder), sampling=Sampling(TOKENS))
    assert len(finding.records) == len(asked)
    assert finding.metrics["accuracy"].value == 1.0


def theirs(url: str, asked: list[Example], clips: Path, folder: Path) -> None:
    """inspect_ai's eval."""
    from inspect_ai import Task
    from inspect_ai import eval as evaluate
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ChatMessageUser, ContentAudio, ContentText, GenerateConfig, get_model
    from inspect_ai.scorer import includes
    from inspect_ai.solver import generate

    samples = [
        Sample(
            input=[
                ChatMessageUser(
                    content=[
                        ContentAudio(audio=str(clips / f"{number // 5}.wav"), format="wav"),
                        ContentText(text=f"{example.question}\nchoices: {'; '.join(example.choices)}."),
                    ]
                )
            ],
            target=example.answer,
        )
        for number, example in enumerate(asked)
    ]
    config = GenerateConfig(max_tokens=TOKENS, max_connections=CONNECTIONS, temperature=0.0)
    model = get_model("openai-api/local/m", base_url=url, api_key="none", config=config, memoize=False)
    task = Task(dataset=samples, solver=generate(), scorer=includes())
    [log] = evaluate(
        task, model=model, log_dir=str(folder), display="none", max_samples=2 * CONNECTIONS, log_realtime=False
    )
    assert log.status == "success", log.error
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, write no claim")
    options = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    audio = spawn.Value("q", 0)
    server = spawn.Process(target=serve, args=(there, audio), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    spent: dict[str, list[float]] = {"earnest": [], "inspect_ai": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = examples(folder, options.items)
        # Once without a clock: both import and open what they need.
        ours(url, asked[:5], folder / "first")
        theirs(url, asked[:5], folder, folder / "first-log")
        for number in range(options.repeats):
            for way in list(spent)[:: -1 if number % 2 else 1]:
                audio.value = 0
                began = time.perf_counter()
                if way == "earnest":
                    ours(url, asked, folder / f"run-{number}")
                else:
                    theirs(url, asked, folder, folder / f"log-{number}")
                spent[way].append(time.perf_counter() - began)
                # 10 s of 16 bits at 16 kHz each, and headers.
                assert audio.value > options.items * 320_000, f"{way} sent {audio.value} bytes of audio"
    server.terminate()
    ratio, low, high = ratio_of(spent["inspect_ai"], spent["earnest"])
    rates = ", ".join(f"{way} {options.items / statistics.median(times):.0f}" for way, times in spent.items())
    claim = Claim(
        "bench.server_client.ratio_to_inspect",
        round(ratio, 3),
        round(low, 2),
        round(high, 2),
        options.repeats,
        "x",
        0,
        None,
        f"python bench/server_client.py --items {options.items} --repeats {options.repeats}",
        round(float(np.sum(list(spent.values()))), 1),
        machine(),
        None,
        ">= 1.5",
        f"audits of {options.items} questions: {rates} requests a second, {CONNECTIONS} at a time; files read, replies "
        "graded and logged, and each tool's start of a run included",
    )
    print(claim.claim, claim.text, claim.note)
    if not options.dry:
        write_claim(claim)


if __name__ == "__main__":
    main()
