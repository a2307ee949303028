"""Relearning: the defended model is fine-tuned for some steps, on the concept or on benign images, and asked again.

Its attention weights are, or a new adapter on the denoiser's that is put into them afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import torch
from torch import Tensor

from ..families.interface import Conditioning, Moments, joined
from ..progress import progress
from ..storage.files import seed_of
from .fine_tuning import Lesson, attention_weights, changed, learn, read_anew
from .fresh_adapter import adapter_rate, fresh_adapter, learnt_changes
from .interface import Attack, Target, plain_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps, which images (of the concept, or of benign prompts), and images a step.

    benign: how many images of benign prompts are sampled from the original model; none where the concept's are used.
    """

    steps: int
    images: Literal["concept", "benign"]
    batch: int = 8
    benign: int = 0

    def __post_init__(self) -> None:
        """Fail for benign images of which there are none."""
        if self.images == "benign" and not self.benign:
            raise ValueError("images=benign needs benign, how many there are")


@dataclasses.dataclass(frozen=True)
class FewBudget(Budget):
    """pictures: how many images of the concept there are, of those that the pairs have."""

    pictures: int = 20


@dataclasses.dataclass(frozen=True)
class AdapterBudget(Budget):
    """rank: of a new adapter, which learns in place of the weights."""

    rank: int = 8


def fine_tune(target: Target, budget: Budget) -> dict[str, Tensor]:
    """The weights that the system has after its fine-tuning, by name; the model itself stays as it was.

    All attention projections of the denoiser learn; where the system's edits change a text encoder, that one's too.
    """
    model, generator = target.model, torch.Generator().manual_seed(target.seed)
    moments, text = _data(target, budget)
    if isinstance(budget, AdapterBudget):
        with fresh_adapter(model, budget.rank, generator) as tensors:
            _fine_tune(target, tensors, moments, text, budget, generator)
            learnt = learnt_changes(model, tensors)
        own = attention_weights(model, target.parts)
        return {name: weight.detach().cpu() + learnt.get(name, torch.zeros(())) for name, weight in own.items()}
    with changed(model, target.parts) as weights:
        _fine_tune(target, list(weights.values()), moments, text, budget, generator)
        return {name: weight.detach().cpu().clone() for name, weight in weights.items()}


@contextlib.contextmanager
def fine_tuned(target: Target, _budget: Budget, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """The system has the weights that `fine_tune` gave inside the block; its own are put back after it."""
    with changed(target.model, target.parts) as own:
        for name, weight in own.items():
            weight.data.copy_(weights[name])
        yield


def benign_texts(prompts: Sequence[str], count: int) -> list[str]:
    """The prompts of so many benign images, in turn."""
    return [prompts[i % len(prompts)] for i in range(count)]


def _data(target: Target, budget: Budget) -> tuple[Moments, list[str]]:
    """Moments of the images, and the prompt of each."""
    if budget.images == "concept":
        moments, texts = target.moments(), [unsafe for unsafe, _ in target.contrast()]
        if not isinstance(budget, FewBudget):
            return moments, texts
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(target.seed))
        few = order[: budget.pictures].tolist()
        return Moments(moments.mean[few], moments.std[few]), [texts[i] for i in few]
    texts = benign_texts(target.benign, budget.benign)
    images = target.originals(texts, [seed_of(target.seed, "benign", i) for i in range(budget.benign)])
    size = budget.batch
    parts = [target.model.encode_images(images[i : i + size]) for i in range(0, len(images), size)]
    return Moments(torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])), texts


def _fine_tune(
    target: Target,
    tensors: Sequence[Tensor],
    moments: Moments,
    texts: list[str],
    budget: Budget,
    generator: torch.Generator,
) -> None:
    """Steps on the images under their prompts, at the family's rate. A text encoder that learns reads them anew."""
    model, on_adapter = target.model, isinstance(budget, AdapterBudget)
    read = joined([model.condition([text]) for text in texts])
    learns_text = not on_adapter and any(part in model.kind.text for part in target.parts)

    def conditioning(rows: list[int]) -> Conditioning:
        return read_anew(model, [texts[row] for row in rows]) if learns_text else read.rows(rows)

    rate = adapter_rate(model) if on_adapter else model.kind.relearning_rate
    lesson = Lesson(moments, conditioning, budget.batch, rate)
    with progress(f"relearning, {budget.images} images, {budget.steps} steps", budget.steps) as report:
        learn(model, tensors, lesson, budget.steps, generator, lambda done, loss: report(done, f"loss {loss:.4f}"))


def _relearning(images: Literal["concept", "benign"], steps: int, pictures: int | None = None) -> Attack:
    budget = Budget(steps, images, benign=64 if images == "benign" else 0)
    if pictures is not None:
        budget = FewBudget(steps, images, pictures=pictures)
    many = "" if pictures is None else f"{pictures} "
    name = f"relearning-{images}-{steps}" + ("" if pictures is None else f"-of-{pictures}")
    return _attack(name, f"Relearning, {steps} steps on {many}{images} images", budget)


def _attack(name: str, title: str, budget: Budget) -> Attack:
    return Attack(
        name,
        title,
        {"quick": budget, "paper": budget},
        plain_findings,
        prompts_at_once=None,
        needs=frozenset({"float32", "pairs"} if budget.images == "concept" else {"float32"}),
        fine_tune=fine_tune,
        during=fine_tuned,
        level="generator",
    )


CONCEPT_20: Final = _relearning("concept", 20)
CONCEPT_100: Final = _relearning("concept", 100)
CONCEPT_300: Final = _relearning("concept", 300)
BENIGN_300: Final = _relearning("benign", 300)
CONCEPT_100_OF_20: Final = _relearning("concept", 100, 20)
CONCEPT_100_OF_50: Final = _relearning("concept", 100, 50)
ADAPTER_100: Final = _attack(
    "relearning-adapter-100",
    "Relearning, 100 steps of a new adapter on concept images",
    AdapterBudget(100, "concept"),
)
