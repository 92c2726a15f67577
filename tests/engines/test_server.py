"""The client against a server on loopback that speaks the protocol, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.tiny import tone

from earnest.completion import Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import load
from earnest.engines.server import ServerEngine, served_model
from earnest.errors import ModelError

Act = Callable[["Handler", dict[str, Any]], None]


class Handler(BaseHTTPRequestHandler):
    """Counts characters as tokens, and one for each 100 bytes of audio."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server: Any = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append(body)
            server.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
            server.peers.add(self.client_address)
            server.open_now += 1
            server.most_open = max(server.most_open, server.open_now)
            act = server.script.pop(0) if server.script else answer
        try:
            act(self, body)
        finally:
            with server.lock:
                server.open_now -= 1

    def send(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def reply(text: str | None, tokens: int = 0, finish: str = "stop") -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


def length(body: dict[str, Any]) -> int:
    count = 0
    for message in body["messages"]:
        parts = message["content"]
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
            count += len(part["text"]) if part["type"] == "text" else len(part["input_audio"]["data"]) // 100
        count += 4
    return count - 4 * bool(body.get("continue_final_message"))


def answer(handler: Handler, body: dict[str, Any]) -> None:
    said = json.dumps(body["messages"][-1]["content"])[-40:]
    handler.send(200, reply(f"heard {said}", length(body)))


def status(code: int, **headers: str) -> Act:
    return lambda handler, _: handler.send(code, b'{"error": {"message": "no, key sk-secret"}}', **headers)


def raw(data: bytes) -> Act:
    return lambda handler, _: handler.send(200, data)


def cut(handler: Handler, _: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id":')
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(2)


def slow(handler: Handler, body: dict[str, Any]) -> None:
    time.sleep(1.0)
    answer(handler, body)


@pytest.fixture
def server() -> Generator[Any]:
    made: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    made.lock, made.script, made.requests, made.headers_seen = threading.Lock(), [], [], []
    made.peers, made.open_now, made.most_open = set(), 0, 0
    made.url = f"http://127.0.0.1:{made.server_port}/v1"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def engine(server: Any, monkeypatch: pytest.MonkeyPatch) -> ServerEngine:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.02)
    return ServerEngine(server.url, "m", retries=2, timeout_s=0.5)


def test_names_of_served_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert served_model("server:http://a:1/v1/#Org/M") == ("http://a:1/v1", "Org/M")
    assert served_model("openai/gpt", "http://b/v1") == ("http://b/v1", "gpt")
    assert served_model("openai/gpt") == ("https://api.openai.com/v1", "gpt")
    assert served_model("pocket") is None
    with pytest.raises(ModelError, match="write server:http"):
        served_model("server:localhost")
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
        (raw(reply("")), "empty reply"),
        (raw(reply(None)), "empty reply"),
        (raw(reply("part of", finish="content_filter")), "content filter"),
    ],
)
def test_faults_that_stay_are_that_items_failure(engine: ServerEngine, server: Any, fault: Act, why: str) -> None:
    server.script = [fault] * 3
    one = ServerEngine(server.url, "m", retries=2, timeout_s=0.5, max_connections=1)
    done = one.generate([Conversation().user("hello?"), Conversation().user("and?")])
    failed = [c for c in done if c.stop == Stop.FAILED]
    assert failed
    assert all(why in c.error and "sk-secret" not in c.error for c in failed)
    assert all(not c.text for c in failed)


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
