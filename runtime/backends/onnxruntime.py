"""ONNX Runtime: one thread, and for a batch of one, buffers bound once.

With default threads and spinning on two cores the p99.9 of a 35 µs graph rises to milliseconds.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort

TIMED = 9
"""Runs that say how long one takes."""
Provider = tuple[str, dict[str, str]]
"""Name and options."""
PROVIDERS: dict[str, Provider] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),  # fp32 means fp32
}


class OnnxRuntimeBackend:
    """An ONNX graph on ONNX Runtime.

    A window by itself goes to a GPU only where that is sooner done: for a small graph the way there
    and back takes several times as long as the CPU.

    Args:
        path: the graph; its first axis is named ``batch``.
        device: ``cpu`` or ``cuda``.

    Raises:
        RuntimeError: the graph cannot be loaded, or the device is not there.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        provider, _ = PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise RuntimeError(f"this onnxruntime has no {provider}")
        self.name = f"onnxruntime-{device}"
        self._many = _session(path, PROVIDERS[device])
        places = dict.fromkeys((device, "cpu"))
        lone = [_Bound(_session(path, PROVIDERS[place], batch=1)) for place in places]
        self._one = min(lone, key=_Bound.run_s) if len(lone) > 1 else lone[0]
        self._inputs = [i.name for i in self._many.get_inputs()]

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Outputs of the graph for ``inputs``, each [B, ...]."""
        if len(inputs[0]) == 1:
            return self._one.run(inputs)
        return tuple(self._many.run(None, dict(zip(self._inputs, inputs, strict=True))))

    def close(self) -> None:
        """Free the sessions."""
        del self._many, self._one


class _Bound:
    """A session for a batch of one whose inputs and outputs are bound to arrays, once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._inputs = [_array(i) for i in session.get_inputs()]
        self._outputs = tuple(_array(o) for o in session.get_outputs())
        for node, array in zip(session.get_inputs(), self._inputs, strict=True):
            self._binding.bind_input(
                node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )
        for node, array in zip(session.get_outputs(), self._outputs, strict=True):
            self._binding.bind_output(
                node.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
            )

    def run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        for bound, given in zip(self._inputs, inputs, strict=True):
            bound[...] = given
        self._session.run_with_iobinding(self._binding)
        return self._outputs

    def run_s(self) -> float:
        """How long a run takes: the median of a few, after the first."""
        took = []
        for _ in range(1 + TIMED):
            begun = time.perf_counter()
            self.run(tuple(self._inputs))
            took.append(time.perf_counter() - begun)
        return median(took[1:])


def _session(path: Path, provider: Provider, batch: int | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    if batch is not None:
        options.add_free_dimension_override_by_name("batch", batch)
    try:
        return ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # onnxruntime raises classes of its own, without a common base
        raise RuntimeError(f"{path}: onnxruntime cannot load it ({error})") from error


def _array(node: ort.NodeArg) -> np.ndarray:
    kinds = {"tensor(float)": np.float32, "tensor(bool)": np.bool_}
    return np.zeros([d if isinstance(d, int) else 1 for d in node.shape], kinds[node.type])
