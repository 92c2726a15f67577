"""The scan: a cheap first pass beside what a model has, which stays as it is, and what it learns to write."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_fused, tiny_pocket, tone
from transformers import AutoModelForCausalLM, AutoProcessor

from earnest.errors import ModelError, RecipeError
from earnest.pocket.tokenizer import build_tokenizer
from earnest.relistening import scan
from earnest.relistening.long_scenes import long_scene
from earnest.relistening.scan import CARD, EAR, ScanSettings, read_card, train
from earnest.training.checkpoint import Checkpointer
from earnest.world.timeline import Event

SETTINGS = ScanSettings(
    scenes=4, steps=6, batch_size=3, bands=12, hop=2048, width=16, blocks=1, adapter_width=16, stride=4, workers=1,
    threads=1,
)  # fmt: skip
SAMPLES_PER_TOKEN = 2048 * 4 * 4


def quiet(_: str) -> None:
    pass


def read(folder: Path) -> tuple[Any, Any]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoProcessor.from_pretrained(folder)


def equal(one: Any, two: Any) -> bool:
    own, other = one.state_dict(), two.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The model that is begun with, and the folder of the stage."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr(scan, "MEASURED", 2)
    root = tmp_path_factory.mktemp("scan")
    model = tiny_pocket(root / "model")
    train(replace(SETTINGS, model=str(model)), root / "scan", log=quiet)
    monkey.undo()
    return model, root / "scan"


def test_the_usual_pass_becomes_the_fine_one_and_all_that_was_there_stays_bit_for_bit(
    trained: tuple[Path, Path],
) -> None:
    (before, _), (after, _) = map(read, trained)
    assert set(after.passes) == {"first", "fine"}
    assert equal(before.passes["first"], after.passes["fine"])
    assert equal(before.language_model, after.language_model)
    assert equal(before.encoders["events"], after.encoders["events"])
    assert not any(parameter.requires_grad for parameter in after.encoders.parameters())
    clips = [tone(300, 2.3).samples, tone(500, 0.7).samples]
    for one, two in zip(before.encode_audio(clips), after.encode_audio(clips, [True, True]), strict=True):
        assert torch.equal(one, two)
    stored = AutoModelForCausalLM.from_pretrained(trained[1], dtype="auto")
    assert {parameter.dtype for parameter in stored.parameters()} == {torch.float16}


def test_one_token_stands_for_so_many_samples(trained: tuple[Path, Path]) -> None:
    model, processor = read(trained[1])
    for samples in (1, SAMPLES_PER_TOKEN, SAMPLES_PER_TOKEN + 1, 60 * 16_000):
        wanted = -(-samples // SAMPLES_PER_TOKEN)
        assert processor.audio_tokens(samples) == wanted
        assert model.config.budget("first").tokens(samples) == wanted
        (tokens,) = model.encode_audio([tone(300, samples / 16_000).samples])
        assert len(tokens) == wanted
    ids = processor.audio_ids(10 * 16_000)
    assert ids.count(processor.audio_token_id) == 5
    assert processor.time_token(8) in ids and processor.time_token(9) not in ids
    assert processor.audio_tokens(3 * 16_000, fine=True) == 12, "as finely as before"


def test_ear_and_pass_learn_and_the_loss_falls(trained: tuple[Path, Path]) -> None:
    model, folder = trained
    base, processor = read(model)
    fresh, _ = scan.with_scan(base, processor, SETTINGS)
    after, _ = read(folder)
    rows = scan._read(fresh, processor, SETTINGS, folder / "scenes")  # pyright: ignore[reportPrivateUsage]
    with torch.no_grad():
        losses = [float(scan._loss(one, rows)) for one in (fresh, after)]  # pyright: ignore[reportPrivateUsage]
    assert losses[1] < losses[0] - 0.15
    for part in (lambda one: one.encoders[EAR], lambda one: one.passes["first"]):
        changed = [
            not torch.equal(a, b) for a, b in zip(part(fresh).parameters(), part(after).parameters(), strict=True)
        ]
        assert sum(changed) > 0.9 * len(changed)


def test_the_card_says_what_is_heard(trained: tuple[Path, Path]) -> None:
    _, folder = trained
    heard = read_card(folder)
    assert json.loads((folder / CARD).read_text())["heard"] == heard
    assert heard.keys() == {"sound", "instrument", "voice"}
    assert all(0 <= share <= 1 for share in heard.values())
    assert not (folder / "checkpoint.pt").exists()


def test_what_is_heard_is_measured_on_other_scenes_and_a_perfect_scan_hears_all(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = read(trained[1])
    rendered: list[str] = []
    render = scan.render

    def noted(scene: Any) -> Any:
        rendered.append(scene.id)
        return render(scene)

    monkeypatch.setattr(scan, "render", noted)
    wanted: list[torch.Tensor] = []
    of = scan._wanted  # pyright: ignore[reportPrivateUsage]

    def remembered(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        found = of(*given)
        wanted.append(found[0])
        return found

    monkeypatch.setattr(scan, "_wanted", remembered)

    def perfect(_: Any, __: Any, found: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros_like(found)
        for token, pieces in enumerate(wanted[-1]):
            logits[0, token, pieces[pieces >= 0]] = 1.0
        return logits

    head = model.passes["first"].head.linear
    hook = head.register_forward_hook(perfect, prepend=True)
    heard = scan.heard(model, processor, SETTINGS, "validation", 1)
    hook.remove()
    assert rendered == ["long-validation-60-000000"]
    # Of two of a kind in one token only one can weigh most.
    assert min(heard.values()) >= 0.5
    assert max(heard.values()) == 1.0


# ---- what is to be written


@pytest.mark.parametrize("seconds", [0.5, 2.048])
def test_each_token_is_to_name_all_that_is_heard_in_its_time_and_no_detail(seconds: float) -> None:
    vocabulary = build_tokenizer().get_vocab()
    empty = {vocabulary[piece] for piece in scan.EMPTY}
    silent = 0
    for index in range(12):
        scene = long_scene("train", 3, index)
        tokens = math.ceil(scene.duration_s / seconds)
        ids, shares = scan._wanted(scene, tokens, seconds, vocabulary)  # pyright: ignore[reportPrivateUsage]
        assert ids.shape == shares.shape
        assert len(ids) == tokens
        assert torch.allclose(shares.sum(1), torch.ones(tokens))
        assert bool((shares[ids < 0] == 0).all()) and bool((shares[ids >= 0] > 0).all())
        for token, own in enumerate(ids):
            wanted = {
                vocabulary[scan.name_of(event)]
                for event in scene.events
                if event.start_s < (token + 1) * seconds and event.end_s > token * seconds
            }
            assert {int(piece) for piece in own if piece >= 0} == (wanted or empty)
            silent += not wanted
    assert silent > 12


def test_what_is_short_has_an_equal_share_and_what_hardly_is_in_a_token_less() -> None:
    vocabulary = build_tokenizer().get_vocab()
    whole = long_scene("train", 3, 0)
    events = (
        Event("sound", "rain", 0.0, 2.0),
        Event("sound", "click", 0.5, 0.8),
        Event("sound", "bell", 1.9, 3.0),
        Event("speech", "red", 0.1, 0.4),
        Event("speech", "yes", 0.6, 1.4),
    )
    ids, shares = scan._wanted(replace(whole, events=events), 2, 2.0, vocabulary)  # pyright: ignore[reportPrivateUsage]
    names = {vocabulary[scan.name_of(event)]: event.name for event in events}
    found = [{names[int(piece)]: float(share) for piece, share in zip(*row, strict=True) if piece >= 0}
             for row in zip(ids, shares, strict=True)]  # fmt: skip
    # All that is said has one name, and one share.
    whole_share = 0.25 / (3 * 0.25 + 0.1)
    assert found[0] == pytest.approx(
        {"rain": whole_share, "click": whole_share, "yes": whole_share, "bell": 0.1 / 0.85}, abs=1e-6
    )
    assert found[1] == {"bell": 1.0}


def test_what_is_said_has_one_name() -> None:
    events = [Event("speech", word, 0.0, 1.0, speaker=who) for word in ("dog", "seven") for who in ("man", "woman")]
    assert {scan.name_of(event) for event in events} == {scan.VOICE}
    low, high = (Event("music", "piano", 0.0, 1.0, pitch=pitch, tempo="slow") for pitch in ("low", "high"))
    assert scan.name_of(low) == scan.name_of(high) != scan.name_of(Event("sound", "dog", 0.0, 1.0))


# ---- interrupted, refused


def test_an_interrupted_scan_goes_on_to_the_same_weights(
    trained: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, whole = trained
    monkeypatch.setattr(scan, "MEASURED", 2)
    monkeypatch.setattr(scan, "Checkpointer", partial(Checkpointer, every=2))
    (tmp_path / "scan").mkdir()
    # What was rendered is not rendered again.
    (tmp_path / "scan" / "scenes").symlink_to(whole / "scenes")
    settings = replace(SETTINGS, model=str(model))
    steps: list[int] = []
    cycle = scan.one_cycle

    def killed(step: int, count: int) -> float:
        if step == 5 and not steps:
            raise KeyboardInterrupt
        return cycle(step, count)

    monkeypatch.setattr(scan, "one_cycle", killed)
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "scan", log=quiet)
    assert torch.load(tmp_path / "scan" / "checkpoint.pt", weights_only=False)["step"] == 4

    def noted(step: int, count: int) -> float:
        steps.append(step)
        return cycle(step, count)

    monkeypatch.setattr(scan, "one_cycle", noted)
    train(settings, tmp_path / "scan", log=quiet)
    assert steps == [4, 5]
    assert equal(read(whole)[0], read(tmp_path / "scan")[0])
    assert read_card(whole) == read_card(tmp_path / "scan")


def test_a_model_that_does_not_read_the_stream_is_refused_before_anything_is_rendered(tmp_path: Path) -> None:
    model = tiny_fused(tmp_path / "model")
    with pytest.raises(ModelError, match="does not read pocket's streams"):
        train(replace(SETTINGS, model=str(model)), tmp_path / "scan", log=quiet)
    assert not (tmp_path / "scan").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"stride": 3}, "stride is 3: it must be an even number"),
        ({"stride": 0}, "stride is 0"),
        ({"scenes": 2}, r"scenes is 2: a step takes 3 \(batch_size\)"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"muon_rate": -0.1}, "muon_rate is -0.1"),
        *(({name: 0}, f"{name} is 0") for name in ("steps", "batch_size", "bands", "hop", "width", "workers")),
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_named(change: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        replace(SETTINGS, **change)
