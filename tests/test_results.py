"""robult_edge.results: a result survives the wire, and any JSON reader can read it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from robult_edge import results
from robult_edge.results import Estimate, Expected, LatencyUs, ModalityAnswer, Result

ANSWER = Result(
    version=1,
    source="wrist-1",
    seq=3,
    t_ns=1_700_000_000_000_000_000,
    label="rest",
    probabilities={"rest": 0.9, "walk": 0.1},
    prediction_set=["rest"],
    alive=["acc"],
    modalities={
        "acc": ModalityAnswer("alive", "fine", 2.5, 1_699_999_999_990_000_000, 1.0, "rest", 0.9),
        "gyro": ModalityAnswer("stale", "no frames for 1.2 s"),
    },
    expected=Expected(accuracy=0.8, full_accuracy=0.9, coverage=0.91),
    conflict=False,
    decision="degraded",
    reason="gyro stale: no frames for 1.2 s",
    latency_us=LatencyUs(wait=1, infer=2, fuse=3, total=6),
    bundle="demo",
)
NOTHING = msgspec.structs.replace(
    ANSWER,
    label=None,
    probabilities={},
    prediction_set=[],
    alive=[],
    modalities={"acc": ModalityAnswer("absent", "no frames yet")},
    expected=None,
    decision="none",
)


LABELS = msgspec.structs.replace(
    ANSWER,
    label=None,
    probabilities={"hot": 0.9, "wet": 0.4, "old": 0.01},
    prediction_set=["hot", "wet"],
    labels=["hot"],
    certain=[],
    modalities={"acc": ModalityAnswer("alive", "fine", 2.5, 1, 1.0, labels=["hot", "wet"])},
    expected=Expected(macro_f1=0.8, full_macro_f1=0.9, coverage=0.91),
)
VALUES = msgspec.structs.replace(
    ANSWER,
    label=None,
    probabilities={},
    prediction_set=[],
    estimates={"oil": Estimate(3.5, 3.0, 4.0, "bar"), "air": Estimate(7.0, None, None, "K")},
    modalities={"acc": ModalityAnswer("alive", "fine", 2.5, 1, 1.0, values={"oil": 3, "air": 8})},
    expected=Expected(mae={"oil": 0.2}, full_mae={"oil": 0.1}, coverage=0.91),
)


@pytest.mark.parametrize(
    "sent",
    [ANSWER, NOTHING, LABELS, VALUES],
    ids=["answer", "nothing alive", "labels", "values"],
)
def test_what_is_published_is_what_is_read(sent: Result) -> None:
    assert results.decode(results.encode(sent)) == sent


def test_the_topic_is_the_source_and_a_nul_so_that_subscription_is_exact() -> None:
    assert results.encode(ANSWER)[0] == b"wrist-1\0" == results.topic("wrist-1")
    assert not results.topic("wrist-10").startswith(results.topic("wrist-1"))


def test_the_body_is_json_with_every_promised_key() -> None:
    body = json.loads(results.encode(ANSWER)[1])
    assert list(body) == [
        "version", "source", "seq", "t_ns", "label", "probabilities", "prediction_set", "alive",
        "modalities", "expected", "conflict", "decision", "reason", "latency_us", "bundle",
    ]  # fmt: skip
    assert body["t_ns"] == ANSWER.t_ns
    assert body["modalities"]["acc"] == {
        "state": "alive",
        "reason": "fine",
        "age_ms": 2.5,
        "t_ns": 1_699_999_999_990_000_000,
        "weight": 1.0,
        "label": "rest",
        "probability": 0.9,
    }
    assert body["expected"] == {"accuracy": 0.8, "full_accuracy": 0.9, "coverage": 0.91}
    assert body["latency_us"] == {"wait": 1, "infer": 2, "fuse": 3, "total": 6}


def test_with_nothing_alive_label_and_expectation_are_null_and_no_key_is_missing() -> None:
    body = json.loads(results.encode(NOTHING)[1])
    assert body["label"] is None
    assert body["expected"] is None
    assert body["probabilities"] == {}
    assert body["modalities"]["acc"]["age_ms"] is None
    assert body.keys() == json.loads(results.encode(ANSWER)[1]).keys()


def test_the_example_on_the_protocol_page_is_a_result() -> None:
    page = (Path(__file__).parents[1] / "docs" / "PROTOCOL.md").read_text()
    example = page.split("```json\n")[1].split("```")[0]
    told = results.decode([b"wrist-1\0", example.encode()])
    assert json.loads(results.encode(told)[1]) == json.loads(example)
    assert all(f"| `{key}` |" in page for key in json.loads(example))


def test_labels_and_values_have_keys_of_their_own() -> None:
    labels, values = (json.loads(results.encode(sent)[1]) for sent in (LABELS, VALUES))
    common = json.loads(results.encode(ANSWER)[1]).keys()
    assert labels.keys() - common == {"labels", "certain"}
    assert labels["expected"] == {"macro_f1": 0.8, "full_macro_f1": 0.9, "coverage": 0.91}
    assert labels["modalities"]["acc"]["labels"] == ["hot", "wet"]
    assert values.keys() - common == {"estimates"}
    assert values["estimates"]["oil"] == {"value": 3.5, "low": 3.0, "high": 4.0, "unit": "bar"}
    assert values["estimates"]["air"]["low"] is None
    assert values["expected"] == {"mae": {"oil": 0.2}, "full_mae": {"oil": 0.1}, "coverage": 0.91}
    assert values["modalities"]["acc"]["values"] == {"oil": 3, "air": 8}


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", msgspec.DecodeError),
        (b"{}", msgspec.ValidationError),
        (b"[]", msgspec.ValidationError),
        (results.encode(ANSWER)[1].replace(b'"degraded"', b'"fine"'), msgspec.ValidationError),
        (results.encode(ANSWER)[1].replace(b'"stale"', b'"tired"'), msgspec.ValidationError),
    ],
)
def test_a_body_that_is_no_result_is_refused(body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        results.decode([b"wrist-1\0", body])
