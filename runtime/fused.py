"""Windows to the fused answer in one go on the GPU, where everything that serves allows it.

Else, and as soon as that fails, every graph answers by itself and the rest is done on the host, as
on any machine; that tells which graph the trouble is. Both come to the same answers.
"""

from __future__ import annotations

import logging
from threading import Thread

import numpy as np

from robult_edge import subsets
from robult_edge.bundle import Bundle
from robult_edge.errors import EngineError, RobultError
from robult_edge.golden import deviation
from runtime import fatbin
from runtime.backends.device_fusion import MOST_GRAPHS, DeviceFusion
from runtime.backends.tensorrt import TensorRtBackend
from runtime.engines import LIMIT_S, Engines
from runtime.policy import Policy
from runtime.tick import Decider

log = logging.getLogger("robult.fused")

TOLERANCE = 1e-5
"""Largest |Δ| of a probability between the device and the host, given the same logits."""


class Fused:
    """A bundle's fusion on the device, or why there is none; `runtime.watchdog` can run it.

    Once it has failed it is out until an engine is mended or the bundle is read again.

    Args:
        bundle: whose golden vectors prove it.
        engines: what serves its graphs.
        decider: fuses on the host.
        policy: of the deployment.

    Attributes:
        backend: what fuses; None while it is out.
        trouble: why it is out.
        limit_ns: a run that takes longer hangs.
    """

    name = "fusion on the device"

    def __init__(self, bundle: Bundle, engines: Engines, decider: Decider, policy: Policy) -> None:
        self.backend: DeviceFusion | None = None
        self.trouble = ""
        self.limit_ns = int(LIMIT_S * 1e9)
        self._bundle, self._engines, self._decider = bundle, engines, decider
        self._policy = policy
        self._failed: list[DeviceFusion] = []
        self.install(self.make())

    @property
    def ready(self) -> bool:
        """Whether it fuses, by the very engines that serve now."""
        return self.backend is not None and all(
            graph.backend is engine
            for graph, engine in zip(self._engines.graphs, self.backend.engines, strict=True)
        )

    @property
    def choice(self) -> str:
        """Whether it is on, and if not, why."""
        return "on: a CUDA graph per alive subset" if self.ready else f"off: {self.trouble}"

    def make(self) -> DeviceFusion | str:
        """One of the engines that serve now, proven; or why there is none."""
        try:
            return self._proven(self._made())
        except Exception as error:  # whatever it is, the host fuses
            return " ".join(str(error or type(error).__name__).split())

    def install(self, made: DeviceFusion | str) -> None:
        """Put what `make` made to work, between two turns."""
        self._free()
        if isinstance(made, str):
            self.trouble = made
        else:
            self.backend, self.trouble = made, "an engine is out, or another took its place"
            log.info("%s is %s", self.name, self.choice)

    def fail(self, reason: str, _now_ns: int, stuck: Thread | None = None) -> None:
        """Take it out; ``stuck`` is the thread that hangs in it, if one does."""
        if self.backend is not None and stuck is None:
            self._failed.append(self.backend)
        self.backend, self.trouble = None, f"it failed: {reason}"
        log.error("%s is out: %s", self.name, reason)

    def close(self) -> None:
        """Free it."""
        self._free()
        self.trouble = "closed"

    def _free(self) -> None:
        for device in (*self._failed, self.backend):
            if device is not None:
                device.close()
        self._failed.clear()
        self.backend = None

    def _made(self) -> DeviceFusion:
        """It, of engines that serve now.

        Raises:
            RobultError: something that serves does not allow it.
        """
        manifest = self._bundle.manifest
        *branches, head = self._engines.graphs
        tensorrt = []
        for graph in (*branches, head):
            if not isinstance(graph.backend, TensorRtBackend):
                raise EngineError(f"{graph.name} runs on {graph.label}")
            tensorrt.append(graph.backend)
        if self._policy.mode == "latest":
            raise EngineError("in mode latest an answer rests on windows of several ticks")
        rule = self._decider.rule
        return DeviceFusion(manifest, rule, tensorrt[:-1], tensorrt[-1], fatbin.find())

    def _proven(self, device: DeviceFusion) -> DeviceFusion:
        """The same, if it says of the golden windows what engines and host say.

        Raises:
            RobultError: it does not.
        """
        m = len(self._bundle.manifest.names)
        largest_first = sorted(subsets.all_subsets(m), key=lambda mask: -mask.bit_count())
        try:
            for mask in largest_first[:MOST_GRAPHS]:
                self._prove(device, mask)
        except BaseException:
            device.close()
            raise
        return device

    def _prove(self, device: DeviceFusion, mask: int) -> None:
        golden, names = self._bundle.golden(), self._bundle.manifest.names
        alive, subset = subsets.members(mask), subsets.name(mask, names)
        windows = [golden[f"x.{names[i]}"][: device.sizes[-1]] for i in alive]
        p, own = device.run(mask, *windows)
        n = len(p)
        logits, head = device.outputs(mask, n)
        said = [logits[i] for i in alive]
        wanted = [golden[f"logits.{names[i]}"][:n] for i in alive]
        uses = self._decider.head_wants(mask)
        if head is not None and uses is not None:
            said.append(head)
            wanted.append(golden["head"][subsets.mask_of(np.flatnonzero(uses).tolist()) - 1][:n])
        off, most = deviation(said, wanted), sum(g.tolerance for g in self._engines.graphs)
        if not off <= most:  # the engines' errors add up, where one feeds another
            raise RobultError(f"{subset}: off the golden vectors by {off:.2g}")
        for b in range(n):
            fused, each = map(
                np.array, self._decider.probabilities(mask, logits[:, b], _row(head, b))
            )
            off = deviation((p[b], own[b, list(alive)]), (fused, each[list(alive)]))
            if not off <= TOLERANCE:
                raise RobultError(f"{subset}: fused otherwise than on the host, by {off:.2g}")


def _row(head: np.ndarray | None, b: int) -> np.ndarray | None:
    return None if head is None else head[b]
