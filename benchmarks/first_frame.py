"""How long from `import torch` to the first decoded frame, and to the first flow field, in a fresh process?

    python benchmarks/first_frame.py [VIDEO] [--repeats 2]

Both streams are set up as in a run. The first process of a machine compiles the flow kernels; call it twice.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORPUS = Path(os.environ.get("JCDNET_CORPUS", ROOT.parent / "shared" / "corpus"))
CODE = """
import sys, time
begin = time.perf_counter()
import torch
start = time.perf_counter()
print(f"import torch {start - begin:.2f} s; from there on, seconds:")
def mark(name):
    print(f"  {time.perf_counter() - start:5.2f}  {name}", flush=True)
from pathlib import Path
import cv2, numpy as np
from extractors import flow
from extractors.config import FeatureConfig
from extractors.features import Extractor
mark("modules imported")
extractor = Extractor(FeatureConfig(), ("rgb", "flow"))
mark("extractor: weights found and verified")
with extractor.decoder.open(Path(sys.argv[1]), extractor.config) as (clip, frames):
    first = next(frames)[1]
    mark("first frame decoded")
    second = next(frames)[1]
    backend = extractor.flow_backend
    compiles = flow.must_compile(backend, first.shape[1])
    flow.warmup(backend, first.shape[1])
    mark("flow kernels " + ("compiled" if compiles else "loaded"))
    grey = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first, second)])
    flow.FLOWS[backend](grey)
    mark("first flow field")
    extractor.decoder.close()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?", default=CORPUS / "GolfSwing" / "GolfSwing_001.mp4")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    for _ in range(arguments.repeats):
        subprocess.run([sys.executable, "-c", CODE, str(arguments.video.resolve())], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
