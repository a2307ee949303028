"""What the line of several processes says: what is done of each stage, the time left, and what has none yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from duo_unlearn.cli.outlook import EVERY, Outlook, few_parts
from duo_unlearn.pairs.manifest import MANIFEST, PARTIAL, KindTries, save_manifest
from duo_unlearn.records import Attempt, Pair, Stage
from duo_unlearn.runs.attempts import Group, GroupRecord, Part, write_group, write_part
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.tree import Settings, write_settings


class Screen:
    """A clock, what was reported, and what was told beside it."""

    def __init__(self, stages: Mapping[Path, Sequence[Stage]], *, workers: int = 0, edits: Sequence[str] = ()) -> None:
        self.time, self.said, self.told = 0.0, list[tuple[int, str]](), list[str]()
        self.outlook = Outlook(
            stages,
            lambda share, line: self.said.append((share, line)),
            lambda: self.time,
            edits=edits,
            workers=workers,
            say=self.told.append,
        )

    def after(self, seconds: float) -> tuple[int, str]:
        self.time += seconds
        self.outlook.look()
        return self.said[-1]


def found(run: Run, kept: int, *, over: bool = False) -> None:
    tries = [KindTries("a", "b", wanted=8, kept=kept, tries=2 * kept)]
    pairs = [Pair(f"{i:04}", f"unsafe/{i:04}.png", f"safe/{i:04}.png", "a" * 64, "b" * 64) for i in range(kept)]
    name = MANIFEST if over else PARTIAL
    save_manifest(run.pairs, concept="sword", settings={}, pairs=pairs, tries=tries, name=name)


def ask(run: Run, group: Group, done: int, size: int) -> None:
    """A group of two images a part, of which some parts are there."""
    keys = {f"{first:04}": f"key{first}" for first in range(0, size, 2)}
    record = GroupRecord(group, "sha", "attack", "title", {}, None, None, size, keys)
    write_group(run, record)
    attempt = Attempt("p", {}, 0, "p", {}, None, None, None)
    for name in [name for name in keys if int(name) < done]:
        write_part(group.folder(run) / f"{name}.json", Part(keys[name], [attempt] * 2, 1.0))


@pytest.fixture
def whole(run: Run) -> Run:
    run.folder.mkdir()
    return run


def test_a_folder_that_is_being_begun_has_no_time(whole: Run) -> None:
    screen = Screen({whole.folder: ["pairs", "images"]})
    assert screen.after(0) == (0, "0 of – pairs, – left, then images")


def test_pairs_have_a_time_once_some_were_found_and_what_follows_is_named(whole: Run) -> None:
    found(whole, 2)
    screen = Screen({whole.folder: ["pairs", "train", "images"]})
    assert screen.after(0) == (0, "2 of 8 pairs, – left, then steps, images")
    found(whole, 5)
    assert screen.after(60) == (16, "5 of 8 pairs, 1:00 left, then steps, images")
    found(whole, 8, over=True)
    (whole.pairs / PARTIAL).unlink()
    assert screen.after(60) == (33, "0 of – steps, – left, then images")


def test_a_look_a_moment_later_reads_nothing(whole: Run) -> None:
    found(whole, 2)
    screen = Screen({whole.folder: ["pairs"]})
    screen.after(0)
    found(whole, 4)
    assert screen.after(EVERY / 2)[1].startswith("2 of 8")
    assert screen.after(EVERY)[1].startswith("4 of 8")


def test_images_are_those_that_this_command_asks_for(whole: Run) -> None:
    found(whole, 8, over=True)
    ask(whole, Group("duo", "direct", "p4d", "quick"), 2, 6)  # of an earlier command, which was stopped
    screen = Screen({whole.folder: ["images"]})
    assert screen.after(0) == (0, "0 of – images, – left")
    direct = Group("duo", "direct", "direct", None)
    ask(whole, direct, 0, 8)
    assert screen.after(10) == (0, "0 of 8 images, – left")
    ask(whole, direct, 4, 8)
    assert screen.after(20) == (50, "4 of 8 images, 0:20 left")  # since it was asked
    ask(whole, direct, 8, 8)
    assert screen.after(20) == (100, "")


def test_the_members_of_a_sweep_are_counted_together(whole: Run) -> None:
    members = [Run(whole.sweep / f"beta-{beta}") for beta in (5, 9)]
    screen = Screen({member.folder: ["images"] for member in members})
    screen.after(0)
    for member in members:
        found(member, 8, over=True)
        ask(member, Group("duo", "direct", "direct", None), 2, 4)
    assert screen.after(10)[1].startswith("4 of 8 images")


def test_the_edits_of_an_arena_are_counted(whole: Run) -> None:
    found(whole, 8, over=True)
    screen = Screen({whole.folder: ["pairs", "train", "images"]}, edits=["duo", "uce", "soft"])
    assert screen.after(0) == (33, "0 of 3 edits, – left, then images")
    whole.edit("uce").mkdir(parents=True)
    assert screen.after(60) == (44, "1 of 3 edits, 2:00 left, then images")
    for name in ("duo", "soft"):
        whole.edit(name).mkdir(parents=True)
    assert screen.after(60) == (66, "0 of – images, – left")


def test_a_part_that_is_done_is_read_once(whole: Run) -> None:
    screen = Screen({whole.folder: ["images"]})
    screen.after(0)
    group = Group("duo", "direct", "direct", None)
    ask(whole, group, 4, 8)
    assert screen.after(10)[1].startswith("4 of 8")
    done = group.folder(whole) / "0000.json"
    done.write_text("no JSON")
    attempt = Attempt("p", {}, 0, "p", {}, None, None, None)
    write_part(done.with_name("0004.json"), Part("key4", [attempt] * 2, 1.0))
    assert screen.after(10)[1].startswith("6 of 8")
    assert done.read_text() == "no JSON"


def test_a_part_under_another_key_is_read_again(whole: Run) -> None:
    screen = Screen({whole.folder: ["images"]})
    screen.after(0)
    group = Group("duo", "direct", "direct", None)
    ask(whole, group, 2, 2)
    assert screen.after(10) == (100, "")
    write_group(whole, GroupRecord(group, "sha", "attack", "title", {}, None, None, 2, {"0000": "another"}))
    assert screen.after(10)[1].startswith("0 of 2")


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_more_workers_than_parts_are_told_once_all_groups_are_there(whole: Run, workers: int) -> None:
    screen = Screen({whole.folder: ["images"]}, workers=workers)
    screen.after(0)
    ask(whole, Group("duo", "direct", "p4d", "quick"), 0, 2)
    screen.after(EVERY)
    ask(whole, Group("duo", "keep", "p4d", "quick"), 0, 4)
    screen.after(EVERY)
    assert screen.told == []  # groups were still being written
    for _ in range(3):
        screen.after(EVERY)
    assert screen.told == ([few_parts(3, workers)] if workers > 3 else [])


def test_plain_prompts_of_several_sets_are_parts_by_their_batches(whole: Run) -> None:
    write_settings(whole.settings, Settings.model_validate({"evaluate": {"batch": 4}}))
    screen = Screen({whole.folder: ["images"]}, workers=8)
    for name in ("direct", "synonym", "keep"):
        ask(whole, Group("duo", name, "direct", None), 0, 2)
    for _ in range(3):
        screen.after(EVERY)
    assert screen.told == [few_parts(2, 8)]


def test_the_line_of_too_many_workers_is_one_for_both_ways_of_sharing() -> None:
    assert few_parts(3, 4) == "3 parts so far for 4 workers: some of these have nothing to do"
    assert few_parts(1, 4) == "1 part so far for 4 workers: some of these have nothing to do"
    assert few_parts(4, 4) is None
    assert few_parts(0, 4) is None  # nothing is known yet
