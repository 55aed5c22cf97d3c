"""The pictures of the documentation are those that the script draws, and it draws what the code declares."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/pictures.py"
ASSETS = ROOT / "docs/assets"
PACKAGE = ROOT / "src/fastapi_cloudflare_access"


def test_no_picture_is_stale() -> None:
    checked = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_of_the_layers_has_every_module(scheme: str) -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    shown = re.findall(r"<tspan[^>]*>([\w.]+)</tspan>", (ASSETS / f"layers-{scheme}.svg").read_text())
    assert sorted(shown) == sorted(modules - {"__init__"})
