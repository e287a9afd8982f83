"""train.costs: what branches cost, and encoders that fit a budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robult_edge.errors import RobultError
from robult_edge.modality import ChannelStats, ModalitySpec
from robult_edge.nn.encoders import ENCODERS, suitable
from robult_edge.nn.robult import Robult
from train.__main__ import main
from train.costs import (
    Budget,
    Network,
    fitting,
    flops,
    kept,
    measured,
    microseconds,
    parameters,
    windows,
)


def sensor(name: str, samples: int = 128, channels: int = 3) -> ModalitySpec:
    some = (0.0,) * channels
    return ModalitySpec(
        name=name,
        channels=tuple("xyzuvw"[:channels]),
        unit="g",
        timeout_s=1.0,
        rate_hz=50.0,
        window=samples,
        hop=max(1, samples // 2),
        stats=ChannelStats(
            mean=some, std=(1.0,) * channels, low=(-3.0,) * channels, high=(3.0,) * channels,
            spread=some,
        ),
    )  # fmt: skip


def total(m: int, network: Network) -> tuple[int, int]:
    """Parameters and FLOPs of the branches of ``m`` like sensors."""
    robult = network.robult(*(sensor(f"s{i}") for i in range(m)), encoder="conv1d")
    branches = [robult.branch(name) for name in robult.names]
    x = windows(sensor("s0"), 1)
    return sum(map(parameters, branches)), sum(flops(b, x) for b in branches)


def test_branches_grow_linearly_with_the_sensors() -> None:
    network = Network(classes=7)
    one, two, five = (np.array(total(m, network)) for m in (1, 2, 5))
    assert (two == 2 * one).all()
    assert (five == 5 * one).all()


def test_three_sensors_at_the_papers_width_stay_within_its_parameters() -> None:
    """1.46 M kept at inference: branches share g_0 and c, and the head is one more."""
    network = Network(classes=7, width=128)
    robult = network.robult(*(sensor(n) for n in "abc"))
    alone = [robult.head(), *(robult.branch(n) for n in "abc")]
    total = kept([sensor(n) for n in "abc"], network)
    assert max(map(parameters, alone)) < total < sum(map(parameters, alone))
    assert total <= 1_460_000


@pytest.mark.parametrize("samples", [1, 16, 128])
def test_suitable_encoders_take_the_window(samples: int) -> None:
    spec = sensor("s", samples)
    for name in suitable(spec):
        assert Network(classes=3).robult(spec, encoder=name).branch("s")(windows(spec, 2))[0].shape
    assert set(suitable(spec)) <= set(ENCODERS)


def test_flops_of_a_product_are_two_for_each_weight() -> None:
    assert flops(torch.nn.Linear(30, 20, bias=False), torch.zeros(1, 30)) == 2 * 30 * 20


def test_a_budget_of_parameters_takes_the_best_encoder_that_fits() -> None:
    spec, network = sensor("acc"), Network(classes=7)
    for encoder in ("conv1d", "gru"):
        branch = network.robult(spec, encoder=encoder).branch("acc")
        assert fitting([spec], network, Budget(parameters(branch), "parameters")) == {
            "acc": encoder
        }


def test_every_suitable_encoder_is_measured() -> None:
    spec = sensor("s", samples=16)
    found = measured(spec, Network(classes=3))
    assert tuple(found) == suitable(spec)
    for cost in found.values():
        assert cost.keys() == {"parameters", "flops", "us"}
        assert min(cost.values()) > 0


def test_a_budget_of_microseconds_is_measured() -> None:
    spec, network = sensor("acc"), Network(classes=7)
    assert microseconds(network.robult(spec, encoder="mlp").branch("acc"), spec) > 0
    assert fitting([spec], network, Budget(1e6, "us")) == {"acc": suitable(spec)[0]}


def test_a_budget_that_nothing_fits_says_what_comes_nearest() -> None:
    with pytest.raises(RobultError, match=r"'acc'.*100 parameters.*gru costs \d+.*--width than 64"):
        fitting([sensor("acc")], Network(classes=7), Budget.parse("100"))


@pytest.mark.parametrize("text", ["", "us", "many", "-5", "0us", "nan", "inf"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RobultError, match=r"e\.g\. 50000, or of microseconds"):
        Budget.parse(text)


def test_training_within_a_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from robult_edge.nn.checkpoint import load_model

    arguments = ["--dataset", "synthetic", "--epochs", "1", "--folds", "2", "--workers", "1"]
    out = tmp_path / "run"
    assert main([*arguments, "--out", str(out), "--budget", "1e6"]) == 0
    chosen = load_model(out)[1]
    assert isinstance(load_model(out)[0], Robult)
    assert set(chosen.encoders.values()) <= set(ENCODERS)
    assert main([*arguments, "--out", str(out), "--budget", "10"]) == 2
    assert "no encoder costs" in capsys.readouterr().out
