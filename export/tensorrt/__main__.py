"""``python -m export.tensorrt --bundle DIR``: build the engines of a bundle, where they run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import get_args

import msgspec

from export.tensorrt.build import Hardware, Settings
from export.tensorrt.engines import Order, build_engines, proof
from export.tensorrt.gpu import runner
from robult_edge import bundle, nvidia, signature
from robult_edge.bundle import Flavour, Precision
from robult_edge.errors import EngineError, RobultError
from robult_edge.nvidia import Gpu, Target


def main(argv: Sequence[str] | None = None) -> int:
    """Build; 2 when an engine cannot be had."""
    args = _arguments().parse_args(argv)
    failures = []
    try:
        path = bundle.find(args.bundle)
        before = (path / bundle.MANIFEST).read_bytes()
        trt = nvidia.library(args.flavour)
        try:
            for order in orders(args, trt):
                failures += _fill(path, trt, order)
        finally:
            _say_unsigned(path, before)
    except (RobultError, OSError) as error:
        failures.append(str(error))
    for failure in failures:
        print(f"export.tensorrt: {failure}", file=sys.stderr)
    return 2 if failures else 0


def _say_unsigned(path: Path, before: bytes) -> None:
    """Say what has become of a signature, where the manifest is not what it was ``before``."""
    signed = (path / signature.SIGNATURE).is_file()
    if signed and (path / bundle.MANIFEST).read_bytes() != before:
        print(
            "the bundle's signature does not hold for these engines; sign it again: "
            f"python -m export.sign --bundle {path} --key SECRET"
        )


def _fill(path: Path, trt: ModuleType, order: Order) -> list[str]:
    """Build one order's engines, and say how far they are from the golden vectors."""
    compute_capability = order.settings.compute_capability or nvidia.gpu().compute_capability
    say = partial(print, flush=True)
    say(f"{order.precision} engines for {nvidia.sm(compute_capability)}:")
    run, unchecked = None, "an engine is missing"
    try:
        run = runner(trt, compute_capability)
    except RobultError as error:
        unchecked = str(error)
    failures = build_engines(path, trt, order, run, say)
    report = proof(path, order, run) if run else None
    say(str(report or f"parity with the golden vectors was not checked: {unchecked}"))
    return failures


def orders(args: argparse.Namespace, trt: ModuleType) -> list[Order]:
    """One order per GPU to build for.

    Raises:
        EngineError: an option that the flavour has not, or no GPU to build for.
    """
    rtx = args.flavour == "rtx"
    if args.target and not rtx:
        raise EngineError(
            "--target: TensorRT builds for the GPU that it runs on; leave it out, or --flavour rtx"
        )
    for option in ("timing_cache", "hardware_compatible", "version_compatible"):
        if rtx and getattr(args, option):
            raise EngineError(
                f"--{option.replace('_', '-')}: not to be had with TensorRT for RTX; leave it out"
            )
    settings = Settings(
        batch=(1, *args.batch),
        hardware=args.hardware_compatible,
        version_compatible=args.version_compatible,
        timing_cache=args.timing_cache,
    )
    if rtx:
        names = args.target or [nvidia.sm(_this_gpu("rtx").compute_capability)]
        gpus = [_rtx_gpu(trt, name) for name in names]
    else:
        gpus = [_this_gpu("trt")]
    return [
        Order(
            target=_target(args.flavour, trt.__version__, gpu, settings),
            precision=args.precision,
            settings=replace(settings, compute_capability=gpu.compute_capability if rtx else None),
            dataset=args.dataset,
        )
        for gpu in gpus
    ]


def _target(flavour: Flavour, version: str, gpu: Gpu, settings: Settings) -> Target:
    target = nvidia.target(flavour, version, gpu)
    if settings.hardware:
        target = msgspec.structs.replace(target, device="")
    if settings.hardware == "ampere+":
        target = msgspec.structs.replace(target, compute_capability=nvidia.AMPERE_PLUS)
    if settings.version_compatible:
        target = msgspec.structs.replace(target, tensorrt=nvidia.any_version(version))
    return target


def _this_gpu(flavour: Flavour) -> Gpu:
    try:
        return nvidia.gpu()
    except EngineError as error:
        mend = "name the GPUs to build for, e.g. --target sm86" if flavour == "rtx" else (
            "run this on the device, or build ahead of time with --flavour rtx --target sm86"
        )  # fmt: skip
        raise EngineError(f"{error}; {mend}") from None


def _rtx_gpu(trt: ModuleType, sm: str) -> Gpu:
    known = [name.lower() for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if sm not in known:
        raise EngineError(f"TensorRT for RTX builds for {', '.join(known)}, not for {sm}")
    return Gpu(f"{sm[2:-1]}.{sm[-1]}", "")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m export.tensorrt", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="what python -m export wrote")
    parser.add_argument(
        "--flavour", choices=get_args(Flavour), default="trt",
        help="TensorRT, or TensorRT for RTX, which builds without a GPU (default: trt)",
    )  # fmt: skip
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32")
    parser.add_argument("--target", nargs="+", metavar="SM", help="rtx: GPUs to build for: sm86 …")
    parser.add_argument(
        "--batch", nargs=2, type=int, default=(1, 64), metavar=("TYPICAL", "MAX"),
        help="windows per call (default: 1 64)",
    )  # fmt: skip
    parser.add_argument("--dataset", help="int8: calibrate on its training windows")
    parser.add_argument("--timing-cache", type=Path, help="trt: file of kernel timings to keep")
    parser.add_argument(
        "--hardware-compatible", choices=get_args(Hardware),
        help="trt: run on every GPU of the same compute capability, or on Ampere and later",
    )  # fmt: skip
    parser.add_argument(
        "--version-compatible", action="store_true",
        help="trt: run on later versions of the same major TensorRT",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
