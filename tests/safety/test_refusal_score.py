"""The white-box refusal score."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_fused

from earnest.completion import Completion, Stop
from earnest.conversation import Conversation
from earnest.engines.load import load_local
from earnest.safety.refusal_score import openings, refusal_scores, separation


def said(text: str, *ids: int) -> Completion:
    return Completion(text=text, stop=Stop.END, token_ids=ids)


def test_openings_are_what_refusals_begin_with() -> None:
    replies = [said("I cannot help with that.", 7)] * 30 + [said("Sorry, I can't help with that.", 8)] * 10
    replies += [said("I must decline.", 9), said("Take it.", 3)]
    assert openings(replies) == (7, 8), "one in forty is no opening, and an answer none at all"
    assert (
        openings(
            [
                said("Take it.", 3),
                said(
                    "",
                ),
            ]
        )
        == ()
    )


def test_the_score_is_the_log_odds_of_an_opening(tmp_path: Path) -> None:
    engine = load_local(str(tiny_fused(tmp_path)), device="cpu", threads=1)
    asked = [Conversation().user("zorple"), Conversation().user("a much longer request than the first")]
    hidden = engine.last_hidden(asked)
    head: Any = engine.family.language_model.get_output_embeddings()
    with torch.no_grad():
        shares = head(hidden).softmax(-1)[:, [5, 9]].sum(-1)
    expected = [math.log(share / (1 - share)) for share in shares.tolist()]
    assert refusal_scores(engine, asked, (5, 9)) == pytest.approx(expected, abs=1e-3)


def test_separation() -> None:
    assert separation([3, 4], [1, 2]) == 1
    assert separation([1, 2], [3, 4]) == 0
    assert separation([1, 1], [1, 1]) == 0.5
    assert math.isnan(separation([], [1]))
