"""Proposed labels: what most of the time speaks for comes first, and `train` reads the CSV as it is."""

from pathlib import Path

import pytest

from pipeline.run.outcome import Outcome
from pipeline.run.videos import Job
from pipeline.training.labels import load_labels
from pipeline.training.propose import Proposal, propose, rank, write
from postprocess.segment import Result, Segment


def segment(start: float, end: float, label: str, confidence: float = 0.5) -> Segment:
    return Segment(start, end, 1.0, confidence, label)


def test_the_label_with_most_confident_time_comes_first():
    found = rank([segment(0, 1, "golf", 0.9), segment(2, 6, "tennis", 0.5), segment(7, 9, "tennis", 0.8)])
    assert list(found) == ["tennis", "golf"]
    assert found["tennis"] == pytest.approx((4 * 0.5 + 2 * 0.8) / 6)
    assert rank([]) == {}


def test_the_csv_is_what_train_reads(tmp_path: Path):
    proposals = [
        Proposal("day 1/a.mp4", ("tennis", "golf"), (0.61, 0.9)),
        Proposal('b,"c".mp4'),
        Proposal("broken.mp4", error=ValueError("no")),
    ]
    path = tmp_path / "labels.csv"
    path.write_text(write(proposals))
    rows = load_labels(path)[0]
    assert [(r.video, r.labels) for r in rows] == [("day 1/a.mp4", ("tennis", "golf")), ('b,"c".mp4', ())]


def test_names_are_relative_to_the_folder_and_a_bad_video_is_no_stop(tmp_path: Path, monkeypatch):
    jobs = [Job(tmp_path / "x" / "a.mp4", Path("x/a")), Job(tmp_path / "b.mp4", Path("b"))]
    broken = ValueError("b.mp4: broken")

    def outcomes(pipeline, jobs, on_progress):
        yield Outcome(jobs[0], result=Result("a", 9.0, {}, (segment(0, 1, "golf"),), (), {}))
        yield Outcome(jobs[1], error=broken)

    monkeypatch.setattr("pipeline.training.propose.run_batch", outcomes)
    found = list(propose(None, jobs, tmp_path))
    assert found == [Proposal("x/a.mp4", ("golf",), (0.5,)), Proposal("b.mp4", error=broken)]
