"""What users are told: what was wrong, what was got, what to do."""

from __future__ import annotations


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


class Interrupted(DuoError):
    """The run was stopped by a signal after its state was saved."""
