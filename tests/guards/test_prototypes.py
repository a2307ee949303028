"""Prototypes: the clusters, what a soft prompt learns, and which prompts it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from duo_unlearn.arena.guarded_reader import GuardedReader
from duo_unlearn.families.interface import Away, Branches, Conditioning, Guidance, Hooks, Model, Step
from duo_unlearn.families.inversion import gradient
from duo_unlearn.families.load import load_model
from duo_unlearn.families.sampling import term_of
from duo_unlearn.features.registry import clip_source
from duo_unlearn.guards.prototypes import cluster
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.storage.files import read_tensors

from .small import REQUESTS, context_of, sample

BUDGET = {"steps": 40, "clusters": 1}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


def test_clusters_are_found_and_the_largest_comes_first() -> None:
    generator = torch.Generator().manual_seed(0)
    near = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, -1.0])]
    points = torch.cat([near[0] + 0.05 * torch.randn(3, 3, generator=generator),
                        near[1] + 0.05 * torch.randn(7, 3, generator=generator)])  # fmt: skip
    centres = cluster(points, 2)
    torch.testing.assert_close(centres, torch.stack([near[1], near[0]]), atol=0.1, rtol=0)
    assert torch.equal(centres, cluster(points, 2))
    assert len(cluster(points[:1], 4)) == 1


def test_a_soft_prompt_comes_nearer_to_its_prototype(model: Model, tmp_path: Path) -> None:
    from duo_unlearn.families.interface import Tokens
    from duo_unlearn.families.tokens import ends, sequence

    projection = clip_source("mini").load().model.text_projection
    cosines = []
    for steps in (1, 40):
        folder = tmp_path / str(steps)
        GUARDS.get("prototypes").build(BUDGET | {"steps": steps}, context_of(model, folder))
        (path,) = folder.glob("prototypes-*.safetensors")
        kept = read_tensors(path)[0]
        ids = torch.tensor([sequence(model, [model.pipe.tokenizer.bos_token_id] * 4)])
        text = model.condition(Tokens(ids, kept["rows"])).text
        embedding = projection(text[0, int(ends(model, ids))])
        cosines.append(torch.nn.functional.cosine_similarity(embedding, kept["centres"][0], dim=0).item())
    assert cosines[1] > cosines[0] + 0.1


def test_only_prompts_near_a_prototype_are_guided_away(model: Model, tmp_path: Path) -> None:
    guard, context = GUARDS.get("prototypes"), context_of(model, tmp_path)
    hooks = guard.build(BUDGET | {"threshold": 0.25}, context)
    assert hooks.conditioning is not None
    texts = [str(request.words) for request in REQUESTS]
    guidance = Guidance(model.condition(texts), model.condition(["", ""]))
    found = hooks.conditioning(REQUESTS, guidance)
    assert torch.equal(found.positive.text, guidance.positive.text)
    assert torch.equal(found.negative.text, guidance.negative.text)
    assert found.away is not None
    assert found.away.weight.tolist() == [2.0, 0.0]  # the knight with a sword, and the boat
    images, plain = sample(model, hooks, steps=2), sample(model, None, steps=2)
    assert not torch.equal(images[0], plain[0])
    assert torch.equal(images[1], plain[1])


def test_the_term_goes_away_from_the_soft_prompt() -> None:
    """ε_n 1, ε_c 2 and s 5 are guided to 6. ε_p 4 of weight 2 takes 5 · 2 · (4 − 1) off, weight 0 nothing."""
    soft = Conditioning(torch.full((2, 1, 1), 4.0))
    negative, positive, guided = (torch.full((2, 1, 1), value) for value in (1.0, 2.0, 6.0))
    branches = Branches(positive, negative, 5.0, lambda given: given.text)
    hook = term_of(Away(soft, torch.tensor([2.0, 0.0]))).prediction
    assert hook is not None
    assert hook(Step(guided, 0, 1, branches, {}), guided).flatten().tolist() == [-24.0, 6.0]
    assert hook(Step(guided, 0, 1, None, {}), guided) is guided  # without a negative branch


def test_far_from_every_prototype_images_are_the_models_own(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("prototypes").build(BUDGET | {"threshold": 1.0}, context_of(model, tmp_path))
    assert torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))
    # A second system of the run reads what was learnt: the threshold decides nothing of it.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    GUARDS.get("prototypes").build(BUDGET | {"threshold": -1.0}, context_of(model, tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_search_that_is_aware_sees_the_term(model: Model, tmp_path: Path) -> None:
    noisy, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    words = model.condition([str(REQUESTS[0].words)])
    vector = words.text.clone().requires_grad_(True)
    predictions = []
    for weight in (0.0, 2.0):
        model.hooks = [GUARDS.get("prototypes").build(BUDGET | {"weight": weight}, context_of(model, tmp_path))]
        predictions.append(GuardedReader(model, 5.0).predict(noisy, t, words._replace(text=vector)))
    model.hooks = []
    assert not torch.equal(predictions[0], predictions[1])
    assert torch.isfinite(gradient(predictions[1].square().sum(), vector, "a step")).all()


def test_to_such_a_search_a_term_away_from_the_prompt_itself_takes_its_guidance_back(model: Model) -> None:
    noisy, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])

    def away(_requests: object, guidance: Guidance) -> Guidance:
        return guidance._replace(away=Away(guidance.positive, torch.ones(1)))

    model.hooks = [Hooks(conditioning=away)]
    with torch.no_grad():  # ε_n + s (ε_c − ε_n) − s (ε_c − ε_n)
        found = GuardedReader(model, 5.0).predict(noisy, t, model.condition([str(REQUESTS[0].words)]))
        model.hooks = []
        torch.testing.assert_close(found, model.predict(noisy, t, model.condition([""])), atol=1e-4, rtol=0)
