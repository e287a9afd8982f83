"""``python -m runtime.simulate --dataset watch``: a data set's held-out recordings as sensors.

One process per sensor, each publishing its frames over ZeroMQ for every rig: one per held-out
group, or ``--rigs`` of them with the group's recordings dealt out. Recordings play over and over.

A fault ``gyro:dead@10-20`` kills the gyroscope's process (kill −9) ten seconds after the start and
starts it again at twenty; seconds count on the replay's clock.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from robult_edge import data, frames
from robult_edge.data.replay import Replay, replays
from robult_edge.errors import RobultError, SpecError
from robult_edge.frames import SensorPublisher
from runtime.clock import Clock, SystemClock

LEAD_HOPS = 4
"""Hops between the start of the processes and the first sample, so that all are connected."""


@dataclass(frozen=True)
class Fault:
    """A sensor's process is dead from ``start_s`` to ``stop_s`` (None: for good)."""

    modality: str
    start_s: float
    stop_s: float | None


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


def parse_faults(text: str, modalities: Sequence[str]) -> tuple[Fault, ...]:
    """Faults from ``gyro:dead@10-20,acc:dead@30-``.

    Raises:
        SpecError: it reads otherwise, or names an unknown modality.
    """
    found = []
    for part in filter(None, text.split(",")):
        match = re.fullmatch(r"([\w.-]+):dead@(\d+\.?\d*)-(\d+\.?\d*)?", part.strip())
        if match is None or match[1] not in modalities or _ends_first(match):
            raise SpecError(
                f"--fault {part!r} is not SENSOR:dead@FROM-TO, e.g. {modalities[0]}:dead@10-20; "
                f"sensors are {', '.join(modalities)}"
            )
        stop = float(match[3]) if match[3] else None
        found.append(Fault(match[1], float(match[2]), stop))
    return tuple(found)


def _ends_first(match: re.Match[str]) -> bool:
    return match[3] is not None and float(match[3]) <= float(match[2])


def conduct(args: argparse.Namespace) -> int:
    """Start one process per sensor, and kill and restart them on schedule."""
    dataset = data.load(args.dataset)
    faults = parse_faults(args.fault, [m.name for m in dataset.modalities])
    plays = replays(dataset, args.rigs)
    clock = SystemClock(args.speed)
    hop_ns = round(dataset.modalities[0].hop_s * 1e9)
    start_ns = args.start_ns or (clock.now_ns() // hop_ns + LEAD_HOPS + 1) * hop_ns
    seconds = args.seconds or max(p.hops for p in plays) * hop_ns / 1e9
    print(
        f"playing {dataset.name} ({', '.join(p.source for p in plays)}) for {seconds:.0f} s "
        f"at {args.speed:g}×",
        flush=True,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while (now_s := (clock.now_ns() - start_ns) / 1e9) < seconds:
            for m in dataset.modalities:
                dead = any(
                    f.modality == m.name
                    and f.start_s <= now_s < (np.inf if f.stop_s is None else f.stop_s)
                    for f in faults
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
        for process in running.values():
            process.wait(timeout=10)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return 0


def sensor(args: argparse.Namespace) -> int:
    """Be one sensor: publish its frames of every rig when they are due."""
    plays = replays(data.load(args.dataset), args.rigs)
    clock = SystemClock(args.speed)
    publishers = [
        SensorPublisher(args.sensor, p.source, args.frames, curve_keys=args.curve_keys)
        for p in plays
    ]
    frame_samples = args.frame_samples or max(1, plays[0].modalities[args.sensor].hop // 8)
    play(plays, publishers, args.sensor, clock, args.start_ns, args.seconds, frame_samples)
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
) -> None:
    """Publish every frame of ``modality`` as its last sample is captured, from now on."""
    parent = os.getppid()
    now = plays[0].index_at(modality, clock.now_ns(), start_ns)
    # A sensor that starts in the middle starts with a whole frame.
    for first in count(max(0, -(-now // frame_samples) * frame_samples), frame_samples):
        last = first + frame_samples - 1
        due_ns = plays[0].captured_ns(modality, last, start_ns)
        if due_ns - start_ns > seconds * 1e9 or os.getppid() != parent:
            return
        while (wait_ns := due_ns - clock.now_ns()) > 0:
            time.sleep(min(0.1, wait_ns / 1e9 / clock.speed))
        for replay, publisher in zip(plays, publishers, strict=True):
            samples = replay.stretch(modality, first, last)
            if not np.isnan(samples).all():
                publisher.send(samples, replay.captured_ns(modality, first, start_ns))


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
        ]
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.simulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", default="watch", help="watch, synthetic, or a TOML's path")
    parser.add_argument("--fault", default="", metavar="SENSOR:dead@FROM-TO[,...]")
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
