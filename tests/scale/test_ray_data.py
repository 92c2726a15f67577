"""Ray Data: the same replies as one engine alone, in the same order, and what it says where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import earnest
from earnest.completion import Sampling
from earnest.conversation import Conversation
from earnest.errors import ModelError
from earnest.run import RunDirectory
from earnest.scale.ray_data import RayEngine, decoded_by_ray

ASKED = [
    Conversation().user(f"<start_audio>[00:0{k}-00:0{k + 2}] |{name}| (duration: 9s)<end_audio>\n\nwhat do you hear?")
    for k, name in enumerate(("dog", "bell", "cat", "saw", "horn"))
]


@pytest.fixture(scope="module")
def cluster() -> Any:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 * 2**20)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_two_actors_reply_as_one_engine_does_and_a_run_takes_them_for_one(tmp_path: Path) -> None:
    alone = earnest.load("pocket", threads=1)
    engine = RayEngine("pocket", alone.key, actors=2, batch_size=2, threads=1)
    assert engine.call_size == 64
    sampling = Sampling(max_new_tokens=24)
    run = RunDirectory(tmp_path)
    found = run.run_batched(engine, ASKED, sampling, engine.call_size)
    own = alone.generate(ASKED, sampling)
    assert [(done.text, done.stop, done.token_ids) for done in found] == [
        (done.text, done.stop, done.token_ids) for done in own
    ]
    assert len({done.text for done in found}) > 1
    again = RunDirectory(tmp_path)
    again.run_batched(alone, ASKED, sampling, 8)
    assert (again.reused, again.computed) == (5, 0), "one key, whoever answered"
    assert engine.generate([], sampling) == []
    with pytest.raises(ModelError, match=r"3 actors of 1 CPUs each, and Ray has 2"):
        RayEngine("pocket", alone.key, actors=3).generate(ASKED, sampling)


@pytest.mark.usefixtures("cluster")
def test_a_corpus_that_ray_decodes_is_the_one_that_threads_decode(tmp_path: Path) -> None:
    from tests.tiny import tone

    from earnest.alignment.corpus import Source, build

    rows = ["audio,transcript"]
    for number in range(7):
        tone(300.0, 0.5 + 0.1 * number).save(tmp_path / f"{number}.wav")
        rows.append(f"{number}.wav,words of {number}")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    data = tmp_path / "data.csv"
    data.write_text("\n".join([*rows, "broken.wav,none", "missing.wav,none", ""]))
    cards = [build([Source("manifest", data)], tmp_path / name, ray=name == "ray") for name in ("ray", "threads")]
    assert cards[0] == cards[1] and cards[0]["rows"] == 7
    for file in ("surrogates.jsonl", "rejected.jsonl"):
        own, other = ((tmp_path / name / file).read_bytes() for name in ("ray", "threads"))
        assert own == other


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ModelError, match=r"earnest\[scale\]"):
        RayEngine("pocket", "key")
    with pytest.raises(ModelError, match=r"earnest\[scale\]"):
        decoded_by_ray([], 1)


def test_less_than_one_actor_is_refused() -> None:
    with pytest.raises(ModelError, match="at least 1"):
        RayEngine("pocket", "key", actors=0)
