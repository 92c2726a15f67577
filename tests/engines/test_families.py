"""Every family against the model's own processor and `generate`, on tiny folders."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from tests.tiny import tone
from tests.tiny_hearing import TINY

from earnest.completion import Sampling, Stop
from earnest.conversation import Audio, Conversation, Text
from earnest.engines.families.family import FAMILIES
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine

GREEDY = Sampling(max_new_tokens=12)
ONE_CLIP_A_TEXT = ("audioflamingo3", "musicflamingo", "glmasr")


@pytest.fixture(scope="module", params=sorted(TINY))
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    folder = TINY[request.param](tmp_path_factory.mktemp("tiny") / request.param)
    return load_local(str(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    """Text alone, clips of several lengths and rates, shared clips, two clips, audio inside the assistant's turn."""
    clip, other = tone(440, 3.0), tone(700, 1.3, sample_rate_hz=44_100)
    asked = Conversation().user(Audio(clip), "what sound?")
    return [
        Conversation().user("hello?"),
        asked,
        Conversation().user(Audio(clip), "how many?"),
        Conversation().system("be brief.").user(Audio(other), "which one?"),
        Conversation().user(Audio(clip), " and ", Audio(other), " differ how?"),
        asked.assistant("<think>there is a"),
        asked.assistant("<think>again ", Audio(clip.crop(1.0, 2.2)), " now"),
        asked.assistant("<think>again ", Audio(other)),
        asked.assistant("a tone.").user("sure?", Audio(tone(300, 6.0))),
    ]


def reference(engine: LocalEngine, conversation: Conversation) -> list[int]:
    """Ids of the reply by the model's own processor and generate."""
    family: Any = engine.family
    kind = family.model.config.model_type
    samples = [c.resampled(16_000).samples for c in conversation.clips]
    if kind == "voxtral":
        inputs = voxtral_inputs(family, conversation)
    elif kind in ONE_CLIP_A_TEXT and len(samples) > 1:
        pieces = family.text(conversation).split(family.placeholder)
        texts = [pieces[0] + family.placeholder + pieces[1], *(family.placeholder + piece for piece in pieces[2:])]
        parts = [
            family.processor(text=[text], audio=[one], sampling_rate=16_000)
            for text, one in zip(texts, samples, strict=True)
        ]
        wide = {"input_ids", "attention_mask"}
        inputs = {name: torch.cat([part[name] for part in parts], int(name in wide)) for name in parts[0]}
    else:
        given = {"audio": samples, "sampling_rate": 16_000} if samples else {}
        inputs = family.processor(text=[family.text(conversation)], return_tensors="pt", **given)
    whole = family.model.generate(
        **inputs,
        max_new_tokens=GREEDY.max_new_tokens,
        do_sample=False,
        suppress_tokens=sorted(family.structural_token_ids),
    )
    return whole[0, inputs["input_ids"].shape[1] :].tolist()


def voxtral_inputs(family: Any, conversation: Conversation) -> dict[str, Any]:
    """By mistral-common; what is continued is tokenized behind it."""

    def part_of(part: Text | Audio) -> dict[str, str]:
        if isinstance(part, Text):
            return {"type": "text", "text": part.text}
        stream = io.BytesIO()
        soundfile.write(stream, part.clip.resampled(16_000).samples, 16_000, format="WAV", subtype="FLOAT")
        return {"type": "audio", "base64": base64.b64encode(stream.getvalue()).decode()}

    turns = conversation.turns[:-1] if conversation.continues_assistant else conversation.turns
    messages = [{"role": turn.role, "content": [part_of(part) for part in turn.parts]} for turn in turns]
    inputs = dict(family.processor.apply_chat_template([messages]))
    if conversation.continues_assistant:
        for part in conversation.turns[-1].parts:
            if isinstance(part, Text):
                ids = family.tokenizer.encode(part.text, add_special_tokens=False)
            else:
                alone = family.processor.apply_chat_template([[{"role": "user", "content": [part_of(part)]}]])
                ids = [token for token in alone["input_ids"][0].tolist() if token in (24, 25)]
                inputs["input_features"] = torch.cat([inputs["input_features"], alone["input_features"]])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([ids])], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def takes_no_system_turn(engine: LocalEngine, conversation: Conversation) -> bool:
    """The tokenizer of Voxtral refuses a system turn beside audio."""
    family: Any = engine.family
    return family.model.config.model_type == "voxtral" and conversation.turns[0].role == "system"


def test_greedy_equals_generate_one_by_one(engine: LocalEngine, conversations: list[Conversation]) -> None:
    completions = engine.generate(conversations, GREEDY)
    again = engine.generate(conversations, GREEDY)
    for conversation, completion, cached in zip(conversations, completions, again, strict=True):
        if takes_no_system_turn(engine, conversation):
            assert "does not take this conversation" in completion.error
            continue
        assert completion.stop in (Stop.END, Stop.LENGTH), completion.error
        assert list(completion.token_ids) == reference(engine, conversation)
        assert cached.token_ids == completion.token_ids
    assert len({completion.token_ids for completion in completions}) > len(conversations) // 2


def test_a_checkpoints_repetition_penalty_applies(
    engine: LocalEngine, conversations: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    family: Any = engine.family
    taken = [c for c in conversations if not takes_no_system_turn(engine, c)][:4]
    before = engine.generate(taken, GREEDY)
    monkeypatch.setattr(family.model.generation_config, "repetition_penalty", 3.0)
    penalised = engine.generate(taken, GREEDY)
    assert [c.token_ids for c in penalised] != [c.token_ids for c in before]
    for conversation, completion in zip(taken, penalised, strict=True):
        assert list(completion.token_ids) == reference(engine, conversation)


def test_every_clip_is_heard_whole(engine: LocalEngine, conversations: list[Conversation]) -> None:
    taken = [conversation for conversation in conversations if not takes_no_system_turn(engine, conversation)]
    for completion, conversation in zip(engine.generate(taken, Sampling(max_new_tokens=1)), taken, strict=True):
        assert completion.heard.seconds_given == pytest.approx(conversation.audio_s)
        assert completion.heard.seconds_heard == pytest.approx(conversation.audio_s)
        assert bool(completion.heard.audio_tokens) == bool(conversation.audio)


def test_a_clip_beyond_the_limit_is_refused_by_name(engine: LocalEngine) -> None:
    limit = engine.family.max_audio_s
    if limit is None:
        pytest.skip("takes clips of any length")
    long, short = engine.generate(
        [Conversation().user(Audio(tone(440, limit + 1.0)), "?"), Conversation().user(Audio(tone(440, 1.0)), "?")],
        Sampling(max_new_tokens=1),
    )
    assert long.stop == Stop.FAILED
    assert f"takes at most {limit:.2f} s" in long.error
    assert long.heard.seconds_given == limit + 1.0
    assert short.stop != Stop.FAILED


def test_the_placeholder_in_a_text_is_refused(engine: LocalEngine) -> None:
    family: Any = engine.family
    refused = engine.generate([Conversation().user(f"a {family.placeholder} b")], GREEDY)[0]
    assert refused.stop == Stop.FAILED
    assert "stands for audio" in refused.error


def test_lora_targets_leave_the_ear_alone(engine: LocalEngine) -> None:
    import re

    family: Any = engine.family
    hit = [name for name, _ in family.model.named_modules() if re.fullmatch(family.lora_targets(), name)]
    layers = family.language_model.config.num_hidden_layers
    assert len(hit) >= 4 * layers
    assert not [name for name in hit if "audio" in name or "visual" in name]


def test_every_architecture_that_is_known_has_a_tiny_folder() -> None:
    whole_models = {"qwen2_5_omni", "qwen3_omni_moe"}
    assert set(FAMILIES) - set(TINY) - whole_models == {"earnest_fused"}


@pytest.mark.parametrize("kind", sorted(TINY))
def test_half_precision_hears_too(kind: str, tmp_path: Path) -> None:
    engine = load_local(str(TINY[kind](tmp_path / kind)), device="cpu", dtype="bfloat16", threads=1)
    done = engine.generate([Conversation().user(Audio(tone(440, 1.0)), "what?")], Sampling(max_new_tokens=3))[0]
    assert done.stop != Stop.FAILED
    assert done.heard.audio_tokens > 0
