"""Joining the parts: settings, names of results, classes, and the features that a model asks for."""

import dataclasses
import importlib
from pathlib import Path

import numpy as np
import pytest
from conftest import small_checkpoint

from extractors.backbones import weights
from extractors.config import FeatureConfig
from extractors.features import Features
from model.predict import Scores
from pipeline.api import Pipeline, choose_classes
from pipeline.config import Config, adopt, load_config
from pipeline.run.batch import default_streams
from pipeline.run.videos import VIDEO_SUFFIXES, find_videos, left_out
from postprocess.config import LocalizeConfig
from postprocess.formats.writers import SUFFIXES
from support import errors
from support.errors import UsageError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(*paths: Path | str) -> list[str]:
    return [str(job.name) for job in find_videos([str(p) for p in paths])]


def test_folders_keep_their_structure_and_only_videos_count(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.mp4", tmp_path / "a/b/y.MOV", tmp_path / "a/notes.txt", tmp_path / "a/._x.mp4")
    assert names(tmp_path / "a") == ["b/y", "x"]


def test_two_files_of_one_stem(tmp_path: Path) -> None:
    touch(tmp_path / "x.mp4", tmp_path / "x.mov", tmp_path / "other/x.mp4")
    assert names(tmp_path / "x.mp4", tmp_path / "x.mov") == ["x.mp4", "x.mov"]
    # The name of one is the same without the other in the run: the folder decides.
    assert names(tmp_path / "x.mp4") == ["x.mp4"]
    assert names(tmp_path / "x.mp4", tmp_path / "x.mp4") == ["x.mp4"]
    assert names(tmp_path / "other/x.mp4") == ["x"]
    assert names(tmp_path / "x.mp4", tmp_path / "other/x.mp4") == ["x.mp4", "x"]
    touch(tmp_path / "x.mp4.mkv")
    assert names(tmp_path) == ["other/x", "x.mov", "x.mp4", "x.mp4.mkv"]


def test_names_of_several_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(*(tmp_path / name for name in ("d1/a.mov", "d1/a.mp4", "d2/a.mp4", "d2/deep/b.mp4", "2023/d1/a.mp4")))
    assert names("d1", "d2") == ["d1/a.mov", "d1/a.mp4", "d2/a", "d2/deep/b"]
    assert names("d1") == ["a.mov", "a.mp4"] and names("d2") == ["a", "deep/b"]
    assert names("d1", "2023/d1") == [f"{tmp_path.name}/d1/a.mov", f"{tmp_path.name}/d1/a.mp4", "2023/d1/a"]
    # A folder within another one, and a file within a folder, add nothing; the order is that of the words.
    assert names("d2/deep", "d2", "d2/a.mp4", "./d2/../d2") == ["deep/b", "a"]
    # Files from anywhere have their own names, and folders above where two are alike.
    assert names("d2/a.mp4", "d2/deep/b.mp4") == ["a", "b"]
    assert names("d2/a.mp4", "2023/d1/a.mp4") == ["d2/a", "d1/a"]
    touch(tmp_path / "x/d1/a.mp4", tmp_path / "y/d1/a.mp4")
    assert names("x/d1/a.mp4", "y/d1/a.mp4", "d2/deep/b.mp4") == ["x/d1/a", "y/d1/a", "b"]
    assert names("d2", "x/d1/a.mp4") == ["a", "deep/b", "d1/a"]  # the folder's keep theirs


def test_no_video_is_called_as_another_format_of_a_result(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "a.labelstudio.mp4", tmp_path / "index.mkv")
    assert names(tmp_path) == ["a.labelstudio.mp4", "a", "index.mkv"]


def test_names_with_dots_blanks_and_globs(tmp_path: Path) -> None:
    touch(tmp_path / "clip.v2.mp4", tmp_path / "my clip.mp4", tmp_path / "x[1].mp4")
    assert names(tmp_path / "*.mp4") == ["clip.v2", "my clip", "x[1]"]
    assert names(tmp_path / "x[1].mp4") == ["x[1]"]


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no video in it; a file that is named is read whatever its suffix"):
        find_videos([str(tmp_path)])
    touch(tmp_path / "a.lrv", tmp_path / "notes.txt", tmp_path / "b.lrv")
    for given in (tmp_path, tmp_path / "*"):
        with pytest.raises(UsageError, match=r"no video in it, but 3 files \(2 \.lrv, 1 \.txt\); a file"):
            find_videos([str(given)])


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_videos_of_every_camera_are_found_in_any_case(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path / f"a{suffix}", tmp_path / "b" / f"b{suffix.upper()}", tmp_path / f"c{suffix.title()}")
    assert names(tmp_path) == ["a", "b/b", "c"]
    assert left_out([str(tmp_path)]) == []


def test_what_is_left_out_of_a_folder_is_said_on_one_line(tmp_path: Path) -> None:
    touch(tmp_path / "a.mp4", tmp_path / "a.xyz", tmp_path / "b/c.XYZ", tmp_path / "README", tmp_path / "GL01.LRV")
    for beside in (*SUFFIXES.values(), ".scores.npz", ".jpg", ".THM", ".proxy.mp4"):
        touch(tmp_path / f"a{beside}")
    touch(tmp_path / "_run.json", tmp_path / ".hidden.xyz", tmp_path / "b/.DS_Store", tmp_path / "a.json.bak")
    said = "left out what is no video by its name: 4 files (2 .xyz, 1 "
    made, remark = left_out([str(tmp_path)])
    assert made.startswith(f"{tmp_path}: left out 2 videos") and "that jcdnet made" in made  # overlay and proxy
    assert remark.startswith(f"{tmp_path}: {said}") and remark.endswith(").")
    assert "1 .lrv" in remark and "1 without suffix" in remark
    touch(*(tmp_path / f"a.k{k}" for k in range(9)))
    _, remark = left_out([str(tmp_path)])
    assert ": 13 files (2 .xyz, " in remark and "6 of other kinds)" in remark
    assert left_out([str(tmp_path / "a.mp4"), str(tmp_path / "a.xyz"), str(tmp_path / "?.mp4")]) == []
    (remark,) = left_out([str(tmp_path / "*.xyz")])
    assert "1 file (1 .xyz)" in remark


def test_defaults_then_file_then_flags(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("streams = 'rgb'\n[features]\nstride = 8\nfps = 30\n")
    config = load_config(file, {"features.stride": 4, "model": None})
    assert (config.features.stride, config.features.fps, config.streams) == (4, 30.0, "rgb")
    assert config.model == Config().model


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[features]\nstride = 'a'", "stride must be a int"),
        ("modell = 'x'", "did you mean model"),
        ("[features]\nstride = 0", "must be positive"),
        ("not toml", "not TOML"),
    ],
)
def test_a_bad_config_file_is_one_sentence(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=cause):
        load_config(file, {})


def test_choosing_classes_by_name_and_by_group() -> None:
    model = small_checkpoint()
    assert choose_classes(model, "serve") == {"serve"}
    assert choose_classes(model, "tennis") == choose_classes(model, "auto") == {"serve", "volley"}
    assert choose_classes(model, "Tennis") == choose_classes(model, "VOLLEY,Serve") == {"serve", "volley"}
    # As tables show them, also where the sport would not be said, and as a guess.
    assert choose_classes(model, "tennis: serve") == choose_classes(model, "TENNIS:  Serve") == {"serve"}
    assert choose_classes(model, "serve? (sport not sure),Volley? (Sport not sure)") == {"serve", "volley"}
    with pytest.raises(UsageError, match="unknown class 'golf: serve'"):
        choose_classes(model, "golf: serve")
    assert choose_classes(model, "all") is None
    accented = dataclasses.replace(model, classes=("caf\u00e9", "the\u0301"), groups={})  # é in both of its forms
    assert choose_classes(accented, "cafe\u0301,th\u00e9") == set(accented.classes)
    with pytest.raises(UsageError, match="did you mean 'volley'"):
        choose_classes(model, "voley")
    ungrouped = dataclasses.replace(model, groups={})
    assert choose_classes(ungrouped, "auto") is None
    with pytest.raises(UsageError, match="no list of sports"):
        choose_classes(ungrouped, "sports")


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_features_that_the_model_was_not_made_for_are_refused() -> None:
    Pipeline(small_checkpoint(stride=16), Config(device="cpu"))
    with pytest.raises(UsageError, match=r"stride = 16, not 8"):
        Pipeline(small_checkpoint(stride=16), Config(device="cpu", features=FeatureConfig(stride=8)))
    two = dataclasses.replace(small_checkpoint(), streams=("rgb", "flow"))
    with pytest.raises(UsageError, match="needs the flow stream"):
        Pipeline(two, Config(device="cpu", streams="rgb"))
    both = Pipeline(small_checkpoint(), Config(device="cpu", streams="both"))
    assert "reads RGB only" in both.warnings[0]


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_the_embedded_model_says_where_its_settings_are_left_out() -> None:
    """Of weights that it was not measured with it declares nothing; a model of the user may do so without a word."""
    bare, config = small_checkpoint(), Config(device="cpu")
    said = "the settings and calibration of kinetics400 are for the published RGB weights, so they are left out."
    assert Pipeline(bare, config).warnings == (said,)
    assert Pipeline(dataclasses.replace(bare, localize={"threshold": 0.3}), config).warnings == ()
    assert Pipeline(bare, dataclasses.replace(config, model="mine")).warnings == ()


def test_settings_of_a_checkpoint_are_adopted_where_nothing_else_was_asked(tmp_path: Path) -> None:
    declared = {
        "rgb": {"backbone": "i3d", "stride": 4, "fps": 30.0, "weights": "sha256:0"},
        "flow": {"flow_clip": 15.0},
    }
    found = adopt(Config(), declared).features
    assert found == FeatureConfig(stride=4, fps=30.0, flow_clip=15.0)
    assert adopt(Config(), {}) == Config()
    # What was asked for stays, even where it is the default.
    file = tmp_path / "c.toml"
    file.write_text("[features]\nstride = 16\n")
    for asked in (
        load_config(None, {"features.stride": 16}),
        load_config(file, {}),
        load_config(file, {"model": "m", "features.crop": None}),
    ):
        assert adopt(asked, declared).features == FeatureConfig(fps=30.0, flow_clip=15.0)
    assert adopt(Config(features=FeatureConfig(stride=8)), declared).features.stride == 8
    assert adopt(load_config(None, {"features.stride": None}), declared).features.stride == 4


@pytest.mark.parametrize("stride", [0, -4, "4", None])
def test_settings_that_cannot_be_adopted_are_one_sentence(stride: object) -> None:
    with pytest.raises(
        UsageError, match=r"the model kinetics400 declares features settings that this version cannot use: ."
    ):
        adopt(Config(), {"rgb": {"stride": stride}})


def test_given_is_no_setting(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("given = 'x'\n")
    with pytest.raises(UsageError, match="unknown setting given"):
        load_config(file, {})


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_a_model_runs_at_the_stride_that_it_was_trained_at() -> None:
    joined = Pipeline(small_checkpoint(stride=4, fps=30.0), Config(device="cpu"))
    assert joined.config.features == FeatureConfig(stride=4, fps=30.0)
    assert joined.extractor.settings()["rgb"]["stride"] == 4
    with pytest.raises(UsageError, match=r"made for rgb features with stride = 4, not 16; leave that setting alone"):
        Pipeline(small_checkpoint(stride=4), load_config(None, {"features.stride": 16, "device": "cpu"}))
    assert Pipeline(small_checkpoint(), load_config(None, {"features.stride": 8})).config.features.stride == 8


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_a_model_that_names_no_view_reads_the_centre() -> None:
    assert Pipeline(small_checkpoint(), Config(device="cpu")).config.features.view == "centre"
    with pytest.raises(UsageError, match=r"made for rgb features with view = centre, not whole; leave that setting"):
        Pipeline(small_checkpoint(), load_config(None, {"features.view": "whole", "device": "cpu"}))
    whole = Pipeline(small_checkpoint(view="whole"), Config(device="cpu"))
    assert whole.config.features.view == whole.extractor.settings()["rgb"]["view"] == "whole"
    with pytest.raises(UsageError, match=r"made for rgb features with view = whole, not centre; leave that setting"):
        Pipeline(small_checkpoint(view="whole"), load_config(None, {"features.view": "centre", "device": "cpu"}))


def test_exit_codes() -> None:
    for module in (
        "model.train",
        "model.datasets",
        "postprocess.evaluation.protocols",
        "postprocess.formats.annotated",
    ):
        importlib.import_module(module)  # each has a kind of its own
    kinds = [errors.UserError]
    for kind in kinds:
        kinds += [other for other in kind.__subclasses__() if other not in kinds]
    codes = {kind.__name__: errors.exit_code(kind("said")) for kind in kinds}
    assert set(codes.values()) == {2, 3, 4}
    assert codes["VideoError"] == codes["ReadError"] == codes["FeaturesError"] == codes["ResultError"] == 3
    assert codes["DiskFull"] == codes["WeightsError"] == codes["FlowUnavailable"] == codes["NoHome"] == 4
    assert codes["UsageError"] == codes["TrainError"] == codes["DatasetError"] == 2
    assert errors.exit_code(ValueError("said")) == 1


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_what_a_model_declares_of_localisation_holds_for_sports_and_gives_way_to_flags() -> None:
    declared = Pipeline.load(device="cpu").model.localize
    assert {"threshold", "confidence_slope", "confidence_shift", "min_confidence"} <= declared.keys()

    def used(**flags: object) -> LocalizeConfig:
        return Pipeline.load(config=load_config(None, {"device": "cpu"} | flags)).config.localize

    plain = LocalizeConfig(**{name: value for name, value in declared.items() if "confidence" not in name})
    assert used() == LocalizeConfig(**declared)
    by_name = declared | Pipeline.load(device="cpu").model.named["localize"]  # a confidence of its own
    assert used(classes="golf,tennis") == LocalizeConfig(**by_name) != LocalizeConfig(**declared)
    assert used(classes="golf,tennis,soccer,surfing") == LocalizeConfig(**declared)  # four say nothing
    assert used(classes="all") == used(classes="golf,zumba") == plain
    assert used(**{"localize.min_confidence": 0.0}) == LocalizeConfig(**(declared | {"min_confidence": 0.0}))
    assert used(**{"localize.threshold": 0.3}) == LocalizeConfig(**(declared | {"threshold": 0.3}))
    assert used(**{"localize.rule": "paper"}) == LocalizeConfig(rule="paper")


@pytest.mark.skipif(weights.find("i3d-rgb") is None, reason="the I3D weights are not installed")
def test_all_and_the_slider_of_a_page_hold_what_a_plain_run_shows() -> None:
    """A weak middle between two sure pieces: they stand alone for `run`, its page and `--all`."""
    probability = np.array([0.82] * 14 + [0.2] + [0.5] * 4 + [0.2] + [0.76] * 10)
    rest = np.full(len(probability), 1e-9)
    cas = np.log(np.stack((probability, rest, 1 - probability), axis=1)).astype(np.float32)
    scores = Scores(cas, cas, np.ones(len(cas), np.float32), np.array([0.9, 0.05], np.float32))
    first = np.arange(len(cas)) * 0.64
    times = np.stack((first, first + 0.64), axis=1)
    features = Features(None, None, times, float(times[-1, 1]), {}, {})
    model = dataclasses.replace(small_checkpoint(), localize={"min_confidence": 0.74, "merge_gap": 2})

    def pipeline(**flags: object) -> Pipeline:
        return Pipeline(model, load_config(None, {"device": "cpu", "localize.smooth": 1} | flags))

    plain = pipeline()
    shown = plain.segments(scores, features)
    assert [(round(s.start / 0.64), round(s.end / 0.64)) for s in shown] == [(0, 14), (20, 30)]
    page = plain.segments(scores, features, least=0.0)
    assert [s for s in page if s.confidence >= 0.74] == shown
    assert [round(s.confidence, 2) for s in page] == [0.82, 0.5, 0.76]
    assert [s.sport for s in shown] == ["tennis", "tennis"] and page[1].name == f"{page[1].label}? (sport not sure)"
    everything = pipeline(**{"localize.min_confidence": 0.0})
    assert everything.segments(scores, features) == everything.segments(scores, features, least=0.0) == page
    lower = pipeline(**{"localize.min_confidence": 0.4})
    assert lower.segments(scores, features) == page
    part = plain.segments(scores, features, start=5.0, end=18.0)
    assert [(s.start, s.end) for s in part] == [(5.0, 14 * 0.64), (20 * 0.64, 18.0)]


def test_a_model_that_declares_nonsense_is_one_sentence() -> None:
    for nonsense in ({"threshold": 2}, {"depth": 1}):
        with pytest.raises(UsageError, match="the model kinetics400 declares localize settings that this version"):
            adopt(Config(), {}, nonsense)


def test_extract_computes_flow_where_it_has_weights_or_is_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find", lambda name: None)
    assert default_streams(Config()) == ("rgb",)
    assert default_streams(Config(flow_weights="flow.pt")) == ("rgb", "flow")
    assert default_streams(load_config(None, {"features.flow": "numba"})) == ("rgb", "flow")
    monkeypatch.setattr(weights, "find", lambda name: Path("flow.pt"))
    assert default_streams(Config()) == ("rgb", "flow")
