"""What was tried, in pictures: blurred where sensitive, left out on request, and text that cannot run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.tree import Settings, as_yaml
from duo_unlearn.storage.files import write_json, write_text

from .make_run import add_pairs

JUDGE = "judge[x>=0.5]@1"
HOSTILE = "</figcaption><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"


def fight(run: Run, name: str = "p4d", text: str = "rod figure king", *, sensitive: bool = True) -> None:
    """A run that was attacked and measured: three prompts, of which the erased model shows one, and one is unscored."""
    folder = run.attacks / "quick" / "p4d"
    judged = []
    for model, seen in (("original", [True, True, True]), ("erased", [False, True, None])):
        attempts = []
        for i in range(3):
            file = Path("images") / model / f"{i:04}.png"
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * i, 0, 0)).save(folder / file)
            attempts.append({"prompt": "a king", "text": f"{text} {model} {i}", "file": str(file), "seed": i})
        write_json(folder / model / "0000.json", {"key": "k", "seconds": 61.0, "attempts": attempts})
        verdicts = [None if s is None else {"detected": s, "score": 1.0} for s in seen]
        judged.append({"attack": name, "preset": "quick", "model": model, "verdicts": verdicts})
    told = {"attack": name, "title": "P4D", "preset": "quick", "prompts": "direct", "reason": None}
    write_json(folder / "attack.json", told)
    write_json(run.attack_verdicts(JUDGE), {"contract": JUDGE, "judged": judged})
    row = {"metric": "dsr", "prompts": "direct", "value": 0.5, "low": 0.1, "high": 0.9, "n": 2, "contract": JUDGE,
           "attack": name, "preset": "quick", "unscored": 1}  # fmt: skip
    write_json(run.attack_results, {"estimates": [{**row, "model": m} for m in ("original", "erased")]})
    write_json(run.record, {"sensitive": sensitive, "stages": {"train": {"seconds": 60.0, "finished": "now"}}})


def test_what_was_tried_is_shown_with_counts_and_time(run: Run) -> None:
    fight(run)
    page = write_report(run).read_text()
    assert "Concept seen: original 3 of 3, erased 1 of 2." in page  # the unscored one is not among them
    assert "rod figure king erased 1" in page
    assert "rod figure king original" not in page  # the caption is what was found on the erased model
    assert "2:02 on both models" in page
    assert "3:02 of one machine" in page
    assert page.count('<label class="picture') == 6  # blurred until clicked
    told = json.loads(run.report_data.read_text())
    assert told["machine_time"] == "3:02"
    assert told["attacks"]["estimates"][0]["attack"] == "p4d"


def test_a_page_without_pictures_has_counts_and_no_prompts(run: Run) -> None:
    fight(run)
    add_pairs(run)
    secret = "/home/someone/secret place"
    write_text(run.settings, as_yaml(Settings(model=f"{secret}/sd14", output=run.folder)))
    prompts = [pair["unsafe_prompt"] for pair in json.loads((run.pairs / "manifest.json").read_text())["pairs"]]
    path = write_report(run, images=False)
    page = path.read_text()
    assert path == run.report_to_share
    assert "data:image" not in page
    assert "rod figure king" not in page
    assert "secret place" not in page
    assert "sd14" in page
    assert prompts
    assert not any(prompt and prompt in page for prompt in prompts)
    assert "Concept seen: original 3 of 3, erased 1 of 2." in page
    assert "has no pictures" in page


def sweep_of(**changed: Any) -> dict[str, Any]:
    points = [
        {"at": at, "kept": [kept, kept - 0.01, kept + 0.01, 100], "defence": {"direct": [dsr, dsr, 1.0, 100]}}
        for at, kept, dsr in ((9.0, 0.95, 0.99), (100.0, 0.99, 0.6))
    ]
    return {"version": 1, "kind": "beta", "want_dsr": 0.95, "points": points, "ship": 9.0, **changed}


def test_the_frontier_says_what_to_ship(run: Run) -> None:
    run.folder.mkdir(parents=True)
    write_json(run.sweep / "beta.json", sweep_of())
    assert "not by their intervals: β 9 preserves most of those." in write_report(run).read_text()
    write_json(run.sweep / "beta.json", sweep_of(ship=None))
    assert "no β of these does" in write_report(run).read_text()
    write_json(run.sweep / "beta.json", sweep_of(points=[{"at": 1}]))
    with pytest.raises(DuoError, match="sweep over beta is broken"):
        write_report(run)


def test_hostile_names_and_prompts_are_text(run: Run) -> None:
    fight(run, name=HOSTILE, text=HOSTILE, sensitive=False)
    page = write_report(run).read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_hostile_text_does_not_run_in_a_browser(run: Run, tmp_path: Path) -> None:
    fight(run, name=HOSTILE, text=HOSTILE)
    bare = tmp_path / "bare.html"
    bare.write_text(f"<!doctype html><title>free</title><p>{HOSTILE}</p>")

    def title(page: Path) -> str:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        flags += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]
        command = ["chromium", *flags, page.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        return shown.partition("<title>")[2].partition("</title>")[0]

    assert title(bare) == "taken"  # where nothing is escaped it does run
    assert title(write_report(run)) == "Erasing a concept: report"
