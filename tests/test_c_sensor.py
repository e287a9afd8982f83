"""The sensor in C: its headers and frames are read as docs/PROTOCOL.md says."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zmq

from robult_edge import frames
from robult_edge.frames import Frame, decode, topic
from robult_edge.modality import ModalitySpec

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
STRICT = ("-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{EXAMPLES}")


def spec(name: str, channels: int) -> ModalitySpec:
    return ModalitySpec(
        name=name,
        channels=tuple(f"c{i}" for i in range(channels)),
        unit="g",
        rate_hz=50.0,
        window=512,
        hop=128,
        timeout_s=1.0,
    )


@pytest.fixture(scope="module")
def cc() -> str:
    found = shutil.which("cc")
    if found is None:
        pytest.skip("no C compiler")
    return found


def compiled(cc: str, source: Path, target: Path, *libraries: str) -> Path:
    command = [cc, *STRICT, "-o", str(target), str(source), *libraries]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def print_header(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = ROOT / "tests" / "native" / "print_header.c"
    return compiled(cc, source, tmp_path_factory.mktemp("c") / "print_header")


@pytest.fixture(scope="module")
def sensor(cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    probe = subprocess.run(
        [cc, "-E", "-"], input=b"#include <zmq.h>\n", capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip("no zmq.h; apt-get install libzmq3-dev")
    target = tmp_path_factory.mktemp("c") / "sensor"
    return compiled(cc, EXAMPLES / "sensor.c", target, "-lzmq", "-lm")


@pytest.mark.parametrize("dtype", list(frames.DTYPES))
@pytest.mark.parametrize(
    ("source", "seq", "t_ns", "n", "channels"),
    [
        ("r", 0, 0, 1, 1),
        ("wrist-1", 7, 1_700_000_000_000_000_000, 5, 3),
        ("Prüfstand-" + "ü" * 118, (1 << 63) - 1, frames.MAX_TIME_NS - 1, 300, 17),
        ("s" * 32, 128, 1 << 32, 256, 128),
    ],
)
def test_header_decodes(
    print_header: Path, source: str, seq: int, t_ns: int, dtype: str, n: int, channels: int
) -> None:
    fields = (source, seq, t_ns, dtype, n, channels)
    header = subprocess.run(
        [print_header, *map(str, fields)], capture_output=True, check=True
    ).stdout
    assert len(header) <= len(source.encode()) + 64
    payload = bytes(frames.DTYPES[dtype].itemsize * n * channels)
    frame = decode([b"acc\0", header, payload], {topic("acc"): spec("acc", channels)})
    assert (frame.source, frame.seq, frame.t_ns) == (source, seq, t_ns)
    assert frame.samples.shape == (n, channels)


def test_encoder_fits_in_twenty_lines() -> None:
    text = (EXAMPLES / "robult_frame.h").read_text()
    function = text.partition("static inline size_t robult_header")[2].partition("\n}\n")[0]
    assert len(function.splitlines()) < 20


def test_frames_arrive(sensor: Path) -> None:
    count, modalities = 10, {topic("acc"): spec("acc", 3)}
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        socket.subscribe(topic("acc"))
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        command = [str(sensor), f"tcp://127.0.0.1:{port}", "wrist-1", str(count)]
        with subprocess.Popen(command) as process:
            got: list[Frame] = []
            while not got or got[-1].seq < count - 1:
                got.append(decode(socket.recv_multipart(), modalities))
            assert process.wait(10) == 0
    seqs = np.array([frame.seq for frame in got])
    assert len(got) >= 3  # the first ones may go out before the subscription is in
    assert (np.diff(seqs) == 1).all()
    assert {frame.source for frame in got} == {"wrist-1"}
    t = np.array([frame.t_ns for frame in got])
    assert (np.diff(t) > 0).all()
    assert abs((t[-1] - t[0]) / (seqs[-1] - seqs[0]) - 100e6) < 20e6
    samples = np.concatenate([frame.samples for frame in got])
    angle = 2 * np.pi * (np.arange(len(samples)) + 5 * seqs[0]) / 50
    want = np.stack([np.sin(angle), np.cos(angle), np.ones_like(angle)], axis=1)
    np.testing.assert_allclose(samples, want, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "sensor: nonsense: Invalid argument\n"),
        (["tcp://127.0.0.1:9", "s" * 513], "sensor: SOURCE is longer than 512 bytes\n"),
    ],
)
def test_says_what_is_wrong(sensor: Path, arguments: list[str], message: str) -> None:
    done = subprocess.run(
        [sensor, *arguments], capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    assert (done.returncode, done.stderr) == (1, message)
