"""``python -m runtime.keys keys --client wrist-1``: CURVE keys of a runtime and its clients.

``keys/runtime/`` is for the machine that serves: its secret, and in ``clients/`` the public keys of
those that may connect. ``keys/wrist-1/`` is for that client: its secret, and the runtime's public
key. Run it again to allow further clients; delete ``clients/NAME.key`` to lock one out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from zmq.auth import create_certificates

from robult_edge.curve import SERVER
from robult_edge.errors import KeysError, RobultError
from runtime.curve import CLIENTS


def main(argv: Sequence[str] | None = None) -> int:
    """Make keys; 2 when a client has some already."""
    parser = argparse.ArgumentParser(
        prog="python -m runtime.keys",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where all keys lie")
    parser.add_argument("--client", action="append", default=[], metavar="NAME")
    args = parser.parse_args(argv)
    try:
        for name in args.client:
            if not name.replace("-", "").replace("_", "").isalnum() or name == "runtime":
                raise KeysError(f"--client {name!r}; a name has letters, digits, '-' and '_'")
        runtime = make_runtime(args.folder)
        for name in args.client:
            print(f"{name}: {make_client(args.folder, name)}")
    except RobultError as error:
        print(f"runtime.keys: {error}", file=sys.stderr)
        return 2
    print(f"runtime: serve with --curve-keys {runtime}")
    return 0


def make_runtime(folder: Path) -> Path:
    """The runtime's key folder, with new keys if it has none."""
    runtime = folder / "runtime"
    (runtime / CLIENTS).mkdir(parents=True, exist_ok=True)
    if not (runtime / f"{SERVER}.key_secret").exists():
        _create(runtime, SERVER)
    return runtime


def make_client(folder: Path, name: str) -> Path:
    """A new client's key folder; its public key is allowed at the runtime."""
    client, runtime = folder / name, folder / "runtime"
    if client.exists():
        raise KeysError(f"{client}: there already; delete it first to give {name} new keys")
    client.mkdir()
    shutil.move(_create(client, name), runtime / CLIENTS / f"{name}.key")
    shutil.copy(runtime / f"{SERVER}.key", client)
    return client


def _create(folder: Path, name: str) -> str:
    """Make a pair of keys, the secret one for its owner's eyes alone; the public one's path."""
    before = os.umask(0o077)
    try:
        return create_certificates(folder, name)[0]
    finally:
        os.umask(before)


if __name__ == "__main__":
    sys.exit(main())
