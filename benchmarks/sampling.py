"""Images sampled and judged in batches, as attacks and evaluations do it, against one pipeline call an image.

On the original model; with an adapter beside its weights, as an edited model has it; and with the adapter in the
weights (evaluate.fuse_adapters), and these channels last too, against calls with the adapter beside them. The adapter's
weights are those it starts from, so all images are the original's. Beside that: batches that a thread writes and judges
while the next one is sampled, against the same one after the other; the images must be the same.

python benchmarks/sampling.py            # a table
python benchmarks/sampling.py --json     # and one line of figures, last
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from ratios import Ratio, matrix_rate, operations, ratio, report, seconds

from duo_unlearn.detectors.registry import make_detector
from duo_unlearn.edits.files import fused, read_edit, save_adapter
from duo_unlearn.edits.lora import attach, detach
from duo_unlearn.families.interface import Model, SampleRequest
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.session import machine
from duo_unlearn.storage.pictures import save_png

PROMPTS = (
    "a red knight with a sword in the snow",
    "a blue king with a flower at night",
    "an armed green robot by the sea",
)
Arrays = list[np.ndarray[Any, Any]]


def requests(count: int) -> list[SampleRequest]:
    """Prompts in turn, a seed each."""
    return [SampleRequest(PROMPTS[i % len(PROMPTS)], i) for i in range(count)]


def one_by_one(model: Model, count: int) -> Arrays:
    """A pipeline call and a detector call an image, prompts as text: what a script does that knows no batches."""
    judge = make_detector("mini-judge", ("item=sword",), "mini")
    made = []
    for request in requests(count):
        generator = torch.Generator().manual_seed(request.seed)
        size = {"height": model.resolution, "width": model.resolution}
        image = model.pipe(
            request.words, generator=generator, num_inference_steps=20, guidance_scale=5.0, **size
        ).images[0]
        judge.detect([image])
        made.append(image)
    return arrays(made)


def in_batches(model: Model, count: int) -> Arrays:
    """The same images in batches of 64."""
    judge = make_detector("mini-judge", ("item=sword",), "mini")
    images = model.sample(requests(count), steps=20, guidance=5.0, batch=64)
    judge.detect(images)
    return arrays(images)


def with_files(model: Model, count: int, folder: Path, *, beside: bool) -> Arrays:
    """The same in batches of 16, each written and judged: by a thread while the next one is sampled, or before it.

    At most one batch waits, and what goes wrong in the thread is raised here.
    """
    judge, made, asked = make_detector("mini-judge", ("item=sword",), "mini"), [], requests(count)

    def keep(images: list[Image.Image], first: int) -> None:
        for i, image in enumerate(images):
            save_png(image, folder / f"{first + i}.png")
        judge.detect(images)

    with ThreadPoolExecutor(1) as thread:
        waiting: Future[None] | None = None
        for first in range(0, count, 16):
            images = model.sample(asked[first : first + 16], steps=20, guidance=5.0, batch=16)
            made += images
            if waiting is not None:
                waiting.result()
            if beside:
                waiting = thread.submit(keep, images, first)
            else:
                keep(images, first)
        if waiting is not None:
            waiting.result()
    return arrays(made)


def arrays(images: list[Image.Image]) -> Arrays:
    """The images' pixels, as numbers that can be subtracted."""
    return [np.asarray(image).astype(int) for image in images]


def states(model: Model, last: Model, folder: Path) -> dict[str, tuple[Model, AbstractContextManager[None]]]:
    """Models and contexts in which they have an adapter beside their weights, and in them. last: with channels last."""
    attach(model, rank=32, seed=0)
    save_adapter(model, folder, {})
    detach(model)
    edit = read_edit(folder)
    return {
        "original": (model, contextlib.nullcontext()),
        "adapter": (model, edit.on(model)),
        "fused": (model, fused(edit).on(model)),
        "channels last": (last, fused(edit).on(last)),
    }


def measure(model: Model, last: Model, count: int, rounds: int, folder: Path) -> tuple[list[Ratio], float]:
    """Time every way in turn, the states of the model too; gives the table and the images' largest mean difference.

    last: the model with its channels last.
    """
    found: list[dict[str, float]] = []
    worst, first = 0.0, in_batches(model, count)
    for number in range(rounds):
        row: dict[str, float] = {}
        for state, (asked, context) in states(model, last, folder / str(number)).items():
            with context:
                in_batches(asked, 4), one_by_one(asked, 1)
                for way in (one_by_one, in_batches) if state in ("original", "adapter") else (in_batches,):
                    images: Arrays = []
                    row[f"{state}, {way.__name__}"] = seconds(
                        lambda way=way, to=images, of=asked: to.extend(way(of, count))
                    )
                    worst = max(worst, *(float(np.abs(a - b).mean()) for a, b in zip(first, images, strict=True)))
        for beside in (True, False):
            images = []
            row[f"beside {beside}"] = seconds(
                lambda to=images, b=beside: to.extend(with_files(model, count, folder, beside=b))
            )
            worst = max(worst, *(float(np.abs(a - b).mean()) for a, b in zip(first, images, strict=True)))
        found.append(row)

    def over(a: str, b: str) -> list[tuple[float, float]]:
        return [(row[a], row[b]) for row in found]

    rows = [
        ratio("one call an image ÷ batches, the original", over("original, one_by_one", "original, in_batches")),
        ratio(
            "one call an image ÷ batches, with an adapter", over("adapter, one_by_one", "adapter, in_batches"), "≥ 4.5"
        ),
        ratio("one call with an adapter ÷ batches, fused", over("adapter, one_by_one", "fused, in_batches"), "≥ 4.5"),
        ratio(
            "one call with an adapter ÷ batches, fused, channels last",
            over("adapter, one_by_one", "channels last, in_batches"),
            "≥ 4.5",
        ),
        ratio("batches, with an adapter ÷ fused", over("adapter, in_batches", "fused, in_batches")),
        ratio("batches, fused ÷ fused, channels last", over("fused, in_batches", "channels last, in_batches")),
        ratio("written and judged after ÷ beside the next batch", over("beside False", "beside True")),
    ]
    return rows, worst


def share_of_rate(model: Model, count: int) -> float:
    """The share of the machine's matrix rate that the original's sampling in batches has."""

    def work() -> None:
        model.sample(requests(count), steps=20, guidance=5.0, batch=64)

    return operations(work) / seconds(work) / matrix_rate(torch.device("cpu"), torch.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5, help="of each, in turn")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `duo` does
    print(f"{machine()}; mini model, {arguments.images} images, 20 steps, {arguments.rounds} rounds in turn")
    model = load_model("mini", torch.device("cpu"))
    last = load_model("mini", torch.device("cpu"), channels_last=True)
    with tempfile.TemporaryDirectory() as folder:
        rows, worst = measure(model, last, arguments.images, arguments.rounds, Path(folder))
    share = share_of_rate(model, arguments.images)
    print(f"the same images: largest mean difference {worst:.3f} of 255 levels")
    print(f"sampling in batches has {share:.0%} of the measured matrix rate")
    facts = {"images": arguments.images, "rounds": arguments.rounds, "model": "mini", "share_of_matrix_rate": share}
    report(rows, facts, as_json=arguments.json)


if __name__ == "__main__":
    main()
