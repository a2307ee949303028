"""What a release says of itself: one version everywhere, and a citation that can be read."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

import duo_unlearn
from duo_unlearn.cli.main import main

ROOT = Path(__file__).parents[1]


def test_the_version_is_that_of_the_changelog_and_of_the_citation() -> None:
    released = re.findall(r"^## \[(\d[^]]*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert released[0] == (duo_unlearn.__version__, str(cited["date-released"]))
    assert cited["version"] == duo_unlearn.__version__


def test_the_paper_is_cited_with_its_authors() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    paper = cited["preferred-citation"]
    assert cited["references"] == [paper]
    assert paper["url"].endswith("2407.21035")
    assert (len(paper["authors"]), paper["authors"][0]["family-names"]) == (8, "Park")


def test_duo_says_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["duo", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"duo_unlearn {duo_unlearn.__version__}\n"
