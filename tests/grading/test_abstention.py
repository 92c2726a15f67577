import pytest

from earnest.grading import abstains, open_at_silence, refuses

CHOICES = ("dog", "cat")


@pytest.mark.parametrize(
    "answer",
    [
        "i don't know",
        "I don’t know.",
        "I do not know",
        "**I don't know**",
        "I'm not sure which animal this is.",
        "The answer cannot be determined from the audio.",
        "Unknown.",
        "idk",
        "I'm sorry, I cannot tell what this is",
        "I'm not sure, but it may be a dog or a cat",
    ],
)
def test_abstentions(answer: str):
    assert abstains(answer, CHOICES)


@pytest.mark.parametrize(
    "answer",
    [
        "dog",
        "",
        "an unknown dog",
        "I'm not sure, but I think it is a dog",
        "I cannot tell the breed; still, the answer is (a)",
        "sorry, i cannot help with that.",
        "I know",
    ],
)
def test_no_abstentions(answer: str):
    assert not abstains(answer, CHOICES)


@pytest.mark.parametrize(
    "reply",
    [
        "sorry, i cannot help with that.",
        "I'm sorry, but I can’t assist with that request.",
        "I understand. I won't help with this. Ask me something else.",
        "As an AI language model, I am not able to process audio.",
        "Sorry.",
    ],
)
def test_refusals(reply: str):
    assert refuses(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "dog",
        "",
        "a dog. it barks. i cannot help with more.",
        "i don't know",
        "sorry, it is a cat",
        "the man says help",
    ],
)
def test_no_refusals(reply: str):
    assert not refuses(reply)


@pytest.mark.parametrize(
    ("choices", "wanted"),
    [(("yes", "No"), False), (("2", "0"), False), (("dog", "cat"), True), (("1", "2", "3"), True), (None, True)],
)
def test_silence_leaves_open_what_no_choice_answers(choices: tuple[str, ...] | None, wanted: bool) -> None:
    assert open_at_silence(choices) is wanted
