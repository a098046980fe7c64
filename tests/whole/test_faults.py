"""What goes wrong in a night: kills, cut files, full disks, hostile videos. Nothing is lost and nothing hangs."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from conftest import coded, encode

from extractors.backbones import weights
from pipeline.run.videos import find_videos

ROOT = Path(__file__).parents[2]
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
SMALL = "[features]\ncrop = 32\nshort_side = 48\n"  # the real network, on a fiftieth of the pixels
H264 = {"preset": "veryfast", "bf": "2", "g": "25"}
OTHER_PRECISIONS = ("bfloat16", "float32")  # beside auto, which is int8 on a CPU with VNNI
LONGEST = 400  # seconds after which something hangs


def jcdnet(*arguments: object, cache: Path) -> subprocess.Popen[str]:
    """The command line, as a process of its own."""
    command = [sys.executable, "cli.py", *map(str, arguments)]
    environment = os.environ | {"JCDNET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def peak_of(child: "subprocess.Popen[str]") -> Iterator[list[int]]:
    """The largest peak (bytes) of a process and those below it. getrusage would tell ours, where that is larger."""
    peak, over = [0], threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            with contextlib.suppress(psutil.Error, OSError):
                top = psutil.Process(child.pid)
                for process in (top, *top.children(recursive=True)):
                    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                        if line.startswith("VmHWM:"):
                            peak[0] = max(peak[0], int(line.split()[1]) * 1024)

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield peak
    finally:
        over.set()
        watching.join()


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    said = child.communicate(timeout=LONGEST)[1]
    return child.returncode, said


def tree(folder: Path) -> dict[str, bytes]:
    """Files and what is in them, but for the run's own report, which holds times."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "_run.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def inodes(cache: Path) -> dict[Path, int]:
    """Which file stands under each name: a file that is written again is another one."""
    found = {}
    for path in cache.rglob("features/*/**/*.npz"):
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat().st_ino
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 6 s."""
    folder = tmp_path_factory.mktemp("footage")
    for k, name in enumerate(("a.mp4", "b.mkv", "sub/c.mp4")):
        (folder / name).parent.mkdir(exist_ok=True)
        encode(folder / name, [coded(j + 500 * k) for j in range(150)], options=H264)
    return folder


# --- kills ------------------------------------------------------------------------------------------------------------


def kill_and_finish(footage: Path, folder: Path, kills: int, longest: float, *flags: object) -> None:
    """The results of a batch that is killed so often are those of one that is not, and no work is done twice."""
    code, said = ended(jcdnet("run", footage, "-o", folder / "whole", *flags, cache=folder / "calm"))
    assert code == 0, said
    rng = random.Random(kills)
    out, cache = folder / "killed", folder / "cache"
    seen: dict[Path, int] = {}
    rings = set(Path("/dev/shm").glob("jcdnet-*"))
    for attempt in range(kills):
        workers = ["--jobs", 2] if attempt % 3 == 2 else []
        child = jcdnet("run", footage, "-o", out, *flags, *workers, cache=cache)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(rng.uniform(0, longest))
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=LONGEST)  # workers hold the pipes until they have seen it
        now = inodes(cache)
        rewritten = [path for path, inode in seen.items() if path in now and now[path] != inode]
        assert rewritten == []
        lost = [path for path in seen if path not in now and path.parent.suffix != ".parts"]
        assert lost == []
        seen |= now
    code, said = ended(jcdnet("run", footage, "-o", out, *flags, cache=cache))
    assert code == 0, said
    now = inodes(cache)
    assert [path for path, inode in seen.items() if path in now and now[path] != inode] == []
    assert tree(out) == tree(folder / "whole")
    calm = tree(folder / "calm" / "features")
    assert tree(cache / "features") == calm  # and so no lock, no part and no temporary file
    assert not [p for place in (out, cache) for p in place.rglob("*") if p.name.startswith(".")]
    assert set(Path("/dev/shm").glob("jcdnet-*")) <= rings


@needs_weights
@pytest.mark.parametrize("precision", ["auto", *(pytest.param(p, marks=pytest.mark.slow) for p in OTHER_PRECISIONS)])
def test_killed_three_times_and_run_to_the_end(footage: Path, config: Path, tmp_path: Path, precision: str) -> None:
    kill_and_finish(footage, tmp_path, 3, 8.0, "--config", config, "--precision", precision)


@needs_weights
@pytest.mark.slow
def test_killed_a_hundred_times(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    folder.mkdir()
    for name in ("TennisRally/TennisRally_002", "GolfSwing/GolfSwing_001", "Badminton/Badminton_001"):
        (folder / f"{Path(name).name}.mp4").symlink_to(corpus / f"{name}.mp4")
    for k in (1, 2, 3, 4, 5):
        name = f"BaseballPitch_{k:03d}.mp4"
        (folder / name).symlink_to(corpus / "BaseballPitch" / name)
    kill_and_finish(folder, tmp_path, 100, 9.0)


@needs_weights
@pytest.mark.parametrize(("number", "jobs"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_request_to_stop_is_followed_cleanly(
    footage: Path, tmp_path: Path, number: signal.Signals, jobs: int
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    child = jcdnet("extract", footage, "-o", out, "--streams", "rgb", "--jobs", jobs, cache=cache)
    until = time.monotonic() + 120
    while not list(cache.rglob("features/*/*.lock")) and time.monotonic() < until:
        time.sleep(0.02)
    child.send_signal(number)
    code, said = ended(child)
    assert code == 130, said
    assert "Traceback" not in said and "what is at hand is finished" in said
    report = json.loads((out / "_run.json").read_text())
    assert report["interrupted"] is True
    assert report["totals"]["not done"] > 0
    left = [p for p in cache.rglob("features/**/*") if p.suffix in (".lock", ".part") or p.name.startswith(".run")]
    assert left == []
    assert not list(out.rglob(".*"))


@needs_weights
def test_every_file_of_the_cache_cut_at_random(footage: Path, config: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    flags = ("--config", config)
    assert ended(jcdnet("run", footage, "-o", tmp_path / "a", *flags, cache=cache))[0] == 0
    rng = random.Random(3)
    entries = list(inodes(cache))
    assert len(entries) == 3
    for path in entries:
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
    code, said = ended(jcdnet("run", footage, "-o", tmp_path / "b", *flags, cache=cache))
    assert code == 0
    assert said.count("damaged cache entry") == 3
    for path in entries:
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
    code, said = ended(jcdnet("cache", "verify", cache=cache))
    assert code == 3 and said.count("not a whole features file") == 3
    assert inodes(cache) == {}


# --- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes folders on a file system of so many kilobytes."""
    made: list[Path] = []

    def make(kilobytes: int) -> Path:
        place = tmp_path / f"disk{len(made)}"
        place.mkdir()
        how = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if not shutil.which("mount") or subprocess.run(how, capture_output=True).returncode:
            pytest.skip("no small file system can be mounted here")
        made.append(place)
        return place

    yield make
    for place in made:
        subprocess.run(["umount", "-l", str(place)], check=True)


@needs_weights
def test_a_full_disk_is_found_before_the_work(footage: Path, config: Path, tmp_path: Path, tiny) -> None:
    code, said = ended(jcdnet("run", footage, "-o", tmp_path / "out", "--config", config, cache=tiny(512)))
    assert code == 4
    assert said.count("error: ") == 1 and "MB are free, and " in said and "cache prune" in said
    assert json.loads((tmp_path / "out" / "_run.json").read_text())["totals"]["not done"] == 3


@needs_weights
def test_a_disk_that_fills_up_loses_nothing(footage: Path, config: Path, tmp_path: Path, tiny) -> None:
    """The folder of results takes two of three; once there is room, the third follows."""
    out, cache = tiny(20), tmp_path / "cache"
    flags = ("-o", out, "--streams", "rgb", "--config", config)
    code, said = ended(jcdnet("extract", footage, *flags, cache=cache))
    assert code == 4, said
    assert said.count("error: ") == 1 and "the disk is full; make room and run again" in said
    before = {path: path.read_bytes() for path in out.rglob("*.npz")}
    assert not list(out.rglob(".*"))
    subprocess.run(["mount", "-o", "remount,size=4m", str(out)], check=True)
    code, said = ended(jcdnet("extract", footage, *flags, cache=cache))
    assert code == 0, said
    assert len(list(out.rglob("*.npz"))) == 3
    assert all(path.read_bytes() == data for path, data in before.items())


# --- hostile files ----------------------------------------------------------------------------------------------------


def gif_bomb(path: Path) -> None:
    """A GIF of 65,535 x 65,535 pixels in 800 bytes."""
    header = b"GIF89a" + b"\xff\xff\xff\xff\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0"
    path.write_bytes(header + frame * 40 + b"\x3b")


def many_frames(path: Path) -> None:
    """An AVI whose header claims 10**9 frames."""
    encode(path, [coded(k) for k in range(40)], codec="mjpeg")
    data = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.index(chunk) + offset
        data[at : at + 4] = (10**9).to_bytes(4, "little")
    path.write_bytes(data)


def large_pictures(path: Path) -> None:
    """A Matroska file whose header claims 100,000 x 100,000 pixels."""
    encode(path, [coded(k, 64, 64) for k in range(40)], codec="mjpeg")
    data = path.read_bytes()
    changed = data.replace(b"\xb0\x81\x40", b"\xb0\x83\x01\x86\xa0"[:3]).replace(bytes([0, 64, 0, 64]), b"\xff" * 4)
    assert changed != data
    path.write_bytes(changed)


def negative_times(path: Path) -> None:
    encode(path, [coded(k) for k in range(60)], options=H264, times=[k / 25 - 1.5 for k in range(60)])


def wrapping_times(path: Path) -> None:
    """An MPEG-TS whose 33-bit clock wraps in the middle."""
    start = 2**33 / 90000 - 1.2
    encode(path, [coded(k) for k in range(75)], options=H264, times=[start + k / 25 for k in range(75)])


def no_frames(path: Path) -> None:
    """A header without a frame behind it."""
    whole = encode(path, [coded(k) for k in range(40)], options=H264).read_bytes()
    path.write_bytes(whole[:1200])


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def cut_mp4(path: Path) -> None:
    whole = encode(path, [coded(k) for k in range(40)], options=H264).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.mp4": (lambda p: p.write_bytes(b""), "the file is empty"),
    "text.mp4": (lambda p: p.write_text("hello"), "not a video that FFmpeg can open"),
    "html.mkv": (lambda p: p.write_text("<html><body>404</body></html>" * 40), "not a video that FFmpeg can open"),
    "zeros.avi": (lambda p: p.write_bytes(bytes(100_000)), "not a video that FFmpeg can open"),
    "noise.mp4": (lambda p: p.write_bytes(random.Random(1).randbytes(100_000)), "not a video that FFmpeg can open"),
    "noise.ts": (lambda p: p.write_bytes(random.Random(2).randbytes(100_000)), "noise.ts: "),
    "sound.mp4": (audio_only, "holds no video stream"),
    "cut.mp4": (cut_mp4, "not a video that FFmpeg can open"),
    "header.mkv": (no_frames, "header.mkv: "),
    "bomb.gif": (gif_bomb, "bomb.gif: "),
    "large.mkv": (large_pictures, "large.mkv: "),
    "zip.mov": (lambda p: p.write_bytes(b"PK\3\4" + bytes(5000)), "not a video that FFmpeg can open"),
    "list.ts": (
        lambda p: p.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n"),
        "not a video that FFmpeg can open",
    ),
    "script.avi": (lambda p: p.write_text("#!/bin/sh\nrm -rf /\n"), "not a video that FFmpeg can open"),
}


@needs_weights
@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_a_folder_of_forty_of_which_fifteen_are_broken(config: Path, tmp_path: Path, step: int) -> None:
    """Each good one (every `step`-th is looked at) has the result that it has alone; each bad one is named with its
    cause; memory is bounded."""
    folder, alone = tmp_path / "night", tmp_path / "alone"
    folder.mkdir()
    good = [f"game {k}.{('mp4', 'mkv', 'avi', 'mov', 'ts')[k % 5]}" for k in range(25)]
    for k, name in enumerate(good):
        codec = {"codec": "mpeg4"} if name.endswith("avi") else {"options": H264}
        encode(folder / name, [coded(j + 100 * k) for j in range(20 + k)], **codec)  # type: ignore[arg-type]
    for name in BROKEN:
        BROKEN[name][0](folder / name)
    (folder / "pipe.mp4").symlink_to("/dev/zero")  # not a file: named, or it would not be looked at
    flags = ("--config", config, "--memory", 2)
    child = jcdnet(
        "run", folder, folder / "nowhere.mp4", folder / "pipe.mp4", "-o", tmp_path / "out", *flags, cache=tmp_path / "c"
    )
    assert child.stderr is not None
    with peak_of(child) as peak:
        said = child.stderr.read()
        assert child.wait() == 3, said
    # Of the largest process below it, too: the decoder, which may have 2 GiB of its own.
    assert 0 < peak[0] < 2.5 * 2**30
    print(f"peak {peak[0] / 2**20:.0f} MB")
    report = json.loads((tmp_path / "out" / "_run.json").read_text())
    failed = {Path(v["video"]).name: v["error"] for v in report["videos"] if v["status"] == "failed"}
    assert set(failed) == {*BROKEN, "nowhere.mp4", "pipe.mp4"}
    assert len(failed) >= 15
    for name, error in failed.items():
        assert error.startswith(str(folder / name)) and BROKEN.get(name, (None, ""))[1] in error, error
        path, _, reason = error.partition(": ")
        # Those that fail for one reason share a sentence, which names the first of many and says where the others are.
        assert f": {reason}" in said, error
        assert path in said or f"names are in {tmp_path / 'out' / '_run.json'}" in said, error
    assert report["totals"]["done"] == 25
    for name in good[::step]:
        stem = Path(name).stem
        single = jcdnet("run", folder / name, "-o", alone / "out", *flags, cache=tmp_path / f"c-{stem}")
        assert ended(single)[0] == 0
        for suffix in (".json", ".scores.npz"):
            mine = (tmp_path / "out" / f"{stem}{suffix}").read_bytes()
            assert mine == (alone / "out" / f"{stem}{suffix}").read_bytes()


@needs_weights
def test_claims_and_clocks_that_are_wrong_still_give_the_pictures(config: Path, tmp_path: Path) -> None:
    many_frames(tmp_path / "many.avi")
    negative_times(tmp_path / "negative.mkv")
    wrapping_times(tmp_path / "wrapping.ts")
    out = tmp_path / "out"
    code, said = ended(jcdnet("run", tmp_path, "-o", out, "--config", config, "--timeout", 300, cache=tmp_path / "c"))
    assert code == 0, said
    found = {p.stem: json.loads(p.read_text()) for p in out.glob("[!_]*.json")}
    assert found["many"]["duration"] == pytest.approx(1.6, abs=0.05)
    assert found["many"]["partial"] is True
    assert found["negative"]["duration"] == pytest.approx(60 / 25, abs=0.05)
    assert found["wrapping"]["duration"] == pytest.approx(75 / 25, abs=0.1)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A copy with random bytes changed, or a stretch of it cut out or off."""
    kind = rng.randrange(3)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 4, 30, 300))):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    if kind == 1:
        return data[: rng.randrange(len(data))]
    at, length = rng.randrange(len(data)), rng.randrange(1, max(len(data) // 3, 2))
    return data[:at] + data[at + length :]


def mutants(folder: Path, originals: Path, count: int) -> int:
    """Copies of a film in five containers, changed at random, with the first bytes kept half of the time."""
    films = []
    for name, how in {
        "a.mp4": {"options": H264},
        "a.mov": {"options": H264},
        "a.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
        "a.mkv": {"options": H264},
        "a.gif": {"codec": "gif"},
    }.items():
        films.append(encode(originals / name, [coded(k) for k in range(50)], **how))  # type: ignore[arg-type]
    rng = random.Random(count)
    for k in range(count):
        film = films[k % len(films)]
        (folder / f"{k:03d}{film.suffix}").write_bytes(mutated(film.read_bytes(), rng))
    return count


def outcomes_of_mutants(config: Path, tmp_path: Path, count: int) -> None:
    folder, originals = tmp_path / "mutants", tmp_path / "originals"
    folder.mkdir()
    originals.mkdir()
    mutants(folder, originals, count)
    flags = ("--config", config, "--timeout", 120, "--memory", 2)
    code, said = ended(jcdnet("run", folder, "-o", tmp_path / "out", *flags, cache=tmp_path / "c"))
    assert code in (0, 3), said
    assert "a bug in jcdnet" not in said and "Traceback" not in said
    report = json.loads((tmp_path / "out" / "_run.json").read_text())
    assert len(report["videos"]) == count
    counts = report["totals"]
    assert counts["not done"] == 0 and counts["done"] > count // 4
    for video in report["videos"]:
        if video["status"] == "failed":
            assert video["error"].startswith(f"{video['video']}: ")
            assert "please report" not in video["error"]
        else:
            assert (tmp_path / "out" / f"{video['name']}.json").is_file()


@needs_weights
def test_mutated_copies_are_results_or_clear_failures(config: Path, tmp_path: Path) -> None:
    outcomes_of_mutants(config, tmp_path, 25)


@needs_weights
@pytest.mark.slow
def test_two_hundred_mutated_copies(config: Path, tmp_path: Path) -> None:
    outcomes_of_mutants(config, tmp_path, 200)


# --- names and folders ------------------------------------------------------------------------------------------------

NAMES = ["new\nline", 'it\'s "quoted"', "🏒 match", "x" * 251, "ж" * 125, "-dash", "a\\b", "[1]*?", " blank "]


@needs_weights
def test_odd_names_come_through(config: Path, tmp_path: Path) -> None:
    film = encode(tmp_path / "film.mp4", [coded(k) for k in range(20)], options=H264)
    folder = tmp_path / "odd"
    folder.mkdir()
    for k, name in enumerate(NAMES):
        (folder / f"{name}.mp4").write_bytes(film.read_bytes() + bytes(k))  # each a content of its own
    code, said = ended(jcdnet("run", folder, "-o", tmp_path / "out", "--config", config, cache=tmp_path / "c"))
    report = json.loads((tmp_path / "out" / "_run.json").read_text())
    status = {Path(v["video"]).stem: v["status"] for v in report["videos"]}
    assert set(status) == set(NAMES)
    for name in NAMES:
        if len(f"{name}.scores.npz".encode()) <= 255:
            assert status[name] == "done", said
            assert (tmp_path / "out" / f"{name}.json").is_file()
        else:  # its results would need a longer name than a file may have
            assert status[name] == "failed" and "and the folder takes 255; rename the video." in said
    assert code == 3 and "a bug" not in said
    code, said = ended(jcdnet("run", folder, "-o", tmp_path / "out", "--config", config, cache=tmp_path / "c"))
    assert code == 3 and "a bug" not in said and said.count("error: ") == 2


def test_links_in_circles_are_gone_through_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for place in ("a/x.mp4", "a/b/y.mp4", "elsewhere/z.mp4"):
        (tmp_path / place).write_bytes(place.encode())
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "b" / "again").symlink_to(tmp_path / "elsewhere")
    found = find_videos([str(tmp_path / "a")])
    assert sorted(job.video.name for job in found) == ["x.mp4", "y.mp4", "z.mp4"]
