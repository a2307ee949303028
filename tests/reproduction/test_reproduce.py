"""A protocol of one's own, run whole on the mini model: what is compared, drawn, resumed and refused."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from duo_unlearn.arena.sharing import share_edit
from duo_unlearn.concepts.store import concept_path
from duo_unlearn.edits.provenance import edit_hash
from duo_unlearn.errors import DuoError
from duo_unlearn.families.load import load_model
from duo_unlearn.metrics.distribution import LEAST
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.report.status import read_status
from duo_unlearn.reproduction.page import as_text
from duo_unlearn.reproduction.plan import (
    Brought,
    caption_folder,
    changes,
    check_brought,
    check_captions,
    given_settings,
    plan_lines,
    used_files,
)
from duo_unlearn.reproduction.protocol import Protocol, load_protocol
from duo_unlearn.reproduction.reproduce import RESULTS, _captions, _Place, reproduce, stages
from duo_unlearn.reproduction.results import read_reproduction
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import nest
from duo_unlearn.storage.files import sha256_of, write_json, write_tensors

from ..command import as_process
from ..concepts.test_captions import coco
from ..drawn_pairs import draw_pairs
from ..small_concept import small_concept

COUNTS = {"steps": 4, "prompts": 2, "keep_prompts": 3, "neighbour_prompts": 1, "inversion_prompts": 0}


def own_protocol(folder: Path, concepts: list[str] | None = None, **more: Any) -> Protocol:
    """A protocol whose run takes seconds, with two published numbers: one of a wording, one of an attack."""
    row = {"metric": "dsr", "scenario": "direct", "beta": 20, "value": 0.5, "tolerance": 0.5, "source": "made up"}
    content = {
        "name": "own", "title": "A protocol of one's own", "source": "here", "model": "mini", "seed": 3,
        "concepts": concepts or [small_concept(folder)], "betas": [20],
        "settings": {
            "pairs": {"folder": str(folder / "mine"), "trust": True},
            "train": {"max_train_steps": 1, "train_batch_size": 1}, "evaluate": COUNTS,
        },
        "attacks": [{"name": "image-to-image", "preset": "quick", "prompts": 2}],
        "captions": {"year": 2014, "images": 3, "prompts": 2},
        "published": [row, {**row, "attack": "image-to-image", "preset": "quick"}],
        **more,
    }  # fmt: skip
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_protocol(str(path))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reproduce")
    draw_pairs(folder / "mine", 3)
    reproduce(own_protocol(folder), Brought(folder / "out", captions=coco(folder, 3)), quiet=True)
    return folder


@pytest.mark.slow
def test_what_is_found_stands_beside_what_was_published(place: Path) -> None:
    found = read_reproduction(place / "out" / RESULTS)
    assert [row.verdict for row in found.rows] == ["agrees", "agrees"]  # 0 to 100 % agree with 50 ± 50
    assert {row.ours.n for row in found.rows if row.ours is not None} <= {1, 2}
    assert {one.beta for one in found.measured} == {None, 20}
    assert {one.scenario for one in found.measured if one.metric == "prior preservation"} >= {"keep", "captions"}
    assert found.seed == 3
    assert [one.role for one in found.files] == ["captions"]


@pytest.mark.slow
def test_fid_and_clip_score_of_captions_stand_beside_those_of_a_publication(tmp_path: Path) -> None:
    count = LEAST["fid"]
    draw_pairs(tmp_path / "mine", 3)
    draw_pairs(tmp_path / "pictures", count // 2)  # two sides a pair
    row = {"scenario": "captions", "beta": 20, "value": 0, "tolerance": 1e4, "source": "made up"}
    given: dict[str, Any] = {
        "attacks": [], "captions": {"year": 2014, "images": count, "prompts": count},
        "published": [{"metric": "fid", **row}, {"metric": "clip score", **row}],
    }  # fmt: skip
    brought = Brought(
        tmp_path / "out",
        captions=coco(tmp_path, count),
        images=tmp_path / "pictures",
        settings={"evaluate": {"steps": 2}},
    )
    reproduce(own_protocol(tmp_path, **given), brought, quiet=True)
    found = read_reproduction(tmp_path / "out" / RESULTS)
    assert [row.verdict for row in found.rows] == ["agrees", "agrees"]
    assert [row.ours.n for row in found.rows if row.ours is not None] == [count, count]
    assert "from pictures" in next(one.contract for one in found.measured if one.metric == "fid" and one.beta == 20)
    head = "| β | prior preservation, keep | fid, captions | clip score, captions |"
    assert head in (tmp_path / "out" / "reproduction.md").read_text()


@pytest.mark.slow
def test_the_page_and_the_figure(place: Path) -> None:
    text = (place / "out" / "reproduction.md").read_text()
    assert text == as_text(read_reproduction(place / "out" / RESULTS))
    assert "own: 2 published numbers: agrees 2" in text
    assert (place / "out" / "own-sword.png").stat().st_size > 5000
    assert "](own-sword.png)" in text


@pytest.mark.slow
def test_the_same_call_makes_nothing_anew(place: Path) -> None:
    files = {path: path.stat().st_mtime_ns for path in place.glob("out/**/*.png") if path.parent != place / "out"}
    before = (place / "out" / RESULTS).read_bytes()
    reproduce(own_protocol(place), Brought(place / "out", captions=coco(place, 3)), quiet=True)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (place / "out" / RESULTS).read_bytes() == before


@pytest.mark.slow
def test_every_run_folder_is_told_to_who_looks(place: Path) -> None:
    brought = Brought(place / "out", captions=coco(place, 3))
    made = stages(own_protocol(place), brought)
    folders = list(made)
    assert list(made.values()) == [["pairs"], ["train", "images"], ["images"]]
    assert all((folder / "settings.yaml").exists() for folder in folders)
    evaluated = read_status(Run(folders[-1])).stages[2]
    assert (evaluated.state, evaluated.done) == ("done", evaluated.of)  # captions are counted


@pytest.mark.slow
def test_a_folder_of_another_protocol_is_refused(place: Path) -> None:
    other = own_protocol(place, betas=[20, 30])
    with pytest.raises(DuoError, match="reproduction of another protocol"):
        reproduce(other, Brought(place / "out"), quiet=True)


@pytest.mark.parametrize(
    ("images", "info", "said"),
    [(3, {"year": 2017}, "2017, not 2014"), (3, {}, "no year in it"), (4, {"year": 2014}, "4 images, not of 3")],
)
def test_captions_of_another_year_or_part(tmp_path: Path, images: int, info: dict[str, int], said: str) -> None:
    draw_pairs(tmp_path / "mine", 1)
    path = coco(tmp_path, images, info=info)
    with pytest.raises(DuoError) as caught:
        check_captions(own_protocol(tmp_path), path)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3
    assert not (tmp_path / "out").exists()


def test_the_plan_makes_nothing_and_names_what_is_missing(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 1)
    lines = plan_lines(own_protocol(tmp_path), Brought(tmp_path / "out"))
    assert any(line.strip().startswith("captions: captions_val2014.json: MISSING") for line in lines)
    assert any("image-to-image (quick): 0.5 ± 0.5" in line for line in lines)
    assert not (tmp_path / "out").exists()


def test_the_plan_has_every_hash_that_is_known(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 1)
    draw_pairs(tmp_path / "pictures", 2)
    captions = coco(tmp_path, 3)
    brought = Brought(tmp_path / "out", captions=captions, images=tmp_path / "pictures")
    text = "\n".join(plan_lines(own_protocol(tmp_path), brought))
    judge = sha256_of(weights_folder() / "judge" / "model.safetensors")
    assert f"model: mini, fingerprint {load_model('mini', torch.device('cpu')).fingerprint()}: there" in text
    assert f"detector: mini-judge, weights @{judge[:8]}: there" in text
    assert f"captions: {captions}, SHA-256 {sha256_of(captions)}: there" in text
    assert f"pictures, digest of their names and sizes {used_files(brought)[1].sha256}: there" in text
    assert "network of LPIPS: alexnet-owt-7be5be79.pth, SHA-256 begins with 7be5be79" in text
    assert re.search(r"CLIP of the CLIP score and CMMD: mini, weights @[0-9a-f]{8}: there", text)


def test_the_plan_tells_what_it_costs(tmp_path: Path) -> None:
    whole = load_protocol("sd14-nudity")
    hours = []
    for betas in (whole.betas[:2], whole.betas[:4]):
        part = whole.model_copy(update={"betas": betas})
        line = next(line for line in plan_lines(part, Brought(tmp_path)) if "pairs, DUO and its evaluation" in line)
        assert line.startswith(f"  {len(betas)} × nudity: ")
        assert re.search(r" TFLOP/s, [1-9]\d* GB of disk, [1-9]\d* GB of device memory$", line)
        hours.append(float(line.partition("at most ")[2].partition(" h")[0]))
    assert hours[1] == pytest.approx(2 * hours[0], abs=0.15)
    assert hours[0] > 1


@pytest.mark.parametrize("name", ["mini-sword", "sd14-nudity", "sd14-violence", "sd3-nudity"])
def test_the_plan_of_every_shipped_protocol(tmp_path: Path, name: str) -> None:
    protocol = load_protocol(name)
    lines = plan_lines(protocol, Brought(tmp_path))
    told = [line for line in lines if "MISSING" in line]
    assert any(line.strip().startswith("model") for line in told) == (name != "mini-sword")
    assert sum("× attack" in line for line in lines) == len(protocol.attacks)


@pytest.mark.slow
def test_captions_that_were_measured_stay_without_the_file(place: Path) -> None:
    before = read_reproduction(place / "out" / RESULTS)
    found = reproduce(own_protocol(place), Brought(place / "out"), quiet=True)
    assert found == before


def test_captions_that_were_asked_of_another_edit_are_not_read(tmp_path: Path) -> None:
    protocol, out = own_protocol(tmp_path), tmp_path / "out"
    trained, asked = Run(out / "member"), Run(caption_folder(out, 20))
    for run in (trained, asked):
        write_tensors(run.edit("duo") / "pytorch_lora_weights.safetensors", {"a": torch.zeros(1)})
    write_json(asked.results, {})
    places = [_Place(20, protocol.names[0], trained, "duo")]
    assert [place.run.folder for place in _captions(protocol, Brought(out), places, quiet=True)] == [asked.folder]
    write_tensors(trained.edit("duo") / "pytorch_lora_weights.safetensors", {"a": torch.ones(1)})  # it is trained anew
    assert _captions(protocol, Brought(out), places, quiet=True) == []


@pytest.mark.slow
def test_what_is_not_as_the_protocol_has_it_is_told(place: Path) -> None:
    found = read_reproduction(place / "out" / RESULTS)
    assert found.changes == []
    given = own_protocol(place)
    other = resolve_settings(given_settings(given, Brought(place, seed=7), given.concepts[0], place / "none"))
    assert changes(given, other, given.concepts[0]) == ["seed: 7, not 3"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "key", "hint"),
    [
        ("mini-sword", "seed", "--seed"),
        ("mini-sword", "model", "--model"),
        ("mini-sword", "train.beta", "a protocol of yours"),
        ("sd14-nudity", "train.learning_rate", "a protocol of yours"),
    ],
)
def test_a_setting_that_would_not_be_read_is_refused(tmp_path: Path, name: str, key: str, hint: str) -> None:
    protocol, brought = load_protocol(name), Brought(tmp_path / "out", settings=nest({key: 7}))
    for refuses in (check_brought, plan_lines, reproduce):
        with pytest.raises(DuoError, match="would not be read") as caught:
            refuses(protocol, brought)
        assert (caught.value.got, str(caught.value.hint)[: len(hint)]) == (f"--set {key}", hint)
    assert not (tmp_path / "out").exists()
    rate = nest({"train.learning_rate": 1e-4, "device": "cpu"})
    check_brought(load_protocol("mini-sword"), Brought(tmp_path, settings=rate))


def test_a_copy_of_an_edit_follows_it(place: Path, tmp_path: Path) -> None:
    source = next((place / "out").glob("*/sweep/beta-20/edits/duo"))
    share_edit(source, tmp_path / "duo")
    before = edit_hash(tmp_path / "duo")
    (tmp_path / "duo" / "pytorch_lora_weights.safetensors").unlink()  # as a copy that was stopped half-way
    share_edit(source, tmp_path / "duo")
    assert edit_hash(tmp_path / "duo") == before == edit_hash(source)


@pytest.mark.slow
def test_two_processes_add_up_concepts_that_are_trained_apart(tmp_path: Path) -> None:
    """One of them is killed in between, and the same command goes on."""
    draw_pairs(tmp_path / "mine", 3)
    draw_pairs(tmp_path / "pictures", 2)
    row = {"metric": "dsr", "scenario": "direct", "beta": 20, "value": 0.5, "tolerance": 0.5, "source": "made up"}
    rows = [{**row, "concept": "balloon"}, {**row, "concept": "sword"}]
    balloon = yaml.safe_load(concept_path("balloon").read_text())
    few = {"attacks": {"direct": balloon["attacks"]["direct"]}, "neighbours": {}}
    (tmp_path / "balloon.yaml").write_text(yaml.safe_dump({**balloon, **few}))
    own_protocol(tmp_path, [small_concept(tmp_path), str(tmp_path / "balloon.yaml")], published=rows)
    words = ["own.yaml", "-o", "out", "--captions", coco(tmp_path, 3).name, "--images", "pictures"]
    command = as_process("reproduce", *words)
    first = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("out/*/sweep/*/edits/duo")) and first.poll() is None:
        time.sleep(0.2)
    first.kill()
    first.wait()
    ended = subprocess.run([*command, "--workers", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = read_reproduction(tmp_path / "out" / RESULTS)
    assert [row.verdict for row in found.rows] == ["agrees", "agrees"]
    assert {one.system for one in found.measured} == {"original", "composed"}
    assert {one.attack for one in found.measured if one.concept == "balloon"} >= {None, "image-to-image"}
    assert {one.concept for one in found.measured if one.scenario == "captions"} == {"sword"}
    assert {file.role for file in found.files} == {"captions", "images of the captions"}
