"""`clips`: segments cut out of their videos."""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.groups import grouped
from commands.options import Results, Videos, a_place, a_time
from commands.places import folder_only
from commands.terminal import complain, err, failure, note, progress
from support.errors import UsageError
from support.paths import called

if TYPE_CHECKING:
    from pipeline.clips.cut import Cut


@grouped
def clips(
    results: Results,
    output: Annotated[
        Path,
        a_place("Folder (or its URL) for the clips.", "--out", "-o"),
    ] = Path("clips"),
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy from keyframe to keyframe: quick and lossless, but not exact.")
    ] = False,
    reel: Annotated[
        bool, typer.Option("--reel", help="One highlight reel per class instead of a file a clip.")
    ] = False,
    before: Annotated[float, a_time("Seconds to begin earlier.")] = 0.0,
    after: Annotated[float, a_time("Seconds to end later.")] = 0.0,
    pad: Annotated[float, a_time("Seconds on both sides: --before and --after in one.")] = 0.0,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out less sure segments.")] = 0.0,
    classes: Annotated[
        str | None, typer.Option(help="Names or sports, joined by commas.", show_default="all that was found")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="Of reels: WIDTHxHEIGHT, such as 1280x720.", show_default="the most common one"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Template of file names: {stem} {index} {name} {label} {sport} {start} {end} {confidence} {clock}; "
            "/ makes folders.",
            show_default="{stem}_{index:03d}_{name}",
        ),
    ] = None,
    videos: Videos = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace clips that are there.")] = False,
) -> None:
    """Cut the segments of results out of their videos."""
    folder_only(output, "clips are files of their own", "clips")
    if reel and copy:
        raise UsageError("--reel joins clips, which needs exact ones; leave --copy out.")
    if reel and name is not None:
        raise UsageError("--name is for single clips; a reel is called as its class.")
    if size is not None and not reel:
        raise UsageError("--size is for reels; a clip has the size of its video.")

    from extractors.decode.video import VideoError
    from pipeline.clips import cut as work
    from pipeline.clips.choose import labels_meant
    from pipeline.clips.names import NAME
    from pipeline.run.results import read_results, stems, video_of

    frame = None if size is None else work.size_of(size)
    before, after = before + pad, after + pad
    cuts: list[work.Cut] = []
    unread: list[Exception] = []  # results and videos of which nothing can be cut
    read = read_results(results, on_error=unread.append)
    wanted = None if classes is None else labels_meant(classes, [one.result for one in read])
    for stored, stem in stems(read):
        chosen = [
            s
            for s in stored.result.segments
            if s.confidence >= min_confidence and (wanted is None or s.label in wanted)
        ]
        if chosen:
            try:
                video = video_of(stored, videos)
            except VideoError as error:
                unread.append(error)
                continue
            cuts += work.plan(video, stem, chosen, stored.result.duration, before, after, name or NAME)
    work.check_names(cuts, output, reel=reel, copied=copy, overwrite=overwrite)
    if not cuts and not unread:
        note("nothing to cut: no segment is left.")
    failed: list[tuple[work.Cut, Exception]] = []
    with progress() as bars:
        make = functools.partial(work.reels, size=frame) if reel else work.copy if copy else work.cut
        made = list(make(cuts, output, bars.video(output), on_error=lambda one, error: failed.append((one, error))))
    for one in made:
        print(called(str(one.path)))
    _summarize(cuts, unread, failed, copy)


def _summarize(
    cuts: "Sequence[Cut]", unread: Sequence[Exception], failed: "Sequence[tuple[Cut, Exception]]", copied: bool
) -> None:
    """Say what was left out and how many clips there are; exit with the code of a failure where there was one."""
    from extractors.decode.video import VideoError

    for lacking in unread:
        complain(lacking)
    for said, lost in Counter(str(error) for _, error in failed).items():  # a video fails in all its clips alike
        complain(VideoError(f"{said} ({lost} clip{'s' if lost > 1 else ''} left out)"))
    left = {id(cut) for cut, _ in failed}
    done = [cut for cut in cuts if id(cut) not in left]
    if copied and done:
        note("copied clips begin at the keyframe before their segment.")
    if cuts:
        count = len({cut.video for cut in done})
        lost_too = f", {len(failed)} left out" if failed else ""
        err.print(f"[dim]{len(done)} clip{'s' if len(done) != 1 else ''} of {count} video"
                  f"{'s' if count != 1 else ''}{lost_too}[/]")  # fmt: skip
    if unread or failed:
        raise typer.Exit(failure([*unread, *(error for _, error in failed)]))
