"""HDR and wide colours become BT.709, in every picture that is made; against formulas written down here once more."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from conftest import Pixels, coded, encode, number_of

from extractors import features
from extractors.backbones import weights
from extractors.config import FeatureConfig
from extractors.decode import tone
from extractors.decode.grid import Frames
from extractors.decode.tone import HLG, PQ, Colours, Tone
from extractors.features import Extractor
from extractors.inputs.device import DeviceInputs
from pipeline.api import Pipeline
from pipeline.cache.entries import FeatureCache
from pipeline.clips import cut as clips
from pipeline.clips import overlay as render
from pipeline.clips.read import pictures
from pipeline.config import Config
from pipeline.run import views
from postprocess.segment import Result, Segment

Image = np.ndarray


# --- the oracle: numbers of one colour, by the Recommendations' own letters -------------------------------------------


def pq_inverse(nits: float) -> float:
    y = nits / 10000
    return ((0.8359375 + 18.8515625 * y**0.1593017578125) / (1 + 18.6875 * y**0.1593017578125)) ** 78.84375


def pq(signal: float) -> float:
    v = signal ** (1 / 78.84375)
    return 10000 * (max(v - 0.8359375, 0) / (18.8515625 - 18.6875 * v)) ** (1 / 0.1593017578125)


def hlg(rgb: tuple[float, float, float]) -> list[float]:
    def scene(x: float) -> float:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * math.log(4 * a)
        return x * x / 3 if x <= 0.5 else (math.exp((x - c) / a) + b) / 12

    r, g, b = (scene(x) for x in rgb)
    return [1000 * (0.2627 * r + 0.678 * g + 0.0593 * b) ** 0.2 * x for x in (r, g, b)]


def bt2390(nits: float) -> float:
    e1 = min(pq_inverse(nits) / pq_inverse(1000), 1)
    top = pq_inverse(203) / pq_inverse(1000)
    ks = 1.5 * top - 0.5
    if e1 >= ks:
        t = (e1 - ks) / (1 - ks)
        e1 = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (-2 * t**3 + 3 * t**2) * top
    return pq(e1 * pq_inverse(1000))


# BT.2087's matrix for BT.2020 -> BT.709.
NARROW = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def expected(rgb: tuple[float, float, float], transfer: int) -> Image:
    """Grey levels (3,) of a BT.2020 signal."""
    if transfer in (PQ, HLG):
        light = [pq(x) for x in rgb] if transfer == PQ else hlg(rgb)
        gain = bt2390(max(light)) / max(light) / 203 if max(light) else 0.0
        linear = np.array(light) * gain
    else:
        linear = np.array(rgb) ** 2.4
    return 255 * np.clip(NARROW @ linear, 0, 1) ** (1 / 2.4)


COLOURS = [
    (0.0, 0.0, 0.0),
    (0.3, 0.3, 0.3),
    (0.45, 0.42, 0.4),
    (0.58, 0.58, 0.58),
    (0.7, 0.5, 0.4),
    (0.4, 0.55, 0.35),
    (0.75, 0.75, 0.75),
    (0.3, 0.35, 0.5),
]


@pytest.mark.parametrize("transfer", [PQ, HLG, 14], ids=["PQ", "HLG", "BT.2020 SDR"])
def test_colours_are_mapped_as_the_recommendations_say(transfer: int) -> None:
    signal = np.round(np.array(COLOURS) * 65535).astype(np.uint16)[None]
    found = Tone()(signal, Colours(transfer, 9, 9))[0]
    for colour, got in zip(COLOURS, found, strict=True):
        assert got == pytest.approx(expected(colour, transfer), abs=2), colour


def test_the_table_is_close_to_the_formula_everywhere() -> None:
    for transfer in (PQ, HLG, 14):
        colours = Colours(transfer, 9, 9)
        signal = np.random.default_rng(0).integers(0, 52000, (200, 300, 3), dtype=np.uint16)
        want = 255 * np.clip(tone.shown(signal / 65535, colours), 0, 1) ** (1 / 2.4)
        error = np.abs(Tone()(signal, colours) - want)
        assert error.mean() < 0.3
        assert np.quantile(error, 0.999) < 3


@pytest.mark.parametrize("width", [1, 7, 8, 15, 301, 455])
def test_any_width(width: int) -> None:
    """Vector code reads past the end of a row that is no whole number of vectors, and crashes where memory ends."""
    code = f"""
import numpy as np
from extractors.decode.tone import Colours, Tone
for height in range(200, 240):
    tone, picture = Tone(), np.random.default_rng(height).integers(0, 50000, (height, {width}, 3), dtype=np.uint16)
    for _ in range(5):
        assert tone(picture, Colours(16, 9, 9)).shape == picture.shape
print(tone(picture, Colours(16, 9, 9))[:, -1].tolist() == Tone()(picture[:, -1:], Colours(16, 9, 9))[:, 0].tolist())
"""
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_hdr_white_is_bt2408s() -> None:
    """PQ's 58 % and HLG's 75 % are the same white of 203 cd/m2, and 1000 cd/m2 is SDR's."""
    whites = [(pq_inverse(203), PQ), (0.75, HLG)]
    values = [Tone()(np.full((1, 1, 3), round(v * 65535), np.uint16), Colours(t, 9, 9))[0, 0] for v, t in whites]
    assert np.abs(values[0].astype(int) - values[1]).max() <= 1
    assert values[0].min() >= 220
    peak = Tone()(np.full((1, 1, 3), round(pq_inverse(1000) * 65535), np.uint16), Colours(PQ, 9, 9))[0, 0]
    assert peak.min() >= 254


def test_matrices_are_bt2087s() -> None:
    np.testing.assert_allclose(tone.to_bt709(9), NARROW, atol=1e-4)
    np.testing.assert_allclose(tone.to_bt709(1), np.eye(3), atol=1e-12)


# --- files ------------------------------------------------------------------------------------------------------------


def hdr(
    path: Path, frames: list[Image], transfer: int = PQ, primaries: int = 9, matrix: int = 9, codec: str = "libx264"
) -> Path:
    """A 10-bit video whose RGB signal, of this transfer, is the frames' (uint8)."""

    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv422p10le" if codec == "prores_ks" else "yuv420p10le"
        stream.options = {"crf": "4", "preset": "veryfast"} if codec == "libx264" else {}
        codec_context = stream.codec_context
        codec_context.thread_count = 1
        codec_context.color_trc, codec_context.color_primaries = transfer, primaries
        codec_context.colorspace, codec_context.color_range = matrix, 1
        for image in frames:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(
                format=stream.pix_fmt, dst_colorspace=9 if matrix in (2, 9) else 1, dst_color_range=1
            )
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def flat(colour: tuple[float, float, float], count: int = 20) -> list[Image]:
    return [np.full((64, 96, 3), np.round(np.array(colour) * 255), np.uint8)] * count


COLOUR = (0.5, 0.45, 0.4)


def middle(path: Path) -> Image:
    """(3,) of the picture's middle."""
    with Frames(path, 25, 64) as frames:
        return next(image for _, image in frames.grid())[32, 48]


def levels(colour: tuple[float, float, float], transfer: int) -> Any:
    rounded = tuple(round(x * 255) / 255 for x in colour)
    return pytest.approx(expected(rounded, transfer), abs=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("transfer", [PQ, HLG, 14], ids=["PQ", "HLG", "BT.2020 SDR"])
@pytest.mark.parametrize(
    ("suffix", "codec", "matrix"),
    [("mp4", "libx264", 9), ("mkv", "ffv1", 9), ("mov", "prores_ks", 9), ("mkv", "libx264", 2)],
    ids=["H.264", "FFV1", "ProRes: only the container says it", "no matrix"],
)
def test_a_video_is_toned(tmp_path: Path, transfer: int, suffix: str, codec: str, matrix: int) -> None:
    path = hdr(tmp_path / f"a.{suffix}", flat(COLOUR, 3), transfer, matrix=matrix, codec=codec)
    assert middle(path) == levels(COLOUR, transfer)


def test_a_matrix_of_bt2020_alone_is_only_that(tmp_path: Path) -> None:
    path = hdr(tmp_path / "a.mp4", flat(COLOUR, 3), 2, 2, 9)
    assert middle(path) == pytest.approx(np.array(COLOUR) * 255, abs=3)


def test_everything_that_is_made_is_toned_and_says_bt709(tmp_path: Path) -> None:
    for transfer in (PQ, HLG):
        path = hdr(tmp_path / f"{transfer}.mkv", flat(COLOUR, 50), transfer)
        cuts = clips.plan(path, "a", [Segment(0.4, 0.8, 1.0, 0.9, "serve")], 2.0)
        made = [next(clips.cut(cuts, tmp_path / f"{transfer}-cut")).path]
        made += [next(clips.reels(cuts, tmp_path / f"{transfer}-reel")).path]
        made += [tmp_path / f"{transfer}-{name}.mp4" for name in ("proxy", "overlay")]
        render.proxy(path, made[2])
        result = Result(str(path), 2.0, {}, (), (), {})
        render.overlay(result, path, made[3])
        for one in made:
            with av.open(str(one)) as container:
                stream = container.streams.video[0]
                *_, last = container.decode(stream)
                assert (last.color_trc, last.color_primaries, last.colorspace, last.color_range) == (1, 1, 1, 1)
                assert last.format.name == "yuv420p"
                assert last.to_ndarray(format="rgb24")[32, 48] == levels(COLOUR, transfer)
        (still,) = views.stills(path, 2.0, 1)
        assert still[32, 48] == levels(COLOUR, transfer)


@pytest.mark.parametrize(
    "tags", [{"matrix": v} for v in (3, 8, 10, 14, 15, 99)] + [{"range": v} for v in (3, 77)], ids=str
)
@pytest.mark.parametrize("transfer", [PQ, 2, 99])
def test_wrong_tags_spoil_no_more_than_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, int], transfer: int
) -> None:
    """swscale refuses frames of a matrix or a range that it does not know."""
    path = encode(tmp_path / "a.mp4", [coded(k) for k in range(10)])

    def retag(frame: av.VideoFrame) -> av.VideoFrame:
        frame.color_trc, frame.color_primaries = transfer, transfer
        frame.colorspace = tags.get("matrix", 1)
        frame.color_range = tags.get("range", 1)
        return frame

    from extractors.decode import grid as framing
    from pipeline.clips import read as cut

    real = framing.decode_seen
    for module, name in ((framing, "decode_seen"), (cut, "decode")):
        monkeypatch.setattr(module, name, lambda *a, **b: ((t, retag(f)) for t, f in real(*a, **b)))
    with Frames(path, 25, 48) as frames:
        shown = [image for _, image in frames.grid()]
    assert len(shown) == 10
    assert len(list(pictures(path, 0.0, 9.0))) == 10
    if transfer != PQ:
        assert [number_of(image) for image in shown] == list(range(10))


def test_a_recording_that_turns_hdr_midway(tmp_path: Path) -> None:
    """Each frame is shown as it says itself."""
    plain = encode(tmp_path / "1.ts", flat(COLOUR, 25), options={"g": "25", "crf": "4"})
    bright = hdr(tmp_path / "2.ts", flat(COLOUR, 25))
    path = tmp_path / "a.ts"
    path.write_bytes(plain.read_bytes() + bright.read_bytes())
    with Frames(path, 25, 64) as frames:
        shown = [image[32, 48] for _, image in frames.grid()]
    assert shown[5] == pytest.approx(np.array(COLOUR) * 255, abs=6)
    assert shown[45] == levels(COLOUR, PQ)


# --- on a GPU's way ---------------------------------------------------------------------------------------------------


def test_the_gpus_way_gets_toned_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames come shrunk and toned, as the CPU's do."""

    class Found:
        weights, width, graph = "stub", 480, False
        load = staticmethod(Pixels)

    monkeypatch.setattr(features.registry, "find", lambda *_: Found)
    ramp = [np.roll(np.arange(96 * 128 * 3, dtype=np.uint32).reshape(96, 128, 3) % 251, 5 * k, 1) for k in range(20)]
    path = hdr(tmp_path / "a.mp4", [image.astype(np.uint8) for image in ramp], HLG)
    config = FeatureConfig(short_side=48, crop=32)
    host, there = Extractor(config), Extractor(config)
    there.inputs = DeviceInputs(config, None, "cpu")
    assert torch.equal(*(torch.from_numpy(e.chunk(path).rgb) for e in (host, there)))


# --- the case ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_a_case_in_hdr10_means_what_its_original_means(cases: Path, tmp_path: Path) -> None:
    """ref.mp4 and the same in PQ, whose white is 203 cd/m2."""
    pipeline = Pipeline.load(config=Config(device="cpu"))
    pipeline.cache = FeatureCache(tmp_path)
    (one, plain, _), (other, toned, _) = (pipeline.run(cases / name) for name in ("ref.mp4", "pq.mp4"))
    assert plain.rgb is not None and toned.rgb is not None
    norms = np.linalg.norm(plain.rgb, axis=1) * np.linalg.norm(toned.rgb, axis=1)
    assert ((plain.rgb * toned.rgb).sum(1) / norms).min() > 0.97
    found = [(s.label, round(s.start, 2), round(s.end, 2)) for s in other.segments]
    assert found == [("playing badminton", 0.0, 2.56), ("golf driving", 2.56, 5.12)]
    assert found == [(s.label, round(s.start, 2), round(s.end, 2)) for s in one.segments]
