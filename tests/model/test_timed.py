"""Known snippets: their loss against a transcription in NumPy, nothing new without them, and an exact resume."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import CLASSES, CONFIG, DATA, MODEL, start, toy

from model import losses, timed
from model.checkpoint import fingerprint, save
from model.config import LossConfig, TimesConfig, TrainConfig
from model.datasets import Batch, DatasetError, VideoSet, draw
from model.jcdnet import JCDNet
from model.predict import predict
from model.train import LOG_NAME, STATE_NAME, TrainError, train

torch.set_num_threads(1)

TIMES = replace(CONFIG, times=TimesConfig())


def with_known(data: VideoSet, truth: list[np.ndarray], complete: int = 10**6, marked: int = 10**6) -> VideoSet:
    """Everything is known of the first `complete` videos, the actions alone up to `marked`, nothing of the others."""
    known = []
    for v, here in enumerate(truth):
        rows = np.zeros((len(here), len(data.classes) + 1), dtype=np.float32)
        if v < marked and data.labels[v].any():
            rows[here, int(np.argmax(data.labels[v]))] = 1
        if v < complete:
            rows[:, -1] = 1 - rows.sum(axis=1)
        known.append(rows)
    return replace(data, known=known)


MARKED = with_known(*toy(8), complete=3, marked=6)


def numpy_terms(
    cas: np.ndarray, actionness: np.ndarray, known: np.ndarray
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Both terms and their gradients, snippet by snippet, from the formulas."""
    total = known.sum()
    balanced = [v for v in range(len(known)) if known[v, :, -1].any()]  # some background is known
    of_action = known[balanced].sum()
    ce, bce = 0.0, 0.0
    d_cas, d_act = np.zeros(cas.shape), np.zeros(actionness.shape)
    for b, t in np.ndindex(*actionness.shape):
        share = known[b, t]
        e = np.exp(cas[b, t] - cas[b, t].max())
        p = e / e.sum()
        ce -= float((share * np.log(p)).sum()) / total
        d_cas[b, t] = (share.sum() * p - share) / total
        if b in balanced:
            inside, outside, a = share[:-1].sum(), share[-1], actionness[b, t]
            bce -= float(inside * np.log(a) + outside * np.log(1 - a)) / of_action
            d_act[b, t] = (-inside / a + outside / (1 - a)) / of_action
    return ce, bce, d_cas, d_act


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), unknown=st.floats(0, 0.95), points=st.booleans())
def test_the_gradient_is_that_of_the_formulas(seed: int, unknown: float, points: bool) -> None:
    rng = np.random.default_rng(seed)
    cas, actionness = rng.normal(0, 3, size=(2, 5, 4)), rng.uniform(0.02, 0.98, size=(2, 5))
    known = rng.dirichlet(np.ones(4), size=(2, 5)) * (rng.random((2, 5, 1)) >= unknown) * rng.random((2, 5, 1))
    known[0, 0] = [0.25, 0, 0, 0.75]
    if points:
        known[1, :, -1] = 0
    s, a = torch.tensor(cas, requires_grad=True), torch.tensor(actionness, requires_grad=True)
    ce, bce, d_cas, d_act = numpy_terms(cas, actionness, known)
    found = timed.snippet(s, torch.tensor(known)), timed.action(a, torch.tensor(known))
    assert [float(x.detach()) for x in found] == pytest.approx([ce, bce], rel=1e-9)
    sum(found).backward()  # type: ignore[union-attr]
    np.testing.assert_allclose(s.grad, d_cas, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.grad, d_act, rtol=1e-9, atol=1e-12)


def test_nothing_known_is_a_loss_of_zero() -> None:
    s, a = torch.zeros(1, 3, 4, requires_grad=True), torch.tensor([[0.0, 1.0, 0.5]], requires_grad=True)
    loss = timed.snippet(s, torch.zeros(1, 3, 4)) + timed.action(a, torch.zeros(1, 3, 4))
    loss.backward()
    assert float(loss) == 0 and not s.grad.any() and not a.grad.any()  # type: ignore[union-attr]


def batch_of(data: VideoSet, config: TrainConfig) -> Batch:
    return draw(data, replace(config, sampling="pad"), 0)


def test_equations_8_to_12_are_for_videos_of_which_something_is_unknown() -> None:
    batch = batch_of(MARKED, TIMES)
    assert batch.known is not None
    complete = timed.all_known(batch.known, batch.mask)
    assert complete.tolist() == [int(v) < 3 for v in batch.videos] and 0 < complete.sum() < len(complete)
    output = JCDNet(MODEL)(batch.features, batch.mask)
    _, terms = timed.total(output, batch, TIMES)
    mask = batch.mask if batch.mask is not None else torch.ones(batch.features.shape[:2], dtype=torch.bool)
    rows = ~complete
    for name, value in (
        ("norm", losses.norm(output.actionness[rows], mask[rows])),
        ("temp", losses.mil(output.temp_cas[rows], batch.labels[rows], mask[rows], 7)),
    ):
        assert float(terms[name]) == pytest.approx(float(value), rel=1e-5)
    everywhere = replace(TIMES, times=TimesConfig(mil=True))
    _, terms = timed.total(output, batch, everywhere)
    assert float(terms["norm"]) == pytest.approx(float(losses.norm(output.actionness, batch.mask)), rel=1e-6)


def test_all_videos_complete_is_the_two_terms_alone() -> None:
    data = with_known(*toy(8))
    batch = batch_of(data, TIMES)
    output = JCDNet(MODEL)(batch.features, batch.mask)
    loss, terms = timed.total(output, batch, TIMES)
    assert float(loss) == pytest.approx(float(terms["snippet"] + terms["action"]))
    loss.backward()


def test_known_shares_go_with_their_snippets() -> None:
    batch = batch_of(MARKED, replace(TIMES, snippets=12))
    for row, v in enumerate(batch.videos):
        for x, share in zip(batch.features[row], batch.known[row], strict=True):  # type: ignore[index]
            here = np.flatnonzero((MARKED.features[v] == x.numpy()).all(axis=1))
            wanted = MARKED.known[v][here[0]] if len(here) else np.zeros(4)  # type: ignore[index]
            np.testing.assert_array_equal(share, wanted)


def test_without_times_a_checkpoint_has_the_bytes_that_it_always_had(tmp_path: Path) -> None:
    """The settings, the identity and the log know nothing of times, and the loss is that of `losses.total`."""
    made = train(start(), DATA, CONFIG, tmp_path)
    assert "times" not in made.provenance["training"]["settings"]
    assert "times" not in CONFIG.to_dict() and TrainConfig.from_dict(CONFIG.to_dict()) == CONFIG
    columns = (tmp_path / LOG_NAME).read_text().splitlines()[0].split(",")
    assert columns == ["step", "loss", *timed.terms(CONFIG), "gradient", "alpha", "beta"]
    assert not set(columns) & set(timed.NAMES)
    batch = draw(DATA, CONFIG, 0)
    output = JCDNet(MODEL)(batch.features, batch.mask)
    ours, theirs = (
        timed.total(output, batch, CONFIG),
        losses.total(output, batch.labels, batch.pairs, batch.mask, CONFIG.loss),
    )
    assert float(ours[0]) == float(theirs[0]) and ours[1].keys() == theirs[1].keys()
    # What a training is said to depend on, as before there were times.
    save(start(), tmp_path / "start.safetensors")
    described = [DATA.names, DATA.classes, [(str(rows.dtype), rows.shape) for rows in DATA.features]]
    digest = hashlib.sha256(repr(described).encode())
    for array in (DATA.labels, *DATA.features):
        digest.update(np.ascontiguousarray(array).data)
    assert DATA.fingerprint() == digest.hexdigest() == made.provenance["training"]["data"]
    assert fingerprint(train(start(), DATA, CONFIG)) == fingerprint(made)


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_resume_with_times_is_exact(tmp_path: Path, stop: int) -> None:
    whole = train(start(), MARKED, TIMES, tmp_path / "whole")
    train(start(), MARKED, replace(TIMES, steps=stop), tmp_path / "cut")
    cut = train(start(), MARKED, TIMES, tmp_path / "cut")
    assert fingerprint(cut) == fingerprint(whole)
    for name in (LOG_NAME, STATE_NAME):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert fingerprint(whole) != fingerprint(train(start(), replace(MARKED, known=None), CONFIG))
    assert "snippet" in (tmp_path / "whole" / LOG_NAME).read_text()


CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path("tests/model").resolve()))
from test_timed import MARKED, TIMES, replace, start, train
train(start(), MARKED, replace(TIMES, averaging=3.0, steps=100_000, save_every=2), Path(sys.argv[1]))
"""


def test_kill_minus_nine_with_times(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "cut")], cwd=root, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "cut" / STATE_NAME).exists() and time.monotonic() < deadline:
            assert child.poll() is None
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    behind = len((tmp_path / "cut" / LOG_NAME).read_text().splitlines()) - 1
    config = replace(TIMES, averaging=3.0, steps=behind + 6, save_every=2)
    cut, whole = train(start(), MARKED, config, tmp_path / "cut"), train(start(), MARKED, config, tmp_path / "whole")
    assert fingerprint(cut) == fingerprint(whole)
    assert (tmp_path / "cut" / LOG_NAME).read_bytes() == (tmp_path / "whole" / LOG_NAME).read_bytes()


def test_a_state_of_other_times_is_another_training(tmp_path: Path) -> None:
    train(start(), MARKED, TIMES, tmp_path)
    for data, config, said in (
        (with_known(*toy(8), complete=2, marked=6), TIMES, "data"),
        (MARKED, replace(TIMES, times=TimesConfig(snippet=2.0)), "times snippet 1.0, now 2.0"),
        (replace(MARKED, known=None), CONFIG, "times snippet 1.0, now None"),
    ):
        with pytest.raises(TrainError, match="another training") as error:
            train(start(), data, config, tmp_path)
        assert said in str(error.value)


def test_what_does_not_fit_is_named() -> None:
    for data, config in ((MARKED, CONFIG), (DATA, TIMES)):
        with pytest.raises(TrainError, match="Times need both"):
            train(start(), data, config)
    assert MARKED.known is not None
    for known, said in (
        ([rows[1:] for rows in MARKED.known], "must be"),
        ([rows * 2 for rows in MARKED.known], "together at most 1"),
        ([-rows for rows in MARKED.known], "0 or more"),
        ([rows.astype(np.float64) for rows in MARKED.known], "float32"),
    ):
        with pytest.raises(DatasetError, match=said):
            replace(MARKED, known=known)
    for wrong in ({"snippet": -1}, {"action": "much"}, {"mil": 1}, {"snipet": 1}):
        with pytest.raises(ValueError, match=r"Times|times"):
            TrainConfig.from_dict({"times": wrong})
    config = TrainConfig(times=TimesConfig(snippet=0.5, mil=True), loss=LossConfig(norm=0.1))
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_what_is_known_helps() -> None:
    """Of a toy that labels alone do not teach in so few steps: how sure the network is where the action is."""

    def contrast(data: VideoSet, config: TrainConfig) -> float:
        net = train(start(), data, config).build()
        unseen, truth = toy(12, seed=1)
        found = [predict(net, rows).actionness for rows in unseen.features]
        return float(np.mean([f[h].mean() - f[~h].mean() for f, h in zip(found, truth, strict=True) if h.any()]))

    data, truth = toy(24)
    config = replace(CONFIG, steps=40, lr=3e-3)
    labels = contrast(data, config)
    some = contrast(with_known(data, truth, complete=4, marked=8), replace(config, times=TimesConfig()))
    everything = contrast(with_known(data, truth), replace(config, times=TimesConfig()))
    assert everything > some > labels
    assert len(CLASSES) == 3
