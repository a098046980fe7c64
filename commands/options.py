"""Options that several commands share; their help shows the defaults of the settings, which live elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from extractors.config import PRECISIONS, FeatureConfig, Limits
from pipeline.config import STREAM_CHOICES, Config

F, C = FeatureConfig(), Config()

G = Limits()

Paths = Annotated[list[str], typer.Argument(help="Videos, folders (recursive) or glob patterns.")]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        help="Folder for results, or a file as x.json; - for JSON on stdout. Without: a table.",
    ),
]
Model = Annotated[str | None, typer.Option(help="Name of an embedded model, or a checkpoint.", show_default=C.model)]
Classes = Annotated[
    str | None,
    typer.Option(help="What to look for: sports, all, or names joined by commas.", show_default=C.classes),
]
Streams = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(STREAM_CHOICES)}; auto: what the model needs.", show_default=C.streams),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", show_default=C.device)]
Start = Annotated[float, typer.Option(min=0, help="Begin at this second of the video.")]
End = Annotated[float | None, typer.Option(min=0, help="Stop at this second.", show_default="the end")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results made otherwise.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with any of the settings.")]
Backbone = Annotated[str | None, typer.Option(help="i3d or i3d_r50.", show_default=F.backbone)]
Stride = Annotated[int | None, typer.Option(help="Frames between snippets.", show_default=str(F.stride))]
Flow = Annotated[str | None, typer.Option(help="Optical flow backend.", show_default=F.flow)]
Precision = Annotated[
    str | None,
    typer.Option(help=f"{', '.join(PRECISIONS)} in I3D; bfloat16 is quick on CPUs that have it.", show_default="auto"),
]
DecoderName = Annotated[
    str | None, typer.Option("--decoder", help="cpu, or nvdec: NVIDIA's, cached apart.", show_default=F.decoder)
]
RgbWeights = Annotated[str | None, typer.Option(help="File with the RGB backbone's weights.", show_default="published")]
FlowWeights = Annotated[
    str | None, typer.Option(help="File with the flow backbone's weights.", show_default="published")
]
Jobs = Annotated[
    str | None,
    typer.Option("--jobs", "-j", help="Workers: a number, or auto.", show_default="1, or all of a cluster"),
]
EngineName = Annotated[str, typer.Option("--engine", help="local, dask or ray.")]
Address = Annotated[str | None, typer.Option(help="Of Dask's scheduler or Ray's head.", show_default="none")]
GpusPerWorker = Annotated[float, typer.Option(min=0, help="What each worker asks a cluster for.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Give a video up after this many seconds.", show_default="never")
]
Memory = Annotated[
    float | None,
    typer.Option(min=0, help="GiB that decoding a video may take, 0 for any.", show_default=f"{G.memory:g}"),
]
CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", help="Folder of the cache.", show_default="JCDNET_CACHE, or the user's")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Only what failed when it was last run into this folder.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, how long it takes, how much disk.")]
