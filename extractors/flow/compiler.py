"""The C compiler that Triton needs when it starts on a GPU: find it as Triton does, and try it."""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

# Triton's own C code includes both; libc6-dev and python3-dev are separate packages from gcc.
SOURCE = "#include <stdint.h>\n#include <Python.h>\nint64_t one(void) { return 1; }\n"
GET_GCC = "apt install gcc libc6-dev (or set CC to a C compiler)"
GET_PYTHON = "apt install python3-dev"


def find() -> str | None:
    """Return the C compiler that Triton uses: CC, else gcc, else clang; None if there is none."""
    return os.environ["CC"] if "CC" in os.environ else shutil.which("gcc") or shutil.which("clang")


def fault() -> tuple[str, str] | None:
    """Build one line of C as Triton does; return None, or the fault and the command that repairs it.

    It is tried even if Triton has a cached build, since only Triton knows whether the cache still fits.
    """
    name = find()
    return ("there is no C compiler here", GET_GCC) if name is None else _build(name)


@cache
def _build(name: str) -> tuple[str, str] | None:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "one.c"
        source.write_text(SOURCE)
        headers = f"-I{sysconfig.get_paths()['include']}"
        command = [name, str(source), "-shared", "-fPIC", headers, "-o", str(source.with_suffix(".so"))]
        try:
            built = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            return f"the C compiler {name!r} does not start ({error.strerror})", GET_GCC
    if built.returncode == 0:
        return None
    if "Python.h" in built.stderr:
        return f"the C compiler {name} finds no Python.h", GET_PYTHON
    return f"the C compiler {name} cannot build one line of C", GET_GCC
