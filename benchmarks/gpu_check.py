"""``make gpu-check``: all that wants a GPU, one after another, and what passed.

Exit status 1 when something failed. What could not be tried, for want of a GPU or of a library, is
``skipped``, never ``passed``.
"""

from __future__ import annotations

import subprocess
import sys

CHECKS = {
    "tests": ("pytest", "tests/gpu", "-q", "-rs"),
    "benchmark": ("benchmarks.gpu", "--quick"),
    "doctor": ("runtime.doctor", "--engines", "export/"),
}


def main() -> int:
    """Run and print."""
    summary = []
    for name, command in CHECKS.items():
        print(f"== python -m {' '.join(command)}", flush=True)
        last = ""
        with subprocess.Popen(
            [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True
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
    if code:
        return "FAILED"
    tried = " passed" in last if name == "tests" else not last.startswith("nothing is measured")
    return "passed" if tried else "skipped"


if __name__ == "__main__":
    sys.exit(main())
