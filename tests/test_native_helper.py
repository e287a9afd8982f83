"""robult_edge._native: tells the hot path what NumPy would, and without it nothing changes.

The helper is built anew from the sources, so that no stale one is tested.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from math import log
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from robult_edge import faults, fusion, native, subsets
from robult_edge.bundle import Bundle
from robult_edge.data.replay import Replay
from robult_edge.fusion import Rule
from robult_edge.modality import ModalitySpec
from tests.conftest import ROOT, run

NAMES = ("extremes", "level", "length", "motion", "clean", "fuse", "conflict")


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler")
    pytest.importorskip("setuptools")
    where = tmp_path_factory.mktemp("helper")
    shutil.copy(ROOT / "setup.py", where)
    shutil.copytree(ROOT / "native", where / "native")
    build = "import os, sys; os.chdir(sys.argv.pop(1)); import runpy; runpy.run_path('setup.py')"
    run(sys.executable, "-c", build, where, "--quiet", "build_ext", "--build-lib", where)
    (built,) = (where / "robult_edge").iterdir()
    spec = importlib.util.spec_from_file_location("robult_edge._native", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["helper", "NumPy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to compute, in turn."""
    for name in NAMES:
        found = request.getfixturevalue("helper") if request.param == "helper" else None
        monkeypatch.setattr(native, name, getattr(found, name, lambda *_: None))
    return str(request.param)


def stretch(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n, channels = int(rng.integers(8, 200)), int(rng.integers(1, 9))
    walk = rng.normal(size=(n, channels)).cumsum(0) * 10.0 ** rng.integers(-3, 4)
    return np.where(rng.random((n, 1)) < 0.2, np.round(walk), walk).astype(np.float32)


@pytest.mark.parametrize("seed", range(50))
def test_quantities_are_numpys(helper: ModuleType, seed: int) -> None:
    samples = stretch(seed)
    assert helper.extremes(samples) == (
        tuple(samples.max(0).tolist()),
        tuple(samples.min(0).tolist()),
    )
    exact = samples.astype(np.float64)
    scale = float(np.abs(exact).max())
    np.testing.assert_allclose(helper.level(samples), faults.level(exact), atol=1e-6 * scale)
    assert helper.length(samples) == pytest.approx(faults.length(exact), rel=1e-6)
    step = faults.steps(samples)
    bends = np.abs(faults.steps(step)).astype(np.float64)
    per_usual = np.float32(1) / (np.float32(1e-3) + bends.mean(0).astype(np.float32))
    same, rough, spiky = helper.motion(samples, per_usual)
    np.testing.assert_allclose(same, faults.repeats(step), rtol=1e-6)
    np.testing.assert_allclose(rough, faults.roughness(bends), rtol=1e-6)
    assert spiky == pytest.approx(float(faults.spikiness(bends, per_usual)), rel=1e-6)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 5, 19])
def test_extremes_hide_nothing(helper: ModuleType, at: int, broken: float) -> None:
    samples = np.zeros((20, 2), np.float32)
    samples[at, 1] = broken
    top, bottom = helper.extremes(samples)
    assert (top[0], bottom[0]) == (0, 0)
    np.testing.assert_array_equal([top[1], bottom[1]], [samples[:, 1].max(), samples[:, 1].min()])


@pytest.mark.parametrize("rule", ["pool", "mean"])
@pytest.mark.parametrize("scale", [3, 80])
@pytest.mark.parametrize("seed", range(20))
def test_fusion_is_numpys(helper: ModuleType, seed: int, scale: float, rule: Rule) -> None:
    rng = np.random.default_rng(seed)
    m, k = int(rng.integers(1, 7)), int(rng.integers(2, 12))
    mask = int(rng.integers(1, 1 << m))
    alive = list(subsets.members(mask))
    logits = rng.normal(0, scale, (m, k)).astype(np.float32)
    head = rng.normal(0, scale, k).astype(np.float32)
    temperatures = rng.uniform(0.5, 2, m + 1).astype(np.float32)
    weights = np.zeros(m + 1, np.float32)
    weights[[*alive, m]] = rng.uniform(0.1, 1, len(alive) + 1)
    fused, own = helper.fuse(rule == "mean", mask, mask, weights, temperatures, logits, head)
    y = np.vstack([logits, head]).astype(np.float64) / temperatures[:, None]
    np.testing.assert_allclose(fused, fusion.fuse(rule, y, weights), atol=1e-6)
    said = [own[i] for i in alive]
    np.testing.assert_allclose(said, fusion.softmax(y[alive]), atol=1e-6)
    want = float(fusion.conflict(np.array(said)))
    assert helper.conflict(said) == pytest.approx(want, abs=1e-12)


def test_a_head_that_is_out_has_no_say(helper: ModuleType) -> None:
    logits, ones = np.float32([[2, 0], [0, 0]]), np.ones(3, np.float32)
    fused, _ = helper.fuse(False, 3, 3, ones, ones, logits, None)
    np.testing.assert_allclose(fused, fusion.softmax(np.array([2.0, 0.0])), atol=1e-6)


def test_branches_that_exclude_one_another_conflict_most(helper: ModuleType) -> None:
    assert helper.conflict([(1.0, 0.0), (0.0, 1.0)]) == pytest.approx(log(2))


Reasons = list[str | None]
SPEC = ModalitySpec(
    name="acc", channels=("x", "y", "z"), unit="g", rate_hz=10, window=20, hop=10, timeout_s=1
)
LIMITS = faults.limits(SPEC)
SAMPLES = np.zeros((20, 3), np.float32)


@pytest.mark.parametrize(
    "samples",
    [
        SAMPLES.astype(np.float64),
        SAMPLES.T,
        SAMPLES[:, :2],
        SAMPLES[0],
        SAMPLES[None],
        SAMPLES[:0],
        SAMPLES.astype(">f4"),
        "samples",
        None,
    ],
)
def test_what_it_does_not_take_is_left_to_numpy(helper: ModuleType, samples: object) -> None:
    assert helper.extremes(samples) is None
    assert helper.level(samples) is None
    assert helper.length(samples) is None
    assert helper.motion(samples, np.ones(3, np.float32)) is None
    assert helper.clean(samples, 1, 1, *LIMITS.for_native) is None


def test_sizes_that_do_not_fit_are_left_to_numpy(helper: ModuleType) -> None:
    ones, logits = np.ones(3, np.float32), np.zeros((2, 4), np.float32)
    assert helper.motion(SAMPLES, ones[:2]) is None
    assert helper.motion(SAMPLES[:7], ones) is None
    packed, per_usual = LIMITS.for_native
    for fresh, honest in ((0, 20), (21, 20), (20, 21), (-1, 0)):
        assert helper.clean(SAMPLES, fresh, honest, packed, per_usual) is None
    assert helper.clean(SAMPLES, 20, 20, packed[:-1], per_usual) is None
    assert helper.clean(SAMPLES, 20, 20, packed, per_usual[:-1]) is None
    assert helper.fuse(False, 3, 3, ones[:2], ones, logits, None) is None
    assert helper.fuse(False, 3, 3, ones, ones[:2], logits, None) is None
    assert helper.fuse(False, 3, 3, ones, ones, logits, np.zeros(3, np.float32)) is None
    many = np.ones(14, np.float32)
    assert helper.fuse(False, 1, 1, many, many, np.zeros((13, 4), np.float32), None) is None
    assert helper.conflict([(0.5, 0.5), (1.0,)]) is None
    assert helper.conflict([[0.5, 0.5]]) is None
    assert helper.conflict([]) is None


@pytest.mark.parametrize("lie", [None, "noise", "spikes", "gain", "bias", "flat", "nan"])
def test_the_checks_say_the_same_either_way(
    way: str,
    lie: str | None,
    shipped: Bundle,
    replay: Replay,
    said: dict[str | None, Reasons],
) -> None:
    m = shipped.manifest.modalities[0]
    limits = faults.limits(m)
    rng = np.random.default_rng(0)
    reasons = []
    for hop in range(6, 40):
        end = hop * m.hop
        samples = np.array(replay.stretch(m.name, end - 6 * m.hop, end - 1))
        if lie == "noise":
            samples += rng.normal(0, samples.std(), samples.shape).astype(np.float32)
        elif lie == "spikes":
            samples[::9] += 3 * samples.std()
        elif lie == "gain":
            samples *= 3
        elif lie == "bias":
            samples += samples.std()
        elif lie == "flat":
            samples[:, 0] = samples[0, 0]
        elif lie == "nan":
            samples[-3] = np.nan
        for honest in (0, 2 * m.hop, len(samples)):
            reason = faults.check_newest(samples, m.hop, honest, limits)
            if way == "helper":
                clean = native.clean(samples, m.hop, honest, *limits.for_native)
                assert clean is (reason is None)
            reasons.append(reason)
    assert any(reasons) == (lie is not None)
    assert said.setdefault(lie, reasons) == reasons, way


@pytest.fixture(scope="module")
def said() -> dict[str | None, Reasons]:
    """What the first way said of each lie, for the other to repeat."""
    return {}


def test_without_a_compiler_it_says_so() -> None:
    hide = "import sys; sys.modules['robult_edge._native'] = None"
    look = "from robult_edge import native, faults; print(native.missing, native.level(0))"
    told = run(sys.executable, "-c", f"{hide}; {look}")
    assert told.startswith("not built (")
    assert told.strip().endswith(" None")


def test_it_is_built_from_what_setup_lists(helper: ModuleType) -> None:
    assert all(callable(getattr(helper, name)) for name in NAMES)
    listed = (ROOT / "setup.py").read_text()
    named = [Path(p).name for p in (ROOT / "native").glob("*.hpp")]
    included = [n for n in named if f'"{n}"' in (ROOT / "native" / "python.cpp").read_text()]
    assert all(f"native/{name}" in listed for name in included)
