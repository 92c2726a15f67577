import numpy as np
import pytest
from tones import strongest_hz, tone

from earnest.audio import Clip, edits
from earnest.audio.edits import Placement
from earnest.errors import AudioError


def noise(duration_s=3.0, seed=0, rate_hz=16000, level=0.1):
    samples = np.random.default_rng(seed).normal(0, level, round(duration_s * rate_hz))
    return Clip(samples.astype(np.float32), rate_hz, f"noise {seed}")


@pytest.mark.parametrize("snr_db", [20, 10, 0, -10, -20])
def test_noise_hits_its_snr(snr_db):
    clip = tone(2.0)
    noisy = edits.add_noise(clip, snr_db, seed=1)
    assert edits.measured_snr_db(clip, noisy) == pytest.approx(snr_db, abs=1e-4)
    assert noisy == edits.add_noise(clip, snr_db, seed=1)
    assert noisy != edits.add_noise(clip, snr_db, seed=2)


def test_noise_at_minus_20_db_survives_a_wav_file():
    clip = tone(1.0)
    noisy = edits.add_noise(clip, -20, seed=0)
    assert np.abs(noisy.samples).max() > 1
    assert Clip.from_bytes(noisy.wav_bytes()) == noisy
    clipped = Clip(np.clip(noisy.samples, -1, 1), 16000)
    assert edits.measured_snr_db(clip, clipped) > -19  # what 16 bits would have made of it


def test_noise_is_white_and_differs_between_clips_of_one_seed():
    first, second = noise(seed=1), noise(seed=2)
    added = edits.add_noise(first, 0, seed=0).samples - first.samples
    other = edits.add_noise(second, 0, seed=0).samples - second.samples
    power = np.abs(np.fft.rfft(added)) ** 2
    halves = np.array_split(power, 2)
    assert halves[0].mean() / halves[1].mean() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(added, other)[0, 1]) < 0.03


@pytest.mark.parametrize("placement", list(Placement))
@pytest.mark.parametrize("ratio", [0.0, 0.2, 1 / 3, 0.4, 0.6, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("duration_s", [0.37, 3.0, 10.1237])
def test_mask_zeroes_exactly_the_ratio_in_chunks_over_the_clip(placement, ratio, duration_s):
    clip = Clip(np.full(round(duration_s * 16000), 0.5, np.float32), 16000)
    masked = edits.mask(clip, ratio, seed=3, placement=placement)
    count = clip.samples.size
    assert int(np.sum(masked.samples == 0)) == round(ratio * count)
    assert masked.samples.size == count
    spans = edits.mask_spans(clip, ratio, seed=3, placement=placement)
    assert np.all(spans[1:, 0] >= spans[:-1, 1])
    assert np.all(spans[:, 1] - spans[:, 0] <= 16000)
    # One chunk in each of as many equal bins: none is far from its bin.
    bins = np.arange(len(spans)) * count / max(1, len(spans))
    assert np.all(spans[:, 0] >= bins - 2)
    assert np.all(spans[:, 1] <= bins + count / max(1, len(spans)) + 2)


def test_mask_is_seeded_and_centred_masks_are_centred():
    clip = noise(10.0)
    assert edits.mask(clip, 0.4, seed=1) == edits.mask(clip, 0.4, seed=1)
    assert edits.mask(clip, 0.4, seed=1) != edits.mask(clip, 0.4, seed=2)
    spans = edits.mask_spans(clip, 0.4, seed=1, placement=Placement.CENTRED) / 16000
    # 4 s of 10 s in chunks of 1 s: bins of 2.5 s, centres at 1.25, 3.75, 6.25, 8.75 s.
    assert spans.tolist() == [[0.75, 1.75], [3.25, 4.25], [5.75, 6.75], [8.25, 9.25]]


def test_mask_with_chunks_of_one_sample():
    clip = Clip(np.ones(997, np.float32), 16000)
    assert int(np.sum(edits.mask(clip, 0.7, seed=0, chunk_s=1 / 16000).samples == 0)) == 698


def test_guided_masking_and_its_complement_share_the_clip():
    clip = noise(3.0)
    without, only = edits.mask_interval(clip, 1.0, 2.0), edits.mask_interval(clip, 1.0, 2.0, keep=True)
    assert not without.samples[16000:32000].any()
    assert np.array_equal(without.samples + only.samples, clip.samples)
    assert np.array_equal(only.samples[16000:32000], clip.samples[16000:32000])
    several = edits.mask_intervals(clip, [(0.0, 0.5), (0.25, 1.0), (2.5, 3.0)])
    assert not several.samples[:16000].any()
    assert not several.samples[40000:].any()
    assert np.array_equal(several.samples[16000:40000], clip.samples[16000:40000])


def test_splice_lengthens_and_covers_nothing():
    clip, insert = noise(3.0), tone(1.0, 44100)
    spliced = edits.splice(clip, insert, at_s=1.0)
    assert spliced.duration_s == 4.0
    assert np.array_equal(np.delete(spliced.samples, np.s_[16000:32000]), clip.samples)
    assert strongest_hz(spliced.crop(1.0, 2.0)) == pytest.approx(440, abs=2)
    assert spliced.crop(1.0, 2.0).rms == pytest.approx(clip.rms, rel=1e-4)
    assert edits.splice(clip, insert, at_s=0.0, snr_db=None).crop(0, 1).rms == pytest.approx(insert.rms, rel=0.01)
    assert edits.splice(clip, insert, at_s=3.0).samples[:48000].tolist() == clip.samples.tolist()


def test_splice_at_seeded_interior_points():
    clip, insert = Clip(np.ones(4, np.float32), 16000), Clip(-np.ones(1, np.float32), 16000)
    places = {int(np.argmin(edits.splice(clip, insert, seed=seed).samples)) for seed in range(50)}
    assert places == {1, 2, 3}
    assert edits.splice(clip, insert, seed=7) == edits.splice(clip, insert, seed=7)


@pytest.mark.parametrize("snr_db", [10.0, 0.0, -6.0])
def test_overlay_keeps_the_length_and_sets_the_power(snr_db):
    clip, other = noise(3.0), tone(1.0, amplitude=0.01)
    mixed = edits.overlay(clip, other, at_s=0.5, snr_db=snr_db)
    added = mixed.samples.astype(np.float64) - clip.samples
    assert mixed.duration_s == 3.0
    assert not added[:8000].any()
    assert not added[24000:].any()
    rms = np.sqrt(np.mean(added[8000:24000] ** 2))
    assert 20 * np.log10(clip.rms / rms) == pytest.approx(snr_db, abs=1e-3)
    as_it_is = edits.overlay(clip, other, at_s=2.0, snr_db=None)
    assert np.abs(as_it_is.samples[32000:] - clip.samples[32000:] - other.samples).max() < 1e-7


def test_overlay_draws_a_start_at_which_the_other_fits():
    clip, other = Clip(np.ones(5, np.float32), 16000), Clip(np.ones(4, np.float32), 16000)
    starts = {int(np.argmax(edits.overlay(clip, other, seed=seed).samples > 1.5)) for seed in range(20)}
    assert starts == {0, 1}


def test_swap_gives_nobody_their_own_sound():
    a, b, c = noise(seed=1), noise(seed=2), noise(seed=3)
    assert edits.swap([a, b, c]) == [b, c, a]
    assert edits.swap([a, b, c], shift=2) == [c, a, b]
    items = [a, a, a, b, c, c]
    for shift in range(7):
        assert all(own != other for own, other in zip(items, edits.swap(items, shift), strict=True))
    with pytest.raises(AudioError, match="all 2 clips"):
        edits.swap([a, a])


def test_speed_moves_length_and_pitch():
    clip = tone(2.0, frequency_hz=400.0)
    fast = edits.speed(clip, 1.25)
    assert fast.duration_s == pytest.approx(1.6, abs=0.001)
    assert fast.sample_rate_hz == 16000
    assert strongest_hz(fast) == pytest.approx(500, abs=1)
    assert strongest_hz(edits.speed(clip, 0.5)) == pytest.approx(200, abs=1)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.25, 2.0])
def test_stretch_moves_the_length_alone(factor):
    clip = tone(2.0, frequency_hz=440.0)
    longer = edits.stretch(clip, factor)
    assert longer.duration_s == pytest.approx(2.0 * factor, abs=0.001)
    assert strongest_hz(longer) == pytest.approx(440, abs=1)
    assert longer.rms == pytest.approx(clip.rms, rel=0.05)
    gap = Clip(np.concatenate([np.zeros(8000, np.float32), clip.samples[:16000], np.zeros(8000, np.float32)]), 16000)
    heard = np.flatnonzero(np.abs(edits.stretch(gap, factor).samples) > 0.1 * np.abs(clip.samples).max())
    assert heard[0] / 16000 == pytest.approx(0.5 * factor, abs=0.05)
    assert heard[-1] / 16000 == pytest.approx(1.5 * factor, abs=0.05)


def test_pitch_moves_the_pitch_alone():
    clip = tone(1.0, frequency_hz=440.0)
    for semitones in (-3, 4, 12):
        moved = edits.pitch(clip, semitones)
        assert strongest_hz(moved) == pytest.approx(440 * 2 ** (semitones / 12), abs=2)
        assert moved.duration_s == pytest.approx(1.0, abs=0.001)
    assert edits.stretch(clip, 1) is clip


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda clip: edits.stretch(clip, 9), "a stretch by 9 is out of range, give 0.25 to 4"),
        (lambda clip: edits.stretch(clip.crop(0, 0.05), 2), "0.050 s cannot be stretched, at least 0.1 s"),
        (lambda clip: edits.pitch(clip, 13), "a shift by 13 semitones is out of range, give -12 to 12"),
    ],
)
def test_what_cannot_be_stretched(edit, said):
    with pytest.raises(AudioError, match=said):
        edit(tone(1.0))


def test_gain_and_silence():
    clip = tone()
    assert edits.gain(clip, 6.0).rms / clip.rms == pytest.approx(10 ** (6 / 20), rel=1e-6)
    assert edits.silence(clip) == Clip(np.zeros(16000, np.float32), 16000)


def test_edits_leave_the_source_alone_and_say_what_they_did():
    clip = noise(2.0).crop(0.5, 1.5)
    before = clip.samples.copy()
    made = [
        edits.add_noise(clip, 0, 0),
        edits.mask(clip, 0.5, 0),
        edits.mask_interval(clip, 0.1, 0.2),
        edits.overlay(clip, clip),
        edits.gain(clip, 3),
    ]
    assert np.array_equal(clip.samples, before)
    assert {edited.offset_s for edited in made} == {0.5}
    assert made[1].source == "noise 0 | 50% masked, seed 0"


def test_measured_snr_at_its_ends():
    clip = tone()
    assert edits.measured_snr_db(clip, clip) == float("inf")
    assert edits.measured_snr_db(edits.silence(clip), clip) == -float("inf")


QUIET = Clip.silence(1.0)
SOUND = tone()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda: edits.add_noise(QUIET, 0, 0), r"silent \(RMS 0\), so no SNR"),
        (lambda: edits.add_noise(SOUND, float("nan"), 0), "SNR of nan dB"),
        (lambda: edits.add_noise(SOUND, 0, -1), "seed is -1"),
        (lambda: edits.mask(SOUND, 20, 0), "ratio is 20, allowed are 0 to 1; 0.2 masks 20 %"),
        (lambda: edits.mask(SOUND, 0.5, 0, chunk_s=0.0), "chunks of 0.0 s hold no sample"),
        (lambda: edits.mask_interval(SOUND, 0.5, 1.5), "0.5 to 1.5 s reaches outside the clip of 1.000 s"),
        (lambda: edits.mask_intervals(SOUND, []), "0 intervals"),
        (lambda: edits.splice(SOUND, SOUND, at_s=1.5), "cannot splice at 1.5 s"),
        (lambda: edits.splice(Clip.silence(1 / 16000), SOUND, snr_db=None), "no interior point"),
        (lambda: edits.splice(SOUND, QUIET), "give snr_db=None"),
        (lambda: edits.overlay(QUIET, SOUND), "silent"),
        (lambda: edits.overlay(SOUND, tone(2.0)), "do not fit .*; splice it"),
        (lambda: edits.overlay(SOUND, tone(0.5), at_s=0.6), "start within 0 to 0.500 s"),
        (lambda: edits.gain(SOUND, float("-inf")), "use `silence`"),
        (lambda: edits.speed(SOUND, 0.0), "speed of 0.0 is impossible"),
        (lambda: edits.speed(Clip.silence(0.001), 100.0), "0 samples"),
        (lambda: edits.measured_snr_db(SOUND, tone(2.0)), "compares equal lengths"),
    ],
)
def test_impossible_edits_say_value_limit_and_remedy(edit, message):
    with pytest.raises(AudioError, match=message):
        edit()


def test_noise_alone_is_as_long_and_as_loud() -> None:
    clip = noise(1.0)
    alone = edits.noise_alone(clip, 3)
    assert alone.samples.size == clip.samples.size
    assert alone.rms == pytest.approx(clip.rms, rel=1e-5)
    assert abs(np.corrcoef(alone.samples, clip.samples)[0, 1]) < 0.05
    assert edits.noise_alone(clip, 3) == alone != edits.noise_alone(clip, 4)
    assert edits.noise_alone(edits.silence(clip), 0).rms == pytest.approx(edits.QUIETEST_RMS, rel=1e-5)
