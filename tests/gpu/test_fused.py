"""Fusion on a GPU: every subset answered in one replay as the host answers it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robult_edge import subsets
from robult_edge.bundle import Bundle
from runtime import fatbin
from runtime.config import Config
from runtime.serving import Serving
from tests.runtime.test_device_fusion import golden_windows, on_host


@pytest.fixture
def serving(
    built: Bundle,
    build: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Serving:
    kernels = build / "robult_native.fatbin"
    if not kernels.exists():
        pytest.skip("no nvcc: no kernels are built here")
    monkeypatch.setenv(fatbin.VARIABLE, str(kernels))
    return Serving.prepare(built, Config(str(built.path)))


def test_every_subset_and_batch_is_answered_as_on_the_host(
    built: Bundle,
    serving: Serving,
) -> None:
    assert serving.fused.ready, serving.fused.choice
    device = serving.fused.backend
    assert device is not None
    for n in (1, 3, device.sizes[-1], device.sizes[-1] + 3):
        rows = np.arange(n) % len(built.golden()[f"x.{built.manifest.names[0]}"])
        for mask in subsets.all_subsets(len(built.manifest.names)):
            alive = list(subsets.members(mask))
            for turned in (rows, rows[::-1]):  # a replay must read its windows anew
                p, own = device.run(mask, *golden_windows(built, mask, turned))
                for b, row in enumerate(turned):
                    want_p, want_own = on_host(serving, built, "pool", mask, row)
                    np.testing.assert_allclose(p[b], want_p, rtol=0, atol=1e-2)
                    np.testing.assert_allclose(own[b, alive], want_own, rtol=0, atol=1e-2)
    serving.close()


def test_making_it_again_and_again_keeps_no_memory(built: Bundle, serving: Serving) -> None:
    import pycuda.driver as cuda

    def free_bytes() -> int:
        Serving.prepare(built, Config(str(built.path))).close()
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
    serving.close()
