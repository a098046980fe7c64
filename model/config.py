"""The settings of JCDNet and of its training. Without torch, so that --help can read the defaults."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

Suppress = Literal["literal", "min_shift"]
Sampling = Literal["perturb", "pad"]

# Far above any real network. It keeps a damaged file from allocating terabytes.
_LARGEST = 1 << 16
_LARGEST_NUMBER = 1e18  # its square (lr times gate_lr) still fits into float32


@dataclass(frozen=True)
class ModelConfig:
    """Shape and behaviour of one JCDNet. A `ValueError` names any setting that cannot work.

    Attributes:
        classes: C, the number of action classes, without the background, which is always the last column.
        in_dim: width of a snippet's feature. I3D with both streams has 2F = 2048, RGB first.
        dim: D, width of the embeddings X^a and X^e. 1024 makes E = [E^a; E^e] 2048 wide, as in the networks that JCDNet
            is based on; the paper does not say.
        kernel: number of taps of the two embedding convolutions, odd.
        coarse_kernel: number of taps of the convolution that gives S^coarse, odd.
        dropout: dropout probability before each classifier, in training only (0.5 for data like ActivityNet).
        slope: negative slope of the LeakyReLU after the embeddings.
        qk_scale: whether to multiply the logits of equation 3 by 1/sqrt(D). The paper does not, but half precision
            needs it.
        suppress: `literal` is equation 6 as written. `min_shift` is A(S - m) + m with m = min_c S_c, which does not
            raise negative logits. It is used in training only; inference always multiplies literally.
        smooth: number of taps, odd, of an average over time on every T-CAS and on the actionness, for data with few
            long actions (ActivityNet: 13 at 60 snippets). Values beyond the ends count as 0. 0 turns it off.
        cad: whether to use the class-aware discriminative module, section 3.3. Without it, E^a = X^a (Table 4).
        tea: whether to use the temporal-enhanced attention module, section 3.4. Without it, E = E^a, and A^ness is one
            minus the background's probability in S (Table 4).
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
            object.__setattr__(self, name, float(value))  # JSON and TOML sometimes write 0.0 as 0
        for name in ("qk_scale", "cad", "tea"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"Model setting {name} must be true or false, not {getattr(self, name)!r}.")
        if self.suppress not in get_args(Suppress):
            choices = " or ".join(get_args(Suppress))
            raise ValueError(f"Model setting suppress must be {choices}, not {self.suppress!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain numbers, strings and booleans, ready for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`. Missing settings get their defaults.

        Raises:
            ValueError: a setting is unknown, has the wrong type or range, or `classes` is missing.
        """
        _check_names(cls, "Model", settings)
        if "classes" not in settings:
            raise ValueError("Model setting classes is missing; give the number of action classes.")
        return cls(**settings)


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of the loss, equations 10-12, as in section 4.1. A term of weight 0 is not computed.

    Attributes:
        mil: L_mil, on S.
        temp: lambda_1 of L_temp, on S^temp.
        supp: L_mil^supp, on suppressed S.
        coarse: the same top-k loss on S^coarse, unsuppressed. Equations 10-12 lack it, but Exp 3 of the paper removes
            it from CAD, and no other term teaches S^coarse what background is. The paper gives no weight, so we use
            that of lambda_0. 0 is n-CAD.
        coarse_supp: lambda_0 of L_coarse^supp, on suppressed S^coarse.
        cas: lambda_2 of L_cas, the co-activity similarity.
        norm: lambda_3 of L_norm.
        guide: lambda_4 of L_guide.
        topk_divisor: r; the video-level score of a class is the mean of its k = max(1, T // r) largest logits. The
            paper does not give r; CO2-Net uses 7 for THUMOS14 and 5 for ActivityNet.
        margin: margin of L_cas, 0.5 in W-TALC.
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
        """Raise a ValueError if a term supervises a module that `model` does not have."""
        for name in TERMS:
            for module in _NEEDS.get(name, ()):
                if getattr(self, name) and not getattr(model, module):
                    raise ValueError(
                        f"Loss setting {name} needs the {module.upper()} module, which is off; "
                        f"set {name} to 0, or {module} to true."
                    )

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "LossConfig":
        """Build from plain values. Missing settings get their defaults.

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
class TimesConfig:
    """How a training uses snippets whose class is known from marked times (`model.timed`).

    Attributes:
        snippet: weight of the cross-entropy on S.
        action: weight of the binary cross-entropy on A^ness.
        mil: whether equations 10-12 also apply to videos in which every snippet is known. They apply to all others.
    """

    snippet: float = 1.0
    action: float = 1.0
    mil: bool = False

    def __post_init__(self) -> None:
        _check_numbers(self, "Times", "snippet", "action")
        if not isinstance(self.mil, bool):
            raise ValueError(f"Times setting mil must be true or false, not {self.mil!r}.")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "TimesConfig":
        """Build from plain values. Missing settings get their defaults.

        Raises:
            ValueError: a setting is unknown, or has the wrong type or range.
        """
        _check_names(cls, "Times", settings)
        return cls(**settings)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of one training. The defaults are the preset `paper`: section 4.1 for THUMOS14.

    Attributes:
        steps: number of iterations. 100 epochs of THUMOS14's 200 videos in batches of 20 are 1,000 steps.
        batch: videos in each step.
        pairs: number of pairs of the same class at the beginning of a batch, for L_cas. There are fewer pairs if the
            data have fewer.
        snippets: T, the number of snippets that a video is sampled to.
        sampling: `perturb` picks T snippets of every video at random and in order; shorter videos repeat theirs. `pad`
            does this to longer videos only; shorter ones keep their length, and so the time scale they have in use.
        lr: constant learning rate of Adam.
        weight_decay: L2 penalty on all parameters except the gates.
        gate_lr: learning rate of the gates (alpha, beta) as a multiple of `lr`. In each step, Adam moves a scalar by
            about its learning rate: 1,000 steps at 1e-4 move a gate by at most 0.1. 0 keeps the gates at 0.
        averaging: eta of the average over the weights of all steps, which becomes the result (`model.averaging`). 0
            uses the weights of the last step.
        seed: seed of the initial weights, the batches, the sampling and the dropout.
        save_every: number of steps between two training states on disk, from which a killed training resumes.
        loss: weights of the terms.
        times: how marked times are used; None if there are none.
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
    times: TimesConfig | None = None

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
        if not isinstance(self.times, TimesConfig | None):
            raise ValueError(f"Training setting times must be a TimesConfig, not {self.times!r}.")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain numbers and strings, with loss and times as tables, ready for JSON or TOML.

        Without times there is no such table, so that checkpoints without times have the bytes that they always had.
        """
        return {name: value for name, value in asdict(self).items() if name != "times" or value is not None}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "TrainConfig":
        """The inverse of `to_dict`. Missing settings get their defaults.

        Raises:
            ValueError: a setting is unknown, or has the wrong type or range.
        """
        _check_names(cls, "Training", settings)
        times = settings.get("times")
        tables = {
            "loss": LossConfig.from_dict(settings.get("loss", {})),
            "times": None if times is None else TimesConfig.from_dict(times),
        }
        return cls(**{**settings, **tables})


def _check_names(cls: Any, kind: str, settings: Mapping[str, Any]) -> None:
    """Raise a ValueError that names the first setting that the dataclass `cls` does not have."""
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
    """Check numbers from 0 to what float32 can use; store them as floats, since JSON and TOML may write 0.0 as 0."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST_NUMBER:
            raise ValueError(f"{kind} setting {name} must be a number from 0 to {_LARGEST_NUMBER:g}, not {value!r}.")
        object.__setattr__(config, name, float(value))
