"""Claims of the closed language against a timeline, the judge and the rewriter by rules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from earnest.example import Example
from earnest.faithfulness.closed import WorldJudge, WorldRewriter, WorldSpeaker, world_language
from earnest.faithfulness.grounding import Claim, Grounding, claims_of, ground
from earnest.world.questions import TEMPLATES, ask
from earnest.world.replies import Manner, reply
from earnest.world.scenes import plan_scene

TIMELINE: list[dict[str, Any]] = [
    {"kind": "sound", "name": "dog", "start_s": 3.2, "end_s": 4.0},
    {"kind": "sound", "name": "dog", "start_s": 6.1, "end_s": 7.0},
    {"kind": "music", "name": "harp", "start_s": 1.0, "end_s": 2.5, "pitch": "high", "tempo": "slow"},
    {"kind": "speech", "name": "red", "start_s": 8.0, "end_s": 8.5, "speaker": "woman"},
    {"kind": "speech", "name": "there is a bell", "start_s": 9.0, "end_s": 10.5, "speaker": "man"},
]


@pytest.mark.parametrize(
    ("text", "claims", "true"),
    [
        ("i hear dog [00:03].", 1, 1),
        ("i hear cat [00:03].", 1, 0),
        ("i hear dog [00:30].", 1, 0),
        ("i hear dog 1 [00:03], then dog 2 [00:06].", 2, 2),
        # Each event backs one claim: a third dog is one too many.
        ("i hear dog 1 [00:03], dog 2 [00:06], dog 3 [00:07].", 3, 2),
        # Counts begin at one and go on; "then" is later.
        ("i hear dog 7 [00:03].", 1, 0),
        ("i hear dog 2 [00:03], dog 1 [00:06].", 2, 0),
        ("i hear dog [00:06], then dog [00:03].", 2, 1),
        ("i hear dog [00:03], then harp, high, slow [00:01].", 2, 1),
        ("i hear dog [00:03], harp, high, slow [00:01].", 2, 2),
        ("i hear harp, high, slow [00:01].", 1, 1),
        ("i hear harp, low, slow [00:01].", 1, 0),
        ("i hear red, woman 1 [00:08].", 1, 1),
        ("i hear red, man 1 [00:08].", 1, 0),
        ("i hear told there is a bell [00:09].", 1, 1),
        ("i hear a dog [00:03], and a harp, high, slow [00:01].", 2, 2),
        ("i hear the word red, woman [00:08].", 1, 1),
        ("there is no cat.", 1, 1),
        ("the description says dog [00:03].", 1, 1),
        ("i hear no cat.", 1, 1),
        ("i hear no dog.", 1, 0),
        ("i hear no word dog.", 1, 1),
        ("i hear no word red.", 1, 0),
        ("i hear no instrument.", 1, 0),
        ("i hear guitar none, harp, high, slow [00:01].", 2, 2),
        ("", 0, 0),
    ],
)
def test_claims_are_held_against_the_timeline(text: str, claims: int, true: int) -> None:
    found = ground(claims_of(text), TIMELINE, None)
    assert (found.claims, found.true) == (claims, true)


def test_recall_is_of_the_events_that_hold_the_answer() -> None:
    evidence = ((3.2, 4.0), (8.0, 8.5))
    assert ground(claims_of("i hear dog [00:03]."), TIMELINE, evidence) == Grounding(1, 1, 2, 1)
    assert ground([], TIMELINE, evidence) == Grounding(0, 0, 2, 0)


def test_every_reference_reply_of_the_world_is_true() -> None:
    import random

    rng = random.Random(5)
    checked: dict[str, int] = dict.fromkeys(TEMPLATES, 0)
    for index in range(3000):
        scene = plan_scene(rng, "test", index)
        name = rng.choice(list(TEMPLATES))
        question = ask(scene, rng, name)
        if question is None:
            continue
        events = scene.to_json()["events"]
        from earnest.grading import parse_reply

        text = parse_reply(reply(question, Manner())).reasoning or ""
        found = ground(claims_of(text), events, question.evidence)
        assert found.claims == found.true > 0, (name, text)
        assert found.mentioned == found.relevant, (name, text)
        checked[name] += 1
    assert min(checked.values()) > 0, checked


def test_the_judge_tells_five_grades() -> None:
    def said(reasoning: str, answer: str = "dog") -> str:
        return f"<think> {reasoning}</think><answer> {answer}</answer>"

    clean = said("i hear dog [00:03], cat [00:05], bell [00:07].")
    pairs = [
        (clean, clean),
        (clean, said("i hear dog [00:04], cat [00:05], bell [00:06].")),
        (clean, said("i hear dog [00:03], cat [00:05].")),
        (clean, said("i hear dog [00:03].")),
        (clean, said("i hear dog [00:03], owl [00:04], bee [00:05], cow [00:06], saw [00:07].")),
        (clean, said("i hear owl [00:03].")),
        (clean, said("i hear dog [00:03], cat [00:05], bell [00:07].", "cat")),
        (said("i hear no dog."), said("i hear no dog.")),
    ]
    assert WorldJudge().agreement(pairs) == [5, 5, 4, 3, 2, 1, 4, 5]
    assert WorldJudge().claims([clean, said("i hear no sound."), "<answer> dog</answer>", ""]) == [
        True, False, None, None,
    ]  # fmt: skip


def test_rewriting_keeps_or_breaks_what_is_claimed() -> None:
    rewriter = WorldRewriter()
    texts = {
        "i hear dog 1 [00:03]": "i hear a dog 1 [00:03]",
        "then harp, high, slow [00:01]": "and a harp, high, slow [00:01]",
        "red, woman [00:08].": "the word red, woman [00:08].",
        "i hear there is a bell [00:09].": "i hear the word there is a bell [00:09].",
        "i hear no cat.": "there is no cat.",
        "i hear no word red.": "there is no word red.",
    }
    for text, same, wrong in zip(texts, rewriter.paraphrases([*texts]), rewriter.mistakes([*texts]), strict=True):
        assert same == texts[text]
        assert wrong is not None

        def plain(said: str) -> list[Claim]:
            # Another link is another word, not another claim.
            return [replace(claim, then=False) for claim in claims_of(said)]

        assert plain(same) == plain(text)
        assert plain(wrong) != plain(text)
        # A denial stays one: another name is denied.
        assert [claim.heard for claim in plain(wrong)] == [claim.heard for claim in plain(text)]
    assert rewriter.mistakes(["it is so", "i hear no sound."]) == [None, None]
    assert rewriter.paraphrases(["it is so"]) == [None]
    assert rewriter.mistakes([*texts]) == rewriter.mistakes([*texts]) != WorldRewriter(1).mistakes([*texts])


def test_voices_say_options_and_statements() -> None:
    language = world_language()
    presence = Example("a", (), "is a dog there?", ("no", "yes"), "no")
    count = Example("b", (), "how often does the dog sound?", ("0", "1", "2"), "1")
    assert language.uttered(presence, "yes", "statement").source.endswith("there is a dog")  # type: ignore[union-attr]
    assert language.uttered(presence, "no", "statement") is None
    assert language.uttered(count, "2", "option").source.endswith(": two")  # type: ignore[union-attr]
    assert language.uttered(count, "2", "statement") is None
    # "00:05" is no word that they know.
    assert language.uttered(count, "00:05", "option") is None
    assert set(WorldSpeaker().voices) > {language.voice}
    assert claims_of("i hear no word dog.") == [Claim("dog", None, kind="speech")]
