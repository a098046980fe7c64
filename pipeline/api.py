"""The pipeline in Python: give it a video, get a Result; each step can also be called on its own."""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import math
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extractors.backbones import engines, registry, weights
from extractors.config import USUAL, Stretch, setting_of
from extractors.exact import exact
from extractors.features import Extractor, Features
from model import checkpoint
from model.checkpoint import Checkpoint, localize_settings_for
from model.jcdnet import JCDNet
from model.predict import PredictError, Scores, named, predict, read
from pipeline import precisions
from pipeline.cache.content import Video, content_hash, video_at
from pipeline.cache.entries import FeatureCache
from pipeline.config import Config, adopt, asked
from postprocess.config import LocalizeConfig
from postprocess.localize import Activations, localize
from postprocess.segment import UNSURE, Result, Segment, ways_to_say
from support.errors import EnvironmentMissing, UsageError
from support.paths import is_url, near, program
from support.progress import Progress, silent
from support.version import package_version

EMBEDDED = "kinetics400"
SPORTS, ALL, AUTO = "sports", "all", "auto"


class Pipeline:
    """A model with everything that it needs to run, loaded once and used for many videos."""

    def __init__(self, model: Checkpoint, config: Config, cache: FeatureCache | None = None) -> None:
        """Join a model with settings.

        Raises:
            UsageError: the model does not know a class, or was trained on features with other settings.
            EnvironmentMissing: this machine does not have the device.
            WeightsError: the backbone's weights are missing.
        """
        self.model = model
        self.classes = choose_classes(model, config.classes)
        self.chosen, self.asked = config, asked(config)
        by_name = self.classes if config.classes not in (AUTO, SPORTS, ALL) else None
        self.named = named(model, by_name, config.localize.rule) if by_name else None
        self._declared = self.named.localize if self.named else localize_settings_for(model, self.classes)
        self.config = config = adopt(config, model.features, self._declared)
        self.device = choose_device(config.device)
        self.cache = cache or FeatureCache()
        self.extractor = make_extractor(config, model.streams, self.device)
        self._warming: threading.Thread | None = None
        self._check_features()
        self.warnings = (*self._stream_warnings(), *self._untuned())
        self.notes = precisions.other_than_trained(model.provenance, self.extractor.settings())

    @classmethod
    def load(cls, model: str | None = None, device: str | None = None, config: Config | None = None) -> "Pipeline":
        """Load a model by name or path, on a device. A None is taken from `config`, or is its default.

        The settings that the model declares for features and localisation replace defaults. If you want a default value
        itself, name it in `given`, as `load_config` does for flags:
        Config(given=frozenset({"localize.min_confidence"})).

        Raises:
            CheckpointError: the model does not exist, or its file is not a checkpoint.
        """
        settings = config or Config()
        settings = dataclasses.replace(settings, model=model or settings.model, device=device or settings.device)
        return cls(load_model(settings.model, settings.rgb_weights), settings)

    def __call__(
        self,
        video: str | Path,
        start: float = 0.0,
        end: float = math.inf,
        on_progress: Progress = silent,
    ) -> Result:
        """Find the segments of a video, or of a URL's, from `start` to `end`; times count from its beginning."""
        return self.run(video_at(video), start, end, on_progress)[0]

    def run(
        self,
        video: Video,
        start: float = 0.0,
        end: float = math.inf,
        on_progress: Progress = silent,
        content: str | None = None,
    ) -> tuple[Result, Features, Scores]:
        """Like a call, but also return the features and the scores that the segments came from.

        Args:
            video: the file, or what `video_at` makes of a URL.
            start: where to begin, in seconds.
            end: where to end, in seconds.
            on_progress: called with (stage, done, total).
            content: the `content_hash` of the file, if it is already known.

        Raises:
            VideoError: the video cannot be read.
        """
        messages: list[str] = []
        self.warm()
        content = content or content_hash(video, on_progress)
        features = self.cache.features(
            video, content, self.extractor, Stretch(start, end), on_progress, messages.append
        )
        features = dataclasses.replace(features, warnings=(*features.warnings, *messages))
        result, scores = self.result(video, content, features, start, end)
        return result, features, scores

    def result(
        self, video: Video, content: str, features: Features, start: float = 0.0, end: float = math.inf
    ) -> tuple[Result, Scores]:
        """The result for a video whose features are given, and the scores that its segments came from."""
        scores = self.scores(features)
        result = Result(
            video=str(video),
            duration=features.duration,
            media=features.media,
            segments=tuple(self.segments(scores, features, start, end)),
            warnings=(*features.warnings, *self.warnings),
            provenance=self.provenance(content, start, end),
            partial=features.partial,
        )
        return result, scores

    def scores(self, features: Features) -> Scores:
        """Run the network over the features of a video."""
        if self._warming is not None:
            self._warming.join()
        try:
            with exact():
                return predict(self._net, features.stacked(self.model.streams), device=self.device)
        except PredictError as error:
            raise UsageError(f"the model cannot use these features: {error}") from error

    def warm(self) -> None:
        """Start a thread that warms up the network on a GPU while the video is hashed and decoded.

        The first use of the network on a GPU takes seconds (2.4 to 3.2 on an H200), later uses take milliseconds. A CPU
        needs no warm-up.
        """
        if self._warming is None and torch.device(self.device).type == "cuda":
            self._warming = threading.Thread(target=self._warm, name="warm-up", daemon=True)
            self._warming.start()

    def _warm(self) -> None:
        with contextlib.suppress(Exception), exact():  # the same error is raised again in `scores`
            predict(self._net, np.zeros((2, self._net.config.in_dim), np.float32), device=self.device)

    @cached_property
    def _net(self) -> JCDNet:
        return self.model.build().to(self.device)

    def segments(
        self,
        scores: Scores,
        features: Features,
        start: float = 0.0,
        end: float = math.inf,
        least: float | None = None,
        rule: LocalizeConfig | None = None,
    ) -> list[Segment]:
        """Turn scores into segments between `start` and `end`, by the settings or by another `rule`.

        `least` replaces the confidence below which the settings leave segments out. A lower value only adds segments:
        those that the settings find, and those that the model's own minimum finds, stay as they are.
        """
        config = rule or self.config.localize
        declared = self._declared.get("min_confidence", 0.0)
        duration = min(features.duration, end)
        scores = read(self.named, scores)
        found = localize(
            Activations(scores.cas, scores.actionness, scores.video, features.times, self.model.classes, duration),
            config if least is None else dataclasses.replace(config, min_confidence=least),
            groups=self.model.groups,
            keep=self.classes,
            bars=(config.min_confidence, declared),
        )
        groups = self.model.groups
        late = [
            dataclasses.replace(
                s, start=max(s.start, start), sport=groups.get(s.label, "") if s.confidence >= declared else UNSURE
            )
            for s in found
        ]
        return [segment for segment in late if segment.end > segment.start]

    def provenance(self, content: str, start: float = 0.0, end: float = math.inf) -> dict[str, Any]:
        """Where a result comes from. Two results with the same provenance are equal.

        `asked` names the settings that the user chose; a later version may choose others differently.
        """
        by_name = {"named": self.named.added} if self.named and self.named.added else {}
        return {
            "content": f"sha256:{content}",
            "model": {"name": self.config.model, "fingerprint": self.fingerprint} | self.model.provenance | by_name,
            "classes": self.config.classes if self.config.classes != AUTO else default_classes(self.model),
            "groups": self._groups,
            "features": self.extractor.settings(),
            "localize": dataclasses.asdict(self.config.localize),
            "range": [start, None if math.isinf(end) else end],
            "asked": self.asked,
            "versions": {name: package_version(name) for name in ("jcdnet", "torch", "numpy")},
        }

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the model and everything in it."""
        return f"sha256:{checkpoint.fingerprint(self.model)}"

    @cached_property
    def _groups(self) -> str:
        """A hash of the classes that are looked for and of their groups."""
        sought = [(name, self.model.groups.get(name)) for name in sorted(self.classes or self.model.classes)]
        return f"sha256:{hashlib.sha256(json.dumps(sought).encode()).hexdigest()}"

    def _check_features(self) -> None:
        """Raise a UsageError if a feature setting differs from the one that the model declares."""
        actual = self.extractor.settings()
        for stream in self.model.streams:
            if stream not in actual:
                raise UsageError(
                    f"the model {self.config.model} needs the {stream} stream; run it with --streams auto."
                )
            declared = {**USUAL, **self.model.features.get(stream, {})}
            for name, wanted in declared.items():
                given = setting_of(actual[stream], name)
                if given != wanted:
                    raise UsageError(
                        f"the model {self.config.model} was made for {stream} features with {name} = {wanted}, "
                        f"not {given}; leave that setting alone or train a model for it."
                    )

    def _untuned(self) -> tuple[str, ...]:
        """A warning if the embedded model runs with other RGB weights than the published ones."""
        if self.config.model == EMBEDDED and not self.model.localize:
            return (
                f"the settings and calibration of {EMBEDDED} are for the published RGB weights, so they are left out.",
            )
        return ()

    def _stream_warnings(self) -> tuple[str, ...]:
        extra = set(self.extractor.streams) - set(self.model.streams)
        if "flow" in extra:
            return (f"the model {self.config.model} reads RGB only; flow was extracted and cached, but is not used.",)
        return ()


def choose_device(name: str) -> str:
    """Resolve "auto" to cuda if there is a GPU, else to cpu; any other name is checked.

    Raises:
        UsageError: the name is not one of a device.
        EnvironmentMissing: this machine does not have the device.
    """
    if name == AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:1 or mps.") from error
    index = torch.device(name).index or 0
    here = {"cpu": True, "cuda": index < torch.cuda.device_count(), "mps": torch.backends.mps.is_available()}
    if not here.get(kind, False):
        raise EnvironmentMissing(f"no {name} device on this machine; use --device cpu, or see `{program()} doctor`.")
    return name


def make_extractor(config: Config, declared: tuple[str, ...], device: str) -> Extractor:
    """The extractor for a run; `declared` holds the streams that the model reads."""
    engines.check(config.features.precision, device)
    streams = {"auto": declared, "both": ("rgb", "flow"), "rgb": ("rgb",)}[config.streams]
    if "flow" not in streams and (unused := sorted(config.given & {"features.flow", "flow_weights"})):
        flag = unused[0].removeprefix("features.").replace("_", "-")
        raise UsageError(f"--{flag} is about optical flow, and only RGB is read; use --streams both, or leave it out.")
    given = (("rgb", config.rgb_weights), ("flow", config.flow_weights))
    files = {name: Path(file) if file else None for name, file in given}
    return Extractor(config.features, streams, device, files, config.limits)


def load_model(name: str, rgb_weights: str | None = None, tuning: Path | None = None) -> Checkpoint:
    """Load the embedded model by name, with another tuning than its own if it is given, or a checkpoint by path or URL.

    Raises:
        UsageError, CheckpointError, StoreError: it is none of these, not a checkpoint, or cannot be fetched.
        WeightsError: the embedded model needs the I3D weights, and they are missing.
    """
    if is_url(name):
        from pipeline.cache.models import load  # only for a store

        return load(name)
    if name != EMBEDDED:
        if not Path(name).exists():
            raise UsageError(f"unknown model {name!r}: neither {EMBEDDED} nor a checkpoint{near(Path(name)) or '.'}")
        return checkpoint.load(Path(name))
    from model import kinetics  # only here: a checkpoint does not need it

    weight, bias, identity = registry.i3d_head(Path(rgb_weights) if rgb_weights else None)
    tuned = kinetics.Tuning.load(tuning or kinetics.TUNING)
    return kinetics.build(weight, bias, weights.kinetics400_names(), identity, tuned)


def default_classes(model: Checkpoint) -> str:
    """Sports if the model groups its classes by sport, else all."""
    return SPORTS if model.groups else ALL


def choose_classes(model: Checkpoint, asked: str) -> frozenset[str] | None:
    """The classes to look for; None means all. `asked` may name classes or groups, joined by commas.

    Raises:
        UsageError: the model does not know a name.
    """
    asked = default_classes(model) if asked == AUTO else asked
    if asked == ALL:
        return None
    if asked == SPORTS:
        if not model.groups:
            raise UsageError("this model has no list of sports; use --classes all, or names.")
        return frozenset(model.groups)
    from postprocess.evaluation.names import FORMS  # only here: most runs name no class

    chosen: set[str] = set()
    said = [(c, name) for c in model.classes for name in ways_to_say(c, model.groups.get(c, ""))]
    called = [*model.groups.items(), *said]
    for name in filter(None, (part.strip() for part in asked.split(","))):
        ways = ({c for c, own in called if form(own) == form(name)} for form in FORMS)  # as typed, then in any case
        members = next(filter(None, ways), None)
        if members is None:
            known = sorted({*model.classes, *model.groups.values()})
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"`{program()} models classes` lists them."
            raise UsageError(f"unknown class {name!r}; {hint}")
        chosen |= members
    if not chosen:
        raise UsageError("--classes names no class; give names joined by commas, sports, or all.")
    return frozenset(chosen)
