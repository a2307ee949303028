"""Guards that exclude each other are refused, in the settings and in the name of a system; others stand together."""

from __future__ import annotations

from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.errors import DuoError
from duo_unlearn.guards.stacking import check_stack
from duo_unlearn.system import system_of

from ..command import duo as duo_command

PAIRS = [
    ("negative-prompt", "inverted-negative", "negative"),
    ("safree", "ce-sdwv", "prompt"),
    ("pno", "safree", "prompt"),
]


@pytest.mark.parametrize(("first", "second", "side"), PAIRS)
def test_two_that_replace_the_same_are_refused(first: str, second: str, side: str, tmp_path: Path) -> None:
    said = f"{first} and {second} both replace the {side} of guidance"
    with pytest.raises(DuoError, match="exclude each other") as raised:
        system_of(f"{first}+spell+{second}", tmp_path, {}, "")
    assert said in str(raised.value)
    with pytest.raises(DuoError, match="exclude each other") as raised:
        duo.open_run(tmp_path / "run", settings={"guard": [first, second], "evaluate.judges": ["mini-judge-b"]})
    assert said in str(raised.value)


def test_others_stand_together(tmp_path: Path) -> None:
    check_stack(["negative-prompt", "sld", "safree", "spell", "output-filter"])
    assert len(system_of("sld+safree+prototypes", tmp_path, {}, "").guards) == 3
    # As the script of SAFREE's authors has it, with the phrases as the negative prompt.
    phrases = {"text": "sword, blade"}
    found = system_of("safree+negative-prompt", tmp_path, {"negative-prompt": phrases}, "").guards
    assert [(guard.name, guard.options.get("text")) for guard in found] == [
        ("safree", None), ("negative-prompt", "sword, blade"),
    ]  # fmt: skip


def test_the_command_line_says_it_in_three_lines(tmp_path: Path) -> None:
    done = duo_command("check", "--set", "guard=[safree,ce-sdwv]", "-o", str(tmp_path / "run"))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Error", "Got", "Try"], done.stderr
    assert "exclude each other" in done.stderr
    assert "name one of them" in done.stderr
