"""The floor: the least a server can do. One ZeroMQ hop in, the tick's bare graph runs, one hop out.

No windows, no states, no checks, no metrics: M frames are read and thrown away, M branches and the
fusion head run on bound buffers, and a result's worth of bytes goes out.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import zmq

from robult_edge import bundle
from runtime.backends.onnxruntime import OnnxRuntimeBackend

RESULT_BYTES = 1024


def main() -> int:
    """Answer every M frames until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", required=True)
    parser.add_argument("--frames", required=True)
    parser.add_argument("--results", required=True)
    args = parser.parse_args()
    loaded = bundle.load(args.engines)
    manifest = loaded.manifest
    branches = [OnnxRuntimeBackend(loaded.file(b.onnx)) for b in manifest.branches]
    head = OnnxRuntimeBackend(loaded.file(manifest.head.onnx))
    windows = [np.zeros((1, *m.window_shape), np.float32) for m in manifest.modalities]
    h = np.zeros((1, len(branches), manifest.width), np.float32)
    alive = np.ones((1, len(branches)), bool)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    frames, results = context.socket(zmq.SUB), context.socket(zmq.PUB)
    frames.subscribe(b"")
    frames.bind(args.frames)
    results.bind(args.results)
    print("ready", flush=True)
    while True:
        for _ in branches:
            frames.recv_multipart()
        for branch, window in zip(branches, windows, strict=True):
            branch.run(window)
        head.run(h, alive)
        results.send_multipart([b"floor\0", bytes(RESULT_BYTES)])


if __name__ == "__main__":
    sys.exit(main())
