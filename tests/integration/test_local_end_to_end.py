"""The examples of end-to-end tests pass, and the guide shows them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.browser import CHROMIUM
from support.npm import install

NODE = shutil.which("node")
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_in_javascript_passes(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert request.config.cache is not None
    installed = install("playwright@1", request.config.cache.mkdir("playwright"))
    if isinstance(installed, str) or CHROMIUM is None:
        pytest.skip("needs Node with Playwright, and chromium")
    for name in ("end_to_end.mjs", "quickstart_app.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(installed / "node_modules")
    command = tmp_path / "command"
    command.write_text(
        f"#!{sys.executable}\nfrom fastapi_cloudflare_access.cli import main\nimport sys\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    ran = subprocess.run(
        [str(NODE), "end_to_end.mjs"],
        cwd=tmp_path,
        env={**os.environ, "CF_ACCESS_COMMAND": str(command), "CHROMIUM": CHROMIUM},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (ran.stdout, ran.returncode) == ("passed\n", 0), ran.stderr


def test_the_guide_shows_the_tests_of_the_example() -> None:
    shown = (EXAMPLES.parent / "docs/guides/end-to-end.md").read_text(encoding="utf-8")
    assert f"\n{(EXAMPLES / 'test_end_to_end.py').read_text(encoding='utf-8')}```" in shown
