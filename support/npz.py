"""Reads arrays of an .npz within bounds: a few bytes of a ZIP can claim, or unpack to, more than memory holds."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

SMALL = 64 << 20  # bytes that any file may unpack to, with 8 bytes or more for each number, since readers widen them
RATIO = 20  # a larger file may unpack to this many times its size; features and curves compress to half at best


def read_npz(path: Path, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """Read those of the named arrays that an .npz holds; nothing else in it, and never a pickle.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no .npz, is damaged, or unpacks to more than an honest file of its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            there = {info.filename: info for info in archive.infolist()}
            wanted = {name: there[f"{name}.npy"] for name in names if f"{name}.npy" in there}
            room = max(SMALL, RATIO * path.stat().st_size)
            if (whole := sum(info.file_size for info in wanted.values())) > room:
                raise ValueError(f"it would unfold to {whole / 2**30:.1f} GiB")
            found = {}
            for name, info in wanted.items():
                found[name] = _read(archive, info, room)
                room -= _widened(found[name].shape, found[name].dtype)
            return found
    except (OSError, ValueError):
        raise
    except Exception as error:  # a damaged ZIP raises many kinds
        raise ValueError(str(error) or type(error).__name__) from error


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: int) -> NDArray[Any]:
    with archive.open(info) as member:
        shape, dtype = _header(member)
        # These checks come before NumPy allocates memory.
        if math.prod(shape) * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} claims {shape} in {info.file_size} bytes")
        if (needs := _widened(shape, dtype)) > room:
            raise ValueError(f"{info.filename} would unfold to {needs / 2**30:.1f} GiB")
    with archive.open(info) as member:
        return np.asarray(np.lib.format.read_array(member, allow_pickle=False))


def _widened(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    return math.prod(shape) * max(dtype.itemsize, 8)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
