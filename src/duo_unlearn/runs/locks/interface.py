"""What both forms of locks have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Locks(Protocol):
    """Named locks among the processes of a folder. A process that dies lets go of all that it holds."""

    def hold(
        self, name: str, *, shared: bool = False, wait: bool = False, sure: bool = False
    ) -> AbstractContextManager[bool]:
        """Hold a lock inside the block; False where another has it. name: may have a folder, as in "claims/judge".

        shared: together with other shared holders. wait: until it is free. sure: before it gives False, make sure that
        the other still lives, which may take a minute. OSError: the folder cannot be written.
        """
        ...

    def owner(self, name: str) -> str:
        """Who has a lock, in words."""
        ...
