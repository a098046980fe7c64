"""jcdnet from Python: `Pipeline` (pipeline/api.py), `Localizer` (pipeline/localizer.py) and `__version__`.

An installed jcdnet owns this name alone. It carries the folders of a checkout (pipeline, model, …) in `_app`, which
goes to the front of `sys.path`, so that a `model/` that lies where jcdnet is run stands behind ours.
"""

import sys
from pathlib import Path
from typing import Any

_here = Path(__file__).resolve().parent
sys.path.insert(0, str(_here / "_app" if (_here / "_app").is_dir() else _here.parent))

from support.version import VERSION as __version__  # noqa: E402

__all__ = ["Localizer", "Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """`Pipeline` and `Localizer`, once they are asked for: they import torch."""
    if name == "Pipeline":
        from pipeline.api import Pipeline

        return Pipeline
    if name == "Localizer":
        from pipeline.localizer import Localizer

        return Localizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
