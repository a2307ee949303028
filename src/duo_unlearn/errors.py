"""What users are told: what was wrong, what was got, what to do."""

from __future__ import annotations

from collections.abc import Sequence


class DuoError(Exception):
    """An error that the user can act on. The command line prints it without a traceback, exit code 1.

    problem: what was wrong; got: what was found instead; hint: what to do. Each becomes one line.
    """

    def __init__(self, problem: str, *, got: str | None = None, hint: str | None = None) -> None:
        self.problem, self.got, self.hint = problem, got, hint
        lines = [problem]
        if got is not None:
            lines.append(f"Got: {got}")
        if hint is not None:
            lines.append(f"Try: {hint}")
        super().__init__("\n".join(" ".join(line.split()) for line in lines))

    @property
    def reason(self) -> str:
        """What was wrong and what was got, as another text has it."""
        return f"{self.problem}: {self.got}" if self.got else self.problem


class Interrupted(DuoError):
    """The run was stopped by a signal after its state was saved."""


def several(faults: Sequence[str]) -> str:
    """The first three faults, and how many more there are."""
    return "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
