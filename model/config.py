"""The settings of JCDNet and of its training. Free of torch, so that command-line help can read the defaults."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

Suppress = Literal["literal", "min_shift"]
Sampling = Literal["perturb", "pad"]

# No network of this kind comes near it; it keeps a damaged file from asking for terabytes.
_LARGEST = 1 << 16
_LARGEST_NUMBER = 1e18  # times itself (lr and gate_lr) within float32


@dataclass(frozen=True)
class ModelConfig:
    """Shape and behaviour of one JCDNet; a `ValueError` names any setting that cannot work.

    Attributes:
        classes: C, the number of action classes; the background, always last, is not counted.
        in_dim: width of a snippet's feature: 2F = 2048 for I3D with both streams, RGB first.
        dim: D, width of the embeddings X^a and X^e; 1024 makes E = [E^a; E^e] 2048 wide, as in the
            networks that JCDNet descends from (the paper does not say).
        kernel: taps of the two embedding convolutions, odd.
        coarse_kernel: taps of the convolution that gives S^coarse, odd.
        dropout: probability before each classifier, in training only (0.5 for ActivityNet-like data).
        slope: negative slope of the embeddings' LeakyReLU.
        qk_scale: multiply the logits of equation 3 by 1/sqrt(D); the paper does not, half precision must.
        suppress: equation 6 as written, or `min_shift` A(S - m) + m with m = min_c S_c, under which
            negative logits are not raised. In training only: inference always multiplies literally.
        smooth: taps of an average over time, odd, on every T-CAS and on the actionness, for data of few
            long actions (ActivityNet: 13 at 60 snippets); beyond the ends counts as 0. 0 is off.
        cad: the class-aware discriminative module, section 3.3; without it E^a = X^a (Table 4).
        tea: the temporal-enhanced attention module, section 3.4; without it E = E^a and A^ness is one minus
            the background's probability in S (Table 4).
    """

    classes: int
    in_dim: int = 2048
    dim: int = 1024
    kernel: int = 3
    coarse_kernel: int = 1
    dropout: float = 0.7
    slope: float = 0.2
    qk_scale: bool = False
    suppress: Suppress = "literal"
    smooth: int = 0
    cad: bool = True
    tea: bool = True

    def __post_init__(self) -> None:
        for name in ("classes", "in_dim", "dim", "kernel", "coarse_kernel", "smooth"):
            value = getattr(self, name)
            least = 0 if name == "smooth" else 1
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"Model setting {name} must be a whole number, not {value!r}.")
            if not least <= value <= _LARGEST:
                raise ValueError(f"Model setting {name} must lie in {least}..{_LARGEST}, not {value}.")
        for name in ("kernel", "coarse_kernel", "smooth"):
            value = getattr(self, name)
            if value and value % 2 == 0:
                raise ValueError(f"Model setting {name} must be odd, so that it has a centre, not {value}.")
        for name in ("dropout", "slope"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"Model setting {name} must be a number, not {value!r}.")
            if not 0 <= value < 1:
                raise ValueError(f"Model setting {name} must be at least 0 and below 1, not {value}.")
            object.__setattr__(self, name, float(value))  # JSON and TOML write 0.0 as 0 at times
        for name in ("qk_scale", "cad", "tea"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"Model setting {name} must be true or false, not {getattr(self, name)!r}.")
        if self.suppress not in get_args(Suppress):
            choices = " or ".join(get_args(Suppress))
            raise ValueError(f"Model setting suppress must be {choices}, not {self.suppress!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and booleans, ready for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`; settings left out take their defaults.

        Raises:
            ValueError: a setting is unknown, has the wrong type or range, or `classes` is missing.
        """
        _check_names(cls, "Model", settings)
        if "classes" not in settings:
            raise ValueError("Model setting classes is missing; give the number of action classes.")
        return cls(**settings)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss's terms, equations 10-12, as in section 4.1; a term of weight 0 is not computed.

    Attributes:
        mil: L_mil, on S.
        temp: lambda_1 of L_temp, on S^temp.
        supp: L_mil^supp, on suppressed S.
        coarse: the same top-k loss on S^coarse as it is. Equations 10-12 lack it, yet the paper's Exp 3 removes
            it from CAD, and nothing else teaches S^coarse what background is. The paper gives it no weight:
            lambda_0's is taken. 0 is n-CAD.
        coarse_supp: lambda_0 of L_coarse^supp, on suppressed S^coarse.
        cas: lambda_2 of L_cas, the co-activity similarity.
        norm: lambda_3 of L_norm.
        guide: lambda_4 of L_guide.
        topk_divisor: r; the video-level score of a class is the mean of its k = max(1, T // r) largest. The paper
            is silent; CO2-Net takes 7 for THUMOS14 and 5 for ActivityNet.
        margin: of L_cas, 0.5 in W-TALC.
    """

    mil: float = 1.0
    temp: float = 0.7
    supp: float = 1.0
    coarse: float = 0.8
    coarse_supp: float = 0.8
    cas: float = 0.9
    norm: float = 0.8
    guide: float = 0.8
    topk_divisor: int = 7
    margin: float = 0.5

    def __post_init__(self) -> None:
        _check_whole(self, "Loss", topk_divisor=1)
        _check_numbers(self, "Loss", *TERMS, "margin")
        if not any(getattr(self, name) for name in TERMS):
            raise ValueError(f"Every loss term has weight 0, so nothing is learned; raise one of {', '.join(TERMS)}.")

    def check(self, model: ModelConfig) -> None:
        """Raise a ValueError for a term that supervises a module which `model` does not have."""
        for name in TERMS:
            for module in _NEEDS.get(name, ()):
                if getattr(self, name) and not getattr(model, module):
                    raise ValueError(
                        f"Loss setting {name} needs the {module.upper()} module, which is off; "
                        f"set {name} to 0, or {module} to true."
                    )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "LossConfig":
        """From plain values; settings left out take their defaults.

        Raises:
            ValueError: a setting is unknown, or has the wrong type or range.
        """
        _check_names(cls, "Loss", settings)
        return cls(**settings)


TERMS = ("mil", "temp", "supp", "coarse", "coarse_supp", "cas", "norm", "guide")
_NEEDS = {
    "temp": ("tea",),
    "supp": ("tea",),
    "coarse": ("cad",),
    "coarse_supp": ("cad", "tea"),
    "cas": ("cad",),
    "norm": ("tea",),
    "guide": ("tea",),
}


@dataclass(frozen=True)
class TrainConfig:
    """One training; the defaults are the preset `paper`, section 4.1 for THUMOS14.

    Attributes:
        steps: iterations. 100 epochs of THUMOS14's 200 videos in batches of 20 are 1,000.
        batch: videos a step.
        pairs: how many pairs of one class stand first in a batch, for L_cas; fewer where the data have fewer.
        snippets: T, how many snippets a video is brought to.
        sampling: `perturb` picks T at random and in order from any video, shorter ones repeat theirs; `pad` does
            so to longer ones only, and the rest keep their length, and so the scale that they have in use.
        lr: Adam's learning rate, constant.
        weight_decay: L2, on all but the gates.
        gate_lr: the gates' learning rate (alpha, beta), as a multiple of `lr`. Adam moves a scalar by about its
            rate a step: 1,000 steps at 1e-4 bound a gate by 0.1. 0 freezes the gates at 0.
        averaging: eta of the average over the steps' weights that becomes the result, `model.averaging`; 0 takes the
            last step's.
        seed: of the initial weights, the batches, the sampling and the dropout.
        save_every: steps from one training state on disk to the next, which a killed training goes on from.
        loss: weights of the terms.
    """

    steps: int = 1000
    batch: int = 20
    pairs: int = 3
    snippets: int = 500
    sampling: Sampling = "perturb"
    lr: float = 1e-4
    weight_decay: float = 1e-3
    gate_lr: float = 1.0
    averaging: float = 0.0
    seed: int = 0
    save_every: int = 50
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        _check_whole(self, "Training", steps=1, batch=1, pairs=0, snippets=1, seed=0, save_every=1)
        _check_numbers(self, "Training", "lr", "weight_decay", "gate_lr", "averaging")
        if self.lr == 0:
            raise ValueError("Training setting lr must be above 0.")
        if self.sampling not in get_args(Sampling):
            choices = " or ".join(get_args(Sampling))
            raise ValueError(f"Training setting sampling must be {choices}, not {self.sampling!r}.")
        if not isinstance(self.loss, LossConfig):
            raise ValueError(f"Training setting loss must be a LossConfig, not {self.loss!r}.")

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, the loss as a table of its own, ready for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """The inverse of `to_dict`; settings left out take their defaults.

        Raises:
            ValueError: a setting is unknown, or has the wrong type or range.
        """
        _check_names(cls, "Training", settings)
        return cls(**{**settings, "loss": LossConfig.from_dict(settings.get("loss", {}))})


def _check_names(cls: Any, kind: str, settings: Mapping[str, Any]) -> None:
    """Raise a ValueError that names a setting which the dataclass `cls` does not have."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"{kind} settings must be a table of names and values, not {settings!r}.")
    known = [field.name for field in fields(cls)]
    for name in settings:
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
            raise ValueError(f"Unknown {kind.lower()} setting {name!r}; {hint}")


def _check_whole(config: Any, kind: str, **least: int) -> None:
    for name, bound in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or not bound <= value < 1 << 31:
            most = (1 << 31) - 1
            raise ValueError(f"{kind} setting {name} must be a whole number from {bound} to {most}, not {value!r}.")


def _check_numbers(config: Any, kind: str, *names: str) -> None:
    """From 0 to what float32 can still work with; stored as floats, because JSON and TOML write 0.0 as 0 at times."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST_NUMBER:
            raise ValueError(f"{kind} setting {name} must be a number from 0 to {_LARGEST_NUMBER:g}, not {value!r}.")
        object.__setattr__(config, name, float(value))
