"""Stores for tests: fsspec's memory, and one that fails on order."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from support import store


class Flaky(MemoryFileSystem):
    """The memory store, with a fault for each call that `orders` names, as long as there are orders for it."""

    orders: dict[str, list[Any]] = {}  # noqa: RUF012
    calls: list[tuple[str, str]] = []  # noqa: RUF012

    def _obey(self, what: str, path: str) -> Any:
        self.calls.append((what, path))
        orders = self.orders.get(what)
        order = orders.pop(0) if orders else None
        if isinstance(order, BaseException):
            raise order
        return order

    def info(self, path: str, **kwargs: Any) -> Any:
        order = self._obey("info", path)
        found = super().info(path, **kwargs)
        return found if order is None else order(found)

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        order = self._obey("find", path)
        found = super().find(path, *args, **kwargs)
        return found if order is None else order(found)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        order = self._obey("open", path) if mode == "rb" else self._obey("write", path)
        found = super()._open(path, mode, **kwargs)
        return found if order is None else order(found)

    def put_file(self, lpath: str, rpath: str, **kwargs: Any) -> Any:
        self._obey("put", rpath)
        return super().put_file(lpath, rpath, **kwargs)


@contextmanager
def memory(monkeypatch: Any) -> Iterator[type[Flaky]]:
    """An empty memory:// that obeys orders, and no pauses between tries."""
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    monkeypatch.setattr(Flaky, "orders", {})
    monkeypatch.setattr(Flaky, "calls", [])
    fsspec.register_implementation("memory", Flaky, clobber=True)
    try:
        yield Flaky
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)


def cut_short(source: Any) -> Any:
    """A file that ends before its end."""
    data = source.getvalue()[:-3]
    return type(source)(source.fs, source.path, data)


def changing(then: Callable[[], None]) -> Callable[[Any], Any]:
    """A file beside which somebody writes while it is read."""

    def order(source: Any) -> Any:
        data = source.getvalue()
        then()
        return type(source)(source.fs, source.path, data)

    return order


@contextmanager
def s3(monkeypatch: Any) -> Iterator[str]:
    """A real S3 server on this machine, moto's, with an empty bucket; gives the bucket's address."""
    import s3fs
    from moto.server import ThreadedMotoServer

    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")  # its buckets are of the process
        urlopen(reset).close()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-the-test-server")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        fsspec.filesystem("s3").mkdir("bucket")
        yield "s3://bucket"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


@contextmanager
def gs(monkeypatch: Any) -> Iterator[str]:
    """A server on this machine that answers as Google Cloud Storage does, with an empty bucket; gives its address."""
    import logging

    import gcsfs
    from gcp_storage_emulator.server import create_server

    server = create_server("127.0.0.1", port := free_port(), in_memory=True, default_bucket="bucket")
    server.start()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(logging.getLogger("gcsfs"), "disabled", True)  # it looks for credentials, and finds none
        gcsfs.GCSFileSystem.clear_instance_cache()
        yield "gs://bucket"
    finally:
        gcsfs.GCSFileSystem.clear_instance_cache()
        server.stop()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
