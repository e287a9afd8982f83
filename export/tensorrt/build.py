"""One ONNX graph to one engine: the only place that talks to TensorRT's builder.

Written to what TensorRT 10, TensorRT 11 and TensorRT for RTX share: a strongly typed network, so
that precision is what the graph's types say. Builder and parser report failure as None or False and
a line in their log; here each becomes an `EngineError` that quotes the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from robult_edge import bundle, nvidia
from robult_edge.errors import EngineError
from robult_edge.trt_log import collector, freed_on_failure, one_line

Hardware = Literal["same", "ampere+"]
LEVELS: dict[Hardware, str] = {"same": "SAME_COMPUTE_CAPABILITY", "ampere+": "AMPERE_PLUS"}
"""What TensorRT calls them."""


@dataclass(frozen=True)
class Settings:
    """How engines are built.

    Attributes:
        batch: least, typical and largest; the engine is fastest at the typical one.
        compute_capability: to build for ahead of time, e.g. ``8.6`` (RTX alone); None: this GPU's.
        hardware: run on every GPU of the ``same`` compute capability, or on ``ampere+``.
        version_compatible: run on later TensorRT of the same major version.
        timing_cache: file of kernel timings to read and to update.
    """

    batch: tuple[int, int, int] = (1, 1, 64)
    compute_capability: str | None = None
    hardware: Hardware | None = None
    version_compatible: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        least, typical, largest = self.batch
        if not 1 <= least <= typical <= largest:
            raise EngineError(f"batch is {self.batch}; it must rise from 1, e.g. (1, 8, 64)")


@freed_on_failure
def build(trt: ModuleType, graph: bytes, settings: Settings) -> bytes:
    """The serialised engine of an ONNX graph.

    Args:
        trt: see `robult_edge.nvidia.library`.
        graph: a serialised ONNX model whose first axes are the batch.
        settings: how.

    Raises:
        EngineError: what TensorRT said, in one sentence.
    """
    log = collector(trt)
    try:
        builder = trt.Builder(log)
    except (TypeError, RuntimeError) as error:  # how the bindings report a null pointer
        raise EngineError(f"no builder can be made ({error}): {log.said()}") from None
    strongly_typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = log.made("network", builder.create_network(strongly_typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        raise EngineError(f"the graph cannot be parsed: {_parser_said(parser)}")
    config = log.made("configuration", builder.create_builder_config())
    _configure(trt, config, settings)
    profile = log.made("profile", builder.create_optimization_profile())
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        shape = tuple(tensor.shape)[1:]
        if -1 in shape:
            raise EngineError(
                f"{tensor.name} is {tuple(tensor.shape)}, and there is no profile for more than a "
                "batch that varies; export the graph with every other size fixed"
            )
        profile.set_shape(tensor.name, *((size, *shape) for size in settings.batch))
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"batches of {settings.batch} are refused: {log.said()}")
    if settings.timing_cache:
        _read_timings(config, settings.timing_cache)
    plan = log.made("engine", builder.build_serialized_network(network, config))
    if settings.timing_cache:
        bundle.write_bytes(settings.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _configure(trt: ModuleType, config: Any, settings: Settings) -> None:
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    if settings.compute_capability:
        config.num_compute_capabilities = 1
        config.set_compute_capability(
            getattr(trt.ComputeCapability, nvidia.sm(settings.compute_capability).upper()), 0
        )
    if settings.hardware:
        level = getattr(trt.HardwareCompatibilityLevel, LEVELS[settings.hardware], None)
        if level is None:
            raise EngineError(
                f"TensorRT {trt.__version__} has no hardware compatibility {settings.hardware!r}"
            )
        config.hardware_compatibility_level = level
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _read_timings(config: Any, file: Path) -> None:
    """Use the timings in ``file``; those of another GPU or TensorRT are set aside."""
    timings = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if not config.set_timing_cache(timings, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _parser_said(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return one_line(
        f"{error.node_operator()} {error.node_name()} {error.code().name} {error.desc()}"
        for error in errors
    )
