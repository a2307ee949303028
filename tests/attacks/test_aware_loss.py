"""What a search on pictures of the concept lowers where it is aware of guards: the same as one that is not, guided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.guarded_reader import GuardedReader
from duo_unlearn.arena.plans import Plan, attacked_scenarios
from duo_unlearn.attacks import soft_prompt, unlearn_diff
from duo_unlearn.attacks.interface import Target
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.families.denoising import Reader, noised_rows
from duo_unlearn.families.interface import Guidance, Hooks, Inverted, SampleRequest, Tokens
from duo_unlearn.families.inversion import invert
from duo_unlearn.families.tokens import initial_vector
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene
from duo_unlearn.records import Awareness
from duo_unlearn.session import Session
from duo_unlearn.system import System

from ..arena.small_run import make_run
from .prompt_cut import asked, target

SCALE = 5.0


@pytest.fixture(scope="module")
def plain() -> Target:
    return target(cut=False, steps=2)


@pytest.fixture
def guarded(plain: Target) -> Iterator[Target]:
    """The same behind a guard whose negative prompt is the empty one: guidance is as it was."""
    yield behind(plain, "")
    plain.model.hooks = []


def behind(on: Target, negative: str) -> Target:
    """A target whose searches are aware of a negative prompt."""

    def conditioning(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
        return guidance._replace(negative=on.model.condition([negative] * len(requests)))

    on.model.hooks = [Hooks(conditioning=conditioning)]
    reader = GuardedReader(on.model, SCALE)
    assert reader.guided
    return on._replace(reader=reader)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).norm() < 1e-3 * expected.norm()


def test_without_a_change_of_guidance_unlearndiffatk_has_the_gradient_of_an_unaware_search(
    plain: Target, guarded: Target
) -> None:
    found = []
    for on in (plain, guarded):
        texts = [prompt.text for prompt in asked(2)]
        search = unlearn_diff._Search(on, texts, [3, 4], on.moments().mean[:2], 5, 0.01)
        search.step(500)
        assert search.weights.grad is not None
        found.append((search.weights.grad.clone(), search.loss.clone()))
    for before, after in zip(*found, strict=True):
        assert_close(after, before)


def test_a_soft_prompt_has_it_too(plain: Target, guarded: Target) -> None:
    found = []
    for on in (plain, guarded):
        soft = soft_prompt.Soft(on)
        error = soft.error(torch.Generator().manual_seed(0), 4)
        error.backward()  # type: ignore[no-untyped-call]
        assert soft.moved.grad is not None
        found.append((soft.moved.grad, error.detach()))
    for before, after in zip(*found, strict=True):
        assert_close(after, before)


def test_an_inverted_token_is_the_same(plain: Target, guarded: Target) -> None:
    moved = [
        invert(on.model, on.moments(), steps=2, batch=2, seed=0, quiet=True, reader=on.reader)
        - initial_vector(on.model, "picture")
        for on in (plain, guarded)
    ]
    # AdamW's first steps are as long whatever the gradient's size, so entries with hardly any may go the other way.
    assert torch.nn.functional.cosine_similarity(moved[0], moved[1], dim=0) > 0.99


def test_what_answers_a_negative_prompt_is_the_prompt_and_not_that_text(plain: Target) -> None:
    """Held against the noise alone, the least error is that of the negative prompt itself: it takes guidance away."""
    told = "a red knight with a sword in the snow"
    texts = [told, "a red knight with a flower in the snow", "", "a sword"]
    model, generator = plain.model, torch.Generator().manual_seed(0)
    moments = model.encode_images([draw(Scene("knight", "red", "sword", "snow"))])
    noisy, t, wanted = noised_rows(model.noise, moments, torch.zeros(8, dtype=torch.long), generator)
    reader = behind(plain, "a sword").reader
    with torch.no_grad():
        best = []
        for held in (reader.wanted(noisy, t, wanted), wanted):
            residuals = [reader.residual(noisy, t, model.condition([text]).repeat(8), held) for text in texts]
            errors = [residual.square().mean().item() for residual in residuals]
            best.append(texts[errors.index(min(errors))])
    model.hooks = []
    assert best == [told, "a sword"]


def test_without_a_negative_branch_a_search_sees_the_plain_prediction(plain: Target) -> None:
    """At a scale of guidance of 1 the pipeline asks for no negative prompt, so a guard there changes nothing."""
    model, (text,) = plain.model, [prompt.text for prompt in asked(1)]
    noisy, t, wanted = noised_rows(model.noise, plain.moments(), torch.arange(2), torch.Generator().manual_seed(0))
    behind(plain, "a sword")
    readers = [Reader(model), GuardedReader(model, 1.0)]
    words = model.condition([text]).repeat(2)
    with torch.no_grad():
        first, second = (one.residual(noisy, t, words, one.wanted(noisy, t, wanted)) for one in readers)
    model.hooks = []
    assert torch.equal(first, second)


class Orderly(Reader):
    """Says when it is asked for what."""

    def __init__(self, on: Target, said: list[str]) -> None:
        super().__init__(on.model)
        self.said = said

    def wanted(self, noisy: Tensor, t: Tensor, target: Tensor) -> Tensor:
        self.said.append("wanted")
        return super().wanted(noisy, t, target)


def test_edits_are_off_before_a_prompt_is_read_and_never_before_its_gradient(
    plain: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text encoder may be edited too: its forward pass belongs to the gradient."""
    said: list[str] = []
    on = plain._replace(reader=Orderly(plain, said))
    search = unlearn_diff._Search(on, [asked(1)[0].text], [3], on.moments().mean[:1], 5, 0.01)
    soft, condition = soft_prompt.Soft(on), on.model.condition

    def told(words: Sequence[str] | Tokens | Inverted) -> object:
        said.append("read")
        return condition(words)

    monkeypatch.setattr(on.model, "condition", told)
    search.step(500)
    assert said == ["wanted", "read"]
    said.clear()
    invert(on.model, on.moments(), steps=1, batch=1, seed=0, quiet=True, reader=on.reader)
    assert said == ["wanted", "read"]
    said.clear()
    soft.error(torch.Generator().manual_seed(0), 1)
    assert said == ["wanted"]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize("name", ["unlearndiffatk", "concept-inversion", "soft-prompt", "p4d", "tina"])
def test_what_was_found_otherwise_by_aware_searches_is_searched_for_anew(session: Session, name: str) -> None:
    """Unaware searches are what they were, and aware ones of P4D and TINA."""
    attack, (scenario, *_) = ATTACKS.get(name), attacked_scenarios(session, 1)
    changed = {}
    searches: tuple[Awareness | None, ...] = (None, "unaware", "aware")
    for search in searches:
        plan = Plan(System(), scenario, attack, "quick", attack.budgets["quick"], search)
        works = [
            GroupWork(session, replace(plan, attack=attack._replace(aware_version=version)))
            for version in (1, attack.aware_version)
        ]
        keys = [(work.keys, work._search_key(slice(0, 1))) for work in works]
        changed[search] = [one != other for one, other in zip(*keys, strict=True)]
    is_other = name in ("unlearndiffatk", "concept-inversion", "soft-prompt")
    assert changed == {None: [False] * 2, "unaware": [False] * 2, "aware": [is_other] * 2}


@pytest.mark.parametrize("name", ["safree", "sld"])
def test_what_was_found_by_searches_that_saw_less_of_a_guard_is_searched_for_anew(
    session: Session, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unaware searches on it are what they were, and so are aware ones on guards that are seen as before."""
    attack, (scenario, *_), system = ATTACKS.get("p4d"), attacked_scenarios(session, 1), session.system(name)
    keys: dict[Awareness, list[tuple[object, str]]] = {"unaware": [], "aware": []}
    for is_before in (False, True):
        if is_before:
            monkeypatch.setattr(type(GUARDS.get(name)), "aware_version", 1)
        for search, found in keys.items():
            work = GroupWork(session, Plan(system, scenario, attack, "quick", attack.budgets["quick"], search))
            found.append((work.keys, work._search_key(slice(0, 1))))
    changed = {search: [one != other for one, other in zip(*found, strict=True)] for search, found in keys.items()}
    assert changed == {"unaware": [False] * 2, "aware": [name == "safree"] * 2}
