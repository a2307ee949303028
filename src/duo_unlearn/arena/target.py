"""What an attacker of a run has: its model, the original one, and images of the concept."""

from __future__ import annotations

import json
from collections.abc import Sequence

from PIL import Image

from ..attacks.interface import Subject
from ..detectors.interface import verdicts_of
from ..edits.lora import adapters_off
from ..erasers.latents import build_cache
from ..families.interface import SampleRequest
from ..features.clip import clip_score
from ..pairs.own_pairs import load_pairs
from ..session import Session
from .groups import prompt_groups
from .originals import Originals


def subject_of(session: Session) -> Subject:
    """The model as it stands, and what an attacker of it has."""
    settings, model = session.settings.evaluate, session.model

    def sample(requests: Sequence[SampleRequest]) -> list[Image.Image]:
        return model.sample(requests, steps=settings.steps, guidance=settings.guidance, batch=settings.batch)

    def sample_original(requests: Sequence[SampleRequest]) -> list[Image.Image]:
        with adapters_off(model.denoiser):
            return sample(requests)

    basis = [model.fingerprint(), model.variant, model.source, settings.steps, settings.guidance]
    state = json.dumps([*basis, session.settings.checkpoint_config, str(model.pipe.scheduler.config)])
    pairs = [pair for pair in load_pairs(session.run.pairs) if pair.keep]
    cache = build_cache(model, pairs, session.run.pairs, session.run.moments, captions=session.settings.train.captions)
    keep = [group for group in prompt_groups(session.concept, settings, session.settings.seed) if group.kind == "keep"]
    return Subject(
        model=model,
        original=lambda: adapters_off(model.denoiser),
        originals=Originals(session.run, state, sample_original),
        # An image that cannot be judged is no success of a search.
        detect=lambda images: [v is not None and v.detected for v in verdicts_of(session.detector, images, [])],
        sample=sample,
        score=lambda images, texts: clip_score(model.family, images, texts),
        moments=cache.unsafe,
        contrast=[(pair.unsafe_prompt or "", pair.safe_prompt or "") for pair in pairs],
        benign=[prompt.text for prompt in keep[0].prompts] if keep else ["a picture"],
        seed=session.settings.seed,
    )
