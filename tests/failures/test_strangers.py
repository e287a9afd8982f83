"""Clients with keys, without, and with unknown ones; messages too large: over real sockets."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from robult_edge import frames, results
from robult_edge.bundle import Bundle
from robult_edge.curve import client_socket
from robult_edge.data.replay import Replay
from robult_edge.errors import KeysError
from robult_edge.frames import Frame, SensorPublisher
from runtime import keys
from runtime.config import Config
from runtime.policy import Policy
from runtime.server import Server
from tests.failures.live import PATIENT, TOKEN, Message, playing, serving

SHAKEN = zmq.Event.HANDSHAKE_SUCCEEDED
REFUSED = (
    zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
    | zmq.Event.DISCONNECTED
)
FRAME = frames.encode(Frame("acc", "wrist", 0, 0, np.zeros((5, 3), np.float32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of a runtime and one client that it allows."""
    assert keys.main([str(tmp_path / "keys"), "--client", "wrist"]) == 0
    return tmp_path / "keys"


@contextmanager
def guarded(shipped: Bundle, folder: Path) -> Iterator[Server]:
    policy = Policy(curve_keys=str(folder / "runtime"))
    anywhere = "tcp://127.0.0.1:*"
    config = Config(str(shipped.path), frames=anywhere, results=anywhere, policy=policy)
    with closing(Server(config, shipped)) as server:
        yield server


def outcome(kind: int, address: str, client_keys: Path | None) -> zmq.Event:
    """How the handshake of a client ends that connects with these keys."""
    socket = client_socket(kind, client_keys)
    events = socket.get_monitor_socket(SHAKEN | REFUSED)
    socket.connect(address)
    try:
        assert events.poll(10_000), "no handshake in 10 s"
        return recv_monitor_message(events)["event"]
    finally:
        socket.disable_monitor()
        events.close(linger=0)
        socket.close(linger=0)


def test_a_client_with_allowed_keys_sends_frames_and_reads_results(
    shipped: Bundle, folder: Path
) -> None:
    mine = folder / "wrist"
    reader = client_socket(zmq.SUB, mine)
    with guarded(shipped, folder) as server, closing(reader):
        reader.subscribe(b"")
        reader.connect(server.results_address)
        with SensorPublisher("acc", "wrist", server.frames_address, curve_keys=mine) as sensor:
            give_up = time.monotonic() + 20
            while not reader.poll(0):
                assert time.monotonic() < give_up, "no result in 20 s"
                sensor.send(np.zeros((1, 3), np.float32))
                server.turn(0.05)
        assert results.decode(reader.recv_multipart()).source == "wrist"


@pytest.mark.parametrize("kind", [zmq.PUB, zmq.SUB], ids=["sensor", "consumer"])
@pytest.mark.parametrize(
    "stranger", ["without keys", "unknown", "of another runtime", "locked out"]
)
def test_a_stranger_is_refused(
    shipped: Bundle, folder: Path, tmp_path: Path, kind: int, stranger: str
) -> None:
    theirs: Path | None = folder / "wrist"
    if stranger == "without keys":
        theirs = None
    elif stranger == "unknown":  # it knows the runtime's public key, as everybody may
        keys.main([str(tmp_path / "other"), "--client", "wrist"])
        theirs = tmp_path / "other" / "wrist"
        (theirs / "server.key").write_bytes((folder / "runtime" / "server.key").read_bytes())
    elif stranger == "of another runtime":
        keys.main([str(tmp_path / "other"), "--client", "wrist"])
        theirs = tmp_path / "other" / "wrist"
    else:
        keys.main([str(folder), "--client", "another"])
        (folder / "runtime" / "clients" / "wrist.key").unlink()
    with guarded(shipped, folder) as server:
        address = server.frames_address if kind == zmq.PUB else server.results_address
        assert outcome(kind, address, theirs) & REFUSED
        assert outcome(kind, address, theirs) & REFUSED, "and again"


def test_while_nobody_can_say_who_is_allowed_nobody_is(shipped: Bundle, folder: Path) -> None:
    with guarded(shipped, folder) as server:
        assert outcome(zmq.PUB, server.frames_address, folder / "wrist") == SHAKEN
        assert server._gate is not None
        server._gate.close()
        assert outcome(zmq.PUB, server.frames_address, folder / "wrist") & REFUSED


def test_a_client_with_keys_does_not_talk_to_a_runtime_without(
    shipped: Bundle, folder: Path
) -> None:
    with serving(shipped.path) as served:
        assert outcome(zmq.PUB, served.frames, folder / "wrist") & REFUSED


def test_secret_keys_are_their_owners_alone(folder: Path) -> None:
    secrets = list(folder.rglob("*.key_secret"))
    assert {s.name for s in secrets} == {"server.key_secret", "wrist.key_secret"}
    assert all(s.stat().st_mode & 0o077 == 0 for s in secrets)
    runtime_has = {f.name for f in (folder / "runtime").rglob("*") if f.is_file()}
    assert runtime_has == {"server.key", "server.key_secret", "wrist.key"}, "no client's secret"


def test_keys_are_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert keys.main([str(folder), "--client", "wrist"]) == 2
    assert "wrist: there already" in capsys.readouterr().err
    assert before == {f: f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("name", ["../evil", "", "runtime", "a/b"])
def test_a_client_whose_name_is_no_name_gets_no_keys(tmp_path: Path, name: str) -> None:
    assert keys.main([str(tmp_path), "--client", name]) == 2


def test_a_client_without_its_key_is_told_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"0 files \*\.key_secret; .* python -m runtime\.keys"):
        SensorPublisher("acc", curve_keys=tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--frames", "tcp://0.0.0.0:0"], "--frames tcp://0.0.0.0:0 can be reached"),
        (["--results", "tcp://*:0"], "--results tcp://*:0 can be reached"),
        (["--http", "0.0.0.0:0"], "--http 0.0.0.0 can be reached"),
        (["--curve-keys", "nowhere"], "nowhere/server.key_secret: no key"),
        (["--http-token-file", "nowhere"], "--http-token-file nowhere: No such file"),
    ],
)
def test_serve_refuses_what_is_not_safe_in_one_sentence(
    shipped: Bundle, options: list[str], says: str
) -> None:
    anywhere = ["--frames", "tcp://127.0.0.1:*", "--results", "tcp://127.0.0.1:*"]
    done = subprocess.run(
        [sys.executable, "-m", "runtime.serve", "--engines", shipped.path,
         "--http", "127.0.0.1:0", *anywhere, *options],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("runtime.serve: ")
    assert says in done.stderr


def test_post_wants_the_token_and_get_does_not(shipped: Bundle, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    with serving(shipped.path, "--http-token-file", str(tmp_path / "token")) as served:
        assert served.ask("/status", token="")[0] == 200
        assert served.ask("/reload", "POST", token=TOKEN[::-1])[0] == 401
        assert served.status()["reload"] is None
        assert served.ask("/reload", "POST")[0] == 200


def test_a_message_larger_than_any_frame_costs_its_sender_the_connection_and_nobody_else(
    shipped: Bundle, replay: Replay
) -> None:
    largest = frames.largest_part_bytes(shipped.manifest.modalities)
    stranger: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUB)
    cut = stranger.get_monitor_socket(zmq.Event.DISCONNECTED)
    sent = []

    def one_is_huge(modality: str, frame: Frame) -> list[Frame | Message]:
        if not sent and frame.seq > 20:
            sent.append(stranger.send_multipart([*FRAME[:2], bytes(largest + 1)]))
        return [frame]

    with serving(shipped.path, *PATIENT) as served, playing(served, replay) as player:
        stranger.connect(served.frames)
        player.play(9, one_is_huge)
        status = served.status()
        assert cut.poll(5000), "the connection was cut"
        assert all(a.decision == "ok" for a in served.answers if a.seq >= 4)
    assert "wrist" not in status["sources"]
    assert status["frames_rejected"] == {}
    stranger.disable_monitor()
    cut.close(linger=0)
    stranger.close(linger=0)
