"""The day on which python-jose goes: one file of the package is replaced, and no answer changes."""

import ast
import asyncio
import filecmp
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastapi_cloudflare_access._verification import signature
from fastapi_cloudflare_access.errors import AccessError
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/concepts/leaving-python-jose.md"
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts/signatures.py"))
NAMES: list[str] = SCRIPT["names"]()

ANSWERS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_leaving_python_jose import answers
print(json.dumps([answers(), sorted({"jose", "ecdsa", "rsa"} & {*sys.modules})]))
"""


def answers() -> dict[str, str]:
    """The reason for which each forgery is refused, and `let in` for valid tokens."""
    from fastapi_cloudflare_access import CloudflareAccess

    team = FakeTeam("acme")
    access = CloudflareAccess(team_domain=team.team_domain, audience=team.audience)

    async def answer(token: str) -> str:
        try:
            await access.verify(token)
        except AccessError as refused:
            return refused.reason
        return "let in"

    async def ask() -> dict[str, str]:
        tokens = {name: team.forge(name) for name in FORGERIES}
        tokens |= {"user": team.user_token("ada@example.com"), "service": team.service_token("bot")}
        return {name: await answer(token) for name, token in tokens.items()}

    with team.patch(access):
        access.keys.seed(team.certs_body(), fetched_at=team.clock.now())
        return asyncio.run(ask())


def test_there_are_three_replacements_and_the_page_names_each() -> None:
    assert NAMES == ["cryptography", "joserfc", "pyjwt"]
    assert [name for name in NAMES if f"by_{name}.py" not in PAGE.read_text()] == []


@pytest.mark.parametrize("name", NAMES)
def test_without_python_jose_and_with_one_file_replaced_every_answer_is_the_same(name: str, tmp_path: Path) -> None:
    copy: Path = SCRIPT["copy_package"](name, tmp_path)
    command = [sys.executable, "-W", "ignore", "-c", ANSWERS, str(Path(__file__).parent)]
    ended = subprocess.run(
        command, env=SCRIPT["environment"](name, copy), capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    theirs, loaded = json.loads(ended.stdout)
    assert loaded == []
    assert theirs == answers()
    assert {theirs["user"], theirs["service"]} == {"let in"}
    assert sum(reason == "let in" for reason in theirs.values()) == 2


@pytest.mark.parametrize("name", NAMES)
def test_one_file_of_the_package_changes_and_no_other(name: str, tmp_path: Path) -> None:
    copy: Path = SCRIPT["copy_package"](name, tmp_path)
    files = sorted(
        path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*") if path.suffix not in {".pyc", ""}
    )
    _, changed, missing = filecmp.cmpfiles(ROOT / "src", copy, map(str, files), shallow=False)
    assert (changed, missing) == ([str(SCRIPT["REPLACED"])], [])


@pytest.mark.parametrize("name", NAMES)
def test_a_replacement_has_the_public_names_of_the_module_that_it_replaces(name: str) -> None:
    replacement = SCRIPT["REPLACEMENTS"] / f"by_{name}.py"
    assert public_names(replacement) == public_names(Path(signature.__file__)) == ["ALGORITHM", "RS256Key"]


def public_names(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return sorted(name for name in names if not name.startswith("_"))


def test_an_unknown_replacement_is_refused() -> None:
    command = [sys.executable, str(ROOT / "scripts/signatures.py"), "rot13"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (
        2,
        "scripts/signatures.py knows cryptography, joserfc, pyjwt and --all, not rot13\n",
    )
