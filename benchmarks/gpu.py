"""Every GPU figure of README and benchmarks/README.md: one script for a machine with a GPU and without a network.

    python benchmarks/gpu.py [--clips FOLDER] [--json FILE] [--only STAGE ...] [--device cpu --quick]

Compares features with the CPU's on ten clips, and segments on twenty; measures whole runs of 60 s of video at 340×256
and 1080p, I3D by precision, flow by batch, decoding, start-up and memory; runs the tests marked `gpu`. A stage that
fails is reported, and the next one runs. All stages took 4.6 minutes on an H200 with 16 cores. After --minutes (4), no
other stage begins; the script says what it left out, and `--only` runs that.

FOLDER: clips in folders by label, as in the corpus (JCDNET_CORPUS); one clip a folder is taken first. The published RGB
weights must be on the machine (`models fetch i3d-rgb`). With --device cpu --quick it runs through on any machine; its
figures are then of the CPU.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors import flow
from extractors.config import FeatureConfig, decoders_for
from extractors.decode.grid import Frames
from extractors.decode.process import Decoder
from extractors.decode.several import Decoders
from extractors.features import Extractor
from extractors.inputs.ahead import Ahead
from pipeline.api import Pipeline
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.config import Config
from pipeline.machine.bench import make_clip, run_afresh
from pipeline.workers.engine import Item, Request, extract_here

ROOT = Path(__file__).resolve().parents[1]
BATCHES = (16, 128, 512, 1024)
LEFT_OUT = " left out"  # behind the name of a stage, in the JSON
CALM, BUSY = "IceHockeyPlay", "Kickflip"  # TV-L1 stops early on the first, and late on the second


@dataclass
class Bench:
    """What the stages share, and what they found."""

    device: str
    quick: bool
    clips: list[Path]
    originals: Path
    folder: Path
    found: dict[str, Any] = field(default_factory=dict)

    def say(self, name: str, value: Any, unit: str = "") -> None:
        """Keep a figure, and print it."""
        self.found[name] = value
        shown = (
            f"{value:,.0f}"
            if isinstance(value, float) and value >= 100
            else f"{value:.4g}"
            if isinstance(value, float)
            else value
        )
        print(f"  {name:58} {shown} {unit}", flush=True)

    def median(self, job: Callable[[], object], repeats: int = 3) -> float:
        """Seconds of the median repeat, after one that is not counted."""
        seconds = []
        for _ in range(1 + (1 if self.quick else repeats)):
            begin = time.perf_counter()
            job()
            if self.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds[1:])

    def clip(self, label: str) -> Path:
        """The first clip of a label, or any."""
        return next((path for path in self.clips if path.parent.name == label), self.clips[0])

    def minute(self, size: tuple[int, int]) -> Path:
        """60 s of real footage in this size (H, W): the packets of a phone's original, or of a clip, repeated."""
        path = self.folder / f"minute{size[0]}.mp4"
        if not path.exists():
            phone = self.originals / "Ollie76.mov"
            once = phone if size == (1080, 1920) and phone.exists() else self.folder / f"once{size[0]}.mp4"
            if not once.exists():
                encode(self.clip("Basketball"), once, size)
            repeat(once, path, 2.0 if self.quick else 60.0)
        return path


def encode(clip: Path, path: Path, size: tuple[int, int]) -> Path:
    """A clip in another size (H, W), in H.264 with a keyframe each 2 s, as phones record."""
    with Frames(clip, 25, None) as frames, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        for _, image in frames.grid(0, 250):
            large = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def repeat(clip: Path, path: Path, seconds: float) -> Path:
    """The packets of a clip again and again, without encoding."""
    stream, done = None, 0.0
    with av.open(str(path), "w") as out:
        while done < seconds:
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                packets = [packet for packet in source.demux(video) if packet.dts is not None]
                offset, begin = round(done / float(video.time_base or 1)), packets[0].dts or 0
                last = 0
                for packet in packets:
                    assert packet.dts is not None and packet.pts is not None
                    last = max(last, packet.dts - begin + (packet.duration or 1))
                    packet.dts, packet.pts, packet.stream = packet.dts + offset, packet.pts + offset, stream
                    out.mux(packet)
                done += last * float(video.time_base or 1)
    return path


def greys(clip: Path, pairs: int) -> np.ndarray:
    """(pairs + 1, H, W) uint8: the frames of a clip, forwards and backwards until there are enough."""
    with Frames(clip, 25, 256) as frames:
        once = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for _, image in frames.grid(0, 129)]
    there_and_back = [*once, *once[-2:0:-1]]
    return np.stack([there_and_back[i % len(there_and_back)] for i in range(pairs + 1)])


def about(bench: Bench) -> None:
    """The machine."""
    bench.say("torch", torch.__version__)
    bench.say("cores", len(os.sched_getaffinity(0)))
    if bench.device != "cpu":
        bench.say("GPU", torch.cuda.get_device_name())
        bench.say("cuDNN", torch.backends.cudnn.version())
        bench.say("flow backend", flow.version("auto" if flow.resolve("auto", "cuda") == "numba" else "cuda"))


def tests(bench: Bench) -> None:
    """The tests that need a GPU."""
    if bench.device == "cpu":
        return bench.say("tests", "left out: no GPU")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
        "tests/extractors",
        "tests/pipeline",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    print("\n".join(done.stdout.splitlines()[-12:]))
    bench.say("tests marked gpu", (done.stdout.strip().splitlines() or [done.stderr[-300:]])[-1])


def flows(bench: Bench) -> None:
    """TV-L1 by batch, on the device, and whether its fields are the CPU's."""
    backend = flow.resolve("auto", bench.device)
    if backend == "cuda":
        from extractors.flow.cuda_tvl1 import tv_l1
    else:
        from extractors.flow.torch_tvl1 import tv_l1
    for label in (CALM, BUSY):
        clip = bench.clip(label)
        for pairs in (2,) if bench.quick else BATCHES:
            frames = torch.from_numpy(greys(clip, pairs)).to(bench.device)
            if bench.quick:
                frames = frames[:, :32, :40].contiguous()
            seconds = bench.median(lambda frames=frames: tv_l1(frames), 2)  # type: ignore[misc]
            bench.say(f"flow {backend}, {clip.stem}, {pairs} pairs a call", pairs / seconds, "pairs/s")
    same = differ = 0
    worst = 0.0
    for clip in bench.clips[: 1 if bench.quick else 10]:
        grey = greys(clip, 2 if bench.quick else 16)
        fields = flow.FLOWS[backend](grey, device=bench.device)
        gap = np.abs(fields - flow.FLOWS["numba"](grey)).reshape(len(fields), -1).max(1)
        same, differ, worst = same + int((gap == 0).sum()), differ + int((gap > 0).sum()), max(worst, float(gap.max()))
    bench.say("pairs with the CPU's bytes, and others", f"{same}, {differ} (largest difference {worst:.3g} px)")


def networks(bench: Bench) -> None:
    """I3D by stream and precision."""
    for stream, channels in (("rgb", 3), ("flow", 2)):
        for kind in ("float32",) if bench.device == "cpu" else ("float16", "bfloat16", "float32"):
            extractor = Extractor(FeatureConfig(precision=kind), ("rgb", "flow"), device=bench.device)
            size = 1 if bench.quick else extractor.batch
            pixels = torch.rand(size, channels, 16, 224, 224, device=bench.device) * 2 - 1
            seconds = bench.median(lambda e=extractor, p=pixels, s=stream: e.forward(p, s))  # type: ignore[misc]
            bench.say(f"I3D {stream}, {kind}, batch {size}", size / seconds, "snippets/s")


def decoding(bench: Bench) -> None:
    """Frames that reach this process, small as the networks want them."""
    many = max(decoders_for("cuda", None), 2)
    for size in ((256, 340), (1080, 1920)):
        video = bench.minute(size)
        several = Decoders(many, least=0, span=16 if bench.quick else 0)  # small pictures are divided here, too
        ways: dict[str, Decoder | Decoders] = {"1 decoder": Decoder(), f"{many} decoders": several}
        if bench.device != "cpu":
            ways["nvdec"] = Decoder(0)
        for way, decoder in ways.items():
            name = f"decode {size[1]}x{size[0]}, {way}"
            try:
                frames = _count(decoder, video)
                seconds = bench.median(lambda d=decoder, v=video: _count(d, v), 2)  # type: ignore[misc]
                bench.say(name, frames / seconds, "frames/s")
            except Exception as error:  # NVDEC needs a library of the driver
                bench.say(name, f"not here ({error})")
            decoder.close()
        if several.why:
            bench.say(f"decode {size[1]}x{size[0]}, {many} decoders: why only one worked", several.why)


def _count(decoder: Decoder | Decoders, video: Path) -> int:
    with decoder.open(video, FeatureConfig()) as (_, frames):
        return sum(1 for _ in frames)


def whole(bench: Bench) -> None:
    """Whole runs of a minute of video, nothing cached."""
    for streams in ("rgb", "both"):
        pipeline = _pipeline(bench.device, streams)
        for size in ((256, 340), (1080, 1920)):
            video = bench.minute(size)
            frames = 16 * len(run_afresh(pipeline, video)[1].times)
            seconds = bench.median(lambda p=pipeline, v=video: run_afresh(p, v), 2)  # type: ignore[misc]
            bench.say(f"whole run {size[1]}x{size[0]}, {streams}", frames / seconds, "frames/s")
            bench.say(f"minutes per hour of video, {size[1]}x{size[0]}, {streams}", 60 * 25 * seconds / frames, "min")
    if bench.device != "cpu":
        bench.say("GPU memory at most", torch.cuda.max_memory_reserved() / 1e9, "GB")


def folder(bench: Bench) -> None:
    """RGB features of six videos of 10 s, one after the other, each begun before its turn or not; nothing cached."""
    clip = bench.minute((256, 340)).with_name("once256.mp4")
    once = repeat(clip, bench.folder / "ten seconds.mp4", 1.0 if bench.quick else 10.0)
    videos = [bench.folder / f"{n} of six.mp4" for n in range(6)]
    for n, video in enumerate(videos):  # an empty box of MP4 makes the content another one
        video.write_bytes(once.read_bytes() + (8 + n).to_bytes(4, "big") + b"free" + bytes(n))
    items = [Item(video, content_hash(video)) for video in videos]
    extractor = Extractor(FeatureConfig(), ("rgb",), device=bench.device)
    many = decoders_for(torch.device(bench.device).type, None)

    def make() -> Decoder | Decoders:
        return Decoders(many) if many > 1 else Decoder()

    def run() -> None:
        with tempfile.TemporaryDirectory() as cache:
            for done in extract_here(Request(extractor, FeatureCache(Path(cache))), items):
                if done.error is not None:
                    raise done.error

    for name, decoder in (("alone", make()), ("begun before their turn", Ahead(make))):
        extractor.decoder = decoder
        bench.say(f"videos of 10 s, {name}", len(items) / bench.median(run, 2), "videos/s")
        decoder.close()


def _pipeline(device: str, streams: str = "rgb") -> Pipeline:
    # The embedded model reads RGB alone; with `both` it gets flow features as well, which it leaves aside.
    return Pipeline.load(device=device, config=Config(streams=streams))


def startup(bench: Bench) -> None:
    """`run` on a clip of 2 s, from the shell: the first process may compile, the second finds what it compiled."""
    clip = make_clip(bench.folder / "short.mp4", 2.0)
    for name in ("first", "second"):
        with tempfile.TemporaryDirectory() as out:
            environment = os.environ | {"JCDNET_CACHE": str(Path(out) / "cache")}
            command = [sys.executable, "cli.py", "--quiet", "run", str(clip), "-o", out, "--device", bench.device]
            begin = time.perf_counter()
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
            seconds = time.perf_counter() - begin
        bench.say(f"run of 2 s of video, {name} process", seconds if not done.returncode else done.stderr[-300:], "s")


def likeness(bench: Bench) -> None:
    """Features of both streams against the CPU's, snippet by snippet."""
    cosines: dict[str, list[float]] = {"rgb": [], "flow": []}
    here = Extractor(FeatureConfig(precision="float32"), ("rgb", "flow"))
    there = Extractor(FeatureConfig(), ("rgb", "flow"), device=bench.device)
    for clip in bench.clips[: 1 if bench.quick else 10]:
        a, b = here.chunk(clip), there.chunk(clip)
        for stream, values in cosines.items():
            x, y = getattr(a, stream), getattr(b, stream)
            values += ((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).tolist()
    for stream, values in cosines.items():
        bench.say(f"cosine to the CPU, {stream}: least of {len(values)} snippets", min(values))
        bench.say(f"cosine to the CPU, {stream}: median", statistics.median(values))


def segments(bench: Bench) -> None:
    """Segments of twenty clips on the CPU and on the device: the same labels, edges within a snippet."""
    here, there = (_pipeline(d) for d in ("cpu", bench.device))
    same, count, snippet = 0, 0, 16 / 25
    for clip in bench.clips[: 1 if bench.quick else 20]:
        pairs = [run_afresh(pipeline, clip)[0].segments for pipeline in (here, there)]
        ordered = [sorted(found, key=lambda s: (s.start, s.label)) for found in pairs]
        alike = all(
            a is not None
            and b is not None
            and a.label == b.label
            and max(abs(a.start - b.start), abs(a.end - b.end)) <= snippet + 1e-6
            for a, b in zip_longest(*ordered)
        )
        same, count = same + alike, count + 1
    bench.say("clips with the CPU's segments", f"{same} of {count}")


STAGES: dict[str, Callable[[Bench], object]] = {
    # Features and segments come first: if they are wrong, no speed matters.
    "about": about,
    "likeness": likeness,
    "segments": segments,
    "whole": whole,
    "networks": networks,
    "flow": flows,
    "decoding": decoding,
    "folder": folder,
    "startup": startup,
    "tests": tests,
}


def one_of_each(folder: Path) -> Iterator[Path]:
    """Clips of a folder of labels: the first of each label, then the second of each, …"""
    labels = [
        sorted(label.glob("*.mp4"))
        for label in sorted(folder.iterdir())
        if label.is_dir() and label.name != "originals"
    ]
    for row in zip_longest(*labels):
        yield from filter(None, row)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus = os.environ.get("JCDNET_CORPUS", ROOT.parent / "shared" / "corpus")
    parser.add_argument("--clips", type=Path, default=Path(corpus))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="one repeat, few and small inputs")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--minutes", type=float, default=4.0, help="no stage begins later; --quick has no limit")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = list(one_of_each(arguments.clips)) if arguments.clips.is_dir() else []
        if not clips:
            print(f"{arguments.clips}: no folders of clips here; a drawn clip stands in for them.")
            (Path(folder) / "Drawn").mkdir()
            clips = [make_clip(Path(folder) / "Drawn" / "drawn.mp4", 3.0)]
        bench = Bench(arguments.device, arguments.quick, clips, arguments.clips / "originals", Path(folder))
        start = time.perf_counter()
        for name in arguments.only:
            begin = time.perf_counter()
            if not arguments.quick and begin - start > 60 * arguments.minutes:
                bench.found[f"{name}{LEFT_OUT}"] = f"{arguments.minutes:g} minutes were over"
            else:
                print(f"{name}: {(STAGES[name].__doc__ or '').splitlines()[0]}", flush=True)
                try:
                    STAGES[name](bench)
                except Exception as error:
                    traceback.print_exc()
                    bench.found[f"{name} failed"] = repr(error)
                bench.found[f"seconds of {name}"] = time.perf_counter() - begin
            if arguments.json:
                arguments.json.write_text(json.dumps(bench.found, indent=1), encoding="utf-8")
    failed = [name for name in bench.found if name.endswith(" failed")]
    left_out = [name.removesuffix(LEFT_OUT) for name in bench.found if name.endswith(LEFT_OUT)]
    if left_out:
        print(f"left out, since {arguments.minutes:g} minutes were over: --only {' '.join(left_out)} runs it")
    print(f"failed: {', '.join(failed)}" if failed else "all other stages ran" if left_out else "all stages ran")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
