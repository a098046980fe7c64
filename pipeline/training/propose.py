"""Labels per video, proposed by the embedded model: a CSV to correct, instead of a blank one, before `train`."""

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.api import Pipeline
from pipeline.run.batch import run_batch
from pipeline.run.videos import Job
from postprocess.segment import Segment
from support.progress import Progress, silent

COLUMNS = ("video", "labels", "confidence")


@dataclass(frozen=True)
class Proposal:
    """A video as the CSV will name it, its labels, the likeliest first, with confidences in [0, 1]; or an error."""

    video: str
    labels: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()
    error: Exception | None = None


def propose(
    pipeline: Pipeline,
    jobs: Sequence[Job],
    folder: Path,
    on_progress: Callable[[Job], Progress] = lambda job: silent,
) -> Iterator[Proposal]:
    """A proposal for each video, as it is done; one that cannot be read has an error, and the others go on.

    folder: what `train --videos` will be given; the CSV names videos relative to it.
    """
    for outcome in run_batch(pipeline, jobs, on_progress=on_progress):
        video = outcome.job.video
        name = (video.relative_to(folder) if video.is_relative_to(folder) else video).as_posix()
        if outcome.result is None:
            # Its traceback would keep the decoder's memory, 32 MiB a video, for as long as the list.
            yield Proposal(name, error=outcome.error and outcome.error.with_traceback(None))
            continue
        ranked = rank(outcome.result.segments)
        yield Proposal(name, tuple(ranked), tuple(ranked.values()))


def rank(segments: Sequence[Segment]) -> dict[str, float]:
    """Label -> confidence, the mean over the time that it is drawn; first the label that most of it speaks for."""
    seconds: dict[str, float] = defaultdict(float)
    weight: dict[str, float] = defaultdict(float)
    for s in segments:
        seconds[s.label] += s.end - s.start
        weight[s.label] += s.confidence * (s.end - s.start)
    order = sorted(weight, key=lambda label: (-weight[label], label))
    return {label: weight[label] / seconds[label] for label in order}


def write(proposals: Sequence[Proposal]) -> str:
    """The CSV, without the videos that failed. A row without labels is a video without action."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p in proposals:
        if p.error is None:
            writer.writerow([p.video, "|".join(p.labels), "|".join(f"{c:.2f}" for c in p.confidence)])
    return text.getvalue()
