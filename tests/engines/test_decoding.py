import pytest
import torch
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from earnest.completion import Sampling, Stop
from earnest.engines.decoding import Job, Reply, StopFinder, cut_after_stop, decode
from earnest.engines.kv_cache import ROOM, ReservedLayer, growing_cache
from earnest.engines.prefill import left_pad, positions_of, prefill
from earnest.engines.prefixes import PrefixTree

torch.set_num_threads(1)
VOCABULARY = 90
LETTERS = [chr(33 + index) for index in range(VOCABULARY)]


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=512, initializer_range=0.5,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def text_of(token_ids: list[int]) -> str:
    return "".join(LETTERS[token] for token in token_ids)


def run(
    model: Qwen3ForCausalLM, prompts: list[list[int]], samplings: list[Sampling], ends: frozenset[int] = frozenset()
) -> list[Reply]:
    jobs = [Job(s, str(prompt), text_of) for prompt, s in zip(prompts, samplings, strict=True)]
    with torch.inference_mode():
        roots = [PrefixTree(0).root] * len(prompts)
        begun = prefill(model, roots, prompts, model.get_input_embeddings(), pad_id=0, device=torch.device("cpu"))
        return decode(model, begun, jobs, end_ids=ends, banned_ids=(0,), stops=StopFinder(lambda: LETTERS))


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (length,), generator=generator).tolist() for length in (3, 17, 9, 17, 30)]


def test_greedy_equals_generate_one_by_one(model: Qwen3ForCausalLM, prompts: list[list[int]]) -> None:
    limits = [12, 100, 1, 40, 70]  # beyond ROOM, and rows that end early and are dropped
    replies = run(model, prompts, [Sampling(max_new_tokens=limit) for limit in limits])
    for prompt, limit, reply in zip(prompts, limits, replies, strict=True):
        whole = model.generate(torch.tensor([prompt]), max_new_tokens=limit, do_sample=False, suppress_tokens=[0])
        assert reply.token_ids == whole[0, len(prompt) :].tolist()
        assert reply.stop == Stop.LENGTH


def test_rows_end_at_their_own_end_token(model: Qwen3ForCausalLM, prompts: list[list[int]]) -> None:
    free = run(model, prompts, [Sampling(max_new_tokens=30)] * 5)
    end = free[1].token_ids[4]
    replies = run(model, prompts, [Sampling(max_new_tokens=30)] * 5, ends=frozenset({end}))
    for before, after in zip(free, replies, strict=True):
        if end in before.token_ids:
            expected = before.token_ids[: before.token_ids.index(end) + 1]
            assert (after.token_ids, after.stop) == (expected, Stop.END)
            assert after.text == text_of(expected[:-1])
        else:
            assert (after.token_ids, after.stop) == (before.token_ids, Stop.LENGTH)
        assert len(after.logprobs) == len(after.token_ids)


def test_a_stop_string_over_several_tokens_ends_the_text(model: Qwen3ForCausalLM, prompts: list[list[int]]) -> None:
    free = run(model, prompts, [Sampling(max_new_tokens=30)] * 5)
    stop = free[4].text[10:13]
    cut = run(model, prompts, [Sampling(max_new_tokens=30, stop=(stop, "never met"))] * 5)[4]
    assert cut.stop == Stop.STOP_STRING
    assert cut.text.endswith(stop)
    assert free[4].text.startswith(cut.text)


def test_sampling_does_not_depend_on_the_batch(model: Qwen3ForCausalLM, prompts: list[list[int]]) -> None:
    samplings = [Sampling(max_new_tokens=20 + 5 * i, temperature=0.9, top_p=0.95, seed=i) for i in range(5)]
    together = run(model, prompts, samplings)
    for place in (0, 2, 4):
        alone = run(model, [prompts[place]], [samplings[place]])[0]
        assert alone.token_ids == together[place].token_ids
        torch.testing.assert_close(alone.logprobs, together[place].logprobs, atol=1e-4, rtol=1e-4)


def test_logprobs_are_the_models_own(model: Qwen3ForCausalLM, prompts: list[list[int]]) -> None:
    reply = run(model, prompts, [Sampling(max_new_tokens=10, temperature=1.3)] * 5)[1]
    whole = torch.tensor([prompts[1] + reply.token_ids])
    with torch.inference_mode():
        logprobs = model(whole).logits[0, len(prompts[1]) - 1 : -1].log_softmax(-1)
    expected = logprobs.gather(1, whole[0, len(prompts[1]) :, None])[:, 0]
    torch.testing.assert_close(torch.tensor(reply.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_a_growing_layer_holds_what_a_stock_layer_holds(model: Qwen3ForCausalLM) -> None:
    grown, stock = growing_cache(model.config), DynamicCache(config=model.config)
    assert all(type(layer) is ReservedLayer for layer in grown.layers)
    generator = torch.Generator().manual_seed(0)
    for width in (5, 1, 1, ROOM, 1):
        keys = torch.randn(3, 2, width, 8, generator=generator)
        for cache in (grown, stock):
            cache.update(keys, -keys, 0)
        assert torch.equal(grown.layers[0].keys, stock.layers[0].keys)
    for cache in (grown, stock):
        cache.layers[0].batch_select_indices(torch.tensor([2, 0]))
        cache.update(torch.ones(2, 2, 1, 8), torch.ones(2, 2, 1, 8), 0)
        cache.layers[0].crop(-3)
        cache.update(torch.zeros(2, 2, 1, 8), torch.ones(2, 2, 1, 8), 0)
    assert torch.equal(grown.layers[0].keys, stock.layers[0].keys)
    assert torch.equal(grown.layers[0].values, stock.layers[0].values)
    assert grown.get_seq_length() == stock.get_seq_length()


def test_stop_candidates_are_all_tokens_where_one_token_cannot_tell() -> None:
    finder = StopFinder(lambda: ["<a>", "b", ">"])
    assert finder.candidates(("</seg>",)) == {0, 2}
    assert finder.candidates(()) == frozenset()
    assert finder.candidates(("</seg>", "\n")) is None
    assert finder.candidates(("é",)) is None


def test_the_stop_string_that_ends_first_cuts() -> None:
    assert cut_after_stop("one two three", ("three", "two")) == "one two"
    assert cut_after_stop("one", ("two",)) is None


def test_positions_begin_at_the_first_real_token() -> None:
    _, mask = left_pad([[7], [7, 8, 9]], 0, torch.device("cpu"))
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    assert positions_of(mask).tolist() == [[0, 0, 0], [0, 1, 2]]
