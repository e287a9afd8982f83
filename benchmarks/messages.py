"""Messages as one string of bytes, and any bytes as messages: what a fuzzer turns over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MOST_PARTS = 4
"""One more than a frame has."""


def pack(messages: Iterable[tuple[int, list[bytes]]]) -> bytes:
    """Messages with the time in ms (below 65,536) before each.

    Each is its time, its number of parts, less one, and its parts, each after its length.
    """
    packed = bytearray()
    for wait_ms, parts in messages:
        packed += wait_ms.to_bytes(2, "little")
        packed.append(len(parts) - 1)
        for part in parts:
            packed += len(part).to_bytes(2, "little") + part
    return bytes(packed)


def unpack(data: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """What `pack` packed; of any other bytes, what they can be taken for."""
    at = 0
    while at + 3 <= len(data):
        wait_ms, count = int.from_bytes(data[at : at + 2], "little"), data[at + 2] % MOST_PARTS + 1
        at += 3
        parts = []
        for _ in range(count):
            size = int.from_bytes(data[at : at + 2], "little")
            parts.append(data[at + 2 : at + 2 + size])
            at += 2 + size
        yield wait_ms, parts
