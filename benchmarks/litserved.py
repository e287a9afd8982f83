"""The peer: a bundle's branches and their mean late fusion, served by LitServe on one worker.

The graphs run as `runtime.serve` runs them: the same backend, the same session options. A request
is one rig's windows as float32, modality after modality; the answer is K float32 probabilities.
Both are bytes, which costs LitServe less than the JSON or the form that its guide shows.

``fast_queue`` is what its guide advises for many requests; 0.2.19 ignores it (LitServe issue 751).
"""

# Annotations must be values here: LitServe hands them on to FastAPI.

import argparse
import sys
from typing import Annotated

import numpy as np
from fastapi import Body
from litserve import LitAPI, LitServer
from starlette.responses import Response

from robult_edge import bundle, fusion, subsets
from runtime.backends.onnxruntime import OnnxRuntimeBackend

BYTES = "application/octet-stream"


class Branches(LitAPI):
    """Windows to probabilities.

    Args:
        engines: the bundle, or the parent of its engines/.
        batch: most requests that are answered together; 1 for the least latency.
    """

    def __init__(self, engines: str, batch: int) -> None:
        self.engines, self.many = engines, batch > 1
        super().__init__(max_batch_size=batch)  # no batch_timeout is fastest: it takes what waits

    def setup(self, device: str) -> None:
        loaded = bundle.load(self.engines)
        manifest = loaded.manifest
        self.branches = [OnnxRuntimeBackend(loaded.file(b.onnx)) for b in manifest.branches]
        self.shapes = [m.window_shape for m in manifest.modalities]
        self.starts = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1]
        self.temperatures = np.array([[b.temperature] for b in manifest.branches], np.float32)
        full = subsets.full(len(manifest.names))
        self.weights = np.array(manifest.entry("mean", full).weights, np.float32)

    def decode_request(self, request: Annotated[bytes, Body(media_type=BYTES)]) -> np.ndarray:
        return np.frombuffer(request, np.float32)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Probabilities [B, K] of requests [B, n], or [K] of one [n]."""
        parts = np.split(np.atleast_2d(x), self.starts, axis=1)
        logits = [
            branch.run(part.reshape(-1, *shape))[0]
            for branch, part, shape in zip(self.branches, parts, self.shapes, strict=True)
        ]
        p = fusion.mean(np.stack(logits, axis=1) / self.temperatures, self.weights)
        return p if self.many else p[0]

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> Response:
        return Response(output.tobytes(), media_type=BYTES)


def main() -> int:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    server = LitServer(Branches(args.engines, args.batch), accelerator="cpu", fast_queue=True)
    server.run(
        host="127.0.0.1", port=args.port, num_api_servers=1, generate_client_file=False,
        log_level="warning", access_log=False,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
