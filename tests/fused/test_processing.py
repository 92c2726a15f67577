from typing import Any

import numpy as np
import pytest
import torch
from tiny_fused import large_config, pocket_config, scattered
from transformers import AutoProcessor

from earnest.audio import Clip
from earnest.conversation import Audio, Conversation
from earnest.errors import AudioError, ConversationError, ModelError
from earnest.fused import FusedModel, FusedProcessor


@pytest.fixture
def processor(tokenizer: Any) -> FusedProcessor:
    return FusedProcessor.from_config(pocket_config(), tokenizer, time_marker_s=1)


def tone(seconds: float, rate: int = 16_000) -> Clip:
    return Clip(np.sin(np.arange(round(seconds * rate)) / 7).astype(np.float32), rate)


def words(processor: FusedProcessor, ids: list[int]) -> str:
    return " ".join(processor.tokenizer.convert_ids_to_tokens(ids)).replace("<audio>", "s")


def test_counts_equal_the_models(processor: FusedProcessor, pocket: FusedModel, noise: Any) -> None:
    clips = noise(0.0001, 0.256, 0.2561, 1.0, 7.77)
    for fine in (False, True):
        counts = [processor.audio_tokens(c.size, fine) for c in clips]
        assert counts == [t.shape[0] for t in pocket.encode_audio(clips, [fine] * 5)]
        assert counts == [processor.audio_ids(c.size, fine).count(processor.audio_token_id) for c in clips]


def test_time_markers(processor: FusedProcessor) -> None:
    # 0.256 s a token: tokens 0-3 begin in second 0, tokens 4-7 in second 1
    assert words(processor, processor.audio_ids(32_000)) == "<start_audio> 00:00 s s s s 00:01 s s s s <end_audio>"
    # a crop from 61.5 s: the fine tokens at 61.5, 61.628, 61.756, 61.884, 62.012
    assert (
        words(processor, processor.audio_ids(10_000, True, 61.5)) == "<start_audio> 01:01 s s s s 01:02 s <end_audio>"
    )
    assert processor.time_token(61) == processor.tokenizer.convert_tokens_to_ids("01:01")
    with pytest.raises(ModelError, match="no piece '01:40'"):
        processor.audio_ids(16_000, offset_s=99.5)


def test_markers_off_and_sparse(tokenizer: Any) -> None:
    plain = FusedProcessor.from_config(pocket_config(), tokenizer, audio_start_token=None, audio_end_token=None)
    assert words(plain, plain.audio_ids(16_000)) == "s s s s"
    sparse = FusedProcessor.from_config(pocket_config(), tokenizer, time_marker_s=2)
    assert words(sparse, sparse.audio_ids(40_000, offset_s=1.0)).split().count("00:02") == 1
    with pytest.raises(ModelError, match=r"time_marker_s 0\.5"):
        FusedProcessor.from_config(pocket_config(), tokenizer, time_marker_s=0.5)
    with pytest.raises(ModelError, match=r"names no moment: put \{clock\}"):
        FusedProcessor.from_config(pocket_config(), tokenizer, time_marker_s=1, time_marker_format="now")
    assert (plain.max_audio_s(), sparse.max_audio_s()) == (None, 100.0)
    chunked = large_config({"kind": "perceiver"}, chunk_s=1.1)
    with pytest.raises(ModelError, match="cannot be placed in pass first"):
        FusedProcessor.from_config(chunked, tokenizer, time_marker_s=1)
    # The latents of a whole clip stand behind its last moment.
    latents = FusedProcessor.from_config(large_config({"kind": "perceiver"}), tokenizer, time_marker_s=1)
    assert words(latents, latents.audio_ids(17_280)).endswith("00:01 s s" + " s" * 8 + " <end_audio>")
    with pytest.raises(ModelError, match="no piece '<sound>'"):
        FusedProcessor.from_config(pocket_config(), tokenizer, audio_token="<sound>")
    with pytest.raises(ModelError, match="has id 4, the model's audio_token_id is 3"):
        FusedProcessor.from_config(pocket_config(), tokenizer, audio_token="<start_audio>")
    first_only = FusedProcessor.from_config(large_config({"kind": "ca"}), tokenizer)
    with pytest.raises(ModelError, match="no 'fine' pass; it has first"):
        first_only.audio_tokens(100, fine=True)


def test_slots_and_clips_must_agree(processor: FusedProcessor) -> None:
    text = "<user> <audio> what is heard"
    assert processor.input_ids(text, [(4096, False, 0.0)])[1:5] == processor.audio_ids(4096)
    for clips in ([], [(10, False, 0.0)] * 2):
        with pytest.raises(ConversationError, match=f"1 '<audio>' slots for {len(clips)} clips"):
            processor.input_ids(text, clips)
    with pytest.raises(ConversationError, match="1 '<audio>' slots for 2 clips"):
        processor([text], audio=[tone(1), tone(1)])
    with pytest.raises(AudioError, match="nothing to hear"):
        processor.input_ids(text, [(0, False, 0.0)])


def test_conversation_with_audio_in_the_reasoning(processor: FusedProcessor, pocket: FusedModel) -> None:
    clip = tone(3.0)
    conversation = (
        Conversation()
        .user(Audio(clip), " what is heard")
        .assistant("<think> I listen again <seg> 00:01 00:02 </seg> ", Audio(clip.crop(1.0, 2.0), fine=True))
    )
    text = processor.render(conversation)
    assert (
        text == "<user> <audio> what is heard <eos> <assistant> <think> I listen again <seg> 00:01 00:02 </seg> <audio>"
    )
    parts = conversation.audio
    inputs = processor(text, audio=[p.clip for p in parts], fine=[p.fine for p in parts])
    seen = words(processor, inputs["input_ids"][0].tolist())
    assert seen.endswith("</seg> <start_audio> 00:01 s s s s s s s s <end_audio>")
    assert inputs["fine"] == [False, True]
    out = pocket.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(out[:, : inputs["input_ids"].shape[1]], inputs["input_ids"])
    closed = processor.render(conversation, add_generation_prompt=False)
    assert closed.endswith("<audio> <eos> ")
    alone = Conversation().assistant("a dog")
    assert processor.render(alone, add_generation_prompt=False) == "<assistant> a dog <eos> "
    with pytest.raises(ConversationError, match="nothing to reply to"):
        processor.render(alone)


def test_batch_is_padded_left_and_resampled(processor: FusedProcessor) -> None:
    texts = ["<user> <audio> what", "<user> a dog", "<user> <audio> <audio>"]
    inputs = processor(texts, audio=[tone(1.0, 8_000), tone(0.5), np.zeros(100, np.float32)])
    assert [a.size for a in inputs["audio"]] == [16_000, 8_000, 100]
    assert inputs["attention_mask"].sum(1).tolist() == [9, 3, 10]
    assert inputs["input_ids"][1, :7].tolist() == [0] * 7
    assert inputs["input_ids"][0, 1:].tolist() == processor.input_ids(texts[0], [(16_000, False, 0.0)])
    lists = processor(texts[1:2], return_tensors=None)
    assert lists["input_ids"] == [processor.input_ids(texts[1])]
    assert "audio" not in lists


def test_hf_messages(processor: FusedProcessor) -> None:
    clip = tone(1.0)
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "audio", "audio": clip.samples, "sampling_rate": 16_000},
                {"type": "text", "text": " what is heard"},
            ],
        }
    ]
    assert processor.apply_chat_template(messages) == "<user> <audio> what is heard <eos> "
    inputs = processor.apply_chat_template([messages, messages], add_generation_prompt=True, tokenize=True)
    assert inputs["input_ids"].shape[0] == 2
    assert len(inputs["audio"]) == 2
    again = [*messages, {"role": "assistant", "content": "<think> I listen"}]
    assert processor.apply_chat_template(again, continue_final_message=True).endswith("<assistant> <think> I listen")
    with pytest.raises(ConversationError, match="stands for audio"):
        processor.render(Conversation().user("a <audio> dog"))
    with pytest.raises(ConversationError, match="nothing to reply to"):
        processor.render(Conversation())


@pytest.mark.parametrize("with_model", [False, True])
def test_round_trip_through_auto(processor: FusedProcessor, tmp_path: Any, with_model: bool) -> None:
    processor.save_pretrained(tmp_path)
    if with_model:
        scattered(pocket_config()).save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(again, FusedProcessor)
    assert again.time_marker_s == 1
    assert again.audio_ids(50_000, True, 3.0) == processor.audio_ids(50_000, True, 3.0)
    conversation = Conversation().user(Audio(tone(1.0)), " what is heard")
    assert again.render(conversation) == processor.render(conversation)
    assert again.input_ids("<user> <audio>", [(9_000, False, 0.0)]) == processor.input_ids(
        "<user> <audio>", [(9_000, False, 0.0)]
    )
