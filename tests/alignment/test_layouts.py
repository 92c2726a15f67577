"""Readers of public layouts, on tiny made-up trees of each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.alignment.clips import clip, text

from earnest.alignment.layouts import LAYOUTS, read_layout
from earnest.alignment.layouts.world import world_rows
from earnest.alignment.recordings import Recording
from earnest.errors import EarnestError, ManifestError
from earnest.world.dataset import make_world
from earnest.world.timeline import Event, Scene


def surrogates(recordings: list[Recording]) -> list[str]:
    return [recording.row(1.0, "train").surrogate for recording in recordings]


def test_librispeech(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    text(root / "SPEAKERS.TXT", "; a comment\n;ID  |SEX| SUBSET |MINUTES| NAME\n19 | F | train-clean-100 | 25.19 | K\n")
    chapter = root / "train-clean-100" / "19" / "198"
    text(chapter / "19-198.trans.txt", "19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS LITTLE WORK\n19-198-0003 LOST\n")
    for number in (0, 1, 2):
        clip(chapter / f"19-198-000{number}.flac")
    clip(root / "mp3" / "19" / "198" / "198.wav")
    for folder in (root, root / "train-clean-100"):
        found = read_layout("librispeech", folder)
        assert (
            surrogates(found)[0] == "[00:00-00:01] northanger abbey (duration: 1s, gender: Female, language: English)"
        )
        assert [recording.id[-1] for recording in found] == ["0", "1", "2", "3"]
        assert [recording.content for recording in found][2:] == ["", "lost"]
        assert not found[3].audio.exists()
        assert {(one.recording, one.speaker) for one in found} == {("librispeech/19-198", "librispeech/19")}


def test_audiocaps(tmp_path: Path) -> None:
    header = "audiocap_id,youtube_id,start_time,caption\n"
    text(tmp_path / "train.csv", header + '1,ab-c,30,"A dog barks, then a car"\n2,zz,0,Wind blows\n')
    text(tmp_path / "test.csv", header + "3,ab-c,30,Barking\n4,Q,5,Rain\n")
    clip(tmp_path / "audio" / "test" / "ab-c_30.wav")
    train = clip(tmp_path / "audio" / "train" / "ab-c_30.wav")
    clip(tmp_path / "audio" / "YQ.wav")
    found = read_layout("audiocaps", tmp_path)
    assert surrogates(found)[0] == "[00:00-00:01] |A dog barks, then a car| (duration: 1s)"
    assert found[0].audio == train
    assert [recording.audio.is_file() for recording in found] == [True, False, True, True]
    assert [recording.recording for recording in found] == ["youtube/ab-c", "youtube/zz", "youtube/ab-c", "youtube/Q"]
    assert {recording.modality for recording in found} == {"sound"}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_clotho(tmp_path: Path, encoding: str) -> None:
    captions = ",".join(f"caption_{number}" for number in range(1, 6))
    for part in ("development", "evaluation"):
        rows = f'file_name,{captions}\n{part} é.wav,"A, b",C,D,E,F\n'
        text(tmp_path / f"clotho_captions_{part}.csv", rows)
    metadata = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
    (tmp_path / "clotho_metadata_development.csv").write_bytes(
        (metadata + 'development é.wav,k,42,l,"[0, 9]",ann,c\n').encode(encoding)
    )
    clip(tmp_path / "development" / "development é.wav")
    clip(tmp_path / "clotho_audio_evaluation" / "evaluation é.wav")
    found = read_layout("clotho", tmp_path)
    assert len(found) == 10
    assert surrogates(found)[:2] == ["[00:00-00:01] |A, b| (duration: 1s)", "[00:00-00:01] |C| (duration: 1s)"]
    assert all(recording.audio.is_file() for recording in found)
    assert (found[0].recording, found[0].kin) == ("freesound/42", ("freesound-user/ann",))
    assert (found[5].recording, found[5].kin) == ("clotho/evaluation/evaluation é.wav", ())


def test_fsd50k(tmp_path: Path) -> None:
    truth = tmp_path / "FSD50K.ground_truth"
    text(truth / "dev.csv", 'fname,labels,mids,split\n64760,"Electric_guitar,Guitar,Music","/m/a,/m/b,/m/c",train\n')
    text(truth / "eval.csv", "fname,labels,mids\n37199,Bark,/m/x\n")
    infos = {"64760": {"title": "t", "uploader": "bob", "license": "l"}}
    text(tmp_path / "FSD50K.metadata" / "dev_clips_info_FSD50K.json", json.dumps(infos))
    clip(tmp_path / "FSD50K.dev_audio" / "64760.wav")
    clip(tmp_path / "FSD50K.eval_audio" / "37199.wav")
    found = read_layout("fsd50k", tmp_path)
    assert surrogates(found) == [
        "[00:00-00:01] |Electric guitar, Guitar, Music| (duration: 1s)", "[00:00-00:01] |Bark| (duration: 1s)",
    ]  # fmt: skip
    assert [recording.modality for recording in found] == ["music", "sound"]
    assert [recording.kin for recording in found] == [("freesound-user/bob",), ()]
    assert all(recording.audio.is_file() for recording in found)


def test_audio_that_no_table_names_is_told_of(tmp_path: Path) -> None:
    text(tmp_path / "FSD50K.ground_truth" / "eval.csv", "fname,labels,mids\n37199,Bark,/m/x\n")
    for name in ("37199.wav", "orphan.wav"):
        clip(tmp_path / "FSD50K.eval_audio" / name)
    named, orphan = read_layout("fsd50k", tmp_path)
    assert (named.id, named.unusable(1.0)) == ("37199", None)
    assert orphan.name == "fsd50k-FSD50K.eval_audio/orphan.wav"
    why = orphan.unusable(1.0)
    assert why is not None and why.reason == "no_text"


def test_nsynth(tmp_path: Path) -> None:
    note = {
        "note": 201034, "sample_rate": 16000, "instrument_family": 0, "qualities": [0, 1], "velocity": 50, "pitch": 22,
        "instrument_source_str": "synthetic", "note_str": "bass_synthetic_033-022-050", "instrument": 417,
        "instrument_family_str": "bass", "instrument_str": "bass_synthetic_033", "instrument_source": 2,
        "qualities_str": ["dark", "fast_decay"],
    }  # fmt: skip
    folder = tmp_path / "nsynth-train"
    text(folder / "examples.json", json.dumps({note["note_str"]: note}))
    clip(folder / "audio" / "bass_synthetic_033-022-050.wav")
    for root in (tmp_path, folder):
        (found,) = read_layout("nsynth", root)
        assert surrogates([found]) == [
            "[00:00-00:01] |synthetic bass, dark, fast decay| (duration: 1s, pitch: A#0, velocity: 50)"
        ]
        assert (found.recording, found.modality) == ("nsynth/bass_synthetic_033", "music")
        assert found.audio.is_file()


@pytest.mark.parametrize("edition", ["0.92", "0.80"])
def test_vctk(tmp_path: Path, edition: str) -> None:
    new = edition == "0.92"
    info = "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n{}  23  F    English    Southern  England\n"
    text(tmp_path / "speaker-info.txt", info.format("p225" if new else "225"))
    text(tmp_path / "txt" / "p225" / "p225_001.txt", "Please call Stella.\n")
    text(tmp_path / "txt" / "p225" / "p225_002.txt", "No audio.\n")
    names = ("p225_001_mic1.flac", "p225_001_mic2.flac") if new else ("p225_001.wav",)
    folder = tmp_path / ("wav48_silence_trimmed" if new else "wav48")
    for name in (*names, "p315_001_mic1.flac" if new else "p315_001.wav"):
        clip(folder / name[:4] / name)
    found = read_layout("vctk", tmp_path)
    said = [one for one in found if one.recording == "vctk/p225_001"]
    assert len(said) == len(names)
    assert set(surrogates(said)) == {
        "[00:00-00:01] Please call Stella. (duration: 1s, gender: Female, age: 23, accent: English, language: English)"
    }
    rest = [one for one in found if one not in said]
    assert [(one.speaker, bool(one.content), one.audio.is_file()) for one in rest] == [
        ("vctk/p225", True, False), ("vctk/p315", False, True),
    ]  # fmt: skip


def test_meld(tmp_path: Path) -> None:
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
    row = '1,"He\x92s lost it, ""totally"".",Phoebe,{},negative,0,3,4,7,"00:20:57,256","00:21:00,049"\n'
    text(tmp_path / "train_sent_emo.csv", header + row.format("sadness"))
    text(tmp_path / "dev_sent_emo.csv", header + row.format("joy"))
    text(tmp_path / "test_sent_emo.csv", header + row.format("anger"))
    train = clip(tmp_path / "train" / "train_splits" / "dia0_utt3.wav")
    test = clip(tmp_path / "output_repeated_splits_test" / "dia0_utt3.flac")
    found = read_layout("meld", tmp_path)
    assert surrogates(found)[0] == (
        '[00:00-00:01] He’s lost it, "totally". (duration: 1s, emotion: Sadness, language: English)'
    )
    assert (found[0].audio, found[2].audio) == (train, test)
    assert not found[1].audio.exists()
    assert [one.recording for one in found] == ["meld/train-dia0", "meld/dev-dia0", "meld/test-dia0"]
    assert {one.speaker for one in found} == {"meld/Phoebe"}


def test_dailytalk(tmp_path: Path) -> None:
    said = {"utterance_idx": 1, "dialog_idx": 7, "turn": 1, "act": "question", "topic": "work"}
    turns = {
        "0": {**said, "speaker": 0, "text": "What is it?", "emotion": "no emotion"},
        "1": {**said, "speaker": 1, "text": "Nothing.", "emotion": "happiness"},
    }
    text(tmp_path / "metadata.json", json.dumps({"7": turns}))
    clip(tmp_path / "data" / "7" / "0_0_d7.wav")
    clip(tmp_path / "data" / "7" / "1_1_d7.wav")
    found = read_layout("dailytalk", tmp_path)
    assert surrogates(found) == [
        "[00:00-00:01] What is it? (duration: 1s, emotion: No emotion, gender: Male, language: English)",
        "[00:00-00:01] Nothing. (duration: 1s, emotion: Happiness, gender: Female, language: English)",
    ]
    assert all(recording.audio.is_file() for recording in found)
    assert {recording.recording for recording in found} == {"dailytalk/d7"}


def test_world(tmp_path: Path) -> None:
    make_world(tmp_path, 6, split="validation", seed=3)
    found = read_layout("world", tmp_path)
    assert len(found) == 6
    assert all(recording.audio.is_file() and recording.split == "validation" for recording in found)
    assert all(recording.surrogate.startswith("[00:") for recording in found)
    assert {recording.modality for recording in found} <= {"sound", "music", "speech", "mixed"}


def test_rows_of_planned_scenes() -> None:
    scene = Scene(
        "train-0-000001",
        3.2,
        (Event("speech", "how do i open the door", 0.4, 2.6, speaker="man", voice="man03", style="request"),),
    )
    (row,) = world_rows([scene], Path("there"))
    assert row.surrogate == (
        "[00:00-00:03, the first speaker, gender: man] how do i open the door (duration: 4s, the number of speakers: 1)"
    )
    assert (row.instruction, row.modality, row.speaker, row.split) == (True, "speech", "world/man03", "train")
    assert (row.audio, row.duration_s) == (Path("there/audio/train-0-000001.flac"), 3.2)


# ---- the user's own


def manifest(path: Path, *rows: dict[str, object]) -> Path:
    return text(path, "".join(json.dumps(row) + "\n" for row in rows))


TWO = {"audio": "a.wav", "transcript": "Hello. Hello you."}


def test_manifest_takes_speech_captions_tags_and_segments(tmp_path: Path) -> None:
    segments = [
        {"start": 0, "end": 0.4, "transcript": "hi", "gender": "Male"},
        {"start_s": 0.4, "end_s": 1, "tags": ["Dog", "Bark"]},
        {"start": 0.5, "end": 1, "text": "yes", "speaker": "2"},
    ]
    file = manifest(
        tmp_path / "mine.jsonl",
        {"audio": "a.wav", "transcript": "Hello.", "language": "English", "age": 29, "emotion": "Joy", "speaker": 1},
        {"audio": "b.wav", "caption": "A dog barks.", "duration": 3.0, "meta": {"x": 1}, "modality": "sound"},
        {"audio": "c.wav", "tags": "Music;Exciting music", "details": {"Key": "C"}, "recording": "r", "split": "test"},
        {"audio": "d.wav", "segments": segments, "speaker": "1", "id": "talk"},
        {"audio": "e.wav", "transcript": "What is that?", "instruction": True, "corpus": "asked"},
        {"audio": "f.wav"},
    )
    found = read_layout("manifest", file)
    assert surrogates(found[:5]) == [
        "[00:00-00:01] Hello. (duration: 1s, emotion: Joy, age: 29, language: English)",
        "[00:00-00:01] |A dog barks.| (duration: 1s)",
        "[00:00-00:01] |Music, Exciting music| (duration: 1s, key: C)",
        "[00:00-00:01, the first speaker, gender: Male] hi [00:00-00:01] |Dog, Bark| "
        "[00:00-00:01, the second speaker] yes (duration: 1s, the number of speakers: 2)",
        "[00:00-00:01] What is that? (duration: 1s)",
    ]
    assert [one.modality for one in found] == ["speech", "sound", "mixed", "mixed", "speech", "mixed"]
    assert [one.id for one in found[:4]] == ["line-1", "line-2", "line-3", "talk"]
    assert [one.recording for one in found[:3]] == ["mine/a.wav", "mine/b.wav", "mine/r"]
    assert [one.speakers for one in found[2:5]] == [(), ("mine/1", "mine/2"), ()]
    assert [one.split for one in found[2:4]] == ["test", None]
    two = read_layout("manifest", manifest(tmp_path / "two.jsonl", {**TWO, "speaker": "Anna; Ben"}))[0]
    assert two.speakers == ("two/Anna", "two/Ben")
    assert (found[4].instruction, found[4].corpus, found[5].content) == (True, "asked", "")


def test_manifest_is_a_table_too(tmp_path: Path) -> None:
    segments = '"[{""start"": 0, ""end"": 1, ""caption"": ""rain""}]"'
    file = text(
        tmp_path / "t.csv", f"file,text,segments,instruction\na.wav,Hi there,,yes\nb.wav,,{segments},\nc.wav,,,no\n"
    )
    found = read_layout("manifest", file)
    assert [one.content for one in found] == ["Hi there", "", ""]
    assert found[1].passages[0].content == "rain"
    assert [one.instruction for one in found] == [True, False, False]


def test_manifest_shows_all_faults_at_once(tmp_path: Path) -> None:
    file = manifest(
        tmp_path / "m.jsonl",
        {"audoi": "a.wav", "transcript": "x", "instruction": "perhaps"},
        {"transcript": "x"},
        {"audio": "a.wav", "transcript": "x", "caption": "y"},
        {"audio": "a.wav", "caption": "y", "segments": [{"start": 2, "end": 1, "text": "x"}, {"end": 1, "text": "x"}]},
        {"audio": "a.wav", "tags": 3, "id": "a"},
        {"audio": "a.wav", "transcript": True, "id": "a", "split": "dev", "modality": "noise", "details": [1]},
        {"audio": "a.wav", "file": "b.wav", "emotion": "Joy", "details": {"Emotion": "Joy"}},
    )
    with pytest.raises(ManifestError) as error:
        read_layout("manifest", file)
    assert error.value.faults == [
        "line 1: unknown column 'audoi': did you mean 'audio'?; what else is to be said stands in 'details'",
        "line 1: instruction is 'perhaps': give true or false",
        "line 2: no 'audio': the column is missing or empty",
        "line 3: 'transcript' and 'caption': give one, or 'segments' with a text each",
        "line 4: 'segments' beside a text of the whole clip: give one of them",
        "line 4: segment 1: 2 to 1 s is no segment: it needs start < end",
        "line 4: segment 2: start is None: give seconds, 0 or more",
        "line 5: tags is a int: give a list of texts",
        "line 6: transcript is a bool: give text",
        "line 6: id 'a' stands on line 5 already: ids must be unique",
        "line 6: details is a list: give an object of names and values",
        "line 6: modality is 'noise': give sound, music, speech, mixed",
        "line 6: split is 'dev': give train, validation, test",
        "line 7: column 'file' says 'audio' a second time: drop one",
        "line 7: details says 'emotion', which is a column too: drop one",
    ]


# ---- what is refused


def test_an_unknown_layout_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(EarnestError, match="'librispech' is unknown: did you mean 'librispeech'"):
        read_layout("librispech", tmp_path)
    with pytest.raises(EarnestError, match="unknown: known are audiocaps, clotho"):
        read_layout("xyz", tmp_path)
    with pytest.raises(EarnestError, match=r"no folder: the layout 'vctk' needs one with wav48_silence"):
        read_layout("vctk", tmp_path / "none")
    with pytest.raises(ManifestError, match="no such file"):
        read_layout("manifest", tmp_path / "none.csv")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "manifest"])
def test_an_empty_tree(tmp_path: Path, name: str) -> None:
    with pytest.raises(EarnestError, match=f"holds no clip of the layout '{name}': it needs"):
        read_layout(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "says"),
    [
        ("audiocaps", "train.csv", "id,youtube_id,caption\n1,a,b\n", "no 'audiocap_id', 'start_time': the columns are"),
        ("clotho", "clotho_captions_x.csv", "file_name,caption_1\na.wav,b\n", "no 'caption_2', 'caption_3'"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv", "fname,tags\n1,Bark\n", "no 'labels': the columns are fname, tags"),
        ("meld", "dev_sent_emo.csv", "Utterance,Speaker\na,b\n", "no 'Emotion', 'Dialogue_ID', 'Utterance_ID'"),
        ("nsynth", "examples.json", '{"a": {"pitch": 1}}', "'a' has no 'instrument_str'"),
        ("nsynth", "examples.json", '{"a": 1}', "'a' is a int where an object is needed"),
        ("nsynth", "examples.json", '{"a"', "line 1: no JSON"),
        ("dailytalk", "metadata.json", '{"0": {"0": {"text": "a"}}}', "'0/0' has no 'speaker', 'emotion'"),
        ("dailytalk", "metadata.json", "[]", "a list where an object is needed"),
    ],
)
def test_a_wrong_header(tmp_path: Path, name: str, file: str, content: str, says: str) -> None:
    text(tmp_path / file, content)
    with pytest.raises(ManifestError) as error:
        read_layout(name, tmp_path)
    assert says in str(error.value)
    assert file in str(error.value)
