"""Which GPU and which TensorRT are here, and which of a bundle's engines fit them.

Export builds engines under a key and the runtime finds them by it. Nothing here needs TensorRT or
a GPU to be imported.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import platform
from collections.abc import Iterable
from types import ModuleType

import msgspec

from robult_edge.bundle import Engine, Flavour, Precision
from robult_edge.errors import EngineError

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 1e-2, "int8": 5e-2}
"""Largest |Δ| from the golden vectors, relative to their own largest magnitude (at least 1)."""

AMPERE_PLUS = "8.0+"
"""Compute capability of an engine for Ampere and every later GPU."""

MODULES: dict[Flavour, str] = {"trt": "tensorrt", "rtx": "tensorrt_rtx"}
MENDS: dict[Flavour, str] = {
    "trt": "on a Jetson, JetPack brings it (apt install python3-libnvinfer; make the environment "
    "with --system-site-packages); elsewhere: pip install tensorrt",
    "rtx": "pip install 'robult-edge[rtx]'",
}
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


class Gpu(msgspec.Struct, frozen=True):
    """A kind of GPU, e.g. ``Gpu("8.7", "Orin")``."""

    compute_capability: str
    name: str


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where an engine runs.

    Attributes:
        flavour: ``trt`` or ``rtx``.
        tensorrt: the version that built it; ``10.x`` for a version-compatible engine.
        platform: e.g. ``linux-aarch64``; ``any`` for ``rtx``, whose engines are portable.
        compute_capability: e.g. ``8.7``, or `AMPERE_PLUS`.
        device: the GPU's name; empty where every GPU of the compute capability will do.
    """

    flavour: Flavour
    tensorrt: str
    platform: str
    compute_capability: str
    device: str


def key(onnx_sha256: str, precision: Precision, target: Target) -> str:
    """The name under which an engine is cached: hex, equal only where an engine can be shared."""
    return hashlib.sha256(msgspec.json.encode((onnx_sha256, precision, target))).hexdigest()


def plan_name(graph: str, precision: Precision, target: Target, plan: bytes) -> str:
    """An engine's file in the bundle, e.g. ``acc-fp16-sm87-0f3a9c21.plan``.

    Another engine has another name, so that the one in the manifest is never written over.

    Args:
        graph: the ONNX file's stem.
        plan: the serialised engine.
    """
    digest = hashlib.sha256(plan).hexdigest()[:8]
    return f"{graph}-{precision}-{sm(target.compute_capability)}-{digest}.plan"


def sm(compute_capability: str) -> str:
    """``8.7`` as NVIDIA's tools write it: ``sm87``."""
    return f"sm{compute_capability.replace('.', '')}"


def target(flavour: Flavour, tensorrt: str, gpu: Gpu) -> Target:
    """What an engine built for ``gpu`` and no other is for.

    TensorRT for RTX settles what depends on the GPU's model when it loads an engine, so there the
    compute capability is all.
    """
    return Target(
        flavour=flavour,
        tensorrt=tensorrt,
        platform="any" if flavour == "rtx" else here(),
        compute_capability=gpu.compute_capability,
        device="" if flavour == "rtx" else gpu.name,
    )


def any_version(tensorrt: str) -> str:
    """The version of a version-compatible engine: ``10.3.0`` → ``10.x``."""
    return f"{tensorrt.partition('.')[0]}.x"


def here() -> str:
    """This machine's platform, e.g. ``linux-aarch64``."""
    return f"{platform.system()}-{platform.machine()}".lower()


def find(
    engines: Iterable[Engine], onnx_sha256: str, precision: Precision, wanted: Target
) -> Engine | None:
    """The engine of a graph that fits ``wanted``, the most specific first.

    Args:
        engines: the graph's engines, as its manifest lists them.
        onnx_sha256: of the graph.
        precision: the precision to serve in.
        wanted: see `target`.
    """
    by_key = {engine.key: engine for engine in engines}
    fitting = (by_key.get(key(onnx_sha256, precision, each)) for each in _fitting(wanted))
    return next((engine for engine in fitting if engine), None)


def misfit(engine: Engine, onnx_sha256: str, wanted: Target) -> str | None:
    """Why an engine of a graph does not fit ``wanted``; None if it does."""
    if find([engine], onnx_sha256, engine.precision, wanted):
        return None
    fitting = _fitting(wanted)
    unlike = [
        f"{field.replace('_', ' ')} {getattr(engine, field)}, here {getattr(wanted, field)}"
        for field in Target.__struct_fields__
        if getattr(engine, field) not in {getattr(each, field) for each in fitting}
    ]
    return "; ".join(unlike) or "built from another graph"


def _fitting(wanted: Target) -> list[Target]:
    """Every target whose engines run at ``wanted``, the most specific first."""
    cc = wanted.compute_capability
    gpus = [(cc, wanted.device), (cc, "")]
    if float(cc) >= 8.0:
        gpus.append((AMPERE_PLUS, ""))
    return [
        msgspec.structs.replace(wanted, tensorrt=version, compute_capability=cc, device=device)
        for version in (wanted.tensorrt, any_version(wanted.tensorrt))
        for cc, device in gpus
    ]


def library(flavour: Flavour) -> ModuleType:
    """TensorRT itself.

    Raises:
        EngineError: it is not installed, or lacks its core libraries.
    """
    name = MODULES[flavour]
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(f"{name} cannot be imported ({error}); {MENDS[flavour]}") from None


def gpu(driver: str = "libcuda.so.1") -> Gpu:
    """The GPU that engines are built for and run on: the first that CUDA shows.

    Ask before making a TensorRT Runtime: without a driver some versions crash.

    Args:
        driver: the CUDA driver's library.

    Raises:
        EngineError: there is no driver, or it finds no GPU.
    """
    try:
        cuda = ctypes.CDLL(driver)
    except OSError:
        raise EngineError(f"no CUDA driver here ({driver} cannot be loaded)") from None

    def call(function: str, *args: object) -> None:
        code = getattr(cuda, function)(*args)
        if code:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(code, ctypes.byref(text))
            said = (text.value or b"unknown error").decode()
            raise EngineError(f"the CUDA driver is of no use here ({function}: {code}, {said})")

    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor = ctypes.c_int(), ctypes.c_int()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDeviceGetName", name, len(name), device)
    for value, attribute in ((major, _MAJOR), (minor, _MINOR)):
        call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return Gpu(f"{major.value}.{minor.value}", name.value.decode())
