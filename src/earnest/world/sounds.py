"""The 32 classes of sounds: procedural synthesis with parameters from disjoint bands per split.

Each class has its own mechanism (a spectrum, a course of pitch, a rhythm), so that a small listener on
64 mel bands every 16 ms can tell them apart, and a range for each of its parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from earnest.world.synthesis import (
    SAMPLE_RATE_HZ,
    Draw,
    Signal,
    attack,
    band_noise,
    decay,
    harmonics,
    level,
    noise,
    phase,
    place,
    seconds,
    swell,
    tone,
)


def _formants(fundamental_hz: float, peaks: tuple[tuple[float, float], ...], count: int = 40) -> list[float]:
    """Amplitudes of harmonics under resonances given as (frequency in Hz, width in Hz)."""
    frequencies = fundamental_hz * np.arange(1, count + 1)
    gains = sum(1 / (1 + ((frequencies - centre) / width) ** 2) for centre, width in peaks)
    return list(np.asarray(gains))


def _repeat(count: int, spacing_s: float, heard_s: float, draw: Draw, stroke: Callable[[int], Signal]) -> Signal:
    """One stroke repeated over a signal of `count` samples, each with its own loudness.

    The last one starts `heard_s`, the time for which a stroke is heard, before the end: a sound that has died
    away before its end would make the timeline wrong.
    """
    heard, spacing = (int(length_s * SAMPLE_RATE_HZ) for length_s in (heard_s, spacing_s))
    room = max(0, count - heard)
    one = stroke(min(count, max(heard, spacing)))
    starts = np.linspace(0, room, 1 + round(room / spacing)).astype(int)
    return place(count, [(int(start), one * np.float32(draw.uniform(0.7, 1))) for start in starts])


def _dog(count: int, draw: Draw) -> Signal:
    def bark(n: int) -> Signal:
        pitch = draw.log(330, 520) * (0.7 + 0.5 * decay(n, draw.log(10, 18)))
        voiced = harmonics(phase(pitch, n), [k**-0.6 for k in range(1, 13)], float(pitch.max()))
        return (voiced + band_noise(draw.rng, n, 500, 3000)) * attack(n, 0.015, 0) * decay(n, draw.log(9, 14))

    return _repeat(count, draw.uniform(0.26, 0.36), 0.2, draw, bark)


def _cat(count: int, draw: Draw) -> Signal:
    base = draw.log(420, 600)
    arc = swell(count) ** np.float32(draw.uniform(0.6, 1.2))
    pitch = base * (1 + draw.uniform(0.5, 0.8) * arc)
    open_mouth = harmonics(phase(pitch, count), _formants(base * 1.4, ((1300, 500), (2800, 500))), base * 1.8)
    closed = harmonics(phase(pitch, count), [1, 0.4, 0.15], base * 1.8)
    return (open_mouth * arc**2 + 0.5 * closed) * attack(count, 0.06, 0.12)


def _bird(count: int, draw: Draw) -> Signal:
    centre = draw.log(2900, 3900)
    sweep = draw.uniform(700, 1200)
    sign = 1 if draw.rng.random() < 0.5 else -1

    def chirp(n: int) -> Signal:
        sung = int(n * 0.65)
        curve = centre + sign * sweep * np.cos(np.linspace(0, 2 * np.pi, sung, dtype=np.float32))
        return np.pad(tone(curve, sung) * swell(sung), (0, n - sung))

    spacing_s = 1 / draw.uniform(5, 8)
    return _repeat(count, spacing_s, 0.65 * spacing_s, draw, chirp)


def _frog(count: int, draw: Draw) -> Signal:
    rate, base = draw.uniform(22, 34), draw.log(170, 260)
    voice = harmonics(phase(base, count), _formants(base, ((550, 150), (1500, 250))), base)
    pulses = np.exp(-7 * (phase(rate, count) % 1)).astype(np.float32)
    return voice * pulses * swell(count) ** 0.5


def _cricket(count: int, draw: Draw) -> Signal:
    carrier, pulse_rate = draw.log(4200, 5200), draw.uniform(38, 48)

    def chirp(n: int) -> Signal:
        sung = int(n * 0.55)
        gate = np.sin(np.pi * (phase(pulse_rate, sung) % 1)).astype(np.float32) ** 2
        return np.pad(tone(carrier, sung) * gate, (0, n - sung))

    spacing_s = 1 / draw.uniform(3.2, 4.6)
    return _repeat(count, spacing_s, 0.55 * spacing_s, draw, chirp)


def _cow(count: int, draw: Draw) -> Signal:
    base = draw.log(105, 160)
    arc = swell(count) ** 0.5
    pitch = base * (0.85 + 0.3 * arc)
    amplitudes = _formants(base, ((300, 120), (800, 200), (2000, 200)))
    return harmonics(phase(pitch, count), amplitudes, base * 1.2) * arc * attack(count, 0.12, 0.2)


def _owl(count: int, draw: Draw) -> Signal:
    base = draw.log(330, 450)

    def hoot(n: int) -> Signal:
        sung = int(n * 0.75)
        pitch = base * (0.93 + 0.1 * swell(sung))
        return np.pad(harmonics(phase(pitch, sung), [1, 0.08, 0.04], base) * swell(sung), (0, n - sung))

    spacing_s = draw.uniform(0.4, 0.55)
    return _repeat(count, spacing_s, 0.75 * spacing_s, draw, hoot)


def _bee(count: int, draw: Draw) -> Signal:
    base = draw.log(200, 280)
    wander = np.sin(2 * np.pi * draw.uniform(1.2, 2.4) * seconds(count) + draw.rng.uniform(0, 6))
    pitch = base * (1 + 0.12 * wander)
    buzz = harmonics(phase(pitch, count), _formants(base, ((900, 500), (2600, 900))), base * 1.12)
    return buzz * (0.75 + 0.25 * tone(draw.uniform(9, 14), count)) * attack(count, 0.08, 0.12)


def _bell(count: int, draw: Draw) -> Signal:
    base, rate = draw.log(620, 950), draw.log(1.8, 3.2)
    partials = ((1, 1.0), (2.0, 0.5), (2.76, 0.9), (5.4, 0.5), (8.93, 0.2))
    ring = sum(
        gain * tone(base * ratio, count) * decay(count, rate * (1 + 0.6 * i))
        for i, (ratio, gain) in enumerate(partials)
        if base * ratio < 7600
    )
    return np.asarray(ring, dtype=np.float32)


def _beep(count: int, draw: Draw) -> Signal:
    return tone(draw.log(900, 1250), count) * attack(count, 0.01, 0.01)


def _siren(count: int, draw: Draw) -> Signal:
    centre, depth = draw.log(800, 1050), draw.uniform(0.35, 0.5)
    curve = centre * (1 + depth * np.sin(2 * np.pi * draw.uniform(1.1, 1.9) * seconds(count) - np.pi / 2))
    return harmonics(phase(curve, count), [1, 0.35, 0.25, 0.1], centre * (1 + depth))


def _alarm(count: int, draw: Draw) -> Signal:
    low = draw.log(1450, 1750)
    upper = (phase(draw.uniform(4.5, 6.5), count) % 1) < 0.5
    curve = np.where(upper, low * 1.4, low).astype(np.float32)
    return harmonics(phase(curve, count), [1, 0, 0.35], low * 1.4)


def _horn(count: int, draw: Draw) -> Signal:
    base = draw.log(280, 350)
    amplitudes = [k**-0.5 for k in range(1, 16)]
    low = harmonics(phase(base, count), amplitudes, base)
    return (low + harmonics(phase(base * 1.26, count), amplitudes, base * 1.26)) * attack(count, 0.03, 0.03)


def _whistle(count: int, draw: Draw) -> Signal:
    low, factor = draw.log(1300, 1700), draw.uniform(1.6, 2.0)
    curve = low * factor ** np.linspace(0, 1, count, dtype=np.float32)
    breath = 0.12 * band_noise(draw.rng, count, 1200, 4500)
    return (tone(curve, count) + breath) * attack(count, 0.05, 0.06)


def _buzzer(count: int, draw: Draw) -> Signal:
    base = draw.log(95, 135)
    amplitudes = [1 / k if k % 2 else 0.0 for k in range(1, 60)]
    return harmonics(phase(base, count), amplitudes, base) * attack(count, 0.01, 0.01)


def _phone(count: int, draw: Draw) -> Signal:
    base, trill = draw.log(1150, 1400), draw.uniform(17, 23)

    def ring(n: int) -> Signal:
        sung = int(n * 0.75)
        struck = np.exp(-4 * (phase(trill, sung) % 1)).astype(np.float32)
        metal = tone(base, sung) + 0.8 * tone(base * 1.27, sung) + 0.6 * tone(base * 2.6, sung)
        return np.pad(metal * struck, (0, n - sung))

    spacing_s = draw.uniform(0.5, 0.65)
    return _repeat(count, spacing_s, 0.75 * spacing_s, draw, ring)


def _drum(count: int, draw: Draw) -> Signal:
    base, rate = draw.log(55, 85), draw.log(8, 13)

    def beat(n: int) -> Signal:
        skin = tone(base * (1 + 1.5 * decay(n, 35)), n) * decay(n, rate)
        return skin + 0.3 * noise(draw.rng, n) * decay(n, 90)

    return _repeat(count, draw.uniform(0.28, 0.4), 0.25, draw, beat)


def _clap(count: int, draw: Draw) -> Signal:
    centre = draw.log(1100, 1700)

    def clap(n: int) -> Signal:
        hands = band_noise(draw.rng, n, centre * 0.7, centre * 1.6)
        bursts = [(int(i * 0.011 * SAMPLE_RATE_HZ), decay(n, 160)) for i in range(3)]
        return hands * (place(n, bursts) + 0.5 * decay(n, 28))

    return _repeat(count, draw.uniform(0.24, 0.34), 0.1, draw, clap)


def _knock(count: int, draw: Draw) -> Signal:
    base = draw.log(190, 300)

    def knock(n: int) -> Signal:
        wood = tone(base, n) + 0.7 * tone(base * 2.4, n)
        return wood * decay(n, 45) + 0.6 * band_noise(draw.rng, n, 150, 1500) * decay(n, 80)

    return _repeat(count, draw.uniform(0.17, 0.24), 0.07, draw, knock)


def _click(count: int, draw: Draw) -> Signal:
    def click(n: int) -> Signal:
        return band_noise(draw.rng, n, draw.log(1500, 2500), 7900) * decay(n, draw.log(250, 400))

    return _repeat(count, 1 / draw.uniform(9, 13), 0.02, draw, click)


def _pop(count: int, draw: Draw) -> Signal:
    low = draw.log(260, 380)

    def pop(n: int) -> Signal:
        rise = low * (1 + 1.6 * np.minimum(seconds(n) / 0.04, 1))
        return tone(rise, n) * decay(n, 50) + 0.25 * noise(draw.rng, n) * decay(n, 400)

    return _repeat(count, draw.uniform(0.3, 0.4), 0.07, draw, pop)


def _crash(count: int, draw: Draw) -> Signal:
    rate = draw.log(2.5, 4.5)
    metal = sum(tone(draw.log(2200, 7000), count) for _ in range(6))
    body = band_noise(draw.rng, count, draw.log(300, 500), 7900)
    return (body + 0.25 * np.asarray(metal, dtype=np.float32)) * decay(count, rate)


def _glass(count: int, draw: Draw) -> Signal:
    hits = [(0, 0.8 * band_noise(draw.rng, count, 3000, 7900) * decay(count, 40))]
    for _ in range(max(5, int(14 * count / SAMPLE_RATE_HZ))):
        start = int(count * 0.75 * draw.rng.random() ** 1.3)
        length = min(count - start, int(0.16 * SAMPLE_RATE_HZ))
        hits.append((start, tone(draw.log(2600, 7000), length) * decay(length, draw.log(18, 35))))
    return place(count, hits)


def _hammer(count: int, draw: Draw) -> Signal:
    base, rate = draw.log(1000, 1400), draw.log(12, 20)

    def strike(n: int) -> Signal:
        metal = tone(base, n) + 0.9 * tone(base * 2.42, n) + 0.7 * tone(base * 3.9, n)
        return metal * decay(n, rate) + 1.2 * noise(draw.rng, n) * decay(n, 200)

    return _repeat(count, draw.uniform(0.36, 0.48), 0.2, draw, strike)


def _rain(count: int, draw: Draw) -> Signal:
    shower = 0.5 * band_noise(draw.rng, count, draw.log(800, 1200), 6500)
    drops = noise(draw.rng, count)
    drops[draw.rng.random(count, dtype=np.float32) > draw.uniform(0.006, 0.012)] = 0
    kernel = tone(draw.log(2200, 3200), 64) * decay(64, 900)
    splashes = np.convolve(drops, kernel)[:count]
    return (shower + 2.2 * splashes).astype(np.float32) * attack(count, 0.1, 0.15)


def _wind(count: int, draw: Draw) -> Signal:
    gust = 0.5 - 0.5 * np.cos(2 * np.pi * draw.uniform(0.7, 1.3) * seconds(count) + draw.rng.uniform(0, 6))
    low = band_noise(draw.rng, count, 80, draw.log(260, 360))
    howl = band_noise(draw.rng, count, draw.log(420, 520), draw.log(600, 750))
    return (low * (1 - 0.7 * gust) + 1.8 * howl * gust) * attack(count, 0.15, 0.2)


def _wave(count: int, draw: Draw) -> Signal:
    surge = np.linspace(0, 1, count, dtype=np.float32) ** np.float32(draw.uniform(0.6, 1.0))
    surge = np.maximum(np.sin(np.pi * surge), 0)
    roar = band_noise(draw.rng, count, 150, draw.log(700, 1000))
    foam = band_noise(draw.rng, count, draw.log(1500, 2200), 5000)
    return roar * surge + 0.9 * foam * surge**4


def _engine(count: int, draw: Draw) -> Signal:
    rate = draw.uniform(11, 16)
    base = rate * 4
    motor = harmonics(phase(base, count), [k**-0.4 for k in range(1, 24)], base)
    chug = np.exp(-3.5 * (phase(rate, count) % 1)).astype(np.float32)
    return (motor + 0.8 * band_noise(draw.rng, count, 60, 700)) * chug * attack(count, 0.06, 0.08)


def _hiss(count: int, draw: Draw) -> Signal:
    return band_noise(draw.rng, count, draw.log(4000, 5200), 7900) * attack(count, 0.03, 0.08)


def _drop(count: int, draw: Draw) -> Signal:
    low, span = draw.log(700, 1000), draw.uniform(0.09, 0.13)

    def bloop(n: int) -> Signal:
        rise = low * (1 + 1.9 * np.minimum(seconds(n) / span, 1) ** 1.5)
        return tone(rise, n) * attack(n, 0.01, 0) * decay(n, 16)

    return _repeat(count, draw.uniform(0.28, 0.36), 0.18, draw, bloop)


def _laser(count: int, draw: Draw) -> Signal:
    top, fall = draw.log(3500, 5000), draw.uniform(11, 16)

    def zap(n: int) -> Signal:
        curve = 250 + top * decay(n, fall)
        return harmonics(phase(curve, n), [1, 0.4, 0.2], top + 250) * attack(n, 0.004, 0.02)

    return _repeat(count, draw.uniform(0.22, 0.3), 0.2, draw, zap)


def _saw(count: int, draw: Draw) -> Signal:
    low, teeth = draw.log(1300, 1800), draw.uniform(55, 75)
    rasp = (0.3 + 0.7 * (phase(teeth, count) % 1)).astype(np.float32)
    push = band_noise(draw.rng, count, low, low * 1.8) * rasp
    pull = band_noise(draw.rng, count, low * 1.6, low * 2.8) * rasp
    stroke = phase(draw.uniform(2.4, 3.4), count)
    forth = np.sin(np.pi * (stroke % 1)).astype(np.float32)
    pushing = (stroke % 2) < 1
    return np.where(pushing, push, pull) * forth


class _Recipe(NamedTuple):
    make: Callable[[int, Draw], Signal]
    shortest_s: float
    longest_s: float


_RECIPES: dict[str, _Recipe] = {
    "dog": _Recipe(_dog, 0.3, 1.0),
    "cat": _Recipe(_cat, 0.5, 1.0),
    "bird": _Recipe(_bird, 0.4, 1.2),
    "frog": _Recipe(_frog, 0.35, 0.8),
    "cricket": _Recipe(_cricket, 0.6, 1.5),
    "cow": _Recipe(_cow, 0.8, 1.6),
    "owl": _Recipe(_owl, 0.5, 1.1),
    "bee": _Recipe(_bee, 0.7, 1.6),
    "bell": _Recipe(_bell, 0.6, 1.5),
    "beep": _Recipe(_beep, 0.3, 0.7),
    "siren": _Recipe(_siren, 1.0, 2.0),
    "alarm": _Recipe(_alarm, 0.7, 1.5),
    "horn": _Recipe(_horn, 0.4, 1.2),
    "whistle": _Recipe(_whistle, 0.4, 0.9),
    "buzzer": _Recipe(_buzzer, 0.4, 1.0),
    "phone": _Recipe(_phone, 0.6, 1.4),
    "drum": _Recipe(_drum, 0.3, 1.0),
    "clap": _Recipe(_clap, 0.3, 1.0),
    "knock": _Recipe(_knock, 0.35, 0.9),
    "click": _Recipe(_click, 0.3, 0.8),
    "pop": _Recipe(_pop, 0.3, 0.9),
    "crash": _Recipe(_crash, 0.5, 1.2),
    "glass": _Recipe(_glass, 0.4, 1.0),
    "hammer": _Recipe(_hammer, 0.4, 1.2),
    "rain": _Recipe(_rain, 1.0, 2.0),
    "wind": _Recipe(_wind, 1.0, 2.0),
    "wave": _Recipe(_wave, 1.2, 2.0),
    "engine": _Recipe(_engine, 0.8, 1.8),
    "hiss": _Recipe(_hiss, 0.4, 1.2),
    "drop": _Recipe(_drop, 0.3, 0.9),
    "laser": _Recipe(_laser, 0.3, 0.9),
    "saw": _Recipe(_saw, 0.7, 1.5),
}


def sound_duration(name: str, draw: Draw) -> float:
    """A typical length of a class in seconds, from the split's bands."""
    recipe = _RECIPES[name]
    return draw.uniform(recipe.shortest_s, recipe.longest_s)


def sound(name: str, count: int, draw: Draw) -> Signal:
    """One sound of exactly `count` samples at the reference level.

    Args:
        name: a class of `vocabulary.SOUNDS`.
        count: length in samples at 16 kHz.
        draw: parameters of the event.

    Returns:
        Signal [S].
    """
    return level(_RECIPES[name].make(count, draw))
