"""Videos as cameras and sites made them: rotated HEVC with a varying rate, H.264, GIF, MPEG-4 in AVI.

Each must mean the same as an upright 25 fps transcode of it, which FFmpeg's own filters make here.
"""

from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest
from conftest import probe

from extractors.backbones import weights
from pipeline.api import Pipeline
from pipeline.cache.entries import FeatureCache
from pipeline.config import Config

SNIPPET = 0.64
UPRIGHT = {"Kickflip79.mov": (1080, 1920), "Ollie76.mov": (1920, 1080), "grass.gif": (640, 360)} | {
    "v_BaseballPitch_g01_c01.avi": (320, 240)
}

# Two snippets in which the model is at its threshold, so a rounding decides whether there is a segment. Features are
# compared instead; the least cosine was .9947 in float32, .9943 in int8.
BORDERLINE = "Ollie76.mov"


def transcode(source: Path, target: Path) -> Path:
    """Upright, 25 fps H.264, hardly compressed: FFmpeg's transpose and fps filters."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        made = out.add_stream("libx264", rate=25)
        made.options = {"crf": "6", "preset": "veryfast"}
        made.pix_fmt = "yuv420p"
        graph: av.filter.Graph | None = None

        def pull() -> None:
            while True:
                try:
                    frame = graph.pull()
                except (av.error.BlockingIOError, av.error.EOFError):
                    return
                if not made.codec_context.is_open:
                    made.width, made.height = frame.width, frame.height
                frame.time_base = Fraction(1, 25)
                out.mux(made.encode(frame))

        for frame in given.decode(stream):
            if graph is None:
                turn = {0: [], -90: [("transpose", "clock")]}[frame.rotation]
                filters = [*turn, ("fps", "25"), ("format", "yuv420p")]
                graph = av.filter.Graph()
                nodes = [graph.add_buffer(template=stream, time_base=stream.time_base)]
                nodes += [graph.add(name, argument) for name, argument in filters]
                nodes.append(graph.add("buffersink"))
                graph.link_nodes(*nodes).configure()
            graph.push(frame)
            pull()
        graph.push(None)
        pull()
        out.mux(made.encode(None))
    return target


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
@pytest.mark.parametrize("name", UPRIGHT)
def test_an_original_means_what_its_upright_25_fps_transcode_means(corpus: Path, tmp_path: Path, name: str) -> None:
    source = corpus / "originals" / name
    info = probe(source)
    assert (info.width, info.height) == UPRIGHT[name]
    pipeline = Pipeline.load(config=Config(classes="all", device="cpu"))
    pipeline.cache = FeatureCache(tmp_path)
    camera = pipeline(source)
    assert camera.duration == pytest.approx(info.duration, abs=float(1 / Fraction(info.rate)))
    made = transcode(source, tmp_path / "upright.mp4")
    if name == BORDERLINE:
        one, other = (pipeline.extractor.chunk(video).rgb for video in (source, made))
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        assert cosines.min() > 0.99
        return
    upright = pipeline(made)
    assert [s.label for s in camera.segments] == [s.label for s in upright.segments]
    for ours, theirs in zip(camera.segments, upright.segments, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=SNIPPET + 0.05)
        assert ours.end == pytest.approx(theirs.end, abs=SNIPPET + 0.05)
