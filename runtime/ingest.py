"""Bytes to checked frames; what is refused is counted by reason and named in the log."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

from robult_edge import frames
from robult_edge.errors import FrameError
from robult_edge.modality import ModalitySpec

log = logging.getLogger("robult.ingest")

LOG_EVERY_S = 10.0


class Ingest:
    """Reads frames and keeps count.

    Attributes:
        received: frames accepted.
        rejected: frames refused, by reason.
        last_error: the newest refusal of each reason, in words.
    """

    def __init__(self, modalities: Sequence[ModalitySpec]) -> None:
        self.received = 0
        self.rejected: Counter[str] = Counter()
        self.last_error: dict[str, str] = {}
        self._logged: dict[str, float] = {}
        self.adopt(modalities)

    def adopt(self, modalities: Sequence[ModalitySpec]) -> None:
        """Accept frames of these modalities from now on."""
        self._by_topic = {frames.topic(m.name): m for m in modalities}

    def read(self, parts: Sequence[bytes]) -> frames.Frame | None:
        """The frame in a message; None when it is refused, which is counted."""
        try:
            frame = frames.decode(parts, self._by_topic)
        except FrameError as error:
            self.refuse(error)
            return None
        self.received += 1
        return frame

    def refuse(self, error: FrameError) -> None:
        """Count a frame that cannot be used; log each reason at most every `LOG_EVERY_S`."""
        self.rejected[error.reason] += 1
        self.last_error[error.reason] = str(error)
        now = time.monotonic()
        if now - self._logged.get(error.reason, -LOG_EVERY_S) >= LOG_EVERY_S:
            self._logged[error.reason] = now
            log.warning(
                "frame refused (%s, %d so far): %s",
                error.reason,
                self.rejected[error.reason],
                error,
            )
