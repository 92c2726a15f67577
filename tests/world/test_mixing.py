"""Mixing and labels: events stand exactly where the timeline says, noise is as loud as it says."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earnest.audio import Clip
from earnest.errors import AudioError
from earnest.world.bank import SampleBank
from earnest.world.labels import CLASSES, frame_labels
from earnest.world.mixing import background, event_duration, measure, render, word_spans
from earnest.world.scenes import plan_scene
from earnest.world.timeline import Event, Scene
from earnest.world.vocabulary import SOUNDS, SPOKEN
from earnest.world.voices import cast_of, speech_duration, voices_of

RATE = 16_000
MAN = voices_of("test", "man")[0].name


def speech_event(text: str, start_s: float, **more: float) -> Event:
    end_s = round(start_s + speech_duration(MAN, text, 0), 3)
    return Event("speech", text, start_s, end_s, speaker="man", voice=MAN, style="words", **more)


def scene_of(*events: Event, **more: object) -> Scene:
    return replace(Scene("s", 6.0, events, split="test", seed=7), **more)


DOG = Event("sound", "dog", 0.5, 1.3)
PIANO = Event("music", "piano", 2.0, 3.5, pitch="high", tempo="slow")


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def test_events_fill_their_spans_and_nothing_else():
    scene = scene_of(DOG, PIANO, speech_event("two apple", 4.0))
    clip = render(scene)
    assert clip.sample_rate_hz == RATE and clip.samples.shape == (6 * RATE,)
    sounding = np.zeros(6 * RATE, dtype=bool)
    for event in scene.events:
        start, end = round(event.start_s * RATE), round(event.end_s * RATE)
        sounding[start:end] = True
        assert 0.04 < rms(clip.samples[start:end]) < 0.105
        assert np.abs(clip.samples[start : start + 1600]).max() > 0.005
    assert not clip.samples[~sounding].any()


def test_a_scene_decides_its_audio():
    scene = scene_of(DOG, PIANO, snr_db=5.0, noise="pink")
    assert render(scene).key == render(Scene.from_json(scene.to_json())).key
    assert render(scene).key != render(replace(scene, seed=8)).key
    assert render(scene).key != render(replace(scene, split="train")).key
    without = render(replace(scene, snr_db=None, noise=None)).samples
    noise = render(scene).samples - without
    assert rms(noise) == pytest.approx(0.1 * 10 ** (-5 / 20), rel=1e-3), "noise changed the events"


@pytest.mark.parametrize("colour", ("white", "pink", "brown"))
@pytest.mark.parametrize("snr_db", (20.0, 0.0, -10.0))
def test_noise_has_its_level_and_colour(colour: str, snr_db: float):
    samples = render(scene_of(snr_db=snr_db, noise=colour)).samples
    assert np.abs(samples).max() <= 0.99 + 1e-6
    assert rms(samples) <= 0.1 * 10 ** (-snr_db / 20) * 1.001
    if snr_db >= 0:
        assert rms(samples) == pytest.approx(0.1 * 10 ** (-snr_db / 20), rel=1e-3)
    power = np.abs(np.fft.rfft(background(colour, 8 * RATE, np.random.default_rng(0)))) ** 2
    low, high = power[8 * 250 : 8 * 500].mean(), power[8 * 4000 : 8 * 7000].mean()
    per_decade = 10 * np.log10(low / high) / np.log10(5500 / 375)
    assert per_decade == pytest.approx({"white": 0, "pink": 10, "brown": 18}[colour], abs=2.5)


def test_level_and_distance():
    plain = render(scene_of(DOG)).samples
    assert rms(render(scene_of(replace(DOG, gain_db=-6.0))).samples) == pytest.approx(rms(plain) * 0.501, rel=0.01)
    hiss = Event("sound", "hiss", 0.5, 1.5)
    near, far = (render(scene_of(replace(hiss, distance=d))).samples for d in (0.0, 1.0))
    assert rms(far) < 0.316 * rms(near) * 0.6, "a distant hiss is quieter and duller"
    overlapping = render(scene_of(DOG, replace(PIANO, start_s=0.5, end_s=2.0))).samples
    assert rms(overlapping[8000:20_800]) > 1.2 * rms(plain[8000:20_800])


def test_planned_scenes_of_all_genres_render_and_are_fast():
    scenes = []
    for index in range(24):
        rng = random.Random(index)
        scenes.append(plan_scene(rng, "test", index, measure=measure("test", rng), voices=cast_of("test"), seed=3))
    render(scenes[0])
    start = time.process_time()
    clips = [render(scene) for scene in scenes]
    speed = sum(clip.duration_s for clip in clips) / (time.process_time() - start)
    for scene, clip in zip(scenes, clips, strict=True):
        assert clip.samples.shape == (round(scene.duration_s * RATE),)
    assert speed > 250, f"{speed:.0f} times real time; the goal is 500 on an idle core"


def test_lengths_drawn_before_placing_are_those_that_are_rendered():
    rng = np.random.default_rng(0)
    assert 0.3 <= event_duration("sound", "dog", rng, split="test") <= 2.0
    assert 0.85 <= event_duration("music", "harp", rng, split="test", tempo="fast") <= 2.45
    lengths = {event_duration("speech", "red apple", rng, split="test", voice=MAN) for _ in range(30)}
    assert len(lengths) == 3
    assert {speech_duration(MAN, "red apple", take) for take in range(3)} == lengths


def test_faults_are_named():
    with pytest.raises(AudioError, match="'red' has no voice"):
        render(scene_of(Event("speech", "red", 0.5, 1.0, speaker="man")))
    with pytest.raises(AudioError, match=r"'dog' at 5\.500-6\.300 s lies outside its 6\.000 s"):
        render(scene_of(replace(DOG, start_s=5.5, end_s=6.3)))
    with pytest.raises(AudioError, match="'flute' has no tempo"):
        event_duration("music", "flute", np.random.default_rng(0), split="test")
    with pytest.raises(AudioError, match="unknown noise 'grey'; known: white, pink, brown"):
        render(scene_of(DOG, snr_db=3.0, noise="grey"))


def test_frame_labels_follow_the_timeline():
    said = speech_event("two apple", 4.0)
    labels = frame_labels(scene_of(DOG, PIANO, said), 94, 0.064)
    assert set(labels) == set(CLASSES) and all(row.shape == (94,) for row in labels.values())
    assert labels["sound"][8:20].tolist() == [1 + SOUNDS.index("dog")] * 12
    assert set(np.flatnonzero(labels["sound"])) == set(range(8, 20))
    assert labels["pitch"][40] == 3 and labels["tempo"][40] == 1 and labels["instrument"][40] == 1
    assert labels["speaker"][round(4.1 / 0.064)] == 1
    (first, start_s, end_s), (second, _, last_s) = word_spans(said)
    assert (first, second) == ("two", "apple") and start_s == 4.0 and last_s == pytest.approx(said.end_s, abs=1e-3)
    assert labels["word"][int((start_s + end_s) / 2 / 0.064)] == 1 + SPOKEN.index("two")
    assert {0, 1 + SPOKEN.index("two"), 1 + SPOKEN.index("apple")} == set(labels["word"].tolist())


def test_the_louder_and_then_the_later_of_two_is_the_label():
    cat = Event("sound", "cat", 0.9, 1.7)
    dog_number, cat_number = 1 + SOUNDS.index("dog"), 1 + SOUNDS.index("cat")
    assert frame_labels(scene_of(DOG, cat), 60, 0.1)["sound"][10] == cat_number
    assert frame_labels(scene_of(replace(DOG, gain_db=3.0), cat), 60, 0.1)["sound"][10] == dog_number
    near_cat = replace(cat, gain_db=3.0, distance=0.5)
    assert frame_labels(scene_of(DOG, near_cat), 60, 0.1)["sound"][10] == dog_number


@pytest.fixture
def bank_folder(tmp_path: Path) -> Path:
    t = np.arange(RATE) / RATE

    def save(path: str, samples: np.ndarray) -> None:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Clip(samples.astype(np.float32), RATE).save(target)

    for i in range(3):
        save(f"sound/dog/{i}.wav", 0.3 * np.sin(2 * np.pi * 1000 * (i + 1) * t[:4000]))
    save("music/piano/piano_A4.wav", 0.3 * np.sin(2 * np.pi * 440 * t))
    save("music/harp/unnamed.wav", 0.3 * np.sin(2 * np.pi * 200 * t))
    save("speech/man/red/long.wav", 0.3 * np.sin(2 * np.pi * 300 * t))
    return tmp_path


def strongest_hz(samples: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples))


def test_the_users_samples_sound_in_place_of_the_synthesis(bank_folder: Path):
    bank = SampleBank.load(bank_folder)
    assert bank.names() == ["music/harp", "music/piano", "sound/dog", "speech/man/red"]
    scene = scene_of(DOG, PIANO, speech_event("red", 4.0), speech_event("water", 5.0))
    clip = render(scene, bank)
    assert strongest_hz(clip.samples[8000:20_800]) == pytest.approx(3000, abs=20), "test owns the third file"
    train = render(replace(scene, split="train", events=(DOG,)), bank)
    assert strongest_hz(train.samples[8000:20_800]) == pytest.approx(1000, abs=20)
    assert 730 < strongest_hz(clip.samples[2 * RATE : int(3.5 * RATE)]) < 1250, "notes are played in the register"
    built_in = render(scene).samples
    assert not np.array_equal(clip.samples[4 * RATE : 5 * RATE], built_in[4 * RATE : 5 * RATE])
    assert np.array_equal(clip.samples[5 * RATE :], built_in[5 * RATE :]), "a word without samples is synthesised"
    harp = render(scene_of(replace(PIANO, name="harp", pitch="low")), bank)
    assert 95 < strongest_hz(harp.samples[2 * RATE : int(3.5 * RATE)]) < 190, "the pitch was estimated"


def test_a_bank_with_faults_is_refused(bank_folder: Path):
    (bank_folder / "sound" / "dragon").mkdir()
    (bank_folder / "speech" / "robot").mkdir()
    (bank_folder / "smell").mkdir()
    with pytest.raises(AudioError, match=r"(?s)smell/ \(known: music, sound, speech\).*robot.*dragon \(known: dog"):
        SampleBank.load(bank_folder)
    with pytest.raises(AudioError, match="no such folder"):
        SampleBank.load(bank_folder / "nowhere")
    empty = bank_folder / "empty"
    empty.mkdir()
    with pytest.raises(AudioError, match="no sample in it"):
        SampleBank.load(empty)
    (empty / "sound" / "cat").mkdir(parents=True)
    Clip(np.zeros(100, np.float32), RATE).save(empty / "sound" / "cat" / "a.wav")
    (empty / "sound" / "cow").mkdir()
    (empty / "sound" / "cow" / "b.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"(?s)2 file\(s\) cannot be used.*a.wav: digital silence.*b.wav: cannot be"):
        SampleBank.load(empty)
