import json
from pathlib import Path

import numpy as np
import pytest

from earnest.audio import Clip
from earnest.conversation import Audio, Text
from earnest.errors import AudioError, ManifestError
from earnest.example import Example, load_manifest, save_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.wav", "b.wav", "c.flac"), start=1):
        Clip(np.full(16000, number / 10, np.float32), 16000).save(tmp_path / name)
    return tmp_path


def jsonl(folder: Path, *rows: dict) -> Path:
    file = folder / "my.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


ROW = {"audio": "a.wav", "question": "What?", "choices": ["dog", "cat"], "answer": "dog"}


def faults(file: Path, **options) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        load_manifest(file, **options)
    assert all(fault in str(caught.value) for fault in caught.value.faults)
    return caught.value.faults


def test_three_hand_written_rows(folder: Path):
    file = jsonl(
        folder,
        ROW,
        {**ROW, "id": "x", "audio": "b.wav", "modality": "sound", "group.room": 3, "evidence": [[0, 0.5]]},
        {"audio": "c.flac", "question": "How many?", "answer": 3, "meta": {"k": 1}},
    )
    one, two, three = load_manifest(file)
    assert (one.id, one.choices, one.answer, one.rule) == ("line-1", ("dog", "cat"), "dog", "option")
    assert (two.id, two.groups, two.evidence) == ("x", {"modality": "sound", "room": "3"}, ((0.0, 0.5),))
    assert (three.choices, three.answer, three.meta) == (None, "3", {"k": 1})
    assert two.clip.duration_s == 1.0 and two.clip.samples[0] == pytest.approx(0.2, abs=1e-4)


def test_the_four_faults_come_as_one_message(folder: Path):
    (folder / "empty.wav").write_bytes(b"")
    file = jsonl(
        folder,
        ROW,
        {**ROW, "audio": "gone.wav"},
        {"audio": "b.wav", "question": "What?", "choices": ["dog", "cat"], "anwser": "dog"},
        {**ROW, "answer": "dgo"},
        {**ROW, "audio": "empty.wav"},
    )
    found = faults(file)
    assert len(found) == 4
    for fault, (line, says) in zip(
        found,
        [
            ("line 2", "audio 'gone.wav' is missing"),
            ("line 3", "unknown column 'anwser': did you mean 'answer'?"),
            ("line 4", "answer 'dgo' is none of the choices ['dog', 'cat'] (did you mean 'dog'?)"),
            ("line 5", "audio 'empty.wav' is empty (0 bytes)"),
        ],
        strict=True,
    ):
        assert fault.startswith(f"{line}: ") and says in fault


def test_an_audio_file_without_samples_and_one_that_is_none(folder: Path):
    import soundfile

    soundfile.write(folder / "none.wav", np.zeros(0, np.float32), 16000)
    (folder / "text.wav").write_text("no audio")
    found = faults(jsonl(folder, {**ROW, "audio": "none.wav"}, {**ROW, "audio": "text.wav"}))
    assert "line 1: audio 'none.wav' is empty (0 samples)" in found[0]
    assert "line 2: audio 'text.wav' cannot be read as audio" in found[1]


def test_every_clip_is_decoded_and_all_faults_come_together(folder: Path, monkeypatch: pytest.MonkeyPatch):
    import soundfile

    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    whole = Clip(noise, 16000).flac_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    (folder / "cut.wav").write_bytes((folder / "a.wav").read_bytes()[:9000])
    soundfile.write(folder / "nan.wav", np.array([0.0, np.nan], np.float32), 16000, subtype="FLOAT")
    rows = [{**ROW, "audio": name} for name in ("cut.flac", "cut.wav", "nan.wav", "gone.wav", "a.wav", "nan.wav")]
    loaded: list[Path] = []
    load = Clip.load
    monkeypatch.setattr(Clip, "load", lambda path: (loaded.append(path), load(path))[1])
    for _ in range(2):
        found = faults(jsonl(folder, *rows))
        assert [fault.split(": ")[0] for fault in found] == ["line 1", "line 2", "lines 3, 6", "line 4"]
        assert "cut.flac' cannot be used: " in found[0] and "cut off" in found[1]
        assert "nan.wav' cannot be used: 1 of 2 samples are NaN" in found[2]
    assert len(loaded) == len(set(loaded)) <= 4


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": None}, "no 'question'"),
        ({"answer": None}, "no 'answer'"),
        ({"audio": None}, "no 'audio'"),
        ({"choices": ["dog"]}, "1 option"),
        ({"choices": ["dog", "dog"]}, "twice"),
        ({"choices": 3}, "choices is a int"),
        ({"rule": "fuzzy"}, "rule 'fuzzy' is unknown: give one of option, mmau, letter"),
        ({"rule": "mmau", "choices": None}, "needs choices"),
        ({"evidence": [[0.5, 0.2]]}, "no segment"),
        ({"evidence": [[0.5, 3]]}, "ends after the clip"),
        ({"evidence": "soon"}, "no list of segments"),
        ({"groups": "sound"}, "no JSON"),
        ({"audio_path": "b.wav"}, "a second time"),
        ({"xyzzy": 1}, "unknown column 'xyzzy': known are"),
        ({"question": ["a"]}, "question is a list"),
        ({"audio": 3}, "audio is a int"),
        ({"question": " "}, "question is empty"),
        ({"answer": ""}, "answer is empty"),
        ({"choices": ["dog", ""]}, "a choice is empty"),
        ({"choice_a": "dog"}, "column 'choice_a' says 'choices' a second time"),
        ({"choices": None, "choice_a": "dog", "choice_c": "cat"}, "'choice_b' is empty although 'choice_c' is not"),
        ({"audio": "data:audio/wav;base64," + "A" * 9000}, "cannot be looked up (File name too long)"),
    ],
)
def test_each_fault_is_one_sentence(folder: Path, change: dict, says: str):
    (fault,) = faults(jsonl(folder, {**ROW, **change}))
    assert fault.startswith("line 1: ") and says in fault


def test_the_number_of_clips_is_checked_with_all_else(folder: Path):
    rows = jsonl(folder, {**ROW, "audio": "missing.wav"}, {**ROW, "audio": ["a.wav", "b.wav"]}, ROW)
    found = faults(rows, n_clips=1)
    assert [fault.split(": ")[0] for fault in found] == ["line 1", "line 2"]
    assert "2 clips in a row: 1 is asked about" in found[1]


def test_repeated_faults_are_said_once_with_their_lines(folder: Path):
    (fault,) = faults(jsonl(folder, *[{**ROW, "colour": "red"}] * 8))
    assert fault.startswith("lines 1, 2, 3, 4, 5 and 3 more: unknown column 'colour'")


def test_doubled_ids_and_broken_lines(folder: Path):
    file = jsonl(folder, {**ROW, "id": 7}, {**ROW, "id": "7"})
    file.write_text(file.read_text() + "{broken\n[1]\n")
    found = faults(file)
    assert found[0] == "line 2: id '7' stands on line 1 already: ids must be unique"
    assert found[1].startswith("line 3: no JSON") and found[2].startswith("line 4: a list where an object")


def test_answers_by_letter_and_by_another_case(folder: Path):
    rows = [{**ROW, "answer": answer} for answer in ("b", "(B)", "CAT")]
    assert [example.answer for example in load_manifest(jsonl(folder, *rows))] == ["cat"] * 3


def test_answers_may_be_withheld_on_demand(folder: Path):
    (example,) = load_manifest(jsonl(folder, {**ROW, "answer": None}), need_answers=False)
    assert example.answer is None


def test_csv(folder: Path):
    file = folder / "my.csv"
    file.write_text(
        "\ufeffid,audio,question,choices,answer,task,evidence\n"
        'x,a.wav,"What, then?",dog|cat,dog,sound,0-0.5; 0.6-1\n'
        "\n"
        'y,"[""a.wav"", ""b.wav""]",How many?,,2,,\n',
        encoding="utf-8",
    )
    one, two = load_manifest(file)
    assert (one.question, one.choices, one.groups) == ("What, then?", ("dog", "cat"), {"task": "sound"})
    assert one.evidence == ((0.0, 0.5), (0.6, 1.0))
    assert [clip.samples[0] for clip in two.clips] == pytest.approx([0.1, 0.2], abs=1e-4)
    with pytest.raises(AudioError, match="y has 2 clips"):
        _ = two.clip
    file.write_text("audio,question\na.wav,What?,more\nb.wav,What?\n")
    assert [fault.split(":")[0] for fault in faults(file)] == ["line 2", "line 3"]


def test_rows_of_others_read_as_they_are(folder: Path):
    mmau = {
        "id": "m", "audio_id": "a.wav", "question": "What?", "choices": ["dog", "cat"], "answer": "cat",
        "dataset": "d", "task": "sound", "split": "test-mini", "category": "Reasoning",
        "sub-category": "s", "difficulty": "easy",
    }  # fmt: skip
    mmsu = {"id": "s", "audio_path": "a.wav", "question": "What?", "choice_a": "dog", "choice_b": "cat",
            "answer_gt": "cat", "task_name": "t"}  # fmt: skip
    kimi = {"index": 4, "audio_path": "b.wav", "question": "What?", "answer": "cat", "subset": "x"}
    swift = {
        "id": "w",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "<audio>What?"},
            {"role": "assistant", "content": "cat"},
        ],
        "audios": ["c.flac"],
    }
    openai = Example("p", (folder / "a.wav",), "q").conversation().to_openai()
    parts = {"messages": openai, "answer": "cat"}
    rows = [mmau, mmsu, kimi, swift, parts]
    (folder / "all.json").write_text(json.dumps(rows, indent=1))
    examples = load_manifest(folder / "all.json")
    assert [example.answer for example in examples] == ["cat"] * 5
    assert [example.id for example in examples[:4]] == ["m", "s", "4", "w"]
    assert [len(example.clips) for example in examples] == [1] * 5
    assert examples[0].groups["sub-category"] == "s" and examples[1].choices == ("dog", "cat")
    assert examples[3].question == "What?" and examples[4].question == "q"
    rows[3]["audios"] = []
    rows[1]["answer_gt"] = "cow"
    (folder / "all.json").write_text(json.dumps(rows, indent=1))
    found = faults(folder / "all.json")
    assert "answer 'cow'" in found[0] and "1 <audio> placeholder(s) for 0 clip(s)" in found[1]
    lines = (folder / "all.json").read_text().splitlines()
    for fault in found:
        line = int(fault.split(":")[0].removeprefix("line "))
        assert lines[line - 1].strip() == "{"


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.yaml", "", "give one of .jsonl, .json, .csv, .tsv"),
        ("x.json", "{}", "not a list"),
        ("x.json", "[]", "no rows"),
        ("x.json", "[{},", "no JSON"),
        ("x.jsonl", "\n", "no rows"),
        ("x.csv", 'audio,"que', "no CSV"),
    ],
)
def test_files_that_are_no_manifests(tmp_path: Path, name: str, text: str, says: str):
    (tmp_path / name).write_text(text)
    assert says in faults(tmp_path / name)[0]


def test_missing_manifest_folder_and_other_encodings(tmp_path: Path):
    assert faults(tmp_path / "gone.jsonl") == ["there is no such file"]
    assert faults(tmp_path) == ["is a folder: it holds no .jsonl, .json, .csv, .tsv"]
    (tmp_path / "manifest.jsonl").write_text("")
    assert faults(tmp_path) == ["is a folder: give a file in it (manifest.jsonl)"]
    (tmp_path / "x.csv").write_bytes("audio,é".encode("latin-1"))
    assert "not UTF-8 at byte 6" in faults(tmp_path / "x.csv")[0]


def test_the_exact_form_of_the_question(folder: Path):
    example = Example("x", (folder / "a.wav",), "What is it?", ("dog", "cat"), "dog")
    (turn,) = example.conversation().turns
    assert turn.role == "user" and turn.parts == (
        Audio(example.clip),
        Text("\n\nWhat is it?\nChoices: dog; cat."),
    )
    assert example.conversation("Be brief.").last_text == "\n\nWhat is it?\nChoices: dog; cat.\nBe brief."
    assert Example("y", (), "What?").conversation().last_text == "\n\nWhat?"


def test_saved_manifests_read_back_and_can_be_moved(folder: Path, tmp_path_factory):
    clip = Clip(np.full(800, 0.5, np.float32), 8000)
    examples = [
        Example("a", (folder / "a.wav",), "q", ("x", "y"), "y", {"g": "1"}, ((0.0, 0.5),), "mmau", {"m": [1]}),
        Example("b", (clip,), "q", None, "y"),
    ]
    save_manifest(examples, folder / "out.jsonl")
    moved = tmp_path_factory.mktemp("moved") / "there"
    folder.rename(moved)
    one, two = load_manifest(moved / "out.jsonl")
    assert one == Example(**{**vars(examples[0]), "audio": (moved / "a.wav",)})
    assert two.clip == clip and two.with_clips(clip, clip).clips == (clip, clip)
    with pytest.raises(ManifestError, match="manifests are written"):
        save_manifest(examples, moved / "out.csv")
