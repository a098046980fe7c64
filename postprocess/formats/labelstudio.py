"""Label Studio's JSON: writes a task with our segments as predictions to correct, and reads the corrected export.

Label Studio's timeline counts frames from 1, and a range includes both its ends.
"""

import json
import math
import os
import re
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qs, quote, unquote, urlparse
from xml.sax.saxutils import quoteattr

from postprocess.formats.annotated import Annotated, ExchangeError, Span, annotated
from postprocess.formats.text import encodable, one_line, xml_text
from postprocess.formats.timecode import frames_of, rate_of, read_rate
from postprocess.segment import Result, ResultError

# Label Studio stores uploads under a name with eight digits in front.
_UPLOAD = re.compile(r"(?<=/)[0-9a-f]{8}-(?=[^/]*$)")
LOCAL = "/data/local-files/?d="  # begins the address of a file in Label Studio's document root


def write_labelstudio(result: Result, out: TextIO) -> None:
    """Write a list with one task, which holds our segments as `predictions`.

    `meta.config` is the labelling interface that the task needs. Label Studio serves local files from below its
    document root (LOCAL_FILES_DOCUMENT_ROOT); the address of the video is its path below `media.document_root`, which
    exports add, or else the path of the result as it is.

    Raises:
        ResultError: the result has no frame rate, or the video is not below the document root.
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
    path = _served(result).encode("utf-8", "surrogateescape")
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


def _served(result: Result) -> str:
    """The path of the video below Label Studio's document root, without `..`."""
    root = result.media.get("document_root")
    if isinstance(root, str):
        video, below = os.path.abspath(result.video), os.path.abspath(root)  # noqa: PTH100  abspath follows no links
        if not video.startswith(below.rstrip("/") + "/"):
            raise ResultError(
                f"{result.video}: is not below the document root {root}; name the folder that Label Studio has as "
                "LOCAL_FILES_DOCUMENT_ROOT, and keep the videos in it."
            )
        return os.path.relpath(video, below)
    path = os.path.normpath(result.video)
    return os.path.abspath(path) if path.startswith("..") else path  # noqa: PTH100


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
    """Read the submitted annotations of an export in Label Studio's JSON; each task is a video.

    This reads `TimelineLabels` (frames) and `Labels` on audio or video (seconds). If a task has several annotations,
    the one that was updated last counts. A task without an annotation was not reviewed and is left out.

    Raises:
        ExchangeError: the file cannot be read or is not such an export, no task was reviewed, or a task counts frames
            but has no frame rate.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ExchangeError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, RecursionError) as error:
        raise ExchangeError(f"{path}: is not JSON ({error}); export as JSON from Label Studio.") from error
    if isinstance(tasks, dict) and "data" in tasks and "annotations" in tasks:
        tasks = [tasks]  # the API returns a single task like this
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ExchangeError(
            f"{path}: is JSON, but not an export of Label Studio, which is a list of tasks, "
            f"and this is {_kind(tasks)}; export as JSON from Label Studio."
        )
    if tasks and not any("data" in task for task in tasks):
        if any(_is_minimal(task) for task in tasks):
            raise ExchangeError(f"{path}: is Label Studio's JSON-MIN export, which leaves things out; export as JSON.")
        raise ExchangeError(
            f"{path}: is JSON, but not an export of Label Studio, whose tasks have `data`, and these have "
            f"{_keys(tasks[0])}; export as JSON from Label Studio."
        )
    found = [_task(task, f"{path}, task {i}") for i, task in enumerate(tasks, start=1)]
    if not (reviewed := [video for video in found if video is not None]):
        if any(task.get("predictions") for task in tasks):
            raise ExchangeError(
                f"{path}: holds a program's predictions alone, and nobody's annotations; import the file into Label "
                "Studio, check and submit the tasks, and export them."
            )
        raise ExchangeError(f"{path}: no task has a submitted annotation; submit them in Label Studio, then export.")
    return reviewed


def _is_minimal(task: dict[str, Any]) -> bool:
    """Whether a task has the form of JSON-MIN: regions under the name of their control, not under `annotations`."""
    lists = (value for key, value in task.items() if isinstance(value, list) and key != "annotations")
    drawn = any(isinstance(r, dict) and {"timelinelabels", "labels"} & r.keys() for regions in lists for r in regions)
    return drawn or {"annotation_id", "annotator", "lead_time"} <= task.keys()


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {_keys(value)}"
    if isinstance(value, list):
        return "a list of something else"
    return "a text" if isinstance(value, str) else "a number" if isinstance(value, int | float) else repr(value)


def _keys(entry: dict[str, Any]) -> str:
    names = [one_line(key)[:30] for key in entry][:5]
    return ", ".join(names) + (" and more" if len(entry) > 5 else "") or "nothing"


def _task(task: dict[str, Any], where: str) -> Annotated | None:
    annotations = _get(task, "annotations", list, where) if task.get("annotations") is not None else []
    if not all(isinstance(a, dict) for a in annotations):  # an export of many tasks may hold only their numbers
        raise ExchangeError(f"{where}: its annotations are not in the file; export as JSON from Label Studio.")
    given = [a for a in annotations if not a.get("was_cancelled")]
    if not given:
        return None
    data = _get(task, "data", dict, where)
    latest = max(enumerate(given), key=lambda pair: (str(pair[1].get("updated_at", "")), pair[0]))[1]
    video = data.get("source") or _video(_get(data, "video", str, where))
    if not isinstance(video, str):
        raise ExchangeError(f"{where}: its `source` is not text; export as JSON from Label Studio.")
    spans = []
    for region in _get(latest, "result", list, where):
        if not isinstance(region, dict):
            raise ExchangeError(f"{where}: a region is not an object; export as JSON from Label Studio.")
        kind = _get(region, "type", str, where)
        if kind == "timelinelabels":
            value = _get(region, "value", dict, where)
            rate = _rate(data, where)
            ranges = _get(value, "ranges", list, where)
            frames = [(_number(r, "start", where), _number(r, "end", where)) for r in ranges]
            times = [(float((first - 1) / rate), float(last / rate)) for first, last in frames]
        elif kind == "labels" and "start" in _get(region, "value", dict, where):
            value = region["value"]
            times = [(float(_number(value, "start", where)), float(_number(value, "end", where)))]
        else:
            continue  # ratings, comments and other inputs of the interface
        labels = value.get("timelinelabels") or value.get("labels") or [""]
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ExchangeError(f"{where}: its labels are not a list of texts; export as JSON from Label Studio.")
        spans += [Span(start, end, label.strip()) for start, end in times for label in labels]
    return annotated(video, spans, f"{where}, {video}")


def _get(entry: dict[str, Any], key: str, kind: type, where: str) -> Any:
    if not isinstance(value := entry.get(key), kind):
        names: dict[type, str] = {dict: "object", list: "list", str: "text"}
        raise ExchangeError(f"{where}: has no {names[kind]} {key!r}; export as JSON from Label Studio.")
    return value


def _number(entry: object, key: str, where: str) -> Fraction:
    """A finite number; a text that holds one is accepted."""
    value = entry.get(key) if isinstance(entry, dict) else None
    try:
        if not isinstance(value, bool) and math.isfinite(number := float(value)):  # type: ignore[arg-type]
            return Fraction(number)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ExchangeError(f"{where}: the {key} of a region must be a number, not {str(value)[:40]!r}; export again.")


def _rate(data: dict[str, Any], where: str) -> Fraction:
    rate = read_rate(data.get("rate") or data.get("fps"))
    if rate is None:
        raise ExchangeError(f"{where}: counts frames but says no rate; give the task `fps`, as in the file we write.")
    return rate


def _video(address: str) -> str:
    """The file that an address of Label Studio stands for."""
    parts = urlparse(address)
    if local := parse_qs(parts.query).get("d"):
        return local[0]
    path = unquote(parts.path)
    return _UPLOAD.sub("", path) if path.startswith("/data/upload/") else path
