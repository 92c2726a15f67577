"""What SFT learns of a trace: its forms, the shares that are learnt otherwise, and what is refused."""

from __future__ import annotations

from dataclasses import replace
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


def test_a_look_up_comes_with_the_trace() -> None:
    trace, places = trace_lessons([example()], POCKET, places=1.0)
    assert trace.reply == TRACE.texts[-1]
    (turn,) = places.conversation().turns
    assert turn.parts == (Audio(example().clip), Text(f"\n\n{PLACES['question']}"))
    assert (places.reply, places.begun, places.name) == (PLACES["reply"], False, "0/places")


def test_shares_are_drawn_by_seed_and_example() -> None:
    found = kinds(lessons_of(400, single=0.25))
    assert found.count("single") == pytest.approx(100, abs=25)
    assert found.count(INTERLEAVED) == 400 - found.count("single")
    with_places = kinds(lessons_of(400, single=0.25, places=0.3))
    assert with_places.count("places") == pytest.approx(120, abs=25)
    assert [kind for kind in with_places if kind != "places"] == found, "one share moves not the other"
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


def about_one_clip(count: int = 3) -> list[Example]:
    return [example(number).with_clips(tone(300, 3.0)) for number in range(count)]


def test_all_about_one_clip_may_be_one_dialogue() -> None:
    apart = replace(example(9), audio=(tone(900, 3.0),))
    lessons = trace_lessons([*about_one_clip(), apart], POCKET, places=1.0, packed=True)
    assert [lesson.begun for lesson in lessons] == [True, True]
    first, second = (lesson.name.split("+") for lesson in lessons)
    assert sorted(first) == sorted(f"{k}/{kind}" for k in range(3) for kind in (INTERLEAVED, "places"))
    assert sorted(second) == [f"9/{INTERLEAVED}", "9/places"]
    assert first != sorted(first), "in an order of its own"
    conversation = lessons[0].conversation()
    roles = [turn.role for turn in conversation.turns]
    assert roles[:11] == ["user", "assistant"] * 5 + ["user"]
    clips = [part.clip for part in conversation.audio if not part.fine]
    assert clips == [tone(300, 3.0)], "the clip is heard once"
    assert len(conversation.audio) == 1 + 3 * len(TRACE.segments)
    assert conversation.turns[0].parts[0] == Audio(tone(300, 3.0))
    said = "".join(turn.text for turn in conversation.turns if turn.role == "assistant") + lessons[0].reply
    assert said.count(TRACE.text) == 3
    assert said.count(PLACES["reply"]) == 3
    asked = [turn.text.strip() for turn in conversation.turns if turn.role == "user"]
    assert len(asked) == 6
    assert sorted(set(asked)) == sorted(
        {question_of(one, POCKET).last_text.strip() for one in about_one_clip()} | {PLACES["question"]}
    )
    again = trace_lessons([*about_one_clip(), apart], POCKET, places=1.0, packed=True)
    assert [lesson.name for lesson in again] == [lesson.name for lesson in lessons]


def test_a_dialogue_of_one_is_as_it_is_alone() -> None:
    (packed,) = trace_lessons([example()], POCKET, packed=True)
    (alone,) = trace_lessons([example()], POCKET)
    assert packed.conversation() == alone.conversation()
    assert (packed.reply, packed.name, packed.begun) == (alone.reply, alone.name, alone.begun)


def test_what_cannot_be_learnt_is_said() -> None:
    with pytest.raises(EarnestError, match="2 examples have no trace, such as 1: make them with earnest make grounded"):
        trace_lessons([example(0), example(1, trace=None), example(2, trace=None)], POCKET)
    with pytest.raises(EarnestError, match="form is 'audio': give one of interleaved, tags"):
        trace_lessons([example()], POCKET, form="audio")


@pytest.mark.parametrize("packed", [False, True])
def test_every_text_is_learnt_and_nothing_that_is_heard_or_asked(packed: bool, tmp_path: Path) -> None:
    engine = load_local(str(tiny_fused(tmp_path)), device="cpu", threads=1)
    family: Any = engine.family
    lessons = trace_lessons(about_one_clip(2), POCKET, packed=packed)
    rows: Any = sft._Rows(family, lessons)
    assert len(rows) == (1 if packed else 2)
    texts = [*[token for text in TRACE.texts for token in family.continuation_ids(text)], family.turn_end_id]
    for place in range(len(rows)):
        learnt = [label for label in rows[place].labels if label != sft.IGNORED]
        assert learnt == texts * (2 if packed else 1)
        counts = rows[place].prompt.audio_tokens
        assert rows[place].prompt.token_ids.count(family.audio_token_id) == sum(counts)
        assert len(counts) == (5 if packed else 3)
