"""Does memory grow with the video's length? Peak resident memory of `extract`, the decoder's process included.

    python benchmarks/memory.py [--rgb 1 10] [--both 1 2] [--precision bfloat16]

Encodes 340x256 clips of so many minutes, extracts each in a process of its own with an empty cache, and prints the
peak of the main process plus that of the decoder (an upper bound of their sum).
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.machine.bench import make_clip

CODE = """
import resource, sys
import cli
sys.argv = ["jcdnet", "--quiet", "extract", sys.argv[1], "-o", sys.argv[2], "--streams", *sys.argv[3:]]
try:
    cli.main()
except SystemExit as stop:
    assert not stop.code, stop.code
import gc
gc.collect()  # ends the decoder's process, so that it counts among the children
own, children = (resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print("peak", own, children)
"""


def peak(video: Path, streams: str, precision: str) -> tuple[float, float]:
    """MB (1e6 bytes) of the main process and of the decoder."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(video), folder, streams, "--precision", precision],
            env=os.environ | {"JCDNET_CACHE": f"{folder}/cache"},
            capture_output=True,
            text=True,
            check=True,
        )
    _, own, child = done.stdout.strip().splitlines()[-1].split()
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB here
    return int(own) * unit / 1e6, int(child) * unit / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rgb", type=float, nargs="*", default=[1, 10], help="minutes, with --streams rgb")
    parser.add_argument("--both", type=float, nargs="*", default=[1, 2], help="minutes, with --streams both")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for streams in ("rgb", "both"):
            for minutes in getattr(arguments, streams):
                video = make_clip(Path(folder) / f"{minutes:g}.mp4", 60 * minutes)
                own, child = peak(video, streams, arguments.precision)
                print(
                    f"{streams:5} {minutes:4g} min   {own:6.0f} MB + decoder {child:4.0f} MB = {own + child:6.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
