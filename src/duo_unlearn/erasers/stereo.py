"""STEREO: search for what brings the concept back, then erase it all at once (Srivatsan et al. 2025, arXiv 2408.16807).

Search: in each round the phrase of the last one, at first the concept's word, is erased from the model so far (φ),

    L = mean (ε_θ(x_t, t, c) − (ε_φ(x_t, t, ∅) − η (ε_φ(x_t, t, c) − ε_φ(x_t, t, ∅))))²

and a new token is inverted on what came of it. Then the *original* model (φ) unlearns the word and all tokens, K
phrases c_k in equal shares, with sentences a that contain the concept for anchors, so that what else they say stays:

    L = mean (ε_θ(x_t, t, c_k) − (ε_∅ + w₊ mean_a (ε_a − ε_∅) + w₋ mean_k (ε_k − ε_∅)))²

All linear layers and convolutions outside cross-attention are trained. The scales are the meant ones. The released
script computes w₋ = −3 where its help says −1, and η = 0 (the target ε_∅) where its scale means 1: both are settings.
Its 'APG' is the identity with its own settings, so there is none here. The anchors are the pairs' unsafe prompts, not a
language model's sentences. A token's inversion begins at the word "picture".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..edits.files import write_changes
from ..families.denoising import predict_noised
from ..families.family import MOST_STEPS
from ..families.interface import Conditioning, Inverted, joined
from ..families.inversion import TEMPLATES, invert
from ..families.tokens import PLACEHOLDER
from ..runs.search_state import SearchState
from ..storage.files import digest, read_tensors, seed_of, write_tensors
from ..storage.forms import Strict
from .course import Course, course_eraser
from .descent import Descent, descend, generator_of
from .interface import EraserContext
from .latents import pair_latents
from .layers import trained_names
from .pictures import Origin, Pictures, latents_of_step
from .trained import TrainedWeights, trained_weights
from .words import Contrast, Wordings, contrasts, left_out, word_of

if TYPE_CHECKING:
    from ..families.family import Family

NAME: Final = "stereo"
AFTER_SEARCH: Final = {"steps", "lr", "anchor_weight", "concept_weight"}
"""The settings that the search does not depend on."""
Phrase = Tensor | None
"""What stands for the concept: a found token's vector, (width,); None: its word."""


class StereoSettings(Strict):
    """The options of STEREO."""

    rounds: int = Field(2, ge=1, description="R, of the search, each of which finds a token (README: 2; script: 4).")
    search_steps: int = Field(200, ge=1, description="Optimizer steps that erase a phrase in a round (published: 200).")
    search_lr: float = Field(5e-6, gt=0, description="Of these (published: 5e-6).")
    search_eta: float = Field(1.0, description="η of these (meant: 1; the published script computes 0).")
    inversion_steps: int = Field(3000, ge=1, description="Steps that invert a token (published: 3000).")
    inversion_batch: int = Field(1, ge=1, description="Images a step of the inversion (published: 1).")
    inversion_lr: float = Field(5e-3, gt=0, description="Of the inversion's AdamW (published: 5e-3).")
    steps: int = Field(200, ge=1, description="Optimizer steps that erase once (published: 200).")
    lr: float = Field(2e-5, gt=0, description="Of these (published: 2e-5).")
    batch: int = Field(1, ge=1, description="Latents a step (published: 1).")
    anchor_weight: float = Field(1.0, description="w₊ (meant and published: 1).")
    concept_weight: float = Field(-1.0, description="w₋ (meant: −1; the published script computes −3).")
    prompts: Literal["word", "scenes", "places"] = Field(
        "word",
        description="word: a phrase stands alone (published) or in the inversion's templates, and the anchors are the "
        "pairs' unsafe prompts. scenes: the word is in a pair's unsafe prompt, a token before its safe one, and that "
        "one stands for ε_∅ and for the anchors. places: the same, and a token stands in the word's place in the "
        "unsafe prompt, where that has the word once.",
    )
    word: str | None = Field(None, min_length=1, description="The concept's word; None: its name.")
    latents: Origin = Field(
        "sampled",
        description="x_t: sampled, from the trained model's path under c (published); or the pairs' unsafe latents "
        "with noise, which need no sampling.",
    )
    guidance: float = Field(3.0, ge=1, description="Of the sampled path (published: 3).")
    sampling_steps: int = Field(50, ge=2, le=MOST_STEPS, description="Of the sampled path (published: 50).")
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")


def target(empty: Tensor, anchors: Sequence[Tensor], concepts: Sequence[Tensor], plus: float, minus: float) -> Tensor:
    """ε_∅ + w₊ mean_a (ε_a − ε_∅) + w₋ mean_k (ε_k − ε_∅), all of one shape. Without anchors their term is nothing."""
    moved = empty + minus * (torch.stack(list(concepts)).mean(dim=0) - empty)
    return moved + plus * (torch.stack(list(anchors)).mean(dim=0) - empty) if anchors else moved


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    settings: StereoSettings = context.options
    names = trained_names(context.model, "u")
    tokens, searched = _search(context, names)
    with trained_weights(context.model, names) as weights:
        scales = (settings.anchor_weight, settings.concept_weight)
        loss = StereoLoss(context, weights, [None, *tokens], scales, "once")
        descent = Descent(weights.tensors, loss, settings.steps, settings.lr)

        def write(folder: Path, described: Mapping[str, Any]) -> Path:
            return write_changes(folder, weights.changes(), {**described, "search_passes": searched})

        yield Course(descent, write, passes=searched)


class StereoLoss:
    """The loss of a step. Prompts, latents and noise are a function of the step's number.

    phrases: those that are erased. scales: w₊ and w₋; without w₊ no anchor is asked. what: tells stages apart.
    """

    def __init__(
        self,
        context: EraserContext,
        weights: TrainedWeights,
        phrases: Sequence[Phrase],
        scales: tuple[float, float],
        what: str,
    ) -> None:
        self.model, self.seed, self.weights = context.model, context.seed, weights
        self.phrases, self.scales, self.what = phrases, scales, what
        self.settings: StereoSettings = context.options
        self.word = word_of(context)
        self.texts = contrasts(context, self.settings.wordings)
        from_pairs = self.settings.latents == "pairs"
        self.pictures = Pictures(context.model, pair_latents(context), context.pairs) if from_pairs else None
        self.empty = self.model.condition([""])

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        count, generator = self.settings.batch, generator_of(self.seed, NAME, self.what, step)
        scenes = [self.texts[i] for i in torch.randint(0, len(self.texts), (count,), generator=generator).tolist()]
        templates = [TEMPLATES[i] for i in torch.randint(0, len(TEMPLATES), (count,), generator=generator).tolist()]
        concepts = [self.read(phrase, scenes, templates) for phrase in self.phrases]
        shares = [concepts[(step * count + i) % len(concepts)].rows(slice(i, i + 1)) for i in range(count)]
        asked = joined(shares)
        noisy, t = self._latents(asked, scenes, generator)
        with self.weights.original():
            alone, anchor = self.settings.prompts == "word", self.anchor(scenes)
            anchors = [anchor] if alone and self.scales[0] else []
            # A scene less a scene with the concept would erase subjects and colours too, were nothing the base.
            base = self.empty.repeat(count) if alone else anchor
            start, *found = self._predict(noisy, t, [base, *anchors, *concepts])
            wanted = target(start, found[: len(anchors)], found[len(anchors) :], *self.scales)
        return (self._predict(noisy, t, [asked])[0] - wanted).square().mean()

    def read(self, phrase: Phrase, scenes: Sequence[Contrast], templates: Sequence[str]) -> Conditioning:
        """Prompts with a phrase, one a scene."""
        alone = self.settings.prompts == "word"
        if phrase is None:
            filled = [template.replace(PLACEHOLDER, self.word) for template in templates]
            return self.model.condition(filled if alone else [scene.unsafe for scene in scenes])
        filled = list(templates) if alone else [self._filled(scene) for scene in scenes]
        return self.model.condition(Inverted(filled, phrase))

    def _filled(self, scene: Contrast) -> str:
        """A scene's prompt with the placeholder: in the word's place, or before what has no concept."""
        if self.settings.prompts == "places":
            put, count = re.subn(rf"\b{re.escape(self.word)}\b", PLACEHOLDER, scene.unsafe)
            if count == 1:  # one vector stands in one place
                return put
        return f"{PLACEHOLDER} {scene.safe}"

    def anchor(self, scenes: Sequence[Contrast]) -> Conditioning:
        """The anchors of scenes: with the concept where phrases stand alone, else without it."""
        alone = self.settings.prompts == "word"
        return self.model.condition([scene.unsafe if alone else scene.safe for scene in scenes])

    def _predict(self, noisy: Tensor, t: Tensor, given: Sequence[Conditioning]) -> tuple[Tensor, ...]:
        """The predictions on the same latents under several conditionings."""
        n = len(given)
        return predict_noised(self.model, torch.cat([noisy] * n), t.repeat(n), joined(given)).float().chunk(n)

    def _latents(
        self, asked: Conditioning, scenes: Sequence[Contrast], generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """x_t, (image, c, h, w), and t, (image,), of a step."""
        prompts, settings = [scene.unsafe for scene in scenes], self.settings
        return latents_of_step(
            self.model, self.pictures, prompts, asked, self.empty, generator, guidance=settings.guidance,
            steps=settings.sampling_steps,
        )  # fmt: skip


def _search(context: EraserContext, names: Sequence[str]) -> tuple[list[Tensor], int]:
    """The token that each round found, and how many rows went through the denoiser.

    The tokens lie in the run as they are found, so a killed search goes on from its round. The model is put back.
    """
    run, key = context.run, _search_key(context)
    # Named by what decides the search: two entrants of one run may search apart.
    path = run.checkpoint(f"{NAME}-search-{key[:12]}").with_name("tokens.safetensors")
    with run.claim(f"{NAME}-search-{key[:12]}", wait=True):  # what one entrant found another one reads
        tokens, passes = _read_tokens(path)
        rounds = [f"{NAME}-search-{key[:12]}/round-{number + 1}" for number in range(context.options.rounds)]
        if len(tokens) < len(rounds):
            passes = _run_rounds(context, names, rounds, tokens, path, key)
        for name in rounds:
            run.checkpoint(name).unlink(missing_ok=True)  # as large as three models each
        return tokens, passes


def _run_rounds(
    context: EraserContext, names: Sequence[str], rounds: Sequence[str], tokens: list[Tensor], path: Path, key: str
) -> int:
    """Find the tokens that are missing, which are added to `tokens` and to the file; gives the rows of all rounds.

    Each round goes on from the weights that the last one left, which a round that is over has in its checkpoint.
    """
    settings, model, passes = context.options, context.model, 0
    with contextlib.ExitStack() as so_far:
        for number, name in enumerate(rounds):
            weights = so_far.enter_context(trained_weights(model, names))
            loss = StereoLoss(context, weights, [None, *tokens][number : number + 1], (0.0, -settings.search_eta), name)
            descent = Descent(weights.tensors, loss, settings.search_steps, settings.search_lr)
            passes += descend(descent, model.denoiser, context.run, name, key, quiet=context.quiet)
            passes += settings.inversion_steps * settings.inversion_batch
            if number < len(tokens):
                continue
            state = SearchState(path.with_name(f"inversion-{number + 1}.state.safetensors"), key)
            tokens.append(_invert(context, weights, number, state))
            write_tensors(path, {str(i): token for i, token in enumerate(tokens)}, {"key": key, "passes": str(passes)})
            state.clear()
    return passes


def _invert(context: EraserContext, weights: TrainedWeights, number: int, state: SearchState) -> Tensor:
    """A token's vector, (width,), that brings the concept's pictures back on the model as it stands."""
    settings: StereoSettings = context.options
    for tensor in weights.tensors.values():
        tensor.requires_grad_(False)
    return invert(
        context.model, pair_latents(context).unsafe, steps=settings.inversion_steps, batch=settings.inversion_batch,
        seed=seed_of(context.seed, NAME, number), lr=settings.inversion_lr, quiet=context.quiet, state=state,
    ).cpu()  # fmt: skip


def _read_tokens(path: Path) -> tuple[list[Tensor], int]:
    """The tokens that a search has found so far, and the rows that it took."""
    if not path.exists():
        return [], 0
    tensors, facts = read_tensors(path)
    return [tensors[str(i)] for i in range(len(tensors))], int(facts["passes"])


def _search_key(context: EraserContext) -> str:
    """What decides the course of a search."""
    seen = [pair.content for pair in context.pairs]
    settings = context.options.model_dump(mode="json", exclude=AFTER_SEARCH)
    known = [context.provenance.get("base"), context.model.variant, context.seed]
    asked = left_out(context)
    # Of the pairs' own prompts the pairs say all; other wordings are the concept file's.
    texts = contrasts(context, "all") if context.options.wordings == "all" else []
    return digest([settings, word_of(context), seen, *known, *([asked] if asked else []), *([texts] if texts else [])])


def _why_not(family: Family) -> str | None:
    return None if family.reads_clip_alone else f"it inverts tokens of CLIP, and {family.title} reads {family.reader}'s"


STEREO: Final = course_eraser(
    NAME, "STEREO: erase the word and the tokens that bring it back", StereoSettings, "images and prompts", _why_not,
    _course,
)  # fmt: skip
