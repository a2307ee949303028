"""The guards: what every one promises, and the arithmetic of each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from duo_unlearn.arena.guarded_reader import GuardedReader
from duo_unlearn.errors import DuoError
from duo_unlearn.families.denoising import guided
from duo_unlearn.families.interface import Guidance, Hooks, Inverted, Model, SampleRequest, Step
from duo_unlearn.families.inversion import gradient
from duo_unlearn.families.load import load_model
from duo_unlearn.families.ode import noise_of
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.families.tokens import PLACEHOLDER, initial_vector
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.records import Level
from duo_unlearn.storage.files import read_tensors

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow_but
from .small import REQUESTS, context_of, sample

OPTIONS: dict[str, dict[str, Any]] = {
    "inverted-negative": {"steps": 2, "batch": 1},
    "safree": {"mode": "all-rows", "alpha": 0.0},
    "ce-sdwv": {"threshold": -100.0, "steps": 1},
    "prototypes": {"steps": 2, "threshold": -1.0},
    "spell": {"radius": 1000.0},
    "pno": {"starts": 8},
}
"""Options by which each acts on every model, also of random weights."""
LEARNS: dict[str, dict[str, Any]] = {"inverted-negative": {"steps": 2, "batch": 1}, "prototypes": {"steps": 2}}
"""Guards that keep what they learnt in a file."""
MAKERS: dict[str, Callable[[Path], Path | str]] = {
    "mini": lambda _folder: "mini",
    "sdxl": small.sdxl,
    "sd3": small.sd3,
    "flux": small.flux,
    **LLMS,
}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.mark.parametrize("name", GUARDS.names())
def test_every_guard_says_what_it_is_and_which_families_have_it(name: str) -> None:
    guard = GUARDS.get(name)
    assert (guard.name, bool(guard.title), bool(guard.acts_on), bool(guard.cost)) == (name, True, True, True)
    assert guard.level in get_args(Level)
    assert guard.settings.model_validate({}).model_dump(mode="json").keys() == guard.settings.model_fields.keys()
    reasons = {family: guard.why_not(FAMILIES.get(family)) for family in FAMILIES.names()}
    assert reasons["mini"] is None
    assert all(reason is None or len(reason) > 10 for reason in reasons.values())


# A guard of the prediction on a UNet and on a rectified flow, and one of the image on a flow, are fast. The others have
# fast tests of their own.
FAST = {("sdxl", "sld"), ("sd3", "sld"), ("sd3", "output-filter")}


@pytest.mark.parametrize(
    ("family", "name"),
    [
        pytest.param(family, name, marks=() if (family, name) in FAST else pytest.mark.slow)
        for family in sorted(MAKERS)
        for name in GUARDS.names()
    ],
)
def test_every_guard_works_on_a_family_or_says_why_not(name: str, family: str, tmp_path: Path) -> None:
    made = MAKERS[family](tmp_path / "model")
    model = load_model(str(made), torch.device("cpu"), resolution=None if family == "mini" else small.RESOLUTION)
    guard = GUARDS.get(name)
    if guard.why_not(model.kind) is not None:
        return
    options = guard.settings.model_validate(OPTIONS.get(name, {})).model_dump(mode="json")
    hooks = guard.build(options, context_of(model, tmp_path / "guards"))
    changed, plain = sample(model, hooks), sample(model, None)
    assert not torch.equal(changed, plain)
    assert torch.equal(sample(model, None), plain)  # nothing is left behind
    again = guard.build(options, context_of(model, tmp_path / "guards"))
    assert torch.equal(sample(model, again), changed)


def test_a_negative_prompt_is_the_pipelines_own(model: Model, tmp_path: Path) -> None:
    guard, context = GUARDS.get("negative-prompt"), context_of(model, tmp_path)
    hooks = guard.build({"text": "a blade"}, context)
    theirs = sample(model, None, [request._replace(negative="a blade") for request in REQUESTS], steps=2)
    assert torch.equal(sample(model, hooks, steps=2), theirs)
    # A request's own negative prompt comes after it.
    own = [request._replace(negative="a boat") for request in REQUESTS]
    both = [request._replace(negative="a blade, a boat") for request in REQUESTS]
    assert torch.equal(sample(model, hooks, own, steps=2), sample(model, None, both, steps=2))


def test_an_empty_negative_prompt_is_no_guard_bit_for_bit(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("negative-prompt").build({"text": ""}, context_of(model, tmp_path))
    assert hooks == Hooks()
    assert torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))


def test_without_guidance_a_negative_prompt_has_no_effect(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("negative-prompt").build({"text": None}, context_of(model, tmp_path))
    assert torch.equal(sample(model, hooks, guidance=1.0, steps=2), sample(model, None, guidance=1.0, steps=2))


@pytest.mark.parametrize("name", LEARNS)
def test_of_several_processes_one_learns_and_the_others_read(name: str, model: Model, tmp_path: Path) -> None:
    """Two that learnt at once would share a search's state, which the first one ends by deleting it."""
    files: list[int] = []

    @contextlib.contextmanager
    def claim(_name: str) -> Iterator[None]:
        there = len(list(tmp_path.glob("*.safetensors")))
        yield
        files.extend([there, len(list(tmp_path.glob("*.safetensors")))])

    context = context_of(model, tmp_path)._replace(claim=claim)
    for _ in range(2):
        GUARDS.get(name).build(LEARNS[name], context)
    assert files == [0, 1, 1, 1]


def test_an_inverted_negative_stands_in_the_negative_branch(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("inverted-negative").build({"steps": 2, "batch": 2, "lr": 5e-3}, context_of(model, tmp_path))
    (path,) = tmp_path.glob("inverted-negative-*.safetensors")
    vector = read_tensors(path)[0]["vector"]
    assert not torch.equal(vector, initial_vector(model, "picture"))
    negative = model.condition(Inverted([PLACEHOLDER] * 2, vector))

    def by_hand(_requests: object, guidance: object) -> object:
        return guidance._replace(negative=negative)  # type: ignore[attr-defined]

    by_hooks = Hooks(conditioning=by_hand)  # type: ignore[arg-type]
    assert torch.equal(sample(model, hooks, steps=2), sample(model, by_hooks, steps=2))


@pytest.mark.parametrize("family", slow_but(sorted(MAKERS), ("sdxl", "sd3")))
def test_a_guard_may_act_on_the_prediction_and_on_the_clean_latents(family: str, tmp_path: Path) -> None:
    """Hooks that change nothing leave every bit; moving x̂0 to a point makes that point the last step's image."""
    made = MAKERS[family](tmp_path / "model")
    model = load_model(str(made), torch.device("cpu"), resolution=None if family == "mini" else small.RESOLUTION)
    plain = sample(model, None)
    steps: list[Step] = []

    def note(step: Step, value: Tensor) -> Tensor:
        steps.append(step)
        return value

    assert torch.equal(sample(model, Hooks(prediction=note, clean=note)), plain)
    numbers = [step.number for step in steps[::2]]
    assert numbers == sorted(numbers)
    assert {step.steps for step in steps} == {len(numbers)}
    seen: list[Tensor] = []

    def still(step: Step, clean: Tensor) -> Tensor:
        seen.append(step.latents)
        return torch.full_like(clean, 0.25)

    model.hooks = [Hooks(clean=still)]
    model.sample(REQUESTS, steps=8, guidance=5.0, batch=2)
    model.hooks = []
    # Whatever the start, a path towards one point ends there: both rows come together.
    first, last = seen[0], seen[-1]
    assert (last[0] - last[1]).abs().max() < 0.5 * (first[0] - first[1]).abs().max()
    other = sample(model, Hooks(prediction=lambda _step, guided: 1.1 * guided))
    assert not torch.equal(other, plain)


def test_the_options_of_a_guard_are_checked() -> None:
    import duo_unlearn as duo

    with pytest.raises(DuoError, match="the settings have faults") as raised:
        duo.open_run("nowhere", settings={"guards": {"negative-prompt": {"txet": "x"}}})
    assert "did you mean 'text'" in str(raised.value)
    with pytest.raises(DuoError, match="one of: negative-prompt"):
        duo.open_run("nowhere", settings={"guard": ["no-such"]})


def test_a_search_that_is_aware_has_no_text_for_guards_that_read_texts(model: Model) -> None:
    def cut(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
        if not all(isinstance(request.words, str) for request in requests):
            return guidance
        return guidance._replace(positive=model.condition([str(r.words).replace("sword", "") for r in requests]))

    noisy, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    words = model.condition(["a red knight with a sword"])
    vector = words.text.clone().requires_grad_(True)
    model.hooks = [Hooks(conditioning=cut)]
    try:
        predicted = GuardedReader(model, 5.0).predict(noisy, t, words._replace(text=vector))
    finally:
        model.hooks = []
    assert torch.isfinite(gradient(predicted.square().sum(), vector, "a step")).all()


@pytest.mark.parametrize("name", GUARDS.names())
def test_a_guard_says_whether_a_search_that_is_aware_sees_it(model: Model, name: str, tmp_path: Path) -> None:
    """What a search differentiates is another prediction where the guard says so, and else the very same."""
    guard = GUARDS.get(name)
    options = guard.settings.model_validate(OPTIONS.get(name, {})).model_dump(mode="json")
    # SAFREE acts in the first steps alone, and SLD after them.
    noisy, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([990, 500])
    texts = ["a red knight with a sword"] * 2
    words = model.condition(texts)
    plain = GuardedReader(model, 5.0).predict(noisy, t, words, texts)
    model.hooks = [guard.build(options, context_of(model, tmp_path))]
    try:
        seen = GuardedReader(model, 5.0).predict(noisy, t, words, texts)
    finally:
        model.hooks = []
    assert torch.equal(seen, plain) == (guard.seen == "nothing")


def test_an_aware_search_is_held_against_the_original_guided_only_where_the_system_is(model: Model) -> None:
    noisy, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([500])
    asked, empty, negative = (model.condition([text]) for text in ("a knight", "", "a sword"))
    of_prompt, of_empty = (model.predict(noisy, t, one) for one in (asked, empty))
    hooks = {
        "negative": lambda _requests, guidance: guidance._replace(negative=negative),
        "positive": lambda _requests, guidance: guidance._replace(positive=negative),
    }
    found = {}
    for side, hook in hooks.items():
        model.hooks = [Hooks(conditioning=hook)]
        try:
            found[side] = GuardedReader(model, 5.0).reference(noisy, t, asked)
        finally:
            model.hooks = []
    # Never with the guard's own change: that is the system's.
    torch.testing.assert_close(found["negative"], of_empty + 5.0 * (of_prompt - of_empty), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["positive"], of_prompt)


def test_a_search_that_is_aware_sees_guidance_as_the_family_mixes_it(tmp_path: Path) -> None:
    model = load_model(str(LLMS["qwen-image"](tmp_path)), torch.device("cpu"), resolution=small.RESOLUTION)
    noise, t = noise_of(model, [3]), torch.tensor([500])
    asked, negative = (model.condition([text]).map(lambda x: x.float()) for text in ("a knight", "a sword"))
    model.hooks = [Hooks(conditioning=lambda _requests, guidance: guidance._replace(negative=negative))]
    with torch.no_grad():
        seen = GuardedReader(model, 4.0).predict(noise, t, asked)
        torch.testing.assert_close(seen.float(), guided(model, noise, int(t), asked, negative, 4.0))


@pytest.mark.parametrize("name", [name for name in GUARDS.names() if GUARDS.get(name).replaces == "prompt"])
def test_a_guard_of_the_prompts_side_leaves_the_empty_prompt_alone(model: Model, name: str, tmp_path: Path) -> None:
    """Guidance goes away from it, so a change of one side alone would draw where nothing is asked for."""
    guard = GUARDS.get(name)
    options = guard.settings.model_validate(OPTIONS.get(name, {})).model_dump(mode="json")
    hooks = guard.build(options, context_of(model, tmp_path))
    requests = [REQUESTS[0]._replace(words=""), REQUESTS[0]]
    before = Guidance(model.condition([str(request.words) for request in requests]), model.condition(["", ""]))
    with torch.no_grad():
        after = hooks.conditioning(requests, before) if hooks.conditioning is not None else before
    assert torch.equal(after.positive.text[0], before.positive.text[0])
    assert after.later is None or torch.equal(after.later.text[0], before.positive.text[0])
    assert hooks.conditioning is None or not torch.equal(after.positive.text[1], before.positive.text[1])


def test_a_guard_that_stops_the_gradient_is_told_in_words() -> None:
    with pytest.raises(DuoError, match="a step has no gradient") as raised:
        gradient(torch.ones(()), torch.ones(3, requires_grad=True), "a step")
    assert "--unaware" in str(raised.value)
