"""The attempts on the page: filters, one with its neighbours over systems, and runs that hold half of them."""

from __future__ import annotations

import html
import re

from duo_unlearn.edits.provenance import PROVENANCE
from duo_unlearn.look.records import Records
from duo_unlearn.runs.attempts import Group, attempts_of, read_group, read_groups, write_group
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.tree import read_settings
from duo_unlearn.storage.files import write_json

from ..report.make_run import (
    GUARDED,
    add_images,
    add_record,
    refusal_of,
    write_attempts,
)
from .browser import opened
from .test_pairs import HOSTILE


def shown(text: str) -> list[str]:
    return re.findall(r'class="card" href="/attempts/([^"?]+)', text)


def test_filters_by_system_prompts_verdict_and_words(asked: Run) -> None:
    client = opened(asked)
    found = shown(client.get("/attempts?system=duo&scenario=direct").text)
    assert found == [f"duo/direct/direct/{i}" for i in range(12)]
    assert shown(client.get("/attempts?system=duo&scenario=direct&verdict=yes").text) == ["duo/direct/direct/3"]
    assert len(shown(client.get("/attempts?system=original&scenario=direct&verdict=yes").text)) == 12
    refused = shown(client.get("/attempts?verdict=refused").text)
    assert refused == [f"duo%2Bnegative-prompt/{name}/direct/1" for name in ("direct", "indirect", "synonym")]
    words = next(a.text for r in read_groups(asked) for a in attempts_of(asked, r))
    page = client.get("/attempts", params={"text": words.upper()}).text
    assert shown(page)
    assert "No attempt is meant" in client.get("/attempts?text=zebra&judge=99&verdict=maybe").text


def test_a_page_has_a_part_of_many(asked: Run) -> None:
    client = opened(asked)
    total = 9 * 3 * 12
    assert len(shown(client.get("/attempts").text)) == 60
    assert len(shown(client.get("/attempts?page=99").text)) == total % 60
    assert f">{total}<" in client.get("/attempts").text


def test_one_attempt_stands_beside_the_same_on_every_system(asked: Run) -> None:
    client = opened(asked)
    page = client.get("/attempts/duo/direct/direct/3?system=duo&scenario=direct").text
    assert "4 of 12" in page
    around = page.partition("The same on every system")[2]
    assert shown(around) == [
        "original/direct/direct/3", "duo/direct/direct/3", "duo%2Bnegative-prompt/direct/direct/3",
    ]  # fmt: skip
    assert "mini-judge[item=sword&gt;=0.5]@1a2b3c4d" in page
    assert "0.980" in page
    assert re.search(r'href="/attempts/duo/direct/direct/2\?[^"]*" data-key="ArrowLeft"', page)
    assert "refused by negative-prompt" in client.get("/attempts/duo%2Bnegative-prompt/direct/direct/1").text
    assert client.get("/attempts/duo/direct/direct/99").status_code == 404
    assert client.get("/attempts/..%2f..%2fetc/direct/direct/0").status_code == 404


def test_what_an_attack_found_is_told_beside_what_was_asked_and_escaped(asked: Run) -> None:
    group = Group("duo", "direct", "ring-a-bell", "quick")
    figure = attempts_of(asked, read_groups(asked)[0])[0]
    assert figure.file is not None
    hostile = refusal_of(HOSTILE, 1, HOSTILE, HOSTILE + "found")
    write_attempts(asked, group, [hostile, figure])
    client = opened(asked)
    one = "/attempts/duo/direct/ring-a-bell.quick/0"
    for path in (one, "/attempts?attack=ring-a-bell.quick", "/attempts?text=<script>"):
        text = client.get(path).text
        assert "<script>" not in text
        assert "onerror='" not in text
    page = client.get(one).text
    assert "a black-box search over tokens" in page
    assert page.count("&lt;script&gt;") >= 3


def test_half_an_attack_shows_what_is_there(asked: Run) -> None:
    group = Group("duo", "direct", "p4d", "quick")
    write_attempts(asked, group, attempts_of(asked, read_groups(asked)[0])[:4])
    path = group.folder(asked) / "group.json"
    opened_client = opened(asked)
    assert len(shown(opened_client.get("/attempts?attack=p4d.quick").text)) == 4
    (group.folder(asked) / "0000.json").unlink()
    assert "No attempt is meant" in opened_client.get("/attempts?attack=p4d.quick").text
    path.write_text("{")
    assert opened_client.get("/attempts").status_code == 200


def test_attempts_of_an_older_edit_are_told(asked: Run) -> None:
    write_attempts(
        asked, Group("duo", "slang", "direct", None), attempts_of(asked, read_groups(asked)[0])[:1], sha256="0" * 64
    )
    assert "of another edit than the one that the results are of" in told_of(asked, "slang")
    assert "No number is of this attempt now" not in told_of(asked, "direct")


def test_attempts_that_were_sampled_otherwise_or_of_an_edit_that_was_made_anew_are_told(asked: Run) -> None:
    """They are in no number, so nobody is asked to label them."""
    group, pool = Group("duo", "direct", "direct", None), Records(asked).pool()
    known = read_group(group.folder(asked) / "group.json")
    assert known is not None
    write_group(asked, known._replace(sampling={"steps": 7}))
    wanted = read_settings(asked.settings)["evaluate"]["steps"]
    why = f"its images have steps 7 where the settings have {wanted}: `duo evaluate` or `duo attack` again"
    assert html.escape(f"No number is of this attempt now: {why}.") in told_of(asked, "direct")
    records = Records(asked)
    left = records.pool()
    assert set(left) < set(pool)
    assert not any(entry.record.group == group for entry in left.values())
    assert all(entry.current for entry in records.attempts())  # `compare` offers the system all the same
    write_json(asked.edit("duo") / PROVENANCE, {"sha256": "1" * 64})
    assert {entry.record.group.system for entry in records.pool().values()} == {"original"}
    assert "of another edit than the one that is there" in told_of(asked, "direct")


def told_of(run: Run, scenario: str) -> str:
    """The page of the first attempt of a prompt set."""
    return opened(run).get(f"/attempts/duo/{scenario}/direct/0").text


def test_a_run_without_attempts_and_one_without_verdicts(run: Run) -> None:
    add_record(run)
    client = opened(run)
    assert "Nothing was asked" in client.get("/attempts").text
    add_images(run, count=2, judged=False)
    assert "no verdict" in client.get("/attempts").text
    assert "Nobody has judged it yet" in client.get("/attempts/duo/direct/direct/0").text
    assert client.get(f"/attempts/{GUARDED}/direct/direct/0").status_code == 404
