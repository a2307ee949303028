"""Whose prompt each row of a step has, and the term that holds what safe prompts draw."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch import Tensor

from duo_unlearn.errors import DuoError
from duo_unlearn.families.base import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.records import Captions, Pair
from duo_unlearn.run import Run
from duo_unlearn.training.cache import Cache, build_cache
from duo_unlearn.training.step import make_batch
from duo_unlearn.training.trainer import train

from .small import CPU, pairs_in, prepare, quick


def test_captions_need_prompts(run: Run) -> None:
    pairs = pairs_in(run.folder)
    with pytest.raises(DuoError, match="need the prompts"):
        build_cache(load_model("mini", CPU), pairs, run.pairs, run.moments, words=True)


def with_words(run: Run) -> tuple[Model, Cache, list[Pair], Tensor]:
    """Model, cache, pairs with prompts, and the embeddings of the safe, the unsafe and the empty prompt."""
    asked, answered = "a red knight with a sword", "a red knight with a book"
    pairs = [dataclasses.replace(p, unsafe_prompt=asked, safe_prompt=answered) for p in pairs_in(run.folder)]
    model = load_model("mini", CPU)
    cache = build_cache(model, pairs, run.pairs, run.moments, words=True)
    return model, cache, pairs, model.encode_prompts([answered, asked, ""])


@pytest.mark.parametrize("captions", ["unsafe", "dual"])
def test_captions_put_each_member_under_its_prompt(run: Run, captions: Captions) -> None:
    model, cache, _, (safe, unsafe, empty) = with_words(run)
    rows = make_batch(cache, model, [0, 1], quick(captions=captions), 0).conditioning
    torch.testing.assert_close(rows[2], unsafe)
    torch.testing.assert_close(rows[0], safe if captions == "dual" else unsafe)
    torch.testing.assert_close(rows[4], empty)
    dropped = make_batch(cache, model, [0, 1], quick(captions=captions, caption_dropout=1.0), 0).conditioning
    torch.testing.assert_close(dropped, empty.expand(6, -1, -1))


def test_mixed_captions_are_either(run: Run) -> None:
    model, cache, _, (safe, unsafe, _) = with_words(run)
    rows = make_batch(cache, model, list(range(40)), quick(captions="mixed", prior_weight=0), 0).conditioning
    own = [bool(torch.isclose(row, safe, atol=1e-5).all()) for row in rows]
    assert 10 < sum(own[:40]) < 30
    assert not any(own[40:])
    assert all(mine or torch.isclose(row, unsafe, atol=1e-5).all() for mine, row in zip(own, rows, strict=True))


def test_the_keep_term_has_rows_of_safe_images_under_their_own_prompts(run: Run) -> None:
    model, cache, pairs, (safe, _, _) = with_words(run)
    settings = quick(captions="unsafe", keep_weight=1e3, max_train_steps=6)
    batch = make_batch(cache, model, [0, 1, 2], settings, 0)
    assert len(batch.noisy) == 4 * 3
    torch.testing.assert_close(batch.conditioning[9:], safe.expand(3, -1, -1))
    assert len(set(batch.t[9:].tolist())) > 1
    plain = make_batch(cache, model, [0, 1, 2], quick(captions="unsafe"), 0)
    for one, other in zip(batch[:3], plain[:3], strict=True):
        torch.testing.assert_close(one[:9], other)
    train(model, cache, pairs, run, settings, seed=0, quiet=True)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert lines[0]["keep"] == 0
    assert lines[-1]["keep"] > 0
    last = lines[-1]
    assert last["loss"] == pytest.approx(
        last["preference"] + settings.prior_weight * last["prior"] + 1e3 * last["keep"], rel=1e-5
    )


def test_a_term_that_is_off_is_absent(run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(prior_weight=0, max_train_steps=1), seed=0, quiet=True)
    (line,) = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert not {"prior", "keep"} & line.keys()
