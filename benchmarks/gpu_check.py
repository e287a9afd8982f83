"""``make gpu-check``: all that wants a GPU, one after another, and what passed.

Exit status 1 when something failed. What could not be tried, for want of a GPU or of a library, is
``skipped``, never ``passed``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from robult_edge import bundle

WANTING = ("no CUDA driver", "cannot be imported", "is not installed")
"""How a build ends that lacks a GPU or a library."""


def checks(path: Path) -> dict[str, tuple[str, ...]]:
    """What is run, by name; engines are built into the bundle at ``path``."""
    return {
        "tests": ("pytest", "tests/gpu", "-q", "-rs"),
        "engines": ("export.tensorrt", "--bundle", str(path)),
        "benchmark": ("benchmarks.gpu", "--quick"),
        "doctor": ("runtime.doctor", "--engines", str(path)),
    }


def main() -> int:
    """Run and print."""
    with TemporaryDirectory() as scratch:
        return check(Path(shutil.copytree(bundle.find("export"), Path(scratch) / "engines")))


def check(path: Path) -> int:
    """Run everything on the bundle at ``path``, which changes."""
    summary = []
    for name, command in checks(path).items():
        print(f"== python -m {' '.join(command)}", flush=True)
        last = ""
        with subprocess.Popen(
            [sys.executable, "-m", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                last = line.strip() or last
        summary.append((name, verdict(name, process.returncode, last), last))
    print()
    for name, word, last in summary:
        print(f"{name:12}{word:9}{last}")
    return int(any(word == "FAILED" for _, word, _ in summary))


def verdict(name: str, code: int, last: str) -> str:
    """What a check came to, by its exit status and last line; one that tried nothing is skipped."""
    if name == "engines" and code and any(what in last for what in WANTING):
        return "skipped"
    if code:
        return "FAILED"
    if name == "engines":
        return "passed"
    tried = " passed" in last if name == "tests" else not last.startswith("nothing is measured")
    return "passed" if tried else "skipped"


if __name__ == "__main__":
    sys.exit(main())
