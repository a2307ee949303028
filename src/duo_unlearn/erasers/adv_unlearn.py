"""AdvUnlearn: adversarial training of the text encoder (Zhang et al. 2024, arXiv 2405.15234).

ESD's loss, under a prompt that was made worse first, and a term that keeps other prompts:

    L = mean (ε_θ(x_t, t, c ⊕ δ) − (ε_φ(x_t, t, ∅) − η (ε_φ(x_t, t, c) − ε_φ(x_t, t, ∅))))²
        + w mean (ε_θ(x_t, t, r) − ε_φ(x_t, t, r))²,      δ ≈ argmin mean (ε_θ(x_t, t, c ⊕ δ) − ε_φ(x_t, t, c))²

θ are the layers of the text encoder and its final norm; the token and position embeddings stay, and so does the
denoiser, which both read. δ are free input embeddings in front of the prompt c.

What departs from the released script. The search's gradients do not add up over its steps, and its last step counts.
It always starts at random tokens, where the script goes on from the last search unless it is told otherwise. A prompt's
length is counted in tokens. x_t are noised latents of the pairs' pictures, not samples: both members of a pair for c,
safe ones for r. r are the pairs' safe prompts and the concept's `keep` prompts, not names of COCO's objects.

Three options are ours. `form: pair` has the pair's safe prompt in the place of ∅, so that the scene is no part of what
is erased. As published every c has a δ before it after the warm-up and no r has one, so "something stands in front" can
be learnt in the concept's place, all the more where c and r are alike but for a word. `plain_share` and `retain_behind`
are against that.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..edits.files import write_changes
from ..families.denoising import predict_noised
from ..families.interface import Conditioning, Model, Tokens, joined
from ..families.inversion import gradient
from ..families.tokens import plain_tokens, sequence, vocabulary, word_ids
from ..storage.forms import LATER, Strict
from .course import Course, course_eraser
from .descent import Descent, generator_of
from .interface import EraserContext
from .latents import pair_latents
from .pictures import Pictures
from .trained import TrainedWeights, trained_weights
from .words import Wordings, contrasts, kept_texts

if TYPE_CHECKING:
    from ..families.family import Family

NAME: Final = "advunlearn"
KEEP: Final = 96
"""How many of the concept's `keep` prompts there are to draw from."""
AHEAD: Final = 10
"""How many steps of a search ask the original model at once: its answers do not depend on δ."""


class AdvUnlearnSettings(Strict):
    """The options of AdvUnlearn."""

    steps: int = Field(1000, ge=1, description="Optimizer steps (published: 1000).")
    batch: int = Field(1, ge=1, description="Prompts of the concept a step (published: 1).")
    lr: float = Field(1e-5, gt=0, description="Of Adam (published: 1e-5).")
    eta: float = Field(1.0, description="η, how far the target goes away from the concept (published: 1).")
    warm_up: int = Field(200, ge=0, description="First steps, which are plain ESD without δ (published: 200).")
    renew_every: int = Field(
        1, ge=1, description="Steps that share a search, its prompts and their δ (published: 1; more are cheaper)."
    )
    attack_tokens: int = Field(1, ge=1, description="k, free embeddings in front of the prompt (published: 1).")
    attack_steps: int = Field(30, ge=1, description="Steps of a search (published: 30).")
    attack_lr: float = Field(1e-3, gt=0, description="Of the search's Adam (published: 1e-3).")
    fast: bool = Field(
        False, description="Give the search's Adam the sign of the gradient alone (the script's `fast_at`)."
    )
    retain_batch: int = Field(5, ge=1, description="Prompts a step that are kept (published: 5).")
    retain_weight: float = Field(0.3, ge=0, description="w, of the term that keeps (published: 0.3).")
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")
    form: Annotated[Literal["empty", "pair"], LATER] = Field(
        "empty",
        description="What the target leads to, away from c: the empty prompt (published), or a pair's safe one (ours).",
    )
    plain_share: Annotated[float, LATER] = Field(
        0.0, ge=0, le=1, description="Share of c that has no δ after the warm-up either (published: 0)."
    )
    retain_behind: Annotated[float, LATER] = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the prompts that are kept which stand behind k random tokens, and are held to what the "
        "original predicts without these (published: 0).",
    )


def encoder_names(model: Model) -> list[str]:
    """The weights that are trained, "PART.PARAMETER": of every text encoder, its layers and its final norm."""
    found = []
    for _, part in model.kind.token_encoders:
        named = getattr(model.pipe, part).named_parameters()
        found += [f"{part}.{name}" for name, _ in named if "encoder.layers." in name or "final_layer_norm." in name]
    return found


@contextlib.contextmanager
def _course(context: EraserContext) -> Iterator[Course]:
    settings: AdvUnlearnSettings = context.options
    with trained_weights(context.model, encoder_names(context.model)) as weights:
        loss = AdvUnlearnLoss(context, weights)
        descent = Descent(weights.tensors, loss, settings.steps, settings.lr, memory=loss.memory)
        yield Course(descent, lambda folder, described: write_changes(folder, weights.changes(), described))


class AdvUnlearnLoss:
    """The loss of a step. Prompts, latents and searches are a function of the step's number and of the weights.

    memory: δ of the last search, "rows", (prompt, k, width); nothing before the first one.
    """

    def __init__(self, context: EraserContext, weights: TrainedWeights) -> None:
        self.model, self.seed, self.weights = context.model, context.seed, weights
        self.settings: AdvUnlearnSettings = context.options
        found = contrasts(context, self.settings.wordings)
        self.texts = sorted({contrast.unsafe for contrast in found})
        self.safe = {contrast.unsafe: contrast.safe for contrast in found}
        self.kept = kept_prompts(context)
        self.pictures = Pictures(context.model, pair_latents(context), context.pairs)
        self.empty = self.model.condition([""])
        self.memory: dict[str, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        erase, retain = self.terms(step)
        return erase + self.settings.retain_weight * retain

    def terms(self, step: int) -> tuple[Tensor, Tensor]:
        """The term that erases and the one that keeps, both scalars."""
        settings, generator = self.settings, generator_of(self.seed, "advunlearn", step)
        prompts, rows = self.adversarial(step)
        kept = _draw(self.kept, settings.retain_batch, generator)
        noisy, t = self.pictures.noised(prompts, "both", generator)
        safe, u = self.pictures.noised(kept, "safe", generator)
        n, m = len(prompts), len(kept)
        with self.weights.original():
            pair = settings.form == "pair"
            base = self.read([self.safe[prompt] for prompt in prompts]) if pair else self.empty.repeat(n)
            given = joined([self.read(prompts), base, self.read(kept)])
            found = self._predict(torch.cat([noisy, noisy, safe]), torch.cat([t, t, u]), given)
            concept, without, wanted = torch.split(found, [n, n, m])
        behind = self._part(settings.retain_behind, m, "behind", step)
        given = joined([self.behind(prompts, rows), self.behind(kept, self._tokens(behind, generator))])
        erased, now = torch.split(self._predict(torch.cat([noisy, safe]), torch.cat([t, u]), given), [n, m])
        target = without - settings.eta * (concept - without)
        return (erased - target).square().mean(), (now - wanted).square().mean()

    def adversarial(self, step: int) -> tuple[list[str], Tensor | None]:
        """The concept's prompts of a step, and δ of the last ones, (prompt, k, width): None while the warm-up lasts.

        Steps that share a search share its prompts, which δ was found for.
        """
        after = step - self.settings.warm_up
        since = after % self.settings.renew_every if after >= 0 else 0
        generator = generator_of(self.seed, "advunlearn", "search", step - since)
        prompts = _draw(self.texts, self.settings.batch, generator)
        plain = self._part(self.settings.plain_share, len(prompts), "plain", step - since)
        if after < 0 or plain == len(prompts):
            return prompts, None
        if since == 0:
            self.memory["rows"] = self.search(prompts[plain:], generator)
        return prompts, self.memory["rows"].to(self.model.device)

    def search(self, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        """δ of each prompt, (prompt, k, width), as the last step of its search left it."""
        settings = self.settings
        rows = self._tokens(len(prompts), generator).requires_grad_(True)
        optimizer = torch.optim.Adam([rows], lr=settings.attack_lr)
        pictures = [self.pictures.noised(prompts, "both", generator) for _ in range(settings.attack_steps)]
        for step, ((noisy, t), wanted) in enumerate(zip(pictures, self.wanted(prompts, pictures), strict=True)):
            loss = self.distance(prompts, rows, noisy, t, wanted)
            found = gradient(loss, rows, f"step {step + 1} of AdvUnlearn's search")
            rows.grad = found.sign() if settings.fast else found
            optimizer.step()
        return rows.detach()

    def wanted(self, prompts: Sequence[str], pictures: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """What the original model predicts under c, (prompt, c, h, w), on each of some batches of x_t and t."""
        found: list[Tensor] = []
        with self.weights.original():
            read = self.read(prompts)
            for first in range(0, len(pictures), AHEAD):
                some = pictures[first : first + AHEAD]
                noisy, t = (torch.cat(parts) for parts in zip(*some, strict=True))
                found += self._predict(noisy, t, joined([read] * len(some))).chunk(len(some))
        return found

    def distance(self, prompts: Sequence[str], rows: Tensor, noisy: Tensor, t: Tensor, wanted: Tensor) -> Tensor:
        """What the search lowers: how far the prediction under c ⊕ δ is from what is wanted, a scalar."""
        return (self._predict(noisy, t, self.read(prompts, rows)) - wanted).square().mean()

    def read(self, prompts: Sequence[str], rows: Tensor | None = None) -> Conditioning:
        """Prompts through the encoder as it is now, differentiable in its weights and in the rows before each."""
        # Any token will do where a row stands but the one that ends a prompt.
        free = [] if rows is None else [self.model.pipe.tokenizer.bos_token_id] * rows.shape[1]
        ids = [sequence(self.model, [*free, *word_ids(self.model, prompt)]) for prompt in prompts]
        return self.model.condition(Tokens(torch.tensor(ids), rows))

    def behind(self, prompts: Sequence[str], rows: Tensor | None) -> Conditioning:
        """Prompts as `read` has them, the last of which stand behind rows: as many as there are."""
        count = len(prompts) - (0 if rows is None else len(rows))
        parts = [(prompts[:count], None), (prompts[count:], rows)]
        return joined([self.read(some, before) for some, before in parts if some])

    def _part(self, share: float, count: int, what: str, step: int) -> int:
        """How many of `count` a share is at a step: what is no whole number is rounded by chance, right on average."""
        return math.floor(share * count + float(torch.rand((), generator=generator_of(self.seed, NAME, what, step))))

    def _tokens(self, count: int, generator: torch.Generator) -> Tensor:
        """The input rows of k random tokens for each of some prompts, (prompt, k, width)."""
        plain = plain_tokens(self.model)
        chosen = torch.randint(0, len(plain), (count, self.settings.attack_tokens), generator=generator)
        return vocabulary(self.model)[plain[chosen].to(self.model.device)].float().clone()

    def _predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return predict_noised(self.model, noisy, t, conditioning).float()


def kept_prompts(context: EraserContext) -> list[str]:
    """Prompts that must stay: the pairs' safe ones, and those of the concept's `keep` that no evaluation asks."""
    safe = {pair.safe_prompt for pair in context.pairs if pair.safe_prompt}
    return sorted(safe | set(kept_texts(context, KEEP)))


def _draw(prompts: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
    return [prompts[i] for i in torch.randint(0, len(prompts), (count,), generator=generator).tolist()]


def _why_not(family: Family) -> str | None:
    if family.reads_clip_alone:
        return None
    return f"it trains CLIP's text encoders, and {family.title} reads {family.reader}'s words"


def _why_not_options(_family: Family, options: AdvUnlearnSettings) -> str | None:
    # Who gives a warm-up that long, or no prompt a δ, wants plain ESD.
    asked = options.plain_share == 1 or "warm_up" in options.model_fields_set
    if asked or options.warm_up < options.steps:
        return None
    return f"its {options.steps} steps end before its search begins: warm_up is {options.warm_up} where none is given"


def _facts(context: EraserContext) -> Mapping[str, Any]:
    """That shares of prompts are drawn, where they are no whole numbers: at first these were rounded the same way."""
    options: AdvUnlearnSettings = context.options
    parts = (options.plain_share * options.batch, options.retain_behind * options.retain_batch)
    return {} if all(part.is_integer() for part in parts) else {"shares": "drawn"}


ADV_UNLEARN: Final = course_eraser(
    NAME, "AdvUnlearn: adversarial training of the text encoder", AdvUnlearnSettings, "images and prompts",
    _why_not, _course, level="encoder", keeps=True, facts=_facts,
)._replace(why_not_options=_why_not_options)  # fmt: skip
