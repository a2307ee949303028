"""PNO: what it makes again and how, that its gradient is the picture's, and that its detector never measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.detectors.interface import Differentiable
from duo_unlearn.detectors.mini_judge import MiniJudge
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Guidance, Model, SampleRequest, Sampling, Trajectory
from duo_unlearn.families.load import load_model
from duo_unlearn.families.model import DiffusersModel
from duo_unlearn.families.ode import noise_of
from duo_unlearn.guards.pno import Pno, PnoSettings, Search
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.settings.check import find_faults

from ..arena.detectors import Bright
from ..arena.small_run import make_run
from .small import REQUESTS, context_of, sample


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.fixture(scope="module")
def judge() -> MiniJudge:
    return MiniJudge(("item=sword",), threshold=1e-9)  # content with nothing: every step is taken


def sampling_of(model: Model, steps: int) -> Sampling:
    """One request, and the pipeline behind `run`."""
    request = REQUESTS[0]
    guidance = Guidance(model.condition([str(request.words)]), model.condition([""]))

    def run(requests: Sequence[SampleRequest], given: Guidance) -> list[Image.Image]:
        asked = [request._replace(conditioning=given.positive) for request in requests]
        return model.sample(asked, steps=steps, guidance=5.0, batch=1)

    return Sampling([request], guidance, steps, 5.0, run)


def test_images_that_pass_are_the_models_own_bit_for_bit(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("pno").build({}, context_of(model, tmp_path, Bright(1.1)))
    assert torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))


@pytest.mark.slow
def test_of_the_starts_that_of_the_lowest_score_is_shown(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("pno").build({"starts": 3}, context_of(model, tmp_path, Bright(0.0)))
    alone = GUARDS.get("pno").build({"starts": 1}, context_of(model, tmp_path, Bright(0.0)))
    # Of these three requests one at least has a darker picture from another start than from its own.
    asked = [REQUESTS[0]._replace(seed=seed) for seed in range(3)]
    darkest, own = ([float(sample(model, one, [a], steps=2).float().mean()) for a in asked] for one in (hooks, alone))
    assert all(a <= b for a, b in zip(darkest, own, strict=True))
    assert darkest != own


def test_an_image_from_a_picture_is_left_alone(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("pno").build({}, context_of(model, tmp_path, Bright(0.0)))
    requests = [REQUESTS[0]._replace(start=Image.new("RGB", (64, 64), "green"), strength=0.5)]
    assert torch.equal(sample(model, hooks, requests), sample(model, None, requests))


def test_a_differentiable_score_is_the_verdicts(model: Model, judge: MiniJudge) -> None:
    assert isinstance(judge, Differentiable)
    images = model.sample(REQUESTS, steps=4, guidance=5.0, batch=2)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    given = [verdict.score for verdict in judge.detect(images)]
    assert judge.scores(pixels).tolist() == pytest.approx(given, abs=1e-5)


def test_the_gradient_is_of_the_image_that_is_shown(model: Model, judge: MiniJudge) -> None:
    """The loss along the differentiable path is that of the image which the pipeline gives from the same noise."""
    sampling = sampling_of(model, 3)
    noise = noise_of(model, [7])
    search = Search(model, judge, PnoSettings(), 0)
    loss = search.loss(noise, sampling.guidance, sampling)
    image = sampling.run([REQUESTS[0]._replace(trajectory=Trajectory(noise[0], 3))], sampling.guidance)
    score = judge.detect(image)[0].score
    assert float(1 - torch.exp(-loss)) == pytest.approx(score, abs=0.02)  # pixels of the image are rounded


def test_steps_lower_the_score(model: Model, judge: MiniJudge) -> None:
    sampling = sampling_of(model, 4)
    with torch.no_grad():
        scores = [
            judge.detect([Search(model, judge, PnoSettings(starts=1, steps=steps), 0)(
                REQUESTS[0], sampling.guidance, sampling)])[0].score
            for steps in (0, 1)
        ]  # fmt: skip
    assert scores[1] < scores[0]


def test_a_vae_that_overflows_in_fp16_has_a_gradient_all_the_same(judge: MiniJudge) -> None:
    """As SDXL's does: a gradient that is not finite would end the optimisation without a word."""
    model = load_model("mini", torch.device("cpu"), torch.float16)
    assert isinstance(model, DiffusersModel)
    first = model.pipe.vae.decoder.conv_in
    first.weight.mul_(6e4 / float(first.weight.abs().max()))
    assert not torch.isfinite(model.kind.latents.decode(model.pipe, noise_of(model, [7]))).all()
    sampling, looks = sampling_of(model, 2), []

    def run(requests: Sequence[SampleRequest], given: Guidance) -> list[Image.Image]:
        looks.append(given)
        return sampling.run(requests, given)

    Search(model, judge, PnoSettings(starts=1, steps=1), 0)(
        REQUESTS[0], sampling.guidance, sampling._replace(run=run)
    )  # fmt: skip
    assert len(looks) == 2  # before the step, and after it
    assert not torch.equal(looks[1].positive.text, looks[0].positive.text)
    assert model.pipe.vae.dtype == torch.float16


def test_a_detector_that_measures_is_refused_before_anything_runs(tmp_path: Path) -> None:
    settings = {"guard": ["pno"]}
    heads = {"evaluate.judges": ["mini-judge", "mini-judge-b"]}
    with pytest.raises(DuoError, match="works towards the detector that measures") as raised:
        duo.open_run(tmp_path / "run", settings=settings | heads)
    assert len(str(raised.value).splitlines()) <= 3
    assert "evaluate.judges=[mini-judge-b]" in str(raised.value)
    faults = find_faults({**settings, "evaluate": {"judges": ["mini-judge"]}, "output": str(tmp_path / "run")}).faults
    assert [fault.problem for fault in faults] == [raised.value.problem]
    # Beside the judge that heads the tables the detector may stand: the guard has no number under it.
    for apart in ({}, {"evaluate.judges": ["mini-judge-b"]}):
        assert duo.open_run(tmp_path / "run", settings=settings | apart).settings.guard == ["pno"]
    # The other judge as its detector, named in an option, or the guard in a system's name.
    other = {"guards.pno.detector": "mini-judge-b"}
    with pytest.raises(DuoError, match="works towards"):
        duo.open_run(tmp_path / "run", settings=settings | apart | other)
    run = duo.open_run(tmp_path / "run", settings=other | apart)
    with pytest.raises(DuoError, match="works towards"):
        run.check_system(run.system("pno"))
    assert Pno.asks == "a detector that heads no table"


@pytest.mark.slow
def test_what_it_worked_towards_is_no_measure_of_it_afterwards_either(tmp_path: Path) -> None:
    settings = {"evaluate.judges": ["mini-judge-b"], "evaluate.steps": 2, "evaluate.inversion_prompts": 0}
    run = make_run(tmp_path, {**settings, "guards.pno.starts": 1, "guards.pno.steps": 0})
    duo.evaluate(run, ["duo", "duo+pno"])
    said: list[str] = []
    results = duo.judge(run, "mini-judge", say=said.append)
    asked = str(run.detector.contract)
    told = {(e.system, e.contract.partition("[")[0].partition("@")[0]) for e in results.estimates if e.n}
    assert {("duo", "mini-judge"), ("original", "mini-judge"), ("duo+pno", "mini-judge-b")} <= told
    assert ("duo+pno", "mini-judge") not in told
    lacking = {a["scenario"] for a in results.absent if a["system"] == "duo+pno" and "works towards" in a["reason"]}
    assert lacking >= {"direct", "keep"}
    assert [line for line in said if "works towards" in line] == [
        f"judge: duo+pno has no number under {asked}: pno works towards it"
    ]
    # An output filter asks a detector and changes nothing for it: under another threshold its numbers stand.
    assert run.system("duo+output-filter").works_towards(asked) is None
    assert run.system("duo+output-filter").why_no_measure(asked.replace(">=0.5", ">=0.25"), head="") is None


def test_a_detector_that_there_is_not_is_told(tmp_path: Path) -> None:
    given = {"guard": ["output-filter"], "guards": {"output-filter": {"detector": "no-such"}}}
    with pytest.raises(DuoError, match="no detector of that name"):
        duo.open_run(tmp_path / "run", settings=given)
