"""Label Studio's JSON: a task with our segments as predictions to correct, and the corrected export read back.

Its timeline counts frames from 1, and both ends of a range belong to it.
"""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qs, quote, unquote, urlparse
from xml.sax.saxutils import quoteattr

from postprocess.exchange.annotated import Annotated, ExchangeError, Span, annotated
from postprocess.exchange.text import encodable, xml_text
from postprocess.exchange.timecode import frames_of, rate_of, read_rate
from postprocess.segment import Result

# Uploads are kept under a name with eight digits in front.
_UPLOAD = re.compile(r"(?<=/)[0-9a-f]{8}-(?=[^/]*$)")
LOCAL = "/data/local-files/?d="  # how Label Studio names files of its document root


def write_labelstudio(result: Result, out: TextIO) -> None:
    """A list of one task to import, `predictions` in it; `meta.config` is the labelling interface that it needs.

    Raises:
        ResultError: the result knows no frame rate.
    """
    rate = rate_of(result)
    found = []
    for index, s in enumerate(sorted(result.segments, key=lambda s: (s.start, s.end)), start=1):
        first, behind = frames_of(s, rate)
        found.append(
            {
                "id": f"segment-{index}",
                "from_name": "actions",
                "to_name": "video",
                "type": "timelinelabels",
                "score": round(float(s.confidence), 4),
                "value": {"ranges": [{"start": first + 1, "end": behind}], "timelinelabels": [encodable(s.label)]},
            }
        )
    path = result.video.encode("utf-8", "surrogateescape")
    task = {
        "data": {
            "video": LOCAL + quote(path.lstrip(b"/"), safe="/"),
            "source": encodable(result.video),
            "fps": float(rate),
            "rate": str(rate),
        },
        "meta": {"config": _interface(sorted({s.label for s in result.segments}))},
        "predictions": [{"model_version": _model(result), "result": found}],
    }
    out.write(json.dumps([task], indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _interface(labels: list[str]) -> str:
    rows = "".join(f"<Label value={quoteattr(xml_text(label))}/>" for label in labels)
    return (
        '<View><Video name="video" value="$video" frameRate="$fps" timelineHeight="120"/>'
        f'<TimelineLabels name="actions" toName="video">{rows}</TimelineLabels></View>'
    )


def _model(result: Result) -> str:
    model = result.provenance.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    return encodable(name) if isinstance(name, str) else "jcdnet"


def read_labelstudio(path: Path) -> list[Annotated]:
    """The submitted annotations of an export in Label Studio's JSON, a video each task.

    Reads `TimelineLabels` (frames) and `Labels` on audio or video (seconds). Of several annotations of a task the one
    updated last counts. A task without one was not reviewed, and is left out.

    Raises:
        ExchangeError: not readable, not such an export, no task reviewed, a frame without a frame rate.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{path}: is not JSON ({error}); export as JSON from Label Studio.") from error
    try:
        found = [_task(task, path) for task in tasks]
    except ExchangeError:
        raise
    except (TypeError, KeyError, AttributeError, IndexError, ValueError, OverflowError) as error:
        raise ExchangeError(
            f"{path}: is not Label Studio's JSON ({type(error).__name__}: {error}); export as JSON, not JSON-MIN."
        ) from error
    if not (reviewed := [video for video in found if video is not None]):
        raise ExchangeError(f"{path}: no task has a submitted annotation; submit them in Label Studio, then export.")
    return reviewed


def _task(task: dict[str, Any], path: Path) -> Annotated | None:
    given = [a for a in task.get("annotations", ()) if not a.get("was_cancelled")]
    if not given:
        return None
    data = task["data"]
    latest = max(enumerate(given), key=lambda pair: (str(pair[1].get("updated_at", "")), pair[0]))[1]
    video = data.get("source") or _video(str(data["video"]))
    where = f"{path}: {video}"
    spans = []
    for region in latest["result"]:
        value = region["value"]
        if region.get("type") == "timelinelabels":
            rate = _rate(data, where)
            times = [(float((r["start"] - 1) / rate), float(r["end"] / rate)) for r in value["ranges"]]
        elif region.get("type") == "labels" and "start" in value:
            times = [(float(value["start"]), float(value["end"]))]
        else:
            continue  # ratings, comments and whatever else the interface asks for
        labels = value.get("timelinelabels") or value.get("labels") or [""]
        spans += [Span(start, end, str(label).strip()) for start, end in times for label in labels]
    return annotated(str(video), spans, where)


def _rate(data: dict[str, Any], where: str) -> Fraction:
    rate = read_rate(data.get("rate") or data.get("fps"))
    if rate is None:
        raise ExchangeError(f"{where}: counts frames but says no rate; give the task `fps`, as in the file we write.")
    return rate


def _video(address: str) -> str:
    """The file behind Label Studio's address of it."""
    parts = urlparse(address)
    if local := parse_qs(parts.query).get("d"):
        return local[0]
    path = unquote(parts.path)
    return _UPLOAD.sub("", path) if path.startswith("/data/upload/") else path
