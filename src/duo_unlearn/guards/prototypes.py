"""Prototypes (arXiv 2603.08271): guidance goes away from the prototype of the concept that a prompt comes nearest to.

Of the paper, as far as its summary says: CLIP's image embeddings with the concept minus those without it, here of the
pairs, are clustered by k-means; each centre becomes a soft prompt, whose text embedding has the largest cosine with it
(2000 steps, 5e-2); the nearest above a threshold τ is a negative term of guidance, for a soft prompt p of weight w

    ε_n + s (ε_c − ε_n) − s w (ε_p − ε_n)

Ours is what it leaves open: w; τ, of the cosine of the prompt's text embedding with the centre; how many tokens a soft
prompt has. A prompt below τ stays as it is, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen
from .learning import learnt

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.family import Family
    from ..families.interface import Guidance, Hooks, Model, SampleRequest, Tokens
    from ..records import Level
    from ..runs.search_state import SearchState


class PrototypesSettings(Strict):
    """How the prototypes are found, and when one acts."""

    clusters: int = Field(2, ge=1, description="K (published: 16 for broad concepts, 1 to 2 for narrow ones).")
    tokens: int = Field(4, ge=1, description="Tokens of a soft prompt.")
    steps: int = Field(2000, ge=1, description="Steps of Adam for the soft prompts (published: 2000).")
    lr: float = Field(5e-2, gt=0, description="Of Adam (published: 5e-2).")
    threshold: float = Field(0.2, ge=-1, le=1, description="τ, the cosine from which a prototype acts.")
    weight: float = Field(2.0, ge=0, description="w, of the term, as a share of the scale of guidance.")


class Prototypes(NamedTuple):
    """centres: unit vectors in CLIP's space, (prototype, width), that of the largest cluster first.

    rows: the input embeddings of their soft prompts, (prototype, token, width).
    """

    centres: Tensor
    rows: Tensor


def cluster(points: Tensor, count: int, rounds: int = 50) -> Tensor:
    """k-means: the centres of unit vectors, (centre, width), unit too, that of the most points first.

    It starts from the mean's nearest point, and goes on with the point that is farthest from those chosen: the same
    points give the same centres.
    """
    import torch

    points = torch.nn.functional.normalize(points, dim=1)
    chosen = [int((points @ points.mean(dim=0)).argmax())]
    while len(chosen) < min(count, len(points)):
        chosen.append(int((points @ points[chosen].T).amax(dim=1).argmin()))
    centres = points[chosen]
    for _ in range(rounds):
        nearest = (points @ centres.T).argmax(dim=1)
        marks = torch.nn.functional.one_hot(nearest, len(centres)).to(points)
        # A cluster that lost all its points stays where it was.
        sums = marks.T @ points
        moved = torch.nn.functional.normalize(torch.where(sums.norm(dim=1, keepdim=True) > 0, sums, centres), dim=1)
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres[marks.sum(dim=0).argsort(descending=True, stable=True)]


class PrototypesGuard:
    """Guidance goes away from the soft prompt of the nearest prototype."""

    name, title = "prototypes", "Prototypes of the pairs' differences"
    version, aware_version = 1, 2
    settings: type[Strict] = PrototypesSettings
    learns, acts_on = True, "conditioning"
    level: Level = "input"
    cost = "a denoiser row a step (3 in place of 2) where a prompt is near; soft prompts are learnt once"
    replaces: Branch | None = None
    asks: Asks | None = None
    seen: Seen = "part"
    needs_negative: bool = True

    def why_not(self, kind: Family) -> str | None:
        """It needs a negative branch, and CLIP's text tower as the one text encoder."""
        if (reason := kind.why_no_negative) is not None:
            return reason
        if kind.clip_reads_prompts:
            return None
        return f"a soft prompt is learnt in the space of pictures, where {kind.title} does not read its prompts"

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the conditioning; prototypes are learnt first, where the run does not have them.

        A search sees that of its prompt's tokens; the choice has no gradient. A conditioning without tokens gets the
        first prototype, in a search as in a sampling: what it says is not known.
        """
        import torch

        from ..families.interface import Away, Conditioning, Hooks

        settings = PrototypesSettings.model_validate(dict(options))
        model, found = context.model, _prototypes(settings, context)
        with torch.no_grad():
            soft = model.condition(_tokens(model, found.rows)).text

        def conditioning(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
            rows = zip(requests, guidance.positive.text, strict=True)
            chosen = [_nearest(model, request, text, found.centres, settings.threshold) for request, text in rows]
            if all(one is None for one in chosen):
                return guidance
            text = soft[[one or 0 for one in chosen]]
            weight = torch.tensor([0.0 if one is None else settings.weight for one in chosen])
            return guidance._replace(away=Away(Conditioning(text), weight))

        return Hooks(conditioning=conditioning)


def _nearest(model: Model, request: SampleRequest, text: Tensor, centres: Tensor, threshold: float) -> int | None:
    """The prototype that a prompt of text rows (token, width) comes nearest to; None where it comes near none."""
    from ..families.tokens import ends, tokens_of

    ids = tokens_of(model, request.words).ids
    if ids.shape[1] == 0:
        return 0
    embedding = _embedding(model, text[int(ends(model, ids))].detach())
    cosine = centres.to(embedding) @ embedding
    best = int(cosine.argmax())
    return best if float(cosine[best]) >= threshold else None


def _embedding(model: Model, pooled: Tensor) -> Tensor:
    """CLIP's text embedding, of unit length, (…, width), from the rows of end tokens."""
    import torch

    from ..features.registry import clip_source

    projection = clip_source(model.family).load().model.text_projection
    return torch.nn.functional.normalize(projection(pooled.float().to(projection.weight)), dim=-1)


def _tokens(model: Model, rows: Tensor) -> Tokens:
    """Prompts of free rows alone, (prompt, token, width)."""
    import torch

    from ..families.interface import Tokens
    from ..families.tokens import sequence

    # Any token will do in a free row's place but the one that ends a prompt.
    ids = sequence(model, [model.pipe.tokenizer.bos_token_id] * rows.shape[1])
    return Tokens(torch.tensor([ids] * len(rows)), rows)


def _prototypes(settings: PrototypesSettings, context: Context) -> Prototypes:
    """The prototypes of a run, read or learnt."""
    import torch

    from ..features.registry import clip_source
    from ..storage.files import digest

    clip = clip_source(context.model.family).load()

    def learn(state: SearchState) -> dict[str, Tensor]:
        pictures = context.pairs.pictures()
        unsafe, safe = (torch.nn.functional.normalize(clip.embed_images(side), dim=1) for side in pictures)
        centres = cluster(unsafe - safe, settings.clusters)
        return {"centres": centres, "rows": _learn(context, settings, centres, state)}

    decides = settings.model_dump(mode="json", exclude={"threshold", "weight"})
    tensors = learnt(context, PROTOTYPES.name, digest([context.key, decides, context.seed, clip.name]), learn)
    return Prototypes(tensors["centres"], tensors["rows"].to(context.model.device))


def _learn(context: Context, settings: PrototypesSettings, centres: Tensor, state: SearchState) -> Tensor:
    """The soft prompts whose text embeddings come nearest to the centres, (prototype, token, width)."""
    import torch

    from ..families.tokens import ends, vocabulary
    from ..progress import progress
    from ..storage.optimizer_state import optimizer_tensors, restore_optimizer

    model = context.model
    words = vocabulary(model)
    generator = torch.Generator().manual_seed(context.seed)
    first = torch.randint(0, len(words), (len(centres), settings.tokens), generator=generator)
    rows = words[first.to(words.device)].float().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([rows], lr=settings.lr)
    begin = 0
    if (found := state.restore()) is not None:
        begin, kept = found
        rows.data.copy_(kept["rows"])
        restore_optimizer(optimizer, {k.partition("/")[2]: v for k, v in kept.items() if k.startswith("optimizer/")})

    def tensors() -> dict[str, Tensor]:
        held = {f"optimizer/{name}": value for name, value in optimizer_tensors(optimizer).items()}
        return {**held, "rows": rows.detach()}

    with progress("learn prototypes", settings.steps, done=begin, quiet=context.quiet) as report:
        for step in range(begin, settings.steps):
            tokens = _tokens(model, rows)
            text = model.condition(tokens).text
            pooled = text[torch.arange(len(text)), ends(model, tokens.ids).to(text.device)]
            embedding = _embedding(model, pooled)
            cosine = (embedding * centres.to(embedding)).sum(dim=1)
            (rows.grad,) = torch.autograd.grad(-cosine.sum(), [rows])
            optimizer.step()
            state.offer(step + 1, tensors)
            report(step + 1, f"cosine {cosine.mean().item():.3f}")
    return rows.detach()


PROTOTYPES: Final = PrototypesGuard()
