"""The compiled TV-L1 kernels one by one, against plain NumPy and OpenCV."""

import ast
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from extractors.flow import numba_cache, numba_tvl1, tvl1
from extractors.flow import numba_kernels as kernels

U = np.uint64
HEIGHT, WIDTH = 23, 37  # no multiple of a vector


class State:
    """A workspace filled with noise, and its planes as images."""

    def __init__(self, seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> None:
        scratch = numba_tvl1.workspace(height, width)
        self.rows, self.fields, _, _, _, self.saved, self.taps, self.padded, lines = scratch
        self.line = lines[0]
        self.size = U(height), U(width)
        rng = np.random.default_rng(seed)
        for index, plane in enumerate(kernels.PLANES):
            scale = {"ix": 8.0, "iy": 8.0, "rho": 5.0}.get(plane, 0.5)
            self.image(plane)[:] = rng.standard_normal((height, width)) * scale
            assert self.fields[2, index, 16] == self.image(plane)[0, 0]
        self.image("inv")[:] = 1 / (self.image("ix") ** 2 + self.image("iy") ** 2)
        for plane in ("p11", "p21"):  # where the forward difference is 0, p stays 0
            self.image(plane)[:, -1] = 0
        for plane in ("p12", "p22"):
            self.image(plane)[-1] = 0

    def image(self, plane: str) -> np.ndarray:
        height, width = map(int, self.size)
        return self.rows[plane][2 : 2 + height, 16 : 16 + width]

    def iterate(self, count: int) -> list[float]:
        errors = np.zeros(4)
        kernels.iterate(self.rows, *self.size, U(count), self.line, errors)
        return [float(error) for error in errors[:count]]


def numpy_iteration(s: dict[str, np.ndarray]) -> float:
    """One iteration as the equations say it, in double precision."""
    bound = tvl1.LAMBDA * tvl1.THETA
    f = -np.clip((s["rho"] + s["ix"] * s["u"] + s["iy"] * s["v"]) * s["inv"], -bound, bound)
    moved = 0.0
    for name, slope, a, b in (("u", "ix", "p11", "p12"), ("v", "iy", "p21", "p22")):
        divergence = np.diff(s[a], axis=1, prepend=0) + np.diff(s[b], axis=0, prepend=0)
        change = f * s[slope] + tvl1.THETA * divergence
        s[name] = s[name] + change
        moved += float((change**2).sum())
        dx = np.diff(s[name], axis=1, append=s[name][:, -1:])
        dy = np.diff(s[name], axis=0, append=s[name][-1:])
        shrink = 1 + tvl1.TAU / tvl1.THETA * np.hypot(dx, dy)
        s[a] = (s[a] + tvl1.TAU / tvl1.THETA * dx) / shrink
        s[b] = (s[b] + tvl1.TAU / tvl1.THETA * dy) / shrink
    return moved


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (1, 1), (2, 48), (5, 16), (30, 1)])
def test_iteration_is_the_equations(height: int, width: int) -> None:
    state = State(1, height, width)
    plain = {plane: state.image(plane).astype(np.float64) for plane in kernels.PLANES}
    for _ in range(5):
        (moved,) = state.iterate(1)
        assert moved == pytest.approx(numpy_iteration(plain), rel=1e-4)
    for plane in ("u", "v", "p11", "p12", "p21", "p22"):
        np.testing.assert_allclose(state.image(plane), plain[plane], atol=2e-4, err_msg=plane)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_iterations_in_one_pass_are_single_ones(count: int) -> None:
    together, singly = State(2), State(2)
    for _ in range(3):
        errors = together.iterate(count)
        assert errors == [singly.iterate(1)[0] for _ in range(count)]
        assert together.fields[2 : HEIGHT + 2, :, 16 : 16 + WIDTH].tobytes() == (
            singly.fields[2 : HEIGHT + 2, :, 16 : 16 + WIDTH].tobytes()
        )


def test_relaxation_ends_where_single_steps_end(monkeypatch: pytest.MonkeyPatch) -> None:
    singly = State(3)
    errors, fields = [], []
    for _ in range(tvl1.INNER):
        errors += singly.iterate(1)
        fields.append(b"".join(singly.image(plane).tobytes() for plane in kernels.PLANES))
    passes: list[int] = []
    iterate = kernels.iterate
    warm = State(3)  # compiled before `iterate` is another one
    kernels.relax(warm.rows, warm.fields, *warm.size, np.float32(0), warm.saved, warm.line)

    def counting(rows: Any, height: Any, width: Any, count: Any, line: Any, found: Any) -> None:
        passes.append(int(count))
        iterate(rows, height, width, count, line, found)

    monkeypatch.setattr(kernels, "iterate", counting)
    several = again = 0
    for stop in np.float32([*errors, *(error * 1.001 for error in errors), 0]):
        first = next((k for k, error in enumerate(errors) if not error > float(stop)), tvl1.INNER - 1)
        for relax in (kernels.relax, kernels.relax.py_func):  # the second with the counting `iterate`
            state = State(3)
            passes.clear()
            error, done = relax(state.rows, state.fields, *state.size, stop, state.saved, state.line)
            assert (done, error) == (first + 1, errors[first])
            assert b"".join(state.image(plane).tobytes() for plane in kernels.PLANES) == fields[first]
        several += max(passes) > 1
        again += sum(passes) > done
    assert several > 10
    assert again > 3  # an iteration within a pass was the last


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (1, 1), (2, 3), (40, 130)])
def test_median(height: int, width: int) -> None:
    state = State(4, height, width)
    image = state.image("v")
    image[::3] = np.round(image[::3])  # ties
    before = image.copy()
    kernels.median(state.fields, 1, *state.size, state.padded, state.line)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(before, 2, mode="edge"), (5, 5))
    assert (state.image("v") == np.median(windows, axis=(2, 3))).all()


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (64, 81), (2, 5)])
def test_resize_is_opencvs(height: int, width: int) -> None:
    image = np.random.default_rng(5).random((height, width), np.float32) * 255
    small = np.asarray(cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_LINEAR))
    line = State(0, height, width).line
    for source, target, steps in (
        (image, small, (tvl1.SOURCE_STEP, tvl1.SOURCE_STEP)),
        (small, np.asarray(cv2.resize(small, (width, height))), (len(small) / height, small.shape[1] / width)),
    ):
        out = np.empty(target.shape, np.float32)
        sizes = [U(side) for side in (*source.shape, *target.shape)]
        kernels.resize(np.ascontiguousarray(source), out[:, :], *sizes, *steps, np.float32(1), line)
        np.testing.assert_allclose(out, target, atol=1e-3)


def brute_force_sample(image: np.ndarray, x: float, y: float) -> float:
    """Bicubic sample in double precision, pixel by pixel, 0 outside."""

    def kernel(t: float) -> float:
        a, t = tvl1.CUBIC_A, abs(t)
        near, far = ((a + 2) * t - (a + 3)) * t * t + 1, ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
        return near if t <= 1 else far if t < 2 else 0.0

    total = 0.0
    for j in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
        for i in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            if 0 <= j < image.shape[0] and 0 <= i < image.shape[1]:
                total += float(image[j, i]) * kernel(x - i) * kernel(y - j)
    return total


def test_warp() -> None:
    state = State(6)
    rng = np.random.default_rng(6)
    first, second = (rng.random((HEIGHT, WIDTH), np.float32) * 255 for _ in range(2))
    state.image("u")[:] *= 8  # some of them far outside
    state.image("v")[:] *= 8
    state.image("u")[0, :4] = (-1e6, 1e6, 500, -3)
    u, v = state.image("u").copy(), state.image("v").copy()
    kernels.set_taps(second, state.taps, *state.size)
    kernels.warp(state.rows, first, state.taps, *state.size, state.line)
    edged = np.pad(second, 1, mode="edge")
    slopes = (edged[1:-1, 2:] - edged[1:-1, :-2]) / 2, (edged[2:, 1:-1] - edged[:-2, 1:-1]) / 2
    for y in range(HEIGHT):
        for x in range(WIDTH):
            at = float(np.float32(x) + u[y, x]), float(np.float32(y) + v[y, x])
            warped, ix, iy = (brute_force_sample(image, *at) for image in (second, *slopes))
            assert state.image("ix")[y, x] == pytest.approx(ix, abs=2e-3)
            assert state.image("iy")[y, x] == pytest.approx(iy, abs=2e-3)
            slope = float(state.image("ix")[y, x]), float(state.image("iy")[y, x])
            rho = warped - slope[0] * u[y, x] - slope[1] * v[y, x] - first[y, x]
            assert state.image("rho")[y, x] == pytest.approx(rho, rel=1e-4, abs=5e-3)
            norm = slope[0] ** 2 + slope[1] ** 2
            assert state.image("inv")[y, x] == pytest.approx(1 / norm if norm > tvl1.FLAT else 0, rel=1e-5)


@pytest.mark.parametrize("width", [1, 16, 31, 32, 240, 340, 455, 1024, 4096])
def test_rows_have_room(width: int) -> None:
    step = numba_tvl1.stride(width)
    assert step >= 272
    assert step % 32 == 16
    assert 16 + -(-width // 16) * 16 < step <= max(272, width + 64)


def test_compiled_after_the_warm_up() -> None:
    numba_tvl1.warmup(100)
    assert numba_tvl1.is_compiled(100)
    assert numba_tvl1.is_compiled(240)  # the same stride
    assert not numba_tvl1.is_compiled(30_000)


def run(code: str, **environment: str) -> str:
    env: dict[str, Any] = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"} | environment
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=Path(__file__).parents[3], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode() + done.stderr.decode()


def test_the_cache_is_the_products_unless_it_is_set(tmp_path: Path) -> None:
    code = "from extractors.flow import numba_kernels as k; print(k.CACHED, k.config.CACHE_DIR)"
    assert run(code, JCDNET_CACHE=str(tmp_path)).split() == ["True", str(tmp_path / "numba")]
    own = str(tmp_path / "own")
    assert run(code, JCDNET_CACHE=str(tmp_path), NUMBA_CACHE_DIR=own).split() == ["True", own]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners and modes here")
def test_machine_code_is_kept_where_nobody_else_can_put_it(tmp_path: Path) -> None:
    """A team's cache of features is no place for what is run as it is."""
    code = "from extractors.flow import numba_kernels as k; print(k.CACHED, k.config.CACHE_DIR)"
    team, own = tmp_path / "team", tmp_path / "own" / "jcdnet" / "numba"
    team.mkdir()
    team.chmod(0o777)
    places = {"JCDNET_CACHE": str(team), "XDG_CACHE_HOME": str(tmp_path / "own")}
    assert run(code, **places).split() == ["True", str(own)]
    assert own.stat().st_mode & 0o777 == 0o700
    team.chmod(0o755)
    assert run(code, **places).split() == ["True", str(team / "numba")]
    (team / "numba").chmod(0o775)
    assert run(code, **places).split() == ["True", str(own)]


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_that_another_user_made_first_is_not_run_from(tmp_path: Path) -> None:
    """A container whose /cache is HOME too, and may be written by any user: the first one's folders are his."""
    code = "from extractors.flow import numba_kernels as k; print(k.CACHED, k.config.CACHE_DIR)"
    cache, temporary = tmp_path / "cache", tmp_path / "tmp"
    for folder in (cache, temporary):
        folder.mkdir()
        folder.chmod(0o1777)
    places = {"JCDNET_CACHE": str(cache), "XDG_CACHE_HOME": str(cache / ".cache"), "TMPDIR": str(temporary)}
    assert run(code, **places).split() == ["True", str(cache / "numba")]  # the sticky bit keeps it ours
    for folder in (cache / "numba", cache / ".cache"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, 2002, 2002)
    assert run(code, **places).split() == ["True", str(temporary / "jcdnet-numba-0")]
    os.chown(temporary / "jcdnet-numba-0", 2002, 2002)
    folder = Path(run(code, **places).split()[1])
    assert folder.parent == temporary and folder.stat().st_uid == 0 and folder.stat().st_mode & 0o777 == 0o700


def test_an_unwritable_cache_is_said_and_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file" / "numba"))
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR to a folder that can be written"):
        assert not numba_cache.prepare()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "new" / "numba"))
    with warnings.catch_warnings(action="error"):
        assert numba_cache.prepare()
    # The kernels load without a cache as well (compiling them here would take too long).
    code = "from extractors.flow import numba_kernels as k; print(k.CACHED)"
    said = run(code, NUMBA_CACHE_DIR=str(tmp_path / "file"))
    assert said.startswith("False")
    assert "every run compiles them again" in said


@pytest.mark.slow
def test_flow_without_a_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code = (
        "import numpy as np; from extractors.flow import FLOWS, numba_tvl1 as n;"
        "print(n.is_compiled(20), FLOWS['numba'](np.zeros((2, 20, 20), np.uint8)).sum())"
    )
    assert run(code, NUMBA_CACHE_DIR=str(tmp_path / "file")).startswith("False 0.0")


def test_a_kernel_has_one_name_in_every_process() -> None:
    """Else two kernels from disk can have the same name, and the process that loads both crashes."""
    code = """
from numba.core.itanium_mangler import mangle
from extractors.flow import numba_tvl1
names = {width: mangle("solve", numba_tvl1._types(width)) for width in WIDTHS}
print([names[50], names[1000]])
"""
    names = run(code.replace("WIDTHS", "(50, 1000)"))
    assert len(set(ast.literal_eval(names))) == 2
    assert run(code.replace("WIDTHS", "(1000, 50)")) == names


@pytest.mark.slow
def test_kernels_that_were_compiled_in_two_processes_run_in_one(tmp_path: Path) -> None:
    code = """
import numpy as np
from extractors.flow import numba_tvl1
def field(width):
    grey = np.random.default_rng(width).integers(0, 256, (2, 20, width), dtype=np.uint8)
    return numba_tvl1.flow(grey, 1).tobytes()
print([hash(field(width)) for width in WIDTHS])
"""
    once = {"PYTHONHASHSEED": "0", "NUMBA_CACHE_DIR": str(tmp_path / "a")}
    apart = once | {"NUMBA_CACHE_DIR": str(tmp_path / "b")}
    expected = run(code.replace("WIDTHS", "(1000, 50)"), **once)
    run(code.replace("WIDTHS", "(50,)"), **apart)
    assert run(code.replace("WIDTHS", "(1000, 50)"), **apart) == expected  # compiles one, and loads one
    assert run(code.replace("WIDTHS", "(1000, 50)"), **apart) == expected  # loads both
