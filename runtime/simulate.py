"""``python -m runtime.simulate --dataset watch``: a data set's held-out recordings as sensors.

One process per sensor, each publishing its frames over ZeroMQ for every rig: one per held-out
group, or ``--rigs`` of them with the group's recordings dealt out. Recordings play over and over.

A fault ``gyro:dead@10-20`` kills the gyroscope's process (kill −9) ten seconds after the start and
starts it again at twenty; seconds count on the replay's clock. ``acc:noise(3)@30-`` makes the
accelerometer lie from then on: `robult_edge.data.inject` has the kinds.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count

import numpy as np

from robult_edge import data, frames
from robult_edge.data import inject
from robult_edge.data.inject import Fault, Injector
from robult_edge.data.replay import Replay, replays
from robult_edge.errors import RobultError
from robult_edge.frames import SensorPublisher
from runtime.clock import Clock, SystemClock

LEAD_S = 2.0
"""Real time between the start of the processes and the first sample, so that all are connected,
beside twice what loading takes here: they all do the same, at once."""
SHOWN = 8
"""Rigs named at the start."""


def main(argv: Sequence[str] | None = None) -> int:
    """Play; 2 when the data set or a fault makes no sense."""
    args = _parser().parse_args(argv)
    try:
        if args.sensor:
            return sensor(args)
        return conduct(args)
    except RobultError as error:
        print(f"runtime.simulate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def conduct(args: argparse.Namespace) -> int:
    """Start one process per sensor, and kill and restart them on schedule."""
    begun_s = time.monotonic()
    dataset = data.load(args.dataset)
    faults = inject.parse(args.fault, [m.name for m in dataset.modalities])
    plays = replays(dataset, args.rigs)
    lead_s = LEAD_S + 2 * (time.monotonic() - begun_s)
    clock = SystemClock(args.speed)
    hop_ns = round(dataset.modalities[0].hop_s * 1e9)
    lead_ns = int(lead_s * 1e9 * args.speed)
    start_ns = args.start_ns or ((clock.now_ns() + lead_ns) // hop_ns + 1) * hop_ns
    seconds = args.seconds or max(p.hops for p in plays) * hop_ns / 1e9
    rigs = ", ".join(p.source for p in plays[:SHOWN])
    more = f" and {len(plays) - SHOWN} more" if len(plays) > SHOWN else ""
    print(
        f"playing {dataset.name} ({rigs}{more}) for {seconds:.0f} s at {args.speed:g}×", flush=True
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while (now_s := (clock.now_ns() - start_ns) / 1e9) < seconds:
            for m in dataset.modalities:
                dead = any(
                    f.modality == m.name and f.kind == "dead" and f.active(now_s) for f in faults
                )
                if dead and m.name in running:
                    process = running.pop(m.name)
                    process.kill()
                    process.wait()
                    print(f"{now_s:7.2f} s  {m.name} killed (kill -9)", flush=True)
                elif not dead and m.name not in running:
                    running[m.name] = _start_sensor(args, m.name, start_ns, seconds)
                    print(f"{now_s:7.2f} s  {m.name} started", flush=True)
            time.sleep(0.01)
        failed = [name for name, process in running.items() if process.wait(timeout=10) > 0]
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    if failed:
        print(f"runtime.simulate: {', '.join(failed)} failed; see above", file=sys.stderr)
    return int(bool(failed))


def sensor(args: argparse.Namespace) -> int:
    """Be one sensor: publish its frames of every rig when they are due."""
    dataset = data.load(args.dataset)
    plays = replays(dataset, args.rigs)
    faults = inject.parse(args.fault, [m.name for m in dataset.modalities])
    clock = SystemClock(args.speed)
    publishers = [
        SensorPublisher(args.sensor, p.source, args.frames, curve_keys=args.curve_keys)
        for p in plays
    ]
    frame_samples = args.frame_samples or max(1, plays[0].modalities[args.sensor].hop // 8)
    play(plays, publishers, args.sensor, clock, args.start_ns, args.seconds, frame_samples, faults)
    for publisher in publishers:
        publisher.close()
    return 0


def play(
    plays: Sequence[Replay],
    publishers: Sequence[SensorPublisher],
    modality: str,
    clock: Clock,
    start_ns: int,
    seconds: float,
    frame_samples: int,
    faults: Sequence[Fault] = (),
) -> None:
    """Publish every frame of ``modality`` as its last sample is captured, from now on."""
    parent = os.getppid()
    lying = [f for f in faults if f.kind != "dead"]
    injectors = [Injector(lying, play.modalities[modality]) for play in plays]
    now = plays[0].index_at(modality, clock.now_ns(), start_ns)
    # A sensor that starts in the middle starts with a whole frame.
    for first in count(max(0, -(-now // frame_samples) * frame_samples), frame_samples):
        last = first + frame_samples - 1
        due_ns = plays[0].captured_ns(modality, last, start_ns)
        if due_ns - start_ns > seconds * 1e9 or os.getppid() != parent:
            return
        while (wait_ns := due_ns - clock.now_ns()) > 0:
            time.sleep(min(0.1, wait_ns / 1e9 / clock.speed))
        for replay, publisher, injector in zip(plays, publishers, injectors, strict=True):
            samples = replay.stretch(modality, first, last)
            if np.isnan(samples).all():
                continue
            t_ns = replay.captured_ns(modality, first, start_ns)
            for sent in injector.sent(replay.source, samples, t_ns, (t_ns - start_ns) / 1e9):
                publisher.seq = sent.seq
                publisher.send(sent.samples, sent.t_ns)


def _start_sensor(
    args: argparse.Namespace, modality: str, start_ns: int, seconds: float
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "runtime.simulate", "--dataset", args.dataset,
            "--sensor", modality, "--start-ns", str(start_ns), "--seconds", str(seconds),
            "--speed", str(args.speed), "--frames", args.frames,
            "--frame-samples", str(args.frame_samples), "--rigs", str(args.rigs),
            *(["--curve-keys", args.curve_keys] if args.curve_keys else []),
            "--fault", args.fault,
        ]
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.simulate",
        description=__doc__,
        epilog="kinds of fault:\n" + inject.kinds(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", default="watch", help="watch, synthetic, or a TOML's path")
    parser.add_argument("--fault", default="", metavar="SENSOR:KIND(SIZE)@FROM-TO[,...]")
    parser.add_argument("--speed", type=float, default=1.0, help="times real time; serve's too")
    parser.add_argument(
        "--seconds", type=float, default=0, help="replay time to play (default: once through)"
    )
    parser.add_argument("--rigs", type=int, default=1, help="rigs per held-out group")
    parser.add_argument(
        "--frame-samples", type=int, default=0, help="samples in a frame (default: an eighth hop)"
    )
    parser.add_argument(
        "--frames", default=frames.DEFAULT_ADDRESS, help="where the runtime listens"
    )
    parser.add_argument("--curve-keys", metavar="DIR", help="this client's, if the runtime has any")
    parser.add_argument("--sensor", help="be this sensor alone (how its process is started)")
    parser.add_argument("--start-ns", type=int, default=0, help="when the replay begins")
    return parser


if __name__ == "__main__":
    sys.exit(main())
