"""Parts of features: however a video is cut, whatever is killed, the joined features are the same bytes."""

import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import coded, digest, encode
from hypothesis import given
from hypothesis import strategies as st

from extractors.config import FeatureConfig, Limits, Stretch
from extractors.decode.video import Damage, VideoError
from extractors.features import Extractor, FeaturesError
from extractors.parts import Part, Seen, gaps, load_part, ordered, save_part
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import Extraction
from support.errors import Stopped

pytestmark = pytest.mark.usefixtures("stubs")

CONFIG = FeatureConfig(backbone="stub", flow="stub", short_side=48, crop=32)
H264 = {"preset": "medium", "bf": "3", "g": "60"}
FRAMES = 201
KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {"options": H264},
    "a.mov": {"options": H264, "rate": 30},
    "a.mkv": {"options": H264},
    "a.ts": {"options": H264, "sound": 8},
    "a.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "40"}},
    "h264.avi": {"options": H264},
    "open-gop.mp4": {"codec": "libx265", "options": {"x265-params": "open-gop=1:keyint=40:bframes=4:log-level=none"}},
    "a.gif": {"codec": "gif"},
}


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return Extractor(CONFIG, ("rgb", "flow"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def video(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else encode(path, [coded(k) for k in range(FRAMES)], **KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_every_cut_gives_the_same_bytes(extractor: Extractor, folder: Path, tmp_path: Path, name: str) -> None:
    path = video(folder, name)
    whole, content = extractor.chunk(path), content_hash(path)
    count = len(whole.times)
    assert count > 8
    for size in (1, 3, 8, 64):
        found = FeatureCache(tmp_path / str(size), size).features(path, content, extractor)
        assert digest(found) == digest(whole), size
    # Each part by a reading of its own, as workers do it, in any order.
    cache = FeatureCache(tmp_path / "workers", 3)
    state = Extraction(cache, path, content, extractor)
    state.look()
    spans = [(a, a + 3) for a in range(0, count, 3)]
    random.Random(1).shuffle(spans)
    for a, b in spans:
        state.extract(dataclasses.replace(state.chunks()[0], first=a, last=b if a + 3 < count else math.inf), each=True)
    again = Extraction(cache, path, content, extractor)
    again.look()
    assert again.next_chunk() is None
    assert digest(again.finish()) == digest(whole)
    assert [p.suffix for p in cache.folder.rglob("*") if p.is_file()] == [".npz", ".npz"]


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_stretch_is_the_same_however_it_is_cut(extractor: Extractor, folder: Path, tmp_path: Path, name: str) -> None:
    path = video(folder, name)
    expected = extractor.chunk(path, Stretch(1.5, 5.0))
    found = FeatureCache(tmp_path, 2).features(path, content_hash(path), extractor, Stretch(1.5, 5.0))
    assert digest(found) == digest(expected)
    with pytest.raises(
        VideoError, match=r"nothing after 50 s; the video ends at \d+\.\d\d s, give an earlier --start\."
    ):
        FeatureCache(tmp_path, 2).features(path, content_hash(path), extractor, Stretch(50.0))


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_a_damaged_file_gives_the_same_however_it_is_cut(
    extractor: Extractor, folder: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    for seed in range(4, 14):  # one damage in thirty is such that nothing in the file shows it
        data = bytearray(video(folder, name).read_bytes())
        rng = random.Random(seed)
        for at in (len(data) * 2 // 5, len(data) * 3 // 5):
            data[at : at + 300] = rng.randbytes(300)
        path.write_bytes(data)
        whole, content = extractor.chunk(path), content_hash(path)
        if whole.partial or name == "a.mp4":
            break
    assert whole.partial or name == "a.mp4"
    cache = FeatureCache(tmp_path / "cache", 2)
    assert digest(cache.features(path, content, extractor)) == digest(whole)
    count = len(whole.times)
    for order in (list(range(0, count, 2)), list(range(0, count, 2))[::-1]):
        cache = FeatureCache(tmp_path / f"cache {order[0]}", 2)
        state = Extraction(cache, path, content, extractor)
        state.look()
        for a in order:
            chunk = dataclasses.replace(state.chunks()[0], first=a, last=a + 2 if a + 2 < count else math.inf)
            state.extract(chunk, each=True)
        assert digest(cache.features(path, content, extractor)) == digest(whole)


def test_a_video_of_very_many_parts(folder: Path, tmp_path: Path) -> None:
    """Whatever is kept from part to part must not pile up."""
    dense = Extractor(dataclasses.replace(CONFIG, length=1, stride=1, short_side=32), ("rgb",))
    path = tmp_path / "long.mp4"
    encode(path, [coded(k % 50, 32, 32) for k in range(1200)])
    parts = list(dense.parts(path, size=1))
    assert [part.first for part in parts] == list(range(1200))
    assert dense.join(parts, whole=True).rgb.tobytes() == dense.chunk(path).rgb.tobytes()


def test_stopping_keeps_what_is_there(extractor: Extractor, folder: Path, tmp_path: Path) -> None:
    path = video(folder, "a.mp4")
    whole, content = extractor.chunk(path), content_hash(path)
    cache = FeatureCache(tmp_path, 64)
    asked: list[int] = []
    told: list[int] = []
    with pytest.raises(Stopped):
        cache.features(path, content, extractor, stop=lambda: bool(asked.append(0)) or len(asked) >= 2)
    found = cache.features(path, content, extractor, on_progress=lambda stage, done, _: told.append(done))
    assert digest(found) == digest(whole)
    assert min(told) > 4  # two batches were there


def test_a_damaged_part_is_told_and_made_again(extractor: Extractor, folder: Path, tmp_path: Path) -> None:
    path = video(folder, "a.mp4")
    whole, content = extractor.chunk(path), content_hash(path)
    rng = random.Random(2)
    for attempt in range(6):
        cache = FeatureCache(tmp_path / str(attempt), 3)
        count = [0]

        def later(count: list[int] = count) -> bool:
            count[0] += 1
            return count[0] > 5

        with pytest.raises(Stopped):
            cache.features(path, content, extractor, stop=later)
        parts = sorted(cache.folder.rglob("*.parts/*.npz"))
        assert len(parts) >= 4
        hit = rng.choice(parts)
        data = hit.read_bytes()
        hit.write_bytes(data[: rng.randrange(len(data))])
        told: list[str] = []
        assert digest(cache.features(path, content, extractor, on_damage=told.append)) == digest(whole)
        assert len(told) == 1 and str(hit) in told[0]


def part(first: int, until: int, exhausted: bool = False) -> Part:
    seen = Seen({}, 1.0, 0.0, 1.0, exhausted, 0.0, False, False)
    rows = np.zeros((until - first, 2), np.float32)
    return Part(first, until, {"rgb": rows}, np.zeros((until - first, 2)), seen)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=8), st.integers(0, 10), st.integers(11, 40))
def test_gaps_and_parts_tile_the_stretch(spans: list[tuple[int, int]], first: int, last: int) -> None:
    parts = ordered([part(a, a + n) for a, n in spans])
    covered = {i for p in parts for i in range(p.first, p.until)}
    assert sum(p.until - p.first for p in parts) == len(covered)
    missing = [i for a, b in gaps(parts, first, last) for i in range(a, min(int(b), last))]
    assert sorted({*missing} | (covered & {*range(first, last)})) == list(range(first, last))
    assert not {*missing} & covered


def test_behind_the_end_there_is_no_gap() -> None:
    assert gaps([part(0, 4), part(4, 6, exhausted=True)], 0, math.inf) == []
    assert gaps([part(0, 4)], 0, math.inf) == [(4, math.inf)]
    assert gaps([part(2, 4, exhausted=True)], 0, math.inf) == [(0, 2.0)]


def test_a_part_file_is_whole_or_refused(tmp_path: Path) -> None:
    seen = Seen({"width": 3}, 1.5, 0.1, 1.2, True, 0.3, True, False, Damage(1, 2, 3))
    saved = Part(3, 5, {"rgb": np.ones((2, 3), np.float32)}, np.ones((2, 2)), seen)
    save_part(saved, tmp_path / "a.npz")
    loaded = load_part(tmp_path / "a.npz")
    assert (loaded.first, loaded.until, loaded.seen) == (3, 5, seen)
    data = (tmp_path / "a.npz").read_bytes()
    for size in range(0, len(data), 31):
        (tmp_path / "b.npz").write_bytes(data[:size])
        with pytest.raises(FeaturesError, match=r"b\.npz: not a whole part"):
            load_part(tmp_path / "b.npz")
    save_part(dataclasses.replace(saved, until=9, seen=dataclasses.replace(seen, exhausted=False)), tmp_path / "c.npz")
    with pytest.raises(FeaturesError, match="rows are missing"):
        load_part(tmp_path / "c.npz")


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_timeout_costs_one_video(folder: Path) -> None:
    slow = Extractor(CONFIG, ("rgb",), limits=Limits(timeout=1e-3))
    with pytest.raises(VideoError, match=r"a\.mp4: took longer than --timeout allows"):
        slow.chunk(video(folder, "a.mp4"))


def test_killed_at_random_moments_it_ends_in_the_same_bytes(extractor: Extractor, folder: Path, tmp_path: Path) -> None:
    """A small one; test_faults.py kills whole batches."""
    path = video(folder, "a.mp4")
    whole, content = extractor.chunk(path), content_hash(path)
    script = tmp_path / "work.py"
    script.write_text(
        "import sys, time; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "import conftest as c, test_parts as t; from extractors import flow\n"
        "from extractors.backbones import registry\n"
        "registry.BACKBONES['stub'] = lambda stream, path: c.Backbone(c.Pixels, 480, f'stub {path}')\n"
        "flow.FLOWS['stub'], flow.VERSIONS['stub'] = c.difference, lambda: 'stub-1'\n"
        "e = t.Extractor(t.CONFIG, ('rgb', 'flow')); p = Path(sys.argv[1])\n"
        "step = lambda *_: time.sleep(.01)\n"
        f"print('go', flush=True); t.FeatureCache(Path({str(tmp_path / 'c')!r}), 1).features(p, {content!r}, e,"
        " on_progress=step)"
    )
    root = Path(__file__).parents[2]
    rng = random.Random(0)
    command = [sys.executable, script, path, root, root / "tests", Path(__file__).parent]
    before = set(Path("/dev/shm").glob("jcdnet-*"))
    for _ in range(2):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert child.stdout is not None and child.stdout.readline()
        time.sleep(rng.random() * 0.6)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    cache = FeatureCache(tmp_path / "c", 1)
    assert digest(cache.features(path, content, extractor)) == digest(whole)
    assert [p.suffix for p in cache.folder.rglob("*") if p.is_file()] == [".npz", ".npz"]
    assert set(Path("/dev/shm").glob("jcdnet-*")) <= before
