"""Pairs without prompts: all that must be set is told at once, before anything is made, in words to be pasted."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import duo_unlearn as duo
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.robust.settings import RobustSettings
from duo_unlearn.erasers.robust.wordless import for_wordless, without_own
from duo_unlearn.errors import DuoError
from duo_unlearn.records import Pair
from duo_unlearn.settings.check import find_faults
from duo_unlearn.settings.tree import merge, parse_assignments

from ..drawn_pairs import draw_pairs

ROBUST = {"recipe": "robust", "erasers": {"robust-duo": {"rounds": 2}}}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    draw_pairs(folder, 3)
    return folder


def with_prompts(folder: Path, count: int) -> Path:
    """A manifest of the folder's three pairs, of which the first few have prompts."""
    said = {"unsafe_prompt": "a knight holding a sword", "safe_prompt": "a knight with empty hands"}
    entries = [{"unsafe": f"unsafe/{i}.png", "safe": f"safe/{i}.png", **(said if i < count else {})} for i in range(3)]
    path = folder / f"{count}.json"
    path.write_text(json.dumps({"pairs": entries}))
    return path


def pasted(fault: DuoError) -> dict[str, Any]:
    """What the hint's words set."""
    words = shlex.split(str(fault.hint).partition("behind the command: ")[2])
    return parse_assignments(word for word in words if word != "--set")


def test_one_error_has_all_that_must_be_set_and_its_words_work(tmp_path: Path, drawn: Path) -> None:
    given = {**ROBUST, "output": str(tmp_path / "run"), "pairs": {"folder": str(drawn)}}
    (fault,) = find_faults(given).faults
    assert (fault.problem, fault.got) == (
        "uce+robust-duo would read prompts that the pairs have not", "none or half for 3 of 3 pairs, 0 first",
    )  # fmt: skip
    assert len(str(fault).splitlines()) == 3
    changes = pasted(fault)
    robust = changes["erasers"]["robust-duo"]
    assert (changes["floor"], robust["search"], robust["rounds"]) == (None, {"imitate": 0}, 1)
    assert find_faults(merge(given, changes)).faults == []
    for part in ("floor", "erasers"):  # none of them alone is enough
        assert len(find_faults(merge(given, {part: changes[part]})).faults) == 1
    with pytest.raises(DuoError, match="would read prompts"):
        duo.erase(duo.open_run(tmp_path / "run", settings=given, quiet=True))
    assert not (tmp_path / "run" / "pairs").exists()


def test_an_edit_that_is_made_of_pairs_that_lie_there_is_told_too(tmp_path: Path, drawn: Path) -> None:
    folder = {"pairs": {"folder": str(drawn), "trust": True}}
    duo.make_pairs(duo.open_run(tmp_path / "run", settings=folder, quiet=True))
    for later in ({"eraser": "robust-duo"}, ROBUST):
        with pytest.raises(DuoError, match="would read prompts"):
            duo.train(duo.open_run(tmp_path / "run", settings=later, quiet=True))
    assert find_faults({"output": str(tmp_path / "run")}).faults == []  # DUO itself reads none


@pytest.mark.parametrize("eraser", [name for name in ERASERS.names() if "prompts" in ERASERS.get(name).reads])
def test_an_eraser_that_reads_prompts_is_told_before_pairs_are_imported(
    tmp_path: Path, drawn: Path, eraser: str
) -> None:
    given = {"eraser": eraser, "output": str(tmp_path / "run"), "pairs": {"folder": str(drawn)}}
    (fault,) = find_faults(given).faults
    assert fault.problem == f"{eraser} would read prompts that the pairs have not"
    changes = pasted(fault) if "behind the command" in str(fault.hint) else {"eraser": "duo"}
    assert find_faults(merge(given, changes)).faults == []
    with pytest.raises(DuoError, match="would read prompts"):
        duo.erase(duo.open_run(tmp_path / "run", settings=given, quiet=True))
    assert not (tmp_path / "run" / "pairs").exists()


def test_duo_with_captions_is_told_too(tmp_path: Path, drawn: Path) -> None:
    pairs = {"folder": str(drawn)}
    (fault,) = find_faults({"output": str(tmp_path / "run"), "pairs": pairs, "train": {"captions": "unsafe"}}).faults
    assert pasted(fault) == {"train": {"captions": "none"}}


def test_pairs_with_prompts_need_nothing_and_some_need_less(tmp_path: Path, drawn: Path) -> None:
    def faults(count: int) -> list[DuoError]:
        pairs = {"folder": str(with_prompts(drawn, count))}
        return find_faults({**ROBUST, "output": str(tmp_path / "run"), "pairs": pairs}).faults

    assert faults(3) == []
    (fault,) = faults(1)  # the floor and the rounds have one to read; each pair must have its own
    assert set(pasted(fault)) == {"erasers"}
    assert set(pasted(fault)["erasers"]["robust-duo"]) == {"captions", "search"}


def test_the_other_shares_take_the_room() -> None:
    pairs = [Pair("a", "", "", "", ""), Pair("b", "", "", "", "", unsafe_prompt="a sword")]
    for shares, wanted in (
        (
            {"unsafe": 0.4, "empty": 0.1, "random": 0.1, "search": 0.4},
            {"empty": 0.167, "random": 0.167, "search": 0.666},
        ),
        ({"unsafe": 0.5, "empty": 0.2, "random": 0.3, "search": 0}, {"empty": 0.4, "random": 0.6}),
        ({"unsafe": 0.5, "own": 0.5, "empty": 0, "random": 0, "search": 0}, {"empty": 0.5, "random": 0.5}),
    ):
        options = RobustSettings.model_validate({"captions": shares})
        given = without_own(options.captions.shares())
        assert given == {**dict.fromkeys(shares, 0), "own": 0, "bank": 0, "free": 0, **wanted}
        changed = RobustSettings.model_validate({"captions": {**shares, **given}})
        assert changed.fault() is None
        assert for_wordless(options, pairs)["captions"] == given
        assert "captions" not in for_wordless(changed, pairs)
    words = {"captions": {"unsafe": 0, "empty": 0.3, "random": 0.3}, "search": {"imitate": 0}}
    assert for_wordless(RobustSettings.model_validate(words), pairs) == {}
