"""Pocket's tokenizer: whole words of the closed language, bytes for everything else.

A Unigram model with byte fallback (a stock `tokenizers` model): known words and a few frequent phrases of
the surrogates are single pieces, any other text falls apart into letters and bytes, so that everything can
be typed. Case is folded; a line break is a word of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from earnest.pocket.language import corpus
from earnest.world.questions import TEMPLATES, UNKNOWN
from earnest.world.replies import HEARING, LEAKS
from earnest.world.scenes import REQUEST_FORMS
from earnest.world.surrogates import ORDINALS, clock
from earnest.world.vocabulary import INSTRUMENTS, PITCHES, SOUNDS, SPEAKERS, SPOKEN, TEMPI

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TIME = "▁[{clock}"
"""The piece of a moment: it opens a segment of a surrogate, marks a second of a stream and stands in citations."""

BLANK = "▁_"
"""The piece that stands for "nothing happens here" in a stream."""

AIR = "▁~"
"""What a recording holds between two events, and a text does not."""

MAX_SECONDS = 60
PAD, USER, ASSISTANT, SYSTEM, END = "<pad>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
AUDIO_START, AUDIO_END, AUDIO = "<start_audio>", "<end_audio>", "<audio>"
TAGS: tuple[str, ...] = ("<think>", "</think>", "<answer>", "</answer>", "<seg>", "</seg>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}{{ '<audio>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the tokenizer from the closed language; the same pieces in the same order every time."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = "▁abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'\"()[]|-/+\n"
    scored: dict[str, float] = {"<unk>": 0.0}
    scored |= {f"<0x{byte:02X}>": -30.0 for byte in range(256)}
    scored |= dict.fromkeys(letters, -14.0)
    scored |= dict.fromkeys(_pieces(), -6.0)
    tokenizer = Tokenizer(models.Unigram(list(scored.items()), unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"\s*\n\s*"), " \n ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    specials = [PAD, USER, ASSISTANT, SYSTEM, END, AUDIO_START, AUDIO_END, AUDIO]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False, lstrip=True) for token in TAGS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token="<unk>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=2048,
    )


def _pieces() -> list[str]:
    """Words with their leading blank, times, and the phrases of the surrogates."""
    times = [clock(second) for second in range(MAX_SECONDS + 1)]
    pieces = [TIME.format(clock=time) for time in times]
    pieces += [form.format(time) for form in ("▁{}", "-{}", "-{}]") for time in times]
    pieces += [f"▁{number}" for number in range(MAX_SECONDS + 1)]
    pieces += [f"▁|{name}|" for name in SOUNDS] + [f"▁|{name}" for name in INSTRUMENTS]
    pieces += [f",▁{pitch},▁{tempo}" for pitch in PITCHES for tempo in TEMPI]
    pieces += [f",▁the▁{ordinal}▁speaker,▁gender:▁{who}]" for ordinal in ORDINALS[:2] for who in SPEAKERS]
    pieces += [f",▁{who}" for who in SPEAKERS]
    pieces += ["▁(duration:", "s)", "s,▁the▁number▁of▁speakers:", "].", "],", "▁\n", BLANK, AIR]
    pieces += ["▁[think]", "▁[/think]", "▁[answer]", "▁[/answer]"]
    texts = [*corpus(), *REQUEST_FORMS, *LEAKS, HEARING, UNKNOWN, "choices:", "told no then none end more"]
    texts += [wording for t in TEMPLATES.values() for wording in (*t.wordings, *t.held_out)]
    words = [*SPOKEN, *SOUNDS, *INSTRUMENTS, *PITCHES, *TEMPI, *SPEAKERS, "an"]
    for text in texts:
        words += re.findall(r"[a-z']+:?", re.sub(r"\{\w+\}", " ", text))
    pieces += [f"▁{word}" for word in words]
    return list(dict.fromkeys(pieces))
