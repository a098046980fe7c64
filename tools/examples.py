"""Write, into the documents, what the commands beside them print for the video of the README's picture.

    python tools/examples.py [--corpus DIR | --video match.mp4] [--check]

The video is `score_01` of benchmarks/named_sports.py, cut together from the corpus (some minutes); --video takes one
that was made before. Needs the corpus, the I3D weights and matplotlib (for the notebook). --check writes nothing, and
fails where a document shows something else.
The picture itself: `run match.mp4 -o .`, then the `plot` command that stands below it, with named_sports' truth.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

HALF, NAME = "score", "score_01"
# Of each document: the options of the `run match.mp4` whose table it shows, in the order in which the tables stand.
TABLES = {
    "README.md": ["-o results"],
    "docs/first-video.md": ["", "--classes 'golf driving'"],
    "docs/wrong.md": ["--threshold 0.15 --all"],
}
NOTEBOOK = "docs/notebook.ipynb"
RESULT = "docs/formats.md"  # shows the first segment of results/match.json
TABLE = re.compile(r"^    match\.mp4  .*\n(?:^    .*\n)+", re.MULTILINE)
DOCUMENT = re.compile(r"^```json\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
SHORTENED = re.compile(r"^\(shortened: .*\n", re.MULTILINE)


def make_video(corpus: Path, folder: Path, video: Path | None) -> None:
    """match.mp4, cut together unless it was made before, and truth.json: what happens in it."""
    import cv2

    from benchmarks.named_sports import BACKGROUND, SPORTS, instances, plan
    from benchmarks.sportsmini import clip_lengths, encode

    cv2.setNumThreads(1)
    videos, _ = plan(clip_lengths(corpus, (*SPORTS, BACKGROUND)))
    pieces = videos[HALF][NAME]
    database = {"match": {"annotations": instances(pieces)}}
    (folder / "truth.json").write_text(json.dumps({"database": database}))
    if video is None:
        encode(pieces, corpus, folder / "match.mp4")
    else:
        (folder / "match.mp4").symlink_to(video.absolute())


def printed(folder: Path, options: str) -> str:
    """What `run match.mp4` prints with these options, in a folder where the video is."""
    command = f'"$0" "$1" run match.mp4 {options}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, str(ROOT / "cli.py")],
        cwd=folder,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def regenerated(folder: Path, texts: Mapping[str, str]) -> dict[str, str]:
    """The documents with what the commands print now. `texts`: by name, as they are."""
    found = {}
    for name, runs in TABLES.items():
        tables = iter(["".join(f"    {line.rstrip()}\n" for line in printed(folder, o).splitlines()) for o in runs])
        shown = len(TABLE.findall(texts[name]))
        if shown != len(runs):
            raise SystemExit(f"{name} shows {shown} tables of match.mp4, and {len(runs)} commands are known for them")
        found[name] = TABLE.sub(lambda _, tables=tables: next(tables), texts[name])
    result = json.loads((folder / "results" / "match.json").read_text())
    found[RESULT] = with_result(texts[RESULT], result)
    return found


def with_result(text: str, result: dict[str, object]) -> str:
    """docs/formats.md with a result, of which one segment is shown, and nothing of where it came from."""
    segments = result["segments"]
    assert isinstance(segments, list)
    lines = [
        f"  {json.dumps(key)}: {json.dumps(value)}"
        for key, value in (result | {"segments": "SEGMENTS", "provenance": {}}).items()
    ]
    shown = "{\n" + ",\n".join(lines).replace('"SEGMENTS"', f"[\n    {json.dumps(segments[0])}\n  ]") + "\n}\n"
    text = DOCUMENT.sub(lambda _: f"```json\n{shown}```\n", text, count=1)
    more = f"(shortened: {len(segments) - 1} more segments, and the contents of `provenance`.)\n"
    return SHORTENED.sub(lambda _: more, text, count=1)


def with_outputs(text: str, folder: Path) -> str:
    """The notebook after all its cells were run in a folder that holds match.mp4 and truth.json.

    The pictures stay as they are if nothing that is printed has changed: their bytes depend on matplotlib's version.
    """
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "cells.py")],
        input=json.dumps(["".join(cell["source"]) for cell in cells]),
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    new = json.loads(done.stdout)
    if [said(cell["outputs"]) for cell in cells] == [said(outputs) for outputs in new]:
        return text
    for count, (cell, outputs) in enumerate(zip(cells, new, strict=True), start=1):
        cell |= {"execution_count": count, "outputs": outputs}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def said(outputs: Sequence[dict[str, Any]]) -> str:
    """What a cell printed."""
    return "".join(line for output in outputs for line in output.get("text", []))


def differences(texts: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Lines that the documents show and the commands do not print, and the other way round."""
    import difflib

    return [
        line
        for name, text in new.items()
        for line in difflib.unified_diff(texts[name].splitlines(), text.splitlines(), name, "printed now", "", "", 0)
    ]


def main() -> None:
    """Regenerate, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path(os.environ.get("JCDNET_CORPUS", "../shared/corpus")))
    parser.add_argument("--video", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_video(arguments.corpus, folder, arguments.video)
        texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in (*TABLES, RESULT, NOTEBOOK)}
        new = regenerated(folder, texts) | {NOTEBOOK: with_outputs(texts[NOTEBOOK], folder)}
    if differ := differences(texts, new):
        print("\n".join(differ))
    if arguments.check:
        raise SystemExit(bool(differ))
    for name, text in new.items():
        (ROOT / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
