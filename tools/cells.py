"""Run the code cells of a notebook: their sources as JSON on standard input, their outputs as JSON on standard output.

tools/examples.py calls it in the folder of the notebook's video. Jupyter is not needed.
"""

import base64
import contextlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt


def run(sources: Sequence[str]) -> list[list[dict[str, Any]]]:
    """Outputs of each cell, as a notebook stores them: what it printed, and the figures that it left open."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for count, source in enumerate(sources, start=1):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(source, f"cell {count}", "exec"), names)
        outputs: list[dict[str, Any]] = []
        if said.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": said.getvalue().splitlines(True)})
        for number in plt.get_fignums():
            picture = io.BytesIO()
            plt.figure(number).savefig(picture, format="png", dpi=100, metadata={"Software": None})
            data = {"image/png": base64.b64encode(picture.getvalue()).decode(), "text/plain": ["<Figure>"]}
            outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})
        plt.close("all")
        found.append(outputs)
    return found


if __name__ == "__main__":
    print(json.dumps(run(json.load(sys.stdin))))
