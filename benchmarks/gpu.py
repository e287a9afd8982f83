"""On the GPU: TensorRT enqueued, as CUDA graphs and as one per alive subset; others beside it.

``python -m benchmarks.gpu [--engines DIR] [--quick] [--json PATH]``

Host arrays to host arrays: every branch, the fusion head, and all of them in a row, on TensorRT, on
ONNX Runtime's CUDA, and on PyTorch, eager and compiled; and windows to fused probabilities with all
sensors alive and with one of them lost. The floor is the replay of an empty CUDA graph, waited for
as the others are, in turn with each of them. The goal: all sensors fused take at most 1.5 times the
slowest branch's own replay and the head's. Without a GPU it says so, and that is all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from robult_edge import bundle, golden, nvidia, subsets
from robult_edge.bundle import Bundle, Flavour
from robult_edge.errors import RobultError
from robult_edge.golden import Graph
from runtime import fatbin
from runtime.backends import cuda, tensorrt
from runtime.backends.device_fusion import DeviceFusion
from runtime.backends.onnxruntime import OnnxRuntimeBackend
from runtime.backends.tensorrt import TensorRtBackend

Run = Callable[..., Sequence[np.ndarray]]
Launch = Callable[[], object]
Work = Callable[[int], dict[str, Launch]]
"""Batch → what is measured, by name."""
FUSED = "all in a row"
GOAL = 1.5
BATCHES, QUICK_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256), (1, 16, 256)
RUNS, QUICK_RUNS, WARM_UP = 500, 50, 5


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", default="export/", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    batches, runs = (QUICK_BATCHES, QUICK_RUNS) if args.quick else (BATCHES, RUNS)
    console = Console()
    figures: dict[str, float] = {}
    try:
        name = nvidia.gpu().name
        context = cuda.primary_context()
    except RobultError as error:
        print(f"nothing is measured: {error}")
        return 0
    with TemporaryDirectory() as scratch, cuda.pushed(context), ExitStack() as held:
        path = Path(shutil.copytree(bundle.find(args.engines), Path(scratch) / "engines"))
        floor = empty_replay(held)
        for label, make in contenders(path, batches[-1]).items():
            try:
                work = make()
            except Exception as error:  # what cannot be had here is said, and the others go on
                console.print(f"{label} is left out: {error}", markup=False)
                continue
            figures |= measure(label, work, floor, batches, runs)
        goals = goal(bundle.load(path).manifest.names, figures)
    if figures:
        console.print(table(name, figures))
        for key, ratio in goals.items():
            console.print(f"{key} {ratio:.2f}, goal ≤ {GOAL}", markup=False)
    else:
        print("nothing is measured: every contender is left out")
    if args.json:
        args.json.write_text(json.dumps(figures | goals))
    return 0


def contenders(path: Path, most: int) -> dict[str, Callable[[], Work]]:
    """Each by name, and what makes it run the bundle at ``path``."""
    found = bundle.load(path)
    every = golden.graphs(found)
    makes: dict[str, Callable[[], list[Run]]] = {}
    fusing: dict[str, Callable[[], Work]] = {}
    for flavour in get_args(Flavour):
        module = nvidia.MODULES[flavour]
        for how, replay in (("graphs", True), ("plain", False)):
            makes[f"{module}_{how}"] = partial(engine_runs, path, flavour, most, replay)
        fusing[f"{module}_subsets"] = partial(subset_work, path, flavour, most)
    makes |= {
        "onnxruntime_cuda": partial(onnx_runtime, path),
        "torch_eager": partial(on_torch, path, compiled=False),
        "torch_compiled": partial(on_torch, path, compiled=True),
    }

    def graph_by_graph(make: Callable[[], list[Run]]) -> Work:
        return partial(graph_work, every, make())

    return {label: partial(graph_by_graph, make) for label, make in makes.items()} | fusing


def engines(path: Path, flavour: Flavour, most: int, replay: bool = True) -> list[TensorRtBackend]:
    """Every graph on TensorRT; engines that take ``most`` windows are built where they lack.

    Raises:
        RobultError: they cannot be had.
    """
    wanted = tensorrt.here(flavour)
    build = ["-m", "export.tensorrt", "--bundle", str(path), "--flavour", flavour]
    done = subprocess.run(
        [sys.executable, *build, "--batch", "1", str(most)], capture_output=True, text=True
    )
    if done.returncode:
        raise RobultError(done.stderr.strip().splitlines()[-1])
    found = bundle.load(path)
    loaded = []
    for graph in golden.graphs(found):
        engine = nvidia.find(graph.entry.engines, graph.entry.onnx.sha256, "fp32", wanted)
        if engine is None:
            raise RobultError(f"{graph.name} has no engine")
        loaded.append(TensorRtBackend(found.plan(engine), flavour, engine.batch, replay))
    return loaded


def engine_runs(path: Path, flavour: Flavour, most: int, replay: bool) -> list[Run]:
    """Every graph on TensorRT, by itself."""
    return [engine.run for engine in engines(path, flavour, most, replay)]


def subset_work(path: Path, flavour: Flavour, most: int) -> Work:
    """Windows to fused probabilities, with all sensors alive and with one of them lost."""
    *branches, head = engines(path, flavour, most)
    found = bundle.load(path)
    device = DeviceFusion(found.manifest, "pool", branches, head, fatbin.find())
    return partial(fused_work, found, device)


def fused_work(found: Bundle, device: DeviceFusion, batch: int) -> dict[str, Launch]:
    """The launches of a batch, by subset."""
    names, windows = found.manifest.names, found.golden()
    full = subsets.full(len(names))
    return {
        subsets.name(mask, names): partial(
            device.run,
            mask,
            *(resized(windows[f"x.{names[i]}"], batch) for i in subsets.members(mask)),
        )
        for mask in (full, *subsets.children(full))
    }


def onnx_runtime(path: Path) -> list[Run]:
    """Every graph on ONNX Runtime's CUDA; a window by itself where it is sooner done."""
    return [OnnxRuntimeBackend(g.file, "cuda").run for g in golden.graphs(bundle.load(path))]


def on_torch(path: Path, compiled: bool) -> list[Run]:
    """The same network with the default encoders, untrained: speed does not depend on weights."""
    import torch

    from robult_edge.nn.robult import Robult

    manifest = bundle.load(path).manifest
    model = Robult(manifest.modalities, len(manifest.classes)).eval()

    def on_gpu(module: Any) -> Run:
        module = module.cuda().eval()
        if compiled:
            module = torch.compile(module, mode="reduce-overhead")

        def run(*inputs: np.ndarray) -> list[np.ndarray]:
            with torch.inference_mode():
                outputs = module(*(torch.from_numpy(x).cuda() for x in inputs))
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                return [output.cpu().numpy() for output in outputs]

        return run

    return [*(on_gpu(model.branch(name)) for name in manifest.names), on_gpu(model.head())]


def empty_replay(held: ExitStack) -> Launch:
    """The floor: a CUDA graph of nothing, put on a stream and waited for."""
    stream = cuda.driver().Stream()
    return cuda.waited(stream, cuda.captured(stream, lambda: None, held))


def graph_work(graphs: Sequence[Graph], runs: Sequence[Run], batch: int) -> dict[str, Launch]:
    """The launches of a batch, by graph, and all of them in a row."""
    inputs = [[resized(a, batch) for a in graph.inputs] for graph in graphs]
    work: dict[str, Launch] = {
        graph.name: partial(run, *given)
        for graph, run, given in zip(graphs, runs, inputs, strict=True)
    }
    return work | {FUSED: partial(in_a_row, runs, inputs)}


def resized(array: np.ndarray, batch: int) -> np.ndarray:
    """So many rows of it, again from the top where it has fewer."""
    return np.resize(array, (batch, *array.shape[1:]))


def measure(
    label: str, work: Work, floor: Launch, batches: Sequence[int], count: int
) -> dict[str, float]:
    """Median time over the floor's, by contender, what is measured, and batch."""
    figures = {}
    for batch in track(batches, label):
        for name, launch in work(batch).items():
            took, least = times_s(launch, floor, count)
            key = f"{label}_{name}_{batch}".replace(" ", "_")
            figures[f"{key}_ratio"] = float(np.median(took) / np.median(least))
    return figures


def goal(names: Sequence[str], figures: dict[str, float]) -> dict[str, float]:
    """All sensors fused over the slowest branch's replay and the head's, batch 1, by flavour."""
    found = {}
    for module in nvidia.MODULES.values():
        fused = figures.get(f"{module}_subsets_{'+'.join(names)}_1_ratio")
        if fused is not None:
            replay = {g: figures[f"{module}_graphs_{g}_1_ratio"] for g in (*names, "fusion_head")}
            slowest = max(replay[name] for name in names)
            found[f"{module}_fused_over_parts_ratio"] = fused / (slowest + replay["fusion_head"])
    return found


def in_a_row(runs: Sequence[Run], inputs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Every branch, and the head on their latents: logits [B, K]."""
    h = np.stack([run(*x)[1] for run, x in zip(runs[:-1], inputs[:-1], strict=True)], axis=1)
    return runs[-1](h, np.ones(h.shape[:2], bool))[0]


def times_s(launch: Launch, floor: Launch, count: int) -> tuple[list[float], list[float]]:
    """Of a launch and of the floor, in turn."""
    for _ in range(WARM_UP):
        launch()
        floor()
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(count):
        for each, seconds in zip((launch, floor), took, strict=True):
            begun = time.perf_counter()
            each()
            seconds.append(time.perf_counter() - begun)
    return took


def table(gpu: str, figures: dict[str, float]) -> Table:
    """Contender and graph by batch."""
    shown = Table(title=f"median over an empty graph's replay, {gpu}", title_justify="left")
    rows: dict[str, dict[int, float]] = {}
    for key, ratio in figures.items():
        name, batch, _ = key.rsplit("_", 2)
        rows.setdefault(name, {})[int(batch)] = ratio
    batches = sorted({batch for row in rows.values() for batch in row})
    for column in ("", *map(str, batches)):
        shown.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        shown.add_row(name, *(f"{row[batch]:.1f}" for batch in batches))
    return shown


if __name__ == "__main__":
    sys.exit(main())
