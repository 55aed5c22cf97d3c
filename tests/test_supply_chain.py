"""Why advisories on python-jose and what it depends on do not reach an app, each claim held by a test."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
VEX = ROOT / "docs/assets/vex.json"
NEVER = ("ecdsa", "rsa", "pyasn1", "jose.jwe", "jose.backends.rsa_backend", "jose.backends.ecdsa_backend")
USE = """
import sys
from fastapi_cloudflare_access import CloudflareAccess
from fastapi_cloudflare_access.testing import FakeTeam, MemoryFetch
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

team = FakeTeam("acme")
access = CloudflareAccess(team_domain="acme", audience=team.audience, fetch=MemoryFetch(team), clock=team.clock)
app = FastAPI(lifespan=access.lifespan)

@app.get("/", dependencies=[Depends(access)])
async def root() -> None: ...

with TestClient(app) as client:
    for token in (team.user_token("ada@example.com"), team.service_token("bot")):
        assert client.get("/", headers=team.headers(token)).status_code == 200
    for name in ("alg_none", "hs256_confusion", "five_segments", "es256", "crit", "wrong_key"):
        assert client.get("/", headers=team.headers(team.forge(name))).status_code == 401
"""
BLOCK = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r} or name.startswith({missing!r} + "."):
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Missing())
"""


def run(code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "ignore", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Every module that a process has loaded which let tokens in and refused some."""
    ended = run(USE + "\nprint(*sys.modules)")
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


@pytest.mark.conformance(27)
@pytest.mark.parametrize("module", NEVER)
def test_a_module_with_advisories_is_never_imported(module: str, loaded: set[str]) -> None:
    assert "fastapi_cloudflare_access._verification.signature" in loaded
    assert module not in loaded


@pytest.mark.python_jose
@pytest.mark.conformance(27)
@pytest.mark.parametrize("missing", ["cryptography", "cryptography.hazmat.primitives.keywrap"])
def test_without_the_cryptography_backend_the_import_fails(missing: str) -> None:
    ended = run(BLOCK.format(missing=missing) + "import fastapi_cloudflare_access")
    assert ended.returncode == 1
    assert "Error" in ended.stderr.splitlines()[-1]


@pytest.mark.python_jose
@pytest.mark.conformance(27)
def test_another_backend_in_its_place_is_refused_at_import() -> None:
    replace = "from jose import jwk\njwk.get_key = lambda algorithm: object\n"
    ended = run(replace + "import fastapi_cloudflare_access")
    assert (ended.returncode, "not using pyca/cryptography" in ended.stderr) == (1, True)


@pytest.mark.python_jose
@pytest.mark.conformance(8)
def test_the_verifier_of_another_is_not_used_though_registered_with_python_jose() -> None:
    """python-jose allows any code to replace the class for an algorithm, in the whole process."""
    register = """
from jose import jwk
from jose.backends.base import Key
class Yes(Key):
    def __init__(self, key, algorithm): ...
    def verify(self, message, signature): return True
import fastapi_cloudflare_access
jwk.register_key("RS256", Yes)
"""
    assert run(register + USE).returncode == 0


@pytest.mark.sources
def test_python_jose_is_imported_by_one_module() -> None:
    sources = [*(ROOT / "src").rglob("*.py")]
    using = [path.name for path in sources if re.search(r"^\s*(?:from|import) jose\b", path.read_text(), re.MULTILINE)]
    assert using == ["signature.py"]


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(VEX.read_text())["statements"]
    return found


def test_the_vex_document_says_of_each_advisory_why_it_does_not_reach_an_app() -> None:
    document = json.loads(VEX.read_text())
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    for statement in statements():
        assert statement["status"] == "not_affected"
        assert statement["justification"] in {"vulnerable_code_not_in_execute_path", "vulnerable_code_not_present"}
        assert statement["vulnerability"]["name"]


@pytest.mark.parametrize(
    ("package", "findings"),
    [
        ("python-jose", {"CVE-2016-7036", "CVE-2024-33663", "CVE-2024-33664", "CVE-2025-61152", "CVE-2026-85394"}),
        ("ecdsa", {"CVE-2024-23342", "GHSA-wj6h-64fc-37mp", "PYSEC-2026-1325", "CVE-2026-33936"}),
        ("rsa", {"CVE-2020-25658", "github/advisory-database#7132"}),
        ("pyasn1", {"CVE-2026-23490", "CVE-2026-30922", "CVE-2026-59885"}),
    ],
)
def test_every_finding_on_a_package_is_answered(package: str, findings: set[str]) -> None:
    answered = {
        statement["vulnerability"]["name"]
        for statement in statements()
        for product in statement["products"]
        for part in product["subcomponents"]
        if part["@id"].partition("@")[0] == f"pkg:pypi/{package}"
    }
    assert answered == findings


def test_each_statement_of_the_vex_document_names_the_test_that_holds_it() -> None:
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for statement in statements():
        named = re.findall(r"test_\w+", statement["impact_statement"])
        assert named, statement["vulnerability"]
        assert [name for name in named if f"def {name}(" not in written] == []


def test_the_supply_chain_page_lists_every_advisory_of_the_vex_document() -> None:
    page = (ROOT / "docs/concepts/supply-chain.md").read_text()
    assert [s["vulnerability"]["name"] for s in statements() if s["vulnerability"]["name"] not in page] == []


def test_ci_writes_the_bill_of_materials_which_names_every_package_with_findings() -> None:
    assert "\nscripts/sbom\n" in (ROOT / ".ci/run").read_text()
    script = (ROOT / "scripts/sbom").read_text()
    found = {part["@id"] for s in statements() for product in s["products"] for part in product["subcomponents"]}
    names = {part.removeprefix("pkg:pypi/").partition("@")[0] for part in found}
    assert [name for name in sorted(names) if f'"{name}"' not in script] == []
