from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import tiny_fused, tone

from earnest.completion import Heard, Sampling, Stop
from earnest.conversation import Audio, Conversation
from earnest.engines import load, model_key, require
from earnest.engines.families.family import find_family
from earnest.engines.load import own_gpu
from earnest.engines.local import LocalEngine
from earnest.errors import ConversationError, ModelError

GREEDY = Sampling(max_new_tokens=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_fused(tmp_path_factory.mktemp("fused"))


@pytest.fixture
def engine(folder: Path) -> LocalEngine:
    return load(str(folder), device="cpu", threads=1)


@pytest.fixture(scope="module")
def conversations() -> list[Conversation]:
    """Text alone, clips of several lengths and rates, two clips, a continued turn, audio within and at its end."""
    clip, other = tone(440, 3.0), tone(700, 1.2, sample_rate_hz=44_100)
    crop = clip.crop(1.25, 2.5)
    asked = Conversation().user(Audio(clip), "\n\nWhat is heard?")
    return [
        Conversation().user("Hello?"),
        asked,
        Conversation().system("Be brief.").user(Audio(other), "Which one?"),
        Conversation().user(Audio(clip), " and ", Audio(other), " differ how?"),
        asked.assistant("<think>There is a"),
        asked.assistant("<think>Again <seg>1, 2</seg>", Audio(crop, fine=True)),
        asked.assistant("<think><seg>1, 2</seg>", Audio(crop, fine=True), " now").append(" more"),
        asked.assistant("A tone.").user("Sure?", Audio(tone(300, 7.0))),
    ]


def one_by_one(engine: LocalEngine, conversation: Conversation, sampling: Sampling = GREEDY) -> list[int]:
    """Ids of the reply by the model's own generate."""
    processor: Any = engine.family.processor  # type: ignore[attr-defined]
    inputs = processor(
        processor.render(conversation),
        audio=list(conversation.clips) or None,
        fine=[part.fine for part in conversation.audio] or None,
    )
    whole = engine.family.model.generate(
        **inputs,
        max_new_tokens=sampling.max_new_tokens,
        do_sample=False,
        suppress_tokens=sorted(engine.family.structural_token_ids),
    )
    return whole[0, inputs["input_ids"].shape[1] :].tolist()


def test_greedy_equals_generate_one_by_one(engine: LocalEngine, conversations: list[Conversation]) -> None:
    completions = engine.generate(conversations, GREEDY)
    for conversation, completion in zip(conversations, completions, strict=True):
        assert list(completion.token_ids) == one_by_one(engine, conversation)
        assert completion.stop in (Stop.END, Stop.LENGTH)
    assert len({c.token_ids for c in completions}) == len(conversations), "the replies should differ"


def test_batches_change_nothing(folder: Path, conversations: list[Conversation]) -> None:
    whole = load(str(folder), device="cpu", threads=1)
    narrow = LocalEngine(whole.family, name="narrow", batch_size=3, token_budget=120, audio_cache_bytes=0)
    sampling = Sampling(max_new_tokens=20, temperature=1.0, top_p=0.9, seed=4)
    for asked in (GREEDY, sampling):
        together = [c.token_ids for c in whole.generate(conversations, asked)]
        assert [c.token_ids for c in narrow.generate(conversations, asked)] == together
        backwards = whole.generate(conversations[::-1], asked)[::-1]
        assert [c.token_ids for c in backwards] == together


def test_a_group_of_samples_has_seeds_of_its_own(engine: LocalEngine, conversations: list[Conversation]) -> None:
    samplings = [Sampling(max_new_tokens=16, temperature=1.0, seed=seed) for seed in (0, 1, 0)]
    first, second, again = engine.generate([conversations[1]] * 3, samplings)
    assert first.token_ids == again.token_ids != second.token_ids
    with pytest.raises(ModelError, match="2 samplings for 3 conversations"):
        engine.generate(conversations[:3], samplings[:2])


def test_sampling_never_says_a_structural_token(engine: LocalEngine) -> None:
    sampling = Sampling(max_new_tokens=60, temperature=5.0)
    asked = [Conversation().user(f"{number}?") for number in range(20)]
    said = {token for c in engine.generate(asked, sampling) for token in c.token_ids}
    assert len(said) > 100
    assert not said & engine.family.structural_token_ids
    tokenizer: Any = engine.family.tokenizer
    named = ["<audio>", "<start_audio>", "<end_audio>", "<pad>", "<|user|>", "<|assistant|>", "<|system|>"]
    assert set(tokenizer.convert_tokens_to_ids(named)) <= engine.family.structural_token_ids
    assert tokenizer.convert_tokens_to_ids("</seg>") not in engine.family.structural_token_ids


def test_stop_strings_stay_at_the_end_of_the_text(engine: LocalEngine, conversations: list[Conversation]) -> None:
    free = engine.generate(conversations, GREEDY)
    place = next(i for i, c in enumerate(free) if c.text[4:6].isascii() and c.text[4:6].isprintable())
    stop = free[place].text[4:6]
    cut = engine.generate(conversations, replace(GREEDY, stop=(stop,)))[place]
    assert cut.stop == Stop.STOP_STRING
    assert cut.text.endswith(stop)
    assert free[place].text.startswith(cut.text)
    assert cut.token_ids == free[place].token_ids[: len(cut.token_ids)]


def test_a_stop_tag_that_is_one_token(engine: LocalEngine) -> None:
    tokenizer: Any = engine.family.tokenizer
    asked = [Conversation().user(f"{number}?") for number in range(30)]
    sampling = Sampling(max_new_tokens=80, temperature=3.0, stop=("</seg>",))
    stopped = [c for c in engine.generate(asked, sampling) if c.stop == Stop.STOP_STRING]
    assert stopped
    for completion in stopped:
        assert completion.text.endswith("</seg>")
        assert completion.token_ids[-1] == tokenizer.convert_tokens_to_ids("</seg>")


def test_the_hearing_account(engine: LocalEngine, conversations: list[Conversation]) -> None:
    completions = engine.generate(conversations, Sampling(max_new_tokens=1))
    assert completions[0].heard.audio_tokens == 0
    assert completions[1].heard.seconds_given == completions[1].heard.seconds_heard == 3.0
    model: Any = engine.family.model
    tokens = model.config.budget("first").tokens(48_000) + model.config.budget("fine").tokens(20_000)
    assert completions[5].heard.audio_tokens == tokens
    assert completions[5].heard.seconds_given == pytest.approx(4.25)


def test_seconds_that_a_processor_cuts_are_not_heard(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    family: Any = engine.family
    budgets, audio_ids, encode = family.processor.budgets, family._cached_ids, family.encode
    tokens = 32_000 // budgets["first"]["samples_per_token"]

    def cut_ids(num_samples: int, fine: bool, offset_s: float) -> list[int]:
        return audio_ids(min(num_samples, tokens * budgets["first"]["samples_per_token"]), fine, offset_s)

    monkeypatch.setattr(family, "_cached_ids", cut_ids)
    monkeypatch.setattr(family, "encode", lambda audio: [soft[:tokens] for soft in encode(audio)])
    long, short = engine.generate(
        [Conversation().user(Audio(tone(440, seconds)), "?") for seconds in (9.0, 1.5)], Sampling(max_new_tokens=1)
    )
    assert long.heard.seconds_given == 9.0
    assert long.heard.seconds_heard == pytest.approx(tokens * budgets["first"]["samples_per_token"] / 16_000)
    assert short.heard.seconds_given == short.heard.seconds_heard == 1.5


def test_the_tokens_of_a_reply_end_where_its_text_goes_on(
    engine: LocalEngine, conversations: list[Conversation]
) -> None:
    for completion in engine.generate(conversations, replace(GREEDY, temperature=1.0)):
        ends = completion.token_ends
        assert len(ends) == len(completion.token_ids)
        assert list(ends) == sorted(ends)
        assert ends[-1] == len(completion.text)
    tokenizer: Any = engine.family.tokenizer
    ids = tokenizer("It is <answer>é dog</answer>")["input_ids"]
    text = "It is <answer>é dog</answer>"
    starts = (0, *engine.family.token_ends([], ids, text)[:-1])
    pieces = [text[start:end] for start, end in zip(starts, engine.family.token_ends([], ids, text), strict=True)]
    assert pieces[6] == "<answer>"
    assert "".join(pieces) == text


def test_a_crop_carries_the_markers_of_its_place(engine: LocalEngine) -> None:
    clip = tone(440, 5.0)
    tokenizer: Any = engine.family.tokenizer
    ids = engine.family.audio_ids(Audio(clip.crop(2.5, 4.5), fine=True))
    said = [token for token in tokenizer.convert_ids_to_tokens(ids) if token != "<audio>"]
    assert said == ["<start_audio>", "00:02", "00:03", "00:04", "<end_audio>"]


def test_the_longest_clip_is_what_there_are_time_markers_for(engine: LocalEngine, tmp_path: Path) -> None:
    assert engine.family.max_audio_s == 40.0
    asked = [
        Conversation().user(Audio(tone(440, 40.0)), "?"),
        Conversation().user(Audio(tone(440, 60.0).crop(30.0, 40.0)), "?"),
        Conversation().user(Audio(tone(440, 60.0).crop(35.0, 45.0)), "?"),
    ]
    completions = engine.generate(asked, Sampling(max_new_tokens=1))
    assert [c.stop for c in completions] == [Stop.LENGTH, Stop.LENGTH, Stop.FAILED]
    assert "ends 45.00 s into its recording, the model's time markers reach 40.00 s" in completions[2].error
    assert load(str(tiny_fused(tmp_path, time_marker_s=None)), device="cpu", threads=1).family.max_audio_s is None


def test_each_distinct_clip_is_encoded_once(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Audio] = []
    encode = engine.family.encode

    def spy(audio: list[Audio]) -> list[torch.Tensor]:
        encoded.extend(audio)
        return encode(audio)

    monkeypatch.setattr(engine.family, "encode", spy)
    engine.shared.batch_size = 4
    asked = [Conversation().user(Audio(tone(440, 2.0)), f"{number}?") for number in range(10)]
    asked.append(Conversation().user(Audio(tone(440, 2.0), fine=True), "?"))
    engine.generate(asked, Sampling(max_new_tokens=2))
    assert [part.fine for part in encoded] in ([False, True], [True, False])
    engine.generate(asked, Sampling(max_new_tokens=2))
    assert len(encoded) == 2


def test_training_the_adapters_is_noticed(engine: LocalEngine) -> None:
    asked = [Conversation().user(Audio(tone(440, 2.0)), "?")]
    before, key = engine.generate(asked, GREEDY)[0], engine.key
    with torch.no_grad():
        for parameter in engine.family.model.trainable_parameters("first"):
            parameter.mul_(-1.5)
    assert engine.generate(asked, GREEDY)[0].token_ids != before.token_ids
    assert engine.key != key


def test_the_mode_of_every_module_is_left_as_it_was(engine: LocalEngine) -> None:
    model = engine.family.model.train()
    modes = [module.training for module in model.modules()]
    engine.generate([Conversation().user("?")], Sampling(max_new_tokens=1))
    assert [module.training for module in model.modules()] == modes
    assert any(modes)


def test_logprobs_of_replies_and_of_continuations_agree(engine: LocalEngine, conversations: list[Conversation]) -> None:
    completions = engine.generate(conversations, Sampling(max_new_tokens=9, temperature=0.8, seed=1))
    scored = engine.logprobs(conversations, [c.token_ids for c in completions])
    for completion, logprobs in zip(completions, scored, strict=True):
        torch.testing.assert_close(logprobs, torch.tensor(completion.logprobs), atol=1e-4, rtol=1e-4)


def test_logprobs_of_texts_of_several_lengths(engine: LocalEngine, conversations: list[Conversation]) -> None:
    texts = ["yes", "", "no, never", "<answer>b</answer>"]
    scored = engine.logprobs(conversations[:4], texts)
    assert [len(logprobs) for logprobs in scored] == [3, 0, 9, 3]
    alone = engine.logprobs(conversations[2:3], texts[2:3])[0]
    torch.testing.assert_close(scored[2], alone, atol=1e-5, rtol=1e-5)
    assert all(bool((logprobs < 0).all()) for logprobs in scored)


def test_the_last_hidden_state_times_the_head_is_the_logits(
    engine: LocalEngine, conversations: list[Conversation]
) -> None:
    engine.shared.batch_size = 3
    hidden = engine.last_hidden(conversations)
    head = engine.family.language_model.get_output_embeddings().weight.detach()
    logprobs = (hidden @ head.T).log_softmax(-1)
    ids = list(range(0, head.shape[0], 7))
    for row, conversation in enumerate(conversations):
        scored = engine.logprobs([conversation] * len(ids), [[token] for token in ids])
        torch.testing.assert_close(torch.cat(scored), logprobs[row, ids], atol=1e-4, rtol=1e-4)
    assert engine.last_hidden([]).shape == (0, head.shape[1])


def test_an_item_that_fails_leaves_the_others_alone(tmp_path: Path, conversations: list[Conversation]) -> None:
    engine = load(str(tiny_fused(tmp_path, context=120)), device="cpu", threads=1)
    faulty = [
        Conversation().user("What about <audio> here?"),
        Conversation().user(Audio(tone(440, 50.0)), "Too long for the time markers."),
        Conversation().user("x" * 130),
        Conversation().assistant("Nobody asked."),
    ]
    completions = engine.generate([*faulty[:2], *conversations[:2], *faulty[2:]], GREEDY)
    assert [c.stop == Stop.FAILED for c in completions] == [True, True, False, False, True, True]
    assert "'<audio>'" in completions[0].error
    assert "lasts 50.00 s, the model takes at most 40.00 s: crop it" in completions[1].error
    assert completions[1].heard == Heard(50.0, 0.0, 0)
    assert "132 tokens" in completions[4].error and "fewer than 120" in completions[4].error
    assert "nothing to reply to" in completions[5].error
    assert list(completions[3].token_ids) == one_by_one(engine, conversations[1])
    with pytest.raises(ConversationError):
        engine.last_hidden(faulty[:1])
    with pytest.raises(ModelError, match="fewer than 120"):
        engine.logprobs(conversations[:1], ["y" * 120])


def test_a_reply_is_cut_at_the_models_context(tmp_path: Path) -> None:
    engine = load(str(tiny_fused(tmp_path, context=40)), device="cpu", threads=1)
    completion = engine.generate([Conversation().user("?")], Sampling(max_new_tokens=100))[0]
    assert completion.prompt_tokens + len(completion.token_ids) <= 40
    assert completion.stop in (Stop.LENGTH, Stop.END)


def test_a_continued_sentence_keeps_its_blank(engine: LocalEngine) -> None:
    tokenizer: Any = engine.family.tokenizer
    asked = engine.family.render([Conversation().user("?").assistant("There is a")])[0]
    assert engine.family.reply_text(asked.token_ids, tokenizer(" dog")["input_ids"]) == " dog"  # type: ignore[union-attr]


def test_load_names_what_is_known(tmp_path: Path) -> None:
    for name in ("nonsense", str(tmp_path)):
        with pytest.raises(ModelError, match="pocket"):
            load(name)
    (tmp_path / "config.json").write_text('{"model_type": "mystery"}')
    with pytest.raises(ModelError, match=r"mystery.*earnest_fused"):
        load(str(tmp_path))
    assert find_family("earnest_fused").__name__ == "FusedFamily"


def test_the_key_follows_the_content(folder: Path, tmp_path: Path) -> None:
    key = load(str(folder), device="cpu", threads=1).key
    assert load(str(tiny_fused(tmp_path / "same")), device="cpu", threads=1).key == key
    assert load(str(tiny_fused(tmp_path / "other", seed=1)), device="cpu", threads=1).key != key


def test_notes_beside_the_weights_are_not_part_of_the_key(tmp_path: Path) -> None:
    folder = tiny_fused(tmp_path / "same")
    key = model_key(str(folder))
    (folder / "training.json").write_text('{"seconds": 3}')
    assert model_key(str(folder)) == key
    (folder / "processor_config.json").write_text("{}")
    assert model_key(str(folder)) != key


def test_require_says_what_is_missing(engine: LocalEngine) -> None:
    require(engine, "reliability", "logprobs", "hidden_states")

    class Deaf:
        name = "deaf"
        capabilities = replace(engine.capabilities, audio_in_assistant=False)

    with pytest.raises(ModelError, match="re-listening needs audio_in_assistant, which deaf"):
        require(Deaf(), "re-listening", "logprobs", "audio_in_assistant")  # type: ignore[arg-type]


def test_each_process_of_torchrun_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_gpu() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_gpu() == "cuda:3"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"device": "tpu"}, "unknown device 'tpu': take cpu"),
        ({"dtype": "int3"}, "unknown dtype 'int3': take float32"),
        ({"dtype": "int8"}, "unknown dtype 'int8': take float32"),
    ],
)
def test_a_device_or_dtype_that_no_model_takes_is_named(options: dict[str, str], match: str) -> None:
    with pytest.raises(ModelError, match=match):
        load("pocket", threads=1, **options)
