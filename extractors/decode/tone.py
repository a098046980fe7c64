"""From high dynamic range and wide colours to a BT.709 screen, as players do it: one 3-D lookup table.

The signal becomes light on a display (the EOTF), the light is compressed to the range of an SDR screen, its colours are
converted to BT.709's primaries, and the result becomes a signal again. PQ and HLG: Rec. ITU-R BT.2100-2, tables 4 and
5. The curve: the EETF of Report ITU-R BT.2390, section 5.4, from a mastering display of 1000 cd/m2 to SDR's white,
which is 203 cd/m2 (HDR reference white, Report ITU-R BT.2408). SDR's signal is that of BT.1886's display: gamma 2.4.

Dolby Vision of profile 8 and HDR10+ are PQ with additions, which are ignored here.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import av.filter
import cv2
import numpy as np
from numpy.typing import NDArray

from support.files import scratch

Image = NDArray[np.uint8]
Deep = NDArray[np.uint16]
Floats = NDArray[np.float64]

WHITE, PEAK = 203.0, 1000.0  # cd/m2
GAMMA = 2.4
NODES = 49  # along each axis of the table

# Code points of ISO/IEC 23091-2, as FFmpeg numbers them.
UNSPECIFIED = frozenset({0, 2, 3})  # reserved values count as unspecified too
PQ, HLG = 16, 18
# Matrices and ranges that swscale knows; it refuses frames with others.
MATRICES = frozenset({0, 1, 2, 4, 5, 6, 7, 9})
LIMITED, FULL = 1, 2
RANGES = frozenset({0, LIMITED, FULL})
# For colour primaries, x and y of red, green and blue. All of these have D65 as white.
D65 = (0.3127, 0.3290)
BT709, BT601, BT2020 = 1, 5, 9
PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # P3 with D65
}


@dataclass(frozen=True)
class Colours:
    """The colours that a stream or a frame declares: code points of transfer, primaries and matrix."""

    transfer: int = 2
    primaries: int = 2
    matrix: int = 2

    def over(self, other: Colours) -> Colours:
        """These colours, with the other's values where these are unspecified."""
        mine, theirs = (self.transfer, self.primaries, self.matrix), (other.transfer, other.primaries, other.matrix)
        return Colours(*(b if a in UNSPECIFIED else a for a, b in zip(mine, theirs, strict=True)))

    @property
    def plain(self) -> bool:
        """Whether a picture needs no conversion: it declares neither HDR nor BT.2020's primaries."""
        return self.transfer not in (PQ, HLG) and self.primaries != BT2020


def pq_light(signal: Floats) -> Floats:
    """PQ's EOTF: signal in [0, 1] -> cd/m2."""
    power = np.power(signal, 1 / _M2)
    return 10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def pq_signal(light: Floats) -> Floats:
    """The inverse of PQ's EOTF: cd/m2 -> signal in [0, 1]."""
    power = np.power(light / 10_000, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def hlg_light(signal: Floats) -> Floats:
    """HLG's EOTF for a display of 1000 cd/m2, whose system gamma is 1.2: signal (..., 3) in BT.2020 -> cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return PEAK * np.power(luminance, 0.2)[..., None] * scene


def eetf(light: Floats) -> Floats:
    """BT.2390's curve: cd/m2 up to PEAK -> cd/m2 up to WHITE. In PQ's signal: a line up to a knee, then a spline."""
    peak, white = pq_signal(np.array([PEAK, WHITE]))
    signal, most = np.minimum(pq_signal(light) / peak, 1), white / peak
    knee = 1.5 * most - 0.5
    t = (signal - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return pq_light(np.where(signal < knee, signal, spline) * peak)


def to_bt709(primaries: int) -> Floats:
    """(3, 3): linear RGB in these primaries, a column -> linear RGB in BT.709's."""
    return np.asarray(np.linalg.solve(_to_xyz(BT709), _to_xyz(primaries)), np.float64)


def _to_xyz(primaries: int) -> Floats:
    def xyz(x: float, y: float) -> list[float]:
        return [x / y, 1.0, (1 - x - y) / y]

    columns = np.array([xyz(*corner) for corner in PRIMARIES[primaries]]).T
    return columns * np.linalg.solve(columns, xyz(*D65))


def shown(signal: Floats, colours: Colours) -> Floats:
    """The light of an SDR screen, 1 its white: signal (..., 3) in [0, 1] -> linear BT.709 (..., 3).

    Values are below 0 for colours outside BT.709, and above 1 for light that is too bright for the screen. Unspecified
    or unknown primaries are taken for BT.2020's.
    """
    if colours.transfer in (PQ, HLG):
        light = pq_light(signal) if colours.transfer == PQ else hlg_light(signal)
        # The largest of R, G and B goes through the curve, and the others are scaled with it, so that the hue stays.
        largest = light.max(axis=-1, keepdims=True)
        linear = light * (eetf(largest) / np.maximum(largest, 1e-9)) / WHITE
    else:
        linear = np.power(signal, GAMMA)
    primaries = colours.primaries if colours.primaries in PRIMARIES else BT2020
    return linear @ to_bt709(primaries).T


@lru_cache(maxsize=4)
def cube(colours: Colours) -> str:
    """The table of `shown` in the format of Adobe's Cube LUT specification 1.0: red changes fastest."""
    steps = np.linspace(0, 1, NODES)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    light = shown(np.stack([red, green, blue], axis=-1), colours).reshape(-1, 3)
    return f"LUT_3D_SIZE {NODES}\n" + "\n".join(map("%.6g %.6g %.6g".__mod__, map(tuple, light.tolist()))) + "\n"


class Tone:
    """Applies tables to the frames of a video, which mostly have one size and the same colours."""

    def __init__(self) -> None:
        self._made_for: tuple[Colours, tuple[int, ...]] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, picture: Deep, colours: Colours) -> Image:
        """(H, W, 3) uint16 RGB as decoded -> (H, W, 3) uint8 BT.709."""
        width = picture.shape[1]
        # FFmpeg's vector code reads whole vectors, and PyAV's rows end with their last pixel. Without padding it would
        # read beyond the picture, and crash.
        picture = np.pad(picture, ((0, 0), (0, -width % VECTOR), (0, 0)))
        made_for = (colours, picture.shape[:2])
        if self._graph is None or self._made_for != made_for:
            self._graph, self._made_for = _graph(colours, picture.shape[:2]), made_for
        frame = av.VideoFrame.from_ndarray(picture, format="rgb48le").reformat(format=PLANES, threads=1)
        frame.pts = 0
        self._graph.push(frame)
        toned = self._graph.pull()
        assert isinstance(toned, av.VideoFrame)
        signal = np.asarray(cv2.pow(np.clip(toned.to_ndarray()[:, :width], 0, 1), 1 / GAMMA), np.float32)
        return np.asarray(cv2.convertScaleAbs(signal, alpha=255), np.uint8)


# The table holds light, in floats: interpolated signals would be 50 grey levels off at the edge of BT.709's colours,
# where the signal rises steeply. For planes FFmpeg's lut3d has vector code, which is 20 times as fast.
PLANES = "gbrpf32le"
VECTOR = 16  # pixels: 64 bytes, the longest that there is


def _graph(colours: Colours, size: tuple[int, ...]) -> av.filter.Graph:
    """FFmpeg's lut3d with the table, for pictures of one size (H, W)."""
    graph = av.filter.Graph()
    graph.threads = 1
    handle, name = scratch(suffix=".cube")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(cube(colours))
        source = graph.add("buffer", video_size=f"{size[1]}x{size[0]}", pix_fmt=PLANES, time_base="1/25")
        lut = graph.add("lut3d", file=name, interp="tetrahedral")  # it is read here
        graph.link_nodes(source, lut, graph.add("buffersink")).configure()
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()
    return graph
