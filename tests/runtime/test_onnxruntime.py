"""runtime.backends.onnxruntime: what goes to a GPU and what does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from robult_edge import golden
from robult_edge.bundle import Bundle
from robult_edge.golden import deviation
from runtime.backends import onnxruntime
from runtime.backends.onnxruntime import PROVIDERS, OnnxRuntimeBackend, Provider

CUDA = PROVIDERS["cuda"][0]


@pytest.mark.parametrize(("gpu_s", "lone"), [(4e-4, "cpu"), (2e-5, "cuda")])
def test_a_window_by_itself_goes_where_it_is_sooner_done(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch, gpu_s: float, lone: str
) -> None:
    on_gpu: set[object] = set()
    session = onnxruntime._session

    def stand_in(path: Path, provider: Provider, batch: int | None = None) -> ort.InferenceSession:
        made = session(path, PROVIDERS["cpu"], batch)
        if provider[0] == CUDA:
            on_gpu.add(made)
        return made

    def run_s(bound: onnxruntime._Bound) -> float:
        return gpu_s if bound._session in on_gpu else 6e-5

    monkeypatch.setattr(onnxruntime, "_session", stand_in)
    monkeypatch.setattr(onnxruntime._Bound, "run_s", run_s)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA])
    graph = golden.graphs(shipped)[0]
    backend = OnnxRuntimeBackend(graph.file, "cuda")
    assert backend._many in on_gpu
    assert (backend._one._session in on_gpu) == (lone == "cuda")
    one = backend.run(*(a[:1] for a in graph.inputs))
    assert deviation(one, [o[:1] for o in graph.outputs]) < 1e-5


def test_the_median_run_counts_and_the_first_does_not(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = golden.graphs(shipped)[0]
    backend = OnnxRuntimeBackend(graph.file)
    before = [a.copy() for a in backend.run(*(a[:1] for a in graph.inputs))]
    took = [100.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0]
    clock = iter([moment for seconds in took for moment in (0.0, seconds)])
    monkeypatch.setattr(onnxruntime.time, "perf_counter", lambda: next(clock))
    assert backend._one.run_s() == 5.0
    after = backend.run(*(a[:1] for a in graph.inputs))
    for a, b in zip(after, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_not_there_is_said(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [PROVIDERS["cpu"][0]])
    with pytest.raises(RuntimeError, match="no CUDAExecutionProvider"):
        OnnxRuntimeBackend(golden.graphs(shipped)[0].file, "cuda")
