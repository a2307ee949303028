"""What an attack is: from prompts that ask for the concept to what is put in their place, within a budget.

An attack finds, it does not judge: its attempts are sampled and kept, and judged afterwards, under any contract.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, Protocol

from PIL import Image
from torch import Tensor

from ..errors import DuoError
from ..families.interface import Conditioning, Model, Moments, SampleRequest
from ..families.tokens import PLACEHOLDER, encode_ids, encode_with_vector
from ..records import Prompt

SCALE = 1024.0
"""A power of two: in full precision a gradient is the same with it, bit for bit."""
Preset = Literal["quick", "paper"]
Report = Callable[[float], None]


class Subject(NamedTuple):
    """What is attacked, and what the attacker has.

    model: as it stands, its adapter on or off. original(): a context in which it is the original model.
    originals(texts, seeds): that one's images of prompts, made once a run. detect: whether each image shows the
    concept. sample: images of requests, under the evaluation's settings. score: CLIP's cosine of each image and its
    text. moments: of images of the concept. contrast: for each of these its prompt, and that of the same without the
    concept. benign: prompts without it.
    """

    model: Model
    original: Callable[[], Any]
    originals: Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
    detect: Callable[[Sequence[Image.Image]], list[bool]]
    sample: Callable[[Sequence[SampleRequest]], list[Image.Image]]
    score: Callable[[Sequence[Image.Image], Sequence[str]], list[float]]
    moments: Moments
    contrast: Sequence[tuple[str, str]]
    benign: Sequence[str]
    seed: int


class Artifact(NamedTuple):
    """What an attack puts in the place of one prompt.

    text: as people read it. ids: the exact token sequence, start to padding; None: the text is the prompt. vector: name
    of a tensor that stands for PLACEHOLDER in the text. strength: how much is drawn anew, when the image starts from
    the original model's. facts: what the search reports, e.g. its loss, or how often the model was asked.
    """

    text: str
    ids: list[int] | None = None
    vector: str | None = None
    strength: float | None = None
    facts: dict[str, float] = {}  # noqa: RUF012 never changed


class Found(NamedTuple):
    """Artifacts, one a prompt, and the tensors that they name."""

    artifacts: list[Artifact]
    tensors: dict[str, Tensor] = {}  # noqa: RUF012 never changed


class Attack(Protocol):
    """One published attack.

    version: raised when the same budget and seed find something else than before, so that older attempts are not taken
    for new ones. shared: what it finds does not depend on the adapter, so it is found once for both models. alters:
    `during` changes the model, so it is entered once for all prompts.
    """

    name: str
    title: str
    version: int
    shared: bool
    alters: bool

    def why_not(self, model: Model) -> str | None:
        """Why it cannot run on this model, or None."""
        ...

    def why_no_search(self, model: Model) -> str | None:
        """Why it can find nothing here, though what was found elsewhere can be replayed; or None."""
        ...

    def budget(self, preset: Preset) -> dict[str, float]:
        """What the preset spends: also the key under which results are kept."""
        ...

    def chunk(self, preset: Preset) -> int:
        """Prompts a call of `find`."""
        ...

    def during(self, subject: Subject) -> AbstractContextManager[None]:
        """What is done to the model while the images are sampled: nothing for attacks on prompts."""
        ...

    def find(
        self, subject: Subject, prompts: Sequence[Prompt], seeds: Sequence[int], preset: Preset, report: Report
    ) -> Found:
        """What to put in the place of each prompt. seeds: of their images' noise. The same inputs give the same.

        report(share): how much of this call is done, 0 to 1.
        """
        ...


class AttackDefaults:
    """What an attack has unless it says otherwise: a first version, a search that always runs, the model as it is."""

    alters = False
    version = 1

    def why_no_search(self, _model: Model) -> str | None:
        """Nothing is in the way."""
        return None

    def during(self, _subject: Subject) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()


def gradient(loss: Tensor, of: Tensor, what: str) -> Tensor:
    """Of a scalar loss, scaled on its way back: half precision would round the small gradient of a mean away.

    DuoError: it is not finite, which would pass for a defence. what: names the search there.
    """
    import torch

    (found,) = torch.autograd.grad(loss * SCALE, [of])
    if not torch.isfinite(found).all():
        hint = "mixed_precision no or bf16"
        raise DuoError(f"{what} was not finite", got=f"loss {loss.item()}", hint=hint)
    return found / SCALE


def requests_for(
    model: Model, found: Found, seeds: Sequence[int], starts: Sequence[Image.Image | None]
) -> list[SampleRequest]:
    """The images to sample for what an attack found."""
    import torch

    made = []
    for artifact, seed, start in zip(found.artifacts, seeds, starts, strict=True):
        embedding: Conditioning | None = None
        with torch.no_grad():
            if artifact.vector is not None:
                vector = found.tensors[artifact.vector].to(model.device)
                embedding = encode_with_vector(model, [artifact.text], vector)
            elif artifact.ids is not None:
                embedding = encode_ids(model, torch.tensor([artifact.ids]))
        text = artifact.text.replace(PLACEHOLDER, "")
        if artifact.strength is not None:
            made.append(SampleRequest(text, seed, embedding=embedding, start=start, strength=artifact.strength))
        else:
            made.append(SampleRequest(text, seed, embedding=embedding))
    return made
