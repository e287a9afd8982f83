"""The bundle: one directory that export makes and the runtime serves; ``manifest.json`` names all.

The manifest is written last and renamed into place, so that a half-copied bundle has none. Every
other file is checked against its sha256 before it is used: graphs and golden vectors when the
bundle is loaded, an engine when it is, for the bundle can do without.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np

from robult_edge import plausibility, signature, subsets
from robult_edge.errors import BundleError, SpecError
from robult_edge.fusion import Rule
from robult_edge.modality import ModalitySpec, common_hop_ns
from robult_edge.plausibility import Usual
from robult_edge.task import Scale, Task

FORMAT = 1
RULES: tuple[Rule, ...] = get_args(Rule)
Flavour = Literal["trt", "rtx"]
"""TensorRT, and TensorRT for RTX."""
Precision = Literal["fp32", "fp16", "int8"]
MANIFEST = "manifest.json"
MEASURES: dict[Task, tuple[str, ...]] = {
    "classification": ("accuracy", "balanced_accuracy", "macro_f1", "ece", "set_size"),
    "multilabel": ("micro_f1", "macro_f1", "ece", "set_size"),
    "regression": ("mae", "rmse", "r2"),
}
"""What `Measured` must hold beside ``coverage`` and ``n``."""


class FileRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the bundle: name relative to the manifest, and its sha256 in hex."""

    file: str
    sha256: str


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A TensorRT engine, good for one TensorRT version and one kind of GPU.

    Attributes:
        plan: the serialised engine.
        key: what it was built from and for; `robult_edge.nvidia.find` looks it up.
        flavour, tensorrt, platform, compute_capability, device: see `robult_edge.nvidia.Target`.
        precision: of its heavy layers; inputs and outputs are those of the ONNX graph.
        batch: the least that it takes, the one that it is fastest at, and the largest.
    """

    plan: FileRef
    key: str
    flavour: Flavour
    tensorrt: str
    platform: str
    compute_capability: str
    device: str
    precision: Precision
    batch: tuple[int, int, int]


class Branch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One modality's graph: window [B, *window_shape] → logits [B, K] and latent h [B, d].

    For regression the logits are standardised values, and the temperature is 1.
    """

    modality: str
    onnx: FileRef
    temperature: float
    engines: tuple[Engine, ...] = ()


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fusion head's graph: h [B, M, d] and alive [B, M] bool → logits [B, K]."""

    onnx: FileRef
    temperature: float
    engines: tuple[Engine, ...] = ()


class Measured(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What a subset scored on ``n`` held-out windows; which scores there are depends on the task.

    Attributes:
        accuracy, balanced_accuracy: of classes.
        micro_f1: of labels.
        macro_f1, ece: of classes, or of labels.
        coverage: share of windows whose prediction set held the truth; for labels, whose certain
            labels were all true and whose true labels were all possible; for values, share of
            intervals that held their target.
        set_size: classes or labels in the prediction set, on average.
        mae, rmse: per target, in its unit.
        r2: per target; 0 is as good as the mean of these very windows.
        n: windows.
    """

    accuracy: float | None = None
    balanced_accuracy: float | None = None
    micro_f1: float | None = None
    macro_f1: float | None = None
    ece: float | None = None
    coverage: float
    set_size: float | None = None
    mae: tuple[float, ...] = ()
    rmse: tuple[float, ...] = ()
    r2: tuple[float, ...] = ()
    n: int


class SubsetEntry(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """How one alive subset answers, and how well.

    Attributes:
        alive: the modalities alive.
        uses: those its answer is computed from; fewer than ``alive`` where the others would make
            it worse.
        weights: per modality of the bundle, 0 outside ``uses``.
        head_weight: of the fusion head over ``uses``; 0 for the rule ``mean``.
        threshold: least probability for a class or a label to stay in the prediction set; a label
            is certain above 1 − threshold. 0 for values.
        half_widths: of values, half the length of each target's interval in its unit; None where
            labels were too few to promise one.
        expected: measured on held-out data.
    """

    alive: tuple[str, ...]
    uses: tuple[str, ...]
    weights: tuple[float, ...]
    head_weight: float
    threshold: float
    half_widths: tuple[float | None, ...] = ()
    expected: Measured


class Manifest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """All that a runtime needs to know; the contract between export and runtime.

    Attributes:
        format: version of this contract.
        name: what results call the bundle.
        task: what is asked of the sensors.
        classes: K names of classes, labels or targets, in the order of the graphs' outputs.
        scales: of regression, per target: what turns an output into a value in its unit.
        modalities: M sensors, in the order of every table.
        width: d, the latent's width.
        branches: one per modality, same order.
        head: the fusion head.
        tables: per fusion rule, one entry per alive subset, by ascending mask.
        coverage: the rate that prediction sets or intervals promise.
        conflict: disagreement (`robult_edge.fusion.CONFLICTS`) beyond which branches contradict one
            another.
        golden: ``.npz`` of inputs with their logits, to prove an engine right without torch.
        usual: ``.npz`` of what training windows look like (`robult_edge.plausibility`); None in
            older bundles, and where no modality's windows have looks.
        provenance: data set, split, seeds, versions, commit; modalities to be served in phase.
    """

    format: int
    name: str
    task: Task
    classes: tuple[str, ...]
    scales: tuple[Scale, ...] = ()
    modalities: tuple[ModalitySpec, ...]
    width: int
    branches: tuple[Branch, ...]
    head: Head
    tables: dict[Rule, tuple[SubsetEntry, ...]]
    coverage: float
    conflict: float
    golden: FileRef
    usual: FileRef | None = None
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        names = tuple(m.name for m in self.modalities)
        if tuple(b.modality for b in self.branches) != names:
            raise BundleError(f"branches {[b.modality for b in self.branches]} are not {names}")
        if not 0 < len(names) <= subsets.MAX_MODALITIES:
            raise BundleError(f"{len(names)} modalities; 1 to {subsets.MAX_MODALITIES} are served")
        if len(self.scales) != (len(self.classes) if self.task == "regression" else 0):
            raise BundleError(f"{len(self.scales)} scales for {self.task} of {self.classes}")
        for rule in RULES:
            table = self.tables.get(rule, ())
            want = [subsets.name(mask, names) for mask in subsets.all_subsets(len(names))]
            if ["+".join(entry.alive) for entry in table] != want:
                raise BundleError(f"tables.{rule} must hold the subsets {', '.join(want)}")
            if any(len(entry.weights) != len(names) for entry in table):
                raise BundleError(f"tables.{rule}: weights must be one number per modality")
            if any(len(entry.half_widths) != len(self.scales) for entry in table):
                raise BundleError(f"tables.{rule}: half_widths must be one number per target")
            for field in MEASURES[self.task]:
                if any(getattr(entry.expected, field) in (None, ()) for entry in table):
                    raise BundleError(f"tables.{rule}: expected must hold {field} for {self.task}")

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return tuple(m.name for m in self.modalities)

    @property
    def hop_ns(self) -> int:
        """Time between two ticks, ns."""
        return common_hop_ns(self.modalities)

    def entry(self, rule: Rule, mask: int) -> SubsetEntry:
        """The table row of the alive subset ``mask``."""
        return self.tables[rule][mask - 1]


class Bundle(msgspec.Struct, frozen=True):
    """A bundle on disk whose graphs and golden vectors have been checked.

    Attributes:
        path: where it lies.
        manifest: of it.
        cache: where engines may lie too; see `runtime.enginecache`.
    """

    path: Path
    manifest: Manifest
    cache: Path | None = None

    def plan(self, engine: Engine) -> bytes:
        """A serialised engine.

        Raises:
            BundleError: it is missing, or not what the manifest names.
        """
        mend = "build it again with python -m export.tensorrt"
        if self.cache is not None:
            with suppress(BundleError):
                return _content(self.cache, engine.plan, mend)
        return _content(self.path, engine.plan, mend)

    def flaw(self, engine: Engine) -> str | None:
        """Why a serialised engine cannot be used; None if it is whole."""
        try:
            self.plan(engine)
        except BundleError as error:
            return str(error)
        return None

    def file(self, ref: FileRef) -> Path:
        """Where a file of the bundle lies."""
        return self.path / ref.file

    def golden(self) -> dict[str, np.ndarray]:
        """Golden vectors: a few inputs with what the exported graphs must answer.

        Per modality ``x.NAME`` [B, *window_shape], ``logits.NAME`` [B, K], ``h.NAME`` [B, d];
        and ``head`` [2^M − 1, B, K], the head's logits over every alive subset by ascending mask.
        """
        with np.load(self.file(self.manifest.golden), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def usual(self) -> dict[str, Usual]:
        """What training windows looked like, by modality; missing are those that it is unknown of.

        Raises:
            BundleError: it does not fit the modalities.
        """
        if self.manifest.usual is None:
            return {}
        file = self.file(self.manifest.usual)
        channels = {m.name: len(m.channels) for m in self.manifest.modalities}
        with np.load(file, allow_pickle=False) as arrays:
            try:
                usual = plausibility.from_arrays({key: arrays[key] for key in arrays.files})
            except KeyError as error:
                raise BundleError(f"{file}: lacks {error}; export the bundle again") from None
        for name, of in usual.items():
            if of.scale.shape != (2, channels.get(name)):
                raise BundleError(f"{file}: {name} does not fit {channels}; export it again")
        return usual


def find(directory: str | Path) -> Path:
    """The bundle directory meant by ``directory``: itself, or its ``engines/``.

    Raises:
        BundleError: neither holds a manifest.
    """
    here = Path(directory)
    for path in (here, here / "engines"):
        if (path / MANIFEST).is_file():
            return path
    raise BundleError(
        f"{here}: no {MANIFEST} there or in {here / 'engines'}; "
        "make a bundle with: python -m export RUN --out DIR"
    )


def load(directory: str | Path, public_key: str | Path | None = None) -> Bundle:
    """Read and check a bundle.

    Args:
        directory: of the bundle, or the parent of its ``engines/``.
        public_key: file of the Ed25519 key that must have signed it; None: unsigned will do.

    Raises:
        BundleError: in one sentence, what is wrong with which file and how to mend it.
    """
    path = find(directory)
    where = path / MANIFEST
    raw = where.read_bytes()
    if public_key is not None:
        signature.verify(path, raw, Path(public_key))
    try:
        version = msgspec.json.decode(raw, type=dict).get("format")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{where}: not JSON ({error}); export the bundle again") from None
    if version != FORMAT:
        raise BundleError(
            f"{where}: format is {version!r}, this version reads {FORMAT}; "
            "upgrade robult-edge or export the bundle again"
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
        _ = manifest.hop_ns
    except (msgspec.ValidationError, SpecError) as error:
        raise BundleError(f"{where}: {error}; export the bundle again") from None
    for ref in files(manifest):
        if Path(ref.file).name != ref.file:
            raise BundleError(f"{where}: file {ref.file!r} lies outside the bundle")
    for ref in vital_files(manifest):
        _content(path, ref, "copy the whole bundle again")
    return Bundle(path, manifest)


def files(manifest: Manifest) -> tuple[FileRef, ...]:
    """Every file that the manifest names."""
    return (*vital_files(manifest), *(engine.plan for engine in engines(manifest)))


def engines(manifest: Manifest) -> tuple[Engine, ...]:
    """Every engine of every graph."""
    graphs: tuple[Branch | Head, ...] = (*manifest.branches, manifest.head)
    return tuple(engine for graph in graphs for engine in graph.engines)


def vital_files(manifest: Manifest) -> tuple[FileRef, ...]:
    """Those without which the bundle is none: graphs, golden vectors, what windows look like."""
    branches = (branch.onnx for branch in manifest.branches)
    usual = () if manifest.usual is None else (manifest.usual,)
    return (*branches, manifest.head.onnx, manifest.golden, *usual)


def _content(path: Path, ref: FileRef, mend: str) -> bytes:
    """What a file holds, if that is what the manifest says.

    Raises:
        BundleError: it is not.
    """
    file = path / ref.file
    try:
        content = file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        raise BundleError(f"{file}: missing; {mend}") from None
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror}); {mend}") from None
    got = hashlib.sha256(content).hexdigest()
    if got != ref.sha256:
        raise BundleError(
            f"{file}: sha256 is {got[:12]}…, the manifest says {ref.sha256[:12]}…; {mend}"
        )
    return content


def sha256(file: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def reference(file: Path) -> FileRef:
    """A reference to ``file`` as it lies in its bundle now."""
    return FileRef(file=file.name, sha256=sha256(file))


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the manifest, last and atomically: readers see the old one or the new one."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    replace(path / MANIFEST, text + b"\n")


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> FileRef:
    """Write a compressed ``.npz`` and refer to it."""
    with file.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **dict(arrays))
    return reference(file)


def write_bytes(file: Path, content: bytes) -> FileRef:
    """Write a file in one step, replacing what was there, and refer to it."""
    replace(file, content)
    return reference(file)


def replace(file: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new."""
    beside = file.with_suffix(".new")
    with beside.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)
