"""``python -m runtime.watch``: the answers, live, in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import zmq
from msgspec import UNSET

from robult_edge import results
from robult_edge.curve import client_socket
from robult_edge.errors import KeysError, MissingExtraError
from robult_edge.results import Estimate, Expected, ModalityAnswer, Result

try:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text
except ImportError as error:
    raise MissingExtraError("rich", "watch") from error

COLOURS = {"alive": "green", "absent": "dim", "stale": "yellow", "faulty": "red"}
VERDICTS = {"ok": "green", "degraded": "yellow", "none": "red"}
POLL_MS = 200


def main(argv: Sequence[str] | None = None) -> int:
    """Show results until Ctrl-C, or until ``--count`` of them."""
    parser = argparse.ArgumentParser(prog="python -m runtime.watch", description=__doc__)
    parser.add_argument("--results", default=results.DEFAULT_ADDRESS, help="default: %(default)s")
    parser.add_argument("--curve-keys", metavar="DIR", help="this client's, if the runtime has any")
    parser.add_argument("--source", default="", help="show this rig alone")
    parser.add_argument("--count", type=int, default=0, help="stop after so many results")
    args = parser.parse_args(argv)
    try:
        socket = client_socket(zmq.SUB, args.curve_keys)
    except KeysError as error:
        print(f"runtime.watch: {error}", file=sys.stderr)
        return 2
    socket.setsockopt(zmq.SUBSCRIBE, results.topic(args.source) if args.source else b"")
    socket.connect(args.results)
    latest: dict[str, Result] = {}
    seen = 0
    try:
        with Live(Text(f"waiting for results at {args.results}"), console=Console()) as live:
            while not args.count or seen < args.count:
                if socket.poll(POLL_MS):
                    result = results.decode(socket.recv_multipart())
                    latest[result.source] = result
                    seen += 1
                    live.update(Group(*(panel(r) for r in latest.values())))
    except KeyboardInterrupt:
        pass
    finally:
        socket.close(linger=0)
    return 0


def panel(result: Result) -> Table:
    """One rig's newest answer as a table."""
    table = Table(title=_title(result), title_justify="left", min_width=78)
    for column in ("sensor", "state", "weight", "says", "why"):
        table.add_column(column)
    for name, part in result.modalities.items():
        table.add_row(
            name, Text(part.state, COLOURS[part.state]), f"{part.weight:.2f}", says(part),
            part.reason,
        )  # fmt: skip
    return table


def says(part: ModalityAnswer) -> str:
    """What a branch alone would have answered, whatever the task."""
    if part.probability is not None:
        return f"{part.label} {part.probability:.0%}"
    if part.labels is not UNSET:
        return ", ".join(part.labels) or "nothing"
    if part.values is not UNSET:
        return ", ".join(f"{name} {value:.4g}" for name, value in part.values.items())
    return "–"


def _title(result: Result) -> Text:
    title = Text(f"{result.source} #{result.seq}  ", "bold")
    answer, outlook = answered(result, result.expected) if result.expected else ("no answer", "")
    title.append(answer, f"bold {VERDICTS[result.decision]}")
    title.append(outlook)
    if result.conflict:
        title.append("  sensors disagree", "red")
    return title


def answered(result: Result, expected: Expected) -> tuple[str, str]:
    """The answer, and what is to be expected of it, whatever the task."""
    if result.estimates is not None:
        mae, full = expected.mae or {}, expected.full_mae or {}
        errors = [
            f"{mae[name]:.3g} {e.unit} (all alive {full[name]:.3g})"
            for name, e in result.estimates.items()
        ]
        shown = [f"{name} {_interval(e)} {e.unit}" for name, e in result.estimates.items()]
        return ", ".join(shown), f"  expected error {', '.join(errors)}"
    ruled = f"  cannot rule out: {', '.join(result.prediction_set) or 'nothing'}"
    if result.labels is not None:
        answer = ", ".join(f"{name} {result.probabilities[name]:.0%}" for name in result.labels)
        quality = f"macro-F1 {expected.macro_f1:.0%} (all alive {expected.full_macro_f1:.0%})"
        certain = f"  certain: {', '.join(result.certain or []) or 'nothing'}"
        return answer or "nothing", f"  expected {quality}{certain}{ruled}"
    quality = f"accuracy {expected.accuracy:.0%} (all alive {expected.full_accuracy:.0%})"
    label = result.label or ""
    return label, f" {result.probabilities[label]:.0%}  expected {quality}{ruled}"


def _interval(e: Estimate) -> str:
    bounds = "" if e.low is None or e.high is None else f" [{e.low:.4g}, {e.high:.4g}]"
    return f"{e.value:.4g}{bounds}"


if __name__ == "__main__":
    sys.exit(main())
