"""The CLIP score of other families than mini, with the mini world's CLIP in the published one's place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from duo_unlearn.detectors.clip import load_clip
from duo_unlearn.errors import DuoError
from duo_unlearn.features import clip
from duo_unlearn.features.clip import clip_for, clip_score
from duo_unlearn.mini.world.scenes import Scene, draw

from ..families.test_erase_families import clip_concept


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(clip, "DEFAULT_MODEL", str(tmp_path / "clip"))
    clip._large.cache_clear()
    yield tmp_path
    clip._large.cache_clear()


def test_a_model_in_transformers_format_scores_as_the_mini_worlds_own(folder: Path) -> None:
    clip_concept(folder)
    images = [draw(Scene("knight", "red", "sword", "snow")), draw(Scene("king", "blue", "flower", "night"))]
    texts = ["a red knight with a sword in the snow", "a blue king with a flower at night"]
    assert clip_score("sdxl", images, texts) == pytest.approx(clip_score("mini", images, texts), abs=1e-5)
    assert clip_for("sdxl").name == f"clip-vit-large-patch14@{load_clip(str(folder / 'clip'))[3]}"


@pytest.mark.usefixtures("folder")
def test_one_that_cannot_be_had_is_an_error() -> None:
    with pytest.raises(DuoError, match="cannot load the CLIP"):
        clip_for("sdxl")
