"""A tiny tokenizer, a tiny pocket and noise to hear."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny_fused import pocket_config, scattered
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from earnest.fused import FusedModel

SPECIAL = ["<pad>", "<eos>", "<unk>", "<audio>", "<start_audio>", "<end_audio>", "<user>", "<assistant>"]
WORDS = ["what", "is", "heard", "a", "dog", "<think>", "I", "listen", "again", "<seg>", "</seg>", "then"]
TIMES = [f"{second // 60:02d}:{second % 60:02d}" for second in range(100)]
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(SPECIAL + WORDS + TIMES)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    built = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[3:],
        padding_side="left",
    )
    built.chat_template = TEMPLATE
    return built


@pytest.fixture
def pocket() -> FusedModel:
    return scattered(pocket_config())


@pytest.fixture
def noise() -> Callable[..., list[np.ndarray]]:
    def make(*seconds: float) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        return [(0.1 * rng.standard_normal(max(1, round(s * 16_000)))).astype(np.float32) for s in seconds]

    return make
