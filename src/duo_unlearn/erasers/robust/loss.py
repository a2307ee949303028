r"""The loss of robust DUO:

    L = L_pref(c) + λ L_prior + w L_hold

L_pref and L_prior are DUO's (`duo.objective`). c is drawn for each pair from a mixture of captions, some of them
searched for inside the step, as tokens (`search`) or behind the encoders (`free`). Policy and reference read the same
c, so the loss starts at ln 2 for any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...edits.interface import edits_off
from ...edits.lora import adapters_off
from ...errors import DuoError
from ...families.denoising import Noised, predict_noised
from ...families.interface import Conditioning, joined
from ..descent import generator_of
from ..duo.course import autocast
from ..duo.objective import Terms
from ..duo.step import batch_of, draw, noised_members, pair_at, terms_of
from ..interface import EraserContext
from ..latents import pair_latents
from .bank import captions_read
from .free import Conditionings
from .holding import Holding
from .search import Aim, Prompts
from .settings import Kind, RobustSettings
from .texts import Texts, kind_of


class RobustLoss:
    """The loss of a step, a function of its number, of the weights and of `memory`, which holds what is searched for.

    notes: figures of the last step, for its line in metrics.jsonl.
    """

    def __init__(self, context: EraserContext) -> None:
        self.context, self.model, self.seed = context, context.model, context.seed
        self.settings: RobustSettings = context.options
        self.cache = pair_latents(context)
        self.texts = Texts(self.model, context.pairs, self.settings.captions)
        self.holding = Holding(context, self.cache.safe, self.texts) if self.settings.hold_weight else None
        self.memory: dict[str, Tensor] = {}
        self.notes: dict[str, float] = {}
        self.bank = captions_read(context) if self.settings.captions.bank else None
        self.prompts = self._prompts() if self.settings.captions.search else None
        self.behind = self._behind() if self.settings.captions.free else None

    def _prompts(self) -> Prompts:
        settings = self.settings.search
        missing = next((pair.name for pair in self.context.pairs if pair.unsafe_prompt is None), None)
        if missing is not None and settings.steps and settings.imitate:
            got = f"search.imitate {settings.imitate:g}, none for {missing}"
            raise DuoError("to imitate the original needs every pair's unsafe prompt", got=got, hint="search.imitate=0")
        generator, many = generator_of(self.seed, "searched"), len(self.context.pairs)
        order = torch.randperm(many, generator=generator).tolist()
        places = [order[i % many] for i in range(settings.prompts)]
        captions = [pair.unsafe_prompt or "" for pair in self.context.pairs]
        return Prompts(self.model, captions, places, settings, self.memory, generator)

    def _behind(self) -> Conditionings:
        return Conditionings(self.model, self.settings.free, self.memory, generator_of(self.seed, "free"))

    def __call__(self, step: int) -> Tensor:
        """The scalar loss."""
        with autocast(self.model, self.settings):
            terms = self.terms(step)
            held = self.holding(step) if self.holding is not None else torch.zeros(())
        names = ["preference", "safe_margin", "unsafe_margin", "accuracy"]
        names += ["prior"] if self.settings.prior_weight else []
        self.notes.update({name: float(getattr(terms, name).float().mean()) for name in names})
        if self.holding is not None:
            self.notes["hold"] = float(held.detach())
        assert self.settings.hold_weight is not None
        return terms.loss + self.settings.hold_weight * held.to(terms.loss.device)

    def terms(self, step: int) -> Terms:
        """DUO's terms of a step's pairs, under the captions that were drawn."""
        settings, size = self.settings, self.settings.train_batch_size
        samples = list(range(step * size, (step + 1) * size))
        kinds = [kind_of(settings.captions, sample, self.seed) for sample in samples]
        chosen = [pair_at(sample, len(self.cache.safe.mean), self.seed) for sample in samples]
        generator = generator_of(self.seed, "captions", step)
        # A searched prompt brings the pair that it was searched on.
        drawn = self.prompts.draw(kinds.count("search"), generator) if self.prompts is not None else []
        brought = iter([self.prompts.pairs[prompt] for prompt in drawn] if self.prompts is not None else [])
        chosen = [next(brought) if kind == "search" else pair for kind, pair in zip(kinds, chosen, strict=True)]
        draws = draw(samples, self.cache.safe.mean.shape[1:], settings, self.seed)
        members = noised_members(self.cache, self.model, chosen, draws)
        if drawn and settings.search.steps:
            assert self.prompts is not None
            places = _unsafe_places(kinds, "search")
            self.prompts.move(drawn, self._aim(members, places, [chosen[i - size] for i in places], generator))
        numbers = self.behind.draw(kinds.count("free"), generator) if self.behind is not None else []
        if numbers and self.settings.free.steps:
            assert self.behind is not None
            places = _unsafe_places(kinds, "free")
            self.behind.move(numbers, Aim(*(tensor[places] for tensor in members)))
        conditioning = self._read(kinds, chosen, drawn, numbers, generator)
        prior = draws.prior if settings.prior_weight else None
        batch = batch_of(self.model, members, conditioning, self.texts.empty, prior)
        return terms_of(self.model, None, batch, settings)

    def _aim(self, members: Noised, places: Sequence[int], pairs: Sequence[int], generator: torch.Generator) -> Aim:
        """What the searches of some unsafe members go towards: the noise, or the original's prediction."""
        noisy, t, target = (tensor[list(places)] for tensor in members)
        imitate = torch.rand(len(places), generator=generator) < self.settings.search.imitate
        if not imitate.any():
            return Aim(noisy, t, target)
        asking = self.texts.original_unsafe.rows(list(pairs))
        # The original's, and not the floor's, under which the concept is half gone.
        with torch.no_grad(), adapters_off(self.model.denoiser), edits_off(self.model):
            original = predict_noised(self.model, noisy, t, asking).float().cpu()
        return Aim(noisy, t, torch.where(imitate.view(-1, 1, 1, 1), original, target))

    def _read(
        self,
        kinds: Sequence[Kind],
        pairs: Sequence[int],
        drawn: Sequence[int],
        numbers: Sequence[int],
        generator: torch.Generator,
    ) -> Conditioning:
        """What each member reads, rows [safe; unsafe]. drawn, numbers: of searched prompts and conditionings."""
        searched, behind = _rows(self.prompts, drawn), _rows(self.behind, numbers)
        safe, unsafe = [], []
        for kind, pair in zip(kinds, pairs, strict=True):
            if kind in ("search", "free"):
                both = next(searched if kind == "search" else behind)
            elif kind == "random":
                both = self.texts.random(generator)
            elif kind == "bank":
                assert self.bank is not None
                both = self.bank.rows([int(torch.randint(0, len(self.bank.text), (1,), generator=generator))])
            else:
                both = self.texts.empty if kind == "empty" else self.texts.unsafe.rows([pair])
            safe.append(self.texts.safe.rows([pair]) if kind == "own" else both)
            unsafe.append(both)
        return joined([*safe, *unsafe])


def _unsafe_places(kinds: Sequence[Kind], kind: Kind) -> list[int]:
    """Where the unsafe members of the pairs that read a kind stand among the rows [safe; unsafe]."""
    return [len(kinds) + i for i, one in enumerate(kinds) if one == kind]


def _rows(source: Prompts | Conditionings | None, chosen: Sequence[int]) -> Iterator[Conditioning]:
    """What was searched for, one at a time; none of no source."""
    if source is not None and chosen:
        found = source.read(chosen)
        yield from (found.rows([row]) for row in range(len(chosen)))
