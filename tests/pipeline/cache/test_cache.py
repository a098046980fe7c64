"""The feature cache: what is there is not computed again, what is damaged is, and nothing is mistaken for another."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coded, encode

from extractors import flow
from extractors.backbones import registry
from extractors.backbones.registry import Backbone
from extractors.config import WHOLE, FeatureConfig, Stretch
from extractors.decode.process import Decoder
from extractors.decode.video import VideoError
from extractors.features import Extractor, Features, FeaturesError
from extractors.parts import Part
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.cache.extraction import merge

CONFIG = FeatureConfig(backbone="stub", flow="stub", short_side=48, crop=32)

DECODER = Decoder()  # one process for all tests


class Mean(torch.nn.Module):
    """A network whose feature is the mean of each of its frames."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(3, 4)).flatten(1)


@pytest.fixture(scope="module", autouse=True)
def stubs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, "stub", lambda stream, path: Backbone(Mean, 48, f"stub {path}"))
        patch.setitem(
            flow.FLOWS, "stub", lambda grey, *_, **__: np.ones((len(grey) - 1, *grey.shape[1:], 2), np.float32)
        )
        patch.setitem(flow.VERSIONS, "stub", lambda: "stub-1")
        yield


class Counting(Extractor):
    """Remembers what was extracted."""

    def __init__(self, config: FeatureConfig = CONFIG, streams: tuple[str, ...] = ("rgb",), **more: Any) -> None:
        super().__init__(config, streams, **more)
        self.decoder = DECODER
        self.asked: list[tuple[str, ...]] = []

    def parts(
        self, path: Path, stretch: Stretch, streams: tuple[str, ...] | None, *rest: Any, **more: Any
    ) -> Iterator[Part]:
        self.asked.append(streams or self.streams)
        return super().parts(path, stretch, streams, *rest, **more)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("film") / "a.mp4", [coded(k) for k in range(60)])


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache")


def same(one: Features, other: Features) -> bool:
    for name in ("rgb", "flow", "times"):
        a, b = getattr(one, name), getattr(other, name)
        if (a is None) != (b is None) or (a is not None and a.tobytes() != b.tobytes()):
            return False
    rest = ("duration", "media", "settings", "warnings", "partial")
    return all(getattr(one, name) == getattr(other, name) for name in rest)


def files(cache: FeatureCache) -> list[Path]:
    return sorted(p for p in cache.folder.rglob("*") if p.is_file())


def test_the_second_time_nothing_is_computed(cache: FeatureCache, film: Path) -> None:
    extractor = Counting(streams=("rgb", "flow"))
    content = content_hash(film)
    first = cache.features(film, content, extractor)
    again = cache.features(film, content, extractor)
    assert extractor.asked == [("rgb", "flow")]
    assert same(first, again)
    assert same(first, extractor.chunk(film, streams=("rgb", "flow")))
    assert list(first.settings) == ["rgb", "flow"]


def test_a_renamed_or_moved_file_is_the_same_video(cache: FeatureCache, film: Path, tmp_path: Path) -> None:
    extractor = Counting()
    first = cache.features(film, content_hash(film), extractor)
    other = tmp_path / "moved" / "b.mkv"
    other.parent.mkdir()
    shutil.copy(film, other)
    assert same(cache.features(other, content_hash(other), extractor), first)
    assert len(extractor.asked) == 1


def test_another_file_of_the_same_name_is_another_video(cache: FeatureCache, film: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    extractor = Counting()
    shutil.copy(film, path)
    first = cache.features(path, content_hash(path), extractor)
    encode(path, [coded(k + 900) for k in range(60)])
    second = cache.features(path, content_hash(path), extractor)
    assert len(extractor.asked) == 2
    assert not np.array_equal(first.rgb, second.rgb)


@pytest.mark.parametrize(
    "change", [{"stride": 8}, {"length": 8}, {"fps": 12.5}, {"crop": 40}, {"short_side": 50}], ids=str
)
def test_changed_settings_miss(cache: FeatureCache, film: Path, change: dict[str, Any]) -> None:
    content = content_hash(film)
    cache.features(film, content, Counting())
    other = Counting(replace(CONFIG, **change))
    found = cache.features(film, content, other)
    assert other.asked == [("rgb",)]
    assert found.settings == other.settings()
    assert len(files(cache)) == 2


def test_other_weights_miss(cache: FeatureCache, film: Path) -> None:
    content = content_hash(film)
    cache.features(film, content, Counting())
    other = Counting(weights={"rgb": Path("own.pt")})
    cache.features(film, content, other)
    assert other.asked == [("rgb",)]


def test_another_stretch_misses(cache: FeatureCache, film: Path) -> None:
    content = content_hash(film)
    extractor = Counting()
    whole = cache.features(film, content, extractor)
    part = cache.features(film, content, extractor, Stretch(0.64, 1.28))
    assert len(extractor.asked) == 2
    assert len(whole.times) == 3
    np.testing.assert_allclose(part.times, [[0.64, 1.28]])
    assert same(cache.features(film, content, extractor, Stretch(0.64, 1.28)), part)
    assert len(extractor.asked) == 2


def test_only_the_missing_stream_is_computed(cache: FeatureCache, film: Path) -> None:
    content = content_hash(film)
    cache.features(film, content, Counting(streams=("rgb",)))
    both = Counting(streams=("rgb", "flow"))
    found = cache.features(film, content, both)
    assert both.asked == [("flow",)]
    assert same(found, both.chunk(film, streams=("rgb", "flow")))
    only = Counting(streams=("flow",))
    assert cache.features(film, content, only).rgb is None
    assert only.asked == []


def test_a_flow_setting_spares_rgb(cache: FeatureCache, film: Path) -> None:
    content = content_hash(film)
    cache.features(film, content, Counting(streams=("rgb", "flow")))
    other = Counting(replace(CONFIG, flow_clip=5.0), ("rgb", "flow"))
    cache.features(film, content, other)
    assert other.asked == [("flow",)]


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "text"])
def test_a_damaged_entry_is_told_and_computed_again(cache: FeatureCache, film: Path, damage: str) -> None:
    content = content_hash(film)
    first = cache.features(film, content, Counting(streams=("rgb", "flow")))
    extractor = Counting(streams=("rgb", "flow"))
    entry = cache.entry(content, extractor.settings()["flow"], WHOLE)
    data = bytearray(entry.read_bytes())
    if damage == "flipped":
        data[len(data) // 4] ^= 1
    entry.write_bytes({"cut": data[:-30], "emptied": b"", "flipped": data, "text": b"not features"}[damage])
    told: list[str] = []
    again = cache.features(film, content, extractor, on_damage=told.append)
    assert extractor.asked == [("flow",)]
    assert len(told) == 1
    assert str(entry) in told[0]
    assert same(again, first)
    assert same(cache.features(film, content, extractor, on_damage=told.append), first)
    assert len(told) == 1
    assert extractor.asked == [("flow",)]


def test_nothing_is_left_behind_when_extraction_fails(cache: FeatureCache, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("not a video")
    with pytest.raises(VideoError):
        cache.features(path, content_hash(path), Counting())
    assert not cache.folder.exists() or files(cache) == []


def test_an_interrupted_write_leaves_no_entry(cache: FeatureCache, film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stop)
        cache.features(film, content_hash(film), Counting())
    assert files(cache) == []
    extractor = Counting()
    cache.features(film, content_hash(film), extractor)
    assert len(files(cache)) == 1


@pytest.mark.parametrize("streams", [("rgb",), ("rgb", "flow")])
def test_a_folder_that_cannot_be_written_costs_no_features(
    tmp_path: Path, film: Path, streams: tuple[str, ...]
) -> None:
    """Hours of extraction are not thrown away over a full disk."""
    (tmp_path / "file").write_text("not a folder")
    cache = FeatureCache(tmp_path / "file" / "features")
    told: list[str] = []
    extractor = Counting(streams=streams)
    found = cache.features(film, content_hash(film), extractor, on_damage=told.append)
    assert same(found, extractor.chunk(film, streams=streams))
    assert len(told) == 1
    assert str(cache.folder) in told[0]
    assert "JCDNET_CACHE" in told[0]


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JCDNET_CACHE", str(tmp_path / "mine"))
    assert FeatureCache().folder == tmp_path / "mine" / "features"


def test_content_hash(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert content_hash(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    path.write_bytes(b"abc")
    assert content_hash(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(bytes(3_000_000))
    told: list[tuple[str, int, int]] = []
    content_hash(path, lambda *said: told.append(said))
    assert told[-1] == ("hash", 3_000_000, 3_000_000)
    with pytest.raises(VideoError, match="no such file"):
        content_hash(tmp_path / "none")
    with pytest.raises(VideoError, match=r"cannot be read|folder"):
        content_hash(tmp_path)


def test_merge_refuses_streams_that_were_cut_differently(film: Path) -> None:
    rgb = Counting().chunk(film, streams=("rgb",))
    flow_ = Counting(streams=("flow",)).chunk(film, streams=("flow",))
    both = merge([rgb, flow_])
    assert both.rgb is rgb.rgb
    assert both.flow is flow_.flow
    with pytest.raises(FeaturesError, match="cut differently"):
        merge([rgb, replace(flow_, times=flow_.times[:-1], flow=flow_.flow[:-1])])
