"""Several processes make the pairs of one: every block is made once, and one that dies leaves what it finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from benchmarks.schedule import Desk
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.pairs.blocks import Share
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.hand_out import HandOut
from duo_unlearn.runs.handed import Handed
from duo_unlearn.runs.work import Source, parts_from

from ..command import as_process
from .drawn_world import DrawingModel, GalleryDetector, World, files_of

WAIT = 60.0


class Meeting(DrawingModel):
    """A drawing model whose first call waits for that of another one."""

    barrier: threading.Barrier | None = None

    def sample(self, requests: Sequence[SampleRequest], **options: Any) -> list[Image.Image]:
        if self.barrier is not None:
            barrier, self.barrier = self.barrier, None
            barrier.wait(WAIT)
        return super().sample(requests, **options)


def scratch_of(run: Run) -> Path:
    return run.folder / "cache" / "candidates"


def two_worlds(folder: Path) -> list[World]:
    """Two processes' worlds: they know each other's drawings and write into one folder."""
    worlds, barrier = [World(folder), World(folder)], threading.Barrier(2)
    for world in worlds:
        world.gallery = worlds[0].gallery
        world.detector = GalleryDetector(world.gallery)
        world.model = Meeting(world.gallery)
        world.model.barrier = barrier
    return worlds


def make_all(
    worlds: Sequence[World], run: Run, sources: Sequence[Source | None] = (None, None), **changes: Any
) -> list[list[str]]:
    """The names of the pairs that each got."""
    found: list[list[str]] = [[] for _ in worlds]

    def work(i: int) -> None:
        share = Share(run.claim, scratch_of(run))
        with parts_from(sources[i]):
            found[i] = [pair.name for pair in worlds[i].make(share=share, **changes)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(worlds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_two_make_the_files_of_one_and_sample_nothing_twice(run: Run, tmp_path: Path, batch: int) -> None:
    alone, worlds = World(tmp_path / "alone"), two_worlds(run.pairs)
    names = [pair.name for pair in alone.make(batch=batch)]
    assert make_all(worlds, run, batch=batch) == [names, names]
    assert files_of(run.pairs) == files_of(alone.folder)
    counts = [len(world.model.requests) for world in worlds]
    assert min(counts) > 0
    assert sum(counts) == len(alone.model.requests)
    assert not list(scratch_of(run).iterdir())


def test_two_that_have_their_blocks_from_a_hand_out_make_the_files_of_one(run: Run, tmp_path: Path) -> None:
    alone, worlds, hand_out = World(tmp_path / "alone"), two_worlds(run.pairs), HandOut()
    names = [pair.name for pair in alone.make(batch=2)]
    sources = [Handed(Desk(name, hand_out), sleep=lambda _seconds: time.sleep(0.002)) for name in "12"]
    assert make_all(worlds, run, sources, batch=2) == [names, names]
    assert files_of(run.pairs) == files_of(alone.folder)
    assert sum(len(world.model.requests) for world in worlds) == len(alone.model.requests)


def test_a_block_that_nobody_could_make_is_told_with_its_reason(run: Run) -> None:
    world = World(run.pairs)

    def refuse(*_given: Any, **_options: Any) -> Any:
        raise DuoError("out of memory")

    with pytest.MonkeyPatch.context() as patch, parts_from(Handed(Desk("1", HandOut()))):
        patch.setattr(world.model, "sample", refuse)
        with pytest.raises(DuoError, match="a block of candidates for pairs is missing") as raised:
            world.make(batch=2, share=Share(run.claim, scratch_of(run)))
    assert "out of memory" in str(raised.value.got)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_one_that_dies_has_finished_is_read(run: Run, tmp_path: Path) -> None:
    alone, worlds = World(tmp_path / "alone"), two_worlds(run.pairs)
    names = [pair.name for pair in alone.make(batch=2)]
    worlds[0].model.crash_after = 6
    assert make_all(worlds, run, batch=2)[1] == names
    assert files_of(run.pairs) == files_of(alone.folder)
    counts = [len(world.model.requests) for world in worlds]
    assert counts[0] == 6
    assert sum(counts) <= len(alone.model.requests) + 4  # the block that it was at: two candidates, two images each
    assert not list(scratch_of(run).iterdir())


def test_one_alone_repeats_no_finished_block_and_makes_a_broken_one_again(run: Run, tmp_path: Path) -> None:
    alone, world = World(tmp_path / "alone"), World(run.pairs)
    alone.make(batch=2)
    share = Share(run.claim, scratch_of(run))
    world.model.crash_after = 9
    with pytest.raises(KeyboardInterrupt):
        world.make(batch=2, share=share)
    kept = sorted(scratch_of(run).iterdir())
    assert len(kept) >= 2
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    (scratch_of(run) / f".{kept[0].name}.1.part").write_bytes(b"")  # a process was killed while it wrote
    world.model.crash_after = None
    world.make(batch=2, share=share)
    assert files_of(run.pairs) == files_of(alone.folder)
    assert not list(scratch_of(run).iterdir())
    # Again: the broken block, and the one that it died at.
    assert len(world.model.requests) <= len(alone.model.requests) + 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_make_the_pairs_of_one_and_one_is_killed(tmp_path: Path) -> None:
    options = ["--set", "pairs.scale=0.03", "--set", "pairs.batch=2", "--set", "pairs.held_out=0", "-o"]
    whole = as_process("pairs", "--concept", "sword", *options)
    alone, both = Run(tmp_path / "alone"), Run(tmp_path / "both")
    assert subprocess.run([*whole, str(alone.folder)], check=False).returncode == 0
    two = [subprocess.Popen([*whole, str(both.folder)], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    while not (scratch_of(both).is_dir() and list(scratch_of(both).iterdir())) and two[0].poll() is None:
        time.sleep(0.01)
    os.kill(two[0].pid, signal.SIGKILL)
    said = [process.communicate(timeout=900)[1] for process in two]
    assert [process.returncode for process in two] == [-signal.SIGKILL, 0], said
    assert files_of(both.pairs) == files_of(alone.pairs)
    assert json.loads((both.pairs / "manifest.json").read_text())["pairs"]
    assert not list(scratch_of(both).iterdir())
