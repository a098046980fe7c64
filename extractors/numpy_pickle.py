"""Pickles of NumPy arrays, read without running anything: published weights and feature sets come so.

To admit NumPy's own constructors would not do: they believe what a file says of its memory. A file that names only
`_reconstruct`, `ndarray` and `dtype` can declare its bytes to be pointers to objects, and the first look at them ends
the process, or worse. So stand-ins take the constructors' places, and build arrays of plain numbers and text.
"""

import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


def unpickle_arrays(file: IO[bytes], encoding: str = "ASCII") -> Any:
    """What a pickle holds: numbers, text, lists, dicts and arrays of these; tuples come as lists.

    Arrays of numbers are read-only. `encoding`: of text that Python 2 wrote; "bytes" leaves it as bytes.

    Raises:
        Exception: of any kind, where the pickle holds anything else or is damaged; nothing in it was run.
    """
    return _plain(_ArrayUnpickler(file, encoding=encoding).load())


def text(value: Any) -> str:
    """Text of Python 3, or the bytes of Python 2 as text."""
    if not isinstance(value, str | bytes):
        raise ValueError(f"{value!r:.40} where text is expected")
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class _Dtype:
    """Stands in for numpy.dtype, whose own state could declare a file's bytes to be pointers to objects."""

    def __init__(self, code: str | bytes, align: object = False, copy: object = False) -> None:
        self.dtype = np.dtype(text(code))
        if self.dtype.kind not in "biufSUO":
            raise pickle.UnpicklingError(f"it holds an array of {self.dtype}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError("it holds an array with fields")
        if text(order) in "<>":
            self.dtype = self.dtype.newbyteorder(text(order))  # type: ignore[arg-type]


class _Array:
    """Stands in for numpy.ndarray; numbers stay in the bytes that the unpickler read, without a copy."""

    values: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if kind.dtype.hasobject:
            flat, fortran = np.empty(len(data), object), False  # NumPy lists objects row by row, whatever it says
            for i, item in enumerate(data):  # at once, NumPy would look into lists of equal length
                flat[i] = _plain(item)
        else:
            flat = np.frombuffer(data, kind.dtype) if len(data) else np.empty(0, kind.dtype)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


def _plain(item: Any) -> Any:
    """The same with arrays for their stand-ins."""
    if isinstance(item, _Array):
        return item.values
    if isinstance(item, list | tuple):
        return [_plain(part) for part in item]
    if isinstance(item, dict):
        return {_plain(key): _plain(value) for key, value in item.items()}
    if not isinstance(item, str | bytes | int | float | np.generic | None):
        raise pickle.UnpicklingError(f"it holds a {type(item).__name__}")
    return item


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _Array:
        raise pickle.UnpicklingError("it holds an array of a kind of its own")
    return _Array()


def _scalar(kind: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0]  # which refuses objects by itself


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,  # NumPy 2
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "_codecs.encode": _encode,
    "__builtin__.bytes": _no_bytes,
    "builtins.bytes": _no_bytes,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits plain data and stand-ins for NumPy's constructors: no code of the file's choosing can run.

    Stand-ins, because NumPy's own constructors believe what a file says of its memory.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (known := _STAND_INS.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known
