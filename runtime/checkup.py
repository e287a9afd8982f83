"""What a machine has for serving a bundle, one finding at a time; `runtime.doctor` prints them.

Only the standard library is imported before it is looked for, so that whatever is missing is a
finding and not the end.
"""

from __future__ import annotations

import importlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runtime import fatbin, jetson

if TYPE_CHECKING:
    from robult_edge.bundle import Bundle, Engine
    from robult_edge.golden import Graph
    from robult_edge.nvidia import Target
    from runtime.engines import Candidate

State = Literal["ok", "lacking", "broken"]
CORE = {"numpy": "numpy", "pyzmq": "zmq", "msgspec": "msgspec", "onnxruntime": "onnxruntime"}
"""Packages without which nothing is served, and the modules they bring."""
RUNS, WARM_UP, LONGEST_S = 300, 20, 2.0
"""How often a graph is timed, unless that takes longer."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        topic: what it belongs to.
        name: what was looked at.
        state: ``lacking`` costs something; ``broken`` means that the bundle cannot be served here.
        said: what was found.
        mend: what to do about it.
        numbers: what was measured, by name with its unit.
    """

    topic: str
    name: str
    state: State
    said: str
    mend: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


def examine(
    engines: str, key: str | None = None, cache: str | None = None, root: Path = Path("/")
) -> Iterator[Finding]:
    """Look at everything.

    Args:
        engines: the bundle, or the parent of its ``engines/``.
        key: public key file that the bundle must be signed for.
        cache: folder of engines that were built here.
        root: of the file system that a Jetson is read from.
    """
    yield from _safely("machine", "broken", machine(root))
    core = list(packages())
    yield from core
    if any(finding.state == "broken" for finding in core):
        yield Finding("bundle", engines, "broken", "not looked at: packages are missing")
        return
    yield from _safely("nvidia", "lacking", accelerators())
    yield from _safely("ports", "lacking", ports())
    yield from _safely("bundle", "broken", served(engines, key, cache))


def _safely(topic: str, otherwise: State, findings: Iterator[Finding]) -> Iterator[Finding]:
    try:
        yield from findings
    except Exception as error:  # a doctor does not die of what it finds
        yield Finding(topic, "unexpected", otherwise, f"{type(error).__name__}: {_line(error)}")


def machine(root: Path) -> Iterator[Finding]:
    """Python, processor, and on a Jetson its release, power mode and clocks."""
    here = f"{platform.python_version()}, {platform.system()} {platform.machine()}".lower()
    yield Finding("machine", "python", "ok", f"{here}, {os.cpu_count()} cores")
    release = jetson.release(root)
    if release is None:
        return
    yield Finding("machine", "jetson linux", "ok", release)
    mode = jetson.power_mode()
    if mode is None:
        mend = "ask as root: sudo nvpmodel -q"
        yield Finding("machine", "power mode", "lacking", "nvpmodel does not say", mend)
    else:
        yield Finding("machine", "power mode", "ok", mode)
    for clock in jetson.clocks(root):
        said = f"{clock.now:.0f} MHz, of {clock.least:.0f} to {clock.most:.0f}"
        if clock.least < clock.most:
            mend = "for an even latency hold it at its most: sudo jetson_clocks"
            yield Finding("machine", clock.name, "lacking", f"{said}: it follows the load", mend)
        else:
            yield Finding("machine", clock.name, "ok", f"{said}: it is held")


def packages() -> Iterator[Finding]:
    """What the edge install brings."""
    for package, module in CORE.items():
        mend = "pip install . in the checkout, into the Python that runs this"
        yield _package("packages", package, module, "broken", mend)
    try:
        from onnxruntime import get_available_providers

        yield Finding("packages", "providers", "ok", ", ".join(get_available_providers()))
    except Exception:  # said above
        pass
    yield from _helper()


def _helper() -> Iterator[Finding]:
    """Whether the hot path is compiled."""
    try:
        from robult_edge import native
    except Exception:  # half an install, said above
        return
    if native.missing:
        mend = "pip install . again, where a C++ compiler and Python's headers are; NumPy does it"
        yield Finding("packages", "compiled helper", "lacking", native.missing, mend)
    else:
        yield Finding("packages", "compiled helper", "ok", "built")


def accelerators() -> Iterator[Finding]:
    """Driver, TensorRT, and what talks to them; all can be done without."""
    from robult_edge import nvidia
    from robult_edge.errors import EngineError

    try:
        gpu = nvidia.gpu()
        said = f"{gpu.name}, compute capability {gpu.compute_capability}"
        yield Finding("nvidia", "driver", "ok", said)
    except EngineError as error:
        mend = (
            "none is needed for onnxruntime-cpu; else JetPack or the distribution has the driver, "
            "and a container wants --runtime nvidia or --gpus all"
        )
        yield Finding("nvidia", "driver", "lacking", str(error), mend)
    for flavour, module in nvidia.MODULES.items():
        yield _package("nvidia", module, module, "lacking", nvidia.MENDS[flavour])
    extra = "pip install 'robult-edge[tensorrt]', where CUDA's nvcc and headers are"
    yield _package("nvidia", "pycuda", "pycuda.driver", "lacking", extra)
    yield _package("nvidia", "cuda-bindings", "cuda.bindings", "lacking", extra)
    try:
        kernels = fatbin.find()
        said = f"{kernels}, {kernels.stat().st_size / 1e3:.0f} kB"
        yield Finding("nvidia", "native fatbin", "ok", said)
    except EngineError as error:
        said, _, mend = str(error).partition("; ")
        mend = f"{mend}; without it the host fuses"
        yield Finding("nvidia", "native fatbin", "lacking", said, mend)


def _package(topic: str, package: str, module: str, otherwise: State, mend: str) -> Finding:
    try:
        found = importlib.import_module(module)
    except Exception as error:  # half an install fails in any way
        return Finding(topic, package, otherwise, f"cannot be imported ({_line(error)})", mend)
    try:
        version = getattr(found, "__version__", None) or metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    return Finding(topic, package, "ok", str(version))


def ports() -> Iterator[Finding]:
    """Whether the default addresses are free."""
    from runtime.config import Config

    default = Config(engines="")
    for name in ("frames", "results", "http"):
        address = getattr(default, name)
        host, _, port = address.rpartition("/")[2].rpartition(":")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, int(port)))
            except OSError as error:
                mend = f"if that is not a runtime.serve at work: runtime.serve --{name} ADDRESS"
                yield Finding("ports", name, "lacking", f"{address}: {error.strerror}", mend)
            else:
                yield Finding("ports", name, "ok", f"{address} is free")


def served(engines: str, key: str | None, cache: str | None) -> Iterator[Finding]:
    """The bundle, its engines, and what runs its graphs how well."""
    from robult_edge import golden, signature
    from robult_edge.errors import RobultError
    from runtime import enginecache
    from runtime.config import Config

    try:
        found = enginecache.load(Config(engines, bundle_key=key, engine_cache=cache))
        graphs = golden.graphs(found)
    except (RobultError, OSError) as error:
        yield Finding("bundle", engines, "broken", _line(error))
        return
    manifest = found.manifest
    names, classes = " + ".join(manifest.names), len(manifest.classes)
    yield Finding("bundle", manifest.name, "ok", f"whole; {names} → {classes} classes")
    if key:
        yield Finding("bundle", "signature", "ok", f"by {key}")
    else:
        signed = (found.path / signature.SIGNATURE).is_file()
        said = "there, not checked" if signed else "none"
        mend = "check it with --bundle-key FILE" if signed else "docs/SECURITY.md says how to sign"
        yield Finding("bundle", "signature", "lacking", said, mend)
    yield from _safely("engines", "lacking", fitting(found, graphs))
    broken = False
    for finding in backends(found, graphs):
        yield finding
        broken |= finding.state == "broken"
    if not broken:
        yield from _safely("serving", "lacking", on_device(found))


def fitting(found: Bundle, graphs: list[Graph]) -> Iterator[Finding]:
    """Every engine in the bundle: whether it is for this machine, and why not."""
    from robult_edge import nvidia

    mend = f"on the device: python -m export.tensorrt --bundle {found.path}"
    if not any(graph.entry.engines for graph in graphs):
        yield Finding("engines", "all graphs", "lacking", "the bundle has none", mend)
    wanted = {flavour: _target(flavour) for flavour in nvidia.MODULES}
    for graph in graphs:
        for engine in graph.entry.engines:
            flaw = found.flaw(engine)
            if flaw:
                yield Finding("engines", graph.name, "lacking", flaw.partition("; ")[0], mend)
                continue
            misfit = _misfit(graph, engine, wanted[engine.flavour])
            state: State = "lacking" if misfit else "ok"
            said = f"{engine.plan.file}: {misfit or f'{engine.precision}, for this machine'}"
            yield Finding("engines", graph.name, state, said, mend if misfit else "")


def _misfit(graph: Graph, engine: Engine, wanted: Target | str) -> str | None:
    from robult_edge import nvidia

    if isinstance(wanted, str):
        return wanted
    return nvidia.misfit(engine, graph.entry.onnx.sha256, wanted)


def _target(flavour: Literal["trt", "rtx"]) -> Target | str:
    """What engines of a flavour must be for here; or why none runs."""
    from robult_edge import nvidia
    from robult_edge.errors import EngineError

    try:
        gpu = nvidia.gpu()
        return nvidia.target(flavour, nvidia.library(flavour).__version__, gpu)
    except EngineError as error:
        return str(error).partition("; ")[0]


def backends(found: Bundle, graphs: list[Graph]) -> Iterator[Finding]:
    """Every graph on every backend: off its golden vectors by how much, and how fast."""
    from runtime.engines import candidates

    served_by: dict[str, str] = {}
    on: dict[str, dict[str, Finding]] = {}
    for graph in graphs:
        for candidate in candidates(found, graph.entry):
            finding = on.setdefault(candidate.label, {})[graph.name] = prove(candidate, graph)
            if finding.state == "ok":
                served_by.setdefault(graph.name, candidate.label)
    for findings in on.values():
        said = {finding.said for finding in findings.values()}
        if len(said) == 1 and len(findings) == len(graphs):
            yield replace(findings[graphs[0].name], name="all graphs")
        else:
            yield from findings.values()
    for graph in graphs:
        if graph.name in served_by:
            yield Finding("serving", graph.name, "ok", served_by[graph.name])
        elif graph is graphs[-1]:
            mend = "answers are fused by the mean over branches meanwhile; export the bundle again"
            yield Finding("serving", graph.name, "lacking", "no backend runs it", mend)
        else:
            mend = "export the bundle again, or mend a backend above"
            yield Finding("serving", graph.name, "broken", "no backend runs it", mend)


def on_device(found: Bundle) -> Iterator[Finding]:
    """Whether the GPU would go from windows to fused answers in one go, and how fast."""
    from robult_edge import subsets
    from runtime.config import Config
    from runtime.serving import Serving

    serving = Serving.prepare(found, Config(str(found.path)))
    try:
        device, choice = serving.fused.backend, serving.fused.choice
        if device is None:
            mend = "the host fuses, to the same answers; docs/JETSON.md says what it takes"
            yield Finding("serving", "all on the GPU", "lacking", choice, mend)
            return
        names, golden = found.manifest.names, found.golden()
        windows = [golden[f"x.{name}"][:1] for name in names]
        median_us, p99_us = time_us(lambda: device.run(subsets.full(len(names)), *windows))
        said = f"{choice}; {median_us:.0f} µs median, {p99_us:.0f} µs p99"
        numbers = {"median_us": median_us, "p99_us": p99_us}
        yield Finding("serving", "all on the GPU", "ok", said, numbers=numbers)
    finally:
        serving.close()


def prove(candidate: Candidate, graph: Graph) -> Finding:
    """One graph on one backend."""
    from robult_edge.golden import deviation

    label = candidate.label
    try:
        backend = candidate.build()
        try:
            off = deviation(backend.run(*graph.inputs), graph.outputs)
            one = [array[:1] for array in graph.inputs]
            median_us, p99_us = time_us(lambda: backend.run(*one))
        finally:
            backend.close()
    except Exception as error:  # any backend may fail in any way
        mend = "the next backend is taken; docs/JETSON.md says what brings this one"
        return Finding(label, graph.name, "lacking", _line(error), mend)
    said = f"off its golden vectors by {off:.1e}; {median_us:.0f} µs median, {p99_us:.0f} µs p99"
    numbers = {"deviation": off, "median_us": median_us, "p99_us": p99_us}
    if off <= candidate.tolerance:
        return Finding(label, graph.name, "ok", said, numbers=numbers)
    mend = f"at most {candidate.tolerance:g} is served; the next backend is taken"
    return Finding(label, graph.name, "lacking", said, mend, numbers)


def time_us(run: Callable[[], object]) -> tuple[float, float]:
    """Median and p99 of some hundred runs, µs."""
    import numpy as np

    for _ in range(WARM_UP):
        run()
    took_ns: list[int] = []
    give_up_s = time.monotonic() + LONGEST_S
    while len(took_ns) < RUNS and time.monotonic() < give_up_s:
        begun_ns = time.perf_counter_ns()
        run()
        took_ns.append(time.perf_counter_ns() - begun_ns)
    median, p99 = np.percentile(took_ns, (50, 99)) / 1e3
    return float(median), float(p99)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
