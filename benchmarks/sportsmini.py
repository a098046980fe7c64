"""SportsMini: untrimmed sports videos cut together from labelled clips at known times, to train and to score on.

    python benchmarks/sportsmini.py DIR [--corpus DIR] [--train 60] [--test 40] [--short]

60 training and 40 test videos of about 40 s, 256x256, 25 fps. Each shows one of four actions (every fourth video two)
in stretches of 3 to 8 s made of whole clips of one action, between stretches of 3 to 8 s of other footage. Training and
test videos share no clip; a clip may recur within its half. Nothing here was tuned on a result. With --short an action
is the middle .5 to .95 s of one clip: shorter than a second, and than two snippets.

Writes DIR/train/*.mp4, DIR/test/*.mp4, DIR/labels.csv (`video,labels,split`: what `train` takes),
DIR/ground_truth.json (what `evaluate` takes) and DIR/clips.json (which clip is shown when: the bootstrap draws clips).
The same corpus and seed give the same frames.
"""

import argparse
import csv
import io
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from extractors.decode.grid import Frames
from model.checkpoint import write_atomically

ACTIONS = ("IceHockeyFight", "Kickflip", "Ollie", "BaseballPitch")
BACKGROUND = ("IceHockeyPlay", "Street", "Exercise", "Basketball", "Volleyball", "Badminton", "Weightlifting")
FPS, SIZE = 25, 256
VIDEO_SECONDS = 36.0  # at least; the last stretch goes on beyond it, so that the mean is about 40
STRETCH_SECONDS = (3.0, 8.0)
SHORT_SECONDS = (0.5, 0.95)
SEED = 20


@dataclass(frozen=True)
class Piece:
    """A clip's frames from `first` on, `frames` of them; label "" is background."""

    clip: str
    label: str
    first: int
    frames: int


class Half:
    """The clips of one half, handed out in shuffled rounds, so that each is used before one recurs."""

    def __init__(self, lengths: dict[str, dict[str, int]], rng: np.random.Generator, short: bool) -> None:
        self.lengths, self.rng, self.short = lengths, rng, short
        self._rounds: dict[str, list[str]] = defaultdict(list)
        seconds = np.array([sum(lengths[label].values()) for label in BACKGROUND], dtype=float)
        # Between "every clip alike" (ice hockey everywhere) and "every sport alike" (two clips everywhere).
        self._shares = np.sqrt(seconds) / np.sqrt(seconds).sum()

    def _next(self, label: str) -> str:
        if not self._rounds[label]:
            self._rounds[label] = [str(name) for name in self.rng.permutation(sorted(self.lengths[label]))]
        return self._rounds[label].pop()

    def action(self, label: str) -> Iterator[Piece]:
        """Whole clips of an action, until the stretch is long enough; or the middle of one."""
        if self.short:
            clip = self._next(label)
            length = self.lengths[label][clip]
            frames = min(round(self.rng.uniform(*SHORT_SECONDS) * FPS), length)
            yield Piece(clip, label, (length - frames) // 2, frames)
            return
        left = self.rng.uniform(*STRETCH_SECONDS) * FPS
        while left > 0:
            clip = self._next(label)
            yield Piece(clip, label, 0, self.lengths[label][clip])
            left -= self.lengths[label][clip]

    def background(self) -> Iterator[Piece]:
        """Other footage; of a long clip a part."""
        left = round(self.rng.uniform(*STRETCH_SECONDS) * FPS)
        while left > 0:
            label = BACKGROUND[self.rng.choice(len(BACKGROUND), p=self._shares)]
            clip = self._next(label)
            length = self.lengths[label][clip]
            frames = min(length, left)
            yield Piece(clip, "", int(self.rng.integers(length - frames + 1)), frames)
            left -= frames

    def video(self, actions: list[str]) -> list[Piece]:
        """Background and actions in turn, background first and last; each of `actions` at least once."""
        pieces = list(self.background())
        waiting = list(actions)
        while waiting or sum(p.frames for p in pieces) < VIDEO_SECONDS * FPS:
            pieces += self.action(waiting.pop() if waiting else str(self.rng.choice(actions)))
            pieces += self.background()
        return pieces


def plan(
    lengths: dict[str, dict[str, int]], counts: dict[str, int], short: bool = False
) -> dict[str, dict[str, list[Piece]]]:
    """Half → video name → its pieces. `lengths`: label → clip → frames."""
    rng = np.random.default_rng(SEED)
    halves: dict[str, dict[str, dict[str, int]]] = {half: {} for half in counts}
    share = counts["train"] / sum(counts.values())
    for label in (*ACTIONS, *BACKGROUND):
        clips = [str(name) for name in rng.permutation(sorted(lengths[label]))]
        cut = min(max(1, round(share * len(clips))), len(clips) - 1)
        for half, names in (("train", clips[:cut]), ("test", clips[cut:])):
            halves[half][label] = {name: lengths[label][name] for name in names}
    videos: dict[str, dict[str, list[Piece]]] = {}
    for half, count in counts.items():
        source = Half(halves[half], rng, short)
        videos[half] = {}
        for n in range(count):
            videos[half][f"{half}_{n:03}"] = source.video(actions_of(n, rng))
    return videos


def actions_of(n: int, rng: np.random.Generator) -> list[str]:
    """What the n-th video of a half shows: the actions in turn, and in one of each four videos a second one."""
    actions = [ACTIONS[n % len(ACTIONS)]]
    if n % 4 == n // 4 % 4:  # of each action in turn
        actions.append(str(rng.choice([a for a in ACTIONS if a not in actions])))
    return actions


def pictures(clip: Path) -> list[np.ndarray]:
    """All frames of a clip at 25 fps, the middle square of short side 256."""
    with Frames(clip, FPS, SIZE) as frames:
        found = []
        for _, image in frames.grid():
            top, left = (image.shape[0] - SIZE) // 2, (image.shape[1] - SIZE) // 2
            found.append(np.ascontiguousarray(image[top : top + SIZE, left : left + SIZE]))
    return found


def clip_lengths(corpus: Path, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Label → clip → frames: what is decoded counts, not what the manifest says."""
    with (corpus / "manifest.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["label"] in labels]
    lengths: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        lengths[row["label"]][row["path"]] = len(pictures(corpus / row["path"]))
    return lengths


def encode(pieces: list[Piece], corpus: Path, path: Path) -> None:
    """Write the video."""
    partial = path.with_name(f".{path.name}.tmp.mp4")
    with av.open(str(partial), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
        for piece in pieces:
            for image in pictures(corpus / piece.clip)[piece.first : piece.first + piece.frames]:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    partial.replace(path)


def spans(pieces: list[Piece]) -> list[tuple[float, float, Piece]]:
    """Seconds of each piece."""
    ends = np.cumsum([p.frames for p in pieces])
    return [((e - p.frames) / FPS, e / FPS, p) for e, p in zip(ends.tolist(), pieces, strict=True)]


def clip_spans(pieces: list[Piece]) -> list[tuple[float, float, str]]:
    """Which clip is shown when, in seconds."""
    return [(start, end, piece.clip) for start, end, piece in spans(pieces)]


def instances(pieces: list[Piece]) -> list[dict[str, object]]:
    """Neighbouring pieces of one action are one instance."""
    found: list[dict[str, object]] = []
    previous = ""
    for start, end, piece in spans(pieces):
        if piece.label and piece.label == previous:
            found[-1]["segment"] = [found[-1]["segment"][0], end]  # type: ignore[index]
        elif piece.label:
            found.append({"label": piece.label, "segment": [start, end]})
        previous = piece.label
    return found


def describe(videos: dict[str, dict[str, list[Piece]]], folder: Path) -> None:
    """labels.csv, ground_truth.json and clips.json."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["video", "labels", "split"])
    database, shown = {}, {}
    for half, items in videos.items():
        for name, pieces in items.items():
            found = instances(pieces)
            writer.writerow([f"{half}/{name}.mp4", "|".join(sorted({str(a["label"]) for a in found})), half])
            length = sum(p.frames for p in pieces) / FPS
            database[name] = {"subset": half, "duration": length, "complete": True, "annotations": found}
            shown[name] = clip_spans(pieces)
    write_atomically(folder / "labels.csv", text.getvalue().encode())
    write_atomically(folder / "ground_truth.json", json.dumps({"database": database}, indent=1).encode())
    write_atomically(folder / "clips.json", json.dumps(shown).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    parser.add_argument("--train", type=int, default=60)
    parser.add_argument("--test", type=int, default=40)
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    lengths = clip_lengths(arguments.corpus, (*ACTIONS, *BACKGROUND))
    videos = plan(lengths, {"train": arguments.train, "test": arguments.test}, arguments.short)
    for half, items in videos.items():
        (arguments.folder / half).mkdir(parents=True, exist_ok=True)
        for name, pieces in items.items():
            encode(pieces, arguments.corpus, arguments.folder / half / f"{name}.mp4")
            print(f"{half}/{name}.mp4", flush=True)
    describe(videos, arguments.folder)


if __name__ == "__main__":
    main()
