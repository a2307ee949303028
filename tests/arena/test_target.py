"""What decides an image of the original model, whatever computes it."""

from __future__ import annotations

from pathlib import Path

import duo_unlearn as duo
from duo_unlearn.arena.target import base_state


def test_a_state_is_the_same_under_every_python(tmp_path: Path) -> None:
    """Python 3.12 writes an ordered dictionary otherwise than 3.11: a run that moves between them is still known."""
    session = duo.open_run(tmp_path / "run", quiet=True)
    before, scheduler = base_state(session), session.model.pipe.scheduler
    kind = type(scheduler.config)
    other = type(kind.__name__, (kind,), {"__repr__": lambda self: f"{kind.__name__}({dict(self)})"})
    scheduler._internal_dict = other(dict(scheduler.config))
    assert repr(scheduler.config).startswith("FrozenDict({")
    assert base_state(session) == before
    scheduler.register_to_config(solver_order=1)
    assert base_state(session) != before
