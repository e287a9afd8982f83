"""A bundle's engines: build what is missing, prove it where it can run, note it in the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import msgspec

from export.tensorrt.build import Settings, build
from export.tensorrt.graphs import Run, in_batches
from export.tensorrt.parity import Parity, difference, parity
from robult_edge import bundle, nvidia
from robult_edge.bundle import Branch, Bundle, Engine, Head, Precision
from robult_edge.errors import EngineError, MissingExtraError
from robult_edge.golden import Graph, graphs
from robult_edge.nvidia import Target
from robult_edge.trt_log import one_line

Say = Callable[[str], None]
Runner = Callable[[bytes], Run]
"""Serialised engine → what runs it; see `export.tensorrt.gpu.runner`."""
Convert = Callable[[Graph], tuple[bytes, frozenset[str]]]
"""Graph → the same in the precision ordered, and the layers that stay FP32 in it."""


@dataclass(frozen=True)
class Order:
    """Engines to be had.

    Attributes:
        target: what they run on.
        precision: of their heavy layers.
        settings: how they are built.
        dataset: what int8 is calibrated on; None: the data set trained on.
    """

    target: Target
    precision: Precision
    settings: Settings
    dataset: str | None = None


def build_engines(
    path: Path, trt: ModuleType, order: Order, runner: Runner | None, say: Say
) -> list[str]:
    """Build every engine of the order that the bundle lacks; what is built is noted at once.

    Args:
        path: the bundle.
        trt: see `robult_edge.nvidia.library`.
        order: what to build.
        runner: proves each engine with the golden vectors; None: nothing here can run them.
        say: takes a line of progress.

    Returns:
        One sentence per graph whose engine cannot be had.

    Raises:
        RobultError: the bundle cannot be read, or no training windows for int8.
    """
    found = bundle.load(path)
    every = graphs(found)
    if all(_up_to_date(found, graph, order) for graph in every):
        say("up to date")
        return []
    converted, failures = _converter(found, every, order), []
    for graph in every:
        if _up_to_date(found, graph, order):
            say(f"{graph.name}: up to date")
            continue
        say(f"{graph.name}: building …")
        try:
            model, kept = converted(graph)
            plan = build(trt, model, order.settings)
            if runner:
                _prove(graph, order, runner(plan))
            say(f"{graph.name}: {len(plan) / 1e6:.1f} MB, {note(found.path, graph, order, plan)}")
        except EngineError as error:
            failures.append(f"{graph.file.name}, {order.precision}: {error}")
            continue
        if kept:
            say(f"{graph.name}: FP32, to meet its golden vectors: {', '.join(sorted(kept))}")
    return failures


def proof(path: Path, order: Order, runner: Runner) -> Parity | None:
    """The bundle's engines against its golden vectors; None where one is missing."""
    found = bundle.load(path)
    every = graphs(found)
    engines = [_engine(found, graph, order) for graph in every]
    if None in engines:
        return None
    plans = [found.plan(engine) for engine in engines if engine]
    return parity(found, every, [in_batches(runner(p), order.settings.batch[-1]) for p in plans])


def _engine(found: Bundle, graph: Graph, order: Order) -> Engine | None:
    """The graph's engine of this order, if it is there and whole."""
    wanted = nvidia.key(graph.entry.onnx.sha256, order.precision, order.target)
    fitting = (engine for engine in graph.entry.engines if engine.key == wanted)
    return next((engine for engine in fitting if found.flaw(engine) is None), None)


def _up_to_date(found: Bundle, graph: Graph, order: Order) -> bool:
    engine = _engine(found, graph, order)
    return engine is not None and engine.batch == order.settings.batch


def _converter(found: Bundle, every: Sequence[Graph], order: Order) -> Convert:
    if order.precision == "fp32":  # which needs no onnx
        return lambda graph: (graph.file.read_bytes(), frozenset())
    try:
        import onnx

        from export.tensorrt import half, int8, precision
    except ImportError:
        extra = {"trt": "tensorrt", "rtx": "rtx"}[order.target.flavour]
        raise MissingExtraError("onnx", extra) from None
    how: dict[str, precision.Convert] = {graph.name: half.half for graph in every}
    if order.precision == "int8":
        windows = int8.calibration(found, every, order.dataset)
        how = {g.name: partial(int8.int8, windows=w) for g, w in zip(every, windows, strict=True)}

    def convert(graph: Graph) -> tuple[bytes, frozenset[str]]:
        tolerance = nvidia.TOLERANCES[order.precision]
        try:
            model = precision.named(onnx.load_from_string(graph.file.read_bytes()))
            return precision.faithful(
                model, how[graph.name], graph.inputs, graph.outputs, tolerance
            )
        except EngineError:
            raise
        except Exception as error:  # onnx and onnxruntime raise classes without a common base
            raise EngineError(f"the graph cannot be converted: {one_line([str(error)])}") from None

    return convert


def _prove(graph: Graph, order: Order, run: Run) -> None:
    said = in_batches(run, order.settings.batch[-1])(*graph.inputs)
    delta, most = difference(said, graph.outputs).max_rel, nvidia.TOLERANCES[order.precision]
    if not delta <= most:
        raise EngineError(
            f"the engine is off its golden vectors by {delta:.2g} (at most {most:g} is allowed), "
            "so it is not kept; build another precision"
        )


def note(path: Path, graph: Graph, order: Order, plan: bytes) -> str:
    """Put an engine into the bundle: its file first, then the manifest in one step.

    The manifest is read anew, so that engines noted meanwhile stay.

    Returns:
        The engine's file name.

    Raises:
        EngineError: the graph has been exported anew meanwhile.
    """
    manifest = bundle.load(path).manifest
    places: list[Branch | Head] = [*manifest.branches, manifest.head]
    i = next((i for i, place in enumerate(places) if place.onnx == graph.entry.onnx), None)
    if i is None:
        raise EngineError(f"{graph.file.name} was exported anew meanwhile; build again")
    name = nvidia.plan_name(graph.file.stem, order.precision, order.target, plan)
    engine = Engine(
        plan=bundle.write_bytes(path / name, plan),
        key=nvidia.key(graph.entry.onnx.sha256, order.precision, order.target),
        precision=order.precision,
        batch=order.settings.batch,
        **msgspec.structs.asdict(order.target),
    )
    others = tuple(other for other in places[i].engines if other.key != engine.key)
    places[i] = msgspec.structs.replace(places[i], engines=(*others, engine))
    newer = msgspec.structs.replace(manifest, branches=tuple(places[:-1]), head=places[-1])
    bundle.write_manifest(path, newer)
    for stale in set(bundle.files(manifest)) - set(bundle.files(newer)):
        (path / stale.file).unlink(missing_ok=True)
    return name
