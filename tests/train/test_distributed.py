"""Several processes under torchrun end where one does; gloo on the CPU stands for NCCL on GPUs."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn

from robult_edge.data import load
from robult_edge.nn.checkpoint import load_model
from train import crossfit, distributed, loop
from train.__main__ import main
from train.config import TrainConfig

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
SOURCE = "synthetic:windows=240,modalities=3,groups=8,classes=3"
TINY = "synthetic:windows=64,modalities=3,groups=8,classes=3"
# 13 rows on two processes, most of them lacking most sensors: shares differ, some are empty.
CONFIG = TrainConfig(
    labels=0.3, missing=0.8, epochs=4, folds=2, steps=6, batch_labelled=7, batch_unlabelled=6,
    ramp=0.0, width=16, warmup=5, workers=1, device="cpu", 
    encoders={"s0": "conv1d", "s1": "gru", "s2": "mlp"},  # without dropout of their own
)  # fmt: skip


def train(folder: Path, *epochs: int) -> None:
    """Train fold 0 in ``folder``, stopping and going on after each number of ``epochs``."""
    plan = crossfit.make_plan(load(SOURCE), CONFIG)
    for last in epochs:
        config = dataclasses.replace(CONFIG, epochs=last)
        loop.train_fold(plan, config, 0, folder / "folds", lambda _: None)


def torchrun(*command: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *command],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_two_processes_end_where_one_does_even_if_interrupted(tmp_path):
    train(tmp_path / "one", 4)
    torchrun("-m", "tests.train.test_distributed", str(tmp_path / "two"))
    begun, one, two = (
        load_file(tmp_path / run / "folds" / "fold0" / f"epoch-{epoch:03d}.safetensors")
        for run, epoch in (("one", 0), ("one", 3), ("two", 3))
    )
    # AdamW makes steps of roundings where a gradient is next to nothing, so: all in all.
    apart = sum((two[name] - value).double().norm() for name, value in one.items())
    travelled = sum((begun[name] - value).double().norm() for name, value in one.items())
    assert apart < 1e-4 * travelled


def test_the_command_trains_on_two_processes_and_speaks_with_one_voice(tmp_path):
    command = ["--dataset", TINY, "--epochs", "2", "--folds", "2", "--width", "16"]
    command += ["--labels", "0.3", "--device", "cpu"]
    command += ["--lr", "2e-4"]  # a short way: roundings grow with it
    command += [f"--encoder=s{i}=conv1d" for i in range(3)]
    assert main([*command, "--workers", "1", "--out", str(tmp_path / "one")]) == 0
    said = torchrun("-m", "train", *command, "--out", str(tmp_path / "two"))
    assert said.count("2/2") == 3  # models
    assert said.count(f"{tmp_path / 'two'}: ") == 1
    (one, then), (two, now) = (load_model(tmp_path / run) for run in ("one", "two"))
    assert now.metrics == then.metrics
    old, new = (
        torch.cat([value.double().flatten() for value in model.state_dict().values()])
        for model in (one, two)
    )
    torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
    # AdamW makes steps of roundings where a gradient is next to nothing: seldom.
    assert ((new - old).abs() > 1e-5 + 1e-4 * old.abs()).double().mean() < 1e-3
    for fold in range(3):
        assert len(list((tmp_path / "two" / "logs" / f"fold{fold}").iterdir())) == 1


@pytest.fixture
def alone():
    """A group of one process."""
    from torch.distributed.nn import functional  # noqa: F401 - see train.distributed.group

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("kind", "shape"), [(nn.BatchNorm1d, (9, 4)), (nn.BatchNorm2d, (3, 4, 5, 6))]
)
def test_the_batch_norm_is_torchs(alone, kind, shape):
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 1
    theirs, ours = kind(4), distributed.BatchNorm(4)
    found = []
    for norm in (theirs, ours):
        given = x.clone().requires_grad_()
        out = norm(given)
        (out * torch.arange(out.numel()).reshape(shape).sin()).sum().backward()
        found.append([out, given.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


if __name__ == "__main__":
    with distributed.group("cpu"):
        train(Path(sys.argv[1]), 2, 4)
