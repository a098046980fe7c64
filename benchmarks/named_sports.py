"""named_sports: untrimmed videos of named sports between streets, to fit the embedded model on and to score it on.

    python benchmarks/named_sports.py DIR [--corpus DIR]

Videos of 60 to 120 s, 256x256, 25 fps, cut together from labelled clips at known times: instances of seven sports, 3 to
8 s long, with 3 to 8 s of street footage around each. Half of the clips of a sport go into DIR/fit, the other half into
DIR/score; a sport of fewer than four clips is in `score` alone. A clip of a sport is shown once, one of a street recurs
within its half. Clips shorter than 3 s are joined until they last that long; of a long one each 8 s are an instance of
their own. At most 12 instances a sport and half, so that the sports with many clips do not drown the others.

An instance is labelled by its sport, as model/kinetics_sports.toml calls it; that table says which names count.

Writes DIR/fit/*.mp4, DIR/score/*.mp4, DIR/ground_truth.json (what `evaluate` takes), DIR/clips.json (the clips of each
half, by sport) and DIR/pieces.json (which clip is shown when: of each video [start, end, clip] in seconds). The same
corpus gives the same frames. Nothing here was tuned on a result.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.sportsmini import FPS, Piece, clip_lengths, clip_spans, encode, instances
from model.checkpoint import write_atomically

# Folder of the corpus -> sport. Volleyball is not among them: its two clips show people who walk in a park.
SPORTS = {
    "GolfSwing": "golf",
    "TennisRally": "tennis",
    "TennisStroke": "tennis",
    "BaseballPitch": "baseball",
    "IceHockeyPlay": "ice hockey",
    "Basketball": "basketball",
    "Weightlifting": "weightlifting",
    "Badminton": "badminton",
}
BACKGROUND = "Street"
HALVES = ("fit", "score")
LEAST_CLIPS = 4  # of a sport that is in both halves
INSTANCE_SECONDS = (3.0, 8.0)
MOST_INSTANCES = 12  # of a sport in a half
VIDEO_INSTANCES = 7  # about 75 s
SEED = 21

Clips = dict[str, dict[str, list[str]]]  # half → sport (or BACKGROUND) → clips, in the order in which they are shown
Videos = dict[str, dict[str, list[Piece]]]  # half → video → its pieces


def stored(folder: Path) -> dict[str, Path]:
    """The features files of a folder by their stems; `extract` makes a folder of its own for each folder of videos."""
    return {path.stem: path for path in sorted(folder.rglob("*.npz"))}


def split(lengths: dict[str, dict[str, int]], rng: np.random.Generator) -> Clips:
    """Half of the clips of each sport to each half."""
    clips: dict[str, list[str]] = defaultdict(list)
    for folder, names in lengths.items():
        clips[SPORTS.get(folder, folder)] += sorted(names)
    halves: Clips = {half: {} for half in HALVES}
    for sport, names in sorted(clips.items()):
        shuffled = [str(name) for name in rng.permutation(names)]
        cut = len(shuffled) // 2 if len(shuffled) >= LEAST_CLIPS else 0
        halves["fit"][sport], halves["score"][sport] = shuffled[:cut], shuffled[cut:]
    return halves


def cut_instances(sport: str, clips: list[str], frames: dict[str, int]) -> list[list[Piece]]:
    """Pieces of each instance. What is left at the end and shorter than 3 s is joined to the instance before."""
    least, most = (round(seconds * FPS) for seconds in INSTANCE_SECONDS)
    found: list[list[Piece]] = [[]]
    for clip in clips:
        for first in range(0, frames[clip], most):
            if sum(p.frames for p in found[-1]) >= least:
                found.append([])
            found[-1].append(Piece(clip, sport, first, min(most, frames[clip] - first)))
    if len(found) > 1 and sum(p.frames for p in found[-1]) < least:
        rest = found.pop()
        found[-1] += rest
    return [pieces for pieces in found if pieces][:MOST_INSTANCES]


def plan(lengths: dict[str, dict[str, int]]) -> tuple[Videos, Clips]:
    """The videos of each half, and the clips that it is made of. `lengths`: folder → clip → frames."""
    rng = np.random.default_rng(SEED)
    frames = {clip: n for names in lengths.values() for clip, n in names.items()}
    halves = split(lengths, rng)
    videos: Videos = {}
    for half, clips in halves.items():
        shown = [i for sport in sorted(set(SPORTS.values())) for i in cut_instances(sport, clips[sport], frames)]
        order = rng.permutation(len(shown))
        count = max(1, round(len(shown) / VIDEO_INSTANCES))
        street = _Streets(clips[BACKGROUND], frames, rng)
        videos[half] = {}
        for n, numbers in enumerate(np.array_split(order, count)):
            pieces = street.stretch()
            for i in numbers:
                pieces += shown[i] + street.stretch()
            videos[half][f"{half}_{n:02}"] = pieces
    return videos, halves


class _Streets:
    """Street clips in shuffled rounds."""

    def __init__(self, clips: list[str], frames: dict[str, int], rng: np.random.Generator) -> None:
        self.clips, self.frames, self.rng = clips, frames, rng
        self._round: list[str] = []

    def stretch(self) -> list[Piece]:
        left = round(self.rng.uniform(*INSTANCE_SECONDS) * FPS)
        pieces: list[Piece] = []
        while left > 0:
            if not self._round:
                self._round = [str(name) for name in self.rng.permutation(self.clips)]
            clip = self._round.pop()
            pieces.append(Piece(clip, "", 0, min(left, self.frames[clip])))
            left -= pieces[-1].frames
        return pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    videos, halves = plan(clip_lengths(arguments.corpus, (*SPORTS, BACKGROUND)))
    database, shown = {}, {}
    for half, items in videos.items():
        (arguments.folder / half).mkdir(parents=True, exist_ok=True)
        for name, pieces in items.items():
            encode(pieces, arguments.corpus, arguments.folder / half / f"{name}.mp4")
            length = sum(p.frames for p in pieces) / FPS
            database[name] = {"subset": half, "duration": length, "annotations": instances(pieces)}
            shown[name] = clip_spans(pieces)
            print(f"{half}/{name}.mp4", flush=True)
    write_atomically(arguments.folder / "ground_truth.json", json.dumps({"database": database}, indent=1).encode())
    write_atomically(arguments.folder / "pieces.json", json.dumps(shown).encode())
    write_atomically(arguments.folder / "clips.json", json.dumps(halves, indent=1).encode())


if __name__ == "__main__":
    main()
