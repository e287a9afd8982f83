"""``python -m export.sign --bundle DIR --key FILE``: sign a bundle; ``--new-key`` makes the key."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from robult_edge import bundle, signature
from robult_edge.errors import RobultError


def main(argv: Sequence[str] | None = None) -> int:
    """Sign, or make a key; 2 when the bundle or the key is unusable."""
    parser = argparse.ArgumentParser(prog="python -m export.sign", description=__doc__)
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the secret key")
    parser.add_argument("--new-key", action="store_true", help="make FILE, and FILE.pub beside it")
    parser.add_argument("--bundle", metavar="DIR", help="the bundle, or the parent of its engines/")
    args = parser.parse_args(argv)
    if not args.new_key and args.bundle is None:
        parser.error("name a --bundle to sign, or make a --new-key")
    try:
        if args.new_key:
            public = signature.new_key(args.key)
            print(f"{args.key} is secret; serve with --bundle-key {public}")
        if args.bundle is not None:
            path = _whole(args.bundle)
            manifest = (path / bundle.MANIFEST).read_bytes()
            bundle.replace(path / signature.SIGNATURE, signature.sign(manifest, args.key))
            print(f"signed {path / bundle.MANIFEST}")
    except RobultError as error:
        print(f"export.sign: {error}", file=sys.stderr)
        return 2
    return 0


def _whole(directory: str) -> Path:
    """Where a bundle lies whose every file is as its manifest says: what is broken is not signed.

    Raises:
        BundleError: it is not.
    """
    found = bundle.load(directory)
    for engine in bundle.engines(found.manifest):
        found.plan(engine)
    return found.path


if __name__ == "__main__":
    sys.exit(main())
