"""``python -m train.costs --dataset watch``: what a branch costs by its encoder.

Parameters and FLOPs are counted; microseconds are measured with the branch as the runtime runs it:
ONNX Runtime, one thread, one window.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from robult_edge.data import load
from robult_edge.errors import RobultError
from robult_edge.modality import ModalitySpec
from robult_edge.nn.encoders import suitable
from robult_edge.nn.graph import write
from robult_edge.nn.robult import ClassifierInput, Robult
from train.config import TrainConfig

RUNS = 300
"""One latency is the median of so many."""


@dataclass(frozen=True)
class Network:
    """What all branches have in common.

    Attributes:
        classes: K.
        width: d.
        classifier_input: "z" or "zu".
    """

    classes: int
    width: int = TrainConfig.width
    classifier_input: ClassifierInput = TrainConfig.classifier_input

    def robult(self, *specs: ModalitySpec, encoder: str | None = None) -> Robult:
        """Untrained, in evaluation mode; modalities with statistics."""
        chosen = {spec.name: encoder for spec in specs} if encoder else {}
        network = Robult(
            specs, self.classes, self.width, encoders=chosen, classifier_input=self.classifier_input
        )
        return network.eval()


@dataclass(frozen=True)
class Budget:
    """The most that a branch may cost."""

    most: float
    unit: Literal["parameters", "us"]

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``50000`` counts parameters, ``60us`` microseconds on this machine.

        Raises:
            RobultError: it is neither.
        """
        number = text.removesuffix("us")
        try:
            most = float(number)
        except ValueError:
            most = 0.0
        if not 0 < most < float("inf"):
            raise RobultError(
                f"--budget is {text!r}; give what a branch may have of parameters, e.g. 50000, "
                "or of microseconds, e.g. 60us"
            )
        return cls(most, "parameters" if number == text else "us")

    def __str__(self) -> str:
        return f"{self.most:g} {self.unit}"


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in module.parameters())


def flops(module: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one call, as torch counts those of products and convolutions."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter does not see into it
    try:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            module(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return counter.get_total_flops()


def microseconds(module: nn.Module, spec: ModalitySpec) -> float:
    """Median time of one window through a branch on ONNX Runtime, one thread."""
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "branch.onnx"
        write(module, (windows(spec, 4),), path, ["x"], ["logits", "h"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    x = {"x": windows(spec, 1).numpy()}
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        session.run(None, x)
        times.append(time.perf_counter() - begin)
    return 1e6 * float(np.median(times))


def windows(spec: ModalitySpec, n: int) -> Tensor:
    """Noise in the shape of a modality's windows [n, *window_shape], float32."""
    return torch.randn(n, *spec.window_shape, generator=torch.Generator().manual_seed(0))


def fitting(specs: Sequence[ModalitySpec], network: Network, budget: Budget) -> dict[str, str]:
    """The first encoder of `robult_edge.nn.encoders.suitable` within the budget, per modality.

    Raises:
        RobultError: none is, for some modality.
    """
    chosen = {}
    for spec in specs:
        costs = {}
        for encoder in suitable(spec):
            branch = network.robult(spec, encoder=encoder).branch(spec.name)
            unit = budget.unit
            costs[encoder] = (
                parameters(branch) if unit == "parameters" else microseconds(branch, spec)
            )
            if costs[encoder] <= budget.most:
                chosen[spec.name] = encoder
                break
        else:
            least = min(costs, key=lambda name: costs[name])
            raise RobultError(
                f"modality {spec.name!r}: no encoder costs {budget} or less; {least} costs "
                f"{costs[least]:.0f}: give a larger --budget or a smaller --width than "
                f"{network.width}"
            )
    return chosen


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m train.costs", description=__doc__)
    parser.add_argument("--dataset", required=True, help="as python -m train takes it")
    parser.add_argument("--width", type=int, default=TrainConfig.width, help="of the latents")
    options = parser.parse_args(arguments)
    console = Console()
    try:
        dataset = load(options.dataset)
        console.print(_table(dataset.modalities, Network(len(dataset.classes), options.width)))
    except RobultError as error:
        console.print(f"[red]error:[/] {error}", soft_wrap=True, highlight=False)
        return 2
    return 0


def measured(spec: ModalitySpec, network: Network) -> dict[str, dict[str, float]]:
    """Of a branch with each suitable encoder: parameters, flops and us."""
    found = {}
    for encoder in suitable(spec):
        branch = network.robult(spec, encoder=encoder).branch(spec.name)
        found[encoder] = {
            "parameters": parameters(branch),
            "flops": flops(branch, windows(spec, 1)),
            "us": round(microseconds(branch, spec), 1),
        }
    return found


def kept(specs: Sequence[ModalitySpec], network: Network) -> int:
    """Parameters at inference: those of all branches and of the head, shared ones once."""
    whole = network.robult(*specs)
    return parameters(nn.ModuleList([whole.head(), *(whole.branch(s.name) for s in specs)]))


def _table(specs: tuple[ModalitySpec, ...], network: Network) -> Table:
    table = Table("modality", "encoder", title="a branch, one window", title_justify="left")
    for unit in ("parameters", "kFLOP", "us"):
        table.add_column(unit, justify="right")
    for spec in track(specs, "measuring", transient=True):
        for encoder, cost in measured(spec, network).items():
            table.add_row(
                spec.name,
                encoder,
                f"{cost['parameters']:,}",
                f"{cost['flops'] / 1e3:,.0f}",
                f"{cost['us']:.0f}",
            )
    table.add_section()
    table.add_row("all, with the head", "default", f"{kept(specs, network):,}")
    return table


if __name__ == "__main__":
    sys.exit(main())
