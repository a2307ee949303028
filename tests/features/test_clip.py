"""The CLIP score: a model in transformers' format scores as the mini world's own does, and what cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.features.clip import ClipFeatures, clip_score, cosines, embed_texts, load_clip, why_no_clip
from duo_unlearn.features.registry import clip_source
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene

from ..families.test_erase_families import clip_concept

IMAGES = [draw(Scene("knight", "red", "sword", "snow")), draw(Scene("king", "blue", "flower", "night"))]
TEXTS = ["a red knight with a sword in the snow", "a blue king with a flower at night"]


def test_a_model_in_transformers_format_scores_as_the_mini_worlds_own(tmp_path: Path) -> None:
    clip_concept(tmp_path)
    clip = load_clip(str(tmp_path / "clip"))
    scores = cosines(clip.embed_images(IMAGES), clip.embed_texts(TEXTS))
    assert scores == pytest.approx(clip_score("mini", IMAGES, TEXTS), abs=1e-5)
    assert clip.name == f"clip@{clip.weights}"
    assert load_clip(str(tmp_path / "clip")) is clip  # read once


def test_the_batch_changes_no_embedding() -> None:
    images, texts = IMAGES * 9, TEXTS * 9  # more than a batch
    features = ClipFeatures("mini")
    torch.testing.assert_close(features(images)[-2:], features(IMAGES), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed_texts("mini", texts)[-2:], embed_texts("mini", TEXTS), rtol=1e-4, atol=1e-5)


def test_one_that_is_not_at_hand_is_told_before_and_refused() -> None:
    assert "hf download openai/clip-vit-large-patch14" in str(why_no_clip("sdxl"))
    assert why_no_clip("mini") is None
    with pytest.raises(DuoError, match="cannot load the CLIP openai/clip-vit-large-patch14"):
        clip_source("sdxl").load()
