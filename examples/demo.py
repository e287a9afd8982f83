"""``make demo``: train, export, serve, lose a sensor and carry on. All of it real, in one command.

Trains Robult on `watch` from 5 % of the labels, exports the bundle, serves it, and plays held-out
recordings from one process per sensor. The gyroscope's process is killed (kill -9) and comes back,
then the accelerometer's. Ends with a table per phase and a picture, and with status 0 only if every
phase rested on the sensors it should have and no result was missed.
"""

from __future__ import annotations

import argparse
import socket as socketlib
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zmq
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from robult_edge import bundle, data, results
from robult_edge.bundle import Manifest
from robult_edge.data.replay import Replay, replays
from robult_edge.results import Result
from runtime.clock import SystemClock

SPEED = 8.0
RIGS = 4
"""Rigs per held-out subject: together they play all its recordings in every phase."""
START_UP_S = 6.0
"""Replay seconds that a sensor needs to be back: its process starts, one clean window fills."""
SHORTER = ("--folds", "3", "--epochs", "20")
"""Than the defaults, so that the whole takes four minutes on two cores."""


@dataclass(frozen=True)
class Phase:
    """A stretch of the replay and the sensors that must carry it."""

    title: str
    start_s: float
    stop_s: float
    dead: str | None
    alive: tuple[str, ...]
    answers: list[tuple[float, Result, int]] = field(default_factory=list)


def main() -> int:
    """Run the demo; 0 only if it all really happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--labels", default="0.05")
    args = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    run, served = args.out / "run", args.out / "bundle"
    begun = time.monotonic()
    console.rule(f"1  train Robult on watch from {float(args.labels):.0%} of the labels")
    _call("train", "--dataset", "watch", "--labels", args.labels, *SHORTER, "--out", str(run))
    console.rule("2  export the bundle")
    _call("export", str(run), "--out", str(served))
    console.rule("3  serve it, and take its sensors away")
    manifest = bundle.load(served).manifest
    plays = {p.source: p for p in replays(data.load("watch"), RIGS)}
    phase_s = max(p.hops for p in plays.values()) * manifest.hop_ns / 1e9
    phases = plan(manifest.names, phase_s)
    listen(console, served, plays, phases)
    console.rule("4  what happened")
    console.print(table(phases, manifest))
    picture = args.out / "demo.png"
    draw(phases, manifest, picture)
    console.print(f"picture: {picture}; {time.monotonic() - begun:.0f} s in all")
    complaints = check(phases, manifest)
    for complaint in complaints:
        console.print(f"[red]{complaint}")
    if not complaints:
        console.print("[green]every sensor died and came back, and no result was missed")
    return 1 if complaints else 0


def plan(names: Sequence[str], phase_s: float) -> list[Phase]:
    """All alive, the last sensor dead, all back, the first dead, all back."""
    titles = [
        ("all alive", None),
        (f"{names[-1]} killed", names[-1]),
        (f"{names[-1]} back", None),
        (f"{names[0]} killed", names[0]),
        (f"{names[0]} back", None),
    ]
    return [
        Phase(title, i * phase_s, (i + 1) * phase_s, dead, tuple(n for n in names if n != dead))
        for i, (title, dead) in enumerate(titles)
    ]


def listen(console: Console, served: Path, plays: dict[str, Replay], phases: list[Phase]) -> None:
    """Serve, play with the faults of the phases, and sort the answers into them."""
    phase_s = phases[0].stop_s
    frames, answers = _free_addresses(2)
    faults = ",".join(f"{p.dead}:dead@{p.start_s:g}-{p.stop_s:g}" for p in phases if p.dead)
    seconds = phases[-1].stop_s
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
    socket.subscribe(b"")
    serve = ["runtime.serve", "--engines", str(served), "--speed", str(SPEED), "--http", "",
             "--frames", frames, "--results", answers]  # fmt: skip
    with _process(serve) as server:
        assert server.stdout is not None
        console.print(server.stdout.readline().strip())
        socket.connect(answers)
        clock = SystemClock(SPEED)
        hop_ns = round(next(iter(plays.values())).modalities["acc"].hop_s * 1e9)
        start_ns = (clock.now_ns() // hop_ns + int(3 * SPEED * 1e9 // hop_ns)) * hop_ns
        simulate = ["runtime.simulate", "--dataset", "watch", "--frames", frames,
                    "--speed", str(SPEED), "--fault", faults, "--seconds", str(seconds),
                    "--start-ns", str(start_ns), "--rigs", str(RIGS),
                    "--frame-samples", "8"]  # fmt: skip
        with _process(simulate) as sensors, Progress(console=console) as progress:
            task = progress.add_task(phases[0].title, total=seconds)
            now_s = 0.0
            while now_s < seconds:
                now_s = (clock.now_ns() - start_ns) / 1e9
                phase = phases[min(len(phases) - 1, max(0, int(now_s // phase_s)))]
                progress.update(task, completed=max(0, now_s), description=phase.title)
                if socket.poll(100):
                    result = results.decode(socket.recv_multipart())
                    at_s = (result.t_ns - start_ns) / 1e9
                    if 0 <= at_s < seconds:
                        phases[int(at_s // phase_s)].answers.append(
                            (at_s, result, truth(result, plays[result.source], start_ns))
                        )
            sensors.terminate()
    socket.close(linger=0)


def truth(result: Result, play: Replay, start_ns: int) -> int:
    """Class of the windows that a result rests on; −1 when none, or when they hold several."""
    for name, part in result.modalities.items():
        if part.t_ns is not None:
            return play.truth(name, play.index_at(name, part.t_ns, start_ns))
    return -1


def settled(phase: Phase) -> list[tuple[float, Result, int]]:
    """Answers of a phase once its sensors have died or come back."""
    return [a for a in phase.answers if a[0] >= phase.start_s + START_UP_S]


def table(phases: list[Phase], manifest: Manifest) -> Table:
    """A row per phase: on what the answers rested, and how good they were."""
    shown = Table(title=f"{manifest.name}, held-out subjects, live", title_justify="left")
    for column in ("phase", "alive subset", "share", "in doubt", "expected", "measured", "n",
                   "coverage", "latency p50", "p99"):  # fmt: skip
        shown.add_column(column, justify="left" if "a" in column[:2] else "right")
    for phase in phases:
        answers = settled(phase)
        subset, count = Counter(tuple(r.alive) for _, r, _ in answers).most_common(1)[0]
        rows = [(r, y) for _, r, y in answers if y >= 0 and tuple(r.alive) == subset]
        hits = [r.label == manifest.classes[y] for r, y in rows]
        covered = [manifest.classes[y] in r.prediction_set for r, y in rows]
        total = [r.latency_us.total for r, _ in rows]
        expected = rows[0][0].expected if rows else None
        shown.add_row(
            phase.title,
            "+".join(subset) or "none",
            f"{count / len(answers):.1%}",
            f"{np.mean([in_doubt(r) for _, r, _ in answers]):.1%}",
            f"{expected.accuracy:.3f}" if expected else "–",
            f"{np.mean(hits):.3f}",
            str(len(rows)),
            f"{np.mean(covered):.3f}",
            f"{np.percentile(total, 50):.0f} µs",
            f"{np.percentile(total, 99):.0f} µs",
        )
    return shown


def alive(result: Result) -> tuple[str, ...]:
    """The sensors that are alive; the answer rests on those of them that are not in doubt."""
    return tuple(name for name, part in result.modalities.items() if part.state == "alive")


def in_doubt(result: Result) -> bool:
    """Whether a window that contradicts the others and is unlike training was left out."""
    return any(part.reason.startswith("in doubt") for part in result.modalities.values())


def check(phases: list[Phase], manifest: Manifest) -> list[str]:
    """What did not happen as it should have; empty when all did."""
    found = []
    everything = [a for phase in phases for a in phase.answers]
    for phase in phases:
        answers = settled(phase)
        if not answers:
            found.append(f"{phase.title}: no answers")
            continue
        right = sum(alive(r) == phase.alive for _, r, _ in answers) / len(answers)
        if right < 0.95:
            found.append(f"{phase.title}: {right:.0%} of the time {phase.alive} were alive")
        if phase.dead and answers[-1][1].modalities[phase.dead].state != "stale":
            found.append(f"{phase.title}: {phase.dead} was not found stale")
    by_source = defaultdict(list)
    for _, result, _ in everything:
        by_source[result.source].append(result.seq)
    for source, seqs in by_source.items():
        missed = seqs[-1] - seqs[0] + 1 - len(seqs)
        if missed:
            found.append(f"rig {source}: {missed} results missed")
    scored = [(r.label == manifest.classes[y]) for _, r, y in everything if y >= 0]
    if not scored or np.mean(scored) < 2 / len(manifest.classes):
        found.append("answers are no better than guesses")
    return found


def draw(phases: list[Phase], manifest: Manifest, path: Path) -> None:
    """The same over time: rolling accuracy live, what was expected, and each sensor's state."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    answers = sorted(
        ((t, r, y) for phase in phases for t, r, y in phase.answers), key=lambda a: a[0]
    )
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(10, 5), sharex=True, height_ratios=[3, 1], layout="constrained"
    )
    t = np.array([a[0] for a in answers])
    expected = np.array([r.expected.accuracy if r.expected else np.nan for _, r, _ in answers])
    top.step(t, expected, where="post", color="0.6", label="expected of the alive subset")
    known = [(at, r.label == manifest.classes[y]) for at, r, y in answers if y >= 0]
    times, hits = np.array([k[0] for k in known]), np.array([k[1] for k in known], float)
    wide = 300
    rolling = np.convolve(hits, np.ones(wide) / wide, "valid")
    top.plot(times[wide // 2 : wide // 2 + len(rolling)], rolling, color="C0",
             label=f"measured live, mean of {wide} answers; dashed: of the phase")  # fmt: skip
    top.set(
        ylabel="accuracy", ylim=(0, 1.12), title=f"{manifest.name}: sensors die, answers do not"
    )
    top.legend(loc="lower left")
    colours = {"alive": "#4caf50", "stale": "#f4b400", "faulty": "#d93025", "absent": "#cccccc"}
    source = answers[0][1].source
    for row, name in enumerate(manifest.names):
        one = [(at, r.modalities[name].state) for at, r, _ in answers if r.source == source]
        for (start, state), (stop, _) in zip(one, [*one[1:], (phases[-1].stop_s, "")], strict=True):
            bottom.barh(row, stop - start, left=start, color=colours[state], height=0.7)
    bottom.set_yticks(range(len(manifest.names)), manifest.names)
    bottom.set(xlabel=f"replay time, s ({SPEED:g}× real time); green alive, yellow silent",
               xlim=(0, phases[-1].stop_s))  # fmt: skip
    for phase in phases:
        for axis in (top, bottom):
            axis.axvline(phase.start_s, color="0.8", lw=0.8, zorder=0)
        scored = [r.label == manifest.classes[y] for _, r, y in settled(phase) if y >= 0]
        top.hlines(np.mean(scored), phase.start_s, phase.stop_s, color="C0", ls="--", lw=1)
        top.text(phase.start_s + 2, 1.05, phase.title, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _call(module: str, *arguments: str) -> None:
    if code := subprocess.call([sys.executable, "-m", module, *arguments]):
        raise SystemExit(code)


@contextmanager
def _process(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=10)


def _free_addresses(n: int) -> list[str]:
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socketlib.socket())) for _ in range(n)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{probe.getsockname()[1]}" for probe in probes]


if __name__ == "__main__":
    sys.exit(main())
