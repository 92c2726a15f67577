"""An end to waiting for a reply's body: HTTP clients bound the time between two bytes, not that of all of them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from typing import Any

_ENDS: ContextVar[float | None] = ContextVar("ends", default=None)


@contextmanager
def ending_at(moment: float) -> Generator[None]:
    """Bodies that this thread reads inside are cut at a moment of `time.monotonic`, with the client's own timeout."""
    token = _ENDS.set(moment)
    try:
        yield
    finally:
        _ENDS.reset(token)


def bound(response: Any) -> None:
    """For the `response` hooks of a client: binds a body that has not been read yet."""
    ends = _ENDS.get()
    if ends is None:
        return
    # The openai client stands on httpx or on httpx2: whichever made the response.
    httpx: Any = import_module(type(response).__module__.partition(".")[0])
    inner: Any = response.stream

    class Ending(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for chunk in inner:
                if time.monotonic() > ends:
                    raise httpx.ReadTimeout("the reply was still coming in at the deadline", request=response.request)
                yield chunk

        def close(self) -> None:
            inner.close()

    response.stream = Ending()
