"""The recipe `robust`: what it gives for the mini model, and what a user may still say on top."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.erasers.robust.settings import RobustSettings
from duo_unlearn.settings.resolve import describe, resolve_settings


@pytest.mark.parametrize("concept", ["sword", "balloon", "sword+balloon"])
def test_the_robust_recipe_is_robust_duo_on_a_floor(tmp_path: Path, concept: str) -> None:
    given = {"recipe": "robust", "concept": concept, "output": str(tmp_path)}
    settings = resolve_settings(given)
    assert (settings.eraser, settings.floor) == ("robust-duo", "uce")
    options = RobustSettings.model_validate(settings.erasers["robust-duo"])
    assert (options.beta, options.pairing) == (20, "unpaired")
    assert settings.pairs.guidance == 5.0  # what is recommended for the rest stays
    assert "robust DUO" in describe(settings).splitlines()[0]
    mine = resolve_settings({**given, "floor": None, "erasers": {"robust-duo": {"beta": 7}}})
    assert mine.floor is None
    assert mine.erasers["robust-duo"]["beta"] == 7
    assert mine.erasers["robust-duo"]["learning_rate"] == options.learning_rate
