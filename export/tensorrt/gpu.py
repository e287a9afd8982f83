"""An engine as a function on arrays, on this machine's GPU: for proof, not for speed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import ModuleType

import numpy as np

from export.tensorrt.graphs import Run
from robult_edge import nvidia
from robult_edge.errors import EngineError, MissingExtraError
from robult_edge.trt_log import collector, freed_on_failure


def runner(trt: ModuleType, compute_capability: str) -> Callable[[bytes], Run]:
    """What runs engines here.

    Args:
        trt: see `robult_edge.nvidia.library`.
        compute_capability: that the engines are for.

    Raises:
        EngineError: there is no such GPU.
        MissingExtraError: pycuda is not installed.
    """
    gpu = nvidia.gpu()
    if gpu.compute_capability != compute_capability:
        raise EngineError(f"the GPU here is no {nvidia.sm(compute_capability)} but a {gpu.name}")
    try:
        import pycuda.autoprimaryctx  # noqa: F401  (makes the context that all calls are in)
    except ImportError:
        raise MissingExtraError("pycuda", "tensorrt") from None
    return partial(on_gpu, trt)


@freed_on_failure
def on_gpu(trt: ModuleType, plan: bytes) -> Run:
    """An engine that takes and returns arrays; `runner` has made the context.

    Raises:
        EngineError: TensorRT does not take the engine.
    """
    import pycuda.driver as cuda

    log = collector(trt)
    runtime = log.made("runtime", trt.Runtime(log))
    runtime.engine_host_code_allowed = True  # a version-compatible engine brings its runtime along
    engine = log.made("engine of the plan", runtime.deserialize_cuda_engine(plan))
    context = log.made("context", engine.create_execution_context())
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
    outputs = [n for n in names if n not in inputs]

    def run(*arrays: np.ndarray) -> list[np.ndarray]:
        memory = []
        for name, array in zip(inputs, map(np.ascontiguousarray, arrays), strict=True):
            memory.append(cuda.mem_alloc(array.nbytes))
            cuda.memcpy_htod(memory[-1], array)
            if not context.set_input_shape(name, array.shape):
                raise EngineError(f"{name} {array.shape} is refused: {log.said()}")
            context.set_tensor_address(name, int(memory[-1]))
        results = []
        for name in outputs:
            shape = tuple(context.get_tensor_shape(name))
            results.append(np.empty(shape, trt.nptype(engine.get_tensor_dtype(name))))
            memory.append(cuda.mem_alloc(results[-1].nbytes))
            context.set_tensor_address(name, int(memory[-1]))
        stream = cuda.Stream()
        if not context.execute_async_v3(stream.handle):
            raise EngineError(f"the engine does not run: {log.said()}")
        stream.synchronize()
        for result, there in zip(results, memory[len(inputs) :], strict=True):
            cuda.memcpy_dtoh(result, there)
        return results

    return run
