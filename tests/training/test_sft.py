"""LoRA on replies, behind the frozen ear of real architectures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.completion import Sampling
from earnest.conversation import Audio, Conversation
from earnest.engines.audio_cache import AudioCache
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine
from earnest.engines.weights import state_key
from earnest.errors import EarnestError, ModelError
from earnest.training import sft
from earnest.training.lora_trainer import LoraSettings, is_trained
from earnest.training.sft import Lesson, fine_tune

SETTINGS = LoraSettings(rank=4, learning_rate=1e-2, batch_size=4, epochs=2)
ARCHITECTURES = (tiny_fused, tiny_qwen2_audio, tiny_qwen25_omni)


def engine_of(folder: Path, adapter: Path | None = None) -> LocalEngine:
    return load_local(str(folder), device="cpu", threads=1, adapter=adapter)


def asked(number: int) -> Conversation:
    return Conversation().user(Audio(tone(300 + 50 * number, 0.5 + 0.1 * (number % 3))), f"what is {number}?")


def some_lessons(count: int = 8) -> list[Lesson]:
    return [Lesson(lambda number=number: asked(number), ("dog", "i don't know")[number % 2]) for number in range(count)]


def quiet(_: str) -> None: ...


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_the_loss_is_what_the_engine_says_of_the_same_replies(make: Any, tmp_path: Path) -> None:
    engine = engine_of(make(tmp_path))
    family: Any = engine.family
    rows: Any = sft._Rows(family, some_lessons(4))
    batch = sft.collated(family, [rows[place] for place in range(4)], AudioCache(2**20))
    assert batch.pop("shift_labels") is batch["labels"]
    with torch.no_grad():
        loss = float(sft.reply_loss(family, **batch))
    taught = [[*family.continuation_ids(lesson.reply), family.turn_end_id] for lesson in some_lessons(4)]
    said = engine.logprobs([asked(number) for number in range(4)], taught)
    assert loss == pytest.approx(-sum(float(each.sum()) for each in said), rel=1e-4)
    assert all(len(row.reply) > 1 for row in (rows[0], rows[1]))


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_one_training_teaches_and_leaves_the_model_as_it_was(make: Any, tmp_path: Path) -> None:
    folder = make(tmp_path / "model")
    engine = engine_of(folder)
    family: Any = engine.family
    key, state = engine.key, state_key(family.model)
    grads = [parameter.requires_grad for parameter in family.model.parameters()]
    reply = [[*family.continuation_ids("dog"), family.turn_end_id]]
    before = engine.logprobs([asked(0)], reply)[0].sum()
    steps: list[str] = []
    out = fine_tune(family, some_lessons(), SETTINGS, tmp_path / "adapter", log=steps.append)
    assert is_trained(out)
    assert steps[-1].startswith("step 4 of 4 loss ")
    assert state_key(family.model) == state
    assert engine.key == key
    assert [parameter.requires_grad for parameter in family.model.parameters()] == grads
    assert not any(module.training for module in family.model.modules())
    assert torch.equal(engine.logprobs([asked(0)], reply)[0].sum(), before)
    with engine.wearing(out):
        after = engine.logprobs([asked(0)], reply)[0].sum()
    assert after > before + 0.01
    trained = load_file(out / "adapter_model.safetensors")
    assert trained
    assert not [name for name in trained if "language_model" not in name]


TEXTS = ("<think> i hear <seg>0.1, 0.4</seg>", " a dog, then <seg>0, 0.5</seg>", " a cat.</think>")


def gone_back(number: int, texts: int = 2) -> Conversation:
    """A reply that is begun: each text, then the segment that it cites."""
    conversation = asked(number).assistant(TEXTS[0])
    clip = conversation.clips[0]
    for text, span in zip((*TEXTS[1:texts], None), ((0.1, 0.4), (0.0, 0.5)), strict=False):
        conversation = conversation.append(Audio(clip.crop(*span)))
        if text:
            conversation = conversation.append(text)
    return conversation


def begun_lessons() -> list[Lesson]:
    """Two that begin a reply, one with a single citation, and one that begins none."""
    begun = [Lesson(lambda n=n: gone_back(n), TEXTS[2], begun=True) for n in (1, 2)]
    return [*begun, Lesson(lambda: gone_back(3, 1), " so", begun=True), *some_lessons(1)]


def taught_of(family: Any) -> list[tuple[Conversation, list[int]]]:
    """What stands before each text of these lessons, and its tokens."""
    end, ids = family.turn_end_id, family.continuation_ids
    found = [
        pair
        for n in (1, 2)
        for pair in (
            (asked(n), ids(TEXTS[0])),
            (gone_back(n, 1), ids(TEXTS[1])),
            (gone_back(n, 2), [*ids(TEXTS[2]), end]),
        )
    ]
    return [*found, (asked(3), ids(TEXTS[0])), (gone_back(3, 1), [*ids(" so"), end]), (asked(0), [*ids("dog"), end])]


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_of_a_begun_turn_the_text_is_learnt_and_the_audio_is_not(make: Any, tmp_path: Path) -> None:
    family: Any = engine_of(make(tmp_path)).family
    conversation = gone_back(1)
    question, prompt = family.render([asked(1), conversation])
    labels = sft.begun_labels(family, conversation, prompt)
    begun = prompt.token_ids[len(question.token_ids) :]
    assert len(labels) == len(begun)
    texts = [family.continuation_ids(text) for text in TEXTS[:2]]
    assert [label for label in labels if label != sft.IGNORED] == [*texts[0], *texts[1]]
    first, second = len(texts[0]), labels.index(texts[1][0], len(texts[0]))
    assert labels[:first] == tuple(texts[0])
    assert labels[second : second + len(texts[1])] == tuple(texts[1])
    heard = [*begun[first:second], *begun[second + len(texts[1]) :]]
    assert heard.count(family.audio_token_id) == sum(prompt.audio_tokens[1:]) > 0
    assert len(heard) > sum(prompt.audio_tokens[1:]), "there are marks around what is heard"


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_the_loss_of_begun_replies_is_that_of_their_texts(make: Any, tmp_path: Path) -> None:
    engine = engine_of(make(tmp_path / "model"))
    family: Any = engine.family
    lessons, pairs = begun_lessons(), taught_of(family)
    said = torch.cat(engine.logprobs([before for before, _ in pairs], [ids for _, ids in pairs]))
    rows: Any = sft._Rows(family, lessons)
    batch = sft.collated(family, [rows[place] for place in range(len(lessons))], AudioCache(2**20))
    assert int((batch.pop("shift_labels") != sft.IGNORED).sum()) == len(said)
    with torch.no_grad():
        loss = float(sft.reply_loss(family, **batch))
    assert loss == pytest.approx(-float(said.sum()), rel=1e-4)
    # The trainer's mean is over the same tokens.
    lines: list[str] = []
    fine_tune(family, lessons, replace(SETTINGS, epochs=1), tmp_path / "a", log=lines.append)
    assert float(lines[0].split("loss ")[1]) == pytest.approx(loss / len(said), abs=2e-3)


def test_what_is_begun_is_not_learnt_unless_it_is_asked_for(tmp_path: Path) -> None:
    family: Any = engine_of(tiny_fused(tmp_path)).family
    rows: Any = sft._Rows(family, [Lesson(lambda: gone_back(1), "dog")])
    assert rows[0].labels == (*family.continuation_ids("dog"), family.turn_end_id)


def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    family = engine_of(tiny_fused(tmp_path / "model")).family
    settings = replace(SETTINGS, epochs=5)
    whole = fine_tune(family, some_lessons(), settings, tmp_path / "whole", log=quiet)
    seen: list[str] = []

    def fail(line: str) -> None:
        seen.append(line)
        if line.startswith("step 7"):
            raise KeyboardInterrupt

    out = tmp_path / "interrupted"
    with pytest.raises(KeyboardInterrupt):
        fine_tune(family, some_lessons(), settings, out, log=fail)
    assert not is_trained(out)
    resumed: list[str] = []
    fine_tune(family, some_lessons(), settings, out, log=resumed.append)
    assert is_trained(out)
    assert len(resumed) < 10, "it began anew"
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (whole, out))
    assert one.keys() == two.keys()
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)


@pytest.mark.parametrize("make", ARCHITECTURES)
def test_a_step_in_parts_is_the_same_step(make: Any, tmp_path: Path) -> None:
    engine = engine_of(make(tmp_path / "model"))
    trained: list[dict[str, torch.Tensor]] = []
    losses: list[list[str]] = []
    for parts in (1, 4):
        losses.append([])
        settings = replace(SETTINGS, accumulate=parts)
        out = fine_tune(engine.family, some_lessons(4), settings, tmp_path / str(parts), log=losses[-1].append)
        trained.append(load_file(out / "adapter_model.safetensors"))
    assert all(torch.allclose(trained[0][name], trained[1][name], atol=1e-4) for name in trained[0])
    # The first step's loss is the mean over the replies' tokens of what the untouched model says of them.
    family: Any = engine.family
    taught = [[*family.continuation_ids(lesson.reply), family.turn_end_id] for lesson in some_lessons(4)]
    said = engine.logprobs([asked(number) for number in range(4)], taught)
    mean = -sum(float(each.sum()) for each in said) / sum(len(each) for each in said)
    for lines in losses:
        assert float(lines[0].split("loss ")[1]) == pytest.approx(mean, abs=2e-3)


def test_what_a_kill_left_of_another_training_is_not_gone_on_with(tmp_path: Path) -> None:
    family = engine_of(tiny_fused(tmp_path / "model")).family
    out = tmp_path / "a"

    def fail(line: str) -> None:
        if line.startswith("step 3"):
            raise KeyboardInterrupt

    def begin(settings: LoraSettings) -> None:
        with pytest.raises(KeyboardInterrupt):
            fine_tune(family, some_lessons(), settings, out, log=fail)

    # A checkpoint that was cut off while it was written is none.
    begin(SETTINGS)
    last = max((out / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    (last / "trainer_state.json").unlink()
    lines: list[str] = []
    fine_tune(family, some_lessons(), SETTINGS, out, log=lines.append)
    assert 0 < len(lines) < 4
    # Nor is one of other settings; what a kill left of an older one is in nobody's way.
    (out / "checkpoints.done").mkdir()
    (out / "checkpoints.done" / "rest").write_text("")
    begin(SETTINGS)
    lines.clear()
    fine_tune(family, some_lessons(), replace(SETTINGS, rank=2), out, log=lines.append)
    assert len(lines) == 4
    assert load_file(out / "adapter_model.safetensors")
    assert is_trained(out)


def test_clips_are_made_when_it_is_their_turn(tmp_path: Path) -> None:
    family = engine_of(tiny_fused(tmp_path / "model")).family
    made: list[int] = []

    def lesson(number: int) -> Lesson:
        def make() -> Conversation:
            made.append(number)
            return asked(number)

        return Lesson(make, "dog")

    fine_tune(family, [lesson(n) for n in range(8)], replace(SETTINGS, epochs=1), tmp_path / "a", log=quiet)
    assert sorted(made) == list(range(8))


@pytest.mark.parametrize(
    ("change", "text"),
    [({"rank": 0}, "rank is 0"), ({"batch_size": 5, "accumulate": 2}, "batch_size of 5"), ({"epochs": 0}, "epochs")],
)
def test_numbers_out_of_range_are_named(change: dict[str, int], text: str) -> None:
    with pytest.raises(EarnestError, match=text):
        replace(SETTINGS, **change)


def test_several_processes_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    engine = engine_of(tiny_fused(tmp_path / "model"))
    with pytest.raises(ModelError, match="in one process, not in 2: run this stage without torchrun"):
        fine_tune(engine.family, some_lessons(2), SETTINGS, tmp_path / "out", log=quiet)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_trained_is_said(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "model")
    family = engine_of(folder).family
    with pytest.raises(EarnestError, match="nothing to learn"):
        fine_tune(family, [], SETTINGS, tmp_path / "a")
    with pytest.raises(EarnestError, match="parts is 'ears'"):
        replace(SETTINGS, parts="ears")
    with pytest.raises(ModelError, match="no matrices called"):
        family.lora_targets("ears")
    out = fine_tune(family, some_lessons(), replace(SETTINGS, epochs=1), tmp_path / "a", log=quiet)
    worn = engine_of(folder, out)
    with pytest.raises(ModelError, match="wears an adapter already"):
        fine_tune(worn.family, some_lessons(), SETTINGS, tmp_path / "b")
    bad: Callable[[], Conversation] = lambda: Conversation().user("a <audio> b")  # noqa: E731
    with pytest.raises(EarnestError):
        fine_tune(family, [Lesson(bad, "dog")], SETTINGS, tmp_path / "c", log=quiet)


def test_the_adapter_dial(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "model")
    engine = engine_of(folder)
    out = fine_tune(engine.family, some_lessons(), replace(SETTINGS, epochs=4), tmp_path / "a", log=quiet)
    conversations = [asked(number) for number in range(4)]
    family: Any = engine.family
    reply = [[*family.continuation_ids("dog"), family.turn_end_id]] * 4
    key = engine.key
    plain = engine.logprobs(conversations, reply)
    flags = [(parameter.requires_grad) for parameter in family.model.parameters()]
    assert any(flags)
    found: dict[float, list[torch.Tensor]] = {}
    keys: set[str] = set()
    for strength in (0.0, 0.5, 1.0, 2.0):
        with engine.wearing(out, strength):
            keys.add(engine.key)
            found[strength] = engine.logprobs(conversations, reply)
        assert engine.key == key
        assert all(torch.equal(one, two) for one, two in zip(engine.logprobs(conversations, reply), plain, strict=True))
    assert len(keys | {key}) == 5
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in zip(found[0.0], plain, strict=True))
    loaded = engine_of(folder, out)
    assert loaded.key in keys
    assert all(
        torch.allclose(one, two, atol=1e-5)
        for one, two in zip(found[1.0], loaded.logprobs(conversations, reply), strict=True)
    )
    assert not torch.allclose(found[2.0][0], found[1.0][0], atol=1e-3)
    with pytest.raises(ModelError, match="strength of an adapter is nan"), engine.wearing(out, float("nan")):
        pass
    with engine.wearing(out), pytest.raises(ModelError, match="wears an adapter already"), engine.wearing(out):
        pass
    assert [parameter.requires_grad for parameter in family.model.parameters()] == flags
    with pytest.raises(RuntimeError, match="in between"), engine.wearing(out):
        raise RuntimeError("in between")
    assert engine.key == key
    done = engine.generate(conversations, Sampling(max_new_tokens=4))
    assert state_key(family.model) == state_key(engine_of(folder).family.model)
    assert [c.token_ids for c in done] == [
        c.token_ids for c in engine_of(folder).generate(conversations, Sampling(max_new_tokens=4))
    ]


def test_what_does_not_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    engine = engine_of(tiny_qwen2_audio(tmp_path / "model"))
    key, names = engine.key, [name for name, _ in engine.family.model.named_modules()]
    cut = fine_tune(engine.family, some_lessons(4), SETTINGS, tmp_path / "cut", log=quiet)
    weights = cut / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="does not fit this model"), engine.wearing(cut):
        pass
    for size in ({"hidden_size": 128}, {"num_hidden_layers": 3}):
        other = engine_of(tiny_qwen2_audio(tmp_path / f"other{len(str(size))}", text=size))
        adapter = fine_tune(other.family, some_lessons(4), SETTINGS, tmp_path / f"adapter{len(str(size))}", log=quiet)
        with pytest.raises(ModelError, match="does not fit this model"), engine.wearing(adapter):
            pass
        assert [name for name, _ in engine.family.model.named_modules()] == names
        assert engine.key == key
