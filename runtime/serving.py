"""A bundle, made ready to serve: all that a reload replaces in one assignment."""

from __future__ import annotations

from dataclasses import dataclass

from robult_edge import subsets
from robult_edge.bundle import Bundle, Manifest
from robult_edge.fusion import Rule
from runtime.config import Config
from runtime.doubt import Doubt
from runtime.engines import Engines
from runtime.fused import Fused
from runtime.policy import Policy, Timing
from runtime.rigs import memory_bytes
from runtime.tick import Decider


@dataclass(frozen=True)
class Serving:
    """A loaded and proven bundle.

    Attributes:
        timing: the policy's times for it.
        max_sources: rigs that may be served, as far as their memory goes.
        deciders: by fusion rule; ``mean`` is for when the fusion head is out.
        fused: all of it in one go, where a GPU can.
        doubt: leaves strange windows out.
        subset_names: by mask, what metrics call it.
    """

    manifest: Manifest
    engines: Engines
    deciders: dict[Rule, Decider]
    fused: Fused
    doubt: Doubt
    subset_names: tuple[str, ...]
    timing: Timing
    max_sources: int

    @classmethod
    def prepare(cls, bundle: Bundle, config: Config) -> Serving:
        """Load and prove every engine.

        Raises:
            PolicyError: the bundle cannot keep to the policy.
            BundleError: a branch runs nowhere.
        """
        manifest, policy = bundle.manifest, config.policy
        policy.check(manifest, config.fusion)
        rules: tuple[Rule, Rule] = (config.fusion, "mean")
        masks = subsets.all_subsets(len(manifest.names))
        engines = Engines(bundle)
        deciders = {rule: Decider(manifest, rule, policy) for rule in rules}
        return cls(
            manifest,
            engines,
            deciders,
            Fused(bundle, engines, deciders[config.fusion], policy),
            Doubt(manifest, bundle.usual()),
            ("none", *(subsets.name(mask, manifest.names) for mask in masks)),
            policy.timing(manifest.hop_ns, config.speed),
            most_sources(manifest, policy),
        )

    def close(self) -> None:
        """Free every engine."""
        self.fused.close()
        self.engines.close()


def most_sources(manifest: Manifest, policy: Policy) -> int:
    """Rigs of a bundle that a policy lets be served at once; one in any case."""
    room = int(policy.max_memory_mb * 1e6) // memory_bytes(manifest)
    return max(1, min(policy.max_sources, room))
