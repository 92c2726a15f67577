from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from earnest.alignment import training
from earnest.alignment.features import Features
from earnest.alignment.lessons import lessons_of, prompt_ids
from earnest.alignment.packs import Lesson, Pack, collated
from earnest.alignment.rephrase import surrogate_conversation
from earnest.alignment.rows import Target
from earnest.alignment.training import AlignmentSettings, logits_of, train_pass
from earnest.audio import Clip
from earnest.conversation import Audio, Conversation
from earnest.engines.families.fused import FusedFamily
from earnest.errors import AudioError, EarnestError, ModelError
from earnest.fused import FusedModel, FusedProcessor, PassConfig
from earnest.training.checkpoint import Checkpointer
from tiny import tiny_fused, tone

SETTINGS = AlignmentSettings(
    steps=6, batch_size=2, targets_per_clip=4, learning_rate=3e-3, warm_up=1, every=2, threads=1
)


def parts(folder: Path) -> tuple[FusedModel, FusedProcessor]:
    return FusedModel.from_pretrained(folder), FusedProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: Any) -> Path:
    return tiny_fused(tmp_path_factory.mktemp("fused"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: Any) -> list[Target]:
    folder = tmp_path_factory.mktemp("clips")
    made: list[Target] = []
    for number, seconds in enumerate((1.1, 0.6, 1.7)):
        audio = folder / f"{number}.wav"
        tone(300.0 + 100 * number, seconds).save(audio)
        for k, question in enumerate(("what is it?", "what is that?", "again?")[: 3 - number]):
            made.append(
                Target(
                    f"{number}/{k}", audio, f"[00:00-00:02] |tone {number}|", seconds, question=question,
                    clip=str(number), raw="", target=f"i hear tone {number}.", cut=k == 1,
                )
            )  # fmt: skip
    return made


def test_packed_and_alone_give_the_same_loss(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, processor = parts(fused)
    family = FusedFamily(model, processor)
    features = Features(model, tmp_path)
    lessons = lessons_of(family, rows, features)
    assert [pack.lessons for pack in lessons.packs] == [(0, 1, 2), (3, 4), (5,)]

    def loss_of(packs: list[Pack]) -> tuple[float, int]:
        batch = collated(packs)
        clips = [lessons.clips[number] for number in batch.clips]
        soft = model.adapt(features.frames(clips), torch.tensor([clip.samples for clip in clips]), "first")
        logits, wanted = logits_of(model, batch, soft)
        return float(functional.cross_entropy(logits, wanted, reduction="sum")), len(wanted)

    single = lessons_of(family, rows, features, targets_per_clip=1)
    with torch.no_grad():
        together = loss_of(lessons.packs)
        alone = [loss_of([pack]) for pack in single.packs]
        # And as transformers scores a row by itself, from the samples.
        by_hand = 0.0
        for row in rows:
            clip = Clip.load(row.audio)
            asked = Conversation().user(Audio(clip), f"\n\n{row.question}")
            (prompt,) = family.render([asked])
            reply = [*family.continuation_ids(row.target or ""), *([] if row.cut else [family.turn_end_id])]
            tokens = torch.tensor([[*prompt.token_ids, *reply]])  # type: ignore[union-attr]
            labels = tokens.clone()
            labels[0, : -len(reply)] = -100
            found = model(input_ids=tokens, labels=labels, audio=model.encode_audio([clip.samples]))
            by_hand += float(found.loss) * len(reply)
    assert together[1] == sum(count for _, count in alone)
    assert together[0] == pytest.approx(sum(loss for loss, _ in alone), rel=1e-5)
    assert together[0] == pytest.approx(by_hand, rel=1e-3)  # the cache holds half precision


def test_a_cut_target_has_no_end(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, processor = parts(fused)
    family = FusedFamily(model, processor)
    lessons = lessons_of(family, rows, Features(model, tmp_path))
    ends = [pack.labels.count(family.turn_end_id) for pack in lessons.packs]
    assert ends == [2, 1, 1]  # of 3, 2 and 1 targets, where one of the first two is cut


def test_only_the_pass_learns_and_text_stays_bit_for_bit(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, processor = parts(fused)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = processor.tokenizer("what is it?", return_tensors="pt")["input_ids"]
    lines: list[str] = []
    out = train_pass(model, processor, rows, SETTINGS, tmp_path / "out", tmp_path / "cache", log=lines.append)
    after, _ = parts(out)
    moved = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all(name.startswith("passes.first.") for name in moved)
    assert torch.equal(after(input_ids=text).logits, parts(fused)[0](input_ids=text).logits)
    assert any("targets/s" in line for line in lines)
    assert not (out / "checkpoint.pt").exists()


def test_the_loss_falls(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, processor = parts(fused)
    lines: list[str] = []
    settings = replace(SETTINGS, steps=100, learning_rate=1e-2)
    train_pass(model, processor, rows, settings, tmp_path / "out", tmp_path / "cache", log=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if " loss " in line]
    assert losses[-1] < losses[0] - 0.3  # as far as a random LLM can be steered


def test_frozen_parts_stay(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, processor = parts(fused)
    before = {name: value.clone() for name, value in model.passes["first"].state_dict().items()}
    train_pass(model, processor, rows, SETTINGS, tmp_path / "o", tmp_path / "c", frozen=("adapters", "mixes"))
    moved = {n for n, value in model.passes["first"].state_dict().items() if not torch.equal(value, before[n])}
    assert moved == {name for name in before if name.startswith("head.")}


def test_goes_on_to_the_same_weights(
    fused: Path, rows: list[Target], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_pass(*parts(fused), rows, SETTINGS, tmp_path / "whole", tmp_path / "c")

    class Killed(Exception): ...

    save = Checkpointer.save

    def saved(self: Checkpointer, state: dict[str, Any]) -> None:
        save(self, state)
        if state["step"] == 4:
            raise Killed

    part = tmp_path / "part"
    monkeypatch.setattr(Checkpointer, "save", saved)
    with pytest.raises(Killed):
        train_pass(*parts(fused), rows, SETTINGS, part, tmp_path / "c")
    monkeypatch.setattr(Checkpointer, "save", save)
    # Other targets of the same clips are another training.
    other = [replace(row, target="no.") for row in rows]
    lines: list[str] = []
    train_pass(*parts(fused), other, SETTINGS, part, tmp_path / "c", save=lambda *_: None, log=lines.append)
    assert not any("goes on" in line for line in lines)
    assert any("is of other numbers, targets or weights: begins anew" in line for line in lines)
    with pytest.raises(Killed):
        monkeypatch.setattr(Checkpointer, "save", saved)
        train_pass(*parts(fused), rows, SETTINGS, part, tmp_path / "c")
    monkeypatch.setattr(Checkpointer, "save", save)
    # Another machine, or less memory, is no other training.
    elsewhere = replace(SETTINGS, every=3, recompute=not SETTINGS.recompute)
    assert elsewhere.threads == SETTINGS.threads, "sums of other threads round differently"
    again = train_pass(*parts(fused), rows, elsewhere, part, tmp_path / "c", log=lines.append)
    assert any("goes on behind step 4" in line for line in lines)
    first, second = (parts(folder)[0].state_dict() for folder in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_accumulated_recomputed_and_distilled(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    settings = replace(SETTINGS, steps=2, batch_size=3)
    states: list[dict[str, torch.Tensor]] = []
    for number, changes in enumerate(({}, {"accumulate": 3}, {"recompute": True}, {"distillation": 0.5})):
        own = replace(settings, batch_size=3, **changes)
        folder = train_pass(*parts(fused), rows, own, tmp_path / str(number), tmp_path / "c")
        states.append(parts(folder)[0].passes["first"].state_dict())
    plain, cut, recomputed, distilled = states
    for name in plain:
        torch.testing.assert_close(cut[name], plain[name], atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(recomputed[name], plain[name], atol=1e-4, rtol=1e-3)
    assert any(not torch.allclose(distilled[name], plain[name], atol=1e-4) for name in plain)


def test_distillation_is_nothing_where_the_teacher_is_the_student(fused: Path, rows: list[Target]) -> None:
    model, processor = parts(fused)
    family = FusedFamily(model, processor)
    prompt = prompt_ids(family, surrogate_conversation(rows[0]))
    reply = tuple(family.continuation_ids("i hear it."))
    lesson = Lesson(prompt, reply)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
        own = training._divergence(family, logits, [lesson])
        other = training._divergence(family, logits.roll(1, 0), [lesson])
    assert float(own) == pytest.approx(0.0, abs=1e-3)
    assert float(other) > 1.0


def test_frames_are_encoded_once_and_alike(fused: Path, rows: list[Target], tmp_path: Path, monkeypatch: Any) -> None:
    model, _ = parts(fused)
    features = Features(model, tmp_path)
    found = features.prepare(row.audio for row in rows)
    clips = [found[row.audio] for row in rows]
    samples = [np.array(Clip.load(row.audio).samples) for row in rows]
    wanted = model.encode(*model.features(samples, "first"))
    for own, other in zip(features.frames(clips), wanted, strict=True):
        torch.testing.assert_close(own, other, atol=2e-3, rtol=2e-3)
    again = Features(model, tmp_path)

    def never(*_: Any) -> None:
        raise AssertionError("decoded or encoded a second time")

    monkeypatch.setattr(Clip, "load", never)
    monkeypatch.setattr(model, "encode", never)
    assert again.prepare(row.audio for row in rows) == found


def test_frames_of_an_encoder_are_shared_and_must_be_finite(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, _ = parts(fused)
    Features(model, tmp_path).prepare(row.audio for row in rows)
    single = FusedModel.from_parts(
        model.language_model, {"ear": model.encoders["speech"]},
        {"first": PassConfig({"ear": model.config.pass_specs["first"].adapters["speech"]})}, audio_token_id=3,
    )  # fmt: skip
    before = sorted(tmp_path.rglob("*.safetensors"))
    Features(single, tmp_path).prepare(row.audio for row in rows)
    assert sorted(tmp_path.rglob("*.safetensors")) == before
    with torch.no_grad():
        for parameter in single.encoders["ear"].parameters():
            parameter.mul_(1e20)
    with pytest.raises(ModelError, match="beyond half precision"):
        Features(single, tmp_path).prepare(row.audio for row in rows)


def test_clips_that_cannot_be_heard_are_all_named(fused: Path, rows: list[Target], tmp_path: Path) -> None:
    model, processor = parts(fused)
    (tmp_path / "empty.wav").write_bytes(b"")
    bad = [replace(rows[0], audio=tmp_path / name) for name in ("empty.wav", "missing.wav")]
    with pytest.raises(AudioError, match="2 of 5 clips cannot be heard"):
        train_pass(model, processor, [*rows, *bad][3:] + rows[:1], SETTINGS, tmp_path / "o", tmp_path / "c")
    unheard = (tmp_path / "c" / "unheard.txt").read_text().splitlines()
    assert len(unheard) == 2 and "empty.wav" in unheard[0] and "missing.wav" in unheard[1]
    with pytest.raises(EarnestError, match="none of 1 rows has a target"):
        train_pass(model, processor, [replace(rows[0], target=None)], SETTINGS, tmp_path / "o", tmp_path / "c")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0"),
        ({"distillation": -1.0}, "distillation is -1"),
        ({"batch_size": 3, "accumulate": 2}, "cannot be cut into 2"),
    ],
)
def test_bad_numbers(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EarnestError, match=message):
        replace(SETTINGS, **changes)
