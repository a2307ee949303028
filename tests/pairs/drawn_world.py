"""A model that draws its prompts, at times wrongly, a detector that knows what was drawn, and a folder."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from duo_unlearn.concepts.spec import PairKind
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.detectors.interface import Contract, Detector
from duo_unlearn.families.family import Family
from duo_unlearn.families.interface import Conditioning, Hooks, Model, Moments, SampleRequest, Switch, Words
from duo_unlearn.families.noise import Diffusion, NoiseProcess
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import COLOURS, ITEMS, SUBJECTS, Scene, random_scene
from duo_unlearn.mini.world.words import lexicon
from duo_unlearn.pairs.synthesize import make_pairs
from duo_unlearn.records import Pair, Targets, Verdict

Gallery = dict[bytes, Scene]


class DrawingModel:
    """Draws the scene that a prompt asks for. One unsafe image in five lacks its item; edits err as `wrong` says.

    wrong: share of edits that keep the concept, show another item, change the subject. crash_after: images until a
    sudden end. broken: share of images that come out black. fault: what the sampler says of every image. Images are
    entered into the gallery as they were drawn; the detector looks into nothing else.
    """

    family, source, device, resolution, pipe = "drawn", "test", torch.device("cpu"), 64, None
    denoiser_name = "unet"
    variant = "64px"
    denoiser: nn.Module = nn.Identity()
    noise: NoiseProcess = Diffusion(torch.linspace(0.99, 0.01, 10), "epsilon")
    kind: Family = FAMILIES.get("mini")

    def __init__(self, gallery: Gallery, wrong: tuple[float, float, float] = (0.2, 0.1, 0.1), base: str = "b") -> None:
        self.gallery, self.wrong, self.base = gallery, wrong, base
        self.crash_after: int | None = None
        self.broken = 0.0
        self.fault: str | None = None
        self.requests: list[SampleRequest] = []
        self.switches: list[Switch] = []
        self.adapters: dict[str, float] = {}
        self.active: dict[str, float] = {}
        self.hooks: list[Hooks] = []

    def denoiser_alone(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def whole(self) -> AbstractContextManager[None]:
        raise NotImplementedError

    def fingerprint(self) -> str:
        return self.base

    def encode_images(self, images: Sequence[Image.Image]) -> Moments:
        raise NotImplementedError

    def adapted_layers(self, targets: Targets) -> list[str]:
        raise NotImplementedError

    def condition(self, words: Words) -> Conditioning:
        raise NotImplementedError

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning, network: nn.Module | None = None) -> Tensor:
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
            if random.Random(f"{request.seed}/broken").random() < self.broken:
                images[-1] = Image.new("RGB", images[-1].size)
            if self.fault is not None:
                images[-1].info["fault"] = self.fault
            if report is not None and len(images) % batch == 0:
                report(len(images))
        return images

    def _scene(self, request: SampleRequest) -> Scene:
        text, places = str(request.words), lexicon()["english"]["places"]
        asked: dict[str, Any] = {
            "subject": next(s for s in SUBJECTS if s in text),
            "colour": next(c for c in COLOURS if f" {c} " in text),
            "item": next((i for i in ITEMS if i in text), "none"),
            "place": next(p for p, phrases in places.items() if any(phrase in text for phrase in phrases)),
            "look": 0,
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
