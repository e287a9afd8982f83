"""What TensorRT says when it fails: None or False comes back, and a line in its log says why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from robult_edge.errors import EngineError

P = ParamSpec("P")
T = TypeVar("T")


def collector(trt: ModuleType) -> Any:
    """A TensorRT logger that keeps what went wrong.

    ``said()`` is all of it, in one line; ``made(what, thing)`` returns the thing, or raises an
    `EngineError` that quotes it where TensorRT returned None.

    Args:
        trt: see `robult_edge.nvidia.library`.
    """

    base: Any = trt.ILogger

    class Collector(base):
        def __init__(self) -> None:
            super().__init__()
            self._errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(message)

        def said(self) -> str:
            return one_line(self._errors) or "TensorRT said nothing"

        def made(self, what: str, thing: Any) -> Any:
            if thing is None:
                raise EngineError(f"no {what} can be made: {self.said()}")
            return thing

    return Collector()


def one_line(messages: Iterable[str]) -> str:
    """All that was said, once each."""
    return "; ".join(dict.fromkeys(" ".join(message.split()) for message in messages))


def freed_on_failure(function: Callable[P, T]) -> Callable[P, T]:
    """The function, its errors without the frames in which TensorRT's objects are.

    A traceback that is kept keeps them until the garbage collector comes by. Should it come in the
    midst of a later call, by way of the log, then TensorRT waits for itself for ever.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except EngineError as error:
            raise error.with_traceback(None) from None

    return call
