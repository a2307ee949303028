"""Captions of the user's: asked as a prompt set that must go on working, and measured from its pictures alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.features.interface import BATCH
from duo_unlearn.metrics.distribution import LEAST

from ..drawn_pairs import draw_pairs
from ..experiments.small_run import edited_run


@pytest.mark.slow
def test_captions_have_the_reference_to_themselves(tmp_path: Path) -> None:
    count = LEAST["kid"]
    run = edited_run(tmp_path)
    (tmp_path / "captions.txt").write_text("\n".join(f"a red king in a forest, number {i}" for i in range(count + 5)))
    draw_pairs(tmp_path / "pictures", count)
    asked = {"captions": str(tmp_path / "captions.txt"), "caption_prompts": count, "keep_prompts": count}
    settings = {"reference": str(tmp_path / "pictures"), "batch": BATCH, "steps": 2, **asked}
    run = duo.open_run(run.run.folder, settings={f"evaluate.{k}": v for k, v in settings.items()}, quiet=True)
    kid = {e.scenario: e for e in duo.evaluate(run).estimates if e.metric == "kid" and e.system == "duo"}
    assert kid["captions"].n == count
    assert "from pictures" in kid["captions"].contract
    assert "from original" in kid["keep"].contract
    assert not any(e.metric == "dsr" and e.scenario == "captions" for e in duo.evaluate(run).estimates)
