"""Corpora become rows: reasons, splits that do not leak, the card, the same bytes again."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.alignment.clips import clip, text

from earnest.alignment.corpus import Source, build
from earnest.alignment.recordings import Recording
from earnest.alignment.rows import Surrogate, load_rows
from earnest.alignment.splitting import Shares, components, draw_splits
from earnest.errors import EarnestError, ManifestError
from earnest.files import read_json_lines
from earnest.world.dataset import make_world


def manifest(path: Path, *rows: dict[str, Any]) -> Source:
    text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return Source("manifest", path)


def test_every_clip_is_a_row_or_has_a_reason(tmp_path: Path) -> None:
    clip(tmp_path / "ok.wav", 2.0)
    clip(tmp_path / "long.wav", 60.0)
    clip(tmp_path / "almost.wav", 59.99)
    text(tmp_path / "empty.wav", "")
    clip(tmp_path / "short.wav", 0.05)
    (tmp_path / "folder.wav").mkdir()
    text(tmp_path / "broken.wav", "no audio at all")
    source = manifest(
        tmp_path / "mine.jsonl",
        {"audio": "ok.wav", "transcript": "hello", "gender": "Female", "id": "a"},
        {"audio": "ok.wav", "caption": "a voice", "id": "b"},
        {"audio": "almost.wav", "caption": "a voice", "instruction": True},
        {"audio": "long.wav", "caption": "x"},
        {"audio": "empty.wav", "caption": "x"},
        {"audio": "broken.wav", "caption": "x"},
        {"audio": "gone.wav", "caption": "x"},
        {"audio": "ok.wav", "caption": " "},
        {"audio": "ok.wav", "segments": [{"start": 1, "end": 9, "caption": "x"}]},
        {"audio": "a" * 300, "caption": "x"},
        {"audio": "a\0b", "caption": "x"},
        {"audio": "short.wav", "caption": "x"},
        {"audio": "folder.wav", "caption": "x"},
    )
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    card = build([source], out, progress=lambda done, total: seen.append((done, total)))
    rows = load_rows(out / "surrogates.jsonl", Surrogate)
    assert [row.surrogate for row in rows] == [
        "[00:00-00:02] hello (duration: 2s, gender: Female)", "[00:00-00:02] |a voice| (duration: 2s)",
        "[00:00-01:00] |a voice| (duration: 60s)",
    ]  # fmt: skip
    assert [row.id for row in rows] == ["mine-a", "mine-b", "mine-line-3"]
    assert all(row.audio.is_file() for row in rows)
    rejected = read_json_lines(out / "rejected.jsonl")
    assert [(row["id"], row["reason"]) for row in rejected] == [
        ("mine-line-4", "too_long"), ("mine-line-5", "empty_audio"), ("mine-line-6", "unreadable_audio"),
        ("mine-line-7", "missing_audio"), ("mine-line-8", "no_text"), ("mine-line-9", "passage_outside"),
        ("mine-line-10", "unreadable_audio"), ("mine-line-11", "missing_audio"),
        ("mine-line-12", "too_short"), ("mine-line-13", "unreadable_audio"),
    ]  # fmt: skip
    assert rejected[0]["detail"] == "60.00 s: clips must be shorter than 60 s"
    assert rejected[8]["detail"] == "0.0500 s: clips must be at least 0.1 s"
    assert rejected[9]["detail"].startswith("is a folder")
    assert rejected[3]["audio"] == str(tmp_path / "gone.wav")
    assert seen[-1] == (10, 10)
    assert card == json.loads((out / "card.json").read_text())
    assert (card["clips"], card["rows"], card["files"], card["unique_surrogates"]) == (13, 3, 2, 3)
    assert card["hours"] == pytest.approx(61.99 / 3600, abs=1e-6)
    assert {name: found["rows"] for name, found in card["modalities"].items()} == {"mixed": 2, "speech": 1}
    assert {name: found["rows"] for name, found in card["instructions"].items()} == {"none": 2, "spoken": 1}
    assert card["corpora"]["mine"]["rows"] == 3
    assert (card["rejected"]["count"], card["rejected"]["rate"]["n"]) == (10, 13)
    assert card["rejected"]["reasons"]["too_long"]["count"] == 1
    assert card["rejected"]["corpora"]["mine"]["rate"]["value"] == pytest.approx(10 / 13)


def test_the_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    for number in range(12):
        clip(tmp_path / "clips" / f"{number}.wav")
    rows = [{"audio": f"clips/{number}.wav", "caption": f"sound {number}"} for number in range(13)]
    source = manifest(tmp_path / "m.jsonl", *rows)
    names = ("surrogates.jsonl", "rejected.jsonl", "card.json")
    held: list[list[bytes]] = []
    for workers in (1, 4, 1):
        build([source], tmp_path, shares=Shares(0.3, 0.3), workers=workers)
        held.append([(tmp_path / name).read_bytes() for name in names])
    assert held[0] == held[1] == held[2]
    assert json.loads(held[0][0].splitlines()[0])["audio"] == "clips/0.wav"


def test_the_world_keeps_its_splits(tmp_path: Path) -> None:
    sources: list[Source] = []
    for split in ("train", "test"):
        make_world(tmp_path / split, 3, split=split)
        sources.append(Source("world", tmp_path / split))
    card = build(sources, tmp_path / "out")
    assert {name: found["rows"] for name, found in card["splits"].items()} == {"train": 3, "test": 3}
    build([replace(source, split="validation") for source in sources], tmp_path / "out")
    assert {row.split for row in load_rows(tmp_path / "out/surrogates.jsonl", Surrogate)} == {"validation"}


# ---- splits


def recordings(count: int, seed: int = 0) -> list[Recording]:
    rng = random.Random(seed)
    return [
        Recording(
            f"{index}",
            "c",
            Path(f"{index}.wav"),
            f"c/r{rng.randrange(count)}",
            speaker=rng.choice(["", f"c/s{rng.randrange(count)}", f"c/s{rng.randrange(count)}; c/s{index}"]),
            kin=(f"c/k{rng.randrange(count * 3)}",),
        )
        for index in range(count)
    ]


def splits_of(clips: list[Recording], shares: Shares, seed: int = 0) -> list[str]:
    return draw_splits(clips, components(clips), shares, seed)


@pytest.mark.parametrize("seed", range(5))
def test_no_recording_and_no_speaker_is_in_two_splits(seed: int) -> None:
    clips = recordings(300, seed)
    splits = splits_of(clips, Shares(0.3, 0.3), seed)
    found: defaultdict[str, set[str]] = defaultdict(set)
    for one, split in zip(clips, splits, strict=True):
        for name in (one.recording, *one.speakers, *one.kin):
            found[name].add(split)
    assert {len(held) for held in found.values()} == {1}
    assert set(splits) == {"train", "validation", "test"}


def test_clips_of_one_file_hang_together(tmp_path: Path) -> None:
    one, other = (Recording(name, "c", tmp_path / "x.wav", f"c/{name}") for name in "ab")
    assert components([one, other]) == [[0, 1]]
    assert components([one, replace(other, audio=tmp_path / "y.wav")]) == [[0], [1]]


def test_shares_are_met_and_a_seed_draws_anew() -> None:
    clips = [Recording(str(index), "c", Path(f"{index}.wav"), f"c/{index}") for index in range(2000)]
    splits = splits_of(clips, Shares(0.2, 0.1))
    assert splits.count("validation") == pytest.approx(400, abs=60)
    assert splits.count("test") == pytest.approx(200, abs=45)
    assert set(splits_of(clips, Shares(0, 0))) == {"train"}
    assert splits_of(clips, Shares(0.2, 0.1), seed=1) != splits


def test_further_data_leaves_splits_as_they_are() -> None:
    clips = [
        Recording(str(index), "c", Path(f"{index}.wav"), f"c/{index}", speaker=f"c/s{index % 100}")
        for index in range(1000)
    ]
    shares = Shares(0.3, 0.3)
    few, all_of_them = splits_of(clips[:200], shares), splits_of(clips, shares)
    assert all_of_them[:200] == few
    assert splits_of(clips[::-1], shares) == all_of_them[::-1]


def test_a_decided_split_takes_what_hangs_on_it(tmp_path: Path) -> None:
    one, other = Recording("1", "c", Path("1.wav"), "c/1", split="test"), Recording("2", "c", Path("2.wav"), "c/1")
    assert splits_of([one, other], Shares(0, 0)) == ["test", "test"]
    with pytest.raises(EarnestError, match=r"c-1 is to be test and c-2 train, but they share .* \(2 clips"):
        splits_of([one, replace(other, split="train")], Shares())


# ---- what is refused


def test_what_is_refused(tmp_path: Path) -> None:
    clip(tmp_path / "a.wav")
    source = manifest(tmp_path / "m.jsonl", {"audio": "a.wav", "caption": "x"})
    with pytest.raises(EarnestError, match="no source"):
        build([], tmp_path / "out")
    with pytest.raises(EarnestError, match="'m-line-1' occurs twice"):
        build([source, source], tmp_path / "out")
    with pytest.raises(EarnestError, match="max_duration_s is 0"):
        build([source], tmp_path / "out", max_duration_s=0)
    with pytest.raises(EarnestError, match="workers is 0"):
        build([source], tmp_path / "out", workers=0)
    with pytest.raises(EarnestError, match="'dev' is unknown: give one of train"):
        replace(source, split="dev")
    with pytest.raises(EarnestError, match="together below 1"):
        Shares(0.5, 0.5)
    with pytest.raises(ManifestError):
        build([manifest(tmp_path / "bad.jsonl", {"caption": "x"})], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    source = manifest(tmp_path / "m.jsonl", {"audio": "gone.wav", "caption": "x"})
    with pytest.raises(EarnestError, match="none of 1 clips can be used, most for missing_audio"):
        build([source], tmp_path / "out")
    assert read_json_lines(tmp_path / "out" / "rejected.jsonl")[0]["reason"] == "missing_audio"
    assert not (tmp_path / "out" / "surrogates.jsonl").exists()
