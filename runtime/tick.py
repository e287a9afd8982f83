"""One decision: what the branches said in, one result out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from robult_edge import fusion, native, subsets
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
from runtime.contradiction import LASTING_HOPS, WITNESSES
from runtime.policy import Policy
from runtime.readings import READINGS, Reading, Rows
from runtime.rigs import Rig, Tick


@dataclass(frozen=True)
class SubsetRule:
    """A table row, ready to compute with.

    Attributes:
        uses: [M] bool, the modalities that the answer is computed from.
        mask: the same as a mask.
        members: the modalities that are alive.
        weights: [M + 1] float32, the last for the fusion head.
        told: the same, as results tell them.
        entry: the row itself.
        expected: what results carry.
        refusal: why the policy has no decision made of this subset; None when it has.
    """

    uses: np.ndarray
    mask: int
    members: tuple[int, ...]
    weights: np.ndarray
    told: tuple[float, ...]
    entry: SubsetEntry
    expected: Expected
    refusal: str | None


class Answer(msgspec.Struct, frozen=True):  # made faster than a dataclass
    """What late fusion says of one tick.

    Attributes:
        reading: what it means, in the task's words.
        conflict: whether the branches contradict one another.
        branches: [M][K], each branch's own answer; no meaning in those that are not in.
        weights: [M + 1], the branches' and the head's, as results tell them.
    """

    reading: Reading
    conflict: bool
    branches: Rows
    weights: Sequence[float]


ANYTHING = Policy()


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
        self._link = fusion.LINKS[manifest.task]
        self._reads = READINGS[manifest.task](manifest)
        best = manifest.tables[rule][-1].expected
        self._rules = [
            SubsetRule(
                uses=np.array([name in entry.uses for name in self.names]),
                mask=sum(1 << i for i, name in enumerate(self.names) if name in entry.uses),
                members=tuple(subsets.members(subset)),
                weights=np.array([*entry.weights, entry.head_weight], np.float32),
                told=tuple(round(w, 4) for w in (*entry.weights, entry.head_weight)),
                entry=entry,
                expected=self._reads.expected(entry.expected, best),
                refusal=policy.refusal(entry),
            )
            for subset, entry in enumerate(manifest.tables[rule], start=1)
        ]
        self._nothing = Answer(self._reads.nothing, False, (), ())
        self._temperatures = np.array(
            [*(b.temperature for b in manifest.branches), manifest.head.temperature], np.float32
        )
        self._of_classes = manifest.task == "classification"

    def head_wants(self, mask: int) -> np.ndarray | None:
        """Which modalities [M] bool the fusion head is to look at; None when it has no say."""
        if not mask or self.rule == "mean":
            return None
        rule = self._rules[mask - 1]
        return rule.uses if rule.weights[-1] > 0 else None

    def probabilities(
        self, mask: int, logits: np.ndarray, head: np.ndarray | None
    ) -> tuple[Sequence[float], Rows]:
        """The fused probabilities (or standardised values), and each branch's own.

        Args:
            mask: the alive subset.
            logits: [M, K] of the branches; rows outside ``mask`` are ignored.
            head: [K] logits of the fusion head over what `head_wants`, if it wants any.

        Returns:
            [K] and [M][K], whose rows outside ``mask`` have no meaning.
        """
        rule = self._rules[mask - 1]
        if self._of_classes:
            said = native.fuse(
                self.rule == "mean", mask, rule.mask, rule.weights, self._temperatures, logits, head
            )
            if said is not None:
                return said
        y = np.zeros((len(self.names) + 1, logits.shape[1]), np.float32)
        y[:-1] = logits
        if head is not None:
            y[-1] = head
        y /= self._temperatures[:, None]
        fused = fusion.fuse(self.rule, y, rule.weights, self._link)
        return fused.tolist(), self._link(y[:-1]).tolist()

    def decide(self, rig: Rig, head: np.ndarray | None, clock: Clock) -> Result:
        """The result of ``rig``'s tick.

        Args:
            rig: whose tick it is.
            head: [K] logits of the fusion head over what `head_wants`, if it wants any.
            clock: the server's.
        """
        tick, begun_ns = rig.tick, clock.now_ns()
        answer = self._answer(tick, head) if tick.mask else self._nothing
        modalities = {
            name: self._part(i, rig, answer, begun_ns) for i, name in enumerate(self.names)
        }
        decision, reason = _verdict(modalities, self._policy.optional)
        self._name_the_odd_one(rig, answer)
        abstains = self._abstains(tick, answer, begun_ns) if tick.mask else None
        if abstains is not None:
            answer, decision, reason = self._nothing, "none", f"no decision: {abstains}; {reason}"
        return Result(
            version=VERSION,
            source=rig.source,
            seq=rig.seq,
            t_ns=tick.end_ns,
            label=answer.reading.label,
            probabilities=answer.reading.probabilities,
            prediction_set=answer.reading.prediction_set,
            alive=[self.names[i] for i in self._members(tick)],
            modalities=modalities,
            expected=self._rules[tick.mask - 1].expected if tick.mask else None,
            conflict=answer.conflict,
            decision=decision,
            reason=reason,
            latency_us=_latency(tick, begun_ns, clock),
            bundle=self._manifest.name,
            labels=answer.reading.labels,
            certain=answer.reading.certain,
            estimates=answer.reading.estimates,
        )

    def _members(self, tick: Tick) -> tuple[int, ...]:
        """The modalities that are in."""
        return self._rules[tick.mask - 1].members if tick.mask else ()

    def _abstains(self, tick: Tick, answer: Answer, now_ns: int) -> str | None:
        """Why the policy has this answer not given; None when it is."""
        if refusal := self._rules[tick.mask - 1].refusal:
            return refusal
        age_ms, oldest_ms = (now_ns - tick.end_ns) / 1e6, self._policy.max_age_ms
        if oldest_ms is not None and age_ms > oldest_ms:
            return f"windows ended {age_ms:.0f} ms ago, more than {oldest_ms:g}"
        held, most = len(answer.reading.prediction_set), self._policy.abstain_above_set_size
        if most is not None and held > most:
            return f"{held} classes cannot be ruled out, more than {most}"
        return None

    def _answer(self, tick: Tick, head: np.ndarray | None) -> Answer:
        rule = self._rules[tick.mask - 1]
        fused, branches = tick.fused or self.probabilities(tick.mask, tick.logits, head)
        return Answer(
            reading=self._reads.answer(fused, rule.entry),
            conflict=self._reads.conflict([branches[i] for i in rule.members]),
            branches=branches,
            weights=rule.told,
        )

    def _name_the_odd_one(self, rig: Rig, answer: Answer) -> None:
        """Take a sensor out, from the next tick on, that the others contradict hop after hop."""
        alive = self._members(rig.tick)
        if len(alive) <= WITNESSES or not self._of_classes:
            return
        odd = rig.contradiction.observe(answer.branches, alive, self._manifest.conflict)
        if odd is not None:
            others = ", ".join(self.names[i] for i in alive if i != odd)
            rig.streams[odd].distrust(f"contradicts {others} for {LASTING_HOPS} hops")

    def _part(self, i: int, rig: Rig, answer: Answer, now_ns: int) -> ModalityAnswer:
        """Modality ``i``'s part in the result."""
        live = rig.streams[i].liveness
        age_ms = round((now_ns - live.fresh_ns) / 1e6, 1) if live.fresh_ns else None
        if not rig.tick.mask >> i & 1:
            doubt = rig.tick.doubts.get(i, rig.left_out)
            reason = doubt if live.alive else live.reason
            return ModalityAnswer(live.state, reason, age_ms)
        return ModalityAnswer(
            state=live.state,
            reason=live.reason,
            age_ms=age_ms,
            t_ns=rig.tick.ends_ns[i],
            weight=answer.weights[i],
            **self._reads.branch(answer.branches[i]),
        )


def _verdict(
    parts: Mapping[str, ModalityAnswer], optional: Collection[str]
) -> tuple[Decision, str]:
    missing = [(name, part) for name, part in parts.items() if part.t_ns is None]
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
