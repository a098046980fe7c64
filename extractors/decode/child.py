"""The decoder's child process, which process.py starts: it reads requests from stdin and puts frames into the ring."""

import json
import math
import mmap
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from extractors.config import FeatureConfig, Stretch, cores
from extractors.decode.container import MOST_THREADS, THREAD_BYTES
from extractors.decode.converters import MOST, Converters, Job
from extractors.decode.grid import Frames, Lost
from extractors.decode.spans import Border, Plan, plan
from extractors.decode.video import DecoderUnavailable, ReadError, VideoError
from extractors.snippets import frame_range, snippet_range

SIGN_OF_LIFE = 1.0  # seconds; a child that reads but has no frame for so long sends a sign of life
GROUPS = 8  # The parent is told of an eighth of the ring at once,
PATIENCE = 0.01  # or of what is ready after so many seconds.
FREE = '{"free"'  # how a line begins that gives slots back


def serve(memory: int = 0) -> None:
    """Serve requests until stdin ends. `memory`: bytes that a video may take; 0: any amount."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they may reach the whole group; the parent handles them
        signal.signal(number, signal.SIG_IGN)
    held = held_memory()
    # FFmpeg or one of its libraries may print: the pipe gets another number, so that it carries answers alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _answer(answers, {"alive": True})  # so that a crash over the first video is not mistaken for a failed start
    for line in sys.stdin:
        if line.startswith(FREE) or not line.strip():  # slots that were given back after the last frame
            continue
        try:
            request = json.loads(line)
            cv2.setNumThreads(1)  # each picture has one thread
            limit_memory(memory and held + memory + beside(threads_of(request)))
            _serve_video(request, sys.stdin, answers)
        except (VideoError, DecoderUnavailable) as error:
            kinds = {"unavailable": DecoderUnavailable, "unreadable": ReadError}
            _answer(answers, {"error": str(error)} | {name: isinstance(error, k) for name, k in kinds.items()})
        except (BrokenPipeError, EOFError):
            return
        except MemoryError:
            _answer(answers, {"error": _TOO_LARGE.format(path=json.loads(line)["path"], limit=memory / 2**30)})
        except Exception:
            _answer(answers, {"bug": traceback.format_exc()})


_TOO_LARGE = (
    "{path}: decoding it takes more than {limit:.3g} GiB of memory; if its pictures really are that large, raise "
    "--memory, else the file is damaged."
)


def limit_memory(size: int) -> None:
    """On Linux, limit the memory of this process to `size` bytes; 0: no limit."""
    if size and sys.platform == "linux":
        import resource  # not on Windows

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def held_memory() -> int:
    """Bytes that the interpreter and its libraries take already; 0 on systems without that limit."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux, or no /proc
        return 0
    return int(status.partition("VmData:")[2].split()[0]) * 1024


def threads_of(request: dict[str, Any]) -> int:
    """The most threads that the decoder for a request can have."""
    return min(request["threads"] or cores(), MOST_THREADS)


def beside(threads: int) -> int:
    """Bytes that this many threads take for any video. They are added to the limit, which is for the video alone.

    Each thread of the decoder, and each that makes pictures, has a stack of mostly 8 MiB, and all of it counts from the
    start. The decoder's threads also hold frames, THREAD_BYTES in total. For 16 threads that is
    2 * 16 * 8 MiB + 1 GiB = 1.25 GiB.
    """
    return 2 * threads * stack_size() + (THREAD_BYTES if threads > 1 else 0)


def stack_size() -> int:
    """Bytes of a thread's stack, by `ulimit -s`. For an unlimited stack glibc takes 2 MiB, and we allow 8."""
    if sys.platform == "win32":
        return 1 << 20
    import resource

    size = resource.getrlimit(resource.RLIMIT_STACK)[0]
    return 8 << 20 if size == resource.RLIM_INFINITY else size


def _answer(answers: IO[str], message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _serve_video(request: dict[str, Any], questions: IO[str], answers: IO[str]) -> None:
    config = FeatureConfig(fps=request["fps"], length=request["length"], stride=request["stride"])
    end = math.inf if request["end"] is None else request["end"]
    alive = time.monotonic()
    sending: _Sending | None = None

    def tick() -> None:
        nonlocal alive
        if sending is not None:
            sending.go_on()
        if (now := time.monotonic()) > max(alive, sending.last if sending is not None else 0.0) + SIGN_OF_LIFE:
            alive = now
            _answer(answers, {"alive": True})

    if request["home"] is not None:
        os.chdir(request["home"])
    path, gpu, threads = Path(request["path"]), request["gpu"], request["threads"]
    shared = request.get("several")  # what several.py asks for
    divided = Plan()
    if shared is not None:
        known, least = shared["plan"], (shared["least"], shared["frames"])
        divided = Plan(**known) if known else plan(path, request["short_side"], config.fps, least)
        threads = shared["threads"] if divided.keys else threads
    reading = Frames(path, config.fps, request["short_side"], gpu, tick, threads)
    reading.border = Border(divided.keys) if divided.keys else None
    with reading as frames:
        first, last = snippet_range(Stretch(request["start"], end), frames.origin, config)
        begin, stop = request["span"]
        first, last = max(first, begin), min(last, math.inf if stop is None else stop)
        info = asdict(frames.info) | {"path": request["path"]}
        header = {"info": info, "origin": frames.origin, "size": frames.size, "first": first}
        header["seekable"] = frames.seekable
        if shared is not None and shared["plan"] is None:
            divided = within(divided, frames, *frame_range(first, last, config))
            header["plan"] = asdict(divided)
        if frames.border is not None:
            frames.border.keys = divided.keys
        _answer(answers, header | {"last": None if math.isinf(last) else last})
        offer = _ask(questions)
        with Path(offer["ring"]).open("r+b") as file:  # unmapped with the last array that uses it
            ring = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8).reshape(offer["slots"], *frames.size, 3)
        _answer(answers, {"ready": True})
        every = spans(divided.keys, offer.get("share", 0), offer.get("of", 1))
        with Converters(converters(threads or threads_of(request))) as pool:
            sending = _Sending(frames, ring, pool, questions, answers)
            for key, ends in every:
                points = frame_range(first, last, config)
                _answer(answers, _span(frames, sending, (key, divided.ahead), ends, points, request["seek"]))
        sending = None


def within(divided: Plan, frames: Frames, first: int, last: float) -> Plan:
    """The plan for the grid points first <= k < last alone."""
    points = [(key, frames.point(key + divided.ahead)) for key in divided.keys]
    keys = [key for key, k in points if first + frames.fps < k < last - frames.fps]
    return replace(divided, keys=keys)


def spans(keys: Sequence[int], share: int, of: int) -> Iterator[tuple[int | None, Sequence[int]]]:
    """A decoder's share of the spans: the keyframe with which each begins (None: the first), and all behind that."""
    for number in range(share, len(keys) + 1, of):
        yield keys[number - 1] if number else None, keys[number:]


def _span(
    frames: Frames,
    sending: "_Sending",
    begin: tuple[int | None, int],
    ends: Sequence[int],
    points: tuple[int, float],
    seek: bool,
) -> dict[str, Any]:
    """Send the frames of a span that begins with a keyframe (`Frames.span`), or at the first point; its last answer."""
    key, ahead = begin
    (first, last), found = points, None
    try:
        if key is None:
            if first:  # not the first frame of the video: forget what was met on the way
                frames.border = Border(ends) if ends else None
            found = frames.frames(first, last, seek)
        else:
            frames.border = Border(ends)
            found = frames.span(key, ahead, last)
    except Lost:
        return {"end": frames.end, "lost": True}
    for k, frame in found or ():
        sending.add(k, frame)
    sending.finish()
    damage, sought = _seen(frames)
    until = frames.until(last)
    answer = {"end": frames.end, "exhausted": frames.exhausted, "damage": damage, "sought": sought}
    answer |= {"missing": frames.missing if frames.exhausted else 0.0, "empty": found is None}
    return answer | {"until": None if math.isinf(until) else until}


_Seen = tuple[tuple[int, int, int], bool]
"""the values of a Damage, and `sought`"""


def converters(threads: int) -> int:
    """How many threads make pictures beside so many threads of the decoder."""
    return min(MOST, threads // 2) if threads > 2 else 0


class _Sending:
    """Puts the pictures of frames into the ring, in order, and tells the parent of several at once.

    The parent gives slots back in groups, too, and is only asked for them when none is free.
    """

    def __init__(
        self, frames: Frames, ring: NDArray[np.uint8], pool: Converters, questions: IO[str], answers: IO[str]
    ) -> None:
        self._frames, self._ring, self._pool = frames, ring, pool
        self._questions, self._answers = questions, answers
        self._group = max(len(ring) // GROUPS, 1)
        self._open: deque[tuple[int, _Seen, Job]] = deque()
        """(grid point, what is known of the file, picture) for each frame that is being converted"""
        self._newest: tuple[av.VideoFrame, NDArray[np.uint8], Job] | None = None
        self._used = 0
        """slots that were filled and not given back"""
        self._sent = 0
        self._ready: list[int] = []
        """grid points whose pictures are in the ring, and of which the parent does not know yet"""
        self._seen: _Seen = ((0, 0, 0), False)
        self.last = time.monotonic()
        """when the parent last heard of a frame"""

    def add(self, k: int, frame: av.VideoFrame) -> None:
        """Have the picture of a frame made; it is for grid point k."""
        self.go_on()
        while self._used == len(self._ring):
            self._clear(0)
            self._tell()
            self._used -= int(_ask(self._questions)["free"])
        slot = self._ring[self._sent % len(self._ring)]
        self._sent += 1
        self._used += 1
        before = self._newest[1:] if self._newest is not None and self._newest[0] is frame else None

        def convert() -> None:
            if before is None:
                self._frames.picture(frame, slot)
            else:
                before[1].wait()
                slot[:] = before[0]

        job = self._pool.submit(convert)
        self._newest = (frame, slot, job)
        self._open.append((k, _seen(self._frames), job))
        # A slot must not be filled again while it is being copied into the next one.
        self._clear(min(self._pool.most, len(self._ring) - 2))

    def go_on(self) -> None:
        """Tell the parent of what is ready, unless it has just heard of something."""
        while self._open and self._open[0][2].done:
            self._clear(len(self._open) - 1)
        if self._ready and time.monotonic() > self.last + PATIENCE:
            self._tell()

    def finish(self) -> None:
        """Wait for all pictures, and tell of them."""
        self._newest = None
        self._clear(0)
        self._tell()

    def _clear(self, most: int) -> None:
        """Wait until no more than `most` frames are being converted."""
        while len(self._open) > most:
            k, seen, job = self._open.popleft()
            job.wait()
            if seen != self._seen:
                self._tell()
                self._seen = seen
            self._ready.append(k)
            if len(self._ready) >= self._group:
                self._tell()

    def _tell(self) -> None:
        if self._ready:
            self.last = time.monotonic()
            damage, sought = self._seen
            ready = {"k": self._ready[0], "frames": len(self._ready)}
            _answer(self._answers, ready | {"damage": damage, "sought": sought})
            self._ready.clear()


def _seen(frames: Frames) -> _Seen:
    damage = frames.damage
    return (damage.errors, damage.jumps, damage.made_up), frames.sought


def _ask(questions: IO[str]) -> dict[str, Any]:
    line = questions.readline()
    if not line:
        raise EOFError
    answer: dict[str, Any] = json.loads(line)
    return answer


if __name__ == "__main__":
    serve(int(sys.argv[1]))
