"""Probes that need no prompt: what each hands to the system, and that it tells reconstruction from knowledge."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from duo_unlearn.arena.findings import FindingsFile
from duo_unlearn.arena.plans import AttackPlan, attack_plans
from duo_unlearn.attacks import completion, inpainting, noise_search, tina
from duo_unlearn.attacks.interface import Finding, Findings, Target, requests_for
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.attacks.tensors import conditioning_of, conditioning_tensors, trajectory_of, trajectory_tensors
from duo_unlearn.concepts.prompt_sets import Counts, prompt_sets
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.families.denoising import Reader
from duo_unlearn.families.interface import Conditioning, Model, SampleRequest, Tokens, Trajectory
from duo_unlearn.families.load import load_model
from duo_unlearn.families.ode import Ode, noise_of
from duo_unlearn.runs.search_state import NO_STATE, SearchState
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.storage.files import digest, seed_of, write_json
from duo_unlearn.system import System

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow
from .prompt_cut import asked, target

PROBES = {
    "tina": tina.Budget(3, 2),
    "inpainting": inpainting.Budget(3),
    "completion": completion.Budget(4),
    "noise-search": noise_search.Budget(2),
}


@pytest.fixture(scope="module")
def whole() -> Target:
    """The untouched mini model, whose originals are sampled once, as a run does it."""
    made: dict[tuple[str, int], Image.Image] = {}
    fresh = target(cut=False)

    def originals(texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        keys = list(zip(texts, seeds, strict=True))
        for text, seed in keys:
            if (text, seed) not in made:
                (made[text, seed],) = fresh.originals([text], [seed])
        return [made[key] for key in keys]

    return fresh._replace(originals=originals)


def find(name: str, on: Target, budget: Any, count: int = 1, state: SearchState = NO_STATE) -> Findings:
    return ATTACKS.get(name).find(on, asked(count), list(range(3, 3 + count)), budget, lambda _share: None, state)


def error(one: Image.Image, other: Image.Image) -> float:
    """Mean squared difference of two pictures, 0 to 1."""
    return float(((np.asarray(one, float) - np.asarray(other, float)) / 255).__pow__(2).mean())


@pytest.mark.slow
def test_tina_gives_back_a_picture_that_plain_noise_does_not(whole: Target) -> None:
    found = find("tina", whole, tina.Budget(8, 2))
    (picture,) = whole.originals([asked(1)[0].text], [3])
    plain = SampleRequest("", 3, trajectory=Trajectory(noise_of(whole.model, [3])[0], 8))
    back, other = whole.sample([*requests_for(found, [3], [None]), plain])
    assert back is not None
    assert other is not None
    assert error(picture, back) < 0.25 * error(picture, other)
    assert found.findings[0].text == ""


@pytest.mark.slow
def test_more_passes_of_tina_leave_less_of_its_loss(whole: Target) -> None:
    ode = Ode.of(whole.model.noise, 10)
    latents = whole.model.encode_images(whole.originals([asked(1)[0].text], [3])).mean
    few, many = (tina.step_back(whole, ode, 9, latents, passes, 1e-3)[1] for passes in (1, 4))
    assert float(many) < float(few)


def test_tina_is_exact_where_the_prediction_is_constant(whole: Target) -> None:
    class Constant(Reader):
        def predict(self, noisy: torch.Tensor, *_rest: Any, **_named: Any) -> torch.Tensor:
            return noisy * 0 + 0.3

    ode, after = Ode.of(whole.model.noise, 10), torch.full((1, 4, 16, 16), 0.5)
    before, left = tina.step_back(whole._replace(reader=Constant(whole.model)), ode, 4, after, 1, 1e-3)
    torch.testing.assert_close(ode.after(4, before, torch.full_like(before, 0.3)), after)
    assert float(left) == pytest.approx(0, abs=1e-10)


def test_the_middle_is_masked_and_the_rest_stays(whole: Target) -> None:
    mask = inpainting.middle(torch.zeros(1, 4, 16, 16), 0.5)
    assert mask.shape == (1, 16, 16)
    assert mask.sum() == 64
    assert mask[0, 4:12, 4:12].all()
    found = find("inpainting", whole, inpainting.Budget(5))
    picture, (image,) = whole.originals([asked(1)[0].text], [3])[0], whole.sample(requests_for(found, [3], [None]))
    assert image is not None
    before, after = (np.asarray(one, float) / 255 for one in (picture, image))
    border, middle = np.abs(before - after)[:8].mean(), np.abs(before - after)[20:44, 20:44].mean()
    assert border < 0.03  # what the VAE rounds
    assert middle > 2 * border


def test_completion_begins_as_the_original_does(whole: Target) -> None:
    """All but the last step by the original under the prompt: the picture is almost that of the whole path."""
    found = find("completion", whole, completion.Budget(5, begun=0.8))
    trajectory = trajectory_of(found.tensors, "0")
    assert (trajectory.first, trajectory.steps) == (4, 5)
    prompt, start = asked(1)[0].text, noise_of(whole.model, [3])
    path = SampleRequest(prompt, 3, trajectory=Trajectory(start[0], 5))
    began, finished = whole.sample([*requests_for(found, [3], [None]), path])
    assert began is not None
    assert finished is not None
    assert error(began, finished) < 1e-3


def test_completion_asks_for_the_prompt_where_pipelines_do_not_guide(whole: Target) -> None:
    """At a scale below 1 they read the prompt alone; the formula would mix in the empty one, and at 0 have it alone."""
    low, plain = (find("completion", whole._replace(guidance=s), completion.Budget(2)).tensors for s in (0.0, 1.0))
    assert torch.equal(low["0.latents"], plain["0.latents"])


def test_completion_reads_the_original_alone(whole: Target) -> None:
    cut = target(cut=True)
    found = [find("completion", one, completion.Budget(2)).tensors["0.latents"] for one in (cut, whole)]
    torch.testing.assert_close(found[0], found[1])
    assert ATTACKS.get("completion").is_shared


def test_noise_search_keeps_the_seed_of_the_best_image(whole: Target) -> None:
    scores = {3: 0.2, seed_of(3, "noise-search", 1): 0.9, seed_of(3, "noise-search", 2): 0.5}
    tried: list[SampleRequest] = []

    def sample(requests: Any) -> list[Image.Image | None]:
        tried.extend(requests)
        return [None] * len(requests)

    told = whole._replace(sample=sample, score=lambda _images, _texts: [scores[tried[-1].seed]])
    (finding,) = find("noise-search", told, noise_search.Budget(3)).findings
    assert [request.words for request in tried] == [""] * 3
    assert finding.seed == seed_of(3, "noise-search", 1)
    assert finding.facts["similarity"] == pytest.approx(0.9)
    assert not finding.is_plain
    (request,) = requests_for(Findings([finding]), [3], [None])
    assert (request.words, request.seed) == ("", finding.seed)


@pytest.mark.parametrize("name", ["tina", "noise-search"])
def test_a_killed_search_goes_on_where_it_was(whole: Target, name: str, tmp_path: Path) -> None:
    class Stopped(SearchState):
        """Dies after its first write."""

        def offer(self, step: int, tensors: Any) -> None:
            super().offer(step, tensors)
            raise InterruptedError

    def sample(requests: Sequence[SampleRequest]) -> list[Image.Image | None]:
        return list(whole.model.sample(requests, steps=2, guidance=1.0, batch=4))

    path, budget, on = tmp_path / "state.safetensors", PROBES[name], whole._replace(sample=sample)
    with pytest.raises(InterruptedError):
        find(name, on, budget, 1, Stopped(path, "key", every=0))
    resumed = find(name, on, budget, 1, SearchState(path, "key"))
    straight = find(name, on, budget, 1)
    assert [finding.seed for finding in resumed.findings] == [finding.seed for finding in straight.findings]
    assert resumed.findings[0].facts == pytest.approx(straight.findings[0].facts)
    assert all(torch.equal(value, resumed.tensors[key]) for key, value in straight.tensors.items())


@pytest.fixture(scope="module", params=[*slow(["sdxl", "sd3", *sorted(LLMS)]), "flux"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, whole: Target) -> Target:
    """A small model of another family in the target's place."""
    maker = LLMS[request.param] if request.param in LLMS else getattr(small, request.param)
    folder = maker(tmp_path_factory.mktemp("models") / request.param)
    model: Model = load_model(str(folder), torch.device("cpu"), resolution=small.RESOLUTION)

    def sample(requests: Any) -> list[Image.Image]:
        return model.sample(requests, steps=2, guidance=5.0, batch=4)

    return whole._replace(
        model=model,
        reader=Reader(model),
        sample=lambda requests: list(sample(requests)),
        originals=lambda texts, seeds: sample([SampleRequest(t, s) for t, s in zip(texts, seeds, strict=True)]),
    )


@pytest.mark.parametrize("name", sorted(PROBES))
def test_it_runs_on_every_family(other: Target, name: str) -> None:
    found = find(name, other, PROBES[name], 2)
    images = other.sample(requests_for(found, [3, 4], [None, None]))
    assert [image is not None and "fault" not in image.info for image in images] == [True, True]


def test_a_path_has_the_guidance_that_its_image_is_sampled_with(other: Target) -> None:
    def latents(name: str, guidance: float) -> torch.Tensor:
        return find(name, other._replace(guidance=guidance), PROBES[name]).tensors["0.latents"]

    assert not torch.equal(latents("completion", 2.0), latents("completion", 5.0))
    # Under the empty prompt only an input makes a difference.
    assert torch.equal(latents("tina", 2.0), latents("tina", 5.0)) is not other.model.kind.guidance_is_input


def session_of(folder: Path, concept: str) -> Session:
    return Session(resolve_settings({"output": str(folder / "run"), "concept": concept}), quiet=True)


@pytest.mark.parametrize("concept", ["sword", "balloon"])
def test_a_control_asks_for_every_item_that_must_stay_with_the_seeds_of_an_evaluation(
    tmp_path: Path, concept: str
) -> None:
    session = session_of(tmp_path, concept)
    plans = attack_plans(session, [System()], AttackPlan(["direct", "completion"], prompts=50))
    assert [(plan.attack.name, plan.scenario.name) for plan in plans] == [
        ("direct", "direct"), ("completion", "direct"), ("completion", "control-item")
    ]  # fmt: skip
    control = plans[-1].scenario
    assert (control.kind, len(control.prompts), len(control.seeds)) == ("keep", 50, 50)
    items = Counter(prompt.shows["item"] for prompt in control.prompts)
    assert not {"none", concept} & set(items)
    other = {"sword": "balloon", "balloon": "sword"}[concept]
    assert set(items) >= {"flower", "book", "flower+book", "oar", "wand", "umbrella", other}
    assert set(items.values()) == {5, 6}
    assert [prompt.shows["item"] for prompt in control.prompts[: len(items)]] == list(items)
    # An evaluation of 50 keep prompts, and half as many of a neighbour, asks the same, so originals are shared.
    asked = {
        (prompt.text, seed)
        for one in prompt_sets(session.concept, Counts(0, 50, 25, 0), session.settings.seed)
        for prompt, seed in zip(one.prompts, one.seeds, strict=True)
    }
    # All but one: two items in one picture are in a few keep prompts alone.
    assert len({(p.text, s) for p, s in zip(control.prompts, control.seeds, strict=True)} & asked) >= 49


def test_a_control_asks_keep_prompts_where_none_shows_an_item(tmp_path: Path) -> None:
    session = session_of(tmp_path, "nudity")
    control = attack_plans(session, [System()], AttackPlan(["completion"], prompts=4))[-1].scenario
    assert (control.name, control.kind, len(control.prompts)) == ("control", "keep", 4)
    assert control.seeds == [seed_of(session.settings.seed, "evaluate", "keep", i) for i in range(4)]


def test_a_control_has_fewer_prompts_where_few_show_an_item(tmp_path: Path) -> None:
    concept = load_concept("sword")
    empty, flower = concept.keep[0], concept.keep[2]
    bare = concept.model_copy(update={"neighbours": {}, "keep": [*[empty] * 7, flower]})
    session = session_of(tmp_path, "sword")
    session.concept = bare
    control = attack_plans(session, [System()], AttackPlan(["completion"], prompts=8))[-1].scenario
    assert {prompt.shows["item"] for prompt in control.prompts} == {"flower"}
    assert (control.name, len(control.prompts)) == ("control-item", 4)


def test_trajectories_and_conditionings_are_kept(tmp_path: Path) -> None:
    noise, mask = torch.randn(2, 4, 8, 8), torch.ones(1, 8, 8)
    path = Trajectory(noise[0], 20, 10, noise[1], mask)
    soft = Conditioning(torch.randn(1, 5, 6), torch.randn(1, 3))
    tensors = {**trajectory_tensors("0", path), **conditioning_tensors("soft", soft)}
    found = Findings([Finding("", trajectory="0"), Finding("x", conditioning="soft", seed=7), Finding("a")], tensors)
    file = FindingsFile(tmp_path / "found-0000.json")
    file.write(found, "key", "sd1", ["a", "b", "c"])
    read = file.read().findings
    assert read.findings == found.findings
    again, first = trajectory_of(read.tensors, "0"), requests_for(read, [1, 2, 3], [None] * 3)
    assert (again.steps, again.first) == (20, 10)
    assert all(torch.equal(one, two) for one, two in zip(again, path, strict=True) if isinstance(one, torch.Tensor)
               and isinstance(two, torch.Tensor))  # fmt: skip
    assert torch.equal(conditioning_of(read.tensors, "soft").text, soft.text)
    assert isinstance(first[1].words, Tokens)
    assert [request.seed for request in first] == [1, 7, 3]


def test_findings_of_before_are_read_and_written_as_they_were(tmp_path: Path) -> None:
    entry: dict[str, Any] = {"text": "a", "ids": None, "vector": None, "strength": 0.5, "facts": {}}
    content = {"key": "k", "family": "sd1", "texts": ["a"], "tensors": None, "findings": [entry]}
    old, new = tmp_path / "found-0000.json", tmp_path / "found-0001.json"
    write_json(old, {**content, "digest": digest(content)})
    found = FindingsFile(old).read().findings
    assert found.findings == [Finding("a", strength=0.5)]
    FindingsFile(new).write(found, "k", "sd1", ["a"])
    assert new.read_bytes() == old.read_bytes()


def test_the_budgets_of_probes_are_numbers_of_their_paths() -> None:
    for name in PROBES:
        paper = dataclasses.asdict(ATTACKS.get(name).budgets["paper"])
        assert paper.get("steps", 50) == 50
    assert dataclasses.asdict(ATTACKS.get("tina").budgets["paper"]) == {"steps": 50, "passes": 25, "lr": 1e-3}
