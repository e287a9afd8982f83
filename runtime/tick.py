"""One decision: what the branches said in, one result out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from robult_edge import fusion, subsets
from robult_edge.bundle import Manifest, SubsetEntry
from robult_edge.fusion import Rule
from robult_edge.results import (
    VERSION,
    Decision,
    Expected,
    LatencyUs,
    ModalityAnswer,
    Result,
)
from runtime.clock import Clock
from runtime.policy import Policy
from runtime.rigs import Rig, Tick


@dataclass(frozen=True)
class SubsetRule:
    """A table row, ready to compute with.

    Attributes:
        uses: [M] bool, the modalities that the answer is computed from.
        weights: [M + 1] float32, the last for the fusion head.
        threshold: least probability to stay in the prediction set.
        expected: what results carry.
        refusal: why the policy has no decision made of this subset; None when it has.
    """

    uses: np.ndarray
    weights: np.ndarray
    threshold: float
    expected: Expected
    refusal: str | None


@dataclass(frozen=True)
class Answer:
    """What late fusion says of one tick.

    Attributes:
        branches: [M, K], each branch's own distribution.
        weights: [M + 1], the branches' and the head's.
    """

    label: str | None
    probabilities: dict[str, float]
    prediction_set: list[str]
    conflict: bool
    branches: np.ndarray
    weights: np.ndarray


ANYTHING = Policy()
NOTHING = Answer(None, {}, [], False, np.zeros((0, 0)), np.zeros(0))


class Decider:
    """Turns ticks into results by one fusion rule of a bundle, as the deployment's policy allows.

    Args:
        manifest: of the bundle.
        rule: ``pool``, or ``mean`` where the fusion head cannot run.
        policy: of the deployment.
    """

    def __init__(self, manifest: Manifest, rule: Rule, policy: Policy = ANYTHING) -> None:
        self.rule = rule
        self.names = manifest.names
        self._policy = policy
        self._manifest = manifest
        best = manifest.tables[rule][-1].expected.accuracy
        self._rules = [
            _subset_rule(entry, self.names, best, policy) for entry in manifest.tables[rule]
        ]
        self._temperatures = np.array(
            [[b.temperature] for b in manifest.branches] + [[manifest.head.temperature]],
            np.float32,
        )

    def head_wants(self, mask: int) -> np.ndarray | None:
        """Which modalities [M] bool the fusion head is to look at; None when it has no say."""
        if not mask or self.rule == "mean":
            return None
        rule = self._rules[mask - 1]
        return rule.uses if rule.weights[-1] > 0 else None

    def probabilities(
        self, mask: int, logits: np.ndarray, head: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The fused distribution, and each branch's own.

        Args:
            mask: the alive subset.
            logits: [M, K] of the branches; rows outside ``mask`` are ignored.
            head: [K] logits of the fusion head over what `head_wants`, if it wants any.

        Returns:
            [K] and [M, K].
        """
        y = np.zeros((len(self.names) + 1, logits.shape[1]), np.float32)
        y[:-1] = logits
        if head is not None:
            y[-1] = head
        y /= self._temperatures
        return fusion.fuse(self.rule, y, self._rules[mask - 1].weights), fusion.softmax(y[:-1])

    def decide(self, rig: Rig, head: np.ndarray | None, clock: Clock) -> Result:
        """The result of ``rig``'s tick.

        Args:
            rig: whose tick it is.
            head: [K] logits of the fusion head over what `head_wants`, if it wants any.
            clock: the server's.
        """
        tick, begun_ns = rig.tick, clock.now_ns()
        answer = self._answer(tick, head) if tick.mask else NOTHING
        modalities = {
            name: self._part(i, rig, answer, begun_ns) for i, name in enumerate(self.names)
        }
        decision, reason = _verdict(modalities, self._policy.optional)
        abstains = self._abstains(tick, answer, begun_ns) if tick.mask else None
        if abstains is not None:
            answer, decision, reason = NOTHING, "none", f"no decision: {abstains}; {reason}"
        return Result(
            version=VERSION,
            source=rig.source,
            seq=rig.seq,
            t_ns=tick.end_ns,
            label=answer.label,
            probabilities=answer.probabilities,
            prediction_set=answer.prediction_set,
            alive=[self.names[i] for i in subsets.members(tick.mask)],
            modalities=modalities,
            expected=self._rules[tick.mask - 1].expected if tick.mask else None,
            conflict=answer.conflict,
            decision=decision,
            reason=reason,
            latency_us=_latency(tick, begun_ns, clock),
            bundle=self._manifest.name,
        )

    def _abstains(self, tick: Tick, answer: Answer, now_ns: int) -> str | None:
        """Why the policy has this answer not given; None when it is."""
        if refusal := self._rules[tick.mask - 1].refusal:
            return refusal
        age_ms, oldest_ms = (now_ns - tick.end_ns) / 1e6, self._policy.max_age_ms
        if oldest_ms is not None and age_ms > oldest_ms:
            return f"windows ended {age_ms:.0f} ms ago, more than {oldest_ms:g}"
        held, most = len(answer.prediction_set), self._policy.abstain_above_set_size
        if most is not None and held > most:
            return f"{held} classes cannot be ruled out, more than {most}"
        return None

    def _answer(self, tick: Tick, head: np.ndarray | None) -> Answer:
        classes, rule = self._manifest.classes, self._rules[tick.mask - 1]
        fused, branches = self.probabilities(tick.mask, tick.logits, head)
        alive = list(subsets.members(tick.mask))
        p = fused.tolist()
        top = max(p)
        bar = min(rule.threshold, top)
        return Answer(
            label=classes[p.index(top)],
            probabilities={c: round(v, 6) for c, v in zip(classes, p, strict=True)},
            prediction_set=[c for c, v in zip(classes, p, strict=True) if v >= bar],
            conflict=self._in_conflict(branches[alive]),
            branches=branches,
            weights=rule.weights,
        )

    def _in_conflict(self, branches: np.ndarray) -> bool:
        """Whether distributions [B, K] contradict one another: branches of one mind do not."""
        said = branches.argmax(1).tolist()
        if said.count(said[0]) == len(said):
            return False
        return float(fusion.conflict(branches)) > self._manifest.conflict

    def _part(self, i: int, rig: Rig, answer: Answer, now_ns: int) -> ModalityAnswer:
        """Modality ``i``'s part in the result."""
        live = rig.streams[i].liveness
        age_ms = round((now_ns - live.fresh_ns) / 1e6, 1) if live.fresh_ns else None
        if not rig.tick.mask >> i & 1:
            reason = rig.left_out if live.alive else live.reason
            return ModalityAnswer(live.state, reason, age_ms)
        p = answer.branches[i].tolist()
        top = max(p)
        return ModalityAnswer(
            state=live.state,
            reason=live.reason,
            age_ms=age_ms,
            t_ns=rig.tick.ends_ns[i],
            weight=round(float(answer.weights[i]), 4),
            label=self._manifest.classes[p.index(top)],
            probability=round(top, 4),
        )


def _verdict(
    parts: Mapping[str, ModalityAnswer], optional: Collection[str]
) -> tuple[Decision, str]:
    missing = [(name, part) for name, part in parts.items() if part.label is None]
    if not missing:
        return "ok", "all modalities alive"
    reason = "; ".join(f"{name} {part.state}: {part.reason}" for name, part in missing)
    if len(missing) == len(parts):
        return "none", reason
    return "ok" if all(name in optional for name, _ in missing) else "degraded", reason


def _latency(tick: Tick, begun_ns: int, clock: Clock) -> LatencyUs:
    """Where the time of a tick went whose fusion began at ``begun_ns``; zeros if it has none."""
    if tick.opened_ns is None:
        return LatencyUs(wait=0, infer=0, fuse=0, total=0)
    now_ns, us = clock.now_ns(), 1000 * clock.speed
    return LatencyUs(
        wait=round((tick.newest_ns - tick.opened_ns) / us),
        infer=round(tick.infer_ns / us),
        fuse=round((now_ns - begun_ns) / us),
        total=round((now_ns - tick.newest_ns) / us),
    )


def _subset_rule(
    entry: SubsetEntry, names: tuple[str, ...], best: float, policy: Policy
) -> SubsetRule:
    return SubsetRule(
        uses=np.array([name in entry.uses for name in names]),
        weights=np.array([*entry.weights, entry.head_weight], np.float32),
        threshold=entry.threshold,
        expected=Expected(entry.expected.accuracy, best, entry.expected.coverage),
        refusal=policy.refusal(entry),
    )
