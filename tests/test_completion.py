import json

import pytest

from earnest.completion import Completion, Heard, Sampling, Stop, content_key
from earnest.errors import RecipeError


def test_greedy_key_ignores_what_cannot_change_the_reply():
    assert Sampling(seed=1, top_p=0.5).key == Sampling().key
    assert Sampling(temperature=1.0, seed=1).key != Sampling(temperature=1.0).key
    assert Sampling(max_new_tokens=8).key != Sampling().key
    assert Sampling(stop=("</seg>",)).key != Sampling().key
    assert Sampling(temperature=1).key == Sampling(temperature=1.0).key


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"stop": ("",)}]
)
def test_sampling_out_of_range_names_the_value(wrong: dict):
    with pytest.raises(RecipeError, match=next(iter(wrong)) if "stop" not in wrong else "stop string"):
        Sampling(**wrong)


@pytest.mark.parametrize("logprobs", [None, (-0.1, -2.5e-7)])
def test_completion_survives_json(logprobs):
    completion = Completion("a\u2028ü", Stop.LENGTH, (1, 2), logprobs, 7, Heard(2.5, 2.0, 9), 0.1, token_ends=(1, 3))
    assert Completion.from_json(json.loads(json.dumps(completion.to_json()))) == completion


def test_content_key_does_not_depend_on_the_order_of_names():
    assert content_key({"a": 1, "b": [2]}) == content_key({"b": [2], "a": 1})
    assert content_key(["a", "b"]) != content_key(["ab"])
