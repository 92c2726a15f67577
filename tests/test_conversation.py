import base64

import numpy as np
import pytest

from earnest.audio import Clip
from earnest.conversation import Audio, Conversation, Text, Turn
from earnest.errors import AudioError, ConversationError


@pytest.fixture
def clip() -> Clip:
    pcm = np.round(np.sin(np.arange(1600) / 5) * 8000).astype(np.int16)
    return Clip((pcm / 32768).astype(np.float32), 16000)


def test_building_returns_new_conversations(clip: Clip):
    asked = Conversation().system("be brief").user(Audio(clip), "what?")
    begun = asked.assistant("<think> <seg>0, 1</seg>").append(Audio(clip, fine=True), " a dog")
    assert not asked.continues_assistant and begun.continues_assistant
    assert begun.turns[:2] == asked.turns
    assert begun.turns[-1].parts == (Text("<think> <seg>0, 1</seg>"), Audio(clip, fine=True), Text(" a dog"))
    assert begun.last_text == "<think> <seg>0, 1</seg> a dog"
    assert begun.clips == (clip, clip)
    with pytest.raises(ConversationError, match=r"begin with \.user"):
        Conversation().append("x")


def test_key_sees_what_a_model_sees(clip: Clip):
    base = Conversation().user(Audio(clip), "what?")
    same = Conversation().user(Audio(Clip(clip.samples, 16000, source="elsewhere")), "what?")
    assert base.key == same.key
    others = [
        Conversation().user(Audio(clip), "who?"),
        Conversation().user("what?", Audio(clip)),
        Conversation().user(Audio(clip, fine=True), "what?"),
        Conversation().user(Audio(Clip(clip.samples, 16000, offset_s=1.0)), "what?"),
        Conversation().system(Audio(clip), "what?"),
        Conversation().user(Audio(clip)).user("what?"),
    ]
    assert len({base.key, *(other.key for other in others)}) == 7


def test_openai_form_round_trip(clip: Clip):
    conversation = Conversation().system("s").user(Audio(clip), "what?").assistant("a dog")
    messages = conversation.to_openai()
    assert messages[0] == {"role": "system", "content": "s"}
    assert messages[1]["content"][0]["input_audio"]["format"] == "wav"
    assert Conversation.from_openai(messages).key == conversation.key


def test_hf_form_round_trip_and_paths(clip: Clip, tmp_path):
    conversation = Conversation().user(Audio(clip), "what?")
    assert Conversation.from_hf(conversation.to_hf()).key == conversation.key
    clip.save(tmp_path / "a.wav")
    data = "data:audio/wav;base64," + base64.b64encode(clip.wav_bytes()).decode()
    for part in (
        {"type": "audio", "audio": "a.wav"},
        {"type": "audio", "path": str(tmp_path / "a.wav")},
        {"type": "audio", "url": data},
        {"type": "audio_url", "audio_url": {"url": data}},
        {"type": "audio", "audio": {"array": clip.samples, "sampling_rate": 16000}},
    ):
        messages = [{"role": "user", "content": [part, {"type": "text", "text": "what?"}]}]
        assert Conversation.from_hf(messages, tmp_path).key == conversation.key


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "tool", "content": "x"}, "'tool': known are system, user, assistant"),
        ({"role": "user", "content": None}, "message 1 has a NoneType as content"),
        ({"role": "user", "content": ["x"]}, "message 1, part 1 is a str"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "'image_url'"),
        ({"role": "user", "content": [{"type": "text"}]}, "has no text"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "input_audio.data"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "é"}}]}, "not base64"),
        ({"role": "user", "content": [{"type": "audio", "url": "https://x.org/a.wav"}]}, "download it"),
        ({"role": "user", "content": [{"type": "audio", "audio": [0.0]}]}, "sampling_rate"),
        ({"role": "user", "content": [{"type": "audio"}]}, "none of audio, path, url"),
        ({"role": "user", "content": [{"type": "audio", "url": "data:audio/wav,xx"}]}, "base64"),
    ],
)
def test_what_cannot_be_understood_is_named(message: dict, says: str):
    with pytest.raises(ConversationError, match=says):
        Conversation.from_hf([message])


def test_unreadable_audio_is_an_audio_error():
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"nothing").decode()}}
    with pytest.raises(AudioError, match="message 1, part 1"):
        Conversation.from_openai([{"role": "user", "content": [part]}])


def test_developer_is_system():
    assert Conversation.from_openai([{"role": "developer", "content": "x"}]).turns == (Turn("system", (Text("x"),)),)
