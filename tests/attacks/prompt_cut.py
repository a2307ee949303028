"""A baseline that only cuts the prompt: the mini model whose text encoder reads a flower wherever a sword is named."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from PIL import Image

from duo_unlearn.attacks.interface import Target
from duo_unlearn.concepts.prompt_sets import prompts_of, splitter
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.detectors.registry import make_detector
from duo_unlearn.families.denoising import Reader
from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.families.load import load_model
from duo_unlearn.families.tokens import word_ids
from duo_unlearn.features.clip import clip_score, clip_similarity
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene
from duo_unlearn.records import Prompt

NAMES = ("sword", "blade", "saber", "sharp", "steel", "weapon")
"""The sword and its synonyms; what only implies it (armed, battle, guard …) is not cut."""


def blind(on: Target) -> Target:
    """A target whose detector sees nothing, so that no search is over before its budget is."""
    return on._replace(detect=lambda images: [False] * len(images))


def target(*, cut: bool, steps: int = 12) -> Target:
    """The mini model, its prompts cut or not, and what an attacker has. original() is the model as it is: uncut.

    steps: of its pictures; few are enough where nobody looks at what they show.
    """
    model = load_model("mini", torch.device("cpu"))
    table = model.pipe.text_encoder.get_input_embeddings().weight
    before = table.detach().clone()
    after = before.clone()
    (flower,) = word_ids(model, "flower")
    for name in NAMES:
        after[word_ids(model, name)] = before[flower]

    class Uncut:
        """Inside, the whole text encoder."""

        def __enter__(self) -> None:
            self.was = table.detach().clone()
            table.data.copy_(before)

        def __exit__(self, *_error: object) -> None:
            table.data.copy_(self.was)

    if cut:
        table.data.copy_(after)

    def sample(requests: Sequence[SampleRequest]) -> list[Image.Image]:
        return model.sample(requests, steps=steps, guidance=5.0, batch=16)

    def detect(images: Sequence[Image.Image | None]) -> list[bool]:
        return [verdict.detected for verdict in detector.detect([image for image in images if image])]

    def originals(texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        with Uncut():
            return sample([SampleRequest(text, seed) for text, seed in zip(texts, seeds, strict=True)])

    rng = random.Random(0)
    scenes = [random_scene(rng, subjects=SUBJECTS, items=("sword",)) for _ in range(16)]
    detector = make_detector("mini-judge", ("item=sword",), "mini")
    moments = model.encode_images([draw(scene) for scene in scenes])
    return Target(
        model=model,
        reader=Reader(model),
        original=Uncut,
        originals=originals,
        detect=detect,
        sample=lambda requests: list(sample(requests)),
        score=lambda images, texts: clip_score("mini", [image for image in images if image], texts),
        similarity=lambda images, others: clip_similarity("mini", [image for image in images if image], others),
        moments=lambda: moments,
        contrast=lambda: [(f"a {s.subject} holding a sword", f"a {s.subject} holding a flower") for s in scenes],
        benign=["a red boat in the snow", "a blue king with a flower"],
        parts=(),
        seed=0,
        guidance=5.0,
    )


def asked(count: int, *, plain: bool = False) -> list[Prompt]:
    """Prompts that name the sword, or plain ones, which name nothing."""
    concept = load_concept("sword")
    chosen = concept.plain if plain else concept.attacks["direct"]
    assert chosen is not None
    return prompts_of(concept, [chosen], count, "test", splitter(concept, held_out=True))
