"""runtime.backends.onnxruntime on a GPU: fp32 means fp32."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from robult_edge import golden
from robult_edge.bundle import Bundle
from robult_edge.golden import deviation
from runtime.backends.onnxruntime import PROVIDERS, OnnxRuntimeBackend


def test_answers_are_the_golden_vectors_and_not_tf32s(shipped: Bundle) -> None:
    provider, _ = PROVIDERS["cuda"]
    if provider not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {provider}; pip install onnxruntime-gpu in its place")
    for graph in golden.graphs(shipped):
        backend = OnnxRuntimeBackend(graph.file, "cuda")
        for n in (1, len(graph.inputs[0])):
            got = backend.run(*(a[:n] for a in graph.inputs))
            assert deviation(got, [o[:n] for o in graph.outputs]) < 1e-5, f"{graph.name}, {n}"
        backend.close()
