"""Training on a GPU: it learns what the CPU learns, and goes on where it was interrupted."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from robult_edge.data import load
from train import crossfit, loop
from train.config import TrainConfig

SOURCE = "synthetic:windows=400,modalities=3,groups=8,classes=3"
CONFIG = TrainConfig(
    labels=0.3, epochs=6, folds=2, steps=20, width=32, workers=1, device="cuda",
    encoders={"s0": "conv1d", "s1": "gru", "s2": "rocket"},
)  # fmt: skip


@pytest.fixture(autouse=True)
def gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")


def test_what_is_learned_is_what_the_cpu_learns(tmp_path: Path) -> None:
    plan = crossfit.make_plan(load(SOURCE), CONFIG)
    on_gpu, on_cpu = (
        crossfit.fit(plan, dataclasses.replace(CONFIG, device=device), tmp_path / device, silent)
        for device in ("cuda", "cpu")
    )
    for subset, accuracy in on_cpu.metrics.items():
        assert on_gpu.metrics[subset] == pytest.approx(accuracy, abs=0.1), subset
    assert on_gpu.metrics["oof/head/s0+s1+s2"] > 0.6  # chance is 1/3


@pytest.fixture
def repeatable() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.filterwarnings("default")  # what the GPU can only do in any order says so
def test_an_interrupted_training_ends_as_any_other(tmp_path: Path, repeatable: None) -> None:
    plan = crossfit.make_plan(load(SOURCE), CONFIG)

    def train(out: Path, *epochs: int) -> Callable[[int], dict[str, Tensor]]:
        for last in epochs:
            config = dataclasses.replace(CONFIG, epochs=last, ramp=0.0)
            loop.train_fold(plan, config, 0, out, silent)
        return lambda epoch: load_file(out / "fold0" / f"epoch-{epoch:03d}.safetensors")

    through, in_two = train(tmp_path / "one", 6), train(tmp_path / "two", 2, 6)
    begun, one, two = through(1), through(5), in_two(5)
    apart = sum((two[name].double() - value).norm() for name, value in one.items())
    travelled = sum((begun[name].double() - value).norm() for name, value in one.items())
    assert apart < 0.02 * travelled  # what of the GPU's arithmetic is in no order


def test_several_gpus_train_one_model(tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    if count < 2:
        pytest.skip("one GPU: NCCL wants one for every process")
    command = ["--dataset", SOURCE, "--epochs", "6", "--folds", "2", "--width", "32"]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(count), "-m", "train"]
    done = subprocess.run(
        [sys.executable, *torchrun, *command, "--out", tmp_path / "run"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "run.json").exists()


def silent(_: object) -> None:
    pass
