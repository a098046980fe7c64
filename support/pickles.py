"""Reads pickles of NumPy arrays without running anything; published weights and feature sets are such pickles.

NumPy's own constructors are not safe, because they trust what a file says about its memory. A file that names only
`_reconstruct`, `ndarray` and `dtype` can declare its bytes to be pointers to objects, and the first access ends the
process, or worse. So stand-ins replace the constructors, and build arrays of plain numbers and text.

The unpickler is the one written in Python. The one in C allocates memory for any memo number that a file names: five
bytes of a file cost it 64 GB.
"""

import pickle
from collections.abc import Callable
from typing import IO, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

# Lists that hold one another by reference unfold without limit. Features and weights have fewer items than this.
MOST = 1_000_000


def unpickle_arrays(file: IO[bytes], encoding: str = "ASCII") -> Any:
    """Read a pickle of numbers, text, lists, dicts and arrays of these; tuples become lists.

    Arrays of numbers are read-only. `encoding` is that of text that Python 2 wrote; "bytes" leaves it as bytes.

    Raises:
        Exception: of any kind, if the pickle is damaged or holds anything else; nothing in it was run.
    """
    return _Plain()(_ArrayUnpickler(file, encoding=encoding).load())


def text(value: Any) -> str:
    """Return text of Python 3, or bytes of Python 2, as text."""
    if not isinstance(value, str | bytes):
        # A list is not shown, because lists that hold one another by reference have no end.
        shown = f"{value!r:.40}" if isinstance(value, int | float | np.generic | None) else f"a {type(value).__name__}"
        raise ValueError(f"{shown} where text is expected")
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


class _Dtype:
    """Stands in for numpy.dtype, whose state could declare a file's bytes to be pointers to objects."""

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
    """Stands in for numpy.ndarray; numbers are not copied from the bytes that the unpickler read."""

    values: NDArray[Any]
    raw = False
    """whether it holds objects that were not made plain yet"""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        if kind.dtype.hasobject:
            # NumPy writes objects row by row, whatever the file says.
            flat, fortran, self.raw = np.empty(len(data), object), False, True
            for i, item in enumerate(data):  # one by one: in one step, NumPy would make lists of equal length an array
                flat[i] = item
        else:
            flat = np.frombuffer(data, kind.dtype) if len(data) else np.empty(0, kind.dtype)
        self.values = flat.reshape(shape, order="F" if fortran else "C")


class _Plain:
    """Replaces stand-ins by arrays, and counts items, so that no file unfolds without limit."""

    def __init__(self) -> None:
        self.left = MOST

    def __call__(self, item: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it unfolds to more than {MOST} items")
        if isinstance(item, _Array):
            if item.raw:  # once only: several items may hold the same array
                item.raw, flat = False, item.values.reshape(-1)
                for i, part in enumerate(flat):
                    flat[i] = self(part)
            return item.values
        if isinstance(item, list | tuple):
            return [self(part) for part in item]
        if isinstance(item, dict):
            return {self(key): self(value) for key, value in item.items()}
        if not isinstance(item, str | bytes | int | float | np.generic | None):
            raise pickle.UnpicklingError(f"it holds a {type(item).__name__}")
        return item


def _reconstruct(subtype: object, shape: object, code: object) -> _Array:
    if subtype is not _Array:
        raise pickle.UnpicklingError("it holds an array of a kind of its own")
    return _Array()


def _scalar(kind: _Dtype, data: bytes) -> Any:
    return np.frombuffer(data, kind.dtype)[0]  # frombuffer itself refuses objects


def _encode(text: str, encoding: str) -> bytes:
    """The function by which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    return b""


class _Function:
    """A function that a pickle can only call. A bare function would let a file set its attributes."""

    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a function")


_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Function(_reconstruct),
    "numpy._core.multiarray._reconstruct": _Function(_reconstruct),  # NumPy 2
    "numpy.core.multiarray.scalar": _Function(_scalar),
    "numpy._core.multiarray.scalar": _Function(_scalar),
    "_codecs.encode": _Function(_encode),
    "__builtin__.bytes": _Function(_no_bytes),
    "builtins.bytes": _Function(_no_bytes),
}


class _ArrayUnpickler(pickle._Unpickler):
    """Admits plain data and stand-ins for NumPy's constructors, so that no code of the file's choice can run."""

    # Without bytearrays and buffers, for which any size that a file names is allocated at once.
    dispatch: ClassVar = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code not in b"\x96\x97\x98"
    }

    def find_class(self, module: str, name: str) -> Any:
        if (known := _STAND_INS.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return known
