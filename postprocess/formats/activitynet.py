"""ActivityNet's `results`, which `evaluate` and the scripts of the field read."""

import json
from typing import TextIO

from postprocess.segment import Result, Segment


def ranking_score(result: Result, segment: Segment) -> float:
    """What segments are ranked by: ψ, and confidence where the rule was `runs`.

    The confidence is what `run` shows people, and ψ compares proposals of one actionness, not runs of several classes.
    """
    localize = result.provenance.get("localize")
    by_confidence = isinstance(localize, dict) and localize.get("rule") == "runs"
    return segment.confidence if by_confidence else segment.score


def write_activitynet(result: Result, out: TextIO) -> None:
    """One video's results: seconds to the millisecond, the score that ranks them to 4 decimals, best first."""
    found = [
        {
            "label": s.label,
            "score": round(float(ranking_score(result, s)), 4) + 0.0,
            "segment": [round(float(s.start), 3), round(float(s.end), 3)],
        }
        for s in sorted(result.segments, key=lambda s: -ranking_score(result, s))
    ]
    document = {"version": "jcdnet, schema 1", "results": {result.video: found}, "external_data": {}}
    # ASCII: a file name that is not UTF-8 reaches Python as lone surrogates, which no UTF-8 stream takes.
    out.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
