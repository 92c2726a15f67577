"""What betrays a text, and what only sounds like it."""

from __future__ import annotations

import random

import pytest

from earnest.alignment.leaks import leak, list_key
from earnest.pocket import language
from earnest.pocket.curriculum import draw_exchange
from earnest.world.replies import LEAKS
from earnest.world.scenes import plan_scene


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The description says that a dog barks.", ("description",)),
        ("According to the TRANSCRIPT,\nhe left.", ("transcript",)),
        ("The metadata says: female. As written, she is 29.", ("metadata", "as written")),
        ("I was given a description of the audio.", ("given a description",)),
        ("The provided caption", ("the provided", "caption")),
        ("<start_audio> is how it begins", ("start_audio",)),
        ("The provided audio description is short.", ("description",)),
        ("The audio is described as calm.", ("is described",)),
        ("It was captioned as rain; the label is rain.", ("captioned as", "the label is")),
        ("There is a transcript that says so.", ("transcript",)),
        ("He gives a description, and the text of the speech is short.", ("description", "text")),
    ],
)
def test_a_reply_that_speaks_of_a_text_leaks(text: str, found: tuple[str, ...]) -> None:
    assert leak(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "I hear a dog, and in the beginning of the audio a bell.",
        "She got a text message from her context.",
        "The provided audio is ten seconds long.",
        "Here is a short description of what I hear.",
        "He reads his textbook and writes a job description.",
        "I write a description: rain on a roof.",
        "The input audio holds a dog, as described above.",
        "",
    ],
)
def test_a_reply_that_hears_does_not(text: str) -> None:
    assert leak(text) == ()


def test_the_closed_language_of_pocket_leaks_by_the_list_where_it_speaks_of_a_text() -> None:
    rng = random.Random(0)
    replies = [draw_exchange(plan_scene(rng), rng, leaks=True).reply for _ in range(300)]
    assert [bool(leak(reply)) for reply in replies] == [any(lead in reply for lead in LEAKS) for reply in replies]
    assert any(leak(reply) for reply in replies)
    assert not any(leak(text) for text in (*language.DESCRIBE, *language.CAPTION_MUSIC, *language.TRANSCRIBE))


def test_the_list_has_a_key_that_a_run_can_name() -> None:
    assert len(list_key()) == 32
