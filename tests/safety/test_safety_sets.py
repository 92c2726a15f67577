"""Published layouts, with invented words in place of every request."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from earnest.audio import Clip
from earnest.errors import EarnestError, ManifestError
from earnest.safety.layouts import LAYOUTS
from earnest.safety.sets import Request, read_requests

BEAVERTAILS = [
    {"prompt": "zorple a dax?", "response": "no", "category": {"wug": False, "fep": False}, "is_safe": True},
    {"prompt": "zorple a dax?", "response": "ok", "category": {"wug": False, "fep": True}, "is_safe": False},
    {"prompt": "blick it?", "response": "no", "category": {"wug": False, "fep": False}, "is_safe": True},
    {"prompt": "blick it?", "response": "nein", "category": {"wug": False, "fep": False}, "is_safe": True},
    {"prompt": "toma us?", "response": "ok", "category": {"wug": True, "fep": True}, "is_safe": False},
]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write(path, *(json.dumps(row) for row in rows))


def test_advbench(tmp_path: Path) -> None:
    file = write(tmp_path / "harmful_behaviors.csv", "goal,target", 'Zorple a dax,"Sure, zorple"', "Blick it,Sure")
    assert read_requests(file) == [
        Request("Zorple a dax", True, "harmful_behaviors-2", source="advbench"),
        Request("Blick it", True, "harmful_behaviors-3", source="advbench"),
    ]


def test_harmbench_puts_the_context_first(tmp_path: Path) -> None:
    file = write(
        tmp_path / "text.csv",
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID",
        "Zorple a dax,standard,wug,,,zorple_dax",
        'Blick it,contextual,fep,context,"A dax, here.",blick_it',
    )
    assert read_requests(file) == [
        Request("Zorple a dax", True, "text-zorple_dax", "wug", source="harmbench"),
        Request("A dax, here.\n\nBlick it", True, "text-blick_it", "fep", source="harmbench"),
    ]


def test_a_request_about_an_image_is_a_fault(tmp_path: Path) -> None:
    header = "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID,ImageFileName"
    file = write(tmp_path / "multimodal.csv", header, "Blick it,contextual,fep,,,blick,dax.png")
    with pytest.raises(ManifestError, match=r"line 2: .*ImageFileName"):
        read_requests(file)


def test_safebench(tmp_path: Path) -> None:
    file = write(
        tmp_path / "safebench.csv",
        "dataset,category_id,task_id,category_name,question,instruction",
        "ForbidQI,1,2,Wug Lore,How does one zorple?,Steps to zorple.",
    )
    assert read_requests(file) == [
        Request("How does one zorple?", True, "safebench-1-2", "Wug Lore", source="safebench")
    ]


def test_jailbreakbench_files_pair_by_index(tmp_path: Path) -> None:
    header = "Index,Goal,Target,Behavior,Category,Source"
    harmful = write(tmp_path / "harmful-behaviors.csv", header, "7,Zorple a dax,Sure,Zorpling,Wug,Original")
    benign = write(tmp_path / "benign-behaviors.csv", header, "7,Draw a dax,Sure,Drawing,Wug,Original")
    assert [*read_requests(harmful), *read_requests(benign)] == [
        Request("Zorple a dax", True, "harmful-behaviors-7", "Wug", "jailbreakbench-7", "jailbreakbench"),
        Request("Draw a dax", False, "benign-behaviors-7", "Wug", "jailbreakbench-7", "jailbreakbench"),
    ]
    other = write(tmp_path / "behaviors.csv", header, "7,Draw a dax,Sure,Drawing,Wug,Original")
    with pytest.raises(ManifestError, match="call the file harmful-behaviors or benign-behaviors"):
        read_requests(other)


def test_beavertails_judges_prompts_by_what_they_drew(tmp_path: Path) -> None:
    left_out: dict[str, str] = {}
    file = write_jsonl(tmp_path / "test.jsonl", BEAVERTAILS)
    assert read_requests(file, left_out=left_out) == [
        Request("zorple a dax?", True, "test-2", "fep", source="beavertails"),
        Request("toma us?", True, "test-5", "wug", source="beavertails"),
    ]
    assert list(left_out) == ["test-3"]
    assert "does not make it benign" in left_out["test-3"]


def test_the_prompts_of_beavertails_evaluation_are_harmful(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "evaluation.jsonl", [{"prompt": "zorple?", "category": "wug", "category_id": 3}])
    [request] = read_requests(file)
    assert (request.harmful, request.kind, request.source) == (True, "wug", "beavertails-evaluation")


@pytest.mark.parametrize("label", [True, False])
def test_xstest_with_and_without_labels(tmp_path: Path, label: bool) -> None:
    rows = [("v2-1", "Zorple a program?", "homonyms", "safe"), ("v2-2", "Zorple a dax?", "contrast_homonyms", "unsafe")]
    file = write(
        tmp_path / "xstest_prompts.csv",
        "id,prompt,type,label,focus,note" if label else "id,type,prompt,focus,note",
        *(
            f"{name},{prompt},{kind},{told},zorple," if label else f"{name},{kind},{prompt},zorple,"
            for name, prompt, kind, told in rows
        ),
    )
    assert read_requests(file) == [
        Request("Zorple a program?", False, "xstest_prompts-v2-1", "homonyms", source="xstest"),
        Request("Zorple a dax?", True, "xstest_prompts-v2-2", "contrast_homonyms", source="xstest"),
    ]


@pytest.mark.parametrize(
    ("name", "harmful"), [("or-bench-80k", False), ("or-bench-hard-1k", False), ("or-bench-toxic", True)]
)
def test_or_bench_is_told_by_the_name_of_the_file(tmp_path: Path, name: str, harmful: bool) -> None:
    file = write(tmp_path / f"{name}.csv", "prompt,category", "Zorple it?,wug")
    assert read_requests(file) == [Request("Zorple it?", harmful, f"{name}-2", "wug", source="or-bench")]


def test_or_bench_under_another_name_is_an_error_that_says_how_to_name_it(tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.csv", "prompt,category", "Zorple it?,wug")
    with pytest.raises(ManifestError, match="call the file or-bench-80k"):
        read_requests(file)


def test_aor_bench_is_benign_with_its_audio_alone_and_only_where_it_is_named(tmp_path: Path) -> None:
    clip = Clip.silence(0.2).save(tmp_path / "a.wav")
    file = write(tmp_path / "clips.csv", "audio,text", "a.wav,Zorple it", ",Blick it")
    with pytest.raises(ManifestError, match="fit no layout"):
        read_requests(file)
    with pytest.raises(ManifestError, match="line 3: no 'audio': without the sounds"):
        read_requests(file, "aor-bench")
    file = write(tmp_path / "clips.csv", "audio,text", "a.wav,Zorple it")
    assert read_requests(file, "aor-bench") == [
        Request("Zorple it", False, "clips-2", source="aor-bench", audio=clip),
    ]


def test_our_own_layout(tmp_path: Path) -> None:
    clip = Clip.silence(0.2).save(tmp_path / "a.wav")
    file = write_jsonl(
        tmp_path / "mine.jsonl",
        [
            {"id": "h", "text": "Zorple a dax", "harmful": True, "kind": "wug", "pair": "one", "audio": "a.wav"},
            {"text": "Draw a dax", "harmful": "false", "pair": "one", "kind": None},
        ],
    )
    assert read_requests(file) == [
        Request("Zorple a dax", True, "h", "wug", "one", "mine", clip),
        Request("Draw a dax", False, "mine-2", "", "one", "mine"),
    ]


def test_all_faults_of_a_file_come_at_once(tmp_path: Path) -> None:
    file = write(
        tmp_path / "mine.csv",
        "id,text,harmful,pear,audio",
        "a,,true,,",
        "b,Blick it,perhaps,,",
        "b,Toma us,,x,no.wav",
    )
    with pytest.raises(ManifestError) as error:
        read_requests(file)
    assert [fault.split(" is missing")[0] for fault in error.value.faults] == [
        "line 1: unknown column 'pear': did you mean 'pair'?",
        "line 2: no 'text': the cell",
        "line 3: harmful is 'perhaps': give true or false",
        "line 4: no 'harmful': the cell",
        "line 4: id 'b' stands on line 3 already: ids must be unique",
        "line 4: audio 'no.wav'",
    ]


def test_unknown_ambiguous_and_empty_files_are_errors_that_list_the_layouts(tmp_path: Path) -> None:
    unknown = write(tmp_path / "unknown.csv", "utterance", "Zorple")
    with pytest.raises(ManifestError) as error:
        read_requests(unknown)
    assert all(key in str(error.value) for key in LAYOUTS)
    both = write(tmp_path / "both.csv", "goal,target,prompt,type", "Zorple,Sure,Blick,homonyms")
    with pytest.raises(ManifestError, match="fit the layouts advbench and xstest: name one of them"):
        read_requests(both)
    assert read_requests(both, "advbench")[0].text == "Zorple"
    with pytest.raises(ManifestError, match="the layout harmbench needs Behavior, BehaviorID"):
        read_requests(both, "harmbench")
    with pytest.raises(EarnestError, match="layout 'advbank' is unknown: give one of earnest, advbench"):
        read_requests(both, "advbank")
    with pytest.raises(ManifestError, match="no rows"):
        read_requests(write(tmp_path / "empty.csv", "goal,target"))
    with pytest.raises(ManifestError, match="no JSON"):
        read_requests(write(tmp_path / "torn.jsonl", '{"goal": "Zorple", "target": "Sure"}', '{"goal'))


def test_row_numbers_of_a_data_frame_are_no_column(tmp_path: Path) -> None:
    file = write(tmp_path / "numbered.csv", ",goal,target", "0,Zorple,Sure")
    assert read_requests(file) == [Request("Zorple", True, "numbered-2", source="advbench")]


def test_a_set_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def load_dataset(name: str, config: str | None) -> dict[str, list[dict[str, Any]]]:
        asked.append((name, config))
        if name == "nobody/none":
            raise ConnectionError("no such set")
        row = {"Index": 0, "Goal": "Zorple", "Target": "Sure", "Behavior": "Zorpling", "Category": "Wug"}
        return {"harmful": [row], "benign": [{**row, "Goal": "Draw"}]}

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "datasets", module)
    found = read_requests("hub:JailbreakBench/JBB-Behaviors:behaviors")
    assert asked == [("JailbreakBench/JBB-Behaviors", "behaviors")]
    assert [(request.text, request.harmful, request.pair) for request in found] == [
        ("Zorple", True, "jailbreakbench-0"),
        ("Draw", False, "jailbreakbench-0"),
    ]
    assert [request.id for request in found] == [
        "JBB-Behaviors-behaviors-harmful-0",
        "JBB-Behaviors-behaviors-benign-0",
    ]
    with pytest.raises(EarnestError, match="hub:nobody/none cannot be had: no such set"):
        read_requests("hub:nobody/none")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(EarnestError, match="pip install datasets"):
        read_requests("hub:JailbreakBench/JBB-Behaviors:behaviors")
