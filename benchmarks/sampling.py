"""Images sampled and judged in batches, as attacks and evaluations do it, against one pipeline call an image.

On the original model, and with an adapter attached as the erased model has it: its weights are those it starts from, so
the images are the original's.

python benchmarks/sampling.py            # a table
python benchmarks/sampling.py --json     # and one line of figures, last
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import torch

from duo_unlearn.detectors.registry import make_detector
from duo_unlearn.edits.lora import attach
from duo_unlearn.families.interface import Model, SampleRequest
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.session import machine

PROMPTS = (
    "a red knight with a sword in the snow",
    "a blue king with a flower at night",
    "an armed green robot by the sea",
)


def requests(count: int) -> list[SampleRequest]:
    """Prompts in turn, a seed each."""
    return [SampleRequest(PROMPTS[i % len(PROMPTS)], i) for i in range(count)]


def one_by_one(model: Model, count: int) -> list[np.ndarray]:
    """A pipeline call and a detector call an image, prompts as text: what a script does that knows no batches."""
    judge = make_detector("mini-judge", ("item=sword",), "mini")
    made = []
    for request in requests(count):
        generator = torch.Generator().manual_seed(request.seed)
        size = {"height": model.resolution, "width": model.resolution}
        image = model.pipe(
            request.prompt, generator=generator, num_inference_steps=20, guidance_scale=5.0, **size
        ).images[0]
        judge.detect([image])
        made.append(np.asarray(image).astype(int))
    return made


def in_batches(model: Model, count: int) -> list[np.ndarray]:
    """The same images in batches of 64."""
    judge = make_detector("mini-judge", ("item=sword",), "mini")
    images = model.sample(requests(count), steps=20, guidance=5.0, batch=64)
    judge.detect(images)
    return [np.asarray(image).astype(int) for image in images]


def measured(model: Model, count: int, rounds: int) -> tuple[list[float], float]:
    """Time one by one over time in batches, of each round, and the largest mean difference of an image."""
    ratios, worst = [], 0.0
    in_batches(model, 4), one_by_one(model, 2)
    for _ in range(rounds):
        begin = time.perf_counter()
        alone = one_by_one(model, count)
        middle = time.perf_counter()
        together = in_batches(model, count)
        ratios.append((middle - begin) / (time.perf_counter() - middle))
        worst = max(worst, *(float(np.abs(a - b).mean()) for a, b in zip(alone, together, strict=True)))
    return ratios, worst


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `duo` does
    print(f"{machine()}; mini model, {arguments.images} images, 20 steps, {arguments.rounds} rounds in turn")
    model, ratios = load_model("mini", torch.device("cpu")), {}
    for which in ("original", "erased"):
        if which == "erased":
            attach(model, rank=32, seed=0)
        found, worst = measured(model, arguments.images, arguments.rounds)
        ratios[which] = round(statistics.median(found), 3)
        print(f"{which}: in batches {ratios[which]:.2f} times as fast ({min(found):.2f} to {max(found):.2f})")
        print(f"  the same images: largest mean difference {worst:.3f} of 255 levels")
    if arguments.json:
        print(json.dumps({"ratio": ratios, "images": arguments.images, "model": "mini"}))


if __name__ == "__main__":
    main()
