"""A run's files: run.json says what was trained, safetensors hold the weights. No pickles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from robult_edge.errors import RobultError
from robult_edge.modality import ModalitySpec
from robult_edge.nn.robult import ClassifierInput, Robult
from robult_edge.task import Scale, Task

VERSION = 2


class RunInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """run.json: everything needed to rebuild and to judge a trained model.

    Attributes:
        version: of this file.
        dataset: source as given to ``robult_edge.data.load``.
        task: what was asked.
        classes: K names, of classes, labels or targets.
        scales: of regression, per target, from the labels used.
        modalities: with training statistics.
        width: d.
        encoders: encoder name per modality.
        classifier_input: "z" or "zu".
        seed: of everything random.
        labels: fraction of the training labels used.
        label_counts: labels used per class; for other tasks, per stratum.
        epochs: chosen out of fold.
        versions: of the libraries.
        metrics: the task's score by name: "oof/<rule>/<subset>" and "test/<rule>/<subset>".
        config: the training settings.
    """

    version: int = VERSION
    dataset: str
    task: Task = "classification"
    classes: tuple[str, ...]
    scales: tuple[Scale, ...] = ()
    modalities: tuple[ModalitySpec, ...]
    width: int
    encoders: dict[str, str]
    classifier_input: ClassifierInput
    seed: int
    labels: float
    label_counts: tuple[int, ...]
    epochs: int
    versions: dict[str, str]
    metrics: dict[str, float]
    config: dict[str, Any]


def save_model(run_dir: Path, weights: Mapping[str, Tensor], info: RunInfo) -> None:
    """Write model.safetensors, then run.json: a run with a run.json is complete."""
    save_tensors(run_dir / "model.safetensors", weights)
    _replace(run_dir / "run.json", msgspec.json.format(msgspec.json.encode(info), indent=2))


def load_model(run_dir: Path) -> tuple[Robult, RunInfo]:
    """The trained network, in evaluation mode on the CPU, and how it came about.

    Raises:
        RobultError: the folder holds no complete run, or one of another version.
    """
    try:
        info = msgspec.json.decode((run_dir / "run.json").read_bytes(), type=RunInfo)
    except FileNotFoundError:
        raise RobultError(
            f"{run_dir} holds no finished run (no run.json); train one with python -m train"
        ) from None
    except msgspec.MsgspecError as error:
        raise RobultError(f"{run_dir / 'run.json'} cannot be read ({error}); train again") from None
    if info.version != VERSION:
        raise RobultError(
            f"{run_dir / 'run.json'} is of version {info.version}; this program reads {VERSION}; "
            "train again"
        )
    model = Robult(
        info.modalities,
        len(info.classes),
        info.width,
        encoders=info.encoders,
        classifier_input=info.classifier_input,
    )
    try:
        model.load_state_dict(load_file(run_dir / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise RobultError(f"{run_dir} has no fitting model.safetensors ({first})") from None
    return model.eval(), info


def save_state(
    path: Path,
    epoch: int,
    model: torch.nn.Module,
    ema: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    reference: Tensor,
) -> None:
    """Everything that training goes on from after ``epoch`` epochs, in one file."""
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"ema/{k}": v for k, v in ema.items()}
    for index, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{index}/{k}": v for k, v in values.items()}
    save_tensors(path, tensors | {"reference": reference}, {"epoch": str(epoch)})


def load_state(
    path: Path,
    model: torch.nn.Module,
    ema: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> tuple[int, Tensor]:
    """Put a saved state back in place.

    Returns:
        Epochs done, and the proximity reference.
    """
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        epoch = int(file.metadata()["epoch"])
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimiser": {}}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        if name:
            groups[group][name] = value
    model.load_state_dict(groups["model"])
    for name, value in groups["ema"].items():
        ema[name].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimiser"].items():
        index, _, name = key.partition("/")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    return epoch, tensors["reference"]


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write a safetensors file in one piece: the old one or the new one is there, never half."""
    part = path.with_name(path.name + ".part")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata)
    os.replace(part, path)


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
