"""The pictures of the documentation are those that the script draws, and it draws what the code declares."""

import json
import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts/pictures.py"
ASSETS = ROOT / "docs/assets"
PACKAGE = ROOT / "src/fastapi_cloudflare_access"
DRAWN: dict[str, Any] = runpy.run_path(str(ROOT / "benchmarks/drawn.py"))
HELD = {
    "request-way-*.svg": "drawn anew by `test_no_picture_is_stale`",
    "key-rotation-*.svg": "drawn anew by `test_no_picture_is_stale`",
    "layers-*.svg": "drawn anew by `test_no_picture_is_stale`",
    "unknown-keys.svg": "digests of the code and of the picture, in this module",
    "fleet.svg": "digests of the code and of the picture, in this module",
    "performance-*.svg": "a digest of the results, in tests/test_benchmarks.py",
    "cf-access-*.svg": "what the commands write, in tests/cli/test_guide.py",
    "local-*.png": "digests of the templates, in tests/test_site.py",
}
"""What notices that a picture is stale."""


def test_no_picture_is_stale() -> None:
    checked = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_of_the_layers_has_every_module(scheme: str) -> None:
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    shown = re.findall(r"<tspan[^>]*>([\w.]+)</tspan>", (ASSETS / f"layers-{scheme}.svg").read_text())
    assert sorted(shown) == sorted(modules - {"__init__"})


@pytest.mark.parametrize("name", ["fleet.svg", "unknown-keys.svg"])
def test_the_picture_of_a_simulation_was_drawn_from_the_present_code(name: str) -> None:
    """If this fails, run `python benchmarks/simulate_….py --write docs`, and look at the picture and the table."""
    recorded = json.loads(DRAWN["RECORD"].read_text())
    assert recorded.keys() == DRAWN["SOURCES"].keys()
    picture = sha256((ASSETS / name).read_bytes()).hexdigest()
    assert recorded[name] == {"code": DRAWN["code"](name), "picture": picture}


def test_only_what_the_code_does_makes_the_picture_of_a_simulation_stale() -> None:
    plain, commented = "def f():\n    return 1\n", 'def f():\n    """Return it."""\n    return 1  # one\n'
    assert DRAWN["meaning"](plain) == DRAWN["meaning"](commented) != DRAWN["meaning"]("def f():\n    return 2\n")


def test_every_picture_is_held_by_a_test() -> None:
    """A new picture needs a test that notices when it is stale, and its pattern here."""
    pictures = {path.name for path in ASSETS.iterdir() if path.suffix in {".svg", ".png"}}
    assert {name for name in pictures if sum(fnmatch(name, pattern) for pattern in HELD) != 1} == set()
