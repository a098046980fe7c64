"""jcdnet from Python: `jcdnet.Pipeline`, as described in pipeline/api.py, and `jcdnet.__version__`.

An installed jcdnet owns this name alone. It carries the folders of a checkout (pipeline, model, …) in `_app`, which
goes to the front of `sys.path`, so that a `model/` that lies where jcdnet is run stands behind ours.
"""

import sys
from pathlib import Path
from typing import Any

_here = Path(__file__).resolve().parent
sys.path.insert(0, str(_here / "_app" if (_here / "_app").is_dir() else _here.parent))

from support.version import VERSION as __version__  # noqa: E402

__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """`Pipeline`, once it is asked for: it imports torch."""
    if name == "Pipeline":
        from pipeline.api import Pipeline

        return Pipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
