"""One sensor's state, and the reason in a technician's words. A pure state machine: no clock.

absent → alive ⇄ stale, alive ⇄ faulty. Leaving alive is immediate; returning needs a full clean
window, of a sensor that has lied a stricter one, and more of them each time it lies again soon
(`runtime.stream`).
"""

from __future__ import annotations

from robult_edge.modality import ModalitySpec
from robult_edge.results import State


class Liveness:
    """The state of one sensor.

    Attributes:
        state: absent, alive, stale or faulty.
        reason: why.
        fresh_ns: when the newest fresh frame was received, 0 before the first. Only new data count:
            a repeated or late frame refreshes nothing.
    """

    def __init__(self, spec: ModalitySpec) -> None:
        self.state: State = "absent"
        self.reason = "no frames yet"
        self.fresh_ns = 0
        self._timeout_ns = int(spec.timeout_s * 1e9)

    @property
    def alive(self) -> bool:
        """Whether answers may rest on this sensor."""
        return self.state == "alive"

    def heard(self, now_ns: int) -> bool:
        """Whether new data came within the timeout."""
        return self.fresh_ns > 0 and now_ns - self.fresh_ns <= self._timeout_ns

    def fresh(self, now_ns: int) -> None:
        """New data came."""
        self.fresh_ns = now_ns

    def clean_window(self) -> None:
        """A whole, plausible window is at hand."""
        self.state, self.reason = "alive", "frames on time and plausible"

    def lie(self, reason: str) -> None:
        """The newest data cannot be believed."""
        self.state, self.reason = "faulty", reason

    def broken_window(self, filled: float, gap: str | None) -> None:
        """Frames come, but the window is not whole: ``filled`` of it is, since ``gap`` if any."""
        percent = f"{int(100 * filled)} % of a clean window"
        if self.state == "alive":
            self.state, self.reason = "faulty", f"{gap or 'gap'}; {percent}"
        elif self.state == "absent":
            self.reason = f"starting: {percent}"
        else:
            self.reason = f"{self.reason.split(';')[0]}; back with {percent}"

    def silence(self, now_ns: int) -> None:
        """Look at the clock: has the sensor been silent for longer than its timeout?"""
        quiet_ns = now_ns - self.fresh_ns
        if self.fresh_ns and quiet_ns > self._timeout_ns:
            self.state, self.reason = "stale", f"no frames for {quiet_ns / 1e9:.1f} s"
