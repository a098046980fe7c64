"""Videos in, rows of a table out: what Ray Data, Daft, Dask and jcdnet's own workers have each of their processes do.

A `Localizer` is small, so it travels to any process. It loads the model there when the first video comes, once for
each process.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import jcdnet
from extractors.config import Stretch
from extractors.features import Extractor
from pipeline.api import Pipeline, load_model
from pipeline.cache.content import Video, content_hash, video_at
from pipeline.cache.entries import FeatureCache
from pipeline.config import Config
from pipeline.run.outcome import Order, failed, finish
from pipeline.run.store import text_of
from pipeline.run.videos import Job, refuse
from pipeline.tables import VIDEO_TYPES, segments_text, video_row
from postprocess.formats.writers import VIEWS, WRITERS
from support.errors import EnvironmentMissing, UsageError

_held = threading.local()  # an extractor belongs to one thread, and Dask may run several threads in a process


class Localizer:
    """Finds the segments of a batch of videos: a dict of columns in, a dict of columns out."""

    def __init__(
        self,
        model: str | None = None,
        device: str | None = None,
        config: Config | None = None,
        start: float = 0.0,
        end: float = math.inf,
        formats: Sequence[str] = (),
        threads: int = 1,
        fingerprint: str | None = None,
    ) -> None:
        """Note the settings; nothing is loaded yet.

        Args:
            model: an embedded model's name, or a checkpoint's URL, or its path on the machines that do the work.
            device: where to compute; auto takes a GPU that the process sees.
            config: all other settings, as for `Pipeline`.
            start, end: the part of each video, in seconds.
            formats: formats of `run -f` whose files are wanted as columns of bytes, such as ("json", "srt").
            threads: CPU threads of one process. Clusters give each process one core.
            fingerprint: if given, a process that finds another model at this path is refused.

        Raises:
            UsageError: a format is unknown, or is a page or an overlay.
        """
        settings = config or Config()
        self.config = dataclasses.replace(settings, model=model or settings.model, device=device or settings.device)
        self.stretch, self.formats = Stretch(start, end), tuple(formats)
        self.threads, self.fingerprint = threads, fingerprint
        for name in self.formats:
            if name in VIEWS or name not in WRITERS:
                raise UsageError(f"a row holds no format {name!r}; there are: {', '.join(WRITERS)}.")

    @classmethod
    def of(cls, pipeline: Pipeline, stretch: Stretch, threads: int = 1) -> Localizer:
        """The Localizer that does what this pipeline does."""
        given = (None, None, pipeline.chosen, stretch.start, stretch.end)
        return cls(*given, threads=threads, fingerprint=pipeline.fingerprint)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Localizer) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.config.model, self.stretch, self.formats))

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Localize a batch; a video that fails is a row with its error, and the others go on.

        Args:
            batch: columns "id" and "path" of equal length: lists, or columns of NumPy, Arrow or pandas.

        Returns:
            A row for each video, in order: id, path, status (done or failed), error (the cause and the next step, ""
            if there is none), duration (s), n_segments, segments (JSON: a list of start, end, label, sport, confidence,
            score), partial, warnings (JSON: a list of texts), model, provenance, content, and a column of bytes for
            each of `formats`. No value is None, so every batch has the same types.

        Raises:
            UsageError, WeightsError, CheckpointError: the batch has other columns, or the model cannot be loaded.
            EnvironmentMissing: this machine lacks something, and the next video would fail too.
        """
        if missing := {"id", "path"} - set(batch):
            raise UsageError(f"a batch needs the columns id and path, and lacks {' and '.join(sorted(missing))}.")
        ids, paths = _texts(batch["id"]), _texts(batch["path"])
        rows = [self.row(name, path) for name, path in zip(ids, paths, strict=True)]
        return {name: [row[name] for row in rows] for name in ("path", *VIDEO_TYPES, "segments", *self.formats)}

    def row(self, name: str, path: str) -> dict[str, Any]:
        """Localize one video; the values of its row.

        Raises:
            As a call.
        """
        pipeline = self.pipeline()
        result, error = None, None
        video: Video = Path(path)
        try:
            refuse(path)
            video, messages = video_at(path), list[str]()
            content = content_hash(video)
            features = pipeline.cache.features(
                video, content, pipeline.extractor, self.stretch, on_damage=messages.append
            )
            features = dataclasses.replace(features, warnings=(*features.warnings, *dict.fromkeys(messages)))
            result = finish(pipeline, Order(video), content, features, self.stretch).result
        except Exception as problem:
            error = failed(Job(video, Path(name)), problem).error
        files = {form: b"" if result is None else text_of(form, result) for form in self.formats}
        found = segments_text(result)
        return {"path": path, **video_row(name, result, error), "segments": found, **files}

    def pipeline(self) -> Pipeline:
        """The pipeline of this process and thread; it is loaded at the first call."""
        if getattr(_held, "owner", None) != self:
            made = Pipeline(load_model(self.config.model, self.config.rgb_weights), self.config)
            one = made.extractor
            files = one.weights_files
            more = (one.limits, self.threads, one.ways)
            self._hold(made, Extractor(one.config, one.streams, one.device, files, *more))
        found: Pipeline = _held.pipeline
        return found

    def adopt(self, extractor: Extractor, cache: FeatureCache, checkpoint: Path | None = None) -> Pipeline:
        """The pipeline of a worker that has an extractor and a cache already; it is made at the first call.

        `checkpoint`: where the model lies for workers, if it is not an embedded one.

        Raises:
            EnvironmentMissing: this machine has another model or other settings than the run.
        """
        if getattr(_held, "owner", None) != self or _held.pipeline.extractor is not extractor:
            model = load_model(str(checkpoint or self.config.model), self.config.rgb_weights)
            self._hold(Pipeline(model, self.config, cache), extractor)
        found: Pipeline = _held.pipeline
        return found

    def _hold(self, made: Pipeline, extractor: Extractor) -> None:
        torch.set_num_threads(self.threads)
        made.extractor, made.device = extractor, extractor.device
        if self.fingerprint not in (None, made.fingerprint):
            raise EnvironmentMissing(
                f"a worker has another model {self.config.model} than was asked for ({made.fingerprint[:19]}… there, "
                f"{str(self.fingerprint)[:19]}… here); install the same on both."
            )
        _held.owner, _held.pipeline = self, made


# Unpickling looks the class up under this name. Importing jcdnet makes the packages inside its wheel importable.
# It is imported here, too: cloudpickle sends a copy of a class whose module is not, and each copy loads the model anew.
Localizer.__module__ = jcdnet.__name__


def _texts(column: Any) -> list[str]:
    """A column as texts; a missing value becomes ""."""
    values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    return ["" if value is None else str(value) for value in values]
