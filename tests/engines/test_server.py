"""The client against a server on loopback that speaks the protocol, and misbehaves on demand."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import pytest
from tests.stub_server import Act, cut, length, raw, reply, running, slow, status, trickling
from tests.tiny import tone

from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import load
from earnest.engines.server import ServerEngine, served_model
from earnest.errors import ModelError


@pytest.fixture
def server() -> Generator[Any]:
    with running() as made:
        yield made


@pytest.fixture
def engine(server: Any, monkeypatch: pytest.MonkeyPatch) -> ServerEngine:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr("earnest.engines.server.FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr("earnest.engines.server.LONGEST_PAUSE_S", 0.02)
    return ServerEngine(server.url, "m", retries=2, timeout_s=0.5)


def asked(engine: ServerEngine) -> tuple[Completion, float]:
    """A reply and its seconds."""
    began = time.perf_counter()
    done = engine.generate([Conversation().user("hello?")])[0]
    return done, time.perf_counter() - began


def test_tries_end_at_the_deadline(server: Any) -> None:
    server.script = [status(429, Retry_After="30")]
    hurried = ServerEngine(server.url, "m", retries=9, deadline_s=2.0)
    done, seconds = asked(hurried)
    assert seconds < 2.0
    assert done.stop == Stop.FAILED
    assert "answered 429" in done.error
    assert "given up after 1 tries: the deadline is 2 s" in done.error
    server.script = [slow] * 9
    patient = ServerEngine(server.url, "m", retries=9, timeout_s=0.4, deadline_s=1.5)
    done, seconds = asked(patient)
    assert 0.8 < seconds < 2.5
    assert done.stop == Stop.FAILED
    assert "the deadline is 1.5 s" in done.error


def test_a_reply_that_trickles_in_is_cut_at_the_deadline(server: Any) -> None:
    server.script = [trickling]
    patient = ServerEngine(server.url, "m", retries=9, timeout_s=0.5, deadline_s=1.0)
    done, seconds = asked(patient)
    assert 0.9 < seconds < 2.0
    assert done.stop == Stop.FAILED
    assert "given up after 1 tries: the deadline is 1 s" in done.error
    assert len(server.requests) == 1


def test_the_server_says_when_to_try_again(server: Any) -> None:
    patient = ServerEngine(server.url, "m", retries=2)
    # A date of HTTP has whole seconds: this one is more than one second and at most two ahead.
    at = int(time.time()) + 2
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))
    server.script = [status(503, Retry_After=date), status(429, Retry_After="0.2")]
    done, seconds = asked(patient)
    assert done.stop == Stop.END
    assert time.time() >= at + 0.2
    assert 1.0 < seconds < 4.0
    assert len(server.requests) == 3


def test_names_of_served_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert served_model("server:http://a:1/v1/#Org/M") == ("http://a:1/v1", "Org/M")
    assert served_model("openai/gpt", "http://b/v1") == ("http://b/v1", "gpt")
    assert served_model("openai/gpt") == ("https://api.openai.com/v1", "gpt")
    assert served_model("pocket") is None
    for odd in ("server:localhost", "server:http://user:secret@host/v1#m"):
        with pytest.raises(ModelError, match="write server:http"):
            served_model(odd)
    assert isinstance(load("server:http://127.0.0.1:1/v1#m"), ServerEngine)


def test_audio_goes_out_as_input_audio_before_the_question(engine: ServerEngine, server: Any) -> None:
    clip = tone(440, 1.0)
    done = engine.generate([Conversation().user(Audio(clip), "what?")], Sampling(max_new_tokens=7))[0]
    assert done.stop == Stop.END
    assert done.text.startswith("heard ")
    body = server.requests[0]
    assert [part["type"] for part in body["messages"][0]["content"]] == ["input_audio", "text"]
    assert body["messages"][0]["content"][0]["input_audio"]["format"] == "wav"
    assert (body["max_tokens"], body["temperature"], body["model"]) == (7, 0.0, "m")
    assert done.prompt_tokens == length(body)
    assert done.heard.seconds_given == 1.0
    assert done.heard.seconds_heard is None


def test_order_is_kept_and_clips_go_out_together(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [tone(300 + 100 * k, 0.2) for k in range(3)]
    asked = [Conversation().user(Audio(clips[k % 3]), f"question {k}") for k in range(9)]
    one = ServerEngine(server.url, "m", max_connections=1)
    done = one.generate(asked)
    assert [f"question {k}" in c.text for k, c in enumerate(done)] == [True] * 9
    sent = [body["messages"][0]["content"][0]["input_audio"]["data"] for body in server.requests]
    assert [sent.index(data) for data in sent] == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    assert len(server.peers) == 1, "the connection is kept"


def test_requests_run_side_by_side(server: Any) -> None:
    server.script = [slow] * 8
    wide = ServerEngine(server.url, "m", max_connections=8)
    began = time.perf_counter()
    wide.generate([Conversation().user(f"{k}?") for k in range(8)])
    assert server.most_open > 4
    assert time.perf_counter() - began < 6.0


@pytest.mark.parametrize("fault", [status(429, Retry_After="0.01"), status(500), status(503), cut, slow])
def test_faults_that_pass_are_tried_again(engine: ServerEngine, server: Any, fault: Act) -> None:
    server.script = [fault]
    done = engine.generate([Conversation().user("hello?")])[0]
    assert done.stop == Stop.END
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (status(500), "answered 500"),
        (status(400), "answered 400"),
        (status(401), "answered 401"),
        (cut, "no reply"),
        (slow, "no reply"),
        (raw(b"{not json"), "no reply"),
        (raw(b"{}"), "no choice"),
        (raw(b'{"choices": [{}]}'), "cannot be read"),
        (raw(b'{"choices": ["x"]}'), "cannot be read"),
        (raw(b"\xff\xfe"), "no reply"),
        (raw(reply("")), "empty reply"),
        (raw(reply(None)), "empty reply"),
        (raw(reply("part of", finish="content_filter")), "content filter"),
    ],
)
def test_faults_that_stay_are_that_items_failure(engine: ServerEngine, server: Any, fault: Act, why: str) -> None:
    server.script = [fault] * 3
    one = ServerEngine(server.url, "m", retries=2, timeout_s=0.5, max_connections=1)
    done = one.generate([Conversation().user("hello?"), Conversation().user("and?")])
    assert done[0].stop == Stop.FAILED
    assert why in done[0].error
    assert "sk-secret" not in done[0].error
    assert not done[0].text
    # The first took what was scripted in three tries, or its first fault is of the kind that is not tried again.
    assert (done[1].stop == Stop.END) == (not server.script)


def test_the_key_is_sent_and_written_nowhere(engine: ServerEngine, server: Any) -> None:
    engine.generate([Conversation().user("hello?")])
    assert server.headers_seen[0]["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in repr(vars(engine)["base_url"]) + engine.key + repr(engine.settings) + engine.name


def test_length_and_stop_strings(engine: ServerEngine, server: Any) -> None:
    server.script = [raw(reply("one two", finish="length")), raw(reply("one </think> two"))]
    one = ServerEngine(server.url, "m", max_connections=1)
    cut_off, stopped = one.generate([Conversation().user("a"), Conversation().user("b")], Sampling(stop=("</think>",)))
    assert (cut_off.stop, cut_off.text) == (Stop.LENGTH, "one two")
    assert (stopped.stop, stopped.text) == (Stop.STOP_STRING, "one </think>")


def test_continuing_is_probed_once(engine: ServerEngine, server: Any) -> None:
    begun = Conversation().user("hello?").assistant("<think>well")
    done = engine.generate([begun, begun.append(" so")])
    assert engine.capabilities.continues_assistant
    assert all(c.stop == Stop.END for c in done)
    assert len(server.requests) == 4, "two to probe, two to answer"
    assert server.requests[-1]["continue_final_message"] is True
    lost = engine.generate([begun.append(Audio(tone(440, 0.1)))])[0]
    assert lost.stop == Stop.FAILED
    assert "end it in text" in lost.error


def test_a_server_that_cannot_continue_is_not_asked_to(engine: ServerEngine, server: Any) -> None:
    server.script = [status(400)]
    done = engine.generate([Conversation().user("hello?").assistant("<think>well")])[0]
    assert done.stop == Stop.FAILED
    assert "does not continue" in done.error
    assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [status(503), slow])
def test_a_fault_while_probing_is_not_an_answer(engine: ServerEngine, server: Any, fault: Act) -> None:
    server.script = [fault] * 3
    begun = Conversation().user("hello?").assistant("<think>well")
    first = engine.generate([begun])[0]
    assert first.stop == Stop.FAILED
    assert "could not be asked" in first.error
    assert engine.generate([begun])[0].stop == Stop.END, "the next time it is asked again"


def test_one_cut_connection_does_not_fail_the_others(engine: ServerEngine, server: Any) -> None:
    server.script = [cut, cut, cut]
    one = ServerEngine(server.url, "m", retries=2, timeout_s=0.5, max_connections=1)
    done = one.generate([Conversation().user(f"{k}?") for k in range(4)])
    assert [c.stop for c in done] == [Stop.FAILED, Stop.END, Stop.END, Stop.END]


def test_an_error_is_no_copy_of_the_request(engine: ServerEngine, server: Any) -> None:
    server.script = [lambda handler, _: handler.send(422, b'{"error": {"message": "' + b"A" * 100_000 + b'"}}')]
    done = engine.generate([Conversation().user("hello?")])[0]
    assert "answered 422" in done.error
    assert len(done.error) <= 500


def test_samples_of_a_group_have_seeds_of_their_own(engine: ServerEngine, server: Any) -> None:
    asked = Conversation().user("hello?")
    engine.generate([asked] * 3, [Sampling(temperature=1.0, seed=seed) for seed in (0, 1, 0)])
    seeds = sorted(body["seed"] for body in server.requests)
    assert len(set(seeds)) == 2
    assert all(body["temperature"] == 1.0 for body in server.requests)


def test_what_a_server_does_not_give_is_refused(engine: ServerEngine) -> None:
    with pytest.raises(ModelError, match="hidden states"):
        engine.last_hidden([])
    with pytest.raises(ModelError, match="2 samplings"):
        engine.generate([Conversation().user("a")], [Sampling(), Sampling()])


def test_log_probabilities_are_read_where_they_are_given(server: Any) -> None:
    server.script = [raw(reply("one two", logprobs=(-0.5, -1.25)))]
    asking = ServerEngine(server.url, "m", wants_logprobs=True)
    told, ignored = (asking.generate([Conversation().user("hello?")])[0] for _ in range(2))
    assert server.requests[0]["logprobs"] is True
    assert told.logprobs == (-0.5, -1.25)
    assert ignored.logprobs is None
    ServerEngine(server.url, "m").generate([Conversation().user("hello?")])
    assert "logprobs" not in server.requests[-1]


def test_where_nobody_answers_the_rest_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("earnest.engines.server.FIRST_PAUSE_S", 0.01)
    nobody = ServerEngine("http://127.0.0.1:9/v1", "m", retries=1, max_connections=2)
    tried: list[str] = []
    create = nobody._client.chat.completions.create
    monkeypatch.setattr(
        nobody._client.chat.completions, "create", lambda **request: tried.append("") or create(**request)
    )
    done = nobody.generate([Conversation().user(f"{k}?") for k in range(40)])
    assert all(c.stop == Stop.FAILED and "no reply from http://127.0.0.1:9" in c.error for c in done)
    assert 2 <= len(tried) <= 4
    before = len(tried)
    begun = nobody.generate([Conversation().user(f"{k}?").assistant("so") for k in range(40)])
    assert all("could not be asked whether it continues" in c.error for c in begun)
    assert len(tried) == before + 2, "nor is it probed for each of them"
    before = len(tried)
    nobody.generate([Conversation().user("now?")])
    assert len(tried) == before + 2, "a later call tries again"
