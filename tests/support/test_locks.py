"""Locks have one holder at a time and no dead one, and trust no clock; temporary files are swept."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import files as writing
from support import locks
from support.files import identity, is_alive, sweep, write_atomically, write_temporary
from support.locks import Lock

ROOT = Path(__file__).parents[2]


def other(code: str, *arguments: object) -> subprocess.Popen[str]:
    head = "import sys, time; from pathlib import Path; from support.locks import Lock; path = Path(sys.argv[1])\n"
    command = [sys.executable, "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_one_at_a_time(tmp_path: Path) -> None:
    one, two = Lock(tmp_path / "deep" / "a.lock"), Lock(tmp_path / "deep" / "a.lock")
    assert one.take()
    assert not two.take()
    two.release()  # it is not the holder
    assert not Lock(one.path).take()
    one.release()
    assert two.take()
    two.release()
    assert list(one.path.parent.iterdir()) == []


def test_a_killed_holder_is_seen_at_once(tmp_path: Path) -> None:
    child = other("assert Lock(path).take(); print('mine', flush=True); time.sleep(60)", tmp_path / "a.lock")
    assert child.stdout is not None and child.stdout.readline() == "mine\n"
    assert not Lock(tmp_path / "a.lock").take()
    child.kill()
    child.wait()
    child.stdout.close()
    mine = Lock(tmp_path / "a.lock")
    assert mine.take()
    mine.release()
    assert list(tmp_path.iterdir()) == []


def test_a_silent_holder_on_another_machine_is_given_up_and_a_speaking_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    path.write_text("0123abcd-1-1 somebody 0\n")
    now = [100.0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    mine = Lock(path)
    assert not mine.take()
    for beat in range(1, 5):  # signs of life, for longer than the limit in all
        now[0] += locks.STALE * 0.9
        path.write_text(f"0123abcd-1-1 somebody {beat}\n")
        assert not mine.take()
    now[0] += locks.STALE * 0.9
    assert not mine.take()
    # Wall clocks and the times of files do not matter.
    monkeypatch.setattr(locks.time, "time", lambda: now[0] + 1e9, raising=False)
    os.utime(path, (1, 1))
    assert not mine.take()
    now[0] += locks.STALE * 0.2
    assert mine.take()
    mine.release()


@pytest.mark.parametrize("content", ["", "nonsense", "\0\xff"])
def test_a_file_that_is_no_lock_holds_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    path = tmp_path / "a.lock"
    path.write_text(content)
    now = [100.0]
    monkeypatch.setattr(locks.time, "monotonic", lambda: now[0])
    mine = Lock(path)
    assert not mine.take()
    now[0] += locks.STALE + 1
    assert mine.take()
    mine.release()


def test_a_lock_that_was_taken_in_the_meantime_is_put_back(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text("0123abcd-1-1 the-dead 7\n")
    breaker, winner = Lock(path), Lock(path)
    path.unlink()
    assert winner.take()
    assert not breaker._remove(b"0123abcd-1-1 the-dead 7\n")
    assert path.read_text().startswith(identity())
    winner.release()
    assert list(tmp_path.iterdir()) == []


def test_the_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.02)
    lock = Lock(tmp_path / "a.lock")
    assert lock.take()
    seen = set()
    for _ in range(200):
        seen.add(lock.path.read_bytes())
        if len(seen) > 3:
            break
        time.sleep(0.02)
    assert len(seen) > 3
    lock.release()


def test_a_lock_whose_folder_is_gone_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: Lock) -> bytes:
        raise PermissionError(13, "Permission denied", str(self.path))

    lock = Lock(tmp_path / "a.lock")
    assert lock.take()
    with monkeypatch.context() as patch, lock.held():
        patch.setattr(Lock, "_read", closed)
        lock.release()


def test_a_disk_that_is_full_without_hard_links_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            Lock(tmp_path / "a.lock").take()
    assert list(tmp_path.iterdir()) == []
    lock = Lock(tmp_path / "a.lock")
    assert lock.take()
    lock.release()


def _count(path: str, out: str, times: int) -> None:
    for _ in range(times):
        lock = Lock(Path(path))
        assert lock.wait()
        with lock.held():
            value = int(Path(out).read_text())
            time.sleep(0.001)
            Path(out).write_text(str(value + 1))


def test_many_processes_never_hold_it_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL", 0.002)
    (tmp_path / "n").write_text("0")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_count, args=(str(tmp_path / "l"), str(tmp_path / "n"), 25)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert (tmp_path / "n").read_text() == "100"


# --- temporary files --------------------------------------------------------------------------------------------------


def test_only_the_temporary_files_of_the_dead_are_swept(tmp_path: Path) -> None:
    write_atomically(tmp_path / "kept.json", b"x")
    mine = write_temporary(tmp_path, "mine.json", b"x")
    code = (
        "from support.files import write_temporary; from pathlib import Path; import sys;"
        "write_temporary(Path(sys.argv[1]), 'dead.json', b'x')"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)
    far = tmp_path / ".far.json.0123abcd-1-1.x1y2z3.part"
    far.write_bytes(b"x")
    (tmp_path / ".hidden").write_bytes(b"x")
    assert len(list(tmp_path.iterdir())) == 5
    assert sweep(tmp_path) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"kept.json", mine.name, far.name, ".hidden"}
    os.utime(far, (time.time() - writing.ABANDONED - 60,) * 2)
    assert sweep(tmp_path) == 1
    assert not far.exists()
    assert sweep(tmp_path / "none") == 0


def test_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_alive(identity()) is True
    machine, number, started = identity().split("-")
    assert is_alive(f"{machine}-{number}-{int(started) + 1}") is False  # the number now belongs to another process
    assert is_alive(f"00000000-{number}-{started}") is None
