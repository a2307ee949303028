"""A hand-out of parts: the longest first, what fails again and then absent, and a stage that is over for all."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.schedule import file_operations, simulate

from duo_unlearn.runs.hand_out import MOST_DEATHS, Answer, HandOut, Part, Stage

STAGE = Stage("runs/a", "first")
LEAVE, WAIT, LOOK = Answer("leave"), Answer("wait"), Answer("look")


def posted(*parts: Part) -> HandOut:
    """A hand-out whose first worker, "a", has looked."""
    hand_out = HandOut()
    assert hand_out.ask("a", STAGE) == LOOK
    hand_out.post(STAGE, list(parts))
    return hand_out


def test_one_worker_looks_and_the_others_wait_for_it() -> None:
    hand_out = HandOut()
    assert [hand_out.ask(worker, STAGE) for worker in "abc"] == [LOOK, WAIT, WAIT]
    hand_out.post(STAGE, [Part("x", "p", 1.0)])
    assert hand_out.ask("b", STAGE) == Answer("make", "x")


def test_where_nothing_is_missing_all_leave() -> None:
    hand_out = posted()
    assert [hand_out.ask(worker, STAGE) for worker in "ab"] == [LEAVE, LEAVE]


def test_the_longest_part_is_given_first() -> None:
    hand_out = posted(Part("short", "p", 1.0), Part("long", "q", 9.0), Part("middle", "p", 3.0))
    assert [hand_out.ask(worker, STAGE).part for worker in "abc"] == ["long", "middle", "short"]


def test_of_parts_as_long_a_worker_stays_at_its_place() -> None:
    hand_out = posted(*(Part(f"{place}{i}", place, 1.0) for i in range(3) for place in "pq"))
    first = hand_out.ask("a", STAGE).part
    hand_out.done("a", STAGE, first)
    given = [first]
    for _ in range(2):
        given.append(hand_out.ask("a", STAGE).part)
        hand_out.done("a", STAGE, given[-1])
    assert {name[0] for name in given} == {first[0]}


def test_workers_wait_until_the_last_part_is_made() -> None:
    hand_out = posted(Part("x", "p", 1.0))
    assert hand_out.ask("a", STAGE).part == "x"
    assert hand_out.ask("b", STAGE) == WAIT
    hand_out.done("a", STAGE, "x")
    assert hand_out.ask("b", STAGE) == LEAVE


def test_the_part_of_a_dead_worker_is_given_again_before_all_others() -> None:
    hand_out = posted(Part("x", "p", 9.0), Part("y", "p", 8.0))
    assert hand_out.ask("a", STAGE).part == "x"
    assert hand_out.died("a", "it died")
    assert hand_out.ask("b", STAGE) == Answer("make", "x", again=True)
    assert hand_out.news() == ["x is made again: it died"]
    assert hand_out.news() == []


def test_a_failed_part_goes_to_another_worker_where_there_is_one() -> None:
    hand_out = posted(Part("x", "p", 9.0), Part("y", "p", 8.0), Part("z", "p", 7.0))
    assert [hand_out.ask(worker, STAGE).part for worker in "ab"] == ["x", "y"]
    hand_out.failed("a", STAGE, "x", "too hot")
    assert hand_out.ask("a", STAGE).part == "z"
    hand_out.done("b", STAGE, "y")
    assert hand_out.ask("b", STAGE) == Answer("make", "x", again=True)


def test_a_worker_that_is_alone_tries_its_failed_part_again() -> None:
    hand_out = posted(Part("x", "p", 1.0))
    assert hand_out.ask("a", STAGE).part == "x"
    hand_out.failed("a", STAGE, "x", "too hot")
    assert hand_out.ask("a", STAGE) == Answer("make", "x", again=True)


def test_after_two_failures_a_part_is_absent_and_the_rest_goes_on() -> None:
    hand_out = posted(Part("x", "p", 9.0), Part("y", "p", 8.0))
    hand_out.ask("a", STAGE)
    hand_out.failed("a", STAGE, "x", "too hot")
    hand_out.ask("a", STAGE)
    hand_out.failed("a", STAGE, "x", "still too hot")
    assert hand_out.ask("a", STAGE) == Answer("make", "y")
    hand_out.done("a", STAGE, "y")
    assert hand_out.ask("a", STAGE) == LEAVE
    assert hand_out.absent() == {("runs/a", "x"): "still too hot"}
    assert hand_out.progress() == (1, 1, 2, 1)


def test_a_part_that_is_made_later_is_absent_no_more() -> None:
    hand_out = posted(Part("x", "p", 1.0))
    for _ in range(2):
        hand_out.ask("a", STAGE)
        hand_out.failed("a", STAGE, "x", "too hot")
    again = STAGE._replace(name="second")
    hand_out.ask("a", again)
    hand_out.post(again, [Part("x", "p", 1.0)])
    hand_out.ask("a", again)
    hand_out.done("a", again, "x")
    assert hand_out.absent() == {}


def test_when_the_one_that_looks_dies_another_looks() -> None:
    hand_out = HandOut()
    assert hand_out.ask("a", STAGE) == LOOK
    assert hand_out.died("a", "it died")
    assert hand_out.ask("b", STAGE) == LOOK


def test_a_worker_that_was_told_dead_and_speaks_up_changes_nothing() -> None:
    hand_out = posted(Part("x", "p", 1.0))
    hand_out.ask("a", STAGE)
    hand_out.gone("a", "no answer")
    assert hand_out.ask("b", STAGE).part == "x"
    hand_out.done("a", STAGE, "x")
    hand_out.failed("a", STAGE, "x", "too hot")
    assert hand_out.ask("c", STAGE) == WAIT  # b is at it
    hand_out.done("b", STAGE, "x")
    assert hand_out.ask("c", STAGE) == LEAVE


def test_a_part_that_somebody_else_has_claimed_is_looked_at_after_the_others() -> None:
    hand_out = posted(Part("x", "p", 9.0), Part("y", "p", 8.0))
    hand_out.ask("a", STAGE)
    hand_out.put_back("a", STAGE, "x")
    assert hand_out.ask("a", STAGE) == Answer("make", "y")
    assert hand_out.ask("b", STAGE) == Answer("make", "x", again=True)


def test_parts_of_two_runs_may_have_one_name() -> None:
    hand_out = posted(Part("x", "p", 1.0))
    other = STAGE._replace(run="runs/b")
    assert hand_out.ask("b", other) == LOOK
    hand_out.post(other, [Part("x", "p", 1.0)])
    assert hand_out.ask("a", STAGE).part == hand_out.ask("b", other).part == "x"
    hand_out.done("a", STAGE, "x")
    assert hand_out.ask("c", other) == WAIT


def test_a_part_that_killed_a_worker_is_not_given_to_the_next_one_of_its_slot_where_there_are_others() -> None:
    hand_out = HandOut()
    assert hand_out.ask("host.net-0.1", STAGE) == LOOK
    hand_out.post(STAGE, [Part("x", "p", 9.0), Part("y", "p", 8.0), Part("z", "p", 7.0)])
    assert [hand_out.ask(f"host.net-{slot}.1", STAGE).part for slot in range(2)] == ["x", "y"]
    hand_out.died("host.net-0.1", "it died")
    assert hand_out.ask("host.net-0.2", STAGE) == Answer("make", "z")
    hand_out.done("host.net-1.1", STAGE, "y")
    assert hand_out.ask("host.net-1.1", STAGE) == Answer("make", "x", again=True)


def test_a_slot_whose_workers_die_three_times_in_a_row_gets_no_more() -> None:
    hand_out = posted(*(Part(name, "p", 1.0) for name in "vwxyz"))
    goes_on = []
    for life in (1, 2):
        hand_out.ask(f"sick.{life}", STAGE)
        goes_on.append(hand_out.died(f"sick.{life}", "it died"))
    assert hand_out.ask("b.1", STAGE).again
    assert hand_out.died("b.1", "the part's fault")  # of another slot
    hand_out.ask("sick.3", STAGE)
    goes_on.append(hand_out.died("sick.3", "it died"))
    assert goes_on == [True, True, False]


def test_a_slot_that_made_a_part_between_gets_another_worker() -> None:
    hand_out = posted(*(Part(str(i), "p", 1.0) for i in range(9)))
    for life in range(1, 9, 2):
        hand_out.ask(f"a.{life}", STAGE)
        assert hand_out.died(f"a.{life}", "it died")
        hand_out.done(f"a.{life + 1}", STAGE, hand_out.ask(f"a.{life + 1}", STAGE).part)


def test_a_worker_that_dies_before_it_asks_counts() -> None:
    hand_out = HandOut()
    assert [hand_out.died(f"a.{life}", "no torch") for life in range(3)] == [True, True, False]


@pytest.mark.parametrize("workers", [2, 8, 64])
def test_a_sick_machine_is_left_out_and_makes_no_part_absent(workers: int) -> None:
    found = simulate(workers, 2500, sick=1)
    assert found.absent == 0
    assert found.given == 2500 + MOST_DEATHS  # each part once, and those again that it died over


def test_a_sick_machine_that_is_alone_ends_the_work() -> None:
    found = simulate(1, 2500, sick=1)
    assert found.given == MOST_DEATHS
    assert found.absent == 1  # which killed two of its workers


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 8, 64, 512])
def test_a_hundred_thousand_parts_take_no_more_than_a_tenth_above_the_ideal(workers: int) -> None:
    found = simulate(workers, 100_000)
    assert found.ratio <= 1.1
    assert (found.given, found.absent) == (100_000, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_part_takes_six_file_operations_and_three_an_image(tmp_path: Path) -> None:
    few, more = (file_operations(tmp_path / str(parts), 1, parts) for parts in (1, 2))
    larger = file_operations(tmp_path / "larger", 2, 1)
    assert larger["parts"] == few["parts"] < more["parts"]
    assert larger["all"] - few["all"] == 3 * few["parts"]
    assert more["all"] - few["all"] == (6 + 3) * (more["parts"] - few["parts"])


@pytest.mark.parametrize("workers", [1, 8, 64, 512])
@pytest.mark.parametrize("deaths", [0.0, 0.01])
def test_the_makespan_is_within_a_tenth_of_the_ideal(workers: int, deaths: float) -> None:
    found = simulate(workers, 2500, deaths=deaths)
    assert found.ratio <= 1.1
    assert found.given >= 2500
    assert found.absent <= (3 if deaths else 0)
