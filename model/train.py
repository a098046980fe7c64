"""Training of JCDNet, section 4.1: a checkpoint, videos and settings in, a trained checkpoint out.

A training that was killed resumes from its last state on disk and gives the same numbers. All randomness of a step
comes from the seed and the number of the step, so the state is only the weights, their average, Adam's moments and the
log. On a CPU the numbers are equal to the last digit, for the same number of threads; GPU kernels sum in varying order.

The result is the weights of the last step, or the average over all steps. No step is selected, so none can be selected
for the sake of a test.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

from model import timed
from model.averaging import Average
from model.checkpoint import Checkpoint, fingerprint, write_atomically
from model.config import ModelConfig, TrainConfig
from model.datasets import Batch, VideoSet, draw
from model.jcdnet import JCDNet
from support.errors import UserError
from support.files import sweep
from support.progress import Progress, silent

STATE_NAME = "training.safetensors"
LOG_NAME = "log.csv"
FORMAT = 1

_HEADER_KEY = "jcdnet-training"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainError(UserError):
    """A training cannot start, continue or converge; the message is one sentence with the cause and the next step."""


def initialise(
    config: ModelConfig, classes: tuple[str, ...], streams: tuple[str, ...], features: Mapping[str, Any], seed: int
) -> Checkpoint:
    """An untrained network as a checkpoint, with weights drawn from `seed`. For the other arguments see `Checkpoint`.

    The random state of the caller on the CPU does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = {name: tensor.clone() for name, tensor in JCDNet(config).state_dict().items()}
    return Checkpoint(config=config, classes=classes, streams=streams, features=dict(features), state=state)


def train(
    start: Checkpoint,
    data: VideoSet,
    config: TrainConfig,
    folder: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    resume: bool = True,
    on_progress: Progress = silent,
) -> Checkpoint:
    """Train from the weights of `start` on labels per video.

    Args:
        start: a checkpoint from `initialise`, or a trained network with the same classes.
        data: the videos to train on.
        config: the settings, ablations included.
        folder: gets `training.safetensors`, the state to resume from, and `log.csv`. The log has a row for each step,
            with the loss, each term before weighting, the norm of the gradient and the gates. All of these belong to
            the weights of that step, not to their average. None writes nothing.
        device: where to compute.
        resume: whether to continue from the state in `folder` if there is one; otherwise it is replaced.
        on_progress: called after each step with ("train", steps done, steps in all).

    Returns:
        `start` with the weights of the last step or their average, and with the training in its provenance.

    Raises:
        TrainError: `start` and `data` do not fit together, the state in `folder` is damaged or belongs to another
            training, or the loss is not finite.
        ValueError: `config` gives a weight to a term whose module the network lacks.
        CheckpointError: `start` is inconsistent, or the folder cannot be written.
    """
    _check_fit(start, data, config)
    identity = _identity(start, data, config)
    state_file = None if folder is None else Path(folder) / STATE_NAME
    net = start.build().to(device).train()
    optimiser = _adam(net, config)
    average = Average(net, config.averaging) if config.averaging else None
    columns = ["loss", *timed.terms(config), "gradient", *_gates(net)]
    history: list[list[float]] = []
    if state_file is not None:
        sweep(state_file.parent)  # a killed write leaves a state, four times the size of its network
    if state_file is not None and resume and state_file.exists():
        history = _restore(state_file, net, optimiser, average, identity)
        if history:  # the log may have been lost; the state has all of it
            _write_log(state_file.with_name(LOG_NAME), columns, history)
    if len(history) > config.steps:
        raise TrainError(
            f"{state_file} has {len(history)} steps behind it, more than the {config.steps} requested; "
            "request as many, or train in another folder."
        )

    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        for step in range(len(history), config.steps):
            batch = draw(data, config, step).to(device)
            torch.manual_seed(_dropout_seed(config.seed, step))
            values = _step(net, optimiser, batch, config, step)
            history.append([values[name] for name in columns])
            done = step + 1
            if average is not None:
                average.update(net, done)
            if state_file is not None and (done % config.save_every == 0 or done == config.steps):
                _save(state_file, _tensors(net, optimiser, average), identity, columns, history)
            on_progress("train", done, config.steps)

    if average is not None:
        average.apply(net)
    return _finished(start, net, config, identity, dict(zip(columns, history[-1], strict=True)), len(data.names))


def _step(
    net: JCDNet, optimiser: torch.optim.Optimizer, batch: Batch, config: TrainConfig, step: int
) -> dict[str, float]:
    """One step of the optimiser; returns the row of the log, with the gates as they were before the step.

    Raises:
        TrainError: the loss or its gradient is not finite. The weights are then unchanged.
    """
    output = net(batch.features, batch.mask)
    loss, terms = timed.total(output, batch, config)
    optimiser.zero_grad()
    loss.backward()
    gradient = torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    tensors = {"loss": loss, **terms, "gradient": gradient, **_gates(net)}
    values = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
    _check_finite(values, step)
    optimiser.step()
    return values


def _finished(
    start: Checkpoint, net: JCDNet, config: TrainConfig, identity: dict[str, Any], last: dict[str, float], videos: int
) -> Checkpoint:
    """`start` with the weights of `net`, and the training in its provenance."""
    about = {
        "settings": config.to_dict(),
        "videos": videos,
        "data": identity["data"],
        "initial_weights": identity["initial weights"],
        "torch": torch.__version__,
        "last": last,
    }
    trained = {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}
    return replace(start, state=trained, provenance={**start.provenance, "training": about})


def _gates(net: JCDNet) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in net.named_parameters() if name in ("alpha", "beta")}


def _adam(net: JCDNet, config: TrainConfig) -> torch.optim.Adam:
    """Adam with L2 on all parameters but the gates, which decay would pull back to 0, where they start."""
    gates = _gates(net)
    others = [tensor for name, tensor in net.named_parameters() if name not in gates]
    groups = [
        {"params": others, "lr": config.lr, "weight_decay": config.weight_decay},
        {"params": list(gates.values()), "lr": config.lr * config.gate_lr, "weight_decay": 0.0},
    ]
    return torch.optim.Adam([group for group in groups if group["params"]])


def _dropout_seed(seed: int, step: int) -> int:
    """A seed for dropout. Neighbouring steps must not get neighbouring seeds: some generators then start alike."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])


def _check_fit(start: Checkpoint, data: VideoSet, config: TrainConfig) -> None:
    config.loss.check(start.config)
    if (config.times is None) != (data.known is None):
        raise TrainError("Times need both a setting `times` and known snippets; give both, or neither.")
    if start.classes != data.classes:
        raise TrainError(
            f"The network has the classes {', '.join(start.classes)} and the labels {', '.join(data.classes)}; "
            "initialise it with those of the labels, in their order."
        )
    if start.config.in_dim != data.width:
        raise TrainError(
            f"The network takes features {start.config.in_dim} wide and these are {data.width}; "
            "extract the streams that it declares, or initialise it with their width as in_dim."
        )


def _check_finite(row: dict[str, float], step: int) -> None:
    wrong = ", ".join(f"{name} {value}" for name, value in row.items() if not np.isfinite(value))
    if wrong:
        raise TrainError(f"The training diverged at step {step + 1} ({wrong}); use a lower lr or qk_scale.")


def _identity(start: Checkpoint, data: VideoSet, config: TrainConfig) -> dict[str, Any]:
    """Everything that decides the numbers of a training, flat. `steps` is left out: a training can be prolonged."""
    described = config.to_dict()
    settings = {k: v for k, v in described.items() if k not in ("steps", "save_every", "loss", "times")}
    weights = {f"{table} {k}": v for table in ("loss", "times") for k, v in described.get(table, {}).items()}
    hashes = {"data": data.fingerprint(), "initial weights": fingerprint(start)}
    return {"format": FORMAT, **start.config.to_dict(), **settings, **weights, **hashes}


def _save(
    path: Path,
    state: Iterator[tuple[str, Tensor]],
    identity: dict[str, Any],
    columns: list[str],
    history: list[list[float]],
) -> None:
    # The log comes first: a training killed between the two writes would otherwise have a log without its end.
    _write_log(path.with_name(LOG_NAME), columns, history)
    tensors = {name: tensor.detach().cpu() for name, tensor in state}
    tensors["history"] = torch.tensor(history, dtype=torch.float64)
    write_atomically(path, safetensors_torch.save(tensors, {_HEADER_KEY: json.dumps(identity, sort_keys=True)}))


def _write_log(path: Path, columns: list[str], history: list[list[float]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    writer.writerows([step, *row] for step, row in enumerate(history, start=1))
    write_atomically(path, text.getvalue().encode())


def _restore(
    path: Path, net: JCDNet, optimiser: torch.optim.Adam, average: Average | None, identity: dict[str, Any]
) -> list[list[float]]:
    """Load a state from disk into `net`, `optimiser` and `average`, and return the history of its steps."""
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(json.loads((file.metadata() or {})[_HEADER_KEY]))
            tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
        header.setdefault("averaging", 0.0)  # older states have no such setting
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise TrainError(
            f"{path} is not a complete training state ({error}); delete it to start over, or train in another folder."
        ) from error
    changed = [
        f"{name} {header.get(name)!s:.12}, now {identity.get(name)!s:.12}"
        for name in {**identity, **header}
        if header.get(name) != identity.get(name)
    ]
    if changed:
        raise TrainError(
            f"{path} belongs to another training ({'; '.join(changed)}); give it the same settings and videos, "
            "train in another folder, or start over (--overwrite)."
        )
    if (odd := next(_misfits(tensors, net, average), None)) is not None:
        raise TrainError(f"{path} has no {odd} that fits; delete it to start over, or train in another folder.")
    history: list[list[float]] = tensors.pop("history").tolist()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(tensors[f"net.{name}"])
            moments = {key: tensors[f"adam.{name}.{key}"] for key in _MOMENTS if f"adam.{name}.{key}" in tensors}
            if moments:
                # Adam keeps its step counts on the CPU, on any device.
                moved = {key: value.to(parameter.device) for key, value in moments.items() if key != "step"}
                optimiser.state[parameter] = {"step": moments["step"], **moved}
            if average is not None:
                average.mean[name].copy_(tensors[f"mean.{name}"])
    return history


def _misfits(tensors: dict[str, Tensor], net: JCDNet, average: Average | None) -> Iterator[str]:
    """The entries of a state that are missing or have the wrong shape; moments of Adam may be missing."""
    for name, parameter in net.named_parameters():
        needed = [f"net.{name}"] if average is None else [f"net.{name}", f"mean.{name}"]
        for key in (*needed, *(f"adam.{name}.{moment}" for moment in _MOMENTS[1:])):
            there, shape = tensors.get(key), parameter.shape
            if (there is None and key in needed) or (there is not None and there.shape != shape):
                yield key
    if "history" not in tensors or tensors["history"].ndim != 2:
        yield "history"


def _tensors(net: JCDNet, optimiser: torch.optim.Adam, average: Average | None) -> Iterator[tuple[str, Tensor]]:
    """Weights, their average and Adam's moments by name. A parameter without a gradient has no moments."""
    for name, parameter in net.named_parameters():
        yield f"net.{name}", parameter
        if average is not None:
            yield f"mean.{name}", average.mean[name]
        for key, tensor in optimiser.state.get(parameter, {}).items():
            yield f"adam.{name}.{key}", tensor
