"""Lying sensors: which lies are found, how soon, and what they cost.

``python -m benchmarks.faults [--quick] [--json PATH]``

Every held-out recording of `watch` is a rig of its own and plays on a virtual clock through the
runtime's rigs, the shipped engines and the decider. Six seconds in one sensor begins to lie, for
good. A lie counts as found when a result calls the sensor other than alive no more than two whole
hops later. Accuracy is that of all answers from the lie on: with the gate, without it, and with the
sensor silent from then on in place of lying. Honest recordings are played too: what leaving out
windows in doubt costs them. False alarms are counted on clean recordings, each judged by statistics
of the other subjects (runs, cycles) alone; so is the share of honest windows that are strange.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from export import usual
from robult_edge import bundle, data, faults, plausibility
from robult_edge.bundle import Bundle
from robult_edge.data import inject
from robult_edge.data.dataset import Dataset
from robult_edge.data.inject import Fault, Injector
from robult_edge.data.replay import Replay, replays
from robult_edge.errors import SpecError
from robult_edge.modality import ModalitySpec
from robult_edge.results import Result
from runtime.doubt import Doubt
from runtime.engines import Engines, Graph
from runtime.rigs import Rig, Rigs
from runtime.stream import Stream
from runtime.tick import Decider
from runtime.transport import Transport

ROOT = Path(__file__).parents[1]
LARGE = (
    "stuck", "nan", "nan(0.05)", "noise(1)", "noise(3)", "bias(3)", "bias(5)", "scale(0.1)",
    "scale(10)", "scale(57.3)", "spikes(5)", "spikes(10)", "saturate(5)", "saturate(20)", "frozen",
    "drift(0.86)", "drift(1.2)", "clockstep(-3)", "clockstep(3)", "gap(0.5)",
)  # fmt: skip
"""What must be found."""
SMALL = (
    "noise(0.3)", "noise(0.5)", "bias(0.5)", "bias(1)", "bias(2)", "scale(0.3)", "scale(0.5)",
    "scale(2)", "scale(3)", "spikes(2)", "spikes(3)", "saturate(2)", "drift(0.95)", "gap(0.1)",
    "skew", "duplicate", "reorder", "nan(0.01)",
)  # fmt: skip
"""What may pass for honest, or is made good on the way in: here only its price counts."""
QUICK = (
    "stuck", "noise(1)", "bias(3)", "scale(10)", "spikes(5)", "frozen", "drift(0.86)", "bias(1)",
)  # fmt: skip
BEGINS_S, LASTS_S = 6.0, 20.0
FRAMES_PER_HOP = 8
MOST_GROUPS = 40
"""Of a data set with many groups, no more are held out in turn."""
FEW_GROUPS = 10
"""And fewer where their windows' looks are learnt anew each time."""
DELAY_NS = 2_000_000
START_NS = 1_700_000_000_000_000_000


@dataclass
class Hand:
    """A clock that is turned by hand."""

    now: int = START_NS
    speed: float = 1.0

    def now_ns(self) -> int:
        return self.now


@dataclass(frozen=True)
class Outcome:
    """What a lie led to: share found in time, median hops until found, accuracy from then on."""

    found: float
    hops: float
    accuracy: float


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    watch = data.load("watch")
    plays = list(replays(watch, rigs=len(watch.recordings)))[:: 3 if args.quick else 1]
    stage = Stage(bundle.load(ROOT / "export"), plays)
    table = Table(title=f"{len(plays)} held-out recordings", title_justify="left")
    for column in ("lie", "found", "hops", "with gate", "without", "left out", "loss"):
        table.add_column(column, justify="left" if column == "lie" else "right")
    lies = QUICK if args.quick else LARGE + SMALL
    figures = tell(stage, lies, table)
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table)
    figures |= honest(stage)
    for dataset in clean_sets(watch, args.quick):
        alarms, hours = false_alarms(dataset)
        figures[f"false_alarms_per_sensor_hour_{dataset.name}"] = len(alarms) / hours
        told = "".join(f"\n  {alarm}" for alarm in alarms[:5])
        console.print(f"{dataset.name}: {len(alarms)} false alarms in {hours:.1f} h{told}")
        if not args.quick:
            figures[f"strange_share_{dataset.name}"] = share = strange_share(dataset)
            console.print(f"{dataset.name}: {share:.1%} of honest windows of new groups strange")
    figures |= headlines(figures, stage.names, lies)
    for name in HEADLINES:
        console.print(f"{name}: {figures[name]:.3f}")
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def tell(stage: Stage, lies: Sequence[str], table: Table) -> dict[str, float]:
    """Let every sensor tell every lie: one row each, and its figures."""
    figures: dict[str, float] = {}
    left_out = {name: stage.play(fault(name, "dead")).accuracy for name in stage.names}
    for lie in track(lies, "lies"):
        for name in stage.names:
            gated = stage.play(fault(name, lie))
            with gate_out():
                bare = stage.play(fault(name, lie))
            loss = 100 * (left_out[name] - gated.accuracy)
            table.add_row(
                f"{name}:{lie}" + ("" if lie in LARGE else " (small)"),
                f"{gated.found:.0%}", f"{gated.hops:.1f}", f"{gated.accuracy:.3f}",
                f"{bare.accuracy:.3f}", f"{left_out[name]:.3f}", f"{loss:+.1f}",
            )  # fmt: skip
            figures[f"found_share_{name}_{lie}"] = gated.found
            figures[f"accuracy_loss_points_{name}_{lie}"] = loss
    return figures


def honest(stage: Stage) -> dict[str, float]:
    """What the gate costs where nobody lies."""
    gated, doubted = stage.honest()
    with gate_out():
        bare, _ = stage.honest()
    return {"honest_loss_points": 100 * (bare - gated), "honest_doubt_share": doubted}


HEADLINES = (
    "honest_loss_points", "honest_doubt_share",
    "found_share", "accuracy_loss_points", "accuracy_loss_points_mean",
    "accuracy_loss_points_small", "accuracy_loss_points_small_mean", "false_alarms_per_sensor_hour",
)  # fmt: skip


def headlines(
    figures: Mapping[str, float], names: Sequence[str], lies: Sequence[str]
) -> dict[str, float]:
    """Found on average, the worst and the mean loss of accuracy, false alarms on `watch`."""

    def each(figure: str, chosen: Sequence[str]) -> list[float]:
        told = [lie for lie in lies if lie in chosen]
        return [figures[f"{figure}_{name}_{lie}"] for name in names for lie in told]

    costs, small = (each("accuracy_loss_points", chosen) for chosen in (LARGE, SMALL))
    values = (
        figures["honest_loss_points"], figures["honest_doubt_share"],
        fmean(each("found_share", LARGE)), max(costs), fmean(costs), max(small), fmean(small),
        figures["false_alarms_per_sensor_hour_watch"],
    )  # fmt: skip
    return dict(zip(HEADLINES, values, strict=True))


def clean_sets(watch: Dataset, quick: bool) -> list[Dataset]:
    """What to look for false alarms in: `watch`, and the data sets that $ROBULT_DATA holds."""
    os.environ.setdefault("ROBULT_DATA", str(ROOT.parent / "shared" / "data"))
    found = [watch]
    for toml in () if quick else sorted((ROOT / "examples" / "datasets").glob("*.toml")):
        with suppress(SpecError):
            found.append(data.load(str(toml)))
    return found


def fault(modality: str, lie: str) -> Fault:
    """The lie as it is told here; not on a hop's edge."""
    (parsed,) = inject.parse(f"{modality}:{lie}@{BEGINS_S}-", [modality])
    return parsed


def gate_out() -> ExitStack:
    """Without the gate: whatever comes is believed."""
    out = ExitStack()
    for where, what in (
        (faults, "check"),
        (faults, "check_level"),
        (faults, "check_run"),
        (Transport, "observe"),
        (Doubt, "leave_out"),
    ):
        out.enter_context(patch.object(where, what, lambda *_: None))
    return out


class Stage:
    """The runtime without sockets: the bundle's engines and the recordings to play to them."""

    def __init__(self, served: Bundle, plays: list[Replay]) -> None:
        self.plays = plays
        self.names = served.manifest.names
        self._manifest = served.manifest
        self._engines = Engines(served)
        self._decider = Decider(served.manifest, "pool")
        self._doubt = Doubt(served.manifest, served.usual())

    def play(self, lie: Fault) -> Outcome:
        """Every recording with that lie in it."""
        found, hops, right = [], [], []
        for replay, answers in self._answers(lie):
            begun_ns = START_NS + round(lie.start_s * 1e9)
            hop_ns = self._manifest.hop_ns
            end_ns = START_NS + replay.hops * hop_ns
            told = [a for a in answers if begun_ns < a.t_ns <= end_ns]
            whole_from = begun_ns + -begun_ns % hop_ns
            seen = [a.t_ns for a in told if a.modalities[lie.modality].state != "alive"]
            found.append(bool(seen) and seen[0] <= whole_from + 2 * hop_ns)
            hops.append((seen[0] - begun_ns) / hop_ns if seen else np.inf)
            truth = self._manifest.classes[replay.labels[0]]
            right += [a.label == truth for a in told]
        return Outcome(float(np.mean(found)), float(np.median(hops)), float(np.mean(right)))

    def honest(self) -> tuple[float, float]:
        """Every recording as it is: accuracy, and share of the answers that leave a doubt out."""
        right, doubted = [], []
        for replay, answers in self._answers():
            end_ns = START_NS + replay.hops * self._manifest.hop_ns
            told = [a for a in answers if START_NS + BEGINS_S * 1e9 < a.t_ns <= end_ns]
            truth = self._manifest.classes[replay.labels[0]]
            right += [a.label == truth for a in told]
            doubted += [any("in doubt" in p.reason for p in a.modalities.values()) for a in told]
        return float(np.mean(right)), float(np.mean(doubted))

    def _answers(self, *lies: Fault) -> Iterator[tuple[Replay, list[Result]]]:
        clock = Hand()
        rigs = Rigs(self._manifest, len(self.plays))
        answers: dict[str, list[Result]] = {replay.source: [] for replay in self.plays}
        senders = [
            (replay, m, Injector(lies, m))
            for replay in self.plays
            for m in self._manifest.modalities
        ]
        hop_ns = self._manifest.hop_ns
        for step in range(round((BEGINS_S + LASTS_S) * 1e9 / hop_ns) * FRAMES_PER_HOP):
            clock.now = START_NS + (step + 1) * hop_ns // FRAMES_PER_HOP + DELAY_NS
            for replay, m, sender in senders:
                n = m.hop // FRAMES_PER_HOP
                if (step + 1) * n > len(replay.samples[m.name]):
                    continue
                samples = replay.stretch(m.name, step * n, step * n + n - 1)
                t_ns = replay.captured_ns(m.name, step * n, START_NS)
                for frame in sender.sent(replay.source, samples, t_ns, (t_ns - START_NS) / 1e9):
                    rigs.place(frame, clock.now)
            self._answer(rigs, clock, answers)
        return iter([(replay, answers[replay.source]) for replay in self.plays])

    def _answer(self, rigs: Rigs, clock: Hand, answers: dict[str, list[Result]]) -> None:
        """As `runtime.server.Server` does it: run what is complete, answer what is due."""
        waiting = list(rigs.rigs.values())
        while waiting:
            batches: dict[int, list[tuple[Rig, np.ndarray]]] = {}
            for rig in waiting:
                for i, window in rig.windows(clock.now, 0):
                    batches.setdefault(i, []).append((rig, window))
            for i, batch in batches.items():
                windows = np.stack([window for _, window in batch])
                logits, h = run(self._engines.branches[i], windows)
                for b, (rig, _) in enumerate(batch):
                    rig.tick.windows[i] = windows[b]
                    rig.tick.logits[i], rig.tick.h[i] = logits[b], h[b]
                    rig.tick.mask |= 1 << i
            waiting = [rig for rig in waiting if rig.is_due(clock.now)]
            for rig in waiting:
                for stream in rig.streams:
                    stream.liveness.silence(clock.now)
                self._doubt.leave_out(rig)
                wants = self._decider.head_wants(rig.tick.mask)
                head = (
                    run(self._engines.head, rig.tick.h[None], wants[None])[0][0]
                    if wants is not None
                    else None
                )
                answers[rig.source].append(self._decider.decide(rig, head, clock))
                rig.next_tick(clock.now)


def run(graph: Graph, *given: np.ndarray) -> tuple[np.ndarray, ...]:
    """Its outputs."""
    assert graph.backend is not None
    return graph.backend.run(*given)


def false_alarms(dataset: Dataset) -> tuple[list[str], float]:
    """Alarms on clean recordings by statistics of the other groups, and the sensor-hours heard."""
    alarms: list[str] = []
    seconds = 0.0
    groups = list(dict.fromkeys(r.group for r in dataset.recordings))
    for group in track(groups[:: -(-len(groups) // MOST_GROUPS)], f"clean {dataset.name}"):
        held_out = [r for r in dataset.recordings if r.group == group]
        for m in dataset.holding_out((group,)).modalities:
            for recording in held_out:
                samples = recording.samples[m.name]
                alarms += [f"{recording.name} {m.name}: {why}" for why in _alarms(samples, m)]
                seconds += len(samples) / m.rate_hz
    return alarms, seconds / 3600


def strange_share(dataset: Dataset) -> float:
    """Share of strange windows by what the windows of other groups look like; NaN of none."""
    strange: list[np.ndarray] = []
    groups = list(dict.fromkeys(dataset.groups.tolist()))
    for group in track(groups[:: -(-len(groups) // FEW_GROUPS)], f"looks of {dataset.name}"):
        held = dataset.holding_out((group,))
        for name, known in usual.fit(held, held.modalities).items():
            looks = plausibility.looks(held.windows[name][held.test], known.scale)
            strange.append(known.strangeness(looks) >= 1)
    return float(np.mean(np.concatenate(strange))) if strange else np.nan


def _alarms(samples: np.ndarray, m: ModalitySpec) -> list[str]:
    """Reasons for which a sensor that plays ``samples`` stops being alive."""
    stream, lying = Stream(m, faults.limits(m)), Injector([], m)
    states = []
    for end in range(m.hop, len(samples) + 1, m.hop):
        t_ns = START_NS + round((end - m.hop) * 1e9 / m.rate_hz)
        (frame,) = lying.sent("rig", samples[end - m.hop : end], t_ns, 0.0)
        stream.place(frame, t_ns + round(m.hop_s * 1e9))
        stream.clean_window(stream.ring.newest)
        states.append((stream.liveness.state, stream.liveness.reason))
    return [after[1] for before, after in pairwise(states) if after[0] == "faulty" != before[0]]


if __name__ == "__main__":
    sys.exit(main())
