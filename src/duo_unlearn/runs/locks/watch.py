"""Whether a process lives: seen at once on the same machine, else by a heartbeat that changes while one looks.

No clock of another machine is read, and no time of the file system: Lustre's clients write their own into a file, and
NFS keeps a file's times for up to a minute. What is compared is the content, over the looker's monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from .process import Process

BEAT: Final = 5.0
"""Seconds between two heartbeats of a process."""
SIGN: Final = 3 * BEAT
"""Seconds within which a process that lives gives a sign of life."""
DEAD_AFTER: Final = 60.0
"""Seconds without a sign of life after which another process may take over."""
LOOKS: Final = 4
"""How many looks at least these seconds are spread over."""


class Stand(Enum):
    """What is known of a process."""

    LIVES = "lives"
    SILENT = "silent"
    """It gave no sign of life for a while, and is not dead by that yet."""
    UNKNOWN = "unknown"
    """It was not looked at for long enough."""
    DEAD = "dead"


class _Seen(NamedTuple):
    content: bytes | None
    changed: bool
    silent: float
    at: float


class Watch:
    """What this process saw of others' heartbeats. It is kept from one look to the next.

    sign, dead_after: seconds, see SIGN and DEAD_AFTER.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, sign: float = SIGN, dead_after: float = DEAD_AFTER
    ) -> None:
        self.clock, self.sign, self.dead_after = clock, sign, dead_after
        self._seen: dict[Path, _Seen] = {}

    def stand(self, process: Process | None, heartbeat: Path) -> Stand:
        """Whether a process lives. heartbeat: its file, whose content changes; None: who it is was not written yet."""
        gone = None if process is None else process.is_gone()
        if gone is not None:
            return Stand.DEAD if gone else Stand.LIVES
        seen = self._look(heartbeat)
        if seen.silent >= self.dead_after:
            return Stand.DEAD
        if seen.silent >= self.sign:
            return Stand.SILENT
        return Stand.LIVES if seen.changed else Stand.UNKNOWN

    def _look(self, path: Path) -> _Seen:
        try:
            content = path.read_bytes()
        except OSError:
            content = None  # a file that is away is no sign of life
        now, old = self.clock(), self._seen.get(path)
        if old is None:
            seen = _Seen(content, changed=False, silent=0.0, at=now)
        elif content is not None and content != old.content:
            seen = _Seen(content, changed=True, silent=0.0, at=now)
        else:
            # A long time between two looks counts as a part of the seconds: this process, or the file system for all,
            # may have stood still, and then the other could not show that it lives.
            silent = old.silent + min(now - old.at, self.dead_after / LOOKS)
            seen = old._replace(silent=silent, at=now)
        self._seen[path] = seen
        return seen
