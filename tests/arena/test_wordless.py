"""An attack that learns the concept from words, on a run whose pairs have none."""

from __future__ import annotations

import json
from pathlib import Path

import duo_unlearn as duo

from .small_run import make_run, reopen

SMALL = {"ring-a-bell": {"population": 8, "generations": 2, "tokens": 4}}


def test_a_search_for_the_concepts_words_needs_pairs_that_have_them(tmp_path: Path) -> None:
    """Without words there is no direction to search in, and the numbers would be of the prompts as they are."""
    run = make_run(tmp_path)
    path = run.run.pairs / "manifest.json"
    content = json.loads(path.read_text())
    for pair in content["pairs"]:
        pair["unsafe_prompt"] = None
    path.write_text(json.dumps(content))
    states, results = duo.attack(reopen(run.run.folder), ["ring-a-bell", "image-to-image"], prompts=3, budgets=SMALL)
    reasons = {(state.group.attack, state.reason) for state in states}
    reason = "it learns the concept from the pairs' prompts, and the run's pairs have none"
    assert reasons == {("ring-a-bell", reason), ("image-to-image", None)}
    assert ("ring-a-bell", "duo") not in {(e.attack, e.system) for e in results.estimates if e.metric == "dsr"}
    assert {a["reason"] for a in results.absent if a["attack"] == "ring-a-bell"} == {reason}
