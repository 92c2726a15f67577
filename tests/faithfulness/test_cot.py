"""Chains: where they begin and end, their steps, what is edited."""

from __future__ import annotations

import pytest

from earnest.faithfulness.cot import UNTAGGED_CLOSING, Chain, chain_of, filled, sanitised

POCKET = "<think> i hear dog 1 [00:03], then cat [00:05].</think><answer> cat</answer>"


def test_a_tagged_reply_is_put_together_again() -> None:
    chain = chain_of(POCKET)
    assert chain == Chain("<think> ", "i hear dog 1 [00:03], then cat [00:05].", "</think><answer>")
    assert chain.steps == ("i hear dog 1 [00:03], ", "then cat [00:05].")
    assert chain.written(chain.text) + " cat</answer>" == POCKET
    # Cut off, it ends as the whole of it does.
    assert [chain.first(count) for count in range(3)] == ["", "i hear dog 1 [00:03].", chain.text]


@pytest.mark.parametrize(
    ("reply", "text", "closing"),
    [
        ("It barks. It growls. So it is a dog.", "It barks. It growls.", UNTAGGED_CLOSING),
        ("I hear a bark.\n<answer>dog</answer>", "I hear a bark.", "\n<answer>"),
        ("<think>It barks.\nIt growls.</think>dog", "It barks.\nIt growls.", "</think>"),
        # The prompt opened the block; words stand between it and the answer.
        ("It barks. It growls.</think><answer>dog</answer>", "It barks. It growls.", "</think><answer>"),
        (
            "<think>It barks.</think>\nFinal answer: <answer>dog</answer>",
            "It barks.",
            "</think>\nFinal answer: <answer>",
        ),
    ],
)
def test_other_forms(reply: str, text: str, closing: str) -> None:
    chain = chain_of(reply)
    assert chain is not None
    assert (chain.text, chain.closing) == (text, closing)


@pytest.mark.parametrize("reply", ["", "dog", "<think> </think><answer>dog</answer>", "<answer>dog</answer>"])
def test_no_reasoning_is_none(reply: str) -> None:
    assert chain_of(reply) is None


def test_the_step_that_says_the_answer_is_removed_first() -> None:
    chain = chain_of("<think>It barks. A cat is quiet. So it is a dog.</think><answer>dog</answer>")
    assert chain is not None
    kept = sanitised(chain, "dog")
    assert kept is not None
    assert kept.text == "It barks. A cat is quiet."
    # Whole words alone, and the last step alone.
    assert sanitised(chain, "do") is chain
    assert sanitised(kept, "It barks") is kept
    assert sanitised(chain.with_text("So it is a dog."), "dog") is None


def test_filler_replaces_exactly_so_many_words() -> None:
    text = "i hear dog [00:03], then cat [00:05] and  two birds."
    words = text.split()
    assert filled(text, 0, 1) == text
    for share in (0.05, 0.3, 0.55, 1.0):
        changed = [one != two for one, two in zip(words, filled(text, share, 1).split(), strict=True)]
        assert sum(changed) == int(share * len(words) + 1e-9)
    assert "  " in filled(text, 1, 1)
    assert filled(text, 0.5, 1) == filled(text, 0.5, 1) != filled(text, 0.5, 2)
    # More of it holds all of less: a curve, not scatter.
    less, more = filled(text, 0.3, 1).split(), filled(text, 0.6, 1).split()
    assert all(two == one for word, one, two in zip(words, less, more, strict=True) if word != one)


@pytest.mark.parametrize(
    ("last", "answer", "choices", "leaks"),
    [
        ("Therefore option B is right.", "dog", ("cat", "dog"), True),
        ("So the answer is B.", "dog", ("cat", "dog"), True),
        ("So there are two.", "2", ("1", "2"), True),
        ("It is a DOG barking.", "dog", None, True),
        ("It is not a cat.", "dog", ("cat", "dog"), False),
        ("The pitch is high.", "dog", ("cat", "dog"), False),
        ("Option A is out.", "dog", ("cat", "dog"), False),
    ],
)
def test_what_says_the_answer(last: str, answer: str, choices: tuple[str, ...] | None, leaks: bool) -> None:
    chain = Chain("<think>", f"It barks. {last}", "</think><answer>")
    kept = sanitised(chain, answer, choices)
    assert kept is not None
    assert (kept.text == "It barks.") == leaks
