"""The timeline of alerts: time that no clock step moves. No I/O.

Windows are measured on it. It advances with the machine's boot clock, which also runs while the machine is suspended.
It continues after a restart of the process. After a restart of the machine it continues by the wall clock.
"""

from __future__ import annotations

from typing import NamedTuple

from outfeed.clock import Reading

# A smaller difference between the clocks is a correction of the wall clock's rate.
STEP_SECS = 2.0


class Timeline(NamedTuple):
    """A moment of the timeline, in seconds, with the clocks at that moment.

    *ahead* is how far the timeline is ahead of the wall clock. Events that are not yet evaluated are not older than
    *evaluated*. *is_stepped* says that the wall clock was set since the moment before, or may have been.
    """

    now: float
    boot: float
    boot_id: str
    ahead: float
    evaluated: float
    is_stepped: bool = False

    @classmethod
    def starting(cls, reading: Reading) -> Timeline:
        """Return the first moment of a new timeline, at the wall time."""
        return cls(reading.wall, reading.boot, reading.boot_id, 0.0, 0.0)

    def moved_to(self, reading: Reading) -> Timeline:
        """Return the moment of *reading*, which never lies before this one."""
        is_same_boot = reading.boot_id == self.boot_id
        if is_same_boot:
            now = self.now + max(0.0, reading.boot - self.boot)
        else:
            now = max(self.now, reading.wall + self.ahead)
        ahead = now - reading.wall
        is_stepped = not is_same_boot or abs(ahead - self.ahead) > STEP_SECS
        return Timeline(now, reading.boot, reading.boot_id, ahead, self.evaluated, is_stepped)

    def with_event(self, wall: float | None) -> Timeline:
        """Return the moment with an event of that wall time evaluated.

        Its place is *evaluated* of the result: between that of the event before and now. None is an unknown time.
        """
        place = self.evaluated if wall is None else round(wall + self.ahead, 3)  # the rows have milliseconds
        return self._replace(evaluated=min(self.now, max(self.evaluated, place)))

    def with_all_events(self) -> Timeline:
        """Return the moment with all events until now evaluated."""
        return self._replace(evaluated=self.now)
