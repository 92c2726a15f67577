"""Re-listening as a recipe: SFT, GRPO and an audit on models of others, what is shipped, faults before any work.

Random weights never cite: SFT on one trace of the world is long enough here that the model writes it by heart, and the
rollouts of GRPO then go back to the audio as a large model's would.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_fused, tiny_pocket
from tests.tiny_citing import engine_of
from tests.tiny_hearing import tiny_qwen2_audio, tiny_qwen25_omni

from earnest.audio import Clip
from earnest.cli import main
from earnest.completion import Sampling
from earnest.engines.lora import CONFIG, EARS, ears_of, put_on
from earnest.errors import EarnestError, ModelError, RecipeError
from earnest.example import Example, load_manifest
from earnest.files import read_json_lines, write_json_lines
from earnest.pocket import relistening_adapters, relistening_folder
from earnest.relistening import scan, stages
from earnest.relistening.audit import Extent, audit
from earnest.relistening.traces import Trace
from earnest.run import RunDirectory
from earnest.training.recipes import load, run

RECIPES = Path(__file__).parents[2] / "recipes" / "pocket"


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One question to learn from, and it and two others for RL, as `earnest make grounded` makes them."""
    out = tmp_path_factory.mktemp("grounded")
    # Of these scenes none is longer than the 30 s that the models take.
    command = ("make", "grounded", out, "--world", 4, "--seed", 2, "--rl-share", 0.5, "--workers", 1)
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in command])
    assert not ended.value.code
    first = read_json_lines(out / "sft.jsonl")[0]
    write_json_lines(out / "one.jsonl", [first])
    bare = {name: cell for name, cell in first.items() if name != "meta"}
    write_json_lines(out / "rl-and-one.jsonl", [bare, *read_json_lines(out / "rl.jsonl")])
    return out / "one.jsonl", out / "rl-and-one.jsonl"


def recipe(
    folder: Path, model: Path | str, train: Path | str, rl: Path | str, *, more: str = "", ship: str = ""
) -> Path:
    """SFT and GRPO on a model; `more` stands at the end of the stage relistening-grpo."""
    path = folder / "recipe.toml"
    path.write_text(
        f'out = "{folder / "out"}"\n'
        f'[[stage]]\nname = "relistening-data"\ntrain = "{train}"\nrl = "{rl}"\n'
        f'[[stage]]\nname = "relistening-sft"\nmodel = "{model}"\nlearning_rate = 1e-2\nepochs = 80\nbatch_size = 1\n'
        "threads = 1\n"
        '[[stage]]\nname = "relistening-grpo"\nsteps = 1\nprompts = 3\ngroup = 8\ntemperature = 0.65\nwarm_up = 0\n'
        f"max_new_tokens = 60\nrank = 4\nalpha = 8\nlog_every = 1\nlearning_rate = 2e-3\nthreads = 1\n{more}{ship}"
    )
    return path


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize("make", [tiny_qwen25_omni, tiny_qwen2_audio])
def test_sft_grpo_and_audit_on_models_of_others(
    make: Callable[[Path], Path], manifests: tuple[Path, Path], tmp_path: Path
) -> None:
    model = make(tmp_path / "model")
    path = recipe(tmp_path, model, *manifests)
    run(path, log=quiet)
    out = tmp_path / "out"
    (taught,) = load_manifest(manifests[0])
    trace = Trace.from_json(taught.meta["trace"])

    # GRPO's rollouts went back to the audio, and say what SFT taught.
    rows = [row for row in read_json_lines(out / "relistening-grpo" / "rollouts.jsonl") if row["heard"]]
    assert rows
    assert any(row["reply"] == trace.text and row["reward"] == 1.5 for row in rows)
    ((start_s, end_s),) = trace.segments
    heard = Clip.load(out / "relistening-grpo" / rows[0]["heard"][0])
    assert abs(heard.samples - taught.clip.crop(start_s, end_s).samples).max() < 1e-3
    (step,) = read_json_lines(out / "relistening-grpo" / "own" / "metrics.jsonl")
    assert step["heard_again_s"] > 0 and step["hits"] > 0 and step["generations"] > 1
    assert step["gradient"] > 0 and step["informative"] > 0
    assert abs(step["kl"]) < 1e-5, "the reference is what SFT made"

    # One adapter for the model that the user has: SFT's and GRPO's own on top.
    sft, grpo = (out / f"relistening-{name}" / "adapter" for name in ("sft", "grpo"))
    assert json.loads((grpo / CONFIG).read_text())["r"] == 32 + 4
    merged, bare = engine_of(model), engine_of(model)
    put_on(merged.family.model, sft).merge_and_unload()
    asked, reply = [taught.conversation()], [list(range(40, 60))]
    before = merged.logprobs(asked, reply)[0]
    with merged.wearing(out / "relistening-grpo" / "own"), bare.wearing(grpo):
        one, two = merged.logprobs(asked, reply)[0], bare.logprobs(asked, reply)[0]
    torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(one, before, atol=2e-3), "GRPO changed something"

    # The audit asks both, and a second one computes nothing.
    def audited(folder: RunDirectory) -> Any:
        return audit(
            bare, load_manifest(manifests[1]), folder, adapters={"sft": sft, "grpo": grpo},
            sampling=Sampling(max_new_tokens=60), extent=Extent(budgets_s=(0.0, 8.0), budget_items=1), seed=1,
        )  # fmt: skip

    finding = audited(RunDirectory(tmp_path / "run"))
    (cited,) = finding.records[0]["segments"]
    assert (cited["start_s"], cited["end_s"], cited["fault"]) == (start_s, end_s, "")
    assert finding.metrics["accuracy.ours_sft"].value >= 1 / 3
    assert finding.metrics["hit_rate"].value >= 1 / 3
    assert "accuracy.whole_fine" not in finding.metrics, "they hear at one rate"
    assert finding.records[0]["heard"]["seconds_heard"] == pytest.approx(
        taught.clip.duration_s + end_s - start_s, abs=0.1
    )
    again = RunDirectory(tmp_path / "run")
    assert audited(again).metrics == finding.metrics
    assert again.computed == 0

    # Complete stages are skipped.
    lines: list[str] = []
    run(path, log=lines.append)
    assert [line.split(" (")[0] for line in lines] == [
        "relistening-data: complete", "relistening-sft: complete", "relistening-grpo: complete",
    ]  # fmt: skip


def test_pockets_recipe_from_the_scan_to_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages of pocket's recipe on a tiny model of its make: the package then has scan and adapters."""
    model = tiny_pocket(tmp_path / "model")
    monkeypatch.setattr("earnest.pocket.weights_path", lambda: model)
    monkeypatch.setattr(scan, "MEASURED", 1)
    path = tmp_path / "recipe.toml"
    numbers = {
        "scan": "scenes = 2,steps = 2,batch_size = 2,bands = 12,hop = 2048,stride = 4,width = 16,blocks = 1,"
        "adapter_width = 16,workers = 1,threads = 1",
        "relistening-data": "scenes = 2,per_scene = 2,rl_scenes = 1,rl_per_scene = 1,workers = 1",
        "relistening-sft": "single = 0.2,places = 0.2,rank = 4,alpha = 4,epochs = 1,threads = 1",
        "relistening-grpo": "steps = 1,prompts = 1,group = 2,rank = 2,alpha = 2,max_new_tokens = 8,threads = 1",
        "relistening-ship": "",
    }
    stages_of = [f'[[stage]]\nname = "{name}"\n' + own.replace(",", "\n") + "\n" for name, own in numbers.items()]
    path.write_text(f'out = "{tmp_path / "out"}"\n' + "".join(stages_of))
    run(path, log=quiet)
    assert relistening_folder() == model / "relistening"
    found = relistening_adapters()
    assert found is not None
    assert list(found) == ["sft", "grpo"]
    assert all(ears_of(folder) == model / "relistening" for folder in found.values())
    card = json.loads((model / "relistening" / "relistening.json").read_text())
    assert card.keys() == {"key", "heard", "grpo", "seconds"}
    assert [row["step"] for row in card["grpo"]] == [1]
    assert card["seconds"].keys() == {"scan", "relistening-data", "relistening-sft", "relistening-grpo"}
    config = json.loads((found["grpo"] / CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("pocket", 6)
    weights = [load_file(file) for file in sorted((model / "relistening").rglob("*.safetensors"))]
    assert [{tensor.dtype for tensor in own.values()} for own in weights] == [{torch.float16}] * 3
    # What is shipped is what was trained: pocket with scan and adapter, and the stage's whole model with it.
    whole = engine_of(tmp_path / "out" / "scan", tmp_path / "out" / "relistening-grpo" / "adapter")
    shipped = engine_of(model, found["grpo"])
    examples = load_manifest(tmp_path / "out" / "relistening-data" / "rl" / "manifest.jsonl")
    asked, reply = [examples[0].conversation()], [list(range(40, 60))]
    torch.testing.assert_close(whole.logprobs(asked, reply)[0], shipped.logprobs(asked, reply)[0], atol=2e-2, rtol=1e-2)
    assert not torch.allclose(engine_of(model).logprobs(asked, reply)[0], shipped.logprobs(asked, reply)[0], atol=0.1)
    assert (model / "relistening" / EARS).is_file()
    # Other weights of pocket: what was shipped is for the old ones.
    tiny_pocket(model, seed=1)
    with pytest.raises(ModelError, match=r"recipes/pocket/relisten-rl\.toml"):
        relistening_adapters()


def test_the_recipes_that_come_with_earnest_are_sound() -> None:
    sft, rl = (load(RECIPES / f"relisten-{name}.toml") for name in ("sft", "rl"))
    assert [name for name, _, _ in rl.stages] == [
        "scan", "relistening-data", "relistening-sft", "relistening-grpo", "relistening-ship",
    ]  # fmt: skip
    # The second goes on in the folder of the first: what is complete there is not made again.
    assert (sft.stages, sft.out) == (rl.stages[:3], rl.out)
    assert load(RECIPES / "relisten-tags.toml").stages


def test_words_are_pockets_where_the_scan_is_of_it(tmp_path: Path) -> None:
    def words_of(**settings: Any) -> str:
        context: Any = type("Context", (), {"stages": settings})
        return stages._words(context).id

    sft = stages.SFTSettings
    assert words_of(**{"scan": scan.ScanSettings(), "relistening-sft": sft()}) == "relisten-pocket-1"
    assert words_of(**{"relistening-sft": sft(model="a")}) == "relisten-1"
    assert words_of(**{"scan": scan.ScanSettings(model="a"), "relistening-sft": sft()}) == "relisten-1"
    assert words_of(**{"relistening-sft": sft(model="a", words="pocket")}) == "relisten-pocket-1"


# ---- faults


@pytest.mark.parametrize(
    ("stage", "line", "says"),
    [
        ("relistening-data", 'train = "gone.jsonl"', "train = 'gone.jsonl' is no file"),
        ("relistening-data", "scenes = 3", "train is .* and its scenes 3: give one of them"),
        ("relistening-data", 'rl = ""', "rl is '' and its rl_scenes 0: give one of them"),
        ("relistening-data", "per_scene = 0", "per_scene is 0"),
        ("relistening-sft", 'form = "audio"', "form is 'audio': give one of interleaved, tags"),
        ("relistening-sft", "single = 1.0", "single is 1.0"),
        ("relistening-sft", "places = 1.1", "places 1.1"),
        ("relistening-sft", "single = -0.1", "single is -0.1"),
        ("relistening-sft", 'words = "mine"', "words is 'mine': give one of general, pocket"),
        ("relistening-sft", 'parts = "ears"', "parts is 'ears'"),
        ("relistening-sft", 'model = ""', "model is empty: name one, or let the stage scan"),
        ("relistening-sft", "epoch = 2", "unknown key 'epoch'"),
        ("relistening-grpo", "group = 1", "group is 1: an advantage needs"),
        ("relistening-grpo", "clip = 2.0", "clip is 2.0"),
        ("relistening-grpo", "turns = 0", "turns is 0"),
        ("relistening-grpo", "total_s = -1.0", "total_s is -1.0"),
        ("relistening-grpo", "max_new_tokens = 0", "max_new_tokens is 0"),
        ("relistening-grpo", "log_every = 0", "log_every is 0"),
        ("relistening-grpo", "batch_size = 0", "batch_size is 0"),
    ],
)
def test_faults_are_told_before_anything_runs(stage: str, line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").touch()
    path = recipe(tmp_path, tmp_path / "no-model", tmp_path / "m.jsonl", tmp_path / "m.jsonl")
    head, name, rest = path.read_text().partition(f'name = "{stage}"\n')
    given = [key.split(" = ")[0] for key in line.split("\n")]
    own, mark, others = rest.partition("[[stage]]")
    kept = "\n".join(old for old in own.split("\n") if old.split(" = ")[0] not in given)
    path.write_text(f"{head}{name}{line}\n{kept}{mark}{others}")
    with pytest.raises(RecipeError, match=says):
        run(path, log=quiet)
    assert not (tmp_path / "out").exists()


def test_only_pockets_adapters_are_shipped(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").touch()
    ship = '[[stage]]\nname = "relistening-ship"\n'
    path = recipe(tmp_path, tmp_path, tmp_path / "m.jsonl", tmp_path / "m.jsonl", ship=ship)
    with pytest.raises(RecipeError, match="only pocket's adapters are shipped"):
        load(path)
    scanned = path.read_text().replace("\n", '\n[[stage]]\nname = "scan"\n', 1)
    path.write_text(scanned)
    with pytest.raises(RecipeError, match="only pocket's adapters are shipped"):
        load(path)
    path.write_text(scanned.replace(f'model = "{tmp_path}"\n', ""))
    assert load(path).stages
    path.write_text(scanned.replace(f'model = "{tmp_path}"\n', "").replace("rank = 4", "rank = 0"))
    with pytest.raises(RecipeError, match="relistening-grpo has rank 0"):
        load(path)
    other = scanned.replace(f'model = "{tmp_path}"\n', "").replace(
        'name = "scan"\n', f'name = "scan"\nmodel = "{tmp_path}"\n'
    )
    path.write_text(other)
    with pytest.raises(RecipeError, match="only pocket's adapters are shipped"):
        load(path)


def test_a_manifest_without_traces_is_told_before_the_model_learns(
    manifests: tuple[Path, Path], tmp_path: Path
) -> None:
    path = recipe(tmp_path, tiny_fused(tmp_path / "model"), manifests[1], manifests[1])
    with pytest.raises(EarnestError, match="3 examples have no trace, such as long-train-2-"):
        run(path, log=quiet)
    assert not (tmp_path / "out" / "relistening-sft" / "adapter").exists()


def test_a_changed_manifest_makes_the_stages_anew(manifests: tuple[Path, Path], tmp_path: Path) -> None:
    (taught,) = read_json_lines(manifests[0])
    clip = manifests[0].parent / taught["audio"]
    own = tmp_path / "own.jsonl"
    write_json_lines(own, [{**taught, "audio": str(clip)}])
    settings = stages.DataSettings(train=str(own), rl=str(own))
    before = stages.data.made_of(settings)
    assert stages.data.made_of(settings) == before
    write_json_lines(own, [{**taught, "audio": str(clip), "question": "what?"}])
    assert stages.data.made_of(settings) != before
    found: list[Example] = stages.examples_of(tmp_path, settings, "train")
    assert [example.question for example in found] == ["what?"]
