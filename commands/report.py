"""`report`, `clips` and `plot`: results for people, to look at and to take along."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from commands.output import folder_only, is_file_name
from commands.terminal import complain, err, failure, finish, note, progress
from support.errors import UsageError, cannot_write

Results = Annotated[list[Path], typer.Argument(help="Results of `run -o`: .json files or their folder.")]
Videos = Annotated[
    Path | None, typer.Option(help="Folder with the videos, if they are no longer where `run` found them.")
]


def report(
    results: Results,
    output: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the pages; of one result also an .html file.",
            show_default="beside the results",
        ),
    ] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the video inside the page.")] = False,
    videos: Videos = None,
) -> None:
    """Make pages to look at: the video, its time line, a table; of a folder an index, too."""
    from pipeline.run.results import common_folder, curves_of, read_results, video_of
    from pipeline.run.views import write_page, write_pages

    named = output if output is not None and output.suffix == ".html" and is_file_name(output) else None
    if named is None:
        folder_only(output, "pages are .html files", "pages")
    errors: list[Exception] = []
    stored = read_results(results, on_error=errors.append)
    for error in errors:
        complain(error)
    all_of_them = [*stored, *errors]
    alone = len(all_of_them) == 1 and not results[0].is_dir()
    if named is not None and not alone:
        raise UsageError(f"-o {named}: is one page, and several are made of a folder; name a folder, or one result.")
    with progress() as bars:
        if alone:
            path = named or (output or stored[0].path.parent) / f"{stored[0].stem}.html"
            video = video_of(stored[0], videos)
            curves = curves_of(stored[0])
            if curves is None:
                note(f"{stored[0].stem}.scores.npz is not beside the result; the page has no curves.")
            write_page(stored[0].result, curves, video, path, embed, on_progress=bars.video(video))
            bars.clear()
            print(path)
            return
        root = results[0] if len(results) == 1 else common_folder(stored)
        for path, wrong in write_pages(stored, root, output or root, videos, embed, bars.video):
            bars.clear()
            if wrong is None:
                print(path)
            else:
                errors.append(wrong)
                complain(wrong)
    finish(len(all_of_them) - len(errors), errors, all_of_them)


def clips(
    results: Results,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for the clips.")] = Path("clips"),
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy from keyframe to keyframe: quick and lossless, but not exact.")
    ] = False,
    reel: Annotated[
        bool, typer.Option("--reel", help="One highlight reel per class instead of a file a clip.")
    ] = False,
    before: Annotated[float, typer.Option(min=0, help="Seconds to begin earlier.")] = 0.0,
    after: Annotated[float, typer.Option(min=0, help="Seconds to end later.")] = 0.0,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out less sure segments.")] = 0.0,
    classes: Annotated[
        str | None, typer.Option(help="Names joined by commas.", show_default="all that was found")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Template of file names: {stem} {index} {label} {start} {end} {confidence} {clock}; / makes folders.",
            show_default="{stem}_{index:03d}_{label}",
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

    from extractors.decode.container import VideoError
    from pipeline.clips import cut as work
    from pipeline.run.results import read_results, stems, video_of
    from postprocess.evaluation.names import nfc

    wanted = None if classes is None else {nfc(part.strip()) for part in classes.split(",") if part.strip()}
    cuts: list[work.Cut] = []
    known: set[str] = set()
    unread: list[Exception] = []  # results and videos of which nothing can be cut
    for stored, stem in stems(read_results(results, on_error=unread.append)):
        known |= {nfc(s.label) for s in stored.result.segments}
        chosen = [
            s
            for s in stored.result.segments
            if s.confidence >= min_confidence and (wanted is None or nfc(s.label) in wanted)
        ]
        if chosen:
            try:
                video = video_of(stored, videos)
            except VideoError as error:
                unread.append(error)
                continue
            cuts += work.plan(video, stem, chosen, stored.result.duration, before, after, name or work.NAME)
    if wanted is not None and (missing := sorted(wanted - known)):
        raise UsageError(f"no segment is called {', '.join(missing)}; there are {', '.join(sorted(known)) or 'none'}.")
    work.check_names(cuts, output, reel=reel, copied=copy, overwrite=overwrite)
    if not cuts and not unread:
        note("nothing to cut: no segment is left.")
    failed: list[tuple[work.Cut, Exception]] = []
    with progress() as bars:
        make = work.reels if reel else work.copy if copy else work.cut
        made = list(make(cuts, output, bars.video(output), on_error=lambda one, error: failed.append((one, error))))
    for one in made:
        print(one.path)
    for lacking in unread:
        complain(lacking)
    for said, lost in Counter(str(error) for _, error in failed).items():  # a video fails in all its clips alike
        complain(VideoError(f"{said} ({lost} clip{'s' if lost > 1 else ''} left out)"))
    left = {id(cut) for cut, _ in failed}
    done = [cut for cut in cuts if id(cut) not in left]
    if copy and done:
        note("copied clips begin at the keyframe before their segment.")
    if cuts:
        count = len({cut.video for cut in done})
        lost_too = f", {len(failed)} left out" if failed else ""
        err.print(f"[dim]{len(done)} clip{'s' if len(done) != 1 else ''} of {count} video"
                  f"{'s' if count != 1 else ''}{lost_too}[/]")  # fmt: skip
    if unread or failed:
        raise typer.Exit(failure([*unread, *(error for _, error in failed)]))


def plot(
    result: Annotated[Path, typer.Argument(help="A result of `run -o`: a .json file.")],
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="A .png or .svg file.", show_default="beside the result, .png")
    ] = None,
    ground_truth: Annotated[Path | None, typer.Option(help="ActivityNet JSON: drawn above what was found.")] = None,
    frames: Annotated[int, typer.Option(min=0, max=20, help="Frames to show above; 0: none.")] = 8,
    videos: Videos = None,
) -> None:
    """Draw one result over time: frames, truth, segments, scores, and S^coarse beside S."""
    forms = {".png": "png", ".svg": "svg"}
    if output is not None and output.suffix.lower() not in forms:
        raise UsageError(f"--out {output}: the picture is a PNG or an SVG; name a .png or .svg file.")
    if not result.is_file():
        raise UsageError(f"{result}: no such file; give one result that `run -o` wrote.")

    from pipeline.run.results import curves_of, read_results, truth_of, video_of
    from pipeline.run.views import stills
    from postprocess.pages.timeplot import timeline
    from support.files import write_atomically

    (stored,) = read_results([result])
    path = output or stored.path.with_name(f"{stored.stem}.png")
    curves = curves_of(stored)
    if curves is None:
        note(f"{stored.stem}.scores.npz is not beside the result; the picture has no curves.")
    truth = None if ground_truth is None else truth_of(stored, ground_truth)
    shown = stills(video_of(stored, videos), stored.result.duration, frames) if frames else []
    picture = timeline(stored.result, curves, shown, truth, forms[path.suffix.lower()])
    try:
        write_atomically(path, picture)
    except OSError as error:
        raise cannot_write(path, error, "choose another file") from error
    print(path)
