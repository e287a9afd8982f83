"""What a Jetson says of itself: its release, power mode and clocks. Only read, never set."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

RELEASE = "etc/nv_tegra_release"
CPUS = "sys/devices/system/cpu/cpufreq/policy*/scaling_{}_freq"  # kHz
GPUS = "sys/class/devfreq/*g[pa][u1]*/{}_freq"  # Hz; the GPU is called gpu, or by its chip: ga10b


@dataclass(frozen=True)
class Clock:
    """A clock's frequency and the range that its governor may choose from, MHz."""

    name: str
    now: float
    least: float
    most: float


def release(root: Path) -> str | None:
    """Jetson Linux's version, e.g. ``R36.4.0``; None if this is no Jetson.

    Args:
        root: of the file system.
    """
    try:
        said = (root / RELEASE).read_text()
    except OSError:
        return None
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", said)
    return f"R{found[1]}.{found[2]}" if found else "unknown"


def power_mode() -> str | None:
    """The power mode's name and number, e.g. ``MAXN (0)``; None where nvpmodel does not say."""
    try:
        done = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode: *(\S+)\s+(\d+)", done.stdout)
    return f"{found[1]} ({found[2]})" if found else None


def clocks(root: Path) -> list[Clock]:
    """The clocks of CPU clusters and GPU that can be read."""
    found = []
    for pattern, per_mhz in ((CPUS, 1e3), (GPUS, 1e6)):
        for file in sorted(root.glob(pattern.format("cur"))):
            try:
                now, least, most = (
                    int(file.with_name(file.name.replace("cur", which)).read_text()) / per_mhz
                    for which in ("cur", "min", "max")
                )
            except (OSError, ValueError):
                continue
            found.append(Clock(file.parent.name, now, least, most))
    return found
