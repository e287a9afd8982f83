"""What a deployment demands of its answers, as one TOML; whatever it leaves out has its default.

::

    mode = "tick"                   # or "latest": every new window gives a result
    required = ["acc"]              # without it no decision
    optional = ["gyro"]             # without it the decision is still "ok"
    minimum_alive = 1               # sensors that an answer must rest on
    abstain_below_accuracy = 0.7    # expected of the alive subset
    abstain_above_set_size = 3      # classes that cannot be ruled out
    max_age_ms = 1000               # of the windows that an answer rests on
    deadline_ms = 50                # how long a tick waits after its first window
    idle_s = 600                    # a source this long without a frame is forgotten
    max_sources = 1024              # rigs served at once
    max_memory_mb = 1024            # of all sensors' samples together
    curve_keys = "keys/runtime"     # who may connect; see docs/SECURITY.md
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Literal

import msgspec

from robult_edge import subsets
from robult_edge.bundle import Manifest, SubsetEntry
from robult_edge.errors import PolicyError
from robult_edge.fusion import Rule

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

Mode = Literal["tick", "latest"]


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A deployment's demands.

    Attributes:
        mode: ``tick``: one result per hop, of windows that end together; ``latest``: one per new
            window, beside the other sensors' newest.
        required: modalities without which there is no decision.
        optional: modalities that may be out while the decision is still ``ok``.
        minimum_alive: modalities that an answer must rest on.
        abstain_below_accuracy: least expected accuracy of an alive subset that may answer.
        abstain_above_set_size: most classes that a prediction set may hold; None: any.
        max_age_ms: oldest window that an answer may rest on; None: any, in mode ``latest`` two
            hops.
        deadline_ms: how long a tick waits after its first window; None: a quarter of the hop, at
            most 50 ms.
        idle_s: how long a source may send nothing before it is forgotten.
        max_sources: rigs served at once.
        max_memory_mb: of all sensors' samples together; lowers ``max_sources`` where that is less.
        curve_keys: the runtime's key folder, seen from the TOML's; None: anybody may connect.
    """

    mode: Mode = "tick"
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    minimum_alive: int = 1
    abstain_below_accuracy: float = 0.0
    abstain_above_set_size: int | None = None
    max_age_ms: float | None = None
    deadline_ms: float | None = None
    idle_s: float = 600.0
    max_sources: int = 1024
    max_memory_mb: float = 1024.0
    curve_keys: str | None = None

    def __post_init__(self) -> None:
        for field, least in _LEAST.items():
            value = getattr(self, field)
            if value is not None and not least <= value < inf:
                raise PolicyError(f"{field} is {value!r}; it must be a number from {least} on")
        if both := set(self.required) & set(self.optional):
            raise PolicyError(f"{', '.join(sorted(both))} cannot be both required and optional")

    def check(self, manifest: Manifest, rule: Rule) -> None:
        """Whether a bundle can keep to it by this fusion rule.

        Raises:
            PolicyError: it names a modality that the bundle lacks, or no subset may answer.
        """
        for field in ("required", "optional"):
            for name in getattr(self, field):
                if name not in manifest.names:
                    raise PolicyError(f"{field}: {_unknown('modality', name, manifest.names)}")
        if self.minimum_alive > len(manifest.names):
            raise PolicyError(
                f"minimum_alive is {self.minimum_alive}; {manifest.name} has "
                f"{len(manifest.names)} modalities"
            )
        full = manifest.entry(rule, subsets.full(len(manifest.names)))
        if why := self.refusal(full):
            raise PolicyError(f"nothing could ever be decided: {why} with every sensor alive")

    def refusal(self, entry: SubsetEntry) -> str | None:
        """Why there is no decision while exactly this subset is alive; None when there may be."""
        if missing := [name for name in self.required if name not in entry.alive]:
            return f"required {', '.join(missing)} not in"
        if len(entry.alive) < self.minimum_alive:
            return f"{len(entry.alive)} alive, fewer than {self.minimum_alive}"
        accuracy = entry.expected.accuracy  # None where the task is not classification
        if accuracy is not None and accuracy < self.abstain_below_accuracy:
            return f"expected accuracy {accuracy:.2f} below {self.abstain_below_accuracy:g}"
        return None

    def timing(self, hop_ns: int, speed: float = 1.0) -> Timing:
        """Its times in ns of a clock that runs at ``speed``."""
        patience_ns = min(hop_ns // 4, int(50_000_000 * speed))
        if self.deadline_ms is not None:
            patience_ns = int(self.deadline_ms * 1e6)
        max_age_ns = 2 * hop_ns if self.max_age_ms is None else int(self.max_age_ms * 1e6)
        return Timing(patience_ns, max_age_ns, int(self.idle_s * 1e9))


@dataclass(frozen=True)
class Timing:
    """A policy's times, ns of the server's clock; see `Policy`."""

    patience_ns: int
    max_age_ns: int
    idle_ns: int


_LEAST = {
    "minimum_alive": 1, "abstain_below_accuracy": 0.0, "abstain_above_set_size": 1,
    "max_age_ms": 0.0, "deadline_ms": 0.0, "idle_s": 1.0, "max_sources": 1, "max_memory_mb": 1.0,
}  # fmt: skip


def load(path: str | Path) -> Policy:
    """Read a policy.

    Raises:
        PolicyError: in one sentence, what is wrong with which setting of the file.
    """
    try:
        raw = toml.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PolicyError(f"{path}: cannot be read as TOML ({error})") from None
    known = Policy.__struct_fields__
    for key in raw:
        if key not in known:
            raise PolicyError(f"{path}: {_unknown('setting', key, known)}")
    if isinstance(raw.get("curve_keys"), str):
        raw["curve_keys"] = str(Path(path).parent / raw["curve_keys"])
    try:
        return msgspec.convert(raw, Policy)
    except (msgspec.ValidationError, PolicyError) as error:
        raise PolicyError(f"{path}: {error}") from None


def _unknown(kind: str, name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name, known, n=1)
    mend = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"no {kind} {name!r}; {mend}"
