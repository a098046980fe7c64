"""ActivityNet's `results`, which `evaluate` and many research scripts read."""

import json
from typing import TextIO

from postprocess.segment import Result, Segment


def ranking_score(result: Result, segment: Segment) -> float:
    """The score that ranks a segment: ψ, or the confidence if the rule was `runs`.

    `run` shows the confidence to people. ψ compares proposals from one actionness, but not runs of several classes.
    """
    localize = result.provenance.get("localize")
    by_confidence = isinstance(localize, dict) and localize.get("rule") == "runs"
    return segment.confidence if by_confidence else segment.score


def write_activitynet(result: Result, out: TextIO) -> None:
    """Write the segments of one video, best first: times to the millisecond, the ranking score to 4 decimals."""
    found = [
        {
            "label": s.label,
            "score": round(float(ranking_score(result, s)), 4) + 0.0,
            "segment": [round(float(s.start), 3), round(float(s.end), 3)],
        }
        for s in sorted(result.segments, key=lambda s: -ranking_score(result, s))
    ]
    document = {"version": "jcdnet, schema 1", "results": {result.video: found}, "external_data": {}}
    # ASCII, because a file name that is not UTF-8 has lone surrogates in Python, and UTF-8 streams refuse these.
    out.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
