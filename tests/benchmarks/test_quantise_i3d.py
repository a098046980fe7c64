"""The shipped ranges of the int8 network: made of the layers that the program names, on no clip that is scored."""

import csv
import json
from pathlib import Path

import numpy as np

from benchmarks.named_sports import BACKGROUND, SEED, SPORTS, split
from benchmarks.quantise_i3d import QUANTISED, SNIPPETS, groups
from extractors.backbones.engines import RANGES
from extractors.backbones.i3d import InceptionI3d, Unit3d

MADE = json.loads(RANGES.read_text())


def test_the_layers_are_those_of_the_program() -> None:
    assert list(MADE["ranges"]) == list(QUANTISED)
    units = {name for name, module in InceptionI3d().named_modules() if isinstance(module, Unit3d)}
    int8 = [unit for units_of in QUANTISED.values() for unit in units_of]
    assert len(units) == 57 and len(int8) == len(set(int8)) == 25 and set(int8) < units
    # Behind a concatenation nothing of one pixel's width is in int8.
    assert not [name for name in int8 if name.endswith(("b0", "b1a", "b2a", "b3b")) and not name.startswith("Mixed_3b")]


def test_no_clip_of_the_scored_half_was_used(corpus: Path, tmp_path: Path) -> None:
    with (corpus / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in (*SPORTS, BACKGROUND)]
    lengths = {label: {row["path"]: 1 for row in rows if row["label"] == label} for label in (*SPORTS, BACKGROUND)}
    halves = split(lengths, np.random.default_rng(SEED))
    used = {name.rpartition(" ")[0] for name in MADE["snippets"]}
    scored = {clip for clips in halves["score"].values() for clip in clips}
    assert not used & scored
    (tmp_path / "clips.json").write_text(json.dumps(halves))
    offered = groups(tmp_path, corpus)
    assert used <= {clip for clips in offered.values() for clip in clips}
    assert 90 <= len(MADE["snippets"]) <= SNIPPETS * len(offered)
