import pytest

from earnest.grading import match_option, mmau_match, mmsu_letter

ANIMALS = ("dog", "cat", "dog barking loudly", "a bird")
NINE = tuple(f"thing {word}" for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


@pytest.mark.parametrize(
    ("answer", "choices", "index"),
    [
        ("dog", ANIMALS, 0),
        ("The Dog.", ANIMALS, 0),
        ("bird", ANIMALS, 3),
        ("**cat**", ANIMALS, 1),
        ("B", ANIMALS, 1),
        ("(b)", ANIMALS, 1),
        ("b.", ANIMALS, 1),
        ("Option C", ANIMALS, 2),
        ("Answer: B", ANIMALS, 1),
        ("B. cat", ANIMALS, 1),
        ("(b) a cat", ANIMALS, 1),
        ("b) it is in the background", ANIMALS, 1),
        ("The answer is B", ANIMALS, 1),
        ("The correct answer is (b), because it meows.", ANIMALS, 1),
        ("The answer is b because of the dog outside", ANIMALS, None),
        ("The answer is a cat.", ANIMALS, 1),
        ("Dogs are loud. My final answer is: cat. A dog would bark.", ANIMALS, 1),
        ("I choose option B", ANIMALS, 1),
        ("I hear a dog barking loudly in a yard", ANIMALS, 2),
        ("it is a dog, not a cat", ANIMALS, 0),
        ("I hear thing three", NINE, 2),
        ("I think nothing", NINE, None),
        ("I", NINE, 8),
        ("thing 3", NINE, 2),
        ("A dog", ("cat", "dog"), 1),
        ("a dog or a cat", ("cat", "dog"), None),
        ("a. dog", ("cat", "dog"), None),
        ("elephant", ANIMALS, None),
        ("E", ANIMALS, None),
        ("", ANIMALS, None),
        ("10.5", ("10", "100"), None),
        ("10", ("10", "100"), 0),
        ("ten times", ("10", "100"), 0),
        ("two", ("1", "2", "3"), 1),
        ("c#", ("c", "c#"), 1),
        ("b", ("b", "a"), 0),
        ("no", ("yes", "no"), 1),
        ("e.g. the cat", ANIMALS, 1),
        ("die Katze", ("der Hund", "die Katze"), 1),
        ("猫", ("犬", "猫"), 1),
    ],
)
def test_which_choice_is_named(answer: str, choices: tuple[str, ...], index: int | None):
    assert match_option(answer, choices).index == index


def test_the_reason_is_given():
    assert match_option("dog or cat", ANIMALS).detail == "names 2 choices: dog, cat"
    assert match_option("(a) cat", ANIMALS).detail == "the letter A is 'dog', the text is 'cat'"
    assert match_option("(b) cat", ANIMALS).how == "letter and text"
    assert match_option("cow", ANIMALS).detail == "names none of the choices"


@pytest.mark.parametrize("choices", [ANIMALS, NINE, ("10", "100"), ("A", "B"), ("yes", "no"), ("I", "you")])
def test_every_choice_names_itself(choices: tuple[str, ...]):
    for index, choice in enumerate(choices):
        assert match_option(choice, choices).index == index
        assert match_option(f"({chr(97 + index)}) {choice}", choices).index == index


def test_official_mmau_vectors():
    choices = ["Dog barking", "Cat meowing"]
    for prediction, right in (
        ("Dog barking", True),
        ("barking dog", True),
        ("The dog is barking", True),
        ("Dog barking, not cat", False),
        ("", False),
        ("...", False),
    ):
        assert mmau_match(prediction, "Dog barking", choices) is right
    assert mmau_match("10.5", "10", ["10", "100"])  # the official weakness
    assert not mmau_match("100", "10", ["10", "100"])


def test_official_mmsu_letters():
    assert [mmsu_letter(text) for text in ("B", "C. cat", "the answer is D.", "(A)", "dog", "", "b")] == [
        1, 2, 3, 0, None, None, None,
    ]  # fmt: skip
