"""benchmarks.gpu without a GPU: its measure on a stand-in, and the sentence it ends with."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest

from benchmarks import gpu, gpu_check
from robult_edge import nvidia
from robult_edge.bundle import Bundle
from robult_edge.errors import EngineError
from robult_edge.golden import graphs
from runtime.backends import cuda
from runtime.backends.tensorrt import TensorRtBackend
from tests.runtime import standin


def test_every_graph_and_batch_is_a_ratio_to_an_empty_replay(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.install(monkeypatch)
    every = graphs(shipped)
    runs = [TensorRtBackend(g.file.read_bytes(), "trt", (1, 1, 4)).run for g in every]
    with cuda.pushed(cuda.primary_context()), ExitStack() as held:
        figures = gpu.measure("ours", every, runs, gpu.empty_replay(held), (1, 4), 3)
    names = ("acc", "gyro", "fusion_head", "all_in_a_row")
    assert list(figures) == [f"ours_{n}_{b}_ratio" for b in (1, 4) for n in names]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in figures.values())
    assert gpu.table("Orin", figures).row_count == len(names)


def test_without_a_gpu_it_says_so_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> None:
        raise EngineError("no CUDA driver here")

    monkeypatch.setattr(nvidia, "gpu", absent)
    monkeypatch.setattr("sys.argv", ["gpu", "--quick"])
    assert gpu.main() == 0
    assert capsys.readouterr().out == "nothing is measured: no CUDA driver here\n"


@pytest.mark.parametrize(
    ("name", "code", "last", "word"),
    [
        ("tests", 0, "8 passed, 2 skipped in 3.1s", "passed"),
        ("tests", 0, "96 skipped in 0.75s", "skipped"),
        ("tests", 1, "1 failed, 7 passed in 3.1s", "FAILED"),
        ("benchmark", 0, "nothing is measured: no CUDA driver here", "skipped"),
        ("benchmark", 0, "torch_eager_acc 12.1", "passed"),
        ("doctor", 0, "export/ can be served here", "passed"),
        ("doctor", 1, "export/ cannot be served here", "FAILED"),
    ],
)
def test_a_check_that_tried_nothing_has_not_passed(
    name: str, code: int, last: str, word: str
) -> None:
    assert gpu_check.verdict(name, code, last) == word
