"""What the hot thread counts, and its text for Prometheus (exposition format 0.0.4).

The hot thread adds to plain integers and lists that nobody else writes to; another thread reads
them when it is asked. There is no lock: a reader may see a count that is one behind another.
"""

from __future__ import annotations

import platform
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, get_args

from robult_edge.results import LatencyUs, State

if TYPE_CHECKING:
    from runtime.server import Server

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_US = (25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400,
             1_000_000)  # fmt: skip
"""Doubling, since a latency matters by its ratio to another."""
RECENT = 120

Kind = Literal["counter", "gauge", "histogram"]
Samples = Iterable[tuple[dict[str, str], float]]


class Histogram:
    """Times by size.

    Attributes:
        counts: per bucket: up to each of `BOUNDS_US`, and beyond.
        sum_us: of all times.
    """

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.sum_us = 0

    def add(self, us: int) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_US, us)] += 1
        self.sum_us += us


class Metrics:
    """Counts of the hot thread.

    Attributes:
        published: results.
        answers: results by alive subset.
        wait, infer, fuse, total: of results that rest on a sensor, as in `LatencyUs`.
        recent_us: the newest totals.
    """

    def __init__(self) -> None:
        self.published = 0
        self.answers: Counter[str] = Counter()
        self.wait, self.infer, self.fuse, self.total = (Histogram() for _ in range(4))
        self.recent_us: deque[int] = deque(maxlen=RECENT)

    def observe(self, subset: str, latency: LatencyUs) -> None:
        """Count a result."""
        self.published += 1
        self.answers[subset] += 1
        if latency.total:
            self.wait.add(latency.wait)
            self.infer.add(latency.infer)
            self.fuse.add(latency.fuse)
            self.total.add(latency.total)
            self.recent_us.append(latency.total)


def render(server: Server) -> bytes:
    """Everything there is to scrape. From any thread."""
    return "".join(_families(server)).encode()


def _families(server: Server) -> Iterator[str]:
    metrics, ingest, graphs = server.metrics, server.ingest, server.serving.engines.graphs
    about = {"version": _version(), "python": platform.python_version()}
    engines = [({"graph": g.name, "backend": g.label}, g.backend is not None) for g in graphs]
    placed, states = _of_sensors(server)
    families: tuple[tuple[str, Kind, str, Samples], ...] = (
        ("build_info", "gauge", "What runs.", [(about, 1)]),
        ("bundle_info", "gauge", "What is served.", [({"bundle": server.manifest.name}, 1)]),
        ("engine_up", "gauge", "Whether an engine runs a graph, and on what.", engines),
        ("engine_failures_total", "counter", "Engines taken out.",
         _by(("graph",), server.watchdog.failures)),
        ("reloads_total", "counter", "Reloads.", _by(("outcome",), server.reloader.counts)),
        ("frames_received_total", "counter", "Well-formed frames.", [({}, ingest.received)]),
        ("frames_rejected_total", "counter", "Refusals.", _by(("reason",), ingest.rejected)),
        ("frames_total", "counter", "What became of frames.", _by(("modality", "outcome"), placed)),
        ("sensors", "gauge", "Sensors of all rigs.", _by(("modality", "state"), states)),
        ("rigs", "gauge", "Rigs that are served.", [({}, len(server.rigs.rigs))]),
        ("rigs_forgotten_total", "counter", "Rigs that were silent for too long.",
         [({}, server.rigs.forgotten)]),
        ("results_total", "counter", "Results by alive subset.", _by(("alive",), metrics.answers)),
    )  # fmt: skip
    for name, kind, what, samples in families:
        yield _family(f"robult_{name}", kind, what, samples)
    for name, what, histogram in (
        ("wait", "From a tick's first complete window to the last waited for.", metrics.wait),
        ("infer", "In branches and fusion head, per result.", metrics.infer),
        ("fuse", "From there to the answer.", metrics.fuse),
        ("latency", "From a tick's last frame received to its result sent.", metrics.total),
    ):
        yield _histogram(f"robult_{name}_seconds", what, histogram)


def _of_sensors(server: Server) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    """Frames by modality and outcome; sensors by modality and state.

    Looked at again where streams ended meanwhile: no frame may be missed, or counted twice.
    """
    while True:
        moves = server.rigs.moves
        found = _look_at_sensors(server)
        if moves % 2 == 0 and moves == server.rigs.moves:
            return found
        time.sleep(0)


def _look_at_sensors(server: Server) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    placed: Counter[tuple[str, str]] = Counter()
    states = Counter({(m, s): 0 for m in server.manifest.names for s in get_args(State)})
    for modality, counts in list(server.rigs.ended.items()):
        for outcome, n in dict(counts).items():
            placed[modality, outcome] += n
    for rig in list(server.rigs.rigs.values()):
        for stream in rig.streams:
            states[stream.spec.name, stream.liveness.state] += 1
            for outcome, n in dict(stream.counts).items():
                placed[stream.spec.name, outcome] += n
    return placed, states


def _by(labels: tuple[str, ...], counts: Mapping[Any, int]) -> Samples:
    """Samples of counts whose keys are the labels' values."""
    for key, n in dict(counts).items():
        values = key if isinstance(key, tuple) else (key,)
        yield dict(zip(labels, values, strict=True)), n


def _family(name: str, kind: Kind, what: str, samples: Samples) -> str:
    lines = [f"# HELP {name} {what}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {float(value):.15g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _histogram(name: str, what: str, histogram: Histogram) -> str:
    *up_to, everything = accumulate(list(histogram.counts))
    lines = [f"# HELP {name} {what}", f"# TYPE {name} histogram"]
    lines += [
        f'{name}_bucket{{le="{bound / 1e6:g}"}} {n}'
        for bound, n in zip(BOUNDS_US, up_to, strict=True)
    ]
    lines += [
        f'{name}_bucket{{le="+Inf"}} {everything}',
        f"{name}_sum {histogram.sum_us / 1e6:.15g}",
        f"{name}_count {everything}",
    ]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    escape = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
    inside = ",".join(f'{name}="{value.translate(escape)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


@cache
def _version() -> str:
    try:
        return metadata.version("robult-edge")
    except metadata.PackageNotFoundError:
        return "unknown"
