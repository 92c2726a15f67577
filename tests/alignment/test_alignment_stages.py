import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    ASTConfig,
    ASTModel,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    WhisperConfig,
    WhisperModel,
)

import earnest
from earnest.alignment.assembly import Parts, load_parts
from earnest.alignment.rows import Target, save_rows
from earnest.completion import Sampling
from earnest.conversation import Audio, Conversation
from earnest.errors import EarnestError, ModelError, RecipeError
from earnest.files import to_toml
from earnest.fused import FusedModel
from earnest.training import recipes
from tiny import tiny_tokenizer, tone

RECIPE = Path(__file__).parents[2] / "recipes" / "alarm" / "qwen3-4b.toml"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: Any) -> dict[str, Path]:
    """A tiny random one of each architecture that the recipe names, as transformers saves it."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("parts")
    tokenizer = tiny_tokenizer()
    llm = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer) + 6, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True, initializer_range=0.5,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    models = {
        "llm": llm,
        "whisper": WhisperModel(
            WhisperConfig(
                d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
                encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=16, max_source_positions=50, vocab_size=64,
                pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
            )
        ),
        "bert": Wav2Vec2BertModel(
            Wav2Vec2BertConfig(
                hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                feature_projection_input_dim=160, conv_depthwise_kernel_size=7,
            )
        ),
        "music": Data2VecAudioModel(
            Data2VecAudioConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=[8] * 7,
                num_conv_pos_embedding_groups=2,
            )
        ),
        "events": ASTModel(
            ASTConfig(
                hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_length=116,
                num_mel_bins=36,
            )
        ),
    }  # fmt: skip
    for name, model in models.items():
        model.save_pretrained(root / name)
    tokenizer.save_pretrained(root / "llm")
    return {name: root / name for name in models}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: Any) -> Path:
    folder = tmp_path_factory.mktemp("targets")
    rows: list[Target] = []
    for number in range(6):
        audio = folder / f"{number}.wav"
        tone(250.0 + 50 * number, 0.5 + 0.3 * number).save(audio)
        split = "validation" if number == 5 else "train"
        rows.append(
            Target(
                f"{number}/q0", audio, f"[00:00-00:02] |tone {number}|", 2.0, split=split, question="what is it?",
                clip=str(number), raw="a tone", target=None if number == 4 else f"tone {number}", reason="rephrased",
            )
        )  # fmt: skip
    save_rows(rows, folder / "targets.jsonl")
    return folder / "targets.jsonl"


def small_recipe(path: Path, folders: dict[str, Path], targets: Path) -> Path:
    """The paper's recipe with every stage, encoder and kind of number that it has, and other sizes."""
    document = tomllib.loads(RECIPE.read_text())
    names = [entry.split("=")[0].strip() for entry in document["stage"][0]["encoders"].split(",")]
    assert names == ["whisper", "bert", "music", "events"]
    document["stage"][0] |= {
        "llm": str(folders["llm"]), "encoders": ", ".join(f"{name}={folders[name]}" for name in names),
        "layers": "whisper=1+2, events=1+2", "dtype": "float32", "device": "cpu", "targets": str(targets),
        "adapter_width": 12, "adapter_inner": 20, "fusion_width": 16, "fusion_heads": 2, "fusion_ffn": 24, "latents": 3,
    }  # fmt: skip
    for stage in document["stage"][1:4]:
        stage |= {"steps": 2, "batch_size": 2, "warm_up": 1, "threads": 1}
    text = to_toml({"out": str(path.parent / "out")})
    for stage in document["stage"]:
        text += f"\n[[stage]]\n{to_toml(stage)}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_the_papers_recipe_on_tiny_parts(folders: dict[str, Path], targets: Path, tmp_path: Path) -> None:
    path = small_recipe(tmp_path / "tiny.toml", folders, targets)
    lines: list[str] = []
    recipes.run(path, log=lines.append)
    out = tmp_path / "out"
    card = json.loads((out / "alignment-parts" / "card.json").read_text())
    assert (card["rows"], card["with_target"]) == (6, 5)
    assert list(card["parameters"]) == ["whisper", "bert", "music", "events", "ca", "perceiver"]
    assert sorted(p.name for p in (out / "alignment-single").iterdir() if p.is_dir()) == [
        "bert", "events", "music", "whisper",
    ]  # fmt: skip
    assert not (out / "alignment-single" / "whisper" / "model.safetensors").exists()
    loss = json.loads((out / "alignment-ca" / "model" / "card.json").read_text())["validation_loss"]
    assert (loss["n"], loss["unit"]) == (1, "nats")
    clip = tone(300, 1.3)
    replies = {}
    for stage in ("alignment-ca", "alignment-perceiver", "alignment-ensemble"):
        engine = earnest.load(str(out / stage / "model"), threads=1)
        heard = Conversation().user(Audio(clip), "\n\nwhat is it?")
        read = Conversation().user("what is it?")
        replies[stage] = engine.generate([heard, read], Sampling(max_new_tokens=6))
        assert replies[stage][0].heard.seconds_heard == pytest.approx(1.3)
    # 33 tokens at 25 a second; start and end; 3 latents of 3 encoders between 2 marks; both in the ensemble.
    tokens = [replies[stage][0].heard.audio_tokens for stage in replies]
    assert tokens == [35, 46, 81]
    # Without audio each is the same frozen LLM.
    assert len({reply[1].token_ids for reply in replies.values()}) == 1
    recipes.run(path, log=lines.append)
    assert lines[-1].startswith("alignment-ensemble: complete")


def test_what_was_killed_behind_a_training_does_not_train_again(
    folders: dict[str, Path], targets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from earnest.alignment import stages

    path = small_recipe(tmp_path / "tiny.toml", folders, targets)
    measure = stages.held_out_loss
    done: list[str] = []

    class Killed(Exception): ...

    def killed(*given: Any, **more: Any) -> Any:
        done.append("measured")
        if len(done) in (1, 6):
            raise Killed
        return measure(*given, **more)

    train = stages.train_pass
    trained: list[str] = []

    def noted(*given: Any, **more: Any) -> Any:
        trained.append(str(given[4].relative_to(tmp_path / "out")))
        return train(*given, **more)

    monkeypatch.setattr(stages, "held_out_loss", killed)
    monkeypatch.setattr(stages, "train_pass", noted)
    for _ in range(2):
        with pytest.raises(Killed):
            recipes.run(path, log=lambda _: None)
    recipes.run(path, log=lambda _: None)
    assert trained == [
        "alignment-single/whisper", "alignment-single/bert", "alignment-single/music", "alignment-single/events",
        "alignment-ca/model", "alignment-perceiver/model",
    ]  # fmt: skip
    for name in (*trained[:4], "alignment-ca/model"):
        assert "validation_loss" in json.loads((tmp_path / "out" / name / "card.json").read_text())


def test_two_processes_train_as_one(folders: dict[str, Path], targets: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    one = small_recipe(tmp_path / "one" / "tiny.toml", folders, targets)
    two = small_recipe(tmp_path / "two" / "tiny.toml", folders, targets)
    recipes.run(one, log=lambda _: None)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "earnest"]
    done = subprocess.run([*command, "train", str(two)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("alignment-single/whisper", "alignment-ca/model", "alignment-perceiver/model"):
        alone, together = (load_file(path.parent / "out" / name / "pass.safetensors") for path in (one, two))
        for key in alone:
            torch.testing.assert_close(together[key], alone[key], atol=1e-5, rtol=1e-4)


def test_fusion_begins_from_the_trained_adapters(folders: dict[str, Path], targets: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    recipes.run(small_recipe(tmp_path / "tiny.toml", folders, targets), log=lambda _: None)
    out = tmp_path / "out"
    fused = load_file(out / "alignment-ca" / "model" / "pass.safetensors")
    for name in ("whisper", "bert", "music", "events"):
        single = load_file(out / "alignment-single" / name / "pass.safetensors")
        own = {key: value for key, value in single.items() if key.startswith(("adapters.", "mixes."))}
        assert own
        assert all(torch.equal(fused[key], value) for key, value in own.items())


def test_encoders_hear_by_the_settings_of_their_folders(folders: dict[str, Path], tmp_path: Path) -> None:
    from transformers import ASTFeatureExtractor

    shutil.copytree(folders["events"], tmp_path / "events")
    file = tmp_path / "events" / "preprocessor_config.json"
    small = {"adapter_width": 8, "adapter_inner": 8, "dtype": "float32"}
    heard: list[torch.Tensor] = []
    clip = np.array(tone(400.0, 1.0).resampled(16_000).samples)
    for given in ({}, {"mean": -3.0, "std": 2.0, "do_normalize": True}):
        if given:
            ASTFeatureExtractor(num_mel_bins=36, max_length=116, **given).save_pretrained(tmp_path / "events")
        parts = Parts(llm=str(folders["llm"]), encoders=f"events={tmp_path / 'events'}", **small)
        model, _ = load_parts(parts).fused(parts, ["events"], "single", 0)
        assert model.config.encoder_spec("events").feature == (given or None)
        model.save_pretrained(tmp_path / "model")
        again = FusedModel.from_pretrained(tmp_path / "model")
        heard.append(again.features([clip])[0][0])
    assert not torch.equal(heard[0], heard[1])
    usual = ASTFeatureExtractor()
    torch.testing.assert_close(heard[0] * 2 * usual.std + usual.mean, heard[1] * 2 * 2.0 - 3.0)
    file.write_text(json.dumps({"sampling_rate": 48_000}))
    with pytest.raises(ModelError, match="hears at 48000 Hz"):
        load_parts(parts)


def test_parameters_at_paper_size() -> None:
    parts = Parts(llm="o/x", encoders="whisper=o/a, bert=o/b, music=o/c, events=o/d")
    from earnest.fused.adapters import Adapter

    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in Adapter(parts.adapter(width, hz, 2560), width).parameters()) / 1e6
            for width, hz in ((1280, 50.0), (1024, 50.0), (768, 50.0), (1024, 25.0))
        ]
    assert [round(count, 2) for count in counts] == [18.63, 17.31, 18.10, 4.72]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llm": ""}, "llm is empty"),
        ({"encoders": ""}, "encoders is empty"),
        ({"encoders": "whisper"}, "write name=value"),
        ({"encoders": "a=o/x, a=o/y"}, "names 'a' twice"),
        ({"llm": "pockett"}, "llm is 'pockett': no such folder"),
        ({"encoders": "a=no/such/folder"}, "encoder 'a' is 'no/such/folder': no such folder"),
        ({"llm": "tests"}, "llm is 'tests', which has no config.json"),
        ({"dtype": "float33"}, "dtype is 'float33'"),
        ({"layers": "b=1"}, "layers names 'b'"),
        ({"layers": "a=one"}, "write name=8"),
        ({"latents": 0}, "latents is 0"),
    ],
)
def test_bad_parts(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(EarnestError, match=message):
        _ = Parts(**{"llm": "o/x", "encoders": "a=o/y", **changes}).layers_by_name


def test_parts_come_out_of_pocket(targets: Path, tmp_path: Path) -> None:
    numbers = {"adapter_width": 12, "adapter_inner": 12, "tokens_per_second": 4.0, "dtype": "float32"}
    path = tmp_path / "pocket.toml"
    parts = {"name": "alignment-parts", "llm": "pocket", "encoders": "speech=pocket, events=pocket", **numbers}
    training = {"steps": 1, "batch_size": 2, "threads": 1}
    stages = [parts, {"name": "alignment-single", **training}, {"name": "alignment-concat", **training}]
    text = "".join(f"\n[[stage]]\n{to_toml(stage)}" for stage in (parts | {"targets": str(targets)}, *stages[1:]))
    path.write_text(to_toml({"out": str(tmp_path / "out")}) + text)
    lines: list[str] = []
    recipes.run(path, log=lines.append)
    assert any("speech: step 1 of 1" in line for line in lines)
    pocket = earnest.load("pocket", threads=1)
    own = earnest.load(str(tmp_path / "out" / "alignment-concat" / "model"), threads=1)
    read = [Conversation().user("who are you?")]
    # The same frozen LLM and ears, with a pass of its own between them.
    assert (
        own.generate(read, Sampling(max_new_tokens=12))[0].text
        == pocket.generate(read, Sampling(max_new_tokens=12))[0].text
    )
    heard = own.generate([Conversation().user(Audio(tone(300, 2.0)), "\n\nwhat is it?")], Sampling(max_new_tokens=2))
    assert heard[0].heard.audio_tokens == 2 + 8
    # The stage's numbers are told where they have changed.
    path.write_text(path.read_text().replace("steps = 1", "steps = 2", 1))
    recipes.run(path, log=lines.append)
    assert any("alignment-single: was made with steps = 1 (now 2); that is removed" in line for line in lines)
    assert any("alignment-concat: was made from other data or by other stages" in line for line in lines)
    with pytest.raises(ModelError, match="pocket has no encoder 'ears': it has "):
        load_parts(Parts(llm="pocket", encoders="ears=pocket", **numbers))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": "whisper=1+3"}, "layers names 3 of encoder 'whisper', which has 2: give 0 to 2, or -1"),
        ({"layers": "whisper=-4"}, "layers names -4"),
        ({"device": "cuda:7"}, "the device is 'cuda:7', and of GPUs torch finds here"),
        ({"encoders": "whisper={llm}"}, "is of type 'qwen3'"),
        ({"llm": "{whisper}"}, "whisper has no chat template"),
        ({"encoders": "whisper={odd}"}, "encoder 'whisper': '.*odd' cannot be loaded: "),
    ],
)
def test_parts_that_cannot_be_loaded(
    changes: dict[str, str], message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "config.json").write_text("{}")
    usual = {"llm": "{llm}", "encoders": "whisper={whisper}", "dtype": "float32"}
    given = {name: value.format(**folders, odd=odd) for name, value in (usual | changes).items()}
    with pytest.raises(ModelError, match=message):
        load_parts(Parts(**given))  # pyright: ignore[reportArgumentType]


def test_targets_are_looked_at_before_anything_is_loaded(
    folders: dict[str, Path], targets: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in targets.read_text().splitlines()]
    for change, message in (
        ({"split": "validation"}, "no row of the split train has a target"),
        ({"audio": "gone.wav"}, r"5 of 5 clips are not there, such as .*gone\.wav"),
    ):
        own = tmp_path / "own.jsonl"
        changed = [{**row, "audio": str(targets.parent / row["audio"]), **change} for row in rows]
        if "audio" in change:
            changed = [{**row, "audio": f"{number}-gone.wav"} for number, row in enumerate(changed)]
        own.write_text("".join(json.dumps(row) + "\n" for row in changed))
        with pytest.raises(EarnestError, match=message):
            recipes.run(small_recipe(tmp_path / "tiny.toml", folders, own), log=lambda _: None)


def test_faults_of_a_recipe_come_before_any_work(folders: dict[str, Path], targets: Path, tmp_path: Path) -> None:
    path = small_recipe(tmp_path / "tiny.toml", folders, targets)
    text = path.read_text()
    path.write_text(text.replace(str(targets), str(tmp_path / "none.jsonl")))
    with pytest.raises(RecipeError, match=r"is no file: name the targets\.jsonl"):
        recipes.run(path, log=lambda _: None)
    path.write_text(text + '\nfirst = "alignment-single"\n')
    with pytest.raises(RecipeError, match="is no fusion of this recipe"):
        recipes.load(path)
