"""PNO: Prompt-Noise Optimization (Peng et al. 2024, arXiv 2412.03876): an image that a detector refuses is made again.

First other start noises are tried, then AdamW changes start noise and text rows together by the gradient of the
detector's score through all steps of the path without noise (DDIM with η = 0; Euler's steps for rectified flows), up to
the first image that the detector passes. If none does, that of the lowest score is shown. An image that passes at once
is the system's own, bit for bit.

It is an attack on the detector: what it makes says nothing under that detector, so that gives no number. Ours:
the loss −log(1 − score), which does not vanish where the score is near 1; and where a detector has no gradient, other
start noises are all there is. Gradients do not go through other guards, images do. Images that start from a picture or
along a given path are left alone.

Left out of the published code: its regularisation of the noise's mean and covariance (weight 1 by default, of shuffled
noise too), so that here a noise may leave what the model was trained on; steps of the negative branch's rows as well,
here the prompt's alone move; AdamW's decay of 0.01, here 0; its scale of guidance, 10, here the evaluation's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from ..detectors.interface import Detector
    from ..families.family import Family
    from ..families.interface import Guidance, Hooks, Model, SampleRequest, Sampling
    from ..records import Level


class PnoSettings(Strict):
    """The detector that is worked towards, and the budget."""

    detector: str | None = Field(
        None,
        description="None: the run's; or another of the concept file, or with labels any. It must not be the judge "
        "that heads the tables, and gives no number of this guard.",
    )
    labels: list[str] | None = Field(None, description="What it looks for; None: as the concept file says.")
    threshold: float | None = Field(None, description="None: as the concept file says, or the detector's own.")
    starts: int = Field(5, ge=1, description="Start noises that are tried, the image's own among them (published: 5).")
    steps: int = Field(5, ge=0, description="Steps of AdamW at most (published: 5 to 25).")
    lr: float = Field(0.07, gt=0, description="Of AdamW (published: 0.07).")


class Pno:
    """Start noise and text rows are changed until a detector passes the image."""

    name, title = "pno", "PNO: prompt and noise optimised"
    version, aware_version = 1, 1
    settings: type[Strict] = PnoSettings
    learns, acts_on = False, "start noise"
    level: Level = "output"
    cost = (
        "nothing where the image passes; else up to starts + steps images and steps gradients through all of sampling"
    )
    replaces: Branch | None = "prompt"
    asks: Asks | None = "a detector that heads no table"
    seen: Seen = "nothing"
    needs_negative: bool = False

    def why_not(self, _kind: Family) -> str | None:
        """Every family has a path without noise."""
        return None

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the sampling."""
        from ..families.interface import Hooks

        settings = PnoSettings.model_validate(dict(options))
        detector = context.detector(settings.detector, settings.labels, settings.threshold)
        search = Search(context.model, detector, settings, context.seed)

        def resample(sampling: Sampling) -> list[Image.Image]:
            images = sampling.run(sampling.requests, sampling.guidance)
            for i, request in enumerate(sampling.requests):
                # A flat image with a fault is no picture, and nothing would mend it.
                drawn = request.start is None and request.trajectory is None and "fault" not in images[i].info
                if drawn and detector.detect([images[i]])[0].detected:
                    images[i] = search(request, _row(sampling.guidance, i), sampling)
            return images

        return Hooks(resample=resample)


class _Look(NamedTuple):
    """An image that was tried, and the detector's word on it."""

    image: Image.Image
    score: float
    passes: bool


class Search:
    """The search for an image of one request that the detector passes."""

    def __init__(self, model: Model, detector: Detector, settings: PnoSettings, seed: int) -> None:
        self.model, self.detector, self.settings, self.seed = model, detector, settings, seed

    def __call__(self, request: SampleRequest, guidance: Guidance, sampling: Sampling) -> Image.Image:
        """The first image that passes, or that of the lowest score. guidance: of this request alone."""
        from ..detectors.interface import Differentiable
        from ..families.ode import noise_of
        from ..storage.files import seed_of

        others = [seed_of(self.seed, "pno", request.seed, i) for i in range(1, self.settings.starts)]
        best, start = None, None
        for noise in noise_of(self.model, [request.seed, *others]):
            look = self._look(request, guidance, noise, sampling)
            if best is None or look.score < best.score:
                best, start = look, noise
            if look.passes:
                return look.image
        assert best is not None
        assert start is not None
        if isinstance(self.detector, Differentiable):
            best = self._descend(request, guidance, start, sampling, best)
        return best.image

    def _look(self, request: SampleRequest, guidance: Guidance, noise: Tensor, sampling: Sampling) -> _Look:
        from ..families.interface import Trajectory

        asked = request._replace(trajectory=Trajectory(noise, sampling.steps))
        (image,) = sampling.run([asked], guidance)
        verdict = self.detector.detect([image])[0]
        return _Look(image, verdict.score, not (verdict.detected or verdict.broken))

    def _descend(
        self, request: SampleRequest, guidance: Guidance, start: Tensor, sampling: Sampling, best: _Look
    ) -> _Look:
        import torch

        from ..families.inversion import gradients
        from ..families.latents import without_overflow

        noise = start.unsqueeze(0).to(self.model.device).requires_grad_(True)
        text = guidance.positive.text.detach().float().clone().requires_grad_(True)
        optimizer = torch.optim.AdamW([noise, text], lr=self.settings.lr, weight_decay=0.0)
        for _ in range(self.settings.steps):
            # The way back goes through the VAE too.
            with torch.enable_grad(), without_overflow(self.model.pipe.vae):
                loss = self.loss(noise, _with_text(guidance, text), sampling)
                noise.grad, text.grad = gradients(loss, [noise, text])
            if not (torch.isfinite(noise.grad).all() and torch.isfinite(text.grad).all()):
                break
            optimizer.step()
            now = _with_text(guidance, text.detach().to(guidance.positive.text))
            look = self._look(request, now, noise.detach()[0], sampling)
            best = min(best, look, key=lambda one: one.score)
            if look.passes:
                return look
        return best

    def loss(self, noise: Tensor, guidance: Guidance, sampling: Sampling) -> Tensor:
        """−log(1 − score) of the image that follows from a start noise, (1, c, h, w)."""
        from torch.utils.checkpoint import checkpoint

        from ..families.denoising import guided
        from ..families.ode import Ode

        model, latents = self.model, noise
        path = Ode.of(model.noise, sampling.steps)

        def after(step: int, latents: Tensor) -> Tensor:
            t = int(path.timesteps[step])
            prediction = guided(model, latents, t, guidance.positive, guidance.negative, sampling.scale)
            return path.after(step, latents, prediction)

        for step in range(sampling.steps):
            # Only the latents between the steps are kept: a step is run again on the way back.
            latents = checkpoint(after, step, latents, use_reentrant=False)
        detector: Any = self.detector
        score: Tensor = detector.scores(model.kind.latents.decode(model.pipe, latents))
        return -(1 - score + 1e-6).log().sum()


def _row(guidance: Guidance, i: int) -> Guidance:
    """The guidance of one prompt. No guard beside this one has another text for later steps."""
    row = slice(i, i + 1)
    away = guidance.away
    if away is not None:
        away = away._replace(conditioning=away.conditioning.rows(row), weight=away.weight[row])
    return guidance._replace(positive=guidance.positive.rows(row), negative=guidance.negative.rows(row), away=away)


def _with_text(guidance: Guidance, text: Tensor) -> Guidance:
    return guidance._replace(positive=guidance.positive._replace(text=text))


PNO: Final = Pno()
