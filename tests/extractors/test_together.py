"""Snippets that the network sees together: which they are, what each gets, and that no division of a video shows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coded, digest, encode, small_checkpoint

from extractors import flow
from extractors.backbones import engines, registry
from extractors.backbones.i3d import InceptionI3d
from extractors.backbones.registry import Backbone
from extractors.config import FeatureConfig, Stretch
from extractors.features import Extractor, Features
from extractors.inputs.device import DeviceInputs
from extractors.snippets import Snippet, windows
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.config import adopt, load_config
from pipeline.run.batch import extract
from pipeline.score import check_settings
from pipeline.workers.engine import Engine, Item, Request
from support.errors import Stopped, UsageError

CONFIG = FeatureConfig(backbone="stub", flow="stub", short_side=32, crop=32, precision="float32", together=4)


class Around(torch.nn.Module):
    """A network whose feature of a snippet tells the brightness of each frame of its window, and of its own frames."""

    def forward(self, x: torch.Tensor, together: int = 1) -> torch.Tensor:
        frames = x.mean(dim=(1, 3, 4))  # (B, L)
        own = frames.unflatten(1, (together, -1))
        return torch.cat([own, frames[:, None].expand(-1, together, -1)], dim=2).flatten(0, 1)


@pytest.fixture(scope="module", autouse=True)
def stub() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKBONES, "stub", lambda stream, path: Backbone(Around, 80, "stub", graph=True))
        patch.setitem(flow.FLOWS, "stub", lambda grey, *_, **__: np.ones((len(grey) - 1, *grey.shape[1:], 2), "f4"))
        patch.setitem(flow.VERSIONS, "stub", lambda: "stub-1")
        yield


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(tmp_path_factory.mktemp("film") / "a.mp4", [coded(k % 256) for k in range(16 * 11 + 5)])


def made(**more: Any) -> Extractor:
    return Extractor(replace(CONFIG, **more), ("rgb",), threads=1)


def rows(features: Features) -> np.ndarray:
    assert features.rgb is not None
    return features.rgb


def indices(config: FeatureConfig, first: int, last: int) -> list[list[int]]:
    batch = [Snippet(k, (), None) for k in range(first, last)]
    return [[snippet.index for snippet in window] for window in windows(batch, config)]


def test_windows_begin_at_multiples_and_repeat_what_is_there_at_an_edge() -> None:
    assert indices(CONFIG, 0, 8) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert indices(CONFIG, 5, 11) == [[5, 6, 7, 5], [8, 9, 10, 8]]
    assert indices(CONFIG, 3, 4) == [[3, 3, 3, 3]]
    assert indices(replace(CONFIG, together=1, stride=40), 3, 5) == [[3], [4]]
    # At stride 8, snippets 0, 2, 4 and 6 stand side by side, and so do 1, 3, 5 and 7.
    assert indices(replace(CONFIG, stride=8), 0, 10) == [[0, 2, 4, 6], [1, 3, 5, 7], [8, 8, 8, 8], [9, 9, 9, 9]]


def test_each_snippet_has_its_own_frames_and_those_of_its_window(film: Path) -> None:
    alone, together = rows(made(together=1).chunk(film)), rows(made().chunk(film))
    assert alone.shape == (11, 32)
    assert together.shape == (11, 80)
    frames = alone[:, :16]
    assert np.array_equal(together[:, :16], frames)
    for k, row in enumerate(together):
        first = k // 4 * 4
        window = [frames[first + j % len(frames[first : first + 4])] for j in range(4)]
        assert np.array_equal(row[16:], np.concatenate(window)), k


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_finer_stride_adds_snippets_and_changes_none(film: Path, stride: int) -> None:
    fine = rows(made(stride=stride).chunk(film))
    assert len(fine) == (16 * 11 + 5 - 16) // stride + 1
    coarse = rows(made().chunk(film))
    whole = 8  # of the last window, a finer stride shows more frames
    assert np.array_equal(fine[:: 16 // stride][:whole], coarse[:whole])


def test_no_division_of_a_video_shows(film: Path, tmp_path: Path) -> None:
    extractor, expected = made(), digest(made().chunk(film))
    for size in (1, 3, 4, 8, 64):
        parts = list(extractor.parts(film, size=size))
        assert digest(extractor.join(parts, whole=True)) == expected
        assert all(part.first % 4 == 0 for part in parts)
    for batch in (1, 2, 5):
        extractor.batch = batch
        assert digest(extractor.chunk(film)) == expected
    content = content_hash(film)
    for stops in (0, 1):  # stopped behind the first batch, or the second, and then continued
        cache, left = FeatureCache(tmp_path / str(stops), part=1), stops

        def stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        extractor.batch = 1
        with pytest.raises(Stopped):
            cache.features(film, content, extractor, stop=stop)
        assert digest(cache.features(film, content, extractor)) == expected


def test_the_way_of_an_accelerator_gives_the_same(film: Path) -> None:
    host, there = (Extractor(CONFIG, ("rgb", "flow"), threads=1) for _ in range(2))
    there.inputs, there.batch = DeviceInputs(CONFIG, "stub", "cpu"), 4
    assert there.at_once == 16
    ours, theirs = host.chunk(film), there.chunk(film)
    assert np.allclose(rows(ours), rows(theirs), atol=1e-6)
    assert ours.flow is not None and ours.flow.shape == (11, 80)
    assert np.array_equal(ours.flow, theirs.flow)


@pytest.mark.slow
def test_workers_give_the_same(film: Path, tmp_path: Path) -> None:
    extractor = Extractor(FeatureConfig(together=4), ("rgb",))
    expected = digest(extractor.chunk(film))
    request = Request(extractor, FeatureCache(tmp_path, part=1))
    (done,) = extract(Engine(jobs=2, small=0), request, [Item(film, content_hash(film))])
    assert done.features is not None and digest(done.features) == expected


def test_a_stretch_sees_nothing_around_itself(film: Path) -> None:
    part = made().chunk(film, Stretch(3.3, 5.0))  # snippets 5 to 7
    whole = rows(made().chunk(film))
    assert np.array_equal(rows(part)[:, :16], whole[5:8, :16])
    assert np.array_equal(rows(part)[0, 16:], np.concatenate([whole[k, :16] for k in (5, 6, 7, 5)]))


def test_the_settings_say_it_and_a_model_reads_only_its_own() -> None:
    one, four = made(together=1).settings()["rgb"], made().settings()["rgb"]
    assert four == one | {"together": 4}
    plain, wide = small_checkpoint(length=16), small_checkpoint(length=16, together=4)
    check_settings(plain, {"rgb": one})
    check_settings(wide, {"rgb": four})
    with pytest.raises(UsageError, match="features with together = 1, and these have 4"):
        check_settings(plain, {"rgb": four})
    with pytest.raises(UsageError, match="features with together = 4, and these have 1"):
        check_settings(wide, {"rgb": one})


def test_what_cannot_be_seen_together_is_refused() -> None:
    for stride in (10, 32):
        with pytest.raises(ValueError, match=f"stride must be a divisor of 16 .*, not {stride}"):
            replace(CONFIG, stride=stride)
    asked = load_config(None, {"features.stride": 10})
    with pytest.raises(
        UsageError, match=r"^--stride must be a divisor of 16 .*, not 10; the model kinetics400 needs it"
    ):
        adopt(asked, {"rgb": {"together": 4}})
    assert adopt(load_config(None, {"features.stride": 4}), {"rgb": {"together": 4}}).features.stride == 4
    with pytest.raises(ValueError, match="together must be between 1 and 8, not 9"):
        replace(CONFIG, together=9)
    with pytest.raises(UsageError, match="i3d_r50 sees one snippet at a time; use --together 1"):
        Extractor(FeatureConfig(backbone="i3d_r50", together=4), ("rgb",), weights={"rgb": Path(__file__)})


@pytest.mark.parametrize("way", [engines.OPENVINO, engines.PLANAR])
def test_every_engine_takes_half_of_the_window_and_half_of_the_snippet_alone(way: str) -> None:
    torch.manual_seed(0)
    net = InceptionI3d()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv3d):  # so that the features are of a usual size
            torch.nn.init.kaiming_normal_(module.weight)
    net.fold()
    pixels = torch.rand(2, 3, 64, 48, 40) * 2 - 1
    with torch.inference_mode():
        names = [name for name, _ in net.named_children() if name != "logits"]
        x = pixels
        for name in names[: names.index("MaxPool3d_4a_3x3")]:
            x = getattr(net, name)(x)
        assert x.shape[2] == 32

        def rest(y: torch.Tensor) -> torch.Tensor:
            for name in names[names.index("MaxPool3d_4a_3x3") :]:
                y = getattr(net, name)(y)
            return y

        rows = []
        for b, k in ((b, k) for b in range(2) for k in range(4)):
            window = rest(x[b : b + 1])[0, :, 2 * k : 2 * k + 2]
            alone = rest(x[b : b + 1, :, 8 * k : 8 * k + 8])[0]
            rows.append((window.mean(dim=(1, 2, 3)) + alone.mean(dim=(1, 2, 3))) / 2)
        expected = torch.stack(rows)
        assert expected.std() > 0.01
        assert (net(pixels, 4) - expected).norm() < 1e-6 * expected.norm()
        if way == engines.OPENVINO:
            pytest.importorskip("openvino")
        made = engines.load(engines.Way(way, "float32"), Backbone(lambda: net, 1024, "", graph=True), 1)
        for there, here in ((made(pixels, 4), expected), (made(pixels), net(pixels))):
            assert (there - here).norm() < 1e-5 * here.norm()
