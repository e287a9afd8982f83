"""What engines need of CUDA: pycuda's memory and streams, cuda-bindings' graphs, one context.

A context is current per thread, and engines are proven on one thread, run on another, and on yet
another once that one hangs (`runtime.watchdog`). So whoever calls pushes the GPU's primary context,
and pops it again: what lay below is another library's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from traceback import clear_frames
from typing import Any

from robult_edge.errors import EngineError, MissingExtraError


def driver() -> Any:
    """pycuda's.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pycuda.driver
    except ImportError:
        raise MissingExtraError("pycuda", "tensorrt") from None
    return pycuda.driver


@cache
def primary_context() -> Any:
    """The first GPU's, which ONNX Runtime and TensorRT use too: one for all engines, kept.

    Raises:
        MissingExtraError: pycuda is not installed.
    """
    cuda = driver()
    cuda.init()
    return cuda.Device(0).retain_primary_context()


@contextmanager
def pushed(context: Any) -> Iterator[None]:
    """Have a context current on this thread.

    pycuda frees only where it is current, so what a call that failed holds must go before it ends.
    """
    context.push()
    try:
        yield
    except BaseException as error:
        clear_frames(error.__traceback__)
        raise
    finally:
        context.pop()


def captured(stream: Any, enqueue: Callable[[], None], held: ExitStack) -> Callable[[], None]:
    """A CUDA graph of what ``enqueue`` puts on ``stream``; calling it puts all that there at once.

    Args:
        stream: pycuda's.
        enqueue: allocates nothing.
        held: takes note of how the graph is freed.

    Raises:
        EngineError: it cannot be captured.
        MissingExtraError: cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import driver
    except ImportError:
        raise MissingExtraError("cuda-bindings", "tensorrt") from None

    def checked(result: tuple[Any, ...]) -> Any:
        error, *values = result
        if error != driver.CUresult.CUDA_SUCCESS:
            raise EngineError(f"the CUDA graph fails: {error.name}")
        return values[0] if values else None

    handle = driver.CUstream(stream.handle)
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    checked(driver.cuStreamBeginCapture(handle, mode))
    try:
        enqueue()
    finally:  # the stream is never left capturing
        ended = driver.cuStreamEndCapture(handle)
    graph = checked(ended)
    held.callback(driver.cuGraphDestroy, graph)
    replayed = checked(driver.cuGraphInstantiate(graph, 0))
    held.callback(driver.cuGraphExecDestroy, replayed)
    return lambda: checked(driver.cuGraphLaunch(replayed, handle))


def warmed(
    stream: Any, enqueue: Callable[[], None], held: ExitStack, replay: bool = True
) -> Callable[[], None]:
    """``enqueue`` once done, and then as `captured`; or as it is where nothing is to be replayed.

    The first run settles what depends on shapes, and loads kernels: neither may be captured.
    """
    enqueue()
    stream.synchronize()
    return captured(stream, enqueue, held) if replay else enqueue


def waited(stream: Any, work: Callable[[], None]) -> Callable[[], None]:
    """``work`` on ``stream``, waited for: for that stream alone, without the interpreter's lock."""
    cuda = driver()
    done = cuda.Event(cuda.event_flags.DISABLE_TIMING)

    def run() -> None:
        work()
        done.record(stream)
        done.synchronize()

    return run
