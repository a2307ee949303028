"""A round's candidates in blocks: each is sampled and judged by one of the processes that make the pairs of a run."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from ..errors import DuoError
from ..progress import progress
from ..runs import work
from ..storage.files import digest, read_tensors, set_aside, write_tensors
from .candidates import Candidate


class Outcome(NamedTuple):
    """A candidate as sampled and judged; reason: why it is no pair, None where it is one.

    safe is None where it was not sampled. A score is None where the image was not judged.
    """

    candidate: Candidate
    unsafe: Image.Image
    safe: Image.Image | None
    unsafe_score: float | None
    safe_score: float | None
    reason: str | None


class Claim(Protocol):
    """Holds a named piece of work inside the block; gives False where another process has it (`Run.claim`)."""

    def __call__(self, name: str, *, wait: bool = False) -> AbstractContextManager[bool]:
        """wait: until the other process lets go."""
        ...


class Share(NamedTuple):
    """How processes make pairs together. scratch: a folder where they leave outcomes for one another; None: nowhere."""

    claim: Claim
    scratch: Path | None


def _hold(name: str, *, wait: bool = False) -> AbstractContextManager[bool]:  # noqa: ARG001
    return contextlib.nullcontext(True)


ALONE = Share(_hold, None)
"""One process, which keeps its outcomes in memory."""

Make = Callable[[Sequence[Candidate], Callable[[int], None]], list[Outcome]]
"""make(candidates, report) samples and judges candidates; report(images) is told how many of two a candidate it has."""


class Blocks:
    """The blocks of a round as work that is divided.

    A process keeps the outcomes of its own blocks in memory, and reads those of others from the scratch folder. What
    lies there is not compressed, so that writing it costs little beside sampling. name: of the folder of pairs, for
    claims and files. is_over(): whether another process has ended the round; then nothing of it is missing.
    """

    def __init__(
        self, candidates: Sequence[Candidate], size: int, settings: Mapping[str, Any], name: str, share: Share,
        make: Make, is_over: Callable[[], bool], *, quiet: bool,
    ) -> None:  # fmt: skip
        parts = [candidates[first : first + size] for first in range(0, len(candidates), size)]
        self.blocks = {f"{name}.{digest([dict(settings), [list(c) for c in part]])[:16]}": part for part in parts}
        self.share, self.make, self.is_over, self.quiet = share, make, is_over, quiet
        self.known: dict[str, list[Outcome]] = {}

    def finish(self) -> None:
        """Make the blocks that nobody makes, and wait for the others; or until the round is over."""
        work.finish([self], self.share.claim, run=str(self.share.scratch))

    def outcomes(self) -> list[Outcome]:
        """The outcomes of all candidates, in order; of a round that is not over. DuoError: a block is not there."""
        if lacking := [part for part in self.blocks if not self.is_done(part)]:
            reasons = work.absent_parts()
            got = reasons.get((str(self.share.scratch), lacking[0]), "nobody made it")
            hint = "the same command tries again; what was made is kept"
            raise DuoError(f"a block of candidates for pairs is missing: {lacking[0]}", got=got, hint=hint)
        return [outcome for part in self.blocks for outcome in self.known[part]]

    def clear(self) -> None:
        """Delete what lies in the scratch folder."""
        for path in filter(None, map(self._path, self.blocks)):
            path.unlink(missing_ok=True)

    def parts(self) -> list[str]:
        """The names of the blocks, which are claimed by them."""
        return list(self.blocks)

    def is_done(self, part: str) -> bool:
        """Whether the outcomes of a block are here, or the round is over."""
        if part not in self.known and (found := self._read(part)) is not None:
            self.known[part] = found
        # In this order: a block is deleted only after its round has ended.
        return part in self.known or self.is_over()

    def is_open(self) -> bool:
        """True: every block stands by itself."""
        return True

    def cost(self, part: str) -> float:
        """How many candidates it has."""
        return float(len(self.blocks[part]))

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[str], None]]:
        """A line of progress over the images of the round, two a candidate."""
        total = 2 * sum(map(len, self.blocks.values()))
        with progress("pairs: images", total, quiet=self.quiet) as report:

            def make(part: str) -> None:
                done = 2 * sum(map(len, self.known.values()))
                self.known[part] = self.make(self.blocks[part], lambda images: report(done + images))
                self._write(part)
                report(2 * sum(map(len, self.known.values())))

            yield make

    def _path(self, part: str) -> Path | None:
        return None if self.share.scratch is None else self.share.scratch / f"{part}.safetensors"

    def _write(self, part: str) -> None:
        path = self._path(part)
        if path is None:
            return
        tensors = {}
        for i, outcome in enumerate(self.known[part]):
            tensors[f"{i}.unsafe"] = _tensor(outcome.unsafe)
            if outcome.safe is not None:
                tensors[f"{i}.safe"] = _tensor(outcome.safe)
        judged = [[outcome.unsafe_score, outcome.safe_score, outcome.reason] for outcome in self.known[part]]
        write_tensors(path, tensors, {"judged": json.dumps(judged)})

    def _read(self, part: str) -> list[Outcome] | None:
        path = self._path(part)
        if path is None or not path.exists():
            return None
        try:
            tensors, metadata = read_tensors(path)
            judged = json.loads(metadata["judged"])
            images = {name: Image.fromarray(tensor.numpy()) for name, tensor in tensors.items()}
            return [
                Outcome(candidate, images[f"{i}.unsafe"], images.get(f"{i}.safe"), *judged[i])
                for i, candidate in enumerate(self.blocks[part])
            ]
        except (DuoError, KeyError, IndexError, TypeError, ValueError):
            if path.exists():  # else its round has ended meanwhile
                set_aside(path)
            return None


def _tensor(image: Image.Image) -> Any:
    import numpy as np
    import torch

    return torch.from_numpy(np.array(image.convert("RGB")))
