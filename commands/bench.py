"""`bench`: how fast this machine is, stage by stage."""

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from commands.groups import grouped
from commands.options import DecoderName, Device, Flow, Precision
from commands.terminal import err, out, say_choices, table
from pipeline.config import load_config
from support.errors import UsageError


@grouped
def bench(
    video: Annotated[Path | None, typer.Argument(help="Clip to measure on; without one, one is encoded.")] = None,
    streams: Annotated[str, typer.Option(help="both or rgb.")] = "both",
    against: Annotated[
        str | None, typer.Option(help="opencv: also run the reference pipeline, interleaved, and print ratios.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measure this often.")] = 3,
    device: Device = None,
    flow: Flow = None,
    precision: Precision = None,
    decoder: DecoderName = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure decode, flow, I3D, localisation and the whole on this machine."""
    flags = {
        "streams": streams,
        "device": device,
        "features.flow": flow,
        "features.precision": precision,
        "features.decoder": decoder,
    }
    settings = load_config(None, flags)
    if against not in (None, "opencv"):
        raise UsageError(f"--against {against}: the reference is opencv.")

    from pipeline.api import Pipeline
    from pipeline.machine import bench as benchmark

    pipeline = Pipeline.load(config=settings)
    say_choices(pipeline.extractor)
    err.print(f"[dim]{pipeline.device}, flow {pipeline.extractor.flow_backend or 'off'}, repeats {repeats}[/]")
    with tempfile.TemporaryDirectory() as folder:
        clip = video or benchmark.make_clip(Path(folder) / "clip.mp4")
        measured = benchmark.stages(pipeline, clip, repeats)
        ratios = list(benchmark.against(pipeline, clip, repeats)) if against else []
    rows = [stage.to_dict(settings.features.fps) for stage in measured]
    if as_json:
        print(
            json.dumps({"device": pipeline.device, "stages": rows, "ratios": [r.to_dict() for r in ratios]}, indent=2)
        )
        return
    shown = [
        (
            row["stage"],
            *(
                f"{row[name]:.{digits}f}"
                for name, digits in (("frames_per_s", 1), ("x_real_time", 2), ("min_per_hour", 1))
            ),
            f"{min(row['seconds']):.2f} to {max(row['seconds']):.2f} s",
        )
        for row in rows
    ]
    table(("stage", "frames/s", "x real time", "min per hour", "spread"), shown)
    for ratio in (r.to_dict() for r in ratios):
        span = f"{ratio['min']:.1f} to {ratio['max']:.1f}"
        out.print(
            f"{ratio['stage']}: {ratio['median']:.1f} x the reference pipeline ({span}); "
            f"segments agree to tIoU {ratio['least_tiou_of_segments']:.2f}"
        )
