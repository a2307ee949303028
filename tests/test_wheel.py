"""What is in a wheel: the whole package with its data, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = (
    "concepts/sword.yaml", "look/static/look.js", "look/templates/pair.html.j2", "mini/weights/model/model_index.json",
    "mini/weights/model/unet/diffusion_pytorch_model.safetensors", "py.typed", "report/page.html.j2",
)  # fmt: skip


@pytest.mark.slow
def test_a_wheel_has_the_whole_package_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    package = {name for name in names if name.startswith("duo_unlearn/")}
    files = (path for path in (ROOT / "src" / "duo_unlearn").rglob("*") if path.is_file())
    assert package == {p.relative_to(ROOT / "src").as_posix() for p in files if "__pycache__" not in p.parts}
    assert {f"duo_unlearn/{name}" for name in DATA} <= package
    assert all(".dist-info/" in name for name in names - package)
