"""What the run sends to its workers, and what they send back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from extractors.backbones.engines import Way
from extractors.config import FeatureConfig, Limits, Stretch
from extractors.features import Extractor
from extractors.snippets import whole_blocks
from pipeline.cache.content import Content, Video
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import Chunk
from pipeline.localizer import Localizer
from pipeline.run.outcome import Finished, Order

END = -1  # stands for the number of a first snippet while a worker finishes a video
MODEL = "model.safetensors"  # in the run's folder: a model that is not an embedded one


@dataclass(frozen=True)
class Setup:
    """Everything that a worker needs to make the same extractor as the run."""

    config: FeatureConfig
    streams: tuple[str, ...]
    device: str
    weights: tuple[tuple[str, str | None], ...]
    ways: tuple[tuple[str, Way], ...]
    """by stream: what `--precision` means, resolved by the run"""
    limits: Limits
    threads: int | None
    settings: str
    """as JSON: the settings that its extractor must have"""
    cache: Path
    part: int
    localizer: Localizer | None = None
    """what finishes videos; None: features are all that is wanted"""
    proof: Path | None = field(default=None, compare=False)
    """a file of the run in the output folder; a worker that sees its content may write beside it"""
    secret: str = field(default="", compare=False)
    """that file's content"""

    @classmethod
    def of(
        cls, extractor: Extractor, cache: FeatureCache, threads: int | None, localizer: Localizer | None = None
    ) -> Setup:
        """The setup for workers with the same extractor as this process."""
        weights = tuple(
            (name, None if file is None else str(file.absolute())) for name, file in extractor.weights_files.items()
        )
        return cls(
            config=extractor.config,
            streams=extractor.streams,
            device=extractor.device,
            weights=weights,
            ways=tuple(extractor.ways.items()),
            limits=extractor.limits,
            threads=threads,
            settings=json.dumps(extractor.settings(), sort_keys=True),
            cache=cache.folder.absolute(),
            part=whole_blocks(cache.part, extractor.config),
            localizer=localizer,
        )


@dataclass(frozen=True)
class Task:
    """A chunk of a video, or its end, or the question what its content is."""

    video: Video
    content: str
    stretch: Stretch
    chunk: Chunk | None
    """None: all that is missing"""
    home: Path | None = None
    """the folder that a relative `video` starts from; None if `video` is absolute"""
    order: Order | None = None
    """what to make of the features once all chunks are there; None: nothing"""
    unread: bool = False
    """whether the content is asked for, and nothing else; `content` is a name for the video until then"""
    long: bool = False
    """whether its length is asked for, too"""

    @property
    def first(self) -> int:
        """The first snippet, or END."""
        return END if self.chunk is None else self.chunk.first


@dataclass(frozen=True)
class Report:
    """The outcome of a task."""

    task: Task
    error: Exception | None = None
    messages: list[str] = field(default_factory=list)
    finished: Finished | None = None
    """the result, from the worker that ended the video"""
    worked: bool = True
    """whether a part was extracted"""
    content: Content | None = None
    """the answer to a task that asks for it"""
    length: tuple[float, bool] | None = None
    """(number of snippets by the header, whether the file allows seeking), if that was asked, and can be seen"""


def name_of(content: str, first: int) -> str:
    """The name of a part's marker in the run's folder, without its suffix."""
    return f"part-{content}-{first}"
