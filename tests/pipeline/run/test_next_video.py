"""A folder of videos, each of which begins before its turn: what comes out is the same as one after the other."""

import shutil
from pathlib import Path

import pytest
from conftest import coded, digest, encode

from extractors.config import FeatureConfig
from extractors.decode.process import Decoder
from extractors.features import Extractor
from extractors.inputs.ahead import Ahead
from pipeline.cache.content import content_hash
from pipeline.cache.entries import FeatureCache
from pipeline.run.batch import extract_batch
from pipeline.run.outcome import FeatureOutput, Outcome
from pipeline.run.videos import Job
from pipeline.workers.engine import Item, Request, extract_here
from support.errors import Stopped

pytestmark = pytest.mark.usefixtures("stubs")
CONFIG = FeatureConfig(backbone="stub", flow="stub", short_side=48, crop=32, precision="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("footage")
    for n, name in enumerate("adf"):
        encode(made / f"{name}.mp4", [coded((k + 40 * n) % 256) for k in range(60 + 16 * n)])
    (made / "b.mp4").write_text("no video")
    shutil.copy(made / "a.mp4", made / "c.mp4")
    encode(made / "e.mp4", [coded(k) for k in range(4)])
    return made


def make(ahead: bool) -> Extractor:
    extractor = Extractor(CONFIG, ("rgb",), threads=1)
    if ahead:
        extractor.decoder = Ahead(lambda: Decoder(threads=1))
    return extractor


def shown(outcome: Outcome) -> tuple[object, ...]:
    features = None if outcome.features is None else digest(outcome.features)
    first = outcome.duplicate_of and outcome.duplicate_of.name
    return str(outcome.error or ""), features, outcome.cached, outcome.skipped, first


def run(folder: Path, out: Path, extractor: Extractor) -> dict[str, tuple[object, ...]]:
    jobs = [Job(path, Path(path.stem)) for path in sorted(folder.iterdir())]
    cache = FeatureCache(out / "cache")
    return {str(o.job.name): shown(o) for o in extract_batch(extractor, cache, jobs, FeatureOutput(out / "features"))}


def test_a_folder_gives_the_same(folder: Path, tmp_path: Path) -> None:
    plain, ahead = make(False), make(True)
    for name in ("new", "cached", "there"):  # with nothing, with the features, and with their files
        for kind, extractor in (("plain", plain), ("ahead", ahead)):
            out = tmp_path / kind
            if name == "cached":
                shutil.rmtree(out / "features")
            found = run(folder, out, extractor)
            if kind == "plain":
                expected = found
        assert found == expected
        assert [not found[name][0] for name in "abcdef"] == [True, False, True, True, True, True]
        # e and f. c is a copy of a, and b is no video, so that d, which follows it, could not begin.
        assert ahead.decoder.adopted == 2


def test_a_video_that_changes_after_it_has_begun_is_not_believed(folder: Path, tmp_path: Path) -> None:
    videos = [Path(shutil.copy(folder / f"{name}.mp4", tmp_path)) for name in "ad"]
    extractor = make(True)
    request = Request(extractor, FeatureCache(tmp_path / "cache"))
    found = extract_here(request, [Item(video, content_hash(video)) for video in videos])
    assert next(found).error is None
    assert extractor.decoder._begun.asked.path == videos[1]
    shutil.copy(folder / "f.mp4", videos[1])
    assert "changed while it was read" in str(next(found).error)


def test_a_run_that_is_stopped_leaves_no_video_begun(folder: Path, tmp_path: Path) -> None:
    videos = [folder / f"{name}.mp4" for name in "adf"]
    extractor, stops = make(True), iter([False, False, False, True, True, True, True])
    request = Request(extractor, FeatureCache(tmp_path / "cache"), stop=lambda: next(stops, True))
    with pytest.raises(Stopped):
        list(extract_here(request, [Item(video, content_hash(video)) for video in videos]))
    assert extractor.decoder._begun is None


def test_a_video_that_is_partly_there_does_not_begin_before_its_turn(folder: Path, tmp_path: Path) -> None:
    videos = [folder / "a.mp4", folder / "d.mp4"]
    contents = [content_hash(video) for video in videos]
    extractor, cache = make(True), FeatureCache(tmp_path / "cache", part=1)
    assert cache.untouched(contents[1], extractor)
    done: list[int] = []

    def stop() -> bool:
        done.append(1)
        return len(done) > 2

    with pytest.raises(Stopped):
        cache.features(videos[1], contents[1], extractor, stop=stop)
    assert not cache.untouched(contents[1], extractor)
    items = [Item(video, content) for video, content in zip(videos, contents, strict=True)]
    found = [done.features for done in extract_here(Request(extractor, cache), items)]
    plain = [make(False).chunk(video) for video in videos]
    assert [digest(features) for features in found if features] == [digest(features) for features in plain]
    assert extractor.decoder.adopted == 0
