"""``python -m runtime.watch``: the answers, live, in a terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import zmq

from robult_edge import results
from robult_edge.curve import client_socket
from robult_edge.errors import KeysError, MissingExtraError
from robult_edge.results import Result

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
        says = f"{part.label} {part.probability:.0%}" if part.probability is not None else "–"
        table.add_row(
            name, Text(part.state, COLOURS[part.state]), f"{part.weight:.2f}", says, part.reason
        )
    return table


def _title(result: Result) -> Text:
    title = Text(f"{result.source} #{result.seq}  ", "bold")
    title.append(result.label or "no answer", f"bold {VERDICTS[result.decision]}")
    if result.label is not None and result.expected is not None:
        title.append(f" {result.probabilities[result.label]:.0%}")
        title.append(
            f"  expected accuracy {result.expected.accuracy:.0%}"
            f" (all alive {result.expected.full_accuracy:.0%})"
            f"  cannot rule out: {', '.join(result.prediction_set)}"
        )
    if result.conflict:
        title.append("  sensors disagree", "red")
    return title


if __name__ == "__main__":
    sys.exit(main())
