"""`extract`: videos in, features out."""

from pathlib import Path
from typing import Annotated

from commands.groups import grouped, settings_of
from commands.options import FeatureOptions, Paths, RangeOptions, RerunOptions, WorkOptions, a_place
from commands.places import folder_only, is_file_name, mirror_at
from commands.progress import Running
from commands.terminal import note, say_choices
from pipeline.config import asked, load_config
from support.errors import UsageError
from support.paths import called, program, with_suffix


@grouped
def extract(
    paths: Paths,
    output: Annotated[
        Path,
        a_place("Folder (or its URL) for the .npz files, or one such file for one video.", "--out", "-o"),
    ] = Path("features"),
    *,
    part: RangeOptions,
    features: FeatureOptions,
    work: WorkOptions,
    again: RerunOptions,
) -> None:
    """Videos in, I3D features out: rgb (T,1024), flow (T,1024), times (T,2)."""
    settings = load_config(work.config, settings_of(features, work))

    from pipeline.api import choose_device, make_extractor
    from pipeline.cache.entries import FeatureCache
    from pipeline.run.batch import default_streams, extract_batch
    from pipeline.run.outcome import FeatureOutput, existing_features
    from pipeline.run.store import prepare_output
    from pipeline.run.videos import Job, find_videos, left_out

    videos = find_videos(paths)
    for remark in left_out(paths):
        note(remark)
    listed: Path | None = output
    if output.suffix == ".npz" and is_file_name(output):
        if len(videos) != 1:
            raise UsageError(f"-o {output}: is one file, and there are {len(videos)} videos; name a folder.")
        listed, videos, output = None, [Job(videos[0].video, Path(output.stem))], output.parent
    folder_only(listed, "features are written as .npz files", "features")
    running = Running("extract", videos, listed, work, again.retry_failed)
    declared, given = default_streams(settings), asked(settings)
    if settings.streams == "auto" and "flow" not in declared:
        note(
            f"RGB alone: no published flow weights are here (`{program()} models fetch i3d-flow`). Without them flow "
            "takes four times as long and adds nothing that was measured; --streams both computes it all the same."
        )
    extractor = make_extractor(settings, declared, choose_device(settings.device))
    say_choices(extractor)
    running.choose_engine(extractor)
    files = FeatureOutput(output, mirror_at(output), again.overwrite, given)
    if again.dry_run:
        existing = existing_features(extractor, files, part.stretch)
        running.dry_run(extractor, FeatureCache(), existing, part.stretch)
        return
    if listed is None:
        prepare_output(output)
    with running.started(part.stretch) as (bars, stop):
        outcomes = extract_batch(
            extractor, FeatureCache(), running.jobs, files, part.stretch, bars.video, running.engine, stop
        )
        for outcome in running.each(outcomes):
            assert outcome.features is not None
            for warning in outcome.features.warnings:
                note(f"{outcome.job.video}: {warning}")
            path = with_suffix(output / outcome.job.name, ".npz")
            print(f"{called(str(path))}\t{len(outcome.features.times)} snippets", flush=True)
    running.finish()
