"""Calibration and prediction sets against independent implementations: netcal and crepes."""

import warnings

import numpy as np
import pytest

from robult_edge import calibration, conformal, fusion, metrics

crepes = pytest.importorskip("crepes")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it imports warns of its own old ways
    netcal_metrics = pytest.importorskip("netcal.metrics")
    netcal_scaling = pytest.importorskip("netcal.scaling")


def spoken(seed, n=4000, k=4, temperature=2.5):
    """Logits [n, k] that are ``temperature`` times too sure, and the truths."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, k))
    y = (fusion.softmax(z).cumsum(1) < rng.random((n, 1))).sum(1)
    return temperature * z, np.minimum(y, k - 1)


def test_ece_is_netcals():
    logits, y = spoken(0)
    p = fusion.softmax(logits)
    want = netcal_metrics.ECE(15).measure(p, y)
    assert metrics.ece(p, y) == pytest.approx(want, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("temperature", [0.6, 2.5])
def test_temperature_is_netcals(temperature):
    logits, y = spoken(1, temperature=temperature)
    fresh, _ = spoken(2, temperature=temperature)
    theirs = netcal_scaling.TemperatureScaling()
    theirs.fit(fusion.softmax(logits), y)
    ours = fusion.softmax(fresh / calibration.fit_temperature(logits, y))
    # Ours is pulled towards 1 by a few nats; thousands of labels outweigh that.
    np.testing.assert_allclose(theirs.transform(fusion.softmax(fresh)), ours, atol=0.01)


@pytest.mark.parametrize("rate", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [30, 500])
def test_prediction_sets_are_crepes(rate, n):
    logits, y = spoken(3, n)
    fresh, _ = spoken(4, 400)
    p, q = fusion.softmax(logits), fusion.softmax(fresh)
    theirs = crepes.ConformalClassifier()
    theirs.fit(1 - p[np.arange(n), y])
    want = theirs.predict_set(1 - q, confidence=rate, smoothing=False)
    got = q >= conformal.threshold(p, y, rate)
    np.testing.assert_array_equal(got, np.asarray(want, bool))
