"""Pairs made by a model that draws its prompts, at times wrongly, and a detector that knows what was drawn."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from duo_unlearn.concepts.spec import Concept, PairKind
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.detectors.base import AttributeReader, Contract, Detector
from duo_unlearn.errors import DuoError
from duo_unlearn.families.base import Model, Moments, SampleRequest
from duo_unlearn.families.noise import NoiseProcess
from duo_unlearn.mini.captions import PLACE_PHRASES
from duo_unlearn.mini.scenes import COLOURS, ITEMS, SUBJECTS, Scene, draw, is_held_out, random_scene
from duo_unlearn.pairs.candidates import make_candidate, next_round, still_needed
from duo_unlearn.pairs.images import open_image
from duo_unlearn.pairs.manifest import KindTries, read_manifest
from duo_unlearn.pairs.store import import_pairs, load_pairs, set_keep
from duo_unlearn.pairs.synthesize import make_pairs
from duo_unlearn.records import Pair, Verdict

STILL, NONE = "concept still in the safe image", "no concept in the unsafe image"
Gallery = dict[bytes, Scene]


class DrawingModel:
    """Draws the scene that a prompt asks for. One unsafe image in five lacks its item; edits err as `wrong` says.

    wrong: share of edits that keep the concept, show another item, change the subject. crash_after: images until a
    sudden end. Every image is entered into the gallery, the only thing that the detector looks into.
    """

    family, source, device, resolution, pipe = "drawn", "test", torch.device("cpu"), 64, None
    adapter_targets: tuple[str, ...] = ("q",)
    denoiser: nn.Module = nn.Identity()
    noise = NoiseProcess(torch.linspace(0.99, 0.01, 10), "epsilon")

    def __init__(self, gallery: Gallery, wrong: tuple[float, float, float] = (0.2, 0.1, 0.1), base: str = "b") -> None:
        self.gallery, self.wrong, self.base = gallery, wrong, base
        self.crash_after: int | None = None
        self.requests: list[SampleRequest] = []

    def fingerprint(self) -> str:
        return self.base

    def encode_images(self, images: Sequence[Image.Image]) -> Moments:
        raise NotImplementedError

    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        raise NotImplementedError

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Tensor, network: nn.Module | None = None) -> Tensor:
        raise NotImplementedError

    def sample(
        self,
        requests: Sequence[SampleRequest],
        *,
        steps: int,  # noqa: ARG002
        guidance: float,  # noqa: ARG002
        batch: int,
        report: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        images: list[Image.Image] = []
        for request in requests:
            if self.crash_after is not None and len(self.requests) >= self.crash_after:
                raise KeyboardInterrupt
            self.requests.append(request)
            scene = self._scene(request)
            images.append(draw(scene))
            self.gallery[images[-1].tobytes()] = scene
            if report is not None and len(images) % batch == 0:
                report(len(images))
        return images

    def _scene(self, request: SampleRequest) -> Scene:
        asked: dict[str, Any] = {
            "subject": next(s for s in SUBJECTS if s in request.prompt),
            "colour": next(c for c in COLOURS if f" {c} " in request.prompt),
            "item": next((i for i in ITEMS if i in request.prompt), "none"),
            "place": next(p for p, words in PLACE_PHRASES.items() if any(w in request.prompt for w in words)),
        }
        if request.start is None:
            lacks = request.seed % 5 == 0
            return dataclasses.replace(
                random_scene(random.Random(request.seed)), **(asked | {"item": "none"} if lacks else asked)
            )
        before = self.gallery[request.start.tobytes()]
        keeps, other, changes = self.wrong
        chance = random.Random(f"{request.seed}/edit").random()
        if chance < keeps or request.strength < 0.3:
            return before
        if chance < keeps + other:
            asked["item"] = next(i for i in ITEMS[2:] if i != asked["item"])
        elif chance < keeps + other + changes:
            asked["subject"] = next(s for s in SUBJECTS if s != before.subject)
        return dataclasses.replace(before, **asked)


class GalleryDetector:
    """Knows each drawn picture; a picture that was never drawn is a KeyError."""

    contract = Contract("gallery", ("item=sword",), 0.5, "00000000")

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        swords = [self.gallery[image.tobytes()].item == "sword" for image in images]
        return [Verdict(sword, 0.9 if sword else 0.1) for sword in swords]

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        names = ("item", "subject", "colour", "place")
        return [{n: getattr(self.gallery[image.tobytes()], n) for n in names} for image in images]


class World:
    """A model and a detector over one gallery, and a folder."""

    def __init__(self, folder: Path, wrong: tuple[float, float, float] = (0.2, 0.1, 0.1)) -> None:
        self.folder, self.gallery = folder, Gallery()
        self.model = DrawingModel(self.gallery, wrong)
        self.detector = GalleryDetector(self.gallery)
        kinds = [
            PairKind(unsafe=k.unsafe, safe=k.safe, shows=k.shows, count=count)
            for k, count in zip(load_concept("sword").pairs, (6, 4, 3), strict=False)
        ]
        self.concept = load_concept("sword").model_copy(update={"pairs": kinds})

    def make(self, **changes: Any) -> list[Pair]:
        given: dict[str, Any] = {
            "scale": 1.0, "guidance": 7.5, "steps": 10, "strength": None, "batch": 4, "tries": 8, "seed": 3,
        }  # fmt: skip
        model: Model = self.model
        detector: Detector = self.detector
        return make_pairs(model, detector, self.concept, self.folder, **({"quiet": True} | given | changes))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
        assert "sword" in request.negative_prompt
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


@pytest.mark.parametrize("crash_after", [0, 1, 9, 17, 25, 33])
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
    set_keep(world.folder, "0003", False, "cropped")
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


def test_candidates_depend_on_their_numbers_alone(world: World) -> None:
    concept = world.concept
    first = make_candidate(concept, 1, 5, 0)
    assert first == make_candidate(concept, 1, 5, 0)
    others = {
        make_candidate(concept, 0, 5, 0).seed,
        make_candidate(concept, 1, 6, 0).seed,
        make_candidate(concept, 1, 5, 1).seed,
    }
    assert len(others | {first.seed}) == 4
    assert 0 <= first.seed < 2**31


def test_how_many_candidates_a_kind_needs() -> None:
    fresh = KindTries("u", "s", 10)
    assert still_needed(fresh, 4) == 13
    assert still_needed(fresh, 1) == 10
    assert still_needed(dataclasses.replace(fresh, kept=10, tries=12), 4) == 0
    assert still_needed(dataclasses.replace(fresh, kept=9, tries=18), 4) == 2
    assert still_needed(dataclasses.replace(fresh, kept=0, tries=37), 4) == 3
    assert still_needed(dataclasses.replace(fresh, kept=0, tries=50), 4) == 0


def test_a_round_takes_all_kinds_together(world: World) -> None:
    records = [KindTries("u", "s", 2), KindTries("u", "s", 2, 1, 3), KindTries("u", "s", 2, 2, 2)]
    chosen = next_round(world.concept, records, tries=4, most=100, seed=0)
    assert [(c.kind, c.attempt) for c in chosen] == [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5)]
    assert next_round(world.concept, records, tries=4, most=2, seed=0) == chosen[:2]


def test_a_kind_without_allowed_words_is_an_error(world: World) -> None:
    held = next(s for s in _scenes() if is_held_out(s))
    fill: dict[str, Any] = {"subject": [held.subject], "colour": [held.colour], "place": {held.place: ["at night"]}}
    concept: Concept = world.concept.model_copy(update={"fill": fill})
    with pytest.raises(DuoError, match="held out"):
        make_candidate(concept, 0, 0, 0)


def _scenes() -> list[Scene]:
    return [Scene(s, c, "sword", p) for s in SUBJECTS for c in COLOURS for p in PLACE_PHRASES]


def test_the_manifest_is_plain_json(world: World) -> None:
    world.make()
    content = json.loads((world.folder / "manifest.json").read_text())
    assert list(content) == ["version", "concept", "settings", "pairs", "tries"]
    assert content["settings"]["seed"] == 3
    assert content["settings"]["detector"] == "gallery[item=sword>=0.5]@00000000"
