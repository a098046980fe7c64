"""The pipeline in Python: a video in, a Result out, and its steps one by one."""

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

from extractors.backbones import registry as backbones
from extractors.backbones import weights
from extractors.exact import exact
from extractors.features import Extractor, Features
from model import checkpoint, kinetics
from model.checkpoint import Checkpoint
from model.jcdnet import JCDNet
from model.predict import PredictError, Scores, predict
from pipeline.cache.entries import FeatureCache, content_hash
from pipeline.config import Config, adopt, asked
from postprocess.evaluation.names import nfc
from postprocess.localize import Activations, localize
from postprocess.segment import Result, Segment
from support.errors import EnvironmentMissing, UsageError
from support.paths import program
from support.progress import Progress, silent
from support.version import package_version

EMBEDDED = "kinetics400"
SPORTS, ALL, AUTO = "sports", "all", "auto"


class Pipeline:
    """Everything that `run` needs, loaded once and used for many videos."""

    def __init__(self, model: Checkpoint, config: Config, cache: FeatureCache | None = None) -> None:
        """Join a model with settings.

        Raises:
            UsageError: classes that the model does not know, or settings that its features were not made with.
            EnvironmentMissing: the device asked for is not there.
            WeightsError: the backbone's weights are missing.
        """
        self.model = model
        self.classes = choose_classes(model, config.classes)
        self.asked = asked(config)
        self.config = config = adopt(config, model.features, localize_settings_for(model, self.classes))
        self.device = choose_device(config.device)
        self.cache = cache or FeatureCache()
        self.extractor = make_extractor(config, model.streams, self.device)
        self._warming: threading.Thread | None = None
        self._check_features()
        self.warnings = (*self._stream_warnings(), *self._untuned())

    @classmethod
    def load(cls, model: str | None = None, device: str | None = None, config: Config | None = None) -> "Pipeline":
        """Load a model by name or path, on a device; what is None is as in `config`, or its default.

        What the model declares of features and localisation takes the place of defaults. A default that is meant is
        named in `given`: Config(given=frozenset({"localize.min_confidence"})), as `load_config` does for flags.

        Raises:
            CheckpointError: there is no such model, or its file is not one.
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
        """Segments of a video, or of its seconds start..end; seconds are always those of the whole video."""
        return self.run(Path(video), start, end, on_progress)[0]

    def run(
        self,
        video: Path,
        start: float = 0.0,
        end: float = math.inf,
        on_progress: Progress = silent,
        content: str | None = None,
    ) -> tuple[Result, Features, Scores]:
        """As a call, with the features and the scores that the segments came from.

        content: the file's `content_hash`, where it is known already.

        Raises:
            VideoError: the video cannot be read.
        """
        said: list[str] = []
        self.warm()
        content = content or content_hash(video, on_progress)
        features = self.cache.features(video, content, self.extractor, start, end, on_progress, on_damage=said.append)
        features = dataclasses.replace(features, warnings=(*features.warnings, *said))
        result, scores = self.result(video, content, features, start, end)
        return result, features, scores

    def result(
        self, video: Path, content: str, features: Features, start: float = 0.0, end: float = math.inf
    ) -> tuple[Result, Scores]:
        """What the model says about a video's features, and the scores that the segments came from."""
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
        """Actionness and T-CAS of a video's features."""
        if self._warming is not None:
            self._warming.join()
        try:
            with exact():
                return predict(self._net, features.stacked(self.model.streams), device=self.device)
        except PredictError as error:
            raise UsageError(f"the model does not take these features: {error}") from error

    def warm(self) -> None:
        """On a GPU, have a thread make the localisation network ready while a video is hashed and decoded.

        Its first use there takes seconds (2.4 to 3.2 on an H200), any later one milliseconds. A CPU needs none.
        """
        if self._warming is None and torch.device(self.device).type == "cuda":
            self._warming = threading.Thread(target=self._warm, name="warm-up", daemon=True)
            self._warming.start()

    def _warm(self) -> None:
        with contextlib.suppress(Exception), exact():  # what is wrong there is raised again when scores are wanted
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
    ) -> list[Segment]:
        """Scores as segments, within start..end; `least`: another confidence than the settings' to leave out below.

        A lower `least` adds segments to those that the settings find, and to those of the model's own confidence.
        """
        config = self.config.localize
        declared = localize_settings_for(self.model, self.classes).get("min_confidence", 0.0)
        duration = min(features.duration, end)
        found = localize(
            Activations(scores.cas, scores.actionness, scores.video, features.times, self.model.classes, duration),
            config if least is None else dataclasses.replace(config, min_confidence=least),
            groups=self.model.groups,
            keep=self.classes,
            bars=(config.min_confidence, declared),
        )
        late = (dataclasses.replace(s, start=max(s.start, start)) for s in found)
        return [segment for segment in late if segment.end > segment.start]

    def provenance(self, content: str, start: float = 0.0, end: float = math.inf) -> dict[str, Any]:
        """What a result came from: two results with the same provenance are the same result.

        `asked` names the settings that somebody asked for; of the others a later version may choose differently.
        """
        return {
            "content": f"sha256:{content}",
            "model": {"name": self.config.model, "fingerprint": self._fingerprint} | self.model.provenance,
            "classes": self.config.classes if self.config.classes != AUTO else default_classes(self.model),
            "groups": self._groups,
            "features": self.extractor.settings(),
            "localize": dataclasses.asdict(self.config.localize),
            "range": [start, None if math.isinf(end) else end],
            "asked": self.asked,
            "versions": {name: package_version(name) for name in ("jcdnet", "torch", "numpy")},
        }

    @cached_property
    def _fingerprint(self) -> str:
        return f"sha256:{checkpoint.fingerprint(self.model)}"

    @cached_property
    def _groups(self) -> str:
        """Which classes are sought, and which act together."""
        sought = [(name, self.model.groups.get(name)) for name in sorted(self.classes or self.model.classes)]
        return f"sha256:{hashlib.sha256(json.dumps(sought).encode()).hexdigest()}"

    def _check_features(self) -> None:
        """Every feature setting that the model declares must be the one in force."""
        actual = self.extractor.settings()
        for stream in self.model.streams:
            if stream not in actual:
                raise UsageError(
                    f"the model {self.config.model} needs the {stream} stream; run it with --streams auto."
                )
            for name, wanted in self.model.features.get(stream, {}).items():
                if (given := actual[stream].get(name)) != wanted:
                    raise UsageError(
                        f"the model {self.config.model} was made for {stream} features with {name} = {wanted}, "
                        f"not {given}; leave that setting alone or train a model for it."
                    )

    def _untuned(self) -> tuple[str, ...]:
        """Of the embedded model with other RGB weights than the published ones."""
        if self.config.model == EMBEDDED and not self.model.provenance.get("tuned"):
            return (f"{EMBEDDED} was tuned and calibrated for the published RGB weights, and is neither with these.",)
        return ()

    def _stream_warnings(self) -> tuple[str, ...]:
        extra = set(self.extractor.streams) - set(self.model.streams)
        if "flow" in extra:
            return (f"the model {self.config.model} reads RGB only; flow was extracted and cached, unused.",)
        return ()


def choose_device(name: str) -> str:
    """Turn "auto" into cuda where there is a GPU, else cpu; check any other name.

    Raises:
        EnvironmentMissing: the device is not there.
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


def default_streams(config: Config) -> tuple[str, ...]:
    """Streams that `extract` computes unasked: flow where it has weights of its own, or settings were given for it."""
    wanted = config.flow_weights or config.given & {"features.flow"} or weights.find("i3d-flow")
    return ("rgb", "flow") if wanted else ("rgb",)


def make_extractor(config: Config, declared: tuple[str, ...], device: str) -> Extractor:
    """The extractor that a run needs; `declared`: streams that the model reads."""
    if device == "cpu" and config.features.precision == "float16":
        # Emulated there: 189 s for two snippets (benchmarks/precision.py).
        raise UsageError("float16 on a CPU takes minutes a snippet; use --precision bfloat16 or float32.")
    streams = {"auto": declared, "both": ("rgb", "flow"), "rgb": ("rgb",)}[config.streams]
    if "flow" not in streams and (unused := sorted(config.given & {"features.flow", "flow_weights"})):
        flag = unused[0].removeprefix("features.").replace("_", "-")
        raise UsageError(f"--{flag} is about optical flow, and only RGB is read; use --streams both, or leave it out.")
    files = {
        name: Path(given) if given else None
        for name, given in (("rgb", config.rgb_weights), ("flow", config.flow_weights))
    }
    return Extractor(config.features, streams, device, files, config.limits)


def load_model(name: str, rgb_weights: str | None = None) -> Checkpoint:
    """The embedded model, or a checkpoint by its path.

    Raises:
        CheckpointError: neither.
        WeightsError: the embedded model is asked for, but the I3D weights are not there.
    """
    if name != EMBEDDED:
        if not Path(name).exists():
            raise UsageError(f"unknown model {name!r}: neither {EMBEDDED} nor a checkpoint's path.")
        return checkpoint.load(Path(name))
    weight, bias, identity = backbones.i3d_head(Path(rgb_weights) if rgb_weights else None)
    return kinetics.build(weight, bias, weights.kinetics400_names(), identity, kinetics.Tuning.load())


def localize_settings_for(model: Checkpoint, classes: frozenset[str] | None) -> dict[str, Any]:
    """The settings that a model declares for localisation, as far as they hold for these classes (None: all).

    The embedded model's confidence was calibrated on sports: of anything else it stays the mean probability.
    """
    if not model.groups or (classes is not None and classes <= model.groups.keys()):
        return model.localize
    return {name: value for name, value in model.localize.items() if "confidence" not in name}


def default_classes(model: Checkpoint) -> str:
    """Sports where the model groups its classes by sport, else all."""
    return SPORTS if model.groups else ALL


def choose_classes(model: Checkpoint, asked: str) -> frozenset[str] | None:
    """The classes to look for; None is all. Names may be classes or groups, joined by commas.

    Raises:
        UsageError: a name that the model does not know.
    """
    asked = default_classes(model) if asked == AUTO else asked
    if asked == ALL:
        return None
    if asked == SPORTS:
        if not model.groups:
            raise UsageError("this model has no list of sports; use --classes all, or names.")
        return frozenset(model.groups)
    chosen: set[str] = set()
    for name in filter(None, (nfc(part.strip()) for part in asked.split(","))):
        members = {c for c, group in model.groups.items() if nfc(group) == name}
        members |= {c for c in model.classes if nfc(c) == name}
        if not members:
            known = sorted({*model.classes, *model.groups.values()})
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            hint = f"did you mean {close[0]!r}?" if close else f"`{program()} models classes` lists them."
            raise UsageError(f"unknown class {name!r}; {hint}")
        chosen |= members
    if not chosen:
        raise UsageError("--classes names no class; give names joined by commas, sports, or all.")
    return frozenset(chosen)
