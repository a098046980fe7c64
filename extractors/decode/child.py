"""The decoder's child process, which process.py starts: it reads requests from stdin and puts frames into the ring."""

import json
import math
import mmap
import os
import signal
import sys
import time
import traceback
from dataclasses import asdict, astuple
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from extractors.config import FeatureConfig, Stretch, cores
from extractors.decode.container import MOST_THREADS, THREAD_BYTES, DecoderUnavailable, ReadError, VideoError
from extractors.decode.grid import Frames
from extractors.snippets import frame_range, snippet_range

SIGN_OF_LIFE = 1.0  # seconds; a child that reads but has no frame for so long sends a sign of life


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
        if line.strip() in ("", "."):  # slots that were given back after the last frame
            continue
        try:
            request = json.loads(line)
            cv2.setNumThreads(threads_of(request))
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

    Each thread of the decoder, and of OpenCV, which resizes frames, has a stack of mostly 8 MiB, and all of it counts
    from the start. The decoder's threads also hold frames, THREAD_BYTES in total. For 16 threads that is
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

    def tick() -> None:
        nonlocal alive
        if (now := time.monotonic()) > alive + SIGN_OF_LIFE:
            alive = now
            _answer(answers, {"alive": True})

    if request["home"] is not None:
        os.chdir(request["home"])
    path, gpu, threads = Path(request["path"]), request["gpu"], request["threads"]
    with Frames(path, config.fps, request["short_side"], gpu, tick, threads) as frames:
        first, last = snippet_range(Stretch(request["start"], end), frames.origin, config)
        begin, stop = request["span"]
        first, last = max(first, begin), min(last, math.inf if stop is None else stop)
        info = asdict(frames.info) | {"path": request["path"]}
        header = {"info": info, "origin": frames.origin, "size": frames.size, "first": first}
        header["seekable"] = frames.seekable
        _answer(answers, header | {"last": None if math.isinf(last) else last})
        offer = _ask(questions)
        with Path(offer["ring"]).open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            ring = np.frombuffer(mapped, np.uint8).reshape(offer["slots"], *frames.size, 3)
            _answer(answers, {"ready": True})
            try:
                for sent, (k, picture) in enumerate(frames.grid(*frame_range(first, last, config), request["seek"])):
                    if sent >= offer["slots"]:
                        _ask(questions)
                    slot = sent % offer["slots"]
                    ring[slot] = picture
                    alive = time.monotonic()
                    _answer(answers, {"k": k, "slot": slot} | _seen(frames))
            finally:
                del ring
        missing = frames.missing if frames.exhausted else 0.0
        _answer(answers, {"end": frames.end, "exhausted": frames.exhausted, "missing": missing} | _seen(frames))


def _seen(frames: Frames) -> dict[str, Any]:
    return {"damage": astuple(frames.damage), "sought": frames.sought}


def _ask(questions: IO[str]) -> dict[str, Any]:
    line = questions.readline()
    if not line:
        raise EOFError
    return {} if line.strip() == "." else json.loads(line)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
