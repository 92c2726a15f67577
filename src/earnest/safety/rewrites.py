"""Benign twins of harmful requests: minimal rewrites by another model, behind any engine.

Twins keep topic and syntax, so that only the harm tells them apart: pairs near the boundary (arXiv 2505.19670).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from earnest.completion import Completion, Sampling, Stop
from earnest.conversation import Conversation
from earnest.engines import Engine
from earnest.grading import parse_reply
from earnest.grading.refusal import refuses
from earnest.prompts import Prompt
from earnest.run import RunDirectory
from earnest.safety.sets import Request

LENGTH_RATIOS = (0.4, 2.5)
"""Of a rewrite to its request, in characters; what lies outside is no minimal rewrite."""
_REWRITE = re.compile(r"<rewrite>(.*?)</rewrite>", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"\w+")


def rewrite(
    engine: Engine,
    requests: Sequence[Request],
    run: RunDirectory,
    *,
    batch_size: int = 64,
    max_new_tokens: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Request], dict[str, str]]:
    """Asks for a benign twin of each harmful request that has none; what the run holds is not asked again.

    A twin has the kind, the set and the pair name of its request (whose id it is where there was no name), its id with
    `-benign` behind it, and the rewriter's name.

    Args:
        engine: the rewriter.
        requests: with ids.
        run: where completions go; those that failed earlier are asked again.
        batch_size: requests at once.
        max_new_tokens: longest reply.
        progress: called with (replies that are there, replies in all).

    Returns:
        The requests, each twin behind its own, and id to reason of the twins that were rejected.
    """
    prompt = Prompt.load("safety", "rewrite")
    paired = {request.pair for request in requests if not request.harmful}

    def wanting(request: Request) -> bool:
        return request.harmful and not (request.pair and request.pair in paired)

    completions = run.run_batched(
        engine,
        [
            Conversation().user(prompt.texts["rewrite"].replace("{text}", request.text))
            for request in filter(wanting, requests)
        ],
        Sampling(max_new_tokens=max_new_tokens),
        batch_size,
        progress,
        retry_failed=True,
    )
    rewriter = f"{engine.name} ({prompt.id})"
    replies = iter(completions)
    found: list[Request] = []
    rejected: dict[str, str] = {}
    for request in requests:
        if not wanting(request):
            found.append(request)
            continue
        twin = f"{request.id}-benign"
        text, reason = _rewritten(next(replies), request.text)
        if reason:
            rejected[twin] = f"rewrite rejected: {reason}"
            found.append(request)
            continue
        own = replace(request, pair=request.pair or request.id)
        found += [own, replace(own, text=text, harmful=False, id=twin, rewriter=rewriter, audio=None)]
    return found, rejected


def _rewritten(done: Completion, text: str) -> tuple[str, str]:
    """The rewrite and why it is rejected; one of the two is empty."""
    if done.stop is Stop.FAILED:
        return "", f"failed ({done.error})"
    if done.stop is Stop.LENGTH:
        return "", "cut, the reply does not end"
    answer = parse_reply(done.text).answer
    tagged = _REWRITE.findall(answer)
    found = " ".join(tagged[-1].split()) if tagged else ""
    if refuses(found or answer):
        return "", "refused"
    if not found:
        return "", "no text inside <rewrite> </rewrite>"
    if _WORD.findall(found.lower()) == _WORD.findall(text.lower()):
        return "", "unchanged"
    ratio = len(found) / len(text)
    if not LENGTH_RATIOS[0] <= ratio <= LENGTH_RATIOS[1]:
        least, most = LENGTH_RATIOS
        return "", f"its length is {ratio:.2f} of the request's, {least:g} to {most:g} are taken"
    return found, ""
