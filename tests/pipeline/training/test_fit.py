"""From labels and features to a checkpoint: files, settings, a kill, the embedded model, and what `run` will ask."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from extractors.decode.video import VideoError
from extractors.features import Features, save
from model import checkpoint, kinetics
from model.config import ModelConfig, TrainConfig
from model.datasets import DatasetError, VideoSet
from model.presets import model_settings, preset
from model.train import LOG_NAME, STATE_NAME, TrainError
from pipeline.training import fit as training
from pipeline.training import settings as trainsettings
from pipeline.training.crossval import FILE_NAME as QUALITY_NAME
from pipeline.training.fit import CURVES_NAME, Gathered, Trained, check_folder, declared, gather
from pipeline.training.labels import LabelledVideo
from pipeline.training.picture import FILE_NAME as PICTURE_NAME
from pipeline.training.plan import Plan, plan
from pipeline.training.settings import Settings, embedded_for, read_recipe
from support.errors import UsageError

torch.set_num_threads(1)

WIDTH = 8
SETTINGS = {
    "backbone": "i3d",
    "fps": 25.0,
    "length": 16,
    "stride": 8,
    "short_side": 256,
    "crop": 224,
    "weights": "sha256:0",
    "device": "cpu",
    "dtype": "float32",
    "decoder": "pyav",
}
SHOWN = ["golf", "ski", "golf", "ski", "", "golf|ski"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """labels.csv and features/, as `extract` writes them, of six videos."""
    rng = np.random.default_rng(0)
    for v in range(len(SHOWN)):
        t = 10 + v
        starts = np.arange(t) * 0.32
        times = np.stack((starts, starts + 0.64), axis=1)
        rgb = rng.random((t, WIDTH)).astype(np.float32)
        stored = Features(rgb, None, times, float(times[-1, 1]), {}, {"rgb": SETTINGS})
        save(stored, tmp_path / "features" / f"v{v}.npz")
    rows = "".join(f"v{v}.mp4,{labels}\n" for v, labels in enumerate(SHOWN))
    (tmp_path / "labels.csv").write_text(f"video,labels\n{rows}")
    return tmp_path


@pytest.fixture
def data(folder: Path) -> Gathered:
    return gather(plan(folder / "labels.csv", features=folder / "features"))


QUICK = Settings(steps=6, dim=4, folds=0)


def configure(settings: Settings, gathered: Gathered) -> tuple[ModelConfig, TrainConfig]:
    data = gathered.data
    return read_recipe(settings).complete(data.classes, data.lengths, data.width)


def fit(gathered: Gathered, settings: Settings, folder: Path, **more: Any) -> Trained:
    """From settings to a trained model, as the command does it."""
    embedded = settings.init and embedded_for(settings.init, gathered.data.classes, gathered.streams)
    return training.fit(gathered, training.course(read_recipe(settings), gathered, embedded or None), folder, **more)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_stored_features_become_training_data(data: Gathered) -> None:
    assert data.data.names == tuple(f"v{v}.mp4" for v in range(6))
    assert data.data.classes == ("golf", "ski")
    assert data.data.labels.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1], [0, 0], [1, 1]]
    assert data.data.lengths == (10, 11, 12, 13, 14, 15)
    assert data.streams == ("rgb",)
    assert data.features == {
        "rgb": {
            name: SETTINGS[name] for name in ("backbone", "fps", "length", "stride", "short_side", "crop", "weights")
        }
    }
    assert data.provenance == {"features": {"rgb": SETTINGS}}


def test_a_checkpoint_asks_for_nothing_that_varies_by_machine() -> None:
    flow = {"flow": "numba", "flow_clip": 20.0, "stride": 4, "dtype": "float16", "device": "cuda", "decoder": "nvdec"}
    assert declared({"flow": flow}) == {"flow": {"flow_clip": 20.0, "stride": 4}}


def test_videos_that_break_on_the_way_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (tmp_path / f"{name}.mp4").write_text(name)
    rows = tuple(LabelledVideo(name, ("golf",), "", line) for line, name in enumerate("abc", 2))
    wanted = Plan(rows, ("golf",), {name: tmp_path / f"{name}.mp4" for name in "abc"}, read_recipe(QUICK))

    class Cache:
        def features(self, path, content, extractor, on_progress, on_damage):
            if path.stem != "b":
                raise VideoError(f"{path}: is broken.")
            on_damage("damaged cache entry")
            return Features(np.ones((3, 8), np.float32), None, np.zeros((3, 2)), 1.0, {}, {}, warnings=("odd",))

    class Extractor:
        streams = ("rgb",)

        def settings(self):
            return {"rgb": SETTINGS}

    with pytest.raises(DatasetError) as error:
        gather(wanted, Extractor(), Cache())  # type: ignore[arg-type]
    first, *sentences = str(error.value).splitlines()
    assert first == "2 of 3 videos could not be extracted; repair them or remove their rows:"
    assert [sentence.strip() for sentence in sentences] == [f"{tmp_path / n}: is broken." for n in ("a.mp4", "c.mp4")]

    only = replace(
        wanted, rows=(rows[1], replace(rows[1], video="b2")), videos={n: tmp_path / "b.mp4" for n in ("b", "b2")}
    )
    assert (
        gather(only, Extractor(), Cache()).warnings
        == (  # type: ignore[arg-type]
            "damaged cache entry",
            f"{tmp_path / 'b.mp4'}: odd",
        )
        * 2
    )


def test_what_a_training_leaves(data: Gathered, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    made = fit(data, replace(QUICK, folds=2), tmp_path / "run", on_progress=lambda *about: told.append(about))
    assert names(tmp_path / "run") == {
        *(checkpoint.FILE_NAME, LOG_NAME, CURVES_NAME, QUALITY_NAME, PICTURE_NAME, STATE_NAME)
    }
    assert [about for about in told if about[0] == "train"] == [("train", n, 6) for n in range(1, 7)]
    assert [about for about in told if about[0] == "check"] == [("check", n, 12) for n in range(1, 13)]
    assert (tmp_path / "run" / CURVES_NAME).read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "run" / LOG_NAME).read_text().splitlines()) == 7
    assert made.quality is not None and made.quality.videos == 6
    stored = checkpoint.load(made.path)
    assert checkpoint.fingerprint(stored) == checkpoint.fingerprint(made.checkpoint)
    assert (stored.classes, stored.streams, stored.features) == (("golf", "ski"), ("rgb",), data.features)
    assert stored.provenance["training"]["settings"]["steps"] == 6
    assert stored.provenance["features"] == {"rgb": SETTINGS}
    assert not stored.groups


def test_flags_over_file_over_preset(data: Gathered, tmp_path: Path) -> None:
    lengths = data.data.lengths
    model, train = configure(Settings(), data)
    assert train == preset("own", lengths)
    assert (model.classes, model.in_dim, model.dim) == (2, WIDTH, model_settings("own")["dim"])
    assert configure(Settings(preset="paper"), data)[1] == TrainConfig()
    assert configure(Settings(preset="activitynet"), data)[0].smooth == 13

    file = tmp_path / "my.toml"
    file.write_text(
        "[model]\ndim = 16\ndropout = 0\n[training]\nlr = 0.01\nseed = 7\nbatch = 5\nsave_every = 2\n"
        "[training.loss]\nguide = 0\ntopk_divisor = 3\n"
    )
    model, train = configure(Settings(config=file), data)
    assert (model.dim, model.dropout, model.kernel) == (16, 0.0, 3)
    assert (train.lr, train.seed, train.batch, train.steps) == (0.01, 7, 5, preset("own", lengths).steps)
    assert (train.loss.guide, train.loss.topk_divisor, train.loss.norm) == (0.0, 3, preset("own", lengths).loss.norm)
    model, train = configure(Settings(config=file, dim=4, lr=0.5, seed=1, steps=9), data)
    assert (model.dim, model.dropout) == (4, 0.0)
    assert (train.lr, train.seed, train.batch, train.steps) == (0.5, 1, 5, 9)
    # The preset's own loss stays where the file says nothing.
    file.write_text("[training.loss]\nguide = 0.1\n")
    assert configure(Settings(config=file, preset="activitynet"), data)[1].loss.topk_divisor == 5


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("not toml", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ("steps = 3", "steps is not a table of a training; there are [model] and [training]"),
        ("[trainig]\nsteps = 3", "trainig is not a table"),
        ("training = 3", "training is not a table"),
        ("[training]\nstep = 3", "Unknown training setting 'step'; did you mean steps?"),
        ("[training]\nsteps = 0", "steps must be a whole number from 1 to"),
        ("[training]\nsteps = 'a'", "steps must be a whole number"),
        ("[training]\nloss = 3", "loss must be a table"),
        ("[training.loss]\nguid = 0.1", "did you mean guide?"),
        ("[training.loss]\nguide = -1", "guide must be a number from 0 to 1e"),
        ("[model]\ndimm = 3", "did you mean dim?"),
        ("[model]\ndim = 'x'", "dim must be a whole number"),
        ("[model]\nclasses = 3", "classes follows from the labels and the features"),
        ("[model]\nin_dim = 3", "in_dim follows"),
        ("[model]\ntea = false", "needs the TEA module, which is off"),
    ],
)
def test_a_bad_file_is_one_sentence(data: Gathered, folder: Path, text: str | bytes, cause: str) -> None:
    file = folder / "my.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    for ask in (
        lambda: configure(Settings(config=file), data),
        # ... and before any feature is made.
        lambda: plan(folder / "labels.csv", features=folder / "features", settings=Settings(config=file)),
    ):
        with pytest.raises(UsageError) as error:
            ask()
        assert cause in str(error.value)
        assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (Settings(steps=0), "steps must be"),
        (Settings(lr=0.0), "lr must be above 0"),
        (Settings(lr=float("nan")), "lr must be"),
        (Settings(dim=0), "dim must lie in"),
        (Settings(seed=-1), "seed must be"),
        (Settings(folds=1), "--folds 1: give 2 to 6"),
        (Settings(folds=7), "--folds 7: give 2 to 6"),
        (Settings(folds=-1), "--folds -1"),
        (Settings(preset="best"), "no training preset 'best'"),  # type: ignore[arg-type]
        (Settings(config=Path("no.toml")), "no.toml: cannot be read"),
        (Settings(init="thumos"), "--init thumos: the embedded model is kinetics400"),
    ],
)
def test_a_bad_setting_is_one_sentence_before_anything_runs(folder: Path, wrong: Settings, cause: str) -> None:
    with pytest.raises(UsageError) as error:
        plan(folder / "labels.csv", features=folder / "features", settings=wrong)
    assert cause in str(error.value)
    assert "\n" not in str(error.value)


class Killed(BaseException):
    pass


def test_an_interrupted_training_ends_in_the_same_bytes(data: Gathered, tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("[training]\nsave_every = 2\n")
    settings = replace(QUICK, folds=2, config=file)

    def killed_at(stage: str, step: int):
        def on_progress(now: str, done: int, total: int) -> None:
            if (now, done) == (stage, step):
                raise Killed

        return on_progress

    whole = fit(data, settings, tmp_path / "whole")
    for stage, step in (("train", 1), ("train", 3), ("train", 5), ("check", 3), ("check", 11)):
        with pytest.raises(Killed):
            fit(data, settings, tmp_path / "killed", on_progress=killed_at(stage, step))
    told: list[tuple[str, int]] = []
    made = fit(data, settings, tmp_path / "killed", on_progress=lambda stage, done, total: told.append((stage, done)))
    assert told[0] == ("check", 11)  # of the fold's 6 steps the last state on disk has 4
    assert made.quality == whole.quality
    for name in (checkpoint.FILE_NAME, LOG_NAME, CURVES_NAME, QUALITY_NAME):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert names(tmp_path / "killed") == names(tmp_path / "whole")


def test_a_folder_of_another_training(data: Gathered, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = fit(data, replace(QUICK, folds=2), run)
    before = {name: (run / name).read_bytes() for name in names(run)}
    with pytest.raises(TrainError, match="belongs to another training"):
        fit(data, replace(QUICK, seed=1), run)
    with pytest.raises(TrainError, match="more than the 3 requested"):
        fit(data, replace(QUICK, steps=3, folds=2), run)
    assert before == {name: (run / name).read_bytes() for name in names(run)}
    other = fit(data, replace(QUICK, seed=1, folds=2), run, overwrite=True)
    assert checkpoint.fingerprint(other.checkpoint) != checkpoint.fingerprint(first.checkpoint)
    fresh = fit(data, replace(QUICK, seed=1, folds=2), tmp_path / "fresh")
    assert fresh.quality == other.quality
    assert fresh.path.read_bytes() == other.path.read_bytes()


def test_what_is_said_of_another_model_goes(data: Gathered, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(data, replace(QUICK, folds=2), run)

    def killed(stage: str, done: int, total: int) -> None:
        if stage == "check":
            raise Killed

    with pytest.raises(Killed):
        fit(data, replace(QUICK, steps=7, folds=2), run, on_progress=killed)  # goes on
    assert not (run / QUALITY_NAME).exists()
    fit(data, replace(QUICK, steps=7, folds=2), run)
    fit(data, replace(QUICK, steps=8), run)
    assert not (run / QUALITY_NAME).exists()
    assert checkpoint.load(run).provenance["training"]["settings"]["steps"] == 8


def test_overwrite_starts_a_killed_check_over(data: Gathered, tmp_path: Path) -> None:
    def killed(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("check", 7):
            raise Killed

    with pytest.raises(Killed):
        fit(data, replace(QUICK, folds=2), tmp_path / "run", on_progress=killed)
    made = fit(data, replace(QUICK, folds=2, seed=1), tmp_path / "run", overwrite=True)
    assert made.quality is not None


@pytest.mark.parametrize("damage", [lambda path: path.write_text("step,loss\n1,x\n"), Path.unlink])
def test_a_log_that_is_damaged_or_lost_is_written_again(data: Gathered, tmp_path: Path, damage) -> None:
    """The state holds it: a finished training is not done again for the sake of its log."""
    fit(data, QUICK, tmp_path / "run")
    log = tmp_path / "run" / LOG_NAME
    whole = log.read_bytes()
    damage(log)
    fit(data, QUICK, tmp_path / "run")
    assert log.read_bytes() == whole


def test_a_model_without_its_state_is_not_replaced_unasked(data: Gathered, tmp_path: Path) -> None:
    check_folder(tmp_path / "run", overwrite=False)
    fit(data, QUICK, tmp_path / "run")
    check_folder(tmp_path / "run", overwrite=False)  # goes on, or says what differs
    (tmp_path / "run" / STATE_NAME).unlink()
    with pytest.raises(UsageError, match="use --overwrite or another -o"):
        check_folder(tmp_path / "run", overwrite=False)
    check_folder(tmp_path / "run", overwrite=True)


# --- from the embedded model ---


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> checkpoint.Checkpoint:
    monkeypatch.setattr(kinetics, "WIDTH", WIDTH)
    monkeypatch.setattr(kinetics, "sports_groups", lambda: {"golf driving": "golf", "golf chipping": "golf"})
    generator = torch.Generator().manual_seed(3)
    weight, bias = torch.randn(3, WIDTH, generator=generator), torch.randn(3, generator=generator)
    made = kinetics.build(weight, bias, ("golf driving", "golf chipping", "juggling"), "sha256:0")
    monkeypatch.setattr(trainsettings, "load_model", lambda name, **more: made)
    return made


def test_from_the_embedded_model(data: Gathered, tmp_path: Path, embedded: checkpoint.Checkpoint) -> None:
    settings = Settings(steps=4, folds=0, init="kinetics400")
    assert configure(settings, data)[0].dim == WIDTH
    made = fit(data, settings, tmp_path / "run")
    assert made.checkpoint.provenance["matches"] == {"golf": ["golf driving", "golf chipping"]}
    drawn = fit(data, replace(settings, init=None, dim=WIDTH), tmp_path / "drawn").checkpoint.state["classifier.weight"]
    row, theirs = made.checkpoint.state["classifier.weight"], embedded.state["classifier.weight"][:2].mean(dim=0)
    # Four steps of 1e-3 move a weight by 4e-3 at most, or little more.
    assert (row[0] - theirs).abs().max() < 0.01
    assert (row[1] - drawn[1]).abs().max() < 0.02


def test_what_cannot_start_from_the_embedded_model(
    data: Gathered, folder: Path, embedded: checkpoint.Checkpoint
) -> None:
    wanted = Settings(steps=4, folds=0, init="kinetics400")

    def said(data: Gathered = data, **changes: object) -> str:
        with pytest.raises(UsageError) as error:
            fit(data, replace(wanted, **changes), folder / "run")  # type: ignore[arg-type]
        assert str(error.value).startswith("--init ") and "\n" not in str(error.value)
        assert not (folder / "run").exists()
        return str(error.value)

    assert "has dim 8" in said(dim=4)
    assert "the embedded model is kinetics400" in said(init="i3d")
    other = replace(data, features={"rgb": {**data.features["rgb"], "fps": 30.0, "weights": "sha256:1"}})
    assert "other features (fps, weights differ)" in said(other)
    assert "RGB only" in said(replace(data, streams=("rgb", "flow")))
    unknown = VideoSet(data.data.features, data.data.labels, data.data.names, ("chess", "go"))
    assert "knows none of the classes chess, go" in said(replace(data, data=unknown))
    # As far as can be, before hours of extraction.
    text = (folder / "labels.csv").read_text().replace("golf", "chess")
    (folder / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match="knows none of the classes chess, ski; train without it"):
        plan(folder / "labels.csv", features=folder / "features", settings=wanted)


def test_overwrite_killed_before_its_check_can_be_gone_on_with(data: Gathered, tmp_path: Path) -> None:
    """The states of another training's folds would stop the check, after all the work."""

    def killed_in(stage: str):
        def on_progress(now: str, done: int, total: int) -> None:
            if (now, done) == (stage, 4):
                raise Killed

        return on_progress

    run, file = tmp_path / "run", tmp_path / "my.toml"
    file.write_text("[training]\nsave_every = 2\n")
    settings = replace(QUICK, folds=2, config=file)
    other = replace(settings, seed=1)
    with pytest.raises(Killed):
        fit(data, settings, run, on_progress=killed_in("check"))
    with pytest.raises(Killed):
        fit(data, other, run, overwrite=True, on_progress=killed_in("train"))
    made = fit(data, other, run)
    assert made.quality == fit(data, other, tmp_path / "fresh").quality


def test_rows_without_a_split_are_told_of(folder: Path) -> None:
    text = (folder / "labels.csv").read_text().splitlines()
    rows = [f"{line},{'' if n == len(text) - 1 else 'train'}" for n, line in enumerate(text[1:], 1)]
    (folder / "labels.csv").write_text("\n".join([text[0] + ",split", *rows]) + "\n")
    wanted = plan(folder / "labels.csv", features=folder / "features")
    assert len(wanted.rows) == len(text) - 2
    assert gather(wanted).warnings[0].endswith("labels.csv: 1 row has no split: not trained on.")
