"""What `duo check --fit` says: settings that fit, none with more than is needed, the least harmful first."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from duo_unlearn.cli.main import app
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.errors import DuoError
from duo_unlearn.families.quantize import why_no_package
from duo_unlearn.settings.fit import Fit, as_lines, changed, fits, memory_of
from duo_unlearn.settings.needs import estimate
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import Settings, merge, parse_assignments

CONCEPT = load_concept("nudity")


def run(tmp_path: Path, model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "concept": "nudity", "output": str(tmp_path / "run"), **more}


def found(given: dict[str, Any], memory: float) -> list[Fit]:
    return fits(resolve_settings(given), CONCEPT, memory)


@pytest.mark.parametrize(
    ("model", "memory"), [("a/flux", 24), ("a/stable-diffusion-xl", 12), ("a/stable-diffusion-v1-4", 8)]
)
def test_each_line_fits_when_it_is_pasted(tmp_path: Path, model: str, memory: float) -> None:
    given = run(tmp_path, model)
    options = found(given, memory)
    assert options
    for fit, line in zip(options, as_lines(options), strict=True):
        words = shlex.split(line, comments=True)
        assert words[::2] == ["--set"] * (len(words) // 2)
        needs = estimate(resolve_settings(merge(given, parse_assignments(words[1::2]))), CONCEPT)
        assert needs == fit.needs
        assert max(needs.training, needs.sampling) <= memory
        assert f"training {needs.training:.1f} GB, sampling {needs.sampling:.1f} GB" in line


def test_nothing_is_changed_where_the_settings_fit(tmp_path: Path) -> None:
    given = run(tmp_path, "a/stable-diffusion-v1-4", train={"mixed_precision": "bf16"})
    (only,) = found(given, 24)
    assert only.changes == {}
    assert only.time == 1
    assert as_lines([only])[0].startswith("# as it is: training 13.")


def test_batches_of_images_shrink_first_and_harm_nothing(tmp_path: Path) -> None:
    given = run(tmp_path, "a/stable-diffusion-3", train={"mixed_precision": "bf16", "gradient_checkpointing": True})
    (only,) = found(given, 17)
    assert only.changes == {"evaluate.batch": 4, "pairs.batch": 4}
    assert only.time == 1


def test_the_least_harmful_is_first_and_no_line_holds_another(tmp_path: Path) -> None:
    options = found(run(tmp_path, "a/stable-diffusion-v1-4"), 6)
    sides = [fit.changes.get("resolution", 512) for fit in options]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == 3
    kept = [{k: v for k, v in fit.changes.items() if not k.endswith(".batch")} for fit in options]
    for i, mine in enumerate(kept):
        assert not any(other.items() <= mine.items() for j, other in enumerate(kept) if i != j)


def test_a_split_batch_has_as_many_pairs_a_step(tmp_path: Path) -> None:
    options = found(run(tmp_path, "a/stable-diffusion-xl", train={"mixed_precision": "bf16"}), 12)
    split = [fit.changes for fit in options if "train.train_batch_size" in fit.changes]
    assert split
    for changes in split:
        assert changes["train.train_batch_size"] * changes["train.gradient_accumulation_steps"] == 4


def test_the_time_is_that_of_the_operations(tmp_path: Path) -> None:
    given = resolve_settings(run(tmp_path, "a/stable-diffusion-v1-4", train={"mixed_precision": "bf16"}))
    before = estimate(given, CONCEPT)
    assert before is not None
    checkpointed = next(fit for fit in fits(given, CONCEPT, 8) if "train.gradient_checkpointing" in fit.changes)
    after = checkpointed.needs
    assert after.training_hours == pytest.approx(before.training_hours * 4 / 3)
    hours = before.training_hours + before.sampling_hours
    assert checkpointed.time == pytest.approx((after.training_hours + after.sampling_hours) / hours)


def test_few_bits_are_for_those_that_can_have_them(tmp_path: Path) -> None:
    flux = found(run(tmp_path, "a/flux"), 24)
    assert {fit.changes.get("quantize") for fit in flux} <= {"int8", "nf4"}
    for fit in flux:
        assert fit.install == why_no_package(fit.changes["quantize"])
    assert all("quantize" not in fit.changes for fit in found(run(tmp_path, "a/stable-diffusion-xl"), 8))
    settings = changed(resolve_settings(run(tmp_path, "a/flux")), {"quantize": "nf4"})
    assert all("quantize" not in fit.changes for fit in fits(settings, CONCEPT, 24))


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="nothing fits 2 GB") as caught:
        found(run(tmp_path, "a/stable-diffusion-xl"), 2)
    assert "the least is" in str(caught.value.got)
    assert "--set resolution=512" in str(caught.value.got)
    needed = float(str(caught.value.hint).split()[-2])
    assert found(run(tmp_path, "a/stable-diffusion-xl"), needed)
    with pytest.raises(DuoError, match="nothing fits"):
        found(run(tmp_path, "a/stable-diffusion-xl"), needed - 1)


def test_another_eraser_is_not_estimated(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="of duo alone"):
        found(run(tmp_path, "a/stable-diffusion-v1-4", eraser="uce"), 8)


@pytest.mark.parametrize("text", ["much", "0", "-3", "nan", "inf", ""])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(DuoError, match="memory of one device in GB") as caught:
        memory_of(text)
    assert len(str(caught.value).splitlines()) == 3


def test_changed_settings_are_as_resolved() -> None:
    settings = changed(Settings(), {"resolution": 512, "train.rank": 4, "train.beta": 9.0, "evaluate.batch": 2})
    assert (settings.resolution, settings.train.rank, settings.train.beta, settings.evaluate.batch) == (512, 4, 9, 2)
    assert Settings().train.rank == 32


def test_the_command(tmp_path: Path) -> None:
    command = ["check", "-o", str(tmp_path / "run"), "--json", "--fit", "8"]
    mini = CliRunner().invoke(app, command)
    content = json.loads(mini.stdout)
    assert (content["needs"], content["fits"], content["settings"]["model"]) == (None, [], "mini")
    words = CliRunner().invoke(app, [*command[:3], "--fit", "8"])
    assert "nothing has to be changed" in words.stderr
    assert words.stdout == ""
