"""What a machine may lack or refuse is one sentence and exit code 4, or 3 for one video; it is no bug of ours."""

import ctypes
import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import coded, encode

from extractors.backbones import weights
from extractors.flow import numba_cache
from support.errors import ENVIRONMENT, MEMORY, USAGE, circumstance, exit_code
from support.paths import NoHome, cache_dir

ROOT = Path(__file__).parents[2]
needs_weights = pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and permissions as Linux has them")
# As a container is run whose /etc/passwd does not know the user.
UNKNOWN = """
import os, pwd, sys
os.environ.pop("HOME", None)
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", [coded(k) for k in range(20)])


def limited(**limits: int) -> Callable[[], None]:
    """In the child, before it starts: no process of root's that may do anything, and these limits."""

    def apply() -> None:
        for name, size in limits.items():
            resource.setrlimit(getattr(resource, name), (size, size))
        if os.getuid() == 0:
            libc = ctypes.CDLL(None)
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: root reads and writes what it likes
                libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP

    return apply


def command(
    *arguments: object,
    code: str = "import sys",
    cwd: Path | None = None,
    limits: dict[str, int] | None = None,
    **environment: str,
) -> tuple[int, str]:
    """Run the command line in a process of its own: (exit code, standard error)."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport cli\ncli.main()", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=cwd,
        preexec_fn=limited(**limits or {}),
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr and "a bug in jcdnet" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def error_of(said: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


# --- no home ----------------------------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("arguments", [["cache"], ["models"], ["doctor"], ["run", str(ROOT / "cli.py")]])
def test_a_user_without_a_home_is_told_what_to_set(arguments: list[str]) -> None:
    code, said = command(*arguments, code=UNKNOWN, JCDNET_CACHE="", XDG_CACHE_HOME="")
    assert code == 4
    assert "HOME is not set, and this user has no home folder; set JCDNET_CACHE" in said


@linux
@needs_weights
def test_a_user_without_a_home_but_with_a_cache_gets_everything(clip: Path, tmp_path: Path) -> None:
    places = {"JCDNET_CACHE": str(tmp_path / "cache"), "XDG_CACHE_HOME": "", "NUMBA_CACHE_DIR": ""}
    code, said = command("run", clip, "-o", tmp_path / "out", "-f", "json,html", code=UNKNOWN, **places)
    assert code == 0, said
    code, said = command("plot", tmp_path / "out" / "clip.json", code=UNKNOWN, **places)
    assert code == 0, said


def test_a_tilde_that_leads_nowhere_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCDNET_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(NoHome, match="JCDNET_CACHE is ~nobody-of-this-name/cache"):
        cache_dir()
    assert exit_code(NoHome("x")) == ENVIRONMENT
    monkeypatch.setenv("JCDNET_WEIGHTS", "~nobody-of-this-name/weights")
    with pytest.raises(NoHome, match="JCDNET_WEIGHTS is"):
        weights.weights_dir()


def test_kernels_need_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise NoHome("none")

    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "open"))
    monkeypatch.setattr(numba_cache, "user_cache_dir", nowhere)
    assert numba_cache.prepare()


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A cache whose features may not be looked at."""
    folder = tmp_path / "closed"
    (folder / "features" / "ab").mkdir(parents=True)
    (folder / "features").chmod(0)
    return folder


@linux
@pytest.mark.parametrize("arguments", [["cache"], ["cache", "list"], ["cache", "verify"]])
def test_a_cache_that_may_not_be_read_is_said(closed: Path, arguments: list[str]) -> None:
    code, said = command(*arguments, JCDNET_CACHE=str(closed))
    assert code == 4
    assert f"{closed / 'features'}: permission is denied" in error_of(said)


@linux
@needs_weights
def test_a_run_goes_on_without_a_cache_that_may_not_be_read(closed: Path, clip: Path, tmp_path: Path) -> None:
    code, said = command("run", clip, "-o", tmp_path / "out", JCDNET_CACHE=str(closed))
    assert code == 0, said
    assert said.count(f"{closed / 'features'}: features cannot be kept there (Permission denied)") == 1
    assert "damaged" not in said
    code, said = command("run", clip, "--jobs", "2", JCDNET_CACHE=str(closed))
    assert code == 4
    assert "it cannot be written (Permission denied); name another folder with --cache-dir" in error_of(said)


@linux
@pytest.mark.parametrize("arguments", [["cache"], ["cache", "list"], ["cache", "verify"]])
def test_a_file_where_the_cache_should_be_is_said(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("")
    code, said = command(*arguments, JCDNET_CACHE=str(tmp_path / "file"))
    assert code == 4
    assert f"{tmp_path / 'file'}: is a file, and the cache needs a folder" in error_of(said)


@linux
def test_a_video_in_a_folder_that_may_not_be_entered(tmp_path: Path) -> None:
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "a.mp4").write_bytes(b"x")
    (tmp_path / "no").chmod(0)
    code, said = command("run", "no/a.mp4", "--dry-run", cwd=tmp_path)
    assert code == 3
    assert "no/a.mp4: cannot be read (Permission denied)" in error_of(said)


@linux
def test_the_working_folder_is_gone(tmp_path: Path) -> None:
    leave = f"import os, sys\nos.chdir({str(tmp_path / 'gone')!r})\nos.rmdir({str(tmp_path / 'gone')!r})"
    for arguments in (["run", "a.mp4"], ["cache"], ["doctor"]):
        (tmp_path / "gone").mkdir()
        code, said = command(*arguments, code=leave)
        assert code == 4
        assert "the folder that this is run in is gone; change into another one" in error_of(said)


@needs_weights
def test_no_folder_for_temporary_files(clip: Path, tmp_path: Path) -> None:
    # /dev/shm and the folders for temporary files take nothing: as on a system that is read-only but for the data.
    deny = """
import os, tempfile
tempfile._candidate_tempdir_list = lambda: ["/nowhere/tmp"]
access = os.access
os.access = lambda path, mode, **more: path != "/dev/shm" and access(path, mode, **more)
"""
    # Linux has memory that no folder holds, so nothing is missed there; elsewhere the run says what to do.
    for without, wanted in (("", 0 if hasattr(os, "memfd_create") else 4), ("vars(os).pop('memfd_create', None)\n", 4)):
        cache = str(tmp_path / f"cache{wanted}")
        code, said = command("run", clip, "-o", tmp_path / f"out{wanted}", code=deny + without, JCDNET_CACHE=cache)
        assert code == wanted, said
        assert ("no folder for temporary files can be written; set TMPDIR" in str(said)) == (wanted == 4)


# --- names ------------------------------------------------------------------------------------------------------------


@linux
@needs_weights
@pytest.mark.parametrize(("length", "code"), [(245, 0), (246, 3), (252, 3)])
def test_the_longest_names(clip: Path, tmp_path: Path, length: int, code: int, jcdnet: Callable[..., object]) -> None:
    video = tmp_path / ("n" * (length - 3) + "é.mp4")  # é is two bytes, in a file system of 255
    assert len(os.fsencode(video.name)) == length + 3
    video.write_bytes(clip.read_bytes())
    found, _, said = jcdnet("run", video, "-o", tmp_path / "out")  # type: ignore[misc]
    assert found == code, said
    assert ("its result would be called nnnnnnnnnnnnnnnnnnnn….scores.npz" in said) == (code == 3)
    assert "a bug" not in said


@linux
def test_names_that_no_file_system_takes(tmp_path: Path, jcdnet: Callable[..., tuple[int, str, str]]) -> None:
    code, _, said = jcdnet("run", "n" * 300 + ".mp4", "--dry-run")
    assert code == 3
    assert "cannot be read (File name too long)" in error_of(said)
    code, _, said = jcdnet("run", ROOT / "cli.py", "--model", "n" * 300)
    assert code == 2
    assert "this name is longer than the file system takes; shorten it" in error_of(said)


# --- limits -----------------------------------------------------------------------------------------------------------


@linux
@needs_weights
@pytest.mark.parametrize(("size", "jobs"), [(100, 1), (1 << 20, 1), (1 << 20, 2)])
def test_the_limit_on_the_size_of_files(clip: Path, tmp_path: Path, size: int, jobs: int) -> None:
    limits = {"RLIMIT_FSIZE": size}
    code, said = command("run", clip, "--jobs", jobs, limits=limits, JCDNET_CACHE=str(tmp_path / "cache"))
    assert code == 4
    assert "a file would be larger than this process may write; raise the limit (`ulimit -f`)" in error_of(said)


@linux
def test_too_little_memory_for_the_libraries(clip: Path) -> None:
    code, said = command("run", clip, limits={"RLIMIT_AS": 1500 << 20})
    assert code == 4
    assert error_of(said) == f"error: {MEMORY}."


@needs_weights
def test_too_little_memory_for_a_video_costs_that_video(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jcdnet: Callable[..., tuple[int, str, str]]
) -> None:
    from pipeline.api import Pipeline

    def scores(self: Pipeline, features: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Pipeline, "scores", scores)
    code, _, said = jcdnet("run", clip, "--cache-dir", tmp_path / "cache")
    assert code == 3
    assert error_of(said) == f"error: {clip}: {MEMORY}."


@linux
@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    line = f'exec "$0" -c "import cli; cli.main()" cache {closed}'
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JCDNET_CACHE": str(tmp_path)}
    done = subprocess.run(["sh", "-c", line, sys.executable], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    line = f'exec "$0" -c "import cli; cli.main()" run {ROOT}/cli.py -o - {closed}'
    done = subprocess.run(["sh", "-c", line, sys.executable], env=environment, capture_output=True, text=True)
    assert done.returncode == (4 if closed == ">&-" else 3)
    assert ("standard output is closed, and -o - writes to it" in done.stderr) == (closed == ">&-")


def test_nobody_can_be_told(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", "import cli; cli.main()", "run", "cli.py"], cwd=ROOT, stderr=full)
    assert done.returncode in (3, 4)


def test_workers_without_semaphores(monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    from pipeline.workers import backends
    from pipeline.workers.engine import Engine
    from support.errors import EnvironmentMissing

    def none(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(multiprocessing, "Semaphore", none)
    with pytest.raises(EnvironmentMissing, match="workers need semaphores"), backends.started(Engine(jobs=2)):
        pass


def test_the_decoder_cannot_be_started(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from extractors.config import FeatureConfig
    from extractors.decode.process import Decoder
    from extractors.decode.video import DecoderUnavailable

    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with (
        pytest.raises(DecoderUnavailable, match=r"cannot be started \(/nowhere/python: No such file or directory\)"),
        Decoder().open(clip, FeatureConfig()),
    ):
        pass


# --- what is a circumstance, and what a bug ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), ENVIRONMENT, "a/b: permission is denied; "),
        (OSError(errno.EROFS, "Read-only file system", b"a"), ENVIRONMENT, "a: the file system is read-only; "),
        (OSError(errno.EMFILE, "Too many open files"), ENVIRONMENT, r"ulimit -n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ENVIRONMENT, "not enough memory"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), ENVIRONMENT, "ulimit -u"),
        (OSError(errno.EIO, "Input/output error", "x"), ENVIRONMENT, "x: the disk or the share does not answer"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), USAGE, "shorten it"),
        (MemoryError(), ENVIRONMENT, "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), ENVIRONMENT, "enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), ENVIRONMENT, "enough memory"),
        (RuntimeError("can't start new thread"), ENVIRONMENT, "ulimit -u"),
    ],
)
def test_refusals_have_a_cause_and_a_next_step(error: Exception, code: int, said: str) -> None:
    found = circumstance(error)
    assert found is not None and said in str(found)
    assert exit_code(error) == code


@pytest.mark.parametrize(
    "error", [FileNotFoundError(errno.ENOENT, "x", "y"), IsADirectoryError(errno.EISDIR, "x"), KeyError(1), OSError()]
)
def test_what_may_be_a_bug_stays_one(error: Exception) -> None:
    assert circumstance(error) is None
    assert exit_code(error) == 1
