"""Does `run --streams rgb` name the sport? The best segment of every clip, counted by class.

    python benchmarks/named_clips.py [--corpus DIR] [--json FILE]

Clips: all of TennisRally, TennisStroke, BaseballPitch, GolfSwing and Basketball, the first 30 of IceHockeyPlay;
and, for false alarms, all of Street. Features come from the cache once they have been extracted.
"""

import argparse
import csv
import json
import os
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.api import Pipeline

# Which labels of a best segment count for which folder: any Kinetics class of that sport.
COUNTS = {
    "TennisRally": {"playing tennis"},
    "TennisStroke": {"playing tennis"},
    "BaseballPitch": {"hitting baseball", "catching or throwing baseball", "catching or throwing softball"},
    "GolfSwing": {"golf chipping", "golf driving", "golf putting"},
    "Basketball": {
        "playing basketball",
        "shooting basketball",
        "dribbling basketball",
        "dunking basketball",
    },
    "IceHockeyPlay": {"playing ice hockey", "hockey stop"},
}
MOST = {"IceHockeyPlay": 30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("JCDNET_CORPUS", "../shared/corpus")
    parser.add_argument("--corpus", type=Path, default=Path(default))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with (arguments.corpus / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    pipeline = Pipeline.load()
    table: dict[str, dict[str, float]] = {}
    for label in (*COUNTS, "Street"):
        clips = [arguments.corpus / row["path"] for row in rows if row["label"] == label][: MOST.get(label)]
        best: Counter[str] = Counter()
        seconds = 0.0
        for clip in clips:
            result = pipeline(clip)
            seconds += result.duration
            best[result.best.label if result.best else "nothing"] += 1
        others = ", ".join(f"{name} {n}" for name, n in best.most_common(4))
        wanted = COUNTS.get(label, {"nothing"})
        right = sum(n for name, n in best.items() if name in wanted)
        table[label] = {"clips": len(clips), "right": right, "seconds": round(seconds, 1)}
        print(f"{label:14} {right:3} of {len(clips):3}  {100 * right / len(clips):5.1f} %   {others}")
    named = [table[label] for label in COUNTS]
    right, clips_n = sum(row["right"] for row in named), sum(row["clips"] for row in named)
    print(f"{'all six':14} {right:3.0f} of {clips_n:3.0f}  {100 * right / clips_n:5.1f} %")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
