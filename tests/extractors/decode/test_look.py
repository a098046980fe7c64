"""One pass of swscale against a conversion at full size and an average over areas, in float64, from the planes."""

import threading
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from conftest import encode

from extractors.decode.look import Look, picture
from extractors.decode.tone import HLG, PQ, Colours, Tone
from extractors.decode.video import fit

Image = np.ndarray
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593)}  # of red and blue, by matrix


# --- the oracle -------------------------------------------------------------------------------------------------------


def areas(source: int, target: int) -> Image:
    """(target, source): the share of each source pixel in a target pixel."""
    edges = np.arange(source + 1)
    parts = [np.clip(edges, row * source / target, (row + 1) * source / target) for row in range(target)]
    return np.diff(parts, axis=1) * target / source


def linear(source: int, target: int, at: Image | None = None) -> Image:
    """(target, source): linear interpolation at source positions `at`; default: as enlarging places the pixels."""
    at = (np.arange(target) + 0.5) * source / target - 0.5 if at is None else at
    low = np.floor(at).astype(int)
    weights = np.zeros((target, source))
    for row, (start, rest) in enumerate(zip(low, at - low, strict=True)):
        weights[row, np.clip(start, 0, source - 1)] += 1 - rest
        weights[row, np.clip(start + 1, 0, source - 1)] += rest
    return weights


def full(planes: list[Image], matrix: int, limited: bool, bits: int = 8, left: bool = False) -> Image:
    """(3, H, W) RGB in [0, 1], which may lie outside, from Y, U and V of any size.

    left: chroma sits on the first luma pixel of each pair, as decoders declare it for MPEG-2 and later; else between.
    """
    height, width = planes[0].shape
    top = 2.0**bits
    black, luma, chroma = (16 / 256 * top, 219 / 256 * top, 224 / 256 * top) if limited else (0, top - 1, top - 1)
    y = (planes[0] - black) / luma
    step = round(width / planes[1].shape[1])
    at = np.arange(width) / step if left else (np.arange(width) + 0.5) / step - 0.5
    rows, columns = linear(planes[1].shape[0], height), linear(planes[1].shape[1], width, at)
    u, v = ((rows @ plane @ columns.T - top / 2) / chroma for plane in planes[1:])
    red, blue = WEIGHTS[matrix]
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b])


def shrunk(rgb: Image, size: tuple[int, int], weights: Any = areas) -> Image:
    """(h, w, 3) in [0, 1]."""
    small = weights(rgb.shape[1], size[0]) @ rgb @ weights(rgb.shape[2], size[1]).T
    return np.clip(small.transpose(1, 2, 0), 0, 1)


# --- frames -----------------------------------------------------------------------------------------------------------


def pattern(height: int, width: int, seed: int, noise: float = 0.1) -> Image:
    """(H, W) in [0, 1]: soft shapes with noise, well inside the range, so that nothing is clipped."""
    rng = np.random.default_rng(seed)
    soft = linear(7, height) @ rng.uniform(0.3, 0.7, (7, 9)) @ linear(9, width).T
    return np.asarray(soft + rng.uniform(-noise, noise, (height, width)))


def frame_of(form: str, planes: list[Image], matrix: int = 1, limited: bool = True) -> av.VideoFrame:
    """A frame whose planes hold these values."""
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], form)
    if form in ("nv12", "p010le"):
        planes = [planes[0], np.stack(planes[1:], axis=-1).reshape(planes[1].shape[0], -1)]
    for plane, values in zip(frame.planes, planes, strict=True):
        raw = np.ascontiguousarray(values).view(np.uint8)
        lines = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        lines[: len(raw), : raw.shape[1]] = raw
        plane.update(lines.tobytes())
    frame.colorspace, frame.color_range = matrix, 1 if limited else 2
    return frame


def look(transfer: int = 2, primaries: int = 2, matrix: int = 2) -> Look:
    codec = SimpleNamespace(color_trc=transfer, color_primaries=primaries, colorspace=matrix)
    return Look(SimpleNamespace(codec_context=codec, sample_aspect_ratio=Fraction(1)))  # type: ignore[arg-type]


def yuv(form: str, height: int = 216, width: int = 384) -> tuple[list[Image], int]:
    """Planes for a format, and its bits. Chroma is soft: noise in it would depend on how it is interpolated."""
    bits = 10 if "10" in form else 8
    down, across = {"yuv444p": (1, 1), "yuv422p": (1, 2), "yuv422p10le": (1, 2), "yuv411p": (1, 4)}.get(form, (2, 2))
    sizes = [(height, width)] + [(-(-height // down), -(-width // across))] * 2
    planes = [pattern(*size, seed, 0.0 if seed else 0.1) * (2**bits - 1) for seed, size in enumerate(sizes)]
    kind = np.uint16 if bits > 8 else np.uint8
    return [np.round(plane).astype(kind) for plane in planes], bits


FORMS = ("yuv420p", "yuv422p", "yuv444p", "yuv411p", "nv12", "yuv420p10le", "yuv422p10le")


@pytest.mark.parametrize("size", [(64, 114), (65, 113), (216, 200), (100, 384)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_shrinking_averages_areas(form: str, size: tuple[int, int]) -> None:
    """Even and odd sizes, and one axis alone (pixels that are not square). Rounding alone costs .25 on average."""
    planes, bits = yuv(form)
    want = 255 * shrunk(full(planes, 1, True, bits), size)
    error = look().rgb(frame_of(form, planes), size) - want
    assert np.abs(error).mean() < 0.3  # .249 to .279 were measured
    assert np.abs(error).max() < 3.5  # .5 to 2.9
    assert abs(error.mean()) < 0.02


@pytest.mark.parametrize("limited", [True, False])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_the_matrix_and_the_range_are_the_frames(matrix: int, limited: bool) -> None:
    planes, bits = yuv("yuv420p")
    error = look().rgb(frame_of("yuv420p", planes, matrix, limited), (64, 114)) - 255 * shrunk(
        full(planes, matrix, limited, bits), (64, 114)
    )
    assert np.abs(error).mean() < 0.3


def test_an_odd_picture() -> None:
    """Its last column of chroma is half outside, so the chroma is stretched by half a pixel."""
    planes, bits = yuv("yuv420p", 135, 241)
    error = look().rgb(frame_of("yuv420p", planes), (64, 114)) - 255 * shrunk(full(planes, 1, True, bits), (64, 114))
    assert np.abs(error).mean() < 1
    assert np.abs(error).max() < 8


@pytest.mark.parametrize("size", [(300, 480), (257, 391)], ids=str)
def test_enlarging_is_bilinear(size: tuple[int, int]) -> None:
    planes, bits = yuv("yuv444p")
    error = look().rgb(frame_of("yuv444p", planes), size) - 255 * shrunk(full(planes, 1, True, bits), size, linear)
    assert np.abs(error).mean() < 0.3
    assert np.abs(error).max() < 2


@pytest.mark.parametrize("form", ["rgb24", "bgra", "rgba", "gbrp", "gray", "pal8"])
def test_pictures_that_are_rgb_or_grey(form: str) -> None:
    rng = np.random.default_rng(0)
    rgb = np.stack([pattern(216, 384, seed) for seed in range(3)], axis=-1)
    levels = np.round(255 * rgb).astype(np.uint8)
    if form == "pal8":
        colours = rng.integers(0, 256, (256, 4), dtype=np.uint8)
        index = rng.integers(0, 256, (216, 384), dtype=np.uint8)
        frame, levels = av.VideoFrame.from_ndarray((index, colours), format="pal8"), colours[index][..., 1:]
    elif form == "gray":
        frame, levels = av.VideoFrame.from_ndarray(levels[..., 0], format="gray"), levels[..., :1].repeat(3, axis=2)
        frame.color_range = 2
    else:
        alpha = rng.integers(0, 256, (216, 384, 1), dtype=np.uint8)
        order = {"rgb24": [0, 1, 2], "gbrp": [0, 1, 2], "rgba": [0, 1, 2, 3], "bgra": [2, 1, 0, 3]}[form]
        pixels = np.concatenate([levels, alpha], axis=2)[..., order]
        frame = av.VideoFrame.from_ndarray(pixels, format=form)
    error = look().rgb(frame, (65, 114)) - 255 * shrunk(levels.transpose(2, 0, 1) / 255, (65, 114))
    assert np.abs(error).mean() < 0.3
    assert np.abs(error).max() < 2


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("size", [(64, 114), (65, 113)], ids=str)
def test_hdr_is_shrunk_in_16_bits_and_then_toned(transfer: int, size: tuple[int, int]) -> None:
    planes, bits = yuv("yuv420p10le")
    signal = shrunk(full(planes, 9, True, bits), size) * 65283 / 65535  # swscale's white of a limited range
    shown, frame = look(transfer, 9, 9), frame_of("yuv420p10le", planes, 9)
    deep = shown._stored(frame, size, shown._colours(frame))
    assert deep.dtype == np.uint16
    error = np.abs(deep / 65535 - signal)
    assert error.mean() < 0.0005
    assert error.max() < 0.007
    want = Tone()(np.round(65535 * signal).astype(np.uint16), Colours(transfer, 9, 9)).astype(int)
    error = np.abs(shown.rgb(frame, size) - want)  # larger at the edge of BT.709's colours, where its signal is steep
    assert error.mean() < 0.6
    assert np.quantile(error, 0.99) < 5


def test_fields_are_blended(tmp_path: Path) -> None:
    """Interlaced: a small picture is the average of all lines, as of any other frame, and has no comb."""
    image = np.full((256, 96, 3), 40, np.uint8)
    image[1::2] = 200

    def interlaced(stream: Any) -> None:
        stream.options = {"x264-params": "interlaced=1:tff=1", "crf": "1"}

    path = encode(tmp_path / "a.mkv", [image] * 3, prepare=interlaced)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.interlaced_frame
            small = look().rgb(frame, (64, 24))
            assert np.abs(small.astype(int) - 120).max() <= 1
            assert frame.interlaced_frame  # the caller's frame stays as it is


def test_pictures_are_turned_after_that() -> None:
    planes, bits = yuv("yuv420p")
    shown = look()
    shown.upright = type(shown.upright)(1, True)
    want = 255 * shrunk(full(planes, 1, True, bits), (64, 114))
    error = picture(frame_of("yuv420p", planes), (114, 64), shown) - np.rot90(want[::-1])
    assert np.abs(error).mean() < 0.45


def test_several_threads_use_one_look() -> None:
    frames = [frame_of("yuv420p", yuv("yuv420p", 216, 384 + 2 * k)[0]) for k in range(4)]
    shown, found = look(), {}
    want = [look().rgb(frame, (64, 114)) for frame in frames]

    def convert(k: int) -> None:
        found[k] = [shown.rgb(frames[k], (64, 114)) for _ in range(50)]

    threads = [threading.Thread(target=convert, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(image, want[k]) for k in range(4) for image in found[k])


@pytest.mark.parametrize(
    "name",
    ["originals/Kickflip79.mov", "originals/Ollie76.mov", "TennisRally/TennisRally_002.mp4"],
)
def test_real_frames(corpus: Path, name: str) -> None:
    """1080p as phones record it, and a clip of the corpus, made smaller still, whose coloured letters differ most."""
    with av.open(str(corpus / name)) as container:
        frames = [frame for k, frame in enumerate(container.decode(video=0)) if k in (0, 10, 20)]
    for frame in frames:
        height, width = frame.height, frame.width
        size = fit((height, width), 256 if height > 500 else 128)
        values = frame.to_ndarray().astype(float)
        planes = [values[:height], *values[height:].reshape(2, height // 2, width // 2)]
        matrix = frame.colorspace if frame.colorspace in WEIGHTS else 5
        want = 255 * shrunk(full(planes, matrix, frame.color_range != 2, left=True), size)
        error = np.abs(look().rgb(frame, size) - want)
        assert error.mean() < 0.35  # .229 to .303 were measured
        assert error.max() < (6 if "originals" in name else 20)  # 4.9, and 17.1
