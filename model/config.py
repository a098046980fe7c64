"""JCDNet's settings. Free of torch, so that command-line help can read the defaults."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args

Suppress = Literal["literal", "min_shift"]

# No network of this kind comes near it; it keeps a damaged file from asking for terabytes.
_LARGEST = 1 << 16


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
        if not isinstance(self.qk_scale, bool):
            raise ValueError(f"Model setting qk_scale must be true or false, not {self.qk_scale!r}.")
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
        if not isinstance(settings, Mapping):
            raise ValueError(f"Model settings must be a table of names and values, not {settings!r}.")
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                close = get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}."
                raise ValueError(f"Unknown model setting {name!r}; {hint}")
        if "classes" not in settings:
            raise ValueError("Model setting classes is missing; give the number of action classes.")
        return cls(**settings)
