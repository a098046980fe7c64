"""Options that several commands share, in groups.

Help shows the defaults of the settings, which live elsewhere.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from commands.groups import Setting, place
from commands.places import opened, read_from
from extractors.config import PRECISIONS, FeatureConfig, Limits, Stretch
from pipeline.config import STREAM_CHOICES, Config
from postprocess.config import RULES, LocalizeConfig
from support.errors import UsageError

F, C, G, L = FeatureConfig(), Config(), Limits(), LocalizeConfig()
SNIPPET = F.length / F.fps  # seconds


def read_seconds(given: str | float) -> float:
    """The seconds that an option names: 90, 90.5, 1:30 or 1:02:03.5.

    Raises:
        BadParameter: it is no time. The command line adds which option it is of.
    """
    if isinstance(given, int | float):  # a default
        return float(given)
    from postprocess.formats.text import seconds_of  # most runs name no time

    try:
        return seconds_of(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def a_time(help_text: str, *names: str, **more: Any) -> Any:
    """An option that takes a time: seconds, or a clock."""
    return typer.Option(*names, parser=read_seconds, metavar="<time>", help=help_text, **more)


def a_place(help_text: str, *names: str, parser: Callable[[str], Any] = opened, **more: Any) -> Any:
    """An option that takes a file or a folder, of this machine or of a store (a URL)."""
    return typer.Option(*names, parser=parser, metavar="<path>", help=help_text, **more)


Paths = Annotated[
    list[str], typer.Argument(help="Videos, folders (searched recursively) or glob patterns; also URLs (s3://, gs://).")
]
Model = Annotated[
    str | None,
    typer.Option(help="An embedded model's name, or the folder of a model that you trained.", show_default=C.model),
    Setting("model"),
]
Classes = Annotated[
    str | None,
    typer.Option(help="What to look for: sports, all, or names joined by commas.", show_default=C.classes),
    Setting("classes"),
]
Device = Annotated[
    str | None,
    typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1 or mps.", show_default=C.device),
    Setting("device"),
]
Precision = Annotated[
    str | None,
    typer.Option(
        help=f"Numbers in I3D: {', '.join(PRECISIONS)}. auto: the fastest that holds on this machine.",
        show_default="auto",
    ),
    Setting("features.precision"),
]
View = Annotated[
    str | None,
    typer.Option(
        help="What the network sees: centre, the middle square; whole, the whole frame.", show_default="the model's"
    ),
    Setting("features.view"),
]
Together = Annotated[
    int | None,
    typer.Option(
        help="Snippets in a row that the network sees at once; with 4, each knows what comes before and after.",
        show_default="the model's",
    ),
    Setting("features.together"),
]
Stride = Annotated[
    int | None,
    typer.Option(help="Frames from one snippet to the next; 4 finds shorter actions.", show_default=str(F.stride)),
    Setting("features.stride"),
]
Flow = Annotated[
    str | None,
    typer.Option(help="What computes optical flow: auto, numba, torch, cuda or opencv.", show_default=F.flow),
    Setting("features.flow"),
]
DecoderName = Annotated[
    str | None,
    typer.Option("--decoder", help="cpu, or nvdec: the video decoder of NVIDIA GPUs.", show_default=F.decoder),
    Setting("features.decoder"),
]


Results = Annotated[
    list[Path],
    typer.Argument(
        help="Results of `run -o`: .json files, or their folder; also URLs.", parser=read_from, metavar="<path>..."
    ),
]
Videos = Annotated[
    str | None,
    a_place("Folder (or its URL) with the videos, if they are no longer where `run` found them.", parser=place),
]
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", help="Folder that keeps features.", show_default="JCDNET_CACHE, or the user's"),
]


@dataclass(frozen=True)
class FindOptions:
    """What to find"""

    model: Model = None
    classes: Classes = None
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Lower finds more and longer segments. Add --all to see unsure ones.", show_default="the model's"
        ),
        Setting("localize.threshold"),
    ] = None
    min_confidence: Annotated[
        float | None,
        typer.Option(help="Leave out segments that are less sure than this.", show_default="the model's"),
        Setting("localize.min_confidence"),
    ] = None
    everything: Annotated[bool, typer.Option("--all", help="Keep segments of any confidence.")] = False
    top: Annotated[
        int | None, typer.Option(min=1, help="Keep only the N surest segments of each video."), Setting("localize.top")
    ] = None
    min_length: Annotated[
        float | None,
        a_time(
            f"Leave out what is shorter: seconds or a clock. Segments are made of snippets of {SNIPPET:g} s.",
            show_default="1.28",
        ),
        Setting("localize.min_seconds"),
    ] = None
    merge_gap: Annotated[
        float | None,
        a_time(
            "Join segments of one action with at most so much time between them; 0 joins none.",
            show_default="the model's",
        ),
        Setting("localize.merge_seconds"),
    ] = None
    rule: Annotated[
        str | None,
        typer.Option(
            help=f"How scores become segments: {', '.join(RULES)}. runs: what a person would draw; paper: many "
            "overlapping candidates, for mAP.",
            show_default=L.rule,
        ),
        Setting("localize.rule"),
    ] = None

    def __post_init__(self) -> None:
        if self.everything:
            if self.min_confidence is not None:
                raise UsageError("--all keeps segments of any confidence, --min-confidence does not; give one of them.")
            object.__setattr__(self, "min_confidence", 0.0)


@dataclass(frozen=True)
class RangeOptions:
    """Which part of each video"""

    start: Annotated[float, a_time("Begin here: seconds, or a clock such as 1:30 or 1:02:03.5.")] = 0.0
    end: Annotated[float | None, a_time("Stop here: seconds or a clock.", show_default="the end")] = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise UsageError(f"--end ({self.end:g}) must be later than --start ({self.start:g}).")

    @property
    def stretch(self) -> Stretch:
        """The seconds that are asked for."""
        return Stretch(self.start, math.inf if self.end is None else self.end)


@dataclass(frozen=True)
class FeatureOptions:
    """How features are made"""

    streams: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(STREAM_CHOICES)}. auto: what the model needs.", show_default=C.streams),
        Setting("streams"),
    ] = None
    stride: Stride = None
    view: View = None
    together: Together = None
    backbone: Annotated[
        str | None,
        typer.Option(help="The network: i3d or i3d_r50.", show_default=F.backbone),
        Setting("features.backbone"),
    ] = None
    flow: Flow = None
    precision: Precision = None
    decoder: DecoderName = None
    rgb_weights: Annotated[
        str | None,
        typer.Option(help="A file with weights for the RGB network.", show_default="published"),
        Setting("rgb_weights"),
    ] = None
    flow_weights: Annotated[
        str | None,
        typer.Option(help="A file with weights for the flow network.", show_default="published"),
        Setting("flow_weights"),
    ] = None


@dataclass(frozen=True)
class WorkOptions:
    """Where and how the work is done"""

    device: Device = None
    config: Annotated[Path | None, typer.Option("--config", help="A TOML file with any of the settings.")] = None
    jobs: Annotated[
        str | None,
        typer.Option("--jobs", "-j", help="Number of workers, or auto.", show_default="1, or all of a cluster"),
    ] = None
    engine: Annotated[str, typer.Option("--engine", help="local, or a cluster: dask or ray.")] = "local"
    address: Annotated[
        str | None, typer.Option(help="Address of Dask's scheduler or Ray's head.", show_default="none")
    ] = None
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs that a cluster gives each worker.")] = 0.0
    timeout: Annotated[
        float | None,
        a_time("Give up a video after so long: seconds or a clock.", show_default="never"),
        Setting("limits.timeout"),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(min=0, help="GiB that decoding one video may take; 0: any.", show_default=f"{G.memory:g}"),
        Setting("limits.memory"),
    ] = None
    cache_dir: CacheDir = None
    spool: Annotated[
        float | None,
        typer.Option(
            min=0, help="GB that videos from URLs may take on the temporary disk.", show_default="what is free there"
        ),
    ] = None

    def __post_init__(self) -> None:
        choose_cache(self.cache_dir)
        if self.spool is not None:  # for the workers that this process starts, too
            os.environ["JCDNET_SPOOL"] = f"{self.spool:g}"


def choose_cache(folder: Path | None) -> None:
    """Set the cache for this process and those that it starts; call it before anything asks for the cache."""
    if folder is not None:
        os.environ["JCDNET_CACHE"] = str(folder.absolute())


@dataclass(frozen=True)
class RerunOptions:
    """When results are there already"""

    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that were made otherwise.")] = False
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Only the videos that failed when they were last run into this folder."),
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, how long it takes and how much disk it needs.")
    ] = False
