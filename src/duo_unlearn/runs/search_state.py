"""The state of a long search on disk, so that a killed one goes on where it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import DuoError
from ..storage.files import read_tensors, set_aside, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

EVERY: Final = 20.0
"""How many seconds lie between two writes at least."""


class SearchState:
    """A file that holds where a search is. path: None keeps nothing. key: what decides the search's course.

    every, clock: seconds between two writes, and what tells them.
    """

    def __init__(
        self, path: Path | None, key: str = "", *, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self.key, self.every, self.clock = path, key, every, clock
        self.last = clock()

    def restore(self) -> tuple[int, dict[str, Tensor]] | None:
        """The step after which it was written, and its tensors; None where there is nothing of this search."""
        if self.path is None or not self.path.exists():
            return None
        try:
            tensors, metadata = read_tensors(self.path)
            step = int(metadata.get("step", ""))
        except (DuoError, ValueError):
            if self.path.exists():  # else another process has ended the search meanwhile
                set_aside(self.path)
            return None
        return (step, tensors) if metadata.get("key") == self.key else None

    def offer(self, step: int, tensors: Callable[[], Mapping[str, Tensor]]) -> None:
        """Write the state after a step, when enough time has gone by since the last one."""
        if self.path is not None and self.clock() - self.last >= self.every:
            write_tensors(self.path, tensors(), {"step": str(step), "key": self.key})
            self.last = self.clock()

    def clear(self) -> None:
        """Delete the file: the search has ended, and what it found is kept elsewhere."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


NO_STATE: Final = SearchState(None)
"""A search that is over soon keeps nothing."""
