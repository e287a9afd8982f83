"""Windows on disk train as windows in memory do, and take no more memory than a few groups."""

import dataclasses
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robult_edge.data import load
from train import crossfit, loop
from train.config import TrainConfig
from train.feed import ahead

torch.set_num_threads(1)
ROOT = Path(__file__).parents[2]
TOML = """
name = "much"
classes = ["off", "on", "odd"]
form = "windows"
data = "DATA"
labels = "label"
groups = "who"
test_share = 0.25
modality.acc = {channels = CHANNELS, unit = "g", rate_hz = 100.0, window = WINDOW}
"""
CONFIG = TrainConfig(
    labels=0.1, epochs=1, folds=2, steps=4, batch_labelled=16, batch_unlabelled=16, width=16,
    workers=1, device="cpu",
)  # fmt: skip


def describe(folder: Path, data: str, channels: int, window: int) -> str:
    names = str([str(c) for c in range(channels)])
    text = TOML.replace("DATA", data).replace("CHANNELS", names).replace("WINDOW", str(window))
    path = folder / f"{Path(data).stem}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_windows_on_disk_train_to_the_same_bits(tmp_path):
    rng = np.random.default_rng(0)
    acc = rng.normal(size=(200, 3, 32))
    acc[::7, 1, 4] = np.nan
    who = rng.integers(8, size=200)
    np.savez(tmp_path / "packed.npz", acc=acc, label=rng.integers(3, size=200), who=who)
    with zipfile.ZipFile(tmp_path / "packed.npz") as file:
        file.extractall(tmp_path / "spread")
    sources = [describe(tmp_path, name, 3, 32) for name in ("packed.npz", "spread")]
    packed, spread = map(load, sources)
    assert packed.modalities == spread.modalities
    np.testing.assert_array_equal(packed.present, spread.present)
    np.testing.assert_array_equal(packed.windows["acc"], spread.windows["acc"][:])
    for a, b in zip(packed.recordings, spread.recordings, strict=True):
        assert a.name == b.name
        np.testing.assert_array_equal(a.samples["acc"], b.samples["acc"])
        np.testing.assert_array_equal(a.labels, b.labels)
    for name, data in (("packed", packed), ("spread", spread)):
        plan = crossfit.make_plan(data, CONFIG)
        if data is spread:
            sent = pickle.dumps(plan.windows)
            assert len(sent) < 5_000  # to another process goes where they lie
            plan = dataclasses.replace(plan, windows=pickle.loads(sent))
        loop.train_fold(plan, CONFIG, 0, tmp_path / name / "folds", lambda _: None)
    one, two = (
        load_file(tmp_path / name / "folds" / "fold0" / "epoch-000.safetensors")
        for name in ("packed", "spread")
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_more_data_than_memory_may_hold_train(tmp_path):
    """Eight times the data, and training takes no more memory for it."""
    some, much = (peak(tmp_path / f"{groups}", groups) for groups in (8, 64))
    assert much - some < 50_000  # kB, of 229 MB that are more


def peak(folder, groups):
    """What training on 4 MB of windows per group adds to a process, in kB."""
    n, shape = 250 * groups, (8, 512)
    (folder / "much").mkdir(parents=True)
    file = np.lib.format.open_memmap(
        folder / "much" / "acc.npy", mode="w+", dtype=np.float32, shape=(n, *shape)
    )
    rng = np.random.default_rng(0)
    for i in range(0, n, 250):
        file[i : i + 250] = rng.standard_normal((250, *shape), np.float32)
    del file
    np.save(folder / "much" / "label.npy", np.arange(n) % 3)
    np.save(folder / "much" / "who.npy", np.arange(n) // 250)
    source = describe(folder, "much", *shape)
    command = [sys.executable, "-m", "tests.train.test_feed", source, str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert load_file(folder / "folds" / "fold2" / "epoch-000.safetensors")
    return int(ran.stdout)


def test_an_error_in_the_thread_that_reads_reaches_who_trains():
    def items():
        yield 1
        raise OSError("disk gone")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="disk gone"):
        next(coming)


if __name__ == "__main__":
    # What loading and training add to the peak of a process that has everything imported, in kB.
    import resource

    import torch._dynamo
    import torch.utils.tensorboard

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = crossfit.make_plan(load(sys.argv[1]), CONFIG)
    loop.train_fold(plan, CONFIG, 2, Path(sys.argv[2]) / "folds", lambda _: None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
