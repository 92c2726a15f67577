"""What SFT learns of a trace: its forms, the shares that are learnt otherwise, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_fused, tone

from earnest.conversation import Audio, Text
from earnest.engines.load import load_local
from earnest.errors import EarnestError
from earnest.example import Example
from earnest.prompts import Prompt
from earnest.relistening.lessons import INTERLEAVED, TAGS, trace_lessons
from earnest.relistening.loop import WORDS, question_of
from earnest.relistening.traces import Trace
from earnest.training import sft
from earnest.training.sft import Lesson

POCKET = Prompt.load("relistening", WORDS["pocket"])
TRACE = Trace(("<think> first <seg>1, 2</seg>", " then <seg>2, 4</seg>", " so.</think><answer> dog</answer>"),
              ((1.0, 2.0), (2.0, 4.0)))  # fmt: skip
SINGLE = "<think> i hear dog.</think><answer> dog</answer>"
PLACES = {"question": "find: dog.\nrefer to the segments.", "reply": "dog <seg>0, 3</seg>."}


def example(number: int = 0, **meta: Any) -> Example:
    """With a trace, the reply of a single pass and a look-up; None takes one away."""
    whole = {"trace": TRACE.to_json(), "single_pass": SINGLE, "places": PLACES} | meta
    held = {name: value for name, value in whole.items() if value is not None}
    return Example(str(number), (tone(300 + number, 3.0),), f"what {number}?", ("dog", "cat"), "dog", meta=held)


def kinds(lessons: list[Lesson]) -> list[str]:
    return [lesson.name.split("/")[1] for lesson in lessons]


def lessons_of(count: int, **options: Any) -> list[Lesson]:
    clip = tone(300, 3.0)
    return trace_lessons([example(k).with_clips(clip) for k in range(count)], POCKET, **options)


def test_interleaved_is_learnt_with_what_is_heard_in_its_place() -> None:
    (lesson,) = trace_lessons([example()], POCKET)
    clip = example().clip
    conversation = lesson.conversation()
    assert conversation.turns[:-1] == question_of(example(), POCKET).turns
    assert conversation.turns[-1].parts == (
        Text(TRACE.texts[0]), Audio(clip.crop(1.0, 2.0), fine=True), Text(TRACE.texts[1]),
        Audio(clip.crop(2.0, 3.0), fine=True),
    )  # fmt: skip
    assert (lesson.reply, lesson.begun, lesson.name) == (TRACE.texts[-1], True, f"0/{INTERLEAVED}")


def test_tags_are_learnt_without_what_is_heard() -> None:
    (lesson,) = trace_lessons([example()], POCKET, form=TAGS)
    assert lesson.conversation() == question_of(example(), POCKET)
    assert (lesson.reply, lesson.begun) == (TRACE.text, False)
    assert lesson.conversation().turns[0].text.endswith("\nrefer to the segments.")


def test_a_model_of_one_rate_hears_again_at_that_rate() -> None:
    (lesson,) = trace_lessons([example()], POCKET, fine=False)
    assert [part.fine for part in lesson.conversation().audio] == [False, False, False]


def test_a_trace_that_cites_nothing_is_a_plain_reply() -> None:
    (lesson,) = trace_lessons([example(trace=Trace((SINGLE,)).to_json())], POCKET)
    assert (lesson.reply, lesson.begun) == (SINGLE, False)
    assert lesson.conversation() == question_of(example(), POCKET)


def test_a_single_pass_may_be_learnt_instead() -> None:
    (lesson,) = trace_lessons([example()], POCKET, single=0.999)
    assert lesson.conversation() == question_of(example(), POCKET, listen=False)
    assert (lesson.reply, lesson.begun) == (SINGLE, False)


def test_a_look_up_may_be_learnt_instead() -> None:
    (places,) = trace_lessons([example()], POCKET, places=1.0)
    (turn,) = places.conversation().turns
    assert turn.parts == (Audio(example().clip), Text(f"\n\n{PLACES['question']}"))
    assert (places.reply, places.begun, places.name) == (PLACES["reply"], False, "0/places")


def test_shares_are_drawn_by_seed_and_example() -> None:
    found = kinds(lessons_of(400, single=0.25))
    assert found.count("single") == pytest.approx(100, abs=25)
    assert found.count(INTERLEAVED) == 400 - found.count("single")
    with_places = kinds(lessons_of(400, single=0.25, places=0.3))
    assert with_places.count("places") == pytest.approx(120, abs=25)
    assert all((one == "single") == (two == "single") for one, two in zip(found, with_places, strict=True))
    assert kinds(lessons_of(400, single=0.25)) == found
    assert kinds(lessons_of(400, single=0.25, seed=1)) != found
    # More examples move none, and a larger share takes more, not others.
    assert kinds(lessons_of(100, single=0.25)) == found[:100]
    more = kinds(lessons_of(400, single=0.5))
    assert all(two == "single" for one, two in zip(found, more, strict=True) if one == "single")
    assert set(kinds(lessons_of(50))) == {INTERLEAVED}


def test_where_there_is_no_other_reply_the_trace_is_learnt() -> None:
    bare = [example(k, single_pass=None, places=None) for k in range(20)]
    assert kinds(trace_lessons(bare, POCKET, single=0.9, places=1.0)) == [INTERLEAVED] * 20
    # A scene may have no look-up: no name occurs once.
    assert kinds(trace_lessons([example(places={})], POCKET, places=1.0)) == [INTERLEAVED]


def test_what_cannot_be_learnt_is_said() -> None:
    with pytest.raises(EarnestError, match="2 examples have no trace, such as 1: make them with earnest make grounded"):
        trace_lessons([example(0), example(1, trace=None), example(2, trace=None)], POCKET)
    with pytest.raises(EarnestError, match="form is 'audio': give one of interleaved, tags"):
        trace_lessons([example()], POCKET, form="audio")


def test_every_text_is_learnt_and_nothing_that_is_heard_or_asked(tmp_path: Path) -> None:
    engine = load_local(str(tiny_fused(tmp_path)), device="cpu", threads=1)
    family: Any = engine.family
    lessons = trace_lessons([example(k) for k in range(2)], POCKET)
    rows: Any = sft._Rows(family, lessons)
    assert len(rows) == 2
    texts = [*[token for text in TRACE.texts for token in family.continuation_ids(text)], family.turn_end_id]
    for place in range(len(rows)):
        learnt = [label for label in rows[place].labels if label != sft.IGNORED]
        assert learnt == texts
        counts = rows[place].prompt.audio_tokens
        assert rows[place].prompt.token_ids.count(family.audio_token_id) == sum(counts)
        assert len(counts) == 3
