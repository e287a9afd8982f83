"""Engines built here for a bundle that must not change, in a folder of the runtime's own.

A signed bundle stays as it was signed, and a bundle may lie where nothing can be written. So the
folder holds a copy of it, which ``python -m export.tensorrt`` fills as it does any bundle. Nothing
is ever taken from there but engines whose key names a graph of the bundle that is served; they have
to pass its golden vectors as all engines have. And nothing is taken that somebody else may have
put there: the folder must belong to the runtime's user, or root, and be writable by no other.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from pathlib import Path

import msgspec

from robult_edge import bundle
from robult_edge.bundle import Branch, Bundle, Head, Manifest
from robult_edge.errors import EngineError, RobultError
from runtime.config import Config

log = logging.getLogger("robult.enginecache")


def load(config: Config) -> Bundle:
    """The bundle to serve, with the engines that were built for it here.

    Raises:
        BundleError: the bundle is damaged, or not signed as it should be.
    """
    found = bundle.load(config.engines, config.bundle_key)
    return found if config.engine_cache is None else joined(found, Path(config.engine_cache))


def joined(found: Bundle, folder: Path) -> Bundle:
    """The bundle with the engines that lie in ``folder``; without, where they cannot be trusted."""
    if not (folder / bundle.MANIFEST).is_file():
        return found
    try:
        check_private(folder)
        cached = bundle.load(folder).manifest
    except (RobultError, OSError) as error:
        log.warning("%s is left out: %s", folder, error)
        return found
    by_graph = {graph.onnx: graph.engines for graph in _graphs(cached)}
    graphs = [
        msgspec.structs.replace(graph, engines=(*graph.engines, *by_graph.get(graph.onnx, ())))
        for graph in _graphs(found.manifest)
    ]
    return Bundle(found.path, _with_graphs(found.manifest, graphs), folder)


def prepare(found: Bundle, folder: Path) -> Path:
    """Have ``folder`` ready to be filled with engines of the bundle; the folder.

    Raises:
        EngineError: it cannot be written, or others may write it too.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(folder)
        bare = [msgspec.structs.replace(g, engines=()) for g in _graphs(found.manifest)]
        manifest = _with_graphs(found.manifest, bare)
        if not _is_of(folder, manifest):
            _empty(folder)
            for ref in bundle.vital_files(manifest):
                shutil.copyfile(found.file(ref), folder / ref.file)
            bundle.write_manifest(folder, manifest)
    except OSError as error:
        raise EngineError(f"{folder} cannot be filled: {error.strerror}") from None
    return folder


def check_private(folder: Path) -> None:
    """Raise an `EngineError` where others may have put something into the folder."""
    state = folder.stat()
    if state.st_uid not in (0, os.geteuid()):
        raise EngineError(f"{folder} belongs to another user; name one of the runtime's own")
    if state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise EngineError(f"{folder} may be written by others; mend: chmod go-w {folder}")


def _is_of(folder: Path, manifest: Manifest) -> bool:
    """Whether the folder holds a whole copy of this bundle, whichever engines it has."""
    try:
        there = bundle.load(folder).manifest
    except RobultError:
        return False
    bare = [msgspec.structs.replace(graph, engines=()) for graph in _graphs(there)]
    return _with_graphs(there, bare) == manifest


def _empty(folder: Path) -> None:
    """Remove the copy of another bundle: what its manifest names, and no more."""
    try:
        refs = bundle.files(bundle.load(folder).manifest)
    except RobultError:
        return
    (folder / bundle.MANIFEST).unlink()
    for ref in refs:
        (folder / ref.file).unlink(missing_ok=True)


def _graphs(manifest: Manifest) -> tuple[Branch | Head, ...]:
    return (*manifest.branches, manifest.head)


def _with_graphs(manifest: Manifest, graphs: list[Branch | Head]) -> Manifest:
    return msgspec.structs.replace(manifest, branches=tuple(graphs[:-1]), head=graphs[-1])
