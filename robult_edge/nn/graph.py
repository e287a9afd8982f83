"""A module as one ONNX graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robult_edge.errors import MissingExtraError

MAX_BATCH = 1024


def write(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    path: Path,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    """Write ``module`` as one self-contained ONNX graph (opset 20) with a dynamic first axis.

    Args:
        module: in evaluation mode.
        example: inputs whose batch is 2 or more.
        path: the file to write.
        inputs, outputs: their names in the graph.

    Raises:
        MissingExtraError: onnx or onnxscript is not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter stands on it)
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from None
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    with _quiet():
        torch.onnx.export(
            module,
            example,
            str(path),
            dynamo=True,
            opset_version=20,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=tuple({0: batch} for _ in example),
            external_data=False,
            verbose=False,
        )
    onnx.save(_without_history(onnx.load(path)), path)


def _without_history(model: Any) -> Any:
    """The model less the source lines and paths that the exporter writes beside every node.

    What is left depends on the weights alone: the same run exports to the same bytes.
    """
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info,
                 *graph.initializer):  # fmt: skip
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for function in model.functions:
        for part in (function, *function.node):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress lines and its libraries' deprecations to ourselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
