"""Pairs made by a model that draws its prompts, at times wrongly, and a detector that knows what was drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duo_unlearn.detectors.interface import AttributeReader
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.world.scenes import is_held_out
from duo_unlearn.pairs.manifest import read_manifest
from duo_unlearn.pairs.own_pairs import import_pairs, load_pairs, set_keep
from duo_unlearn.storage.pictures import open_image

from ..slow import slow
from .drawn_world import Gallery, GalleryDetector, World, files_of

STILL, NONE = "concept still in the safe image", "no concept in the unsafe image"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "pairs")


def test_pairs_are_what_they_should_be(world: World) -> None:
    assert isinstance(world.detector, AttributeReader)
    pairs = world.make()
    assert [p.name for p in pairs] == [f"{i:04}" for i in range(13)]
    items = ["none"] * 6 + ["wand"] * 4 + ["flower"] * 3
    for pair, item in zip(pairs, items, strict=True):
        before, after = (world.gallery[open_image(world.folder / file).tobytes()] for file in (pair.unsafe, pair.safe))
        assert before.item == "sword"
        assert after == before.counterpart(item)
        assert not is_held_out(before)
        assert not is_held_out(after)
        assert pair.unsafe_prompt is not None
        assert pair.safe_prompt is not None
        assert (
            pair.unsafe_prompt.split(" holding a sword ")[0]
            == pair.safe_prompt.split(" with ")[0].split(" holding ")[0]
        )
        assert pair.negative_prompt == pair.unsafe_prompt
        assert (pair.strength, pair.unsafe_score, pair.safe_score) == (0.75, 0.9, 0.1)
    assert load_pairs(world.folder) == pairs
    assert not (world.folder / "partial.json").exists()
    assert len({p.seed for p in pairs}) == 13


def test_the_tries_record_adds_up(world: World) -> None:
    world.make()
    records = read_manifest(world.folder).tries
    assert [r.wanted for r in records] == [r.kept for r in records] == [6, 4, 3]
    assert all(r.tries == r.kept + sum(r.rejected.values()) for r in records)
    reasons = {reason for r in records for reason in r.rejected}
    assert {NONE, STILL} <= reasons
    assert all(r.tries <= 8 * r.wanted for r in records)


def test_only_images_with_the_concept_are_edited(world: World) -> None:
    world.make()
    edits = [r for r in world.model.requests if r.start is not None]
    assert edits
    for request in edits:
        assert request.start is not None
        assert world.gallery[request.start.tobytes()].item == "sword"
        assert "sword" in request.negative
        assert request.strength == 0.75
    seeds = [r.seed for r in world.model.requests if r.start is None]
    assert len(seeds) == len(set(seeds))
    assert len(edits) == sum(seed % 5 != 0 for seed in seeds)
    assert not {r.seed for r in edits} & set(seeds)  # SDEdit noise is not the unsafe image's own


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_size_changes_nothing(tmp_path: Path, batch: int) -> None:
    one, other = World(tmp_path / "one"), World(tmp_path / "other")
    assert one.make(batch=4) == other.make(batch=batch)
    assert files_of(one.folder) == files_of(other.folder)


def test_another_seed_gives_other_pairs(tmp_path: Path) -> None:
    first, second = World(tmp_path / "a").make(seed=1), World(tmp_path / "b").make(seed=2)
    assert not {p.unsafe_sha256 for p in first} & {p.unsafe_sha256 for p in second}


@pytest.mark.parametrize("crash_after", [1, 17, *slow([0, 9, 25, 33])])
def test_a_killed_run_resumes_to_the_same_result(tmp_path: Path, crash_after: int) -> None:
    whole, killed = World(tmp_path / "whole"), World(tmp_path / "killed")
    expected = whole.make(batch=1)
    assert len(whole.model.requests) > 33
    killed.model.crash_after = crash_after
    with pytest.raises(KeyboardInterrupt):
        killed.make(batch=1)
    assert (killed.folder / "partial.json").exists()
    assert not (killed.folder / "manifest.json").exists()
    done = len(read_manifest(killed.folder, "partial.json").pairs)
    assert (done > 0) == (crash_after >= 17)
    killed.model.crash_after, before = None, len(killed.model.requests)
    assert killed.make(batch=1) == expected
    assert files_of(killed.folder) == files_of(whole.folder)
    # What was found before is not sampled again: one round of 8 is repeated at most.
    assert len(killed.model.requests) - before <= len(whole.model.requests) - crash_after + 16


def test_a_finished_folder_is_read_without_sampling(world: World) -> None:
    pairs = world.make()
    before, sampled = files_of(world.folder), len(world.model.requests)
    assert world.make(batch=2) == pairs
    assert len(world.model.requests) == sampled
    assert files_of(world.folder) == before
    set_keep(world.folder, ["0003"], False, "cropped")
    assert [p.name for p in world.make() if not p.keep] == ["0003"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"strength": 0.6}, "strength 0.75 there, 0.6 now"),
        ({"seed": 4}, "seed 3 there, 4 now"),
        ({"scale": 2.0, "steps": 11}, "scale 1.0 there, 2.0 now; steps 10 there, 11 now"),
    ],
)
def test_other_settings_in_the_folder_are_refused(world: World, changes: dict[str, Any], says: str) -> None:
    world.make()
    before = files_of(world.folder)
    with pytest.raises(DuoError, match=says) as caught:
        world.make(**changes)
    assert "another output folder" in str(caught.value)
    assert files_of(world.folder) == before


def test_another_model_or_concept_in_the_folder_is_refused(world: World, tmp_path: Path) -> None:
    world.make()
    world.model.base = "c"
    with pytest.raises(DuoError, match="model 'b' there, 'c' now"):
        world.make()
    world.model.base = "b"
    world.concept = world.concept.model_copy(update={"kept_attributes": []})
    with pytest.raises(DuoError, match="prompts"):
        world.make()
    source = tmp_path / "mine"
    for side in ("unsafe", "safe"):
        (source / side).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(source / side / "a.png")
    with pytest.raises(DuoError, match="concept 'sword' there, None now"):
        import_pairs(source, world.folder, quiet=True)


def test_a_changed_image_is_found_on_resume(world: World) -> None:
    world.model.crash_after = 25
    with pytest.raises(KeyboardInterrupt):
        world.make(batch=1)
    Image.new("RGB", (64, 64)).save(world.folder / "safe" / "0000.png")
    world.model.crash_after = None
    with pytest.raises(DuoError, match=r"safe/0000\.png"):
        world.make(batch=1)


def test_the_bound_ends_a_hopeless_search(tmp_path: Path) -> None:
    world = World(tmp_path / "pairs", wrong=(1.0, 0.0, 0.0))
    with pytest.raises(DuoError) as caught:
        world.make(tries=3)
    text = str(caught.value)
    assert len(text.splitlines()) == 3
    for part in ("after 3 tries", "6 of 6", "4 of 4", "3 of 3", "empty hands", f"{STILL} (", f"{NONE} ("):
        assert part in text
    assert sum(r.start is None for r in world.model.requests) == 3 * 13
    found = read_manifest(world.folder)
    assert found.pairs == []
    assert [r.tries for r in found.tries] == [18, 12, 9]
    sampled = len(world.model.requests)
    with pytest.raises(DuoError, match="after 3 tries"):
        world.make(tries=3)
    assert len(world.model.requests) == sampled


def test_too_little_strength_leaves_the_concept(world: World) -> None:
    with pytest.raises(DuoError, match=STILL):
        world.make(strength=0.2, tries=2)


def test_the_gates_name_what_went_wrong(tmp_path: Path) -> None:
    other = World(tmp_path / "other", wrong=(0.0, 1.0, 0.0))
    with pytest.raises(DuoError, match=r"safe image shows item=wand, not item="):
        other.make(tries=1)
    changed = World(tmp_path / "changed", wrong=(0.0, 0.0, 1.0))
    with pytest.raises(DuoError, match=r"subject changed from \w+ to knight"):
        changed.make(tries=1)


def test_half_of_the_pairs_is_enough_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(tmp_path / "pairs", wrong=(0.0, 0.0, 0.0))
    pairs = world.make(tries=1, seed=0, quiet=False)
    assert 7 <= len(pairs) < 13
    assert "warning: pairs are missing after 1 tries" in capsys.readouterr().err
    assert world.make(tries=1, seed=0) == pairs
    assert any(r.kept < r.wanted for r in read_manifest(world.folder).tries)


def test_more_tries_add_to_what_was_found(tmp_path: Path) -> None:
    world, whole = World(tmp_path / "pairs", wrong=(0.6, 0.1, 0.1)), World(tmp_path / "w", wrong=(0.6, 0.1, 0.1))
    with pytest.raises(DuoError):
        world.make(tries=2)
    some, sampled = load_pairs(world.folder), len(world.model.requests)
    assert some
    assert world.make(tries=40) == whole.make(tries=40)
    assert files_of(world.folder) == files_of(whole.folder)
    assert len(world.model.requests) - sampled < len(whole.model.requests)


def test_a_search_goes_on_at_its_own_resolution_alone(world: World) -> None:
    world.model.crash_after = 17
    with pytest.raises(KeyboardInterrupt):
        world.make(batch=1)
    world.model.crash_after, world.model.variant = None, "32px"
    with pytest.raises(DuoError, match="begun at 64px\nGot: 32px now"):
        world.make(batch=1)
    world.model.variant = "64px"
    pairs = world.make(batch=1)
    world.model.variant = "32px"  # to train at
    assert world.make(batch=1) == pairs


def test_scale_multiplies_the_counts(world: World) -> None:
    world.make(scale=0.1)
    assert [r.wanted for r in read_manifest(world.folder).tries] == [1, 1, 1]
    world.folder = world.folder.with_name("more")
    assert len(world.make(scale=2)) == 26


def test_a_detector_that_reads_nothing_gates_the_concept_alone(tmp_path: Path) -> None:
    class Blunt:
        contract = GalleryDetector.contract

        def __init__(self, gallery: Gallery) -> None:
            self.detect = GalleryDetector(gallery).detect

    world = World(tmp_path / "pairs", wrong=(0.0, 0.0, 1.0))
    detector: Any = Blunt(world.gallery)
    assert not isinstance(detector, AttributeReader)
    world.detector = detector
    assert len(world.make()) == 13


def test_the_concepts_own_negative_prompt_is_used(world: World) -> None:
    world.concept = world.concept.model_copy(update={"negative_prompt": "sharp things"})
    assert {p.negative_prompt for p in world.make()} == {"sharp things"}


def test_images_of_others_are_not_overwritten(world: World) -> None:
    (world.folder / "safe").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(world.folder / "safe" / "0000.png")
    before = files_of(world.folder)
    with pytest.raises(DuoError, match="no manifest"):
        world.make()
    assert files_of(world.folder) == before


def test_the_manifest_is_plain_json(world: World) -> None:
    world.make()
    content = json.loads((world.folder / "manifest.json").read_text())
    assert list(content) == ["version", "concept", "settings", "pairs", "tries"]
    assert content["settings"]["seed"] == 3
    assert content["settings"]["detector"] == "gallery[item=sword>=0.5]@00000000"


def test_an_image_that_is_no_picture_is_rejected_and_counted(world: World) -> None:
    world.model.broken = 0.25
    pairs = world.make()
    assert len(pairs) == 13
    for pair in pairs:
        for file in (pair.unsafe, pair.safe):
            assert open_image(world.folder / file).tobytes() in world.gallery  # black ones are not in it
    rejected = {reason: count for r in read_manifest(world.folder).tries for reason, count in r.rejected.items()}
    assert rejected["the unsafe image is no picture (flat: one colour)"] > 0
    assert rejected["the safe image is no picture (flat: one colour)"] > 0
    assert all(r.tries == r.kept + sum(r.rejected.values()) for r in read_manifest(world.folder).tries)


def test_a_fault_that_the_sampler_names_is_the_reason(world: World) -> None:
    world.model.fault = "latents that are not finite"
    with pytest.raises(DuoError, match=r"the unsafe image is no picture \(latents that are not finite\) \("):
        world.make(tries=1)
    assert not [request for request in world.model.requests if request.start is not None]
