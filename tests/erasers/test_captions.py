"""Whose prompt each row of a step has, and a term that is off."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor

from duo_unlearn.erasers.duo.step import make_batch
from duo_unlearn.erasers.latents import Cache, build_cache
from duo_unlearn.erasers.trainer import train
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.records import Captions
from duo_unlearn.runs.folder import Run

from .small import CPU, pairs_in, prepare, quick


def test_dual_captions_need_prompts(run: Run) -> None:
    pairs = pairs_in(run.folder)
    with pytest.raises(DuoError, match="captions: dual needs the prompts"):
        build_cache(load_model("mini", CPU), pairs, run.pairs, run.moments, captions="dual")


def with_words(run: Run, captions: Captions) -> tuple[Model, Cache, Tensor]:
    """Model, cache with prompts, and the embeddings of the safe, the unsafe and the empty prompt."""
    asked, answered = "a red knight with a sword", "a red knight with a book"
    pairs = [dataclasses.replace(p, unsafe_prompt=asked, safe_prompt=answered) for p in pairs_in(run.folder)]
    model = load_model("mini", CPU)
    cache = build_cache(model, pairs, run.pairs, run.moments, captions=captions)
    return model, cache, model.condition([answered, asked, ""]).text


@pytest.mark.parametrize("captions", ["unsafe", "dual"])
def test_captions_put_each_member_under_its_prompt(run: Run, captions: Captions) -> None:
    model, cache, (safe, unsafe, empty) = with_words(run, captions)
    rows = make_batch(cache, model, [0, 1], quick(captions=captions), 0).conditioning.text
    torch.testing.assert_close(rows[2], unsafe)
    torch.testing.assert_close(rows[0], safe if captions == "dual" else unsafe)
    torch.testing.assert_close(rows[4], empty)
    dropped = make_batch(cache, model, [0, 1], quick(captions=captions, caption_dropout=1.0), 0).conditioning.text
    torch.testing.assert_close(dropped, empty.expand(6, -1, -1))


def test_a_prior_term_that_is_off_is_absent(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(prior_weight=0, max_train_steps=1), seed=0, name="duo", quiet=True)
    (line,) = [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]
    assert "prior" not in line
