"""From windows to the fused answer without leaving the GPU: a CUDA graph per alive subset.

A replay copies the windows over, runs the subset's branches side by side, the fusion head on their
latents where it has a say, and native/'s fusion kernel on their logits, all where they lie. What
comes back, in one copy, are the fused probabilities and each alive branch's own. A graph is
captured when its subset and batch size are first needed; the one that is not needed for longest
goes when there are too many.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Manifest
from robult_edge.errors import EngineError
from robult_edge.fusion import Rule
from robult_edge.trt_log import freed_on_failure
from runtime.backends import cuda, kernels
from runtime.backends.tensorrt import Placed, TensorRtBackend, sizes

MOST_GRAPHS = 64
"""Kept at once, of all subsets and batch sizes."""


class DeviceFusion:
    """Branches, head and fusion of a bundle on one GPU.

    It has contexts and memory of its own, so that it may be made and closed while the engines
    answer. Any thread may call, one at a time; see `runtime.backends.cuda`.

    Args:
        manifest: of the bundle.
        rule: how it fuses.
        branches: the branches' engines.
        head: the fusion head's.
        fatbin: native/'s kernels.

    Attributes:
        engines: branches' and head's.
        sizes: batch sizes that have a graph; any other is rounded up, or cut.

    Raises:
        EngineError: what the GPU said.
    """

    def __init__(
        self,
        manifest: Manifest,
        rule: Rule,
        branches: Sequence[TensorRtBackend],
        head: TensorRtBackend,
        fatbin: Path,
    ) -> None:
        self._manifest, self._rule = manifest, rule
        self._table = kernels.table(manifest, rule)
        self.engines = (*branches, head)
        least = max(engine.sizes[0] for engine in self.engines)
        self.sizes = sizes(least, min(engine.sizes[-1] for engine in self.engines))
        self._context = cuda.primary_context()
        self._held = ExitStack()
        self._graphs: OrderedDict[tuple[int, int], _Graph] = OrderedDict()
        self._rooms: dict[int, _Room] = {}
        try:
            with cuda.pushed(self._context):
                self._prepare(fatbin)
        except BaseException as error:
            self.close()
            if isinstance(error, cuda.driver().Error):
                raise EngineError(f"the GPU does not take {fatbin}: {error}") from None
            raise

    def run(self, mask: int, *windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Fused probabilities (or standardised values) [n, K], and the branches' own [n, M, K].

        Of a branch that is not alive, NaN.

        The arrays may be reused by the next run: copy to keep.

        Args:
            mask: the alive subset.
            windows: of each of its modalities [n, *window_shape]; any n.

        Raises:
            EngineError: an answer is not finite, or what the GPU said.
        """
        n, most = len(windows[0]), self.sizes[-1]
        with cuda.pushed(self._context):
            if n <= most:
                p, own = self._run(mask, windows)
            else:
                starts = range(0, n, most)
                parts = [
                    _copies(self._run(mask, [w[i : i + most] for w in windows])) for i in starts
                ]
                p, own = map(np.concatenate, zip(*parts, strict=True))
        if not (np.isfinite(p).all() and np.isfinite(own[:, list(subsets.members(mask))]).all()):
            raise EngineError("it answered NaN or infinity")
        return p, own

    def outputs(self, mask: int, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """What the last run was fused from, for proof: logits of its branches, and of the head.

        Args:
            mask: of the last run.
            n: its windows, of which the largest engine takes all at once.

        Returns:
            [M, n, K], zeros where a branch is not alive; and [n, K], None where it has no say.
        """
        size = self._size(n)
        with cuda.pushed(self._context):
            room = self._rooms[size]
            shape = (size, len(self._manifest.classes))
            logits = np.zeros((len(self._manifest.names), *shape), np.float32)
            for i in subsets.members(mask):
                cuda.driver().memcpy_dtoh(logits[i], _logits(room.placed[i]))
            head = np.zeros(shape, np.float32) if self._head_says(mask) else None
            if head is not None:
                cuda.driver().memcpy_dtoh(head, _logits(room.placed[-1]))
        return logits[:, :n], None if head is None else head[:n]

    def close(self) -> None:
        """Free what is the GPU's; never raises, for the GPU may be the trouble."""
        with suppress(Exception), cuda.pushed(self._context):
            while self._graphs:
                self._graphs.popitem()[1].held.close()
            self._rooms.clear()
            self._held.close()

    @freed_on_failure
    def _prepare(self, fatbin: Path) -> None:
        self._fuse = kernels.fuse(fatbin)
        self._table_there = _there(self._table, self._held)
        self._temperatures = _there(kernels.temperatures(self._manifest), self._held)
        self._stream = cuda.driver().Stream()
        self._sides = [cuda.driver().Stream() for _ in self._manifest.names]
        for size in self.sizes:
            room = _room(self._manifest, self.engines, size, self._held)
            self._rooms[size] = room
            for placed in room.placed:  # what depends on shapes is settled now, not at work
                placed.execute(self._stream)
        self._stream.synchronize()

    def _run(self, mask: int, windows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        n = len(windows[0])
        try:
            graph = self._graph(mask, self._size(n))
            for pinned, given in zip(graph.inputs, windows, strict=True):
                np.copyto(pinned[:n], given)  # rows beyond n keep what was there: nobody reads them
            graph.launch()
        except cuda.driver().Error as error:
            raise EngineError(f"the GPU does not fuse: {error}") from None
        return graph.p[:n], graph.own[:n]

    def _size(self, n: int) -> int:
        return next(size for size in self.sizes if size >= n)

    def _head_says(self, mask: int) -> bool:
        m = len(self._manifest.names)
        return self._rule == "pool" and bool(self._table[mask - 1]["weights"][m] > 0)

    def _graph(self, mask: int, size: int) -> _Graph:
        """The graph of a subset and batch size, captured now if it has not been."""
        graph = self._graphs.get((mask, size))
        if graph is None:
            if len(self._graphs) == MOST_GRAPHS:
                self._graphs.popitem(last=False)[1].held.close()
            graph = self._graphs[mask, size] = self._captured(mask, size)
        self._graphs.move_to_end((mask, size))
        return graph

    @freed_on_failure
    def _captured(self, mask: int, size: int) -> _Graph:
        room, held = self._rooms[size], ExitStack()
        try:
            enqueue = self._enqueue(mask, room, held)
            launch = cuda.waited(self._stream, cuda.warmed(self._stream, enqueue, held))
        except BaseException:
            held.close()
            raise
        inputs = [room.windows[i] for i in subsets.members(mask)]
        return _Graph(inputs, room.p, room.own, launch, held)

    def _enqueue(self, mask: int, room: _Room, held: ExitStack) -> Callable[[], None]:
        """What a replay does; its constants are put on the device, and noted in ``held``."""
        driver, stream = cuda.driver(), self._stream
        m, k, size = len(self._manifest.names), len(self._manifest.classes), room.size
        *branches, head = room.placed
        alive = subsets.members(mask)
        uses = int(self._table[mask - 1]["uses"])
        head_says = self._head_says(mask)
        masks = _there(np.full(size, mask, np.uint32), held)
        looks_at = _there(np.repeat(subsets.as_bools([uses], m), size, 0), held)
        heads_h, heads_alive = (head.memory[name] for name in head.inputs)
        shape = head.shape(head.inputs[0])
        what = kernels.Fusion(
            (*(int(_logits(branch)) for branch in branches), int(_logits(head))),
            *map(int, (masks, self._temperatures, self._table_there)),
            size, m, k, kernels.RULES[self._rule], kernels.LINKS[self._manifest.task],
        )  # fmt: skip
        said = int(room.answers)
        where = kernels.Answers(said, said + room.p.nbytes, int(room.top), int(room.set))
        begun = driver.Event(driver.event_flags.DISABLE_TIMING)
        done = [driver.Event(driver.event_flags.DISABLE_TIMING) for _ in alive]

        def branch_on(side: Any, i: int) -> None:
            placed = branches[i]
            driver.memcpy_htod_async(placed.memory[placed.inputs[0]], room.windows[i], side)
            placed.execute(side)
            if head_says and uses >> i & 1:
                _put_latent(placed.memory[placed.outputs[1]], heads_h, i, shape, side)

        def enqueue() -> None:
            if head_says:  # absent latents are zeros, as they are on the host
                driver.memset_d32_async(heads_h, 0, prod(shape), stream)
                driver.memcpy_dtod_async(heads_alive, looks_at, size * m, stream)
            begun.record(stream)
            for i, ended in zip(alive, done, strict=True):
                self._sides[i].wait_for_event(begun)
                branch_on(self._sides[i], i)
                ended.record(self._sides[i])
                stream.wait_for_event(ended)
            if head_says:
                head.execute(stream)
            self._fuse(what, where, stream)
            driver.memcpy_dtoh_async(room.back, room.answers, stream)

        return enqueue


@dataclass(frozen=True)
class _Room:
    """What all graphs of a batch size share, for only one of them runs at a time.

    Attributes:
        size: of the batch.
        placed: every branch's engine, and the head's last.
        windows: pinned host arrays, by modality.
        answers: device memory of p and own, one behind the other.
        top, set: device memory of what else the kernel says; it stays there.
        back: pinned host array of the answers; ``p`` and ``own`` are its parts.
    """

    size: int
    placed: list[Placed]
    windows: list[np.ndarray]
    answers: Any
    top: Any
    set: Any
    back: np.ndarray
    p: np.ndarray
    own: np.ndarray


@dataclass(frozen=True)
class _Graph:
    """A subset at a batch size.

    Attributes:
        inputs: pinned host arrays of its windows.
        p, own: where the answers are.
        launch: windows to answers, waited for.
        held: frees it.
    """

    inputs: list[np.ndarray]
    p: np.ndarray
    own: np.ndarray
    launch: Callable[[], None]
    held: ExitStack


def _room(
    manifest: Manifest, engines: Sequence[TensorRtBackend], size: int, held: ExitStack
) -> _Room:
    driver, m, k = cuda.driver(), len(manifest.names), len(manifest.classes)

    def memory(nbytes: int) -> Any:
        there = driver.mem_alloc(nbytes)
        held.callback(there.free)
        return there

    placed = [engine.placed(size, held) for engine in engines]
    back = driver.pagelocked_empty((size * k * (1 + m),), np.float32)
    return _Room(
        size=size,
        placed=placed,
        windows=[branch.pinned(branch.inputs[0]) for branch in placed[:-1]],
        answers=memory(back.nbytes),
        top=memory(4 * size),
        set=memory(4 * size * ceil(k / 32)),
        back=back,
        p=back[: size * k].reshape(size, k),
        own=back[size * k :].reshape(size, m, k),
    )


def _copies(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [array.copy() for array in arrays]


def _logits(placed: Placed) -> Any:
    return placed.memory[placed.outputs[0]]


def _there(array: np.ndarray, held: ExitStack) -> Any:
    """The array on the device."""
    there = cuda.driver().mem_alloc(array.nbytes)
    held.callback(there.free)
    cuda.driver().memcpy_htod(there, array)
    return there


def _put_latent(h: Any, heads_h: Any, i: int, shape: tuple[int, ...], stream: Any) -> None:
    """Copy a branch's latents [B, d] into the head's input [B, M, d], as its i-th row."""
    batch, m, width = shape
    copy = cuda.driver().Memcpy2D()
    copy.set_src_device(h)
    copy.set_dst_device(heads_h)
    copy.width_in_bytes = copy.src_pitch = 4 * width
    copy.dst_pitch, copy.dst_x_in_bytes = 4 * m * width, 4 * i * width
    copy.height = batch
    copy(stream)
