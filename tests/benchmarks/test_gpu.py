"""benchmarks.gpu without a GPU: its measure on a stand-in, and the sentence it ends with."""

from __future__ import annotations

import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_check
from robult_edge import nvidia
from robult_edge.bundle import Bundle
from robult_edge.errors import EngineError
from robult_edge.golden import graphs
from runtime.backends import cuda
from runtime.backends.device_fusion import DeviceFusion
from runtime.backends.tensorrt import TensorRtBackend
from tests.runtime import standin


def backends(shipped: Bundle) -> list[TensorRtBackend]:
    return [TensorRtBackend(g.file.read_bytes(), "trt", (1, 1, 4)) for g in graphs(shipped)]


def measured(label: str, work: gpu.Work) -> dict[str, float]:
    with cuda.pushed(cuda.primary_context()), ExitStack() as held:
        return gpu.measure(label, work, gpu.empty_replay(held), (1, 4), 3)


def test_every_graph_and_batch_is_a_ratio_to_an_empty_replay(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    standin.install(monkeypatch)
    runs = [backend.run for backend in backends(shipped)]
    figures = measured("ours", partial(gpu.graph_work, graphs(shipped), runs))
    names = ("acc", "gyro", "fusion_head", "all_in_a_row")
    assert list(figures) == [f"ours_{n}_{b}_ratio" for b in (1, 4) for n in names]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in figures.values())
    assert gpu.table("Orin", figures).row_count == len(names)


def test_so_is_every_subset_fused_on_the_device(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch, build: Path
) -> None:
    standin.install(monkeypatch).kernels = build
    *branches, head = backends(shipped)
    device = DeviceFusion(shipped.manifest, "pool", branches, head, build / "any.fatbin")
    figures = measured("ours", partial(gpu.fused_work, shipped, device))
    names = ("acc+gyro", "gyro", "acc")
    assert list(figures) == [f"ours_{n}_{b}_ratio" for b in (1, 4) for n in names]
    assert all(math.isfinite(ratio) and ratio > 0 for ratio in figures.values())


def test_the_goal_is_all_fused_over_the_slowest_branch_and_the_head() -> None:
    figures = {
        "tensorrt_graphs_acc_1_ratio": 2.0,
        "tensorrt_graphs_gyro_1_ratio": 4.0,
        "tensorrt_graphs_fusion_head_1_ratio": 2.0,
        "tensorrt_subsets_acc+gyro_1_ratio": 9.0,
        "tensorrt_subsets_acc_1_ratio": 3.0,
    }
    assert gpu.goal(("acc", "gyro"), figures) == {"tensorrt_fused_over_parts_ratio": 1.5}
    assert gpu.goal(("acc", "gyro"), {"torch_eager_acc_1_ratio": 9.0}) == {}


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
        ("engines", 0, "fused acc+gyro 1.0e-06 100%", "passed"),
        ("engines", 2, "export.tensorrt: no CUDA driver here (libcuda.so.1 …)", "skipped"),
        ("engines", 2, "export.tensorrt: tensorrt cannot be imported (…)", "skipped"),
        ("engines", 2, "export.tensorrt: acc.onnx, fp32: no engine can be made", "FAILED"),
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
