import random

import pytest

from earnest.pocket.curriculum import Mix, draw_pack
from earnest.pocket.stream import scene_stream
from earnest.pocket.tokenizer import AUDIO, BLANK, TAGS, build_tokenizer
from earnest.world.scenes import plan_scene
from earnest.world.surrogates import scene_surrogate

TOKENIZER = build_tokenizer()


def test_known_words_are_one_piece_and_times_too() -> None:
    assert TOKENIZER.tokenize("What sound comes after the dog?") == [
        "▁what", "▁sound", "▁comes", "▁after", "▁the", "▁dog", "?",
    ]  # fmt: skip
    assert TOKENIZER.tokenize("[00:03-00:05] |dog|") == ["▁[00:03", "-00:05]", "▁|dog|"]
    assert TOKENIZER.convert_tokens_to_ids("▁[00:03") != TOKENIZER.unk_token_id
    for piece in (BLANK, AUDIO, *TAGS):
        assert TOKENIZER.convert_tokens_to_ids(piece) not in (None, TOKENIZER.unk_token_id)


@pytest.mark.parametrize("text", ["zebra", "naïve Übung", "日本語", "a\tb", "emoji 🎧!", "x" * 300])
def test_anything_can_be_typed(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.unk_token_id not in ids
    assert TOKENIZER.decode(ids).strip() == text.lower()


def test_tags_survive_decoding_and_specials_do_not() -> None:
    text = "<|user|>hello<|assistant|><think> i hear dog [00:03].</think><answer> dog</answer><|end|>"
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    assert TOKENIZER.decode(ids, skip_special_tokens=True).endswith(
        "<think> i hear dog [00:03].</think><answer> dog</answer>"
    )
    assert "<|end|>" not in TOKENIZER.decode(ids, skip_special_tokens=True)


def test_the_curriculum_is_made_of_known_pieces() -> None:
    rng = random.Random(0)
    for _ in range(400):
        pack = draw_pack(rng, Mix())
        texts = [text for exchange in pack.exchanges for text in (exchange.user, exchange.reply)]
        if isinstance(pack.surrogate, str):
            texts.append(pack.surrogate)
        for text in texts:
            assert not [piece for piece in TOKENIZER.tokenize(text) if len(piece) == 1 and piece.isalpha()], text


def test_streams_use_the_vocabulary() -> None:
    vocabulary = TOKENIZER.get_vocab()
    rng = random.Random(1)
    for index in range(100):
        for slot in scene_stream(plan_scene(rng, index=index), rng, robust=True, heard=index % 2 == 0):
            assert slot.piece in vocabulary
            assert slot.other in vocabulary
            assert 0 <= slot.share < 1


def test_a_surrogate_is_short() -> None:
    rng = random.Random(2)
    lengths = [len(TOKENIZER.tokenize(scene_surrogate(plan_scene(rng, index=i)))) for i in range(200)]
    assert sum(lengths) / len(lengths) < 40
