"""Bytes that look for new ways through the code: coverage-guided fuzzing of ingest and rigs.

``python -m benchmarks.guided [--minutes N] [--json PATH]``

libFuzzer, by way of atheris (``pip install 'robult-edge[fuzz]'``, Linux), starts from honest and
damaged frames and keeps what reaches new code; `benchmarks.guided_target` says what must hold. What
it keeps lies in build/fuzz/corpus and is taken up again the next time.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from random import Random

from rich.console import Console
from rich.table import Table

from benchmarks import fuzz, messages
from robult_edge import bundle

ROOT = Path(__file__).parents[1]
WHERE = ROOT / "build" / "fuzz"
SEEDS, IN_A_ROW = 64, 6
LONGEST_BYTES = 8192
SLOW_S = 10
"""An input that takes so long is a failure."""
DONE = re.compile(r"Done (\d+) runs in (\d+) second")
COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


def main() -> int:
    """Fuzz and print; write ``--json`` too. 1 when an input did what it must not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if find_spec("atheris") is None:
        print("nothing is fuzzed: no atheris here; pip install 'robult-edge[fuzz]' (Linux)")
        return 0
    figures, said = guided(round(args.minutes * 60), WHERE)
    table = Table(title="coverage-guided fuzzing", title_justify="left")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    for name, value in figures.items():
        table.add_row(name, f"{value:,}")
    Console().print(table)
    if args.json:
        args.json.write_text(json.dumps(figures))
    if figures["failures"]:
        print(said[-4000:], file=sys.stderr)
        print(f"the input that did it lies in {WHERE}")
    return int(figures["failures"] > 0)


def guided(seconds: int, where: Path) -> tuple[dict[str, int], str]:
    """Fuzz for so long, with corpus and failures in ``where``: figures, and what libFuzzer said."""
    corpus = where / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(seeds()):
        (corpus / f"seed-{i}").write_bytes(seed)
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.guided_target", str(corpus),
         f"-max_total_time={seconds}", f"-max_len={LONGEST_BYTES}", f"-timeout={SLOW_S}",
         f"-artifact_prefix={where}/"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    done, covered = DONE.search(ran.stderr), COVERED.findall(ran.stderr)
    figures = {
        "inputs": int(done[1]) if done else 0,
        "seconds": int(done[2]) if done else 0,
        "branches_covered": int(covered[-1][0]) if covered else 0,
        "inputs_kept": int(covered[-1][2]) if covered else 0,
        "failures": int(ran.returncode != 0 or not done),
    }
    return figures, ran.stderr


def seeds() -> list[bytes]:
    """A few messages each, half of them damaged; the same in every run."""
    random, manifest = Random(0), bundle.load(ROOT / "export").manifest
    found = []
    for i in range(SEEDS):
        honest = [
            (20, fuzz.honest(random, manifest, seq, fuzz.START_NS + 20_000_000 * seq))
            for seq in range(1, IN_A_ROW + 1)
        ]
        damaged = [(wait_ms, fuzz.damage(random, parts)) for wait_ms, parts in honest]
        found.append(messages.pack(damaged if i % 2 else honest))
    return found


if __name__ == "__main__":
    sys.exit(main())
