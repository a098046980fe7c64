"""Labels per video, proposed by the embedded model: a CSV to correct before `train`, instead of an empty one."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.api import Pipeline
from pipeline.run.batch import run_batch
from pipeline.run.videos import Job, path_of
from postprocess.segment import Segment
from support.progress import Progress, silent

COLUMNS = ("video", "labels", "confidence")


@dataclass(frozen=True)
class Proposal:
    """A video as the CSV will name it, with its labels and confidences in [0, 1], likeliest first; or with an error."""

    video: str
    labels: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()
    error: Exception | None = None


def propose(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    folder: str | Path,
    on_progress: Callable[[Job], Progress] = lambda job: silent,
) -> Iterator[Proposal]:
    """Propose labels for each video, and yield each proposal when it is ready.

    A video that cannot be read gets an error; the others continue.

    Args:
        pipeline: the model to propose with.
        jobs: the videos.
        folder: the folder that `train --videos` will get, or its address; the CSV names videos relative to it.
        on_progress: called for each video, returns its progress callable.
    """
    for outcome in run_batch(pipeline, jobs, on_progress=on_progress):
        video, top = path_of(outcome.job.video), path_of(folder)
        name = (video.relative_to(top) if video.is_relative_to(top) else video).as_posix()
        if outcome.result is None:
            # The traceback would keep 32 MiB of decoder memory for each video while the list lives.
            yield Proposal(name, error=outcome.error and outcome.error.with_traceback(None))
            continue
        ranked = rank(outcome.result.segments)
        yield Proposal(name, tuple(ranked), tuple(ranked.values()))


def rank(segments: Sequence[Segment]) -> dict[str, float]:
    """Label → mean confidence over the time that it is drawn, ordered by confidence × time."""
    seconds: dict[str, float] = defaultdict(float)
    weight: dict[str, float] = defaultdict(float)
    for s in segments:
        seconds[s.label] += s.end - s.start
        weight[s.label] += s.confidence * (s.end - s.start)
    order = sorted(weight, key=lambda label: (-weight[label], label))
    return {label: weight[label] / seconds[label] for label in order}


def write(proposals: Sequence[Proposal]) -> str:
    """The CSV, without the videos that failed. A row without labels stands for a video without action."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p in proposals:
        if p.error is None:
            writer.writerow([p.video, "|".join(p.labels), "|".join(f"{c:.2f}" for c in p.confidence)])
    return text.getvalue()
