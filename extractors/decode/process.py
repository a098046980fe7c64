"""Decoding in a process of its own: a file that crashes the decoder costs that video alone (PyAV#2344).

The child decodes frames, resizes them and puts them into a ring of slots in shared memory (a file that both processes
map, and that is unlinked at once). Its lines on a pipe say how many slots are filled, in their order, and ours how many
are free again; one line is for several frames where they come fast. So the child is at most one ring ahead of the
networks, and memory does not grow with the video. One child serves many videos.

A file may also make the child hang or use too much memory. A watchdog ends a child that gives no sign of life, and the
child limits its own memory.

The child is a plain subprocess, not one of multiprocessing, which would import the caller's `__main__` again and so run
a user's script twice.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from extractors.config import WHOLE, FeatureConfig, Limits, Stretch
from extractors.decode.video import (
    Clip,
    Damage,
    DecoderUnavailable,
    Image,
    ReadError,
    VideoError,
    VideoInfo,
    ring_slots,
)
from support.files import shared_file
from support.paths import program

WATCH = 0.2  # seconds between two looks of the watchdog


class DecoderBug(RuntimeError):
    """A bug in the child: an error that no file explains. The child's traceback is added as a note."""


class Decoder:
    """The child process, which is started when it is first needed, and again after a crash."""

    def __init__(self, gpu: int | None = None, limits: Limits | None = None, threads: int = 0) -> None:
        """`gpu`: decode with NVDEC on that GPU. `threads`: of a decoder on the CPU; 0: the number of cores."""
        self.gpu, self.threads, self.limits = gpu, threads, limits or Limits()
        self._ended = ""
        """why the watchdog ended the child"""
        self._child: subprocess.Popen[str] | None = None
        self._finalizer: weakref.finalize | None = None
        self.answered = False
        """whether the child has sent anything yet"""
        self._busy = False
        """whether the child is working on a video, rather than waiting for one"""
        self._deadline = math.inf
        self._watchdog: threading.Thread | None = None
        self._watched_child: tuple[subprocess.Popen[str], float, float] | None = None
        """the child that we wait for, the time limit for a sign of life, and the one for the whole video"""

    @contextlib.contextmanager
    def open(
        self,
        path: Path,
        config: FeatureConfig,
        stretch: Stretch = WHOLE,
        take: Callable[[Image], Any] = np.copy,
        span: tuple[int, float] = (0, math.inf),
        seek: bool = True,
        deadline: float = math.inf,
        skip: int = 0,
    ) -> Iterator[tuple[Clip, Iterator[tuple[int, Any]]]]:
        """Open a video; gives what is known about it and its grid frames (k, (H, W, 3) uint8 RGB), to be read once.

        The frames are those of the snippets that cover `stretch`, their short side `config.short_side`.

        Args:
            take: is called with each frame in shared memory, which is overwritten afterwards, and returns the value to
                give in its place.
            span: only the snippets span[0] <= i < span[1] of the video.
            seek: False: read the file from its start, even if it allows seeking.
            deadline: by time.monotonic().
            skip: grid points before this one are read, and not given.

        Raises:
            VideoError: the file cannot be decoded, crashed the decoder or exceeded a limit, here or while frames are
                read.
            DecoderUnavailable: there is no NVDEC.
        """
        with self.talk(path, deadline) as talk:
            talk.send(self.request(path, config, stretch, span, seek))
            clip = clip_of(talk.receive(), path)
            with ring(clip.size, ring_slots(clip.size)) as (name, memory):
                talk.send({"ring": str(name), "slots": len(memory)})
                talk.receive()  # the child has opened the ring, so its name is not needed any more:
                with contextlib.suppress(PermissionError):  # Windows does not remove the name of an open file
                    name.unlink()  # nothing is left behind even if both processes are killed
                yield clip, _frames(talk, Slots(talk, memory, take), clip, skip)

    def request(
        self, path: Path, config: FeatureConfig, stretch: Stretch, span: tuple[int, float], seek: bool
    ) -> dict[str, Any]:
        """What the child is asked, with the arguments of `open`."""
        return {
            "path": str(path),
            "home": None if path.is_absolute() else str(Path.cwd()),  # it may have changed since the child started
            "fps": config.fps,
            "short_side": config.short_side,
            "length": config.length,
            "stride": config.stride,
            "start": stretch.start,
            "end": None if stretch.open_ended else stretch.end,
            "span": (span[0], None if math.isinf(span[1]) else span[1]),
            "seek": seek,
            "gpu": self.gpu,
            "threads": self.threads,
        }

    @contextlib.contextmanager
    def talk(self, path: Path, deadline: float) -> Iterator["Talk"]:
        """The talk with the child about one video. If it is in the middle of frames at the end, it is ended."""
        talk = Talk(self, self._running(), path)
        self._busy = True
        self._deadline = deadline
        try:
            yield talk
        finally:
            if self._busy:  # with frames that nobody wants any more
                self.close()

    def _running(self) -> "subprocess.Popen[str]":
        if self._child is None or self._child.poll() is not None:
            self.close()
            root = str(Path(__file__).resolve().parents[2])
            paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
            self.answered = False
            self._ended = ""
            try:
                self._child = subprocess.Popen(
                    self._command(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # FFmpeg's own messages; important ones come as answers
                    text=True,
                    # One thread for numpy's products, which are small: every thread of a pool takes memory at once.
                    env=os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError as error:
                raise DecoderUnavailable(
                    f"the decoder's process cannot be started ({sys.executable}: {error.strerror}); "
                    f"see `{program()} doctor`."
                ) from error
            self._finalizer = weakref.finalize(self, _kill, self._child)
        return self._child

    def _command(self) -> list[str]:
        """The command line of the child. With -P it imports no module from the current folder."""
        memory = 0 if self.gpu is not None else round(self.limits.memory * 2**30)  # a GPU driver maps any amount
        return [sys.executable, "-P", "-m", "extractors.decode.child", str(memory)]

    def close(self) -> None:
        """End the child; the next video starts a new one."""
        if self._finalizer is not None:
            self._finalizer()
        self._child = self._finalizer = None
        self._busy = False

    @contextlib.contextmanager
    def watched(self, child: "subprocess.Popen[str]") -> Iterator[None]:
        """Have the watchdog end the child if this block, which waits for the child, takes too long."""
        stalled, late = time.monotonic() + self.limits.stall, self._deadline
        if self._watchdog is None or not self._watchdog.is_alive():
            self._watchdog = threading.Thread(target=_watch, args=(weakref.ref(self),), name="watchdog", daemon=True)
            self._watched_child = (child, stalled, late)
            self._watchdog.start()
        self._watched_child = (child, stalled, late)
        try:
            yield
        finally:
            self._watched_child = None

    def idle(self, child: "subprocess.Popen[str]") -> None:
        """Note that a child waits for the next video."""
        if child is self._child:  # and not another child that was started since then
            self._busy = False

    def look(self) -> None:
        """End the child if it has been silent for too long; the watchdog calls this."""
        if (watched := self._watched_child) is None:
            return
        child, stalled, late = watched
        if (now := time.monotonic()) > min(stalled, late):
            self._ended = "late" if now > late else "stalled"
            child.kill()

    def crashed(self, child: "subprocess.Popen[str]", path: Path) -> VideoError:
        """The error of a child that has ended."""
        code = child.wait()
        if self._ended == "late":
            return VideoError(f"{path}: took longer than --timeout allows; raise it, or leave it out.")
        if self._ended == "stalled":
            return VideoError(
                f"{path}: the decoder gave no sign of life for {self.limits.stall:g} s and was ended; the file is "
                "damaged, get it again or convert it (on a slow disk: raise stall under [limits] of --config)."
            )
        if not self.answered:
            return VideoError(f"{path}: the decoder did not start (exit code {code}); see `{program()} doctor`.")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return VideoError(f"{path}: crashed the decoder ({how}); the file is damaged, get it again or convert it.")


class Talk:
    """What a decoder and its child say to each other about one video."""

    def __init__(self, decoder: Decoder, child: "subprocess.Popen[str]", path: Path) -> None:
        self._decoder, self._child, self._path = decoder, child, path

    def send(self, message: dict[str, Any]) -> None:
        """Send one line.

        Raises:
            VideoError: the child has crashed.
        """
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        except OSError:
            raise self._decoder.crashed(self._child, self._path) from None

    def receive(self) -> dict[str, Any]:
        """Wait for one answer that is not a mere sign of life.

        Raises:
            VideoError, DecoderUnavailable: as `Decoder.open`.
        """
        assert self._child.stdout is not None
        while True:
            with self._decoder.watched(self._child):
                line = self._child.stdout.readline()
            if not line.endswith("\n"):
                raise self._decoder.crashed(self._child, self._path)
            self._decoder.answered = True
            answer: dict[str, Any] = json.loads(line)
            if "alive" not in answer:
                break
        if "error" in answer:
            self.done()
            kind = DecoderUnavailable if answer.get("unavailable") else VideoError
            raise (ReadError if answer.get("unreadable") else kind)(answer["error"])
        if "bug" in answer:
            last = answer["bug"].strip().splitlines()[-1]
            failed = DecoderBug(f"the decoder failed on {self._path} ({last})")
            failed.add_note(f"In the decoder's process:\n{answer['bug']}")
            raise failed
        return answer

    def done(self) -> None:
        """Note that the child waits for the next video."""
        self._decoder.idle(self._child)


class Slots:
    """The frames that a child puts into its ring, in order."""

    def __init__(self, talk: Talk, memory: Image, take: Callable[[Image], Any]) -> None:
        """`memory`: (slots, H, W, 3); `take`: as in `Decoder.open`."""
        self._talk, self._memory, self._take = talk, memory, take
        self._taken = 0
        self.end: dict[str, Any] = {}
        """what the child said behind the last frame"""

    def read(self, clip: Clip, skip: int = 0) -> Iterator[tuple[int, Any]]:
        """The frames up to the child's next `end`; the damage in `clip` is kept up to date."""
        while "end" not in (answer := self._talk.receive()):
            clip.damage, clip.sought = Damage(*answer["damage"]), answer["sought"]
            for k in range(answer["k"], answer["k"] + answer["frames"]):
                frame = None if k < skip else self._take(self._memory[self._taken % len(self._memory)])
                self._taken += 1
                if k == answer["k"] + answer["frames"] - 1:  # their slots are free again
                    self._talk.send({"free": answer["frames"]})
                if k >= skip:
                    yield k, frame
        self.end = answer


def _frames(talk: Talk, slots: Slots, clip: Clip, skip: int) -> Iterator[tuple[int, Any]]:
    """The frames of a video, and what is known of it at its end."""
    yield from slots.read(clip, skip)
    talk.done()
    clip.damage, clip.sought = Damage(*slots.end["damage"]), slots.end["sought"]
    clip.end, clip.exhausted, clip.missing = slots.end["end"], slots.end["exhausted"], slots.end["missing"]


def clip_of(header: dict[str, Any], path: Path) -> Clip:
    """What a child's first answer says about a video."""
    return Clip(
        info=VideoInfo(**header["info"] | {"path": path}),
        origin=header["origin"],
        first=header["first"],
        last=math.inf if header["last"] is None else header["last"],
        size=tuple(header["size"]),
        seekable=header["seekable"],
    )


def _watch(decoder: "weakref.ref[Decoder]") -> None:
    while (watched := decoder()) is not None:
        watched.look()
        del watched  # so that it is not kept alive while we sleep
        time.sleep(WATCH)


def _kill(child: "subprocess.Popen[str]") -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def ring(size: tuple[int, int], slots: int) -> Iterator[tuple[Path, Image]]:
    """A mapped file of slots: its name, and its content as (slots, H, W, 3) uint8. It is in memory if possible."""
    with shared_file(slots * size[0] * size[1] * 3) as (name, content):
        yield name, np.frombuffer(content, np.uint8).reshape(slots, *size, 3)
