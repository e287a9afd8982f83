"""Engines that the bundle lacks for this machine's GPU, built beside the server while it answers.

Export builds them, in a process of its own and of the lowest priority, and notes them in the
bundle, or in the copy that `runtime.enginecache` keeps where the bundle must not change. Then the
bundle is read again (`runtime.reload`), which proves every engine and swaps them in between two
turns.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread
from typing import TYPE_CHECKING, get_args

from robult_edge import nvidia, signature
from robult_edge.bundle import Branch, Bundle, Flavour, Head
from robult_edge.errors import EngineError, RobultError
from runtime import enginecache
from runtime.backends import tensorrt
from runtime.config import Config

if TYPE_CHECKING:
    from runtime.server import Server

log = logging.getLogger("robult.builder")

COMMAND = (sys.executable, "-m", "export.tensorrt")
NICENESS = 19
RELOAD_AGAIN_S = 1.0
"""When to ask again for a reload while another one is under way."""
STOP_S = 2.0
"""How long stopping waits for the build to end."""


class Builder:
    """Has a server's missing engines built, once, on a thread that waits for it.

    Attributes:
        said: why nothing is built, what is being built, or how that ended.
    """

    def __init__(self, server: Server) -> None:
        self.said = "not started"
        self._server = server
        self._stopped = Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = Thread(target=self._work, name="builder", daemon=True)

    def start(self) -> None:
        """Begin, unless there is no GPU."""
        try:
            nvidia.gpu()
        except EngineError as error:
            self.said = f"off: {error}"
        else:
            self._thread.start()

    def stop(self) -> None:
        """End the build, if one is under way; what it has finished stays in the bundle."""
        self._stopped.set()
        if self._process is not None:
            self._process.terminate()
        if self._thread.ident is not None:
            self._thread.join(STOP_S)

    def _work(self) -> None:
        try:
            self._say(self._build())
        except Exception as error:  # whatever it is, the server goes on with what it has
            log.exception("no engines are built")
            self._say(f"failed: {error}")

    def _say(self, said: str) -> None:
        self.said = said
        log.info("%s", said)

    def _build(self) -> str:
        """Build and swap in; how that ended."""
        config = self._server.config
        found = enginecache.load(config)
        try:
            wanted = _wanted()
        except RobultError as error:
            return f"off: {error}"
        missing = lacking(found, wanted)
        if not missing:
            return "nothing to build: every graph has an engine for this machine"
        try:
            where = place(found, config)
        except RobultError as error:
            return f"off: {error}"
        self._say(f"building for {', '.join(missing)}")
        failure = self._run(where, wanted.flavour)
        if self._stopped.is_set():
            return "stopped"
        still = lacking(enginecache.load(config), wanted)
        built = [name for name in missing if name not in still]
        if not built:
            return f"failed: {failure or 'no engine fits this machine'}"
        refused = self._reload()
        if refused:
            return f"failed: engines are built, and the bundle is refused: {refused}"
        but = f"; {failure}" if failure else ""
        return f"built for {', '.join(built)}{but}"

    def _run(self, where: Path, flavour: Flavour) -> str:
        """Run the build, passing on what it prints; why it failed, empty if it did not."""
        command = [*COMMAND, "--bundle", str(where), "--flavour", flavour]
        with TemporaryFile("w+") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            self._process = process
            # Not preexec_fn, which may deadlock where there are threads.
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
            if self._stopped.is_set():
                process.terminate()
            assert process.stdout is not None
            with process.stdout as lines:
                for line in lines:
                    self._say(f"building: {line.strip()}")
            code = process.wait()
            errors.seek(0)
            said = [line.strip() for line in errors if line.strip()]
        if not code:
            return ""
        return said[-1] if said else f"the build ended with {code}"

    def _reload(self) -> str | None:
        """Have the bundle on disk served; why it is not."""
        while (future := self._server.reloader.start("builder")) is None:
            if self._stopped.wait(RELOAD_AGAIN_S):
                return "the server stops"
        return future.result().error


def place(found: Bundle, config: Config) -> Path:
    """Where the bundle's engines are to be built.

    Raises:
        EngineError: nowhere, and why.
    """
    if config.engine_cache is not None:
        return enginecache.prepare(found, Path(config.engine_cache))
    mend = "serve with --engine-cache DIR, or build with python -m export.tensorrt"
    if config.bundle_key or (found.path / signature.SIGNATURE).is_file():
        raise EngineError(f"engines would change the signed manifest; {mend} and sign again")
    if not os.access(found.path, os.W_OK):
        raise EngineError(f"{found.path} cannot be written; {mend}")
    return found.path


def lacking(found: Bundle, wanted: nvidia.Target) -> list[str]:
    """Graphs without a whole engine for ``wanted``, of whichever precision."""
    manifest = found.manifest
    entries: tuple[Branch | Head, ...] = (*manifest.branches, manifest.head)
    return [
        name
        for name, entry in zip((*manifest.names, "fusion head"), entries, strict=True)
        if all(
            nvidia.misfit(engine, entry.onnx.sha256, wanted) or found.flaw(engine)
            for engine in entry.engines
        )
    ]


def _wanted() -> nvidia.Target:
    """What engines must be for here, by the first TensorRT that is installed.

    Raises:
        RobultError: none is, or nothing to run it with.
    """
    first, *others = get_args(Flavour)
    try:
        return tensorrt.here(first)
    except RobultError:
        for flavour in others:
            with suppress(RobultError):
                return tensorrt.here(flavour)
        raise  # the first is what most are after
