"""Every method over an engine that remembers what it was asked."""

from collections.abc import Sequence

import pytest
from tests.tiny import tone

from earnest.completion import Completion, Stop
from earnest.conversation import Conversation
from earnest.errors import RecipeError
from earnest.example import Example
from earnest.prompts import Prompt
from earnest.reliability.prompting import HEARD_CHARACTERS, methods, modality_of, task_agent

EXAMPLES = [
    Example("a", (tone(440, 0.5),), "which word is said?", ("dog", "cat"), "dog"),
    Example("b", (tone(550, 0.5),), "which instrument is it?", ("piano", "flute"), "flute"),
    Example("c", (tone(660, 0.5),), "what sounds?", None, "a bell"),
]


class Model:
    """Answers by what the question says, and fails on clips that it is told to fail on."""

    def __init__(self, kinds: Sequence[str] = ("speech.", "this is Music", "?"), fails: Sequence[str] = ()) -> None:
        self.kinds = dict(zip((e.clip.key for e in EXAMPLES), kinds, strict=True))
        self.fails = fails
        self.asked: list[tuple[str, str]] = []

    def __call__(self, conversations: Sequence[Conversation]) -> list[Completion]:
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation: Conversation) -> Completion:
        text, key = conversation.turns[-1].text, conversation.clips[0].key
        self.asked.append((key, text))
        if any(word in text for word in self.fails):
            return Completion("", Stop.FAILED, error="broken")
        if "Is this sound" in text:
            return Completion(self.kinds[key], Stop.END)
        return Completion(f"<think> hm</think> reply to {text.strip().splitlines()[0]}", Stop.END)


def test_each_method_gives_one_completion_for_each_example_in_order() -> None:
    for method in methods():
        done = method.answer(EXAMPLES, Model())
        assert [c.text.split("reply to ")[1] for c in done] == [e.question for e in EXAMPLES]
        assert method.answer([], Model()) == []
    assert [method.shown for method in methods()] == [
        "untouched", "forced (forced-2)", "idk_prompt (idk-1)", "mcot (mcot-1)", "task_agent (task-agent-1)",
    ]  # fmt: skip


def test_an_instruction_is_the_last_line() -> None:
    model = Model()
    untouched, forced, idk, mcot, _ = methods()
    for method in (untouched, forced, idk, mcot):
        method.answer(EXAMPLES[:1], model)
    plain, must, may, steps = (text for _, text in model.asked)
    assert plain == "\n\nwhich word is said?\nChoices: dog; cat."
    assert must == f"{plain}\nYou must answer: give your best guess, even if you are not sure."
    assert may == f"{plain}\nIf you are not sure, say I don't know."
    assert steps.startswith(f"{plain}\nFirst say what you hear")
    assert "I don't know" in steps


def test_the_task_agent_asks_the_tool_of_the_modality_and_hands_its_words_over() -> None:
    model = Model()
    task_agent(Prompt.load("reliability", "task-agent-1")).answer(EXAMPLES, model)
    texts = [text.strip() for _, text in model.asked]
    assert texts[:3] == ["Is this sound, music or speech?"] * 3
    assert texts[3:6] == ["Transcribe the speech.", "Describe the music.", "Describe the audio."]
    assert texts[6].splitlines()[2] == "I heard: reply to Transcribe the speech."
    assert texts[8].endswith("If you are not sure, say I don't know.")
    assert {key for key, _ in model.asked} == {e.clip.key for e in EXAMPLES}


def test_a_tool_that_fails_is_the_items_failure() -> None:
    model = Model(fails=("music",))
    done = task_agent(Prompt.load("reliability", "task-agent-1")).answer(EXAMPLES, Model(fails=("Describe the music",)))
    assert [c.stop for c in done] == [Stop.END, Stop.FAILED, Stop.END]
    assert done[2].text.endswith("what sounds?")
    answered = task_agent(Prompt.load("reliability", "task-agent-1")).answer(EXAMPLES, model)
    assert [c.stop for c in answered] == [Stop.FAILED] * 3


def test_a_tool_that_repeats_itself_is_cut() -> None:
    long = Model()
    long._one = lambda conversation: (  # type: ignore[method-assign]
        long.asked.append(("", conversation.turns[-1].text)) or Completion("la " * 1000, Stop.LENGTH)
    )
    task_agent(Prompt.load("reliability", "task-agent-1")).answer(EXAMPLES[:1], long)
    assert len(long.asked[-1][1]) < HEARD_CHARACTERS + 200


def test_modalities_are_read_from_what_was_said_first() -> None:
    assert modality_of("sound, speech.") == "sound"
    assert modality_of("It is Speech over music.") == "speech"
    assert modality_of("It sounds like speech.") == "speech"
    assert modality_of("<think>speech? no, a melody</think><answer>music</answer>") == "music"
    assert modality_of("I cannot tell") == "sound"


def test_an_unknown_prompt_names_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="known are forced-2, forced-pocket-1, idk-1"):
        Prompt.load("reliability", "idk-9")
