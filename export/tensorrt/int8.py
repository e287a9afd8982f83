"""INT8 in an ONNX graph: Q/DQ pairs whose scales are calibrated on training windows."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from export.tensorrt.graphs import on_cpu
from robult_edge import data, subsets
from robult_edge.bundle import Bundle
from robult_edge.data import Dataset
from robult_edge.errors import EngineError, RobultError
from robult_edge.golden import Graph

WINDOWS = 512
"""Enough for a range: they are spread evenly over the training windows."""
QUANTISED = ("Conv", "Gemm", "MatMul")
SYMMETRIC = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,  # TensorRT adds biases in FP32
    "DedicatedQDQPair": True,  # else a latent that is an output would be quantised too
    "OpTypesToExcludeOutputQuantization": list(QUANTISED),
}
"""What TensorRT's explicit quantisation takes: zero points of 0, and only layers' inputs."""


def calibration(
    bundle: Bundle, graphs: Sequence[Graph], source: str | None
) -> list[tuple[np.ndarray, ...]]:
    """Inputs of every graph on training windows: the held-out groups are never looked at.

    Args:
        bundle: whose graphs they are.
        graphs: every branch, and the head last.
        source: a data set as `robult_edge.data.load` reads it; None: the one trained on.

    Raises:
        EngineError: the windows cannot be had, or are not of this bundle's sensors.
    """
    manifest = bundle.manifest
    source = source or str(manifest.provenance.get("dataset", ""))
    mend = "name its data set with --dataset, or build --precision fp16"
    try:
        dataset = data.load(source)
    except (RobultError, OSError) as error:
        raise EngineError(
            f"int8 is calibrated on training windows of {source!r}, which cannot be read "
            f"({error}); {mend}"
        ) from None
    shapes = {m.name: m.window_shape for m in manifest.modalities}
    if {m.name: m.window_shape for m in dataset.modalities} != shapes:
        raise EngineError(f"data set {source!r} has not the bundle's modalities {shapes}; {mend}")
    training = np.flatnonzero(~dataset.test)
    rows = training[np.linspace(0, len(training) - 1, min(WINDOWS, len(training))).astype(int)]
    return [*_windows(dataset, rows, manifest.names), _latents(dataset, rows, graphs)]


def _windows(
    dataset: Dataset, rows: np.ndarray, names: Sequence[str]
) -> Iterator[tuple[np.ndarray]]:
    order = [m.name for m in dataset.modalities]
    for name in names:
        yield (dataset.windows[name][rows[dataset.present[rows, order.index(name)]]],)


def _latents(
    dataset: Dataset, rows: np.ndarray, graphs: Sequence[Graph]
) -> tuple[np.ndarray, np.ndarray]:
    """Latents [n, M, d] of the rows, and alive masks [n, M] that run through the subsets."""
    *branches, _ = graphs
    order = [m.name for m in dataset.modalities]
    h = np.stack(
        [on_cpu(b.file.read_bytes())(dataset.windows[b.name][rows])[1] for b in branches], axis=1
    )
    m = len(branches)
    present = dataset.present[rows][:, [order.index(b.name) for b in branches]]
    alive = np.resize(subsets.as_bools(subsets.all_subsets(m), m), (len(rows), m)) & present
    return h[alive.any(1)], alive[alive.any(1)]


def int8(model: ModelProto, kept: frozenset[str], windows: Sequence[np.ndarray]) -> ModelProto:
    """The graph with Q/DQ pairs around its heavy layers.

    Args:
        model: the FP32 graph; its nodes are named.
        kept: layers to leave FP32.
        windows: calibration inputs [n, ...] of the graph, in order.
    """
    names = [value.name for value in model.graph.input]
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, quantised = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, plain)  # given a model in memory, it would move its weights out
        quantize_static(
            plain,
            quantised,
            _Once(dict(zip(names, windows, strict=True))),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=sorted(kept),
            per_channel=True,
            extra_options=SYMMETRIC,
        )
        return onnx.load(quantised)


class _Once(CalibrationDataReader):
    """All windows in one batch."""

    def __init__(self, windows: dict[str, np.ndarray]) -> None:
        self._left = [windows]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantiser's advice to simplify the graph first: TensorRT does that."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
