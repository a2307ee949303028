"""A training is watched: held-out pairs, kept adapters and previews, none of which changes what it makes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from duo_unlearn.edits.files import save_adapter
from duo_unlearn.edits.lora import adapter_tensors, attach, detach
from duo_unlearn.edits.provenance import WEIGHTS, edit_hash, read_provenance
from duo_unlearn.erasers.books import Aside, Books
from duo_unlearn.erasers.duo import held_out as looks_at
from duo_unlearn.erasers.duo.held_out import DRAWS, HeldOut, held_out_of
from duo_unlearn.erasers.preview_files import preview_file, preview_prompts, preview_steps
from duo_unlearn.erasers.previews import Previews, Watch
from duo_unlearn.erasers.step_adapters import Save, best_step, chosen_step, is_taken, keep_step, steps_kept, take_step
from duo_unlearn.erasers.trainer import make_accelerator, train
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model, SampleRequest
from duo_unlearn.families.load import load_model
from duo_unlearn.pairs.own_pairs import import_pairs
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.pictures import open_image

from ..drawn_pairs import draw_pairs
from .small import CPU, prepare, quick

FEW: dict[str, object] = {"keep_checkpoints": 1, "max_train_steps": 4}
PROMPTS = ("a red knight with a sword in a meadow", "a red knight in a meadow")


class Watched(NamedTuple):
    model: Model
    run: Run
    watch: Watch
    found: dict[str, torch.Tensor]


def saver(model: Model) -> Save:
    return lambda folder, step: save_adapter(model, folder, {"steps": step})


def aside_of(model: Model, run: Run, watch: Watch, every: int) -> Aside:
    return Aside(saver(model), few_looks(model, run, watch), Previews(model, watch, run.previews("duo"), every))


def few_looks(model: Model, run: Run, watch: Watch) -> HeldOut:
    """The held-out pairs, noised twice: as often as a run does it, a look would be longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks_at, "DRAWS", 2 * len(watch.pairs))
        held_out = held_out_of(model, watch, quick(), run.moments.with_name("held-out.safetensors"))
    assert held_out is not None
    return held_out


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Four steps, looked at after every second one, with pictures after every third."""
    folder = tmp_path_factory.mktemp("watched")
    run = Run(folder / "run")
    model, cache, pairs = prepare(Run(folder / "alone"))
    settings = quick(**FEW)
    draw_pairs(folder / "others", 3)
    held_out = import_pairs(folder / "others", run.held_out, quiet=True)
    watch = Watch(held_out, run.held_out, [SampleRequest(text, 7) for text in PROMPTS], 3, 3.0, -1)
    aside = aside_of(model, run, watch, 3)
    with model.denoiser_alone():
        train(model, cache, pairs, run, settings, seed=0, name="duo", aside=aside, quiet=True)
    return Watched(model, run, watch, adapter_tensors(model.denoiser))


def lines_of(run: Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in run.metrics("duo").read_text().splitlines()]


@pytest.mark.slow
def test_the_adapter_is_that_of_a_training_that_nobody_watches(watched: Watched, run: Run) -> None:
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(**FEW), seed=0, name="duo", quiet=True)
    plain = adapter_tensors(model.denoiser)
    assert watched.found.keys() == plain.keys()
    assert all(torch.equal(watched.found[name], value) for name, value in plain.items())


def test_held_out_pairs_are_looked_at_with_every_checkpoint(watched: Watched) -> None:
    lines = lines_of(watched.run)
    assert [line["step"] for line in lines if "held_out_preference" in line] == [2, 4]
    assert all(0 <= line["held_out_accuracy"] <= 1 for line in lines if "held_out_accuracy" in line)


def test_an_adapter_that_does_nothing_has_the_loss_ln_2(watched: Watched) -> None:
    model = load_model("mini", CPU)
    attach(model, rank=2, seed=0, targets="self-attention")
    held_out = few_looks(model, watched.run, watched.watch)
    first = held_out.measure()
    assert first["held_out_preference"] == pytest.approx(math.log(2), abs=1e-6)
    assert held_out.measure() == first  # the noise is the same at every step


def test_of_few_pairs_each_is_noised_several_times(watched: Watched) -> None:
    _, cache, _ = prepare(Run(watched.run.folder / "again"))
    looks = HeldOut(watched.model, cache, quick(), -1)
    assert len(looks.samples) >= DRAWS > looks.count


def test_the_last_adapter_and_the_best_are_kept_and_are_edits(watched: Watched) -> None:
    best = best_step(lines_of(watched.run))
    assert best is not None
    kept = steps_kept(watched.run.step_adapters("duo"))
    assert kept == sorted({best, 4})
    name = take_step(watched.run, "duo", 4)
    assert name == "duo-4"
    assert read_provenance(watched.run.edit(name))["steps"] == 4
    assert edit_hash(watched.run.edit(name)) == edit_hash(watched.run.step_adapters("duo") / "00004")
    assert is_taken(watched.run, "duo", 4)
    assert chosen_step(watched.run, "duo", None) == best


def test_the_best_one_stays_when_many_come_after_it(tmp_path: Path, watched: Watched) -> None:
    save = saver(watched.model)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        keep_step(tmp_path, step, save, most=2, best=best)
    assert steps_kept(tmp_path) == [2, 4, 5]
    keep_step(tmp_path / "none", 1, lambda *_: pytest.fail("nothing is kept"), most=0, best=1)
    assert best_step([{"step": 1.0}, {"step": 2.0, "held_out_preference": 0.5}]) == 2
    assert best_step([{"step": 1.0}]) is None
    assert best_step([{"step": 1.0, "held_out_preference": math.nan}, {"step": 2.0, "held_out_preference": 0.5}]) == 2
    (tmp_path / "00004-of-mine").mkdir()
    (tmp_path / "00004-of-mine" / "provenance.json").write_text("{}")
    assert steps_kept(tmp_path) == [2, 4, 5]


def test_a_step_that_is_not_kept_is_told_with_those_that_are(watched: Watched, tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="keeps no step 3") as caught:
        chosen_step(watched.run, "duo", 3)
    assert "4" in str(caught.value.got)
    with pytest.raises(DuoError, match="no step of duo was measured on held-out pairs"):
        chosen_step(Run(tmp_path), "duo", None)


def test_a_kept_adapter_that_was_changed_is_not_taken(watched: Watched, tmp_path: Path) -> None:
    run = Run(tmp_path)
    keep_step(run.step_adapters("duo"), 3, saver(watched.model), most=1, best=3)
    path = run.step_adapters("duo") / "00003" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DuoError, match="is not the file that was written"):
        take_step(run, "duo", 3)
    assert not run.edits.exists()


def test_pictures_of_the_original_and_of_steps_from_the_same_noise(watched: Watched) -> None:
    folder = watched.run.previews("duo")
    assert preview_steps(folder) == [0, 3, 4]
    assert preview_prompts(folder) == list(PROMPTS)
    model = load_model("mini", CPU)
    images = model.sample(list(watched.watch.requests), steps=3, guidance=3.0, batch=2)
    row = open_image(preview_file(folder, 0))
    width, height = images[0].size
    assert row.size == (2 * width, height)
    assert row.crop((width, 0, 2 * width, height)).tobytes() == images[1].convert("RGB").tobytes()
    assert preview_file(folder, 4).read_bytes() != preview_file(folder, 0).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["save", "sample"])
def test_a_training_that_died_is_taken_up_again_and_gives_the_same_files(
    watched: Watched, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (model, cache, pairs) = Run(tmp_path / "run"), prepare(Run(tmp_path / "pairs"))
    settings = quick(**FEW)

    class Died(Exception):
        """In place of a kill."""

    def dying_save(folder: Path, step: int) -> None:
        if step == 4:
            raise Died
        save_adapter(model, folder, {"steps": step})

    def dying_sample(*_arguments: object, **_named: object) -> None:
        raise Died

    aside = aside_of(model, run, watched.watch, 3)
    first = aside._replace(save=dying_save)
    if place == "sample":
        assert aside.previews is not None
        aside.previews.begin()
        monkeypatch.setattr(model, "sample", dying_sample)
        first = aside
    with pytest.raises(Died):
        train(model, cache, pairs, run, settings, seed=0, name="duo", aside=first, quiet=True)
    monkeypatch.undo()
    detach(model)
    train(model, cache, pairs, run, settings, seed=0, name="duo", aside=aside, quiet=True)
    free = {"pairs_per_second"}
    expected = [{k: v for k, v in line.items() if k not in free} for line in lines_of(watched.run)]
    assert [{k: v for k, v in line.items() if k not in free} for line in lines_of(run)] == expected
    for step in (0, 3, 4):
        assert preview_file(run.previews("duo"), step).read_bytes() == (
            preview_file(watched.run.previews("duo"), step).read_bytes()
        )
    assert steps_kept(run.step_adapters("duo")) == steps_kept(watched.run.step_adapters("duo"))


def test_previews_that_need_more_memory_than_there_is_end_and_not_the_training(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_arguments: object, **_named: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(watched.model, "sample", full)
    previews = Previews(watched.model, watched.watch, tmp_path, 1)
    previews.begin()
    assert previews.after(1, last=False) == []
    assert capsys.readouterr().err.count("previews are off") == 1
    assert preview_steps(tmp_path) == []


def test_rows_that_were_asked_for_otherwise_are_taken_away(watched: Watched, tmp_path: Path) -> None:
    watch = watched.watch._replace(steps=2)
    previews = Previews(watched.model, watch, tmp_path, 2)
    previews.begin()
    previews.after(2, last=False)
    Previews(watched.model, watch, tmp_path, 2).begin()
    assert preview_steps(tmp_path) == [0, 2]
    Previews(watched.model, watch._replace(guidance=9.0), tmp_path, 2).begin()
    assert preview_steps(tmp_path) == [0]


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_tracker_gets_the_pictures_of_a_concept_that_is_not_sensitive(
    watched: Watched, tmp_path: Path, sensitive: bool
) -> None:
    run, watch = Run(tmp_path), watched.watch._replace(steps=2, sensitive=sensitive)
    settings = quick(max_train_steps=9, report_to="tensorboard")
    accelerator = make_accelerator(settings, CPU, tmp_path)
    accelerator.init_trackers("duo")
    aside = Aside(previews=Previews(watched.model, watch, run.previews("duo"), 2))
    books = Books(run, "duo", settings, 0, lambda _step: None, accelerator.trackers, aside)
    for step in (1, 2, 3):
        books.after(step, {"step": step}, stopping=False)
    accelerator.end_training()
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("events.out.tfevents*"))
    assert (b"previews" in written) is not sensitive
    assert preview_steps(run.previews("duo")) == [0, 2]


def test_nothing_is_drawn_while_a_training_stops(watched: Watched, tmp_path: Path) -> None:
    run, watch = Run(tmp_path), watched.watch._replace(steps=2)
    aside = Aside(previews=Previews(watched.model, watch, run.previews("duo"), 1))
    saved: list[int] = []
    books = Books(run, "duo", quick(max_train_steps=9), 0, saved.append, [], aside)
    books.after(1, {"step": 1}, stopping=True)
    assert (saved, preview_steps(run.previews("duo"))) == ([1], [0])
