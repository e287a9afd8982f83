"""runtime.backends.tensorrt on a GPU: engines built on it agree with the golden vectors."""

from __future__ import annotations

import numpy as np
import pytest

from robult_edge import nvidia
from robult_edge.bundle import Bundle
from robult_edge.golden import deviation, graphs
from runtime.backends.tensorrt import TensorRtBackend
from runtime.engines import Engines


@pytest.mark.parametrize("replay", [True, False])
def test_engines_agree_with_their_golden_vectors(built: Bundle, replay: bool) -> None:
    for graph in graphs(built):
        (engine,) = graph.entry.engines
        plan = built.file(engine.plan).read_bytes()
        backend = TensorRtBackend(plan, engine.flavour, engine.batch, replay)
        try:
            for n in (1, 3, len(graph.inputs[0]), 2 * engine.batch[-1] + 1):
                rows = np.arange(n) % len(graph.inputs[0])
                for turned in (rows, rows[::-1]):  # a replay must read its inputs anew
                    got = backend.run(*(a[turned] for a in graph.inputs))
                    off = deviation(got, [o[turned] for o in graph.outputs])
                    assert off <= nvidia.TOLERANCES["fp32"], f"{graph.name}, {n} windows"
        finally:
            backend.close()


def test_they_are_what_the_runtime_serves(built: Bundle) -> None:
    engines = Engines(built)
    assert {graph.choice for graph in engines.graphs} == {"tensorrt-fp32"}
    engines.close()


def test_loading_again_and_again_keeps_no_memory(built: Bundle) -> None:
    import pycuda.driver as cuda

    def free_bytes() -> int:
        Engines(built).close()
        context = cuda.Device(0).retain_primary_context()
        context.push()
        try:
            return cuda.mem_get_info()[0]
        finally:
            context.pop()

    free_bytes()
    before = free_bytes()
    for _ in range(5):
        after = free_bytes()
    assert before - after < 16 << 20
