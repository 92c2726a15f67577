"""Models behind an OpenAI-compatible server: vLLM, SGLang, `transformers serve`, hosted ones.

    server:http://127.0.0.1:8000/v1#NAME        or openai/NAME with a base URL

Requests go out over kept connections, as many at a time as `max_connections`, those of one clip one after the other,
so that a server's own caches hit. Faults that may pass (429, 5xx, timeouts, cut connections) are tried again with
backoff, or when the server says, until a deadline; what remains is that item's failure, never an empty answer. Where
nobody ever answered, the rest of a call fails at once. The key comes from the environment alone and is never written
anywhere.

A server gives no account of what it heard: `Heard.seconds_heard` is None. `earnest check` measures it.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NoReturn

from earnest.completion import Completion, Heard, Sampling, Stop, content_key
from earnest.conversation import Audio, Conversation
from earnest.engines.deadline import bound, ending_at
from earnest.engines.engine import Capabilities, each_sampling
from earnest.errors import ModelError, needs_extra

if TYPE_CHECKING:
    from torch import Tensor

GREEDY = Sampling()
KEY_VARIABLE = "OPENAI_API_KEY"
SERVED = re.compile(r"server:(?P<url>https?://[^#\s]+)#(?P<model>\S+)")
HOSTED_URL = "https://api.openai.com/v1"


def served_model(name: str, base_url: str | None = None) -> tuple[str, str] | None:
    """(base URL, model) of a served model's name; None if the name is of another form.

    Raises:
        ModelError: it begins like one and cannot be read, or holds a password.
    """
    if name.startswith("openai/"):
        return (base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED_URL).rstrip("/"), name.removeprefix("openai/")
    if not name.startswith("server:"):
        return None
    found = SERVED.fullmatch(name)
    if found is None or "@" in found["url"]:
        raise ModelError(
            f"{name!r} names no served model: write server:http://HOST:PORT/v1#MODEL; a key comes from {KEY_VARIABLE}"
        )
    return found["url"].rstrip("/"), found["model"]


def served_key(base_url: str, model: str) -> str:
    """Content key of a served model: of its address and name alone."""
    return content_key(["server", base_url, model])


@dataclass
class _Call:
    """What the requests of one call know of each other: whether anyone answered, or nobody was there.

    Attributes:
        answered: someone did.
        unreachable: why nobody could.
        unprobed: why the server could not be asked whether it continues a turn.
        probing: held while it is asked.
    """

    answered: bool = False
    unreachable: str = ""
    unprobed: str = ""
    probing: threading.Lock = field(default_factory=threading.Lock)


class ServerEngine:
    """Answers by asking a server.

    Args:
        base_url: up to and with /v1.
        model: the served model's name.
        name: what the user called it.
        max_connections: requests at a time.
        retries: further tries of a request that failed in a way that may pass.
        timeout_s: how long one try may go without a byte from the server.
        deadline_s: no try begins, and none is waited for, beyond this time since the first; a reply that is still
            coming in then is cut at its next byte.
        wants_logprobs: ask for the log-probability of each new token; some servers refuse such a request, some ignore
            it.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        name: str = "",
        max_connections: int = 16,
        retries: int = 4,
        timeout_s: float = 300.0,
        deadline_s: float = 900.0,
        wants_logprobs: bool = False,
    ) -> None:
        with needs_extra("server"):
            import openai

        if max_connections < 1:
            raise ModelError(f"max_connections is {max_connections}: it must be at least 1")
        self.base_url = base_url
        self.model = model
        self.name = name or f"server:{base_url}#{model}"
        self.max_connections = max_connections
        self.retries = retries
        self.timeout_s = timeout_s
        self.deadline_s = deadline_s
        self.wants_logprobs = wants_logprobs
        self._secret = os.environ.get(KEY_VARIABLE, "")
        self._capabilities: Capabilities | None = None
        self._probing = threading.Lock()
        # Local servers want some key and look at none.
        http = openai.DefaultHttpxClient(base_url=base_url, event_hooks={"response": [bound]})
        self._client = openai.OpenAI(base_url=base_url, api_key=self._secret or "none", max_retries=0, http_client=http)

    @property
    def key(self) -> str:
        """Of the address and the model's name: what stands behind them is the server's to say."""
        return served_key(self.base_url, self.model)

    @property
    def settings(self) -> dict[str, str]:
        """Where it runs."""
        return {"server": self.base_url}

    @property
    def capabilities(self) -> Capabilities:
        """Asked of the server once: whether it goes on with an assistant's turn.

        Raises:
            ModelError: it could not be asked; the next time it is asked again.
        """
        with self._probing:
            if self._capabilities is None:
                self._capabilities = Capabilities(continues_assistant=self._continues())
        return self._capabilities

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling | Sequence[Sampling] = GREEDY
    ) -> list[Completion]:
        """One completion for each conversation, in order; see `Engine.generate`."""
        samplings = each_sampling(sampling, len(conversations))
        # Requests of a clip go out together, clips in the order in which they first come.
        first: dict[tuple[str, ...], int] = {}
        for conversation in conversations:
            first.setdefault(_clips(conversation), len(first))
        groups = [first[_clips(conversation)] for conversation in conversations]
        order = sorted(range(len(groups)), key=groups.__getitem__)
        call = _Call()
        with ThreadPoolExecutor(self.max_connections) as threads:
            waiting = {
                place: threads.submit(self._answer, conversations[place], samplings[place], call) for place in order
            }
            return [waiting[place].result() for place in range(len(conversations))]

    def logprobs(
        self, conversations: Sequence[Conversation], continuations: Sequence[str | Sequence[int]]
    ) -> list[Tensor]:
        """Not behind a server."""
        self._refuse("log-probabilities of given continuations")

    def last_hidden(self, conversations: Sequence[Conversation]) -> Tensor:
        """Not behind a server."""
        self._refuse("hidden states")

    def _refuse(self, what: str) -> NoReturn:
        raise ModelError(f"{self.name} gives no {what}: choose a model that runs in this process")

    def _answer(self, conversation: Conversation, sampling: Sampling, call: _Call) -> Completion:
        import openai

        began = time.perf_counter()
        given = Heard(seconds_given=conversation.audio_s, seconds_heard=None if conversation.audio else 0.0)

        def failed(why: str) -> Completion:
            seconds = time.perf_counter() - began
            error = self._shown(why)
            return Completion(text="", stop=Stop.FAILED, heard=given, error=error, seconds=seconds)

        if call.unreachable and not call.answered:
            return failed(call.unreachable)
        if conversation.continues_assistant and (fault := self._cannot_continue(conversation, call)):
            return failed(fault)
        try:
            reply = self._create(
                self._request(conversation, sampling, CONTINUE if conversation.continues_assistant else {})
            )
        except openai.APIStatusError as error:
            return failed(f"the server answered {error.status_code}: {error.message}{_notes(error)}")
        # A body that is no JSON, or no text at all, is a ValueError.
        except (openai.OpenAIError, ValueError) as error:
            why = f"no reply from {self.base_url}: {type(error).__name__}: {error}{_notes(error)}"
            if type(error.__cause__).__name__ == "ConnectError":
                call.unreachable = why
            return failed(why)
        call.answered = True
        try:
            return self._read(reply, sampling, given, failed, began)
        except (AttributeError, TypeError, ValueError) as error:
            return failed(f"the server's reply cannot be read ({error}): {reply!s}")

    def _create(self, request: dict[str, Any]) -> Any:
        """A reply; faults that may pass are tried again.

        Raises:
            openai.OpenAIError: of the last try.
        """
        import openai

        ends = time.monotonic() + self.deadline_s
        tried = 0
        while True:
            tried += 1
            left = max(ends - time.monotonic(), 0.001)
            try:
                with ending_at(ends):
                    return self._client.chat.completions.create(**request, timeout=min(self.timeout_s, left))
            except (openai.APIConnectionError, openai.APIStatusError) as error:
                pause_s = _pause_s(error, tried)
                if pause_s is None or tried > self.retries:
                    raise
                if time.monotonic() + pause_s > ends:
                    error.add_note(f"given up after {tried} tries: the deadline is {self.deadline_s:g} s")
                    raise
                time.sleep(pause_s)

    def _cannot_continue(self, conversation: Conversation, call: _Call) -> str:
        if any(isinstance(part, Audio) for part in conversation.turns[-1].parts[-1:]):
            return "an assistant's turn that ends in audio loses it on the way through a server: end it in text"
        with call.probing:
            if call.unprobed:
                return call.unprobed
            try:
                continues = self.capabilities.continues_assistant
            except ModelError as error:
                call.unprobed = str(error)
                return call.unprobed
        if not continues:
            return f"{self.name} does not continue an assistant's turn: ask in a further user turn"
        return ""

    def _request(self, conversation: Conversation, sampling: Sampling, body: dict[str, bool]) -> dict[str, Any]:
        from earnest.engines.choosing import item_seed

        request: dict[str, Any] = {
            "model": self.model,
            "messages": conversation.to_openai(),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "extra_body": body,
        }
        if self.wants_logprobs:
            request["logprobs"] = True
        if sampling.temperature > 0:
            request |= {"top_p": sampling.top_p, "seed": item_seed(sampling.seed, conversation.key) % 2**31}
        return request

    def _read(
        self, reply: Any, sampling: Sampling, given: Heard, failed: Callable[[str], Completion], began: float
    ) -> Completion:
        from earnest.engines.decoding import cut_after_stop

        choices: Any = getattr(reply, "choices", None)
        if not choices:
            return failed("the server sent no choice: " + str(reply)[:200])
        text: str = choices[0].message.content or ""
        why: str = choices[0].finish_reason or ""
        if not text.strip():
            return failed(f"the server sent an empty reply (finish reason {why or 'none'})")
        if why == "content_filter":
            return failed("the server's content filter cut the reply")
        told: Any = getattr(choices[0], "logprobs", None)
        logprobs = tuple(float(token.logprob) for token in getattr(told, "content", None) or ())
        usage: Any = reply.usage
        details: Any = getattr(usage, "prompt_tokens_details", None)
        # Servers take the stop string away, and do not say which it was: so the reply is cut here.
        cut = cut_after_stop(text, sampling.stop)
        if cut is not None:
            # They are those of the whole reply.
            logprobs = ()
        stop = Stop.STOP_STRING if cut is not None else Stop.LENGTH if why == "length" else Stop.END
        return Completion(
            text=text if cut is None else cut,
            stop=stop,
            logprobs=logprobs or None,
            prompt_tokens=getattr(usage, "prompt_tokens", None) or 0,
            heard=Heard(given.seconds_given, given.seconds_heard, getattr(details, "audio_tokens", None) or 0),
            seconds=time.perf_counter() - began,
        )

    def _continues(self) -> bool:
        """Whether the prompt of a turn to be continued is shorter than that of one that is closed and opened again.

        Raises:
            ModelError: a fault that says nothing of it.
        """
        import openai

        begun = Conversation().user("Count to five.").assistant("one, two,")
        try:
            counts = [
                self._create(self._request(begun, Sampling(max_new_tokens=1), body)).usage.prompt_tokens
                for body in (CONTINUE, {})
            ]
        except (openai.BadRequestError, openai.NotFoundError, openai.UnprocessableEntityError, AttributeError):
            # Refused, or no tokens are counted.
            return False
        except (openai.OpenAIError, ValueError) as error:
            why = self._shown(str(error))
            raise ModelError(
                f"{self.name} could not be asked whether it continues an assistant's turn: {why}"
            ) from error
        return counts[0] < counts[1]

    def _shown(self, text: str) -> str:
        """An error's text as it may be written: without the key, and cut."""
        return (text.replace(self._secret, "***") if self._secret else text)[:ERROR_CHARACTERS]


ERROR_CHARACTERS = 500
"""Of an error's text: some servers send back what they were sent, audio and all."""
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""What vLLM, SGLang and others understand; where it is ignored or refused, the probe notices."""


FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
"""Between two tries; each pause is twice as long as the last."""
MAY_PASS = (408, 409, 429)
"""And all from 500 on."""


def _pause_s(error: Any, tried: int) -> float | None:
    """Seconds until the next try: what the server says, else twice as long each time; None where it is hopeless."""
    response: Any = getattr(error, "response", None)
    if response is not None:
        if response.status_code not in MAY_PASS and response.status_code < 500:
            return None
        told: str = response.headers.get("retry-after", "")
        try:
            return max(0.0, float(told))
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
        except ValueError:
            pass
    # Not all at once again.
    return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tried - 1)) * random.uniform(0.75, 1.0)


def _notes(error: BaseException) -> str:
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _clips(conversation: Conversation) -> tuple[str, ...]:
    return tuple(clip.key for clip in conversation.clips)
