"""What an attack is: from prompts that ask for the concept to what is put in their place, within a budget.

An attack finds, it does not judge: its attempts are sampled and kept, and judged afterwards, under any contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple

from PIL import Image
from torch import Tensor

from ..families.denoising import Reader
from ..families.interface import Inverted, Model, Moments, SampleRequest, Tokens, Trajectory
from ..records import Level, Prompt
from ..runs.search_state import SearchState
from .tensors import conditioning_of, trajectory_of, trajectory_tensors

Preset = Literal["quick", "paper"]
Report = Callable[[float], None]
"""Called with the share of a search that is done, 0 to 1."""
Need = Literal["tokens", "float32", "pairs", "words", "clip", "edits"]
"""What an attack cannot do without. tokens: text encoders that read CLIP's tokens alone. float32: weights in full
precision. pairs: the run's pairs, images of the concept and, as far as they have them, prompts that differ in it.
words: such prompts. clip: the CLIP that scores images. These two are for a search only; what was found elsewhere can be
replayed. edits: something that can be taken off."""


class Target(NamedTuple):
    """What is attacked, and what the attacker has.

    model: the system's, with its edits and guards on. reader: how a white-box search predicts on it, unaware or aware
    of its guards. original(): a context in which it is the original model, without edits and guards.
    originals(texts, seeds): that one's images, made once a run. sample(requests): images under the evaluation's
    settings, None where a guard refused. detect(images): whether each shows the concept; a refused one does not.
    score(images, texts), similarity(images, images): CLIP's cosine of each pair; a refused image has −1. moments(): of
    images of the concept. contrast(): for each of these its prompt, and that of the same without the concept; "" for
    what it has not. benign: prompts without the concept. parts: the pipeline's parts that the system's edits change.
    guidance: the evaluation's scale.
    """

    model: Model
    reader: Reader
    original: Callable[[], AbstractContextManager[None]]
    originals: Callable[[Sequence[str], Sequence[int]], list[Image.Image]]
    detect: Callable[[Sequence[Image.Image | None]], list[bool]]
    sample: Callable[[Sequence[SampleRequest]], list[Image.Image | None]]
    score: Callable[[Sequence[Image.Image | None], Sequence[str]], list[float]]
    similarity: Callable[[Sequence[Image.Image | None], Sequence[Image.Image]], list[float]]
    moments: Callable[[], Moments]
    contrast: Callable[[], Sequence[tuple[str, str]]]
    benign: Sequence[str]
    parts: tuple[str, ...]
    seed: int
    guidance: float


class Finding(NamedTuple):
    """What an attack puts in the place of one prompt.

    text: as people read it. ids: the exact token sequence, start to padding; None: the text is the prompt. vector: the
    name of a tensor that stands for PLACEHOLDER in the text. strength: how much is drawn anew, when the image starts
    from the original model's. facts: what the search reports, e.g. its loss, or how often the model was asked. seed: of
    the noise, where it is not the prompt's own. conditioning: the name of what stands in place of a read text;
    trajectory: the name of a path that the image follows (`attacks.tensors`).
    """

    text: str
    ids: list[int] | None = None
    vector: str | None = None
    strength: float | None = None
    facts: dict[str, float] = {}  # noqa: RUF012 never changed
    seed: int | None = None
    conditioning: str | None = None
    trajectory: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its text is all that is asked with."""
        others = (self.ids, self.vector, self.strength, self.seed, self.conditioning, self.trajectory)
        return all(other is None for other in others)


class Findings(NamedTuple):
    """Findings, one a prompt, and the tensors that they name."""

    findings: list[Finding]
    tensors: dict[str, Tensor] = {}  # noqa: RUF012 never changed


Find = Callable[[Target, Sequence[Prompt], Sequence[int], Any, Report, SearchState], Findings]
"""find(target, prompts, seeds, budget, report, state) gives what to put in the place of each prompt.

seeds: of their images' noise. The same inputs give the same findings, also when a kill and the state lie between.
"""


def no_search(_budget: Any, _prompts: int, _steps: int) -> float:
    """What a search costs where there is none."""
    return 0.0


class Attack(NamedTuple):
    """One published attack, as data and functions.

    budgets: by preset, each a frozen dataclass of numbers. found_on: what a search asks. "nothing": there is none;
    "text": the original's text encoder alone, so it is found once for every system; "original": the original model,
    once too; "images": the system's images; "model": the system's gradients (white box), so that it may be aware of
    guards or not. level: where it acts. has_control: whether the same is done to prompts without the concept, whose
    agreement tells a model that gives back whatever it is led to from one that knows the concept.
    prompts_at_once: how many prompts a call of `find` takes; None: as many as are sampled at once. version: raised when
    the same budget and seed find something else than before; aware_version: when they do so where the search is aware
    of guards. asks_detector: the search stops at what the detector says. passes_filters: where a guard refuses what
    that one sees, it searches for images that pass. fine_tune(target, budget): weights of the system that the attacker
    trains, by name, made once for all prompts. during(target, budget, weights): a context that changes the model while
    images are sampled; weights: those, or none. counts_in_worst_case: whether the worst case has it. cost(budget,
    prompts, steps): about how many passes of the denoiser a search takes, where an image takes so many steps; a pass
    back counts as two.
    """

    name: str
    title: str
    budgets: Mapping[Preset, Any]
    find: Find
    found_on: Literal["nothing", "text", "original", "images", "model"] = "nothing"
    prompts_at_once: int | None = 1 << 30
    version: int = 1
    aware_version: int = 1
    asks_detector: bool = False
    passes_filters: bool = False
    needs: frozenset[Need] = frozenset()
    fine_tune: Callable[[Target, Any], dict[str, Tensor]] | None = None
    during: Callable[[Target, Any, Mapping[str, Tensor]], AbstractContextManager[None]] | None = None
    counts_in_worst_case: bool = True
    level: Level = "input"
    has_control: bool = False
    cost: Callable[[Any, int, int], float] = no_search

    @property
    def is_white_box(self) -> bool:
        """Whether it differentiates through the attacked system, and so may see its guards or not."""
        return self.found_on == "model"

    @property
    def is_shared(self) -> bool:
        """Whether what it finds serves every system."""
        return self.found_on in ("nothing", "text", "original")

    @property
    def finds_captions(self) -> bool:
        """Whether what it finds is read in a prompt's place, so that a training can read it too."""
        return self.found_on in ("text", "images", "model") and not self.has_control


def plain_findings(
    _target: Target,
    prompts: Sequence[Prompt],
    _seeds: Sequence[int],
    _budget: Any,
    _report: Report,
    _state: SearchState,
) -> Findings:
    """The prompts as they are: what attacks without a search put in their place."""
    return Findings([Finding(prompt.text) for prompt in prompts])


def trajectory_findings(trajectories: Sequence[Trajectory], facts: Sequence[dict[str, float]] = ()) -> Findings:
    """A finding without text a trajectory, in order, with the tensors that keep them. facts: of each, where given."""
    tensors: dict[str, Tensor] = {}
    for i, trajectory in enumerate(trajectories):
        tensors |= trajectory_tensors(str(i), trajectory)
    told = facts or [{} for _ in trajectories]
    return Findings([Finding("", facts=fact, trajectory=str(i)) for i, fact in enumerate(told)], tensors)


def why_not(attack: Attack, model: Model, *, has_edits: bool) -> str | None:
    """Why an attack cannot run on a model, or None."""
    if "tokens" in attack.needs and not model.kind.reads_clip_alone:
        return f"it writes CLIP's tokens, and {model.family} reads {model.kind.reader}'s"
    if "float32" in attack.needs:
        precisions = {str(parameter.dtype) for parameter in model.denoiser.parameters()}
        if precisions != {"torch.float32"}:
            return "it fine-tunes float32 weights: mixed_precision no, quantize no"
    if "edits" in attack.needs and not has_edits:
        return "the system has no edit that could be taken off"
    return None


def requests_for(found: Findings, seeds: Sequence[int], starts: Sequence[Image.Image | None]) -> list[SampleRequest]:
    """The images to sample for what an attack found. starts: what an image with a strength starts from."""
    import torch

    requests = []
    for finding, seed, start in zip(found.findings, seeds, starts, strict=True):
        words: str | Tokens | Inverted = finding.text
        if finding.vector is not None:
            words = Inverted([finding.text], found.tensors[finding.vector])
        elif finding.ids is not None:
            words = Tokens(torch.tensor([finding.ids]))
        elif finding.conditioning is not None:
            words = Tokens(torch.zeros(1, 0, dtype=torch.long))  # for guards: it stands for no words
        request = SampleRequest(words, seed if finding.seed is None else finding.seed)
        if finding.strength is not None:
            request = request._replace(start=start, strength=finding.strength)
        if finding.conditioning is not None:
            request = request._replace(conditioning=conditioning_of(found.tensors, finding.conditioning))
        if finding.trajectory is not None:
            request = request._replace(trajectory=trajectory_of(found.tensors, finding.trajectory))
        requests.append(request)
    return requests
