"""What requests share is computed once, and changes no answer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_fused, tone

from earnest.completion import Sampling, Stop
from earnest.conversation import Audio, Conversation, Text, Turn
from earnest.engines import prefill, sharing
from earnest.engines.families.family import Prompt
from earnest.engines.load import load_local
from earnest.engines.local import LocalEngine
from earnest.engines.prefill import row_layers
from earnest.errors import ModelError

GREEDY = Sampling(max_new_tokens=10)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LocalEngine:
    return load_local(str(tiny_fused(tmp_path_factory.mktemp("fused"))), device="cpu", threads=1)


def fresh(engine: LocalEngine, **options: Any) -> LocalEngine:
    """The same model without anything kept."""
    return LocalEngine(engine.family, name="fresh", **options)


def least_tokens(engine: LocalEngine, conversations: Sequence[Conversation]) -> int:
    """Distinct prefixes of all prompts: what has to be computed at least."""
    distinct: set[bytes] = set()
    for prompt in engine.family.render(conversations):
        assert isinstance(prompt, Prompt)
        symbols = engine.shared.symbols(prompt)
        distinct |= {symbols[: end + 1].tobytes() for end in range(len(symbols))}
    return len(distinct)


@pytest.fixture(scope="module")
def edits() -> list[Conversation]:
    """One clip, one question, thirty beginnings of a reply."""
    asked = Conversation().user(Audio(tone(440, 6.0)), "\n\nWhich sound is heard in the middle, and how often?")
    return [asked.assistant(f"<think>I hear {number} of them, then nothing") for number in range(30)]


def test_a_prefix_is_run_once(engine: LocalEngine, edits: list[Conversation]) -> None:
    shared = fresh(engine)
    completions = shared.generate(edits, GREEDY)
    assert shared.shared.tokens_run <= 1.15 * least_tokens(engine, edits)
    alone = [fresh(engine).generate([edit], GREEDY)[0] for edit in edits]
    assert [c.token_ids for c in completions] == [c.token_ids for c in alone]
    assert (
        max(
            abs(a - b)
            for one, other in zip(completions, alone, strict=True)
            for a, b in zip(one.logprobs or (), other.logprobs or (), strict=True)
        )
        < 1e-3
    )


def test_a_group_of_samples_runs_its_prompt_once(engine: LocalEngine, edits: list[Conversation]) -> None:
    samplings = [Sampling(max_new_tokens=10, temperature=1.0, seed=seed) for seed in range(8)]
    shared = fresh(engine)
    together = shared.generate([edits[0]] * 8, samplings)
    assert shared.shared.tokens_run == least_tokens(engine, edits[:1])
    alone = [fresh(engine).generate([edits[0]], [sampling])[0] for sampling in samplings]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert len({c.token_ids for c in together}) > 4


def test_a_turn_goes_on_where_the_last_one_ended(engine: LocalEngine) -> None:
    clip = tone(500, 8.0)
    shared, asked = fresh(engine), Conversation().user(Audio(clip), "\n\nWhat is heard?").assistant("<think>")
    known: list[int] = []
    for turn in range(5):
        before = shared.shared.tokens_run
        reply = shared.generate([asked], GREEDY)[0]
        assert reply.token_ids == fresh(engine).generate([asked], GREEDY)[0].token_ids
        prompt = engine.family.render([asked])[0]
        assert isinstance(prompt, Prompt)
        symbols = shared.shared.symbols(prompt).tolist()
        same = next((k for k, (a, b) in enumerate(zip(known, symbols, strict=False)) if a != b), len(known))
        assert shared.shared.tokens_run - before == len(symbols) - same
        # All but the last token of a reply has been run; its text may fall into other tokens.
        known = [*symbols, *reply.token_ids[:-1]]
        asked = asked.append(reply.text, Audio(clip.crop(turn, turn + 1.0), fine=True), " so ")


def test_bounds_change_no_answer(engine: LocalEngine, edits: list[Conversation]) -> None:
    others = [Conversation().user(Audio(tone(300 + 40 * k, 1.0 + k)), f"What, {k}?") for k in range(5)]
    mixed = [conversation for pair in zip(edits[:5], others, strict=True) for conversation in pair]
    expected = [c.token_ids for c in fresh(engine).generate(mixed, GREEDY)]
    for options in (
        {"prefix_cache_bytes": 0},
        {"prefix_cache_bytes": 100_000},
        {"token_budget": 60},
        {"batch_size": 3, "audio_cache_bytes": 0},
    ):
        narrow = fresh(engine, **options)
        for _ in range(2):
            assert [c.token_ids for c in narrow.generate(mixed, GREEDY)] == expected
        assert narrow.shared.tree.bytes <= options.get("prefix_cache_bytes", 10**9)
        assert not narrow.shared.tree.root.waiting


def test_scores_share_as_well(engine: LocalEngine, edits: list[Conversation]) -> None:
    shared = fresh(engine)
    texts = [" a bell", " two dogs bark"] * 5
    scores = shared.logprobs(edits[:10], texts)
    for edit, text, score in zip(edits, texts, scores, strict=False):
        alone = fresh(engine).logprobs([edit], [text])[0]
        assert torch.allclose(score, alone, atol=1e-4)
    assert torch.allclose(shared.last_hidden(edits[:6]), fresh(engine, batch_size=1).last_hidden(edits[:6]), atol=1e-4)


def test_memory_that_does_not_suffice_halves_the_batch(
    engine: LocalEngine, edits: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [c.token_ids for c in fresh(engine).generate(edits, GREEDY)]
    small = fresh(engine)
    model: Any = small.family.language_model
    forward, sizes = model.forward, []

    def limited(*args: Any, **inputs: Any) -> Any:
        rows = len(inputs["attention_mask"])
        sizes.append(rows)
        if rows > 7:
            raise torch.OutOfMemoryError("no more")
        return forward(*args, **inputs)

    monkeypatch.setattr(model, "forward", limited)
    assert [c.token_ids for c in small.generate(edits, GREEDY)] == expected
    assert max(sizes) == 30
    again = len(sizes)
    small.generate(edits, GREEDY)
    assert max(sizes[again:]) < 30, "smaller ones from now on"


def test_a_request_for_which_the_memory_does_not_suffice_is_refused_alone(
    engine: LocalEngine, edits: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [Conversation().user(Audio(tone(500, 1.0)), f"and {k}?") for k in range(3)]
    long = [Conversation().user(Audio(tone(900, 35.0)), f"and {k}?") for k in range(3)]
    expected = [c.token_ids for c in fresh(engine).generate([*edits[:4], *other], GREEDY)]
    small = fresh(engine)
    longest = max(len(p.token_ids) for p in small.family.render([*edits[:4], *other]) if isinstance(p, Prompt))
    model: Any = small.family.language_model
    forward = model.forward

    def limited(*args: Any, **inputs: Any) -> Any:
        if inputs["attention_mask"].shape[1] > longest + GREEDY.max_new_tokens:
            raise torch.OutOfMemoryError("no more")
        return forward(*args, **inputs)

    monkeypatch.setattr(model, "forward", limited)
    done = small.generate([*long[:2], *edits[:4], *long[2:], *other], GREEDY)
    refused = [done[0], done[1], done[6]]
    assert [c.stop for c in refused] == [Stop.FAILED] * 3
    assert all("the memory does not suffice for a prompt of" in c.error for c in refused)
    assert [c.token_ids for c in (*done[2:6], *done[7:])] == expected
    assert not small.shared.tree.root.waiting
    assert small.shared.token_budget == fresh(engine).shared.token_budget, "the others are batched as before"
    with pytest.raises(ModelError, match="memory does not suffice"):
        small.logprobs(long[:1], [" a bell"])


def test_what_is_only_kept_makes_room(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    long = Conversation().user(Audio(tone(900, 20.0)), "and?")
    full = fresh(engine)
    full.generate([Conversation().user(Audio(tone(300 + k, 2.0)), "?") for k in range(4)], GREEDY)
    kept = full.shared.tree.bytes
    assert kept
    forward = full.family.language_model.forward

    def limited(*args: Any, **inputs: Any) -> Any:
        # The beginning that all prompts have in common is waited for, and stays.
        if full.shared.tree.bytes > kept / 2 and inputs["attention_mask"].shape[1] > 60:
            raise torch.OutOfMemoryError("no more")
        return forward(*args, **inputs)

    monkeypatch.setattr(full.family.language_model, "forward", limited)
    assert full.generate([long], GREEDY)[0].stop != Stop.FAILED


def test_memory_that_ends_between_two_prefixes_loses_nothing(
    engine: LocalEngine, edits: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [c.turns[0] for c in edits[:1]]
    asked = [*edits[:4], *(Conversation((*others, Turn("user", (Text(f"{k} and {j}?"),)))) for k in "ab" for j in "cd")]
    expected = [c.token_ids for c in fresh(engine).generate(asked, GREEDY)]
    calls: list[int] = []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("no more")
        return row_layers(*arguments)

    monkeypatch.setattr(prefill, "row_layers", failing)
    assert [c.token_ids for c in fresh(engine).generate(asked, GREEDY)] == expected
    assert len(calls) > 3


def test_logits_of_a_batch_are_bounded(
    engine: LocalEngine, edits: list[Conversation], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" a bell" * (1 + k % 3) for k in range(12)]
    expected = fresh(engine).logprobs(edits[:12], texts)
    bounded = fresh(engine)
    head = bounded.family.language_model.get_output_embeddings()
    most = 60 * len(head.weight)
    monkeypatch.setattr(sharing, "MOST_LOGITS", most)
    sizes: list[int] = []
    handle = head.register_forward_hook(lambda _module, _given, found: sizes.append(found.numel()))
    try:
        found = bounded.logprobs(edits[:12], texts)
    finally:
        handle.remove()
    assert len(sizes) > 2
    assert max(sizes) <= most
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_a_fault_leaves_nothing_waiting(engine: LocalEngine, edits: list[Conversation]) -> None:
    broken = fresh(engine)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a bug")

    handle = broken.family.language_model.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="a bug"):
            broken.generate(edits, GREEDY)
    finally:
        handle.remove()
    assert not broken.shared.tree.root.waiting
    assert all(c.stop != Stop.FAILED for c in broken.generate(edits[:2], GREEDY))


def test_trained_weights_forget_what_was_kept(engine: LocalEngine, edits: list[Conversation], tmp_path: Path) -> None:
    own = load_local(str(tiny_fused(tmp_path / "own")), device="cpu", threads=1)
    before = own.generate(edits[:3], GREEDY)
    with torch.no_grad():
        own.family.language_model.get_output_embeddings().weight.mul_(-1.0)
    after = own.generate(edits[:3], GREEDY)
    assert [c.token_ids for c in after] == [
        c.token_ids for c in LocalEngine(own.family, name="x").generate(edits[:3], GREEDY)
    ]
    assert [c.token_ids for c in after] != [c.token_ids for c in before]
