"""A server in this process: its clock turned by hand, its engines well or ill as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robult_edge.bundle import Bundle
from robult_edge.data import Dataset, load
from robult_edge.data.replay import replays
from robult_edge.frames import Frame, encode
from robult_edge.results import Result
from runtime import engines
from runtime.backends.onnxruntime import OnnxRuntimeBackend
from runtime.config import Config
from runtime.server import Server

MS = 1_000_000
START_NS = 1_700_000_000_000 * MS


class Hand:
    """A clock that is turned by hand."""

    speed = 1.0

    def __init__(self) -> None:
        self.now = START_NS

    def now_ns(self) -> int:
        return self.now


class Ills:
    """What befalls engines: per (backend, graph), something to do before each run."""

    def __init__(self) -> None:
        self.of: dict[tuple[str, str], Callable[[], object]] = {}

    def backends(self, *labels: str) -> dict[str, Callable[[Path], Ill]]:
        return {label: lambda path, label=label: Ill(label, path, self) for label in labels}


class Ill:
    """ONNX Runtime, but for what befalls it."""

    def __init__(self, name: str, path: Path, ills: Ills) -> None:
        self.name = name
        self._key, self._ills = (name, path.stem), ills
        self._inner = OnnxRuntimeBackend(path)

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        outputs = self._inner.run(*inputs)
        befalls = self._ills.of.get(self._key)
        if befalls is None:
            return outputs
        instead = befalls()
        return outputs if instead is None else tuple(o + instead for o in outputs)

    def close(self) -> None:
        self._inner.close()


class Stage:
    """A server, its clock, and two honest sensors of the rig ``rig``."""

    def __init__(self, bundle: Bundle, ills: Ills, **options: Any) -> None:
        self.ills, self.clock = ills, Hand()
        anywhere = "tcp://127.0.0.1:*"
        config = Config(str(bundle.path), frames=anywhere, results=anywhere, http="", **options)
        self.server = Server(config, bundle, self.clock)
        self._replay = replays(_recorded(bundle.manifest.provenance["dataset"]))[0]
        self._tick = 0
        hop_ns = bundle.manifest.hop_ns
        self._start_ns = (START_NS // hop_ns + 1) * hop_ns

    def hear(self, only: str | None = None) -> None:
        """The sensors' frames of the next hop come, and the clock is at its end."""
        manifest = self.server.manifest
        self.clock.now = self._start_ns + (self._tick + 1) * manifest.hop_ns
        for m in manifest.modalities:
            first = self._tick * m.hop
            samples = self._replay.stretch(m.name, first, first + m.hop - 1)
            t_ns = self._start_ns + self._tick * manifest.hop_ns + m.period_ns // 2
            if only in (None, m.name):
                self.server._take(encode(Frame(m.name, "rig", self._tick, t_ns, samples)))
        self._tick += 1

    def hear_as(self, source: str, seq: int) -> None:
        """The hop heard last comes from another source too, as its ``seq``-th frames."""
        manifest, tick = self.server.manifest, self._tick - 1
        for m in manifest.modalities:
            first = tick * m.hop
            samples = self._replay.stretch(m.name, first, first + m.hop - 1)
            t_ns = self._start_ns + tick * manifest.hop_ns + m.period_ns // 2
            self.server._take(encode(Frame(m.name, source, seq, t_ns, samples)))

    def play(self, hops: int) -> list[Result]:
        """What has been answered at the end of each of the next ``hops``."""
        answers = []
        for _ in range(hops):
            self.hear()
            self.server.turn()
            answers.append(self.server.rigs.rigs["rig"].latest)
        return [answer for answer in answers if answer is not None]

    @property
    def latest(self) -> Result:
        latest = self.server.rigs.rigs["rig"].latest
        assert latest is not None
        return latest

    def mend(self) -> None:
        """Try every engine that is due, and take in what comes of it."""
        for thread in self.server.mend():
            while thread.is_alive():
                self.server.turn()
                thread.join(0.001)


@cache
def _recorded(source: str) -> Dataset:
    return load(source)


@contextmanager
def staged(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, *labels: str, **options: Any
) -> Iterator[Stage]:
    """A stage whose engines run on backends of these names, in order of preference."""
    ills = Ills()
    monkeypatch.setattr(engines, "BACKENDS", ills.backends(*labels))
    stage = Stage(bundle, ills, **options)
    try:
        yield stage
    finally:
        stage.server.close()
