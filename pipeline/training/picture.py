"""The picture of a check on held-out videos, which stands beside quality.json."""

from pipeline.training.crossval import Quality
from postprocess.pages import qualityplot
from postprocess.pages.qualityplot import Bar, Track

FILE_NAME = "quality.png"


def picture(quality: Quality) -> bytes:
    """Draw a check as a PNG: actions found, missed and false, and some videos; without times, videos by label."""
    times = quality.times
    if times is None:
        bars = [Bar(c.label, c.videos, c.found, c.wrongly) for c in quality.classes]
        return qualityplot.quality(
            bars, "videos that the model had not seen", f"exactly right in {quality.right} of {quality.videos} videos"
        )
    bars = [Bar(c.label, c.marked, c.found, c.false) for c in times.classes]
    # The fullest videos say most.
    order = sorted(times.videos, key=lambda v: (-len(v.marked), v.video))
    tracks = [Track(v.video, v.duration, v.marked, v.drawn) for v in order]
    return qualityplot.quality(
        bars, "actions in videos that the model had not seen", times.sentence(), times.confusion, tracks
    )
