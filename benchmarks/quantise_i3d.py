"""Make extractors/backbones/i3d_rgb_int8.json: the ranges with which the published RGB network runs in int8.

    pip install nncf==3.4.0
    python benchmarks/named_sports.py DIR
    python benchmarks/quantise_i3d.py DIR [--corpus CORPUS] [--out FILE]

NNCF's post-training quantisation in one pass, on SNIPPETS snippets of each group of clips below: the fit half of
named_sports (its scored half is never read) and clips of other kinds. Three of NNCF's options matter:

- no bias correction: the fast one moved two biases by 41 % and 16 %, and the cosine fell to .967;
- `overflow_fix` off, so that the weights have all 8 bits: the CPUs that we ask for have VNNI, which does not overflow;
- the 1x1x1 convolutions behind a concatenation stay as they are, so the outputs of b0, b1b, b2b and b3b keep their
  precision. The 3x3x3 convolutions, the first three layers and Mixed_3b are in int8.

The weights themselves are not in the file. An int8 weight is the float weight, divided by the largest of its output
channel and rounded to -127 to 127, so `graph.py` makes them from the installed weights. The program checks that the
graph made in this way gives the same bytes as NNCF's. It is deterministic, and takes about two minutes.
"""

import argparse
import json
import os
import sys
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.backbones import engines, graph, registry, runtime
from extractors.backbones.i3d import MIXED
from extractors.config import FeatureConfig
from extractors.decode.grid import Frames
from extractors.inputs.host import rgb_input
from extractors.snippets import snippets
from support.files import write_atomically

OTHERS = ("Kickflip", "Ollie", "Exercise", "CricketBowling")  # folders of the corpus that named_sports does not read
SNIPPETS = 11  # of each group
CONFIG = FeatureConfig()
BRANCHES = ("b0", "b1a", "b2a", "b3b")  # the four that share the input of a module
QUANTISED = {  # the units that run in int8, by the layer whose input they read
    **{name: [name] for name in ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")},
    "Mixed_3b": [f"Mixed_3b.{branch}" for branch in BRANCHES],
    **{f"{name}.{branch}": [f"{name}.{branch}"] for name in MIXED for branch in ("b1b", "b2b")},
}


def groups(truth: Path, corpus: Path) -> dict[str, list[str]]:
    """The clips by group, as paths below the corpus."""
    fit: dict[str, list[str]] = json.loads((truth / "clips.json").read_text())["fit"]
    others = {name: [f"{name}/{path.name}" for path in sorted((corpus / name).glob("*.mp4"))] for name in OTHERS}
    return {name: clips for name, clips in (fit | others).items() if clips}


def chosen(groups: dict[str, list[str]], corpus: Path) -> tuple[list[str], list[np.ndarray]]:
    """SNIPPETS of each group, from as many of its clips as possible, and evenly over each clip."""
    names, inputs = [], []
    for clips in groups.values():
        taken = clips[:SNIPPETS]
        each = -(-SNIPPETS // len(taken))
        found: list[tuple[str, np.ndarray]] = []
        for clip in taken:
            with Frames(corpus / clip, CONFIG.fps, CONFIG.short_side) as frames:
                cut = list(snippets(frames.grid(0, 10**6), length=CONFIG.length, stride=CONFIG.stride))
            places = sorted({(2 * i + 1) * len(cut) // (2 * each) for i in range(each)})
            found += [(f"{clip} {i}", rgb_input(cut[i].frames, CONFIG)[None].numpy()) for i in places]
        names += [name for name, _ in found[:SNIPPETS]]
        inputs += [pixels for _, pixels in found[:SNIPPETS]]
    return names, inputs


def quantised(ov: Any, model: Any, inputs: list[np.ndarray]) -> Any:
    """NNCF's model."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # NNCF would report to its makers
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    wanted = {f"{unit}.conv" for units in QUANTISED.values() for unit in units}
    left = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in ("Convolution", "ReduceMean")]
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(inputs),
        fast_bias_correction=True,  # the switch between two corrections; both are off
        ignored_scope=nncf.IgnoredScope(names=[name for name in left if name not in wanted]),
        advanced_parameters=AdvancedQuantizationParameters(
            disable_bias_correction=True, overflow_fix=OverflowFix.DISABLE
        ),
    )


def ranges(model: Any) -> dict[str, list[float]]:
    """[low, high] of what goes into each int8 layer, from NNCF's model; the pools between them do not change it."""
    by_unit = {}
    for op in model.get_ops():
        if op.get_type_name() != "Convolution":
            continue
        source = op.input_value(0).get_node()
        while source.get_type_name() == "MaxPool":
            source = source.input_value(0).get_node()
        if source.get_type_name() != "FakeQuantize":
            continue
        limits = [source.input_value(i).get_node().get_data() for i in range(1, 5)]
        assert all(limit.size == 1 for limit in limits), op
        low, high, low_out, high_out = (float(limit.flat[0]) for limit in limits)
        assert (low, high) == (low_out, high_out), op
        by_unit[op.get_friendly_name().removesuffix(".conv")] = [low, high]
    assert set(by_unit) == {unit for units in QUANTISED.values() for unit in units}, sorted(by_unit)
    for layer, units in QUANTISED.items():
        assert all(by_unit[unit] == by_unit[units[0]] for unit in units), layer
    return {layer: by_unit[units[0]] for layer, units in QUANTISED.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    parser.add_argument("--out", type=Path, default=engines.RANGES)
    given = parser.parse_args()
    ov = runtime.openvino()
    backbone = registry.find("i3d", "rgb")
    net, shape = backbone.load(), (1, 3, CONFIG.length, CONFIG.crop, CONFIG.crop)
    names, inputs = chosen(groups(given.truth, given.corpus), given.corpus)
    print(f"{len(inputs)} snippets", flush=True)
    theirs = quantised(ov, graph.build(net, shape), inputs)
    found = ranges(theirs)
    ours = graph.build(net, shape, found)
    for precision in ("f32", "bf16"):
        options = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
        a, b = (ov.Core().compile_model(model, "CPU", options)(inputs[0])[0] for model in (theirs, ours))
        assert a.tobytes() == b.tobytes(), (precision, np.abs(a - b).max())
    made = {
        "weights": backbone.weights,
        "ranges": found,
        "snippets": names,
        "versions": {name: version(name) for name in ("nncf", "openvino")},
    }
    data = (json.dumps(made, indent=1) + "\n").encode()
    write_atomically(given.out, data)
    print(f"{given.out}: {len(found)} inputs of int8 layers; its SHA-256, for engines.py: {sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
