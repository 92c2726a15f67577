"""Pictures for the scorecard: spectrograms as PNG, curves as SVG that follows the page's colours."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from html import escape

import numpy as np

from earnest.audio import Clip
from earnest.finding import Curve

RATE_HZ = 16_000
ROWS = 96
COLUMNS = 720
LOW_HZ, HIGH_HZ = 50.0, 7_800.0
RANGE_DB = 80.0
_WINDOW = 512
_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 16, 44


def spectrogram(clip: Clip) -> np.ndarray:
    """Level over time and mel-spaced frequency.

    Args:
        clip: any rate; resampled to 16 kHz.

    Returns:
        [ROWS, C] levels from 0 (80 dB below the peak, or less) to 1 (the peak), lowest frequency first,
        C at most `COLUMNS`; all 0 for digital silence.
    """
    samples = clip.resampled(RATE_HZ).samples
    hop = max(160, math.ceil(len(samples) / COLUMNS))
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW))
    starts = np.arange(0, max(1, len(samples)), hop)
    # [C, W] -> power [C, W/2 + 1]
    frames = padded[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    mels = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), ROWS)
    bins = 700.0 * (np.exp(mels / 1127.0) - 1.0) * _WINDOW / RATE_HZ
    low = np.floor(bins).astype(int)
    share = (bins - low)[:, None]
    rows = power.T[low] * (1 - share) + power.T[low + 1] * share
    peak = rows.max()
    if peak == 0:
        return np.zeros_like(rows)
    levels = 10.0 * np.log10(np.maximum(rows / peak, 1e-12))
    return np.clip(1.0 + levels / RANGE_DB, 0.0, 1.0)


def spectrogram_png(clip: Clip) -> bytes:
    """The spectrogram as a PNG without axes, its left and right edge the clip's start and end."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(buffer, spectrogram(clip), cmap="magma", vmin=0.0, vmax=1.0, origin="lower", format="png")
    return buffer.getvalue()


def curves_svg(curves: Sequence[Curve]) -> str:
    """Curves of one title in one plot, with their intervals as bands.

    Args:
        curves: at least one; points that are not finite are left out of the line.

    Returns:
        An `<svg>` whose colours are the page's classes `c0`, `c1`, ...
    """
    x_low, x_high = _span([x for curve in curves for x in curve.x])
    y_low, y_high = _span([y for curve in curves for y in (*curve.y, *curve.low, *curve.high)])
    if y_low >= 0.0 and y_high <= 1.0:
        y_low, y_high = 0.0, 1.0  # a fraction is seen against all of it

    def at(x: float, y: float) -> str:
        across = _LEFT + (x - x_low) / (x_high - x_low) * (_WIDTH - _LEFT - _RIGHT)
        down = _TOP + (y_high - y) / (y_high - y_low) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f},{down:.1f}"

    parts = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for step in range(5):
        x, y = x_low + (x_high - x_low) * step / 4, y_low + (y_high - y_low) * step / 4
        start, end = at(x_low, y).split(","), at(x_high, y).split(",")
        parts.append(f'<line class="grid" x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(start[1]) + 4:.1f}" text-anchor="end">{y:.3g}</text>')
        column = at(x, y_low).split(",")[0]
        parts.append(f'<text x="{column}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:.3g}</text>')
    for number, curve in enumerate(curves):
        keep = [i for i, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)) if math.isfinite(x + y)]
        if curve.low:
            band = [at(curve.x[i], curve.low[i]) for i in keep if math.isfinite(curve.low[i] + curve.high[i])]
            band += [
                at(curve.x[i], curve.high[i]) for i in reversed(keep) if math.isfinite(curve.low[i] + curve.high[i])
            ]
            parts.append(f'<polygon class="band c{number % 6}" points="{" ".join(band)}"/>')
        points = " ".join(at(curve.x[i], curve.y[i]) for i in keep)
        parts.append(f'<polyline class="line c{number % 6}" points="{points}"/>')
        parts.append(
            f'<text class="c{number % 6}" x="{_WIDTH - _RIGHT}" y="{_TOP + 14 + 16 * number}" '
            f'text-anchor="end">{escape(curve.label)}</text>'
        )
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(curves[0].x_label)}</text>')
    parts.append(
        f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(curves[0].y_label)}</text></svg>"
    )
    return "".join(parts)


def _mel(frequency_hz: float) -> float:
    return 1127.0 * math.log(1.0 + frequency_hz / 700.0)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest finite value, a little apart if they are the same."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
