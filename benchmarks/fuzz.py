"""Frames damaged at random: each is refused and counted, or is a frame; nothing else happens.

``python -m benchmarks.fuzz [--frames N] [--seed N] [--quick] [--json PATH]``

Honest frames are damaged in one to three places and given to the runtime's ingest and rigs, as the
server does. After each, every sensor but the one that it names must be as it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from robult_edge import bundle
from robult_edge.bundle import Manifest
from robult_edge.errors import FrameError
from robult_edge.frames import Frame, encode
from runtime.ingest import Ingest
from runtime.rigs import Rigs
from runtime.stream import Stream

ROOT = Path(__file__).parents[1]
START_NS = 1_700_000_000_000_000_000
SOURCES = ("rig-1", "rig-2", "rig-3")
MAX_SOURCES = 16
"""Few, so that invented ones are refused, and forgotten, too."""

Parts = list[bytes]
ODD: tuple[object, ...] = (
    None, True, -1, 0, 1, 7, 1 << 40, (1 << 64) - 1, -(1 << 63), 1.5, float("nan"), "", "rig-2",
    "\0", "x" * 200, "<f4", ">f4", "<f2", "|u1", b"\xff", [], [1, 3], [0, 3], [-1, 3],
    [1 << 62, 3], {},
)  # fmt: skip
"""What a header's field is changed to."""


def main() -> int:
    """Fuzz and print; write ``--json`` too. 1 when a frame did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="100,000 frames")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    total = 100_000 if args.quick else args.frames
    figures = fuzz(bundle.load(ROOT / "export").manifest, total, args.seed)
    table = Table(title=f"{total:,} damaged frames, seed {args.seed}", title_justify="left")
    table.add_column("what became of them")
    table.add_column("frames", justify="right")
    for name, count in figures.items():
        table.add_row(name, f"{count:,}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    broken = [name for name in ("crashes", "others_changed") if figures[name]]
    if broken:
        print(f"must be 0: {', '.join(broken)}")
    return int(bool(broken))


def fuzz(manifest: Manifest, total: int, seed: int) -> dict[str, int]:
    """Counts: fuzzed, accepted, refused_REASON, crashes, others_changed."""
    random, ingest = Random(seed), Ingest(manifest.modalities)
    rigs = Rigs(manifest, MAX_SOURCES)
    crashes = others_changed = 0
    for i in track(range(total), "fuzzing"):
        now_ns = START_NS + i * 1_000_000
        parts = damage(random, honest(random, manifest, i, now_ns))
        try:
            others_changed += not keeps_to_itself(ingest, rigs, parts, now_ns)
        except Exception as error:  # whatever it is, it must not be
            crashes += 1
            Console(stderr=True).print(f"{type(error).__name__}: {error}: {parts!r:.300}")
    return {
        "fuzzed": total,
        "accepted": ingest.received,
        **{f"refused_{reason}": n for reason, n in sorted(ingest.rejected.items())},
        "crashes": crashes,
        "others_changed": others_changed,
    }


def keeps_to_itself(ingest: Ingest, rigs: Rigs, parts: Parts, now_ns: int) -> bool:
    """Give a message to ingest and rigs, as the server does; whether no other sensor changed."""
    before = {key: state(stream) for key, stream in sensors(rigs).items()}
    named: tuple[str, str] | None = None
    frame = ingest.read(parts)
    if frame is not None:
        named = frame.source, frame.modality
        try:
            rigs.place(frame, now_ns)
        except FrameError as error:
            ingest.refuse(error)
    now = sensors(rigs)
    same = all(state(now[key]) == was for key, was in before.items() if key != named)
    rigs.waiting(now_ns)  # forgets who is silent
    return same


def sensors(rigs: Rigs) -> dict[tuple[str, str], Stream]:
    """Every sensor of every rig, by source and modality."""
    return {(r.source, s.spec.name): s for r in rigs.rigs.values() for s in r.streams}


def state(stream: Stream) -> tuple[object, ...]:
    """What a frame of a sensor changes of it, whatever the frame holds."""
    ring, placed = stream.ring, sum(stream.counts.values())
    return ring.newest, ring.solid_from, ring.epoch_ns, placed, stream.liveness.state


def honest(random: Random, manifest: Manifest, seq: int, t_ns: int) -> Parts:
    """A frame as a sensor sends it, of any sensor of any rig."""
    spec = random.choice(manifest.modalities)
    samples = np.full((random.randint(1, 4), *spec.sample_shape), random.random(), np.float32)
    return encode(Frame(spec.name, random.choice(SOURCES), seq, t_ns, samples))


def damage(random: Random, parts: Parts) -> Parts:
    """The message, damaged in one to three places."""
    for _ in range(random.randint(1, 3)):
        parts = random.choice(DAMAGES)(random, list(parts))
    return parts


def _flip(random: Random, parts: Parts) -> Parts:
    return _in_one(
        random, parts, lambda p, at: p[:at] + bytes([random.randrange(256)]) + p[at + 1 :]
    )


def _cut(random: Random, parts: Parts) -> Parts:
    return _in_one(random, parts, lambda p, at: p[:at])


def _insert(random: Random, parts: Parts) -> Parts:
    return _in_one(
        random, parts, lambda p, at: p[:at] + random.randbytes(random.randint(1, 9)) + p[at:]
    )


def _random(random: Random, parts: Parts) -> Parts:
    return _in_one(random, parts, lambda p, at: random.randbytes(random.randrange(64)))


def _parts(random: Random, parts: Parts) -> Parts:
    """Parts in another number or order."""
    return [random.choice(parts) for _ in range(random.randint(1, 4))]


def _field(random: Random, parts: Parts) -> Parts:
    """One field of the header something odd."""
    if len(parts) == 3:
        try:
            fields = msgspec.msgpack.decode(parts[1])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return parts
        if isinstance(fields, list) and fields:
            fields[random.randrange(len(fields))] = random.choice(ODD)
            parts[1] = msgspec.msgpack.encode(fields)
    return parts


def _in_one(random: Random, parts: Parts, change: Callable[[bytes, int], bytes]) -> Parts:
    i = random.randrange(len(parts))
    parts[i] = change(parts[i], random.randrange(len(parts[i]) + 1))
    return parts


DAMAGES = (_flip, _cut, _insert, _random, _parts, _field, _field)


if __name__ == "__main__":
    sys.exit(main())
