"""runtime.policy: what a deployment demands is kept to, and what it cannot mean is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from robult_edge.bundle import Bundle
from robult_edge.errors import PolicyError, RobultError
from robult_edge.results import Result
from runtime import policy
from runtime.policy import Policy
from runtime.serve import parse
from runtime.tick import Decider
from tests.runtime.test_tick import FIT, MANIFEST, MS, NOW_NS, SAID, Hand, rig_at

ALL, NO_MIC, ACC = 0b111, 0b011, 0b001


def decided(asked: Policy, mask: int, now_ns: int = NOW_NS) -> Result:
    """What is published of the subset ``mask`` under a policy."""
    rig = rig_at(mask, SAID.branch[0])
    decider = Decider(MANIFEST, "mean", asked)
    return decider.decide(rig, None, Hand(now_ns))


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "deploy.toml").write_text(text)
    return tmp_path / "deploy.toml"


@pytest.mark.parametrize(
    ("asked", "mask", "decision", "says"),
    [
        ({}, ACC, "degraded", "gyro stale"),
        ({"required": ("mic",)}, ALL, "ok", "all modalities alive"),
        ({"required": ("mic",)}, NO_MIC, "none", "no decision: required mic not in; mic stale: no"),
        ({"required": ("gyro", "mic")}, ACC, "none", "required gyro, mic not in"),
        ({"optional": ("mic",)}, NO_MIC, "ok", "mic stale: no frames for 1.5 s"),
        ({"optional": ("mic",)}, ACC, "degraded", "gyro stale"),
        ({"minimum_alive": 2}, NO_MIC, "degraded", "mic stale"),
        ({"minimum_alive": 2}, ACC, "none", "no decision: 1 alive, fewer than 2; gyro stale"),
        ({"abstain_below_accuracy": 0.6}, NO_MIC, "degraded", "mic stale"),
        ({"abstain_below_accuracy": 0.6}, ACC, "none", "expected accuracy 0.55 below 0.6"),
    ],
)
def test_a_subset_answers_only_as_the_policy_allows(
    asked: dict[str, Any], mask: int, decision: str, says: str
) -> None:
    got = decided(Policy(**asked), mask)
    assert (got.decision, got.label is None) == (decision, decision == "none")
    assert says in got.reason


def test_no_decision_carries_nothing_that_could_be_taken_for_one() -> None:
    got = decided(Policy(minimum_alive=2), ACC)
    assert (got.label, got.probabilities, got.prediction_set) == (None, {}, [])
    assert got.alive == ["acc"]
    assert got.expected is not None
    assert got.modalities["acc"].state == "alive"


def test_a_prediction_set_that_is_too_large_is_no_decision() -> None:
    held = len(decided(Policy(), ALL).prediction_set)
    assert FIT.tables["mean"][ALL - 1].threshold < 0.5
    assert held > 1
    assert decided(Policy(abstain_above_set_size=held), ALL).decision == "ok"
    got = decided(Policy(abstain_above_set_size=held - 1), ALL)
    assert got.decision == "none"
    assert f"{held} classes cannot be ruled out, more than {held - 1}" in got.reason


@pytest.mark.parametrize(("late_ms", "decision"), [(0, "ok"), (100, "ok"), (101, "none")])
def test_windows_that_ended_too_long_ago_make_no_decision(late_ms: int, decision: str) -> None:
    end_ns = rig_at(ALL).tick.end_ns
    got = decided(Policy(max_age_ms=100), ALL, end_ns + late_ms * MS)
    assert got.decision == decision
    assert decision == "ok" or "windows ended 101 ms ago, more than 100" in got.reason


def test_every_setting_can_be_written_in_a_toml(tmp_path: Path) -> None:
    assert policy.__doc__ is not None
    shown = policy.__doc__.split("::", 1)[1]
    got = policy.load(write(tmp_path, shown.replace("\n    ", "\n")))
    assert set(Policy.__struct_fields__) == {line.split()[0] for line in shown.split("\n") if line}
    assert (got.required, got.optional, got.deadline_ms) == (("acc",), ("gyro",), 50)
    assert got.curve_keys == str(tmp_path / "keys/runtime"), "seen from where the TOML lies"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("deadline_m = 5", "no setting 'deadline_m'; did you mean 'deadline_ms'?"),
        ("minimum = 2", "no setting 'minimum'; "),
        ("colour = 1", "no setting 'colour'; known are mode, required"),
        ("mode = 'tock'", "Invalid enum value 'tock'"),
        ("minimum_alive = 0", "minimum_alive is 0; it must be a number from 1 on"),
        ("minimum_alive = 'two'", "Expected `int`, got `str`"),
        ("idle_s = inf", "idle_s is inf"),
        ("deadline_ms = nan", "deadline_ms is nan"),
        ("deadline_ms = -1", "deadline_ms is -1"),
        ("required = ['a', 'b']\noptional = ['b']", "b cannot be both required and optional"),
        ("mode = ", "cannot be read as TOML"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_in_one_sentence(
    tmp_path: Path, text: str, says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(PolicyError) as refused:
        policy.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_policy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.toml: cannot be read"):
        policy.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"required": ("gyroo",)}, "required: no modality 'gyroo'; did you mean 'gyro'?"),
        ({"optional": ("lidar",)}, "optional: no modality 'lidar'; known are acc, gyro, mic"),
        ({"minimum_alive": 4}, "minimum_alive is 4; demo has 3 modalities"),
        ({"abstain_below_accuracy": 0.9}, "nothing could ever be decided: expected accuracy 0.85"),
    ],
)
def test_a_policy_that_the_bundle_cannot_keep_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(RobultError) as refused:
        Policy(**asked).check(MANIFEST, "mean")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("line", "deadline_ms", "most"),
    [([], None, 1024), (["--policy"], 7.0, 9), (["--policy", "--deadline-ms", "0"], 0.0, 9)],
)
def test_the_command_line_has_precedence_over_the_policy_and_that_over_defaults(
    tmp_path: Path, line: list[str], deadline_ms: float | None, most: int
) -> None:
    path = str(write(tmp_path, "deadline_ms = 7.0\nmax_sources = 9"))
    if line:
        line.insert(1, path)
    got = parse(["--engines", "x", *line]).policy
    assert (got.deadline_ms, got.max_sources) == (deadline_ms, most)


@pytest.mark.parametrize(
    ("asked", "speed", "patience_ms"),
    [({}, 1, 50), ({}, 2, 100), ({}, 10, 125), ({"deadline_ms": 7}, 10, 7)],
)
def test_the_deadline_is_a_quarter_hop_at_most_50_ms_or_what_is_said(
    asked: dict[str, Any], speed: float, patience_ms: int
) -> None:
    assert Policy(**asked).timing(500 * MS, speed).patience_ns == patience_ms * MS


def test_latest_windows_are_two_hops_old_at_most_unless_said() -> None:
    latest = Policy(mode="latest")
    assert latest.timing(500 * MS, 1).max_age_ns == 1000 * MS
    said = msgspec.structs.replace(latest, max_age_ms=700)
    assert said.timing(500 * MS, 1).max_age_ns == 700 * MS


def test_serve_refuses_a_wrong_policy_and_exits_with_two(shipped: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path, "required = ['gyroscope']")
    done = subprocess.run(
        [sys.executable, "-m", "runtime.serve", "--engines", shipped.path, "--policy", path],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "runtime.serve: required: no modality 'gyroscope'; did you mean 'gyro'?"
    )
