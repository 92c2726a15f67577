"""Replies that go back to the audio: by a script that says known things, and by real architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import tiny_fused, tone
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.completion import Completion, Heard, Sampling, Stop
from earnest.conversation import Audio, Conversation, Part, Text
from earnest.engines import Capabilities
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine
from earnest.errors import ModelError
from earnest.example import Example
from earnest.grading import Outcome, grade
from earnest.prompts import Prompt
from earnest.relistening.loop import (
    FILLER,
    WORDS,
    Inserted,
    Relistened,
    as_cited,
    filler,
    oracle_segment,
    question_of,
    random_segment,
    relisten,
    silence,
    whole_clip,
)
from earnest.relistening.segments import Bounds, Fault, Segment

LOCAL = Capabilities(continues_assistant=True, audio_in_assistant=True, logprobs=True)
GENERAL = Prompt.load("relistening", WORDS["general"])
SAMPLING = Sampling(max_new_tokens=40, stop=("###",))
ANSWER = " a dog.</think><answer>dog</answer>"


def example(name: str = "one", duration_s: float = 10.0) -> Example:
    clip = tone(300 + 10 * len(name), duration_s)
    return Example(name, (clip,), f"what is {name}?", ("dog", "cat"), "dog", evidence=((2.0, 4.0), (7.0, 8.0)))


class Script:
    """Says what is written for each question, turn by turn; one token is one character."""

    def __init__(self, **replies: Sequence[str]) -> None:
        self.replies = {name: list(turns) for name, turns in replies.items()}
        self.asked: list[list[Conversation]] = []
        self.samplings: list[list[Sampling]] = []

    def __call__(self, conversations: Sequence[Conversation], samplings: Sequence[Sampling]) -> list[Completion]:
        self.asked.append(list(conversations))
        self.samplings.append(list(samplings))
        return [self._said(conversation) for conversation in conversations]

    def _said(self, conversation: Conversation) -> Completion:
        name = next(name for name in self.replies if f"what is {name}?" in conversation.turns[0].text)
        text = self.replies[name].pop(0)
        heard = Heard(conversation.audio_s, conversation.audio_s, len(conversation.audio))
        if text == "FAIL":
            return Completion("", Stop.FAILED, heard=heard, error="no room")
        stop = Stop.STOP_STRING if text.endswith(("</seg>", "###")) else Stop.END
        ids = tuple(ord(character) for character in text)
        logprobs = tuple(-id_ / 1000 for id_ in ids)
        return Completion(text, stop, ids, logprobs, 0, heard, 0.5, token_ends=tuple(range(1, len(text) + 1)))


def once(
    turns: Sequence[str],
    inserted: Inserted | None = None,
    capabilities: Capabilities = LOCAL,
    *,
    duration_s: float = 10.0,
    **more: Any,
) -> tuple[Relistened, Script]:
    script = Script(one=turns)
    given = {"inserted": inserted} if inserted else {}
    asked = [example(duration_s=duration_s)]
    return relisten(script, capabilities, asked, SAMPLING, words=GENERAL, **given, **more)[0], script


def spans(reply: Relistened) -> list[tuple[float, float]]:
    return [(part.clip.offset_s, part.clip.duration_s) for part in reply.parts if isinstance(part, Audio)]


def test_the_crop_stands_behind_its_tag_in_the_assistants_turn() -> None:
    reply, script = once(["<think> i hear <seg>2.5, 4</seg>", " this, then <seg>7, 8</seg>", ANSWER])
    first, second, third = (asked[0] for asked in script.asked)
    assert first == question_of(example(), GENERAL)
    assert "<seg>start, end</seg>" in first.turns[0].text
    assert [turn.role for turn in third.turns] == ["user", "assistant"]
    clip = example().clip
    one, two = Audio(clip.crop(2.5, 4.0), fine=True), Audio(clip.crop(7.0, 8.0), fine=True)
    assert second.turns[1].parts == (Text("<think> i hear <seg>2.5, 4</seg>"), one)
    assert third.turns[1].parts == (*second.turns[1].parts, Text(" this, then <seg>7, 8</seg>"), two)
    assert [part.clip.offset_s for part in third.audio] == [0.0, 2.5, 7.0]
    assert reply.parts == (*third.turns[1].parts, Text(ANSWER))
    assert reply.text == f"<think> i hear <seg>2.5, 4</seg> this, then <seg>7, 8</seg>{ANSWER}"
    assert (reply.stop, reply.heard_again_s, reply.seconds) == (Stop.END, 2.5, 1.5)
    assert reply.heard.seconds_given == 12.5
    assert grade(reply.text, reply.stop, example()).outcome is Outcome.CORRECT


def test_every_generation_stops_at_a_citation_and_at_what_it_was_asked_to() -> None:
    reply, script = once(["<think> <seg>1, 2</seg>", " a ###"])
    assert script.samplings == [[replace(SAMPLING, stop=("###", "</seg>"))]] * 2
    assert reply.stop is Stop.STOP_STRING
    assert reply.text.endswith(" a ###")


def test_a_citation_in_a_finished_reply_is_no_further_turn() -> None:
    reply, script = once([f"<think> <seg>1, 2</seg>{ANSWER}"])
    assert len(script.asked) == 1
    assert reply.segments == ()


def test_what_cannot_be_heard_is_counted_by_its_kind_and_the_reply_goes_on() -> None:
    said = [f"<seg>{times}</seg>" for times in ("soon", "5, 3", "5, 5", "5, 5.1", "11, 12", "0, 5", "6, 9")]
    reply, script = once([*said, ANSWER], bounds=Bounds(total_s=5.0))
    assert [segment.fault for segment in reply.segments] == [
        Fault.MALFORMED, Fault.INVERTED, Fault.EMPTY, Fault.SHORT, Fault.OUTSIDE, None, Fault.SPENT,
    ]  # fmt: skip
    assert [len(asked[0].audio) for asked in script.asked] == [1, 1, 1, 1, 1, 1, 2, 2]
    assert reply.text == "".join(said) + ANSWER
    assert reply.stop is Stop.END
    assert reply.heard_again_s == 5.0


def test_the_seconds_of_a_reply_are_bounded_in_all() -> None:
    reply, _ = once([*["<seg>2, 6</seg>"] * 3, ANSWER], bounds=Bounds(total_s=7.0, longest_s=3.5))
    assert [segment.heard_s for segment in reply.segments] == [3.5, 3.5, 0.0]
    assert [segment.cut for segment in reply.segments] == [True, True, False]
    assert spans(reply) == [(2.0, 3.5), (2.0, 3.5)]


def test_a_reply_that_runs_out_of_turns_is_unfinished_and_hears_nothing_that_it_cannot_use() -> None:
    reply, script = once(["<think> dog <seg>1, 2</seg>"] * 4, bounds=Bounds(turns=3))
    assert len(script.asked) == len(reply.turns) == 3
    assert reply.stop is Stop.LENGTH
    assert grade(reply.text, reply.stop, example()).outcome is Outcome.UNFINISHED
    assert [segment.fault for segment in reply.segments] == [None, None, Fault.SPENT]
    assert reply.heard_again_s == reply.heard.seconds_given - 10.0 == 2.0
    assert isinstance(reply.parts[-1], Text)


def test_a_failed_generation_fails_the_reply() -> None:
    reply, _ = once(["<think> <seg>1, 2</seg>", "FAIL"])
    assert (reply.stop, reply.completion.error, reply.completion.logprobs) == (Stop.FAILED, "no room", None)
    assert grade(reply.text, reply.stop, example()).outcome is Outcome.FAILED


def test_replies_of_a_batch_end_in_turns_of_their_own() -> None:
    script = Script(
        one=["<seg>1, 2</seg>", "<seg>3, 4</seg>", " one"], two=[" two"], three=["<seg>5, 6</seg>", " three"]
    )
    samplings = [replace(SAMPLING, seed=seed) for seed in range(3)]
    seen: list[tuple[str, str, float | None]] = []
    asked = [example(name) for name in ("one", "two", "three")]

    def note(one: Example, text: str, segment: Segment | None) -> None:
        seen.append((one.id, text, segment and segment.start_s))

    replies = relisten(script, LOCAL, asked, samplings, words=GENERAL, on_said=note)
    assert [len(asked) for asked in script.asked] == [3, 2, 1]
    assert [[sampling.seed for sampling in asked] for asked in script.samplings] == [[0, 1, 2], [0, 2], [0]]
    assert [reply.text.split()[-1] for reply in replies] == ["one", "two", "three"]
    assert [len(reply.turns) for reply in replies] == [3, 1, 2]
    assert seen == [
        ("one", "<seg>1, 2</seg>", 1.0), ("two", " two", None), ("three", "<seg>5, 6</seg>", 5.0),
        ("one", "<seg>3, 4</seg>", 3.0), ("three", " three", None), ("one", " one", None),
    ]  # fmt: skip
    clips = [reply.turns[-1].conversation.clips[0] for reply in replies]
    assert clips == [example(name).clip for name in ("one", "two", "three")]
    with pytest.raises(ModelError, match="2 samplings for 3 questions"):
        relisten(script, LOCAL, asked, samplings[:2], words=GENERAL)


@pytest.mark.parametrize("continues", [False, True])
def test_without_audio_in_the_assistants_turn_the_crop_comes_in_a_further_one_of_the_user(continues: bool) -> None:
    able = Capabilities(continues_assistant=continues)
    reply, script = once(["<think> <seg>2, 4.5</seg>", " so <seg>1, 2</seg>", ANSWER], capabilities=able)
    last = script.asked[-1][0]
    assert [turn.role for turn in last.turns] == ["user", "assistant", "user", "assistant", "user"]
    assert last.turns[1].parts == (Text("<think> <seg>2, 4.5</seg>"),)
    assert last.turns[2].parts[0] == Audio(example().clip.crop(2.0, 4.5), fine=True)
    assert "from 2 to 4.5 s" in last.turns[2].text
    assert "from 1 to 2 s" in last.turns[4].text
    assert reply.text == f"<think> <seg>2, 4.5</seg> so <seg>1, 2</seg>{ANSWER}"


def test_where_nothing_is_heard_a_begun_turn_is_gone_on_with() -> None:
    able = Capabilities(continues_assistant=True)
    _, script = once(["<seg>5, 3</seg>", "<seg>1, 2</seg>", "<seg>3, 1</seg>", ANSWER], capabilities=able)
    last = script.asked[-1][0]
    assert [turn.role for turn in last.turns] == ["user", "assistant", "user", "assistant"]
    assert last.turns[1].text == "<seg>5, 3</seg><seg>1, 2</seg>"
    _, script = once(["<seg>5, 3</seg>", ANSWER], capabilities=Capabilities())
    assert [turn.role for turn in script.asked[-1][0].turns] == ["user", "assistant", "user"]
    assert len(script.asked[-1][0].audio) == 1


def test_the_tokens_of_all_turns_line_up_with_the_whole_text() -> None:
    reply, _ = once(["<think> <seg>2, 4</seg>", " so <seg>5, 3</seg>", ANSWER])
    whole = reply.completion
    assert whole.text == reply.text
    assert "".join(chr(token) for token in whole.token_ids) == reply.text
    assert whole.token_ends == tuple(range(1, len(reply.text) + 1))
    assert whole.logprobs == tuple(-token / 1000 for token in whole.token_ids)


def line_up(reply: Relistened) -> None:
    """Behind the tags that were rewritten, each token still ends where its character does."""
    whole = reply.completion
    assert list(whole.token_ends) == sorted(whole.token_ends)
    assert whole.token_ends[-1] == len(whole.text)
    for token, end in list(zip(whole.token_ids, whole.token_ends, strict=True))[-len(ANSWER) :]:
        assert whole.text[end - 1] == chr(token)


@pytest.mark.parametrize("cited", ["2, 4", "2.0001, 4.0001", "00:02, 00:04"])
def test_another_stretch_of_the_same_length_rewrites_the_tag(cited: str) -> None:
    starts: set[float] = set()
    for seed in range(20):
        reply, script = once([f"<think> a dog <seg>{cited}</seg>", ANSWER], random_segment(seed))
        ((start_s, length_s),) = spans(reply)
        assert length_s == 2.0
        assert start_s + 2.0 <= 2.0001 or start_s >= 4.0
        assert reply.text == f"<think> a dog <seg>{start_s:g}, {start_s + 2:g}</seg>{ANSWER}"
        assert script.asked[1][0].turns[1].parts == reply.parts[:2]
        assert (reply.segments[0].start_s, reply.segments[0].text) == (start_s, cited)
        line_up(reply)
        starts.add(start_s)
    assert len(starts) > 3


def test_another_stretch_is_another_one_even_where_there_is_no_room_beside_it() -> None:
    replies = [once(["<seg>1, 4</seg>", ANSWER], random_segment(seed), duration_s=5.0)[0] for seed in range(20)]
    assert {span for reply in replies for span in spans(reply)} == {(0.0, 3.0), (2.0, 3.0)}
    reply, _ = once(["<seg>0, 5</seg>", ANSWER], random_segment(0), duration_s=5.0)
    assert spans(reply) == [(0.0, 5.0)]


def test_another_stretch_depends_on_its_number_and_its_question_alone() -> None:
    turns = [*["<seg>4, 5</seg>"] * 4, ANSWER]
    one, again = (once(turns, random_segment(3))[0] for _ in range(2))
    assert spans(one) == spans(again)
    assert len(set(spans(one))) > 1
    assert spans(once(turns, random_segment(4))[0]) != spans(one)


def test_a_tag_is_rewritten_however_it_is_spelt() -> None:
    reply, _ = once(["a <seg>b</seg>", "İ <Seg>1, 3</seg>", ANSWER], random_segment(0))
    start_s = reply.segments[1].start_s
    assert reply.text == f"a <seg>b</seg>İ <seg>{start_s:g}, {(start_s or 0) + 2:g}</seg>{ANSWER}"


def test_silence_is_as_long_and_at_the_same_place() -> None:
    reply, _ = once(["<seg>2.5, 4</seg>", ANSWER], silence)
    (part,) = (part for part in reply.parts if isinstance(part, Audio))
    assert part.fine
    assert (part.clip.duration_s, part.clip.offset_s) == (1.5, 2.5)
    assert not part.clip.samples.any()
    assert reply.text == f"<seg>2.5, 4</seg>{ANSWER}"


def test_filler_is_no_audio_and_as_many_tokens() -> None:
    reply, script = once(["<seg>2.5, 4</seg>", ANSWER], filler(lambda audio: round(10 * audio.clip.duration_s)))
    assert reply.parts == (Text("<seg>2.5, 4</seg>"), Text(FILLER * 15), Text(ANSWER))
    assert script.asked[1][0].turns[1].parts == reply.parts[:2]
    assert reply.text == f"<seg>2.5, 4</seg>{ANSWER}"
    reply, _ = once(["<seg>2, 4</seg>", ANSWER], filler())
    assert reply.parts[1] == Text(FILLER * 50)
    line_up(reply)


@pytest.mark.parametrize("fine", [False, True])
def test_the_whole_clip_again(fine: bool) -> None:
    reply, _ = once(["<seg>2, 4</seg>", ANSWER], whole_clip(fine=fine))
    assert reply.parts[1] == Audio(example().clip, fine=fine)
    assert reply.segments[0].heard_s == 2.0


def test_the_oracle_hears_the_evidence_one_stretch_after_the_other() -> None:
    said = ["<seg>0, 1</seg>", "<seg>9, 1</seg>", "<seg>0, 1</seg>", "<seg>5, 6</seg>", ANSWER]
    reply, _ = once(said, oracle_segment(lambda one: one.evidence or ()))
    assert spans(reply) == [(2.0, 2.0), (7.0, 1.0), (5.0, 1.0)]
    assert reply.text == f"<seg>2, 4</seg><seg>9, 1</seg><seg>7, 8</seg><seg>5, 6</seg>{ANSWER}"
    line_up(reply)


def test_the_oracles_stretch_is_as_long_as_the_one_that_was_cited() -> None:
    said = ["<seg>0, 6</seg>", "<seg>0, 3</seg>", ANSWER]
    reply, _ = once(said, oracle_segment(lambda _: [(7.5, 8.5), (3.0, 4.2)]))
    assert spans(reply) == [(4.0, 6.0), (2.0, 3.0)]  # of 10 s; whole seconds


def test_a_model_of_one_rate_hears_again_at_that_rate() -> None:
    reply, _ = once(["<seg>2, 4</seg>", ANSWER], fine=False)
    assert reply.parts[1] == Audio(example().clip.crop(2.0, 4.0), fine=False)


# ---- real architectures

SHORT = Prompt("short", {"listen": "where?", "once": "", "go_on": ""})
GREEDY = Sampling(max_new_tokens=8)

MODELS: dict[str, tuple[Callable[[Path], Path], bool]] = {
    "fused": (tiny_fused, True),
    "qwen2_audio": (tiny_qwen2_audio, False),
    "qwen2_5_omni": (tiny_qwen25_omni, False),
}


@pytest.fixture(scope="module", params=list(MODELS))
def heard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[LocalEngine, bool]:
    make, fine = MODELS[request.param]
    return load_local(str(make(tmp_path_factory.mktemp(request.param))), device="cpu", threads=1), fine


def citing(said: list[Completion], tags: Sequence[str]) -> list[Completion]:
    """A random model writes no citation: it gets one behind what it says."""
    return [
        replace(one, text=one.text.replace("<seg>", "") + tag, stop=Stop.STOP_STRING) if tag else one
        for one, tag in zip(said, tags, strict=True)
    ]


TAGS = {"one": ["<seg>1, 2</seg>", "<seg>0, 0.5</seg>"], "two": [], "three": ["<seg>3, 9</seg>"]}
HEARD = {"one": [(1.0, 2.0), (0.0, 0.5)], "two": [], "three": [(3.0, 4.0)]}


def test_greedy_relistening_is_generate_one_by_one(heard: tuple[LocalEngine, bool]) -> None:
    engine, fine = heard
    left = {name: iter([*own, ""]) for name, own in TAGS.items()}

    def ask(conversations: Sequence[Conversation], samplings: Sequence[Sampling]) -> list[Completion]:
        names = [next(n for n in TAGS if f"what is {n}?" in c.turns[0].text) for c in conversations]
        return citing(engine.generate(conversations, list(samplings)), [next(left[name]) for name in names])

    asked = [example(name, 4.0) for name in TAGS]
    replies = relisten(ask, engine.capabilities, asked, GREEDY, words=SHORT, fine=fine)
    for one, reply in zip(asked, replies, strict=True):
        conversation, parts = question_of(one, SHORT), list[Part]()
        for tag, span in zip([*TAGS[one.id], None], [*HEARD[one.id], None], strict=True):
            (said,) = engine.generate([conversation], replace(GREEDY, stop=("</seg>",)))
            parts.append(Text(said.text.replace("<seg>", "") + tag if tag else said.text))
            if span:
                parts.append(Audio(one.clip.crop(*span), fine=fine))
                conversation = question_of(one, SHORT).assistant(*parts)
        assert reply.parts == tuple(parts)
        last = reply.turns[-1]
        assert last.conversation.key == conversation.key
        assert last.completion.token_ids == said.token_ids
        assert last.completion.logprobs == pytest.approx(said.logprobs, abs=1e-4)
        assert reply.heard == said.heard
        assert reply.heard.seconds_heard == pytest.approx(4.0 + reply.heard_again_s)
        assert len(reply.turns) == 1 + len(HEARD[one.id])
    assert len({reply.turns[-1].completion.logprobs for reply in replies}) == 3, "the replies should differ"


def test_what_is_heard_again_changes_what_is_said(heard: tuple[LocalEngine, bool]) -> None:
    engine, fine = heard
    said: list[Completion] = []
    for inserted in (as_cited, silence, random_segment(1), filler()):
        tags = iter(["<seg>1, 2</seg>", ""])

        def ask(
            conversations: Sequence[Conversation], samplings: Sequence[Sampling], tags: Iterator[str] = tags
        ) -> list[Completion]:
            return citing(engine.generate(conversations, list(samplings)), [next(tags)])

        (reply,) = relisten(
            ask, engine.capabilities, [example("one", 4.0)], GREEDY, words=SHORT, inserted=inserted, fine=fine
        )
        said.append(reply.turns[1].completion)
    assert len({one.logprobs for one in said}) == 4
    assert [one.heard.seconds_given for one in said] == [5.0, 5.0, 5.0, 4.0]


def test_a_stop_that_the_model_writes_itself_is_where_it_hears_again(tmp_path: Path) -> None:
    engine = load_local(str(tiny_fused(tmp_path)), device="cpu", threads=1)
    asked = [example(str(number), 4.0) for number in range(12)]
    samplings = [Sampling(max_new_tokens=80, temperature=3.0, seed=seed) for seed in range(12)]
    replies = relisten(engine.generate, engine.capabilities, asked, samplings, words=SHORT, bounds=Bounds(turns=3))
    again = [reply for reply in replies if len(reply.turns) > 1]
    assert again, "no reply cites anything"
    closing = engine.family.continuation_ids("</seg>")[-1]
    for reply in again:
        assert all(turn.completion.token_ids[-1] == closing for turn in reply.turns[:-1])
        assert {segment.fault for segment in reply.segments} == {Fault.MALFORMED}
        assert reply.turns[1].conversation.turns[-1].text == reply.turns[0].completion.text
        assert reply.completion.token_ends[-1] == len(reply.text)
        assert len(reply.completion.token_ids) == len(reply.completion.logprobs or ())
