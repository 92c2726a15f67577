import torch
from transformers import RepetitionPenaltyLogitsProcessor

from earnest.completion import Sampling
from earnest.engines.choosing import TokenChooser, item_seed

torch.set_num_threads(1)
CPU = torch.device("cpu")


def chooser(
    samplings: list[Sampling], keys: list[str], banned: tuple[int, ...] = (), vocabulary: int = 6
) -> TokenChooser:
    return TokenChooser(samplings, keys, banned, vocabulary, CPU)


def test_greedy_takes_the_best_that_is_not_banned() -> None:
    logits = torch.tensor([[0.0, 5.0, 4.0, 1.0, 0.0, 0.0]])
    assert chooser([Sampling()], ["a"]).choose(logits.clone(), 0).tolist() == [1]
    assert chooser([Sampling()], ["a"], banned=(1, 99)).choose(logits.clone(), 0).tolist() == [2]


def test_a_rows_draws_do_not_depend_on_its_batch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 3, 6)  # steps, rows, V
    sampling = Sampling(max_new_tokens=5, temperature=1.0, seed=3)
    together = chooser([sampling, Sampling(max_new_tokens=2), sampling], ["a", "b", "c"])
    alone = chooser([sampling], ["c"])
    for step in range(5):
        tokens = together.choose(logits[step].clone(), step).tolist()
        assert tokens[2] == alone.choose(logits[step, 2:].clone(), step).item()


def test_dropping_rows_keeps_the_draws_of_the_others() -> None:
    logits = torch.zeros(3, 64)
    sampling = Sampling(max_new_tokens=8, temperature=1.0)
    whole = chooser([sampling] * 3, ["a", "b", "c"], vocabulary=64)
    cut = chooser([sampling] * 3, ["a", "b", "c"], vocabulary=64)
    cut.keep_rows(torch.tensor([0, 2]))
    for step in range(8):
        tokens = whole.choose(logits.clone(), step).tolist()
        assert cut.choose(logits[:2].clone(), step).tolist() == [tokens[0], tokens[2]]


def test_draws_follow_the_distribution_and_the_bans() -> None:
    rows = 4000
    logits = torch.tensor([0.5, 0.3, 0.2, 1e-9, 1.0, 1e-9]).log().expand(rows, 6).clone()
    sampling = Sampling(max_new_tokens=1, temperature=1.0)
    tokens = chooser([sampling] * rows, [str(i) for i in range(rows)], banned=(4,)).choose(logits, 0)
    shares = torch.bincount(tokens, minlength=6) / rows
    assert shares[4] == 0
    assert torch.allclose(shares[:3], torch.tensor([0.5, 0.3, 0.2]), atol=0.03)


def test_the_nucleus_keeps_the_token_that_crosses_its_limit() -> None:
    rows = 500
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(rows, 3).clone()
    sampling = Sampling(max_new_tokens=1, temperature=1.0, top_p=0.6)
    tokens = chooser([sampling] * rows, [str(i) for i in range(rows)], vocabulary=3).choose(logits, 0)
    assert set(tokens.tolist()) == {1, 2}


def test_seeds_differ_by_item_and_by_seed() -> None:
    assert len({item_seed(0, "a"), item_seed(1, "a"), item_seed(0, "b")}) == 3
    assert item_seed(7, "x") == item_seed(7, "x") < 2**63


def test_repetition_is_penalised_as_transformers_does() -> None:
    torch.manual_seed(1)
    logits = torch.randn(6, 2, 12)  # steps, rows, V
    prompts = [[1, 2, 2, 40], [3]]
    ours = TokenChooser([Sampling()] * 2, ["a", "b"], (5,), 12, CPU, repetition_penalty=1.7, prompts=prompts)
    theirs = RepetitionPenaltyLogitsProcessor(1.7)
    said: list[list[int]] = [[1, 2], [3, 3]]
    for step in range(len(logits)):
        scores = theirs(torch.tensor(said), logits[step].clone())  # type: ignore[arg-type]
        scores[:, 5] = float("-inf")
        tokens = ours.choose(logits[step].clone(), step).tolist()
        assert tokens == scores.argmax(-1).tolist()
        said = [[*row, token] for row, token in zip(said, tokens, strict=True)]
    ours.keep_rows(torch.tensor([1]))
    scores = theirs(torch.tensor(said[1:]), logits[0, 1:].clone())  # type: ignore[arg-type]
    scores[:, 5] = float("-inf")
    assert ours.choose(logits[0, 1:].clone(), 0).tolist() == scores.argmax(-1).tolist()
