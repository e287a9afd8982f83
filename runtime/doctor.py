"""``python -m runtime.doctor --engines export/``: what this machine has, lacks, and can serve.

Exit status 0 when the bundle can be served here, 1 when not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from runtime.checkup import Finding, examine

MARKS = {"ok": "ok", "lacking": "-", "broken": "BAD"}


def main(argv: Sequence[str] | None = None) -> int:
    """Examine and print."""
    parser = argparse.ArgumentParser(prog="python -m runtime.doctor", description=__doc__)
    parser.add_argument(
        "--engines",
        default="export/",
        metavar="DIR",
        help="the bundle, or the parent of its engines/ (default: %(default)s)",
    )
    parser.add_argument("--bundle-key", metavar="FILE", help="that must have signed it")
    parser.add_argument("--engine-cache", metavar="DIR", help="of engines that were built here")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    findings: list[Finding] = []
    for finding in examine(args.engines, args.bundle_key, args.engine_cache):
        if not args.json:
            topic = findings[-1].topic if findings else ""
            print(lines(finding, new_topic=finding.topic != topic), flush=True)
        findings.append(finding)
    broken = sum(finding.state == "broken" for finding in findings)
    if args.json:
        print(json.dumps({"servable": not broken, "findings": list(map(asdict, findings))}))
    elif broken:
        print(f"\n{args.engines} cannot be served here: see what is marked {MARKS['broken']}")
    else:
        print(f"\n{args.engines} can be served here")
    return 1 if broken else 0


def lines(finding: Finding, new_topic: bool) -> str:
    """A finding for a terminal, under its topic; what to do about it on a line of its own."""
    title = f"\n{finding.topic}\n" if new_topic else ""
    text = f"{title}  {MARKS[finding.state]:<4}{finding.name:<16}  {finding.said}"
    return f"{text}\n{'':24}→ {finding.mend}" if finding.mend else text


if __name__ == "__main__":
    sys.exit(main())
