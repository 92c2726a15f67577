"""A server on loopback that speaks OpenAI's protocol, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


def reply(text: str | None, tokens: int = 0, finish: str = "stop", logprobs: tuple[float, ...] | None = None) -> bytes:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    if logprobs is not None:
        choice["logprobs"] = {"content": [{"token": "x", "logprob": value, "top_logprobs": []} for value in logprobs]}
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


def trickling(handler: Handler, body: dict[str, Any]) -> None:
    """A byte now and then, ten seconds long."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    for _ in range(100):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.1)


@contextmanager
def running() -> Generator[Any]:
    """The server; its `script` holds what it does with the next requests, `url` is where it listens."""
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
