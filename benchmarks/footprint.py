"""What the edge costs: disk, start, memory, and processor while sensors only tick along.

``python -m benchmarks.footprint [--quick] [--json PATH]``
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import untrained
from benchmarks.process import rss_mb, running
from robult_edge.bundle import Manifest
from robult_edge.frames import Frame, encode
from runtime.clock import SystemClock

IMPORTS = "import msgspec, numpy, onnxruntime, zmq"
SENSORS = 3
FRAMES_HZ = 100


def main() -> int:
    """Measure and print; write ``--json`` too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 45 s")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    seconds = 10 if args.quick else 60
    where = Path("build") / "benchmarks" / f"{SENSORS}-sensors"
    manifest = untrained.make(SENSORS, where).manifest
    starts = [start_s(where) for _ in track(range(5), "starting")]
    imports = [imports_s() for _ in range(5)]
    share, rss_mb = idle(manifest, where, seconds)
    figures = {
        "install_mb": install_mb(),
        "ready_s": float(np.median(starts)),
        "ready_ratio": float(np.median(starts) / np.median(imports)),
        "rss_mb": rss_mb,
        "idle_core_share": share,
    }
    table = Table(title="the edge's footprint", title_justify="left")
    for column in ("figure", "measured", "what it is"):
        table.add_column(column)
    for name, what in (
        ("install_mb", "files of the edge install, bytecode aside"),
        ("ready_s", "from start to ready, median of 5"),
        ("ready_ratio", "the same against importing its libraries"),
        ("rss_mb", f"resident, {SENSORS} sensors served"),
        ("idle_core_share", f"of a core, {SENSORS} sensors at {FRAMES_HZ} frames/s each"),
    ):
        table.add_row(name, f"{figures[name]:.3g}", what)
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    return 0


def install_mb() -> float:
    """Size of robult-edge and all it requires, as installed here."""
    wanted, seen, size = ["robult-edge"], set(), 0
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # required on another platform or Python
        for file in found.files or ():
            path = Path(str(file.locate()))
            if path.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
        core = (r for r in found.requires or () if "extra ==" not in r)
        wanted += [re.split(r"[^\w.-]", r, maxsplit=1)[0].lower() for r in core]
    return size / 1e6


def start_s(engines: Path) -> float:
    """From starting `runtime.serve` to its ready line."""
    begun = time.perf_counter()
    with running(["-m", "runtime.serve", "--http", ""], engines, "serving") as server:
        return server.ready_s - begun


def imports_s() -> float:
    """What a Python needs to import the libraries alone."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.perf_counter() - begun


def idle(manifest: Manifest, engines: Path, seconds: float) -> tuple[float, float]:
    """Share of a core, and resident MB, while every sensor sends a sample a frame."""
    speed = FRAMES_HZ / manifest.modalities[0].rate_hz
    command = ["-m", "runtime.serve", "--http", "", "--speed", str(speed)]
    with running(command, engines, "serving") as server:
        clock, rng = SystemClock(speed), np.random.default_rng(0)
        start_ns = clock.now_ns()
        before = _cpu_s(server.pid)
        for seq in track(range(int(seconds * FRAMES_HZ)), "ticking along"):
            t_ns = start_ns + seq * manifest.modalities[0].period_ns
            while (wait_ns := t_ns - clock.now_ns()) > 0:
                time.sleep(wait_ns / 1e9 / speed)
            for m in manifest.modalities:
                assert m.stats is not None
                sample = rng.uniform(m.stats.low, m.stats.high, (1, len(m.channels)))
                frame = Frame(m.name, "rig", seq, t_ns, sample.astype(np.float32))
                server.frames.send_multipart(encode(frame))
        return (_cpu_s(server.pid) - before) / seconds, rss_mb(server.pid)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
