"""How many frames a second does the decoder's process give, and what does a frame cost? With FFmpeg's and our threads.

    python benchmarks/decode_speed.py VIDEO ... [--threads 1 2 16] [--seconds 60] [--repeats 5] [--against CHECKOUT ...]

Each video is made so many seconds long by copying its packets, and read through `extractors.decode.process.Decoder` in
a process of its own, by turns with the other numbers of threads and with other checkouts of this repository. The table
has the median of frames per second, and of the processor's milliseconds per frame, of the decoder's process and of the
one that reads. It needs no more than PyAV, NumPy and OpenCV. `--converters`: so many threads that make pictures.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import av

ROOT = Path(__file__).resolve().parents[1]
CODE = """
import json, os, sys, time
from pathlib import Path
from extractors.config import FeatureConfig
from extractors.decode.process import Decoder
path, threads, converters = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Fixed(Decoder):
    def _command(self):
        memory = super()._command()[-1]
        code = f"import extractors.decode.child as d; d.converters = lambda _: {converters}; d.serve({memory})"
        return [sys.executable, "-P", "-c", code]

decoder = (Decoder if converters < 0 else Fixed)(threads=threads)

def spent():
    ticks = [0, 0]
    for n, pid in enumerate((os.getpid(), decoder._child.pid)):
        values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks[n] = (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")
    return ticks

with decoder.open(path, FeatureConfig()) as (clip, frames):
    next(frames)
    before, begin = spent(), time.perf_counter()
    count = sum(1 for _ in frames)
    wall, after = time.perf_counter() - begin, spent()
parent, child = (1e3 * (b - a) / count for a, b in zip(before, after))
print(json.dumps({"frames": count, "rate": count / wall, "child": child, "parent": parent}))
"""


def longer(source: Path, target: Path, seconds: float) -> Path:
    """The same video again and again, until it has so many seconds: its packets, with later times."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        packets = [(p.pts, p.dts, p.is_keyframe, bytes(p)) for p in given.demux(stream) if p.dts is not None]
        made = out.add_stream_from_template(stream)
        first, last = min(p[1] for p in packets), max(p[1] for p in packets)
        period = (last - first) * len(packets) // max(len(packets) - 1, 1) + 1
        assert stream.time_base is not None
        for times in range(max(1, round(seconds / (period * stream.time_base)))):
            for pts, dts, key, data in packets:
                packet = av.Packet(data)
                packet.time_base, packet.stream, packet.is_keyframe = stream.time_base, made, key
                packet.pts = None if pts is None else pts + times * period
                packet.dts = dts + times * period
                out.mux(packet)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--threads", type=int, nargs="+", default=[0], help="FFmpeg's; 0: the number of cores")
    parser.add_argument("--converters", type=int, nargs="+", default=[-1], help="-1: as the product chooses")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--against", type=Path, nargs="*", default=[], help="other checkouts")
    arguments = parser.parse_args()
    ways = [(ROOT, threads, converters) for threads in arguments.threads for converters in arguments.converters]
    ways += [(other.resolve(), threads, -1) for other in arguments.against for threads in arguments.threads]
    print(f"{len(os.sched_getaffinity(0))} cores; frames/s, then ms of the processor per frame: decoder, reader")
    with tempfile.TemporaryDirectory() as folder:
        for video in arguments.videos:
            path = longer(video, Path(folder) / f"{video.stem}.mkv", arguments.seconds)
            found: dict[tuple[Path, int, int], list[dict[str, float]]] = {way: [] for way in ways}
            for _ in range(arguments.repeats):
                for way in ways:
                    root, threads, converters = way
                    command = [sys.executable, "-c", CODE, str(path), str(threads), str(converters)]
                    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
                    if done.returncode:
                        print(done.stderr, file=sys.stderr)
                        done.check_returncode()
                    found[way].append(json.loads(done.stdout))
            for (root, threads, converters), runs in found.items():
                rate, child, parent = (statistics.median(run[n] for run in runs) for n in ("rate", "child", "parent"))
                own = "" if converters < 0 else f", {converters} converters"
                print(
                    f"{video.name:24} {root.name:12} threads {threads}{own}: {rate:7.0f} frames/s  "
                    f"{child:6.2f} ms {parent:6.3f} ms  ({runs[0]['frames']:.0f} frames)",
                    flush=True,
                )
            path.unlink()


if __name__ == "__main__":
    main()
