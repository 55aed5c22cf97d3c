"""The wheel and the sdist: what they contain, what they say of themselves, and that a second build is the same."""

import json
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from support.once import once

pytestmark = pytest.mark.sources

ROOT = Path(__file__).parents[2]
CONFIGURATION: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT: dict[str, Any] = CONFIGURATION["project"]
OWNER = "OWNER"
INCLUDED: list[str] = CONFIGURATION["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
GENERATED = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info", ".hypothesis", ".cache")
EPOCH = "1764000000"
NAME = "fastapi_cloudflare_access-0.1.0"


class Built(NamedTuple):
    """The files of a build."""

    wheel: Path
    sdist: Path


def build(folder: Path, **environment: str) -> Built:
    """Build in this folder, with the hatchling that is installed."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "dist")]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return found(folder)


def found(folder: Path) -> Built:
    """Return the files of the build in this folder."""
    (wheel,), (sdist,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return Built(wheel, sdist)


def copy(folder: Path) -> Path:
    """Copy what belongs to the project, as a checkout has it."""
    for name in [*INCLUDED, "pyproject.toml", "LICENSE", ".gitignore"]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=GENERATED)
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project, with its wheel and its sdist in `dist`."""
    return once(tmp_path_factory, "checkout", lambda folder: build(copy(folder), SOURCE_DATE_EPOCH=EPOCH))


@pytest.fixture(scope="module")
def built(checkout: Path) -> Built:
    return found(checkout)


@pytest.fixture
def unpacked(built: Built, tmp_path: Path) -> Path:
    """Return the folder of the unpacked sdist."""
    with tarfile.open(built.sdist) as packed:
        if hasattr(tarfile, "data_filter"):  # 3.11.4 and later
            packed.extraction_filter = tarfile.data_filter
        packed.extractall(tmp_path)  # noqa: S202 - built above
    return tmp_path / NAME


def metadata(wheel: Path) -> "Message[str, str]":
    with ZipFile(wheel) as packed:
        return message_from_bytes(packed.read(f"{NAME}.dist-info/METADATA"))


def digests(built: Built) -> list[str]:
    return [sha256(path.read_bytes()).hexdigest() for path in built]


def test_a_build_of_the_sdist_in_another_folder_is_the_same_byte_for_byte(built: Built, unpacked: Path) -> None:
    for path in unpacked.rglob("*.py"):
        path.chmod(0o600)  # as under another umask
        path.touch()
    assert digests(build(unpacked, SOURCE_DATE_EPOCH=EPOCH, TZ="Asia/Kathmandu", LC_ALL="C")) == digests(built)


def test_the_wheel_has_the_package_the_plugin_and_its_metadata_alone(built: Built) -> None:
    with ZipFile(built.wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        others = {name.partition("/")[2] for name in packed.namelist() if ".dist-info/" in name}
    package = {str(path.relative_to(ROOT / "src")) for path in files(ROOT / "src")}
    assert names == package
    assert {"fastapi_cloudflare_access/py.typed", "pytest_fastapi_cloudflare_access.py"} <= names
    assert others == {
        "METADATA",
        "RECORD",
        "WHEEL",
        "entry_points.txt",
        "licenses/LICENSE",
        "sboms/fastapi-cloudflare-access.cdx.json",
    }


def files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] != "dist" and "__pycache__" not in parts and ".egg-info" not in str(path):
            yield path


def test_the_sdist_has_what_is_needed_to_build_test_and_read(unpacked: Path, checkout: Path) -> None:
    packed = {str(path.relative_to(unpacked)) for path in files(unpacked)}
    kept = {str(path.relative_to(checkout)) for path in files(checkout)}
    assert packed ^ kept == {"PKG-INFO"}
    pages = {path.name for path in ROOT.glob("*.md")}
    assert pages <= packed
    for name in (
        "README.md",
        "RELEASING.md",
        "LICENSE",
        "tests/conftest.py",
        "docs/index.md",
        "examples/quickstart_app.py",
    ):
        assert name in packed


def test_the_metadata_names_every_extra_and_python(built: Built) -> None:
    shown = metadata(built.wheel)
    assert (shown["Name"], shown["Version"], shown["License-Expression"]) == (
        "fastapi-cloudflare-access",
        PROJECT["version"],
        "MIT",
    )
    assert shown.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])
    pythons = {name.rpartition(" ")[2] for name in shown.get_all("Classifier", []) if re.search(r":: 3\.\d+$", name)}
    assert pythons == {"3.11", "3.12", "3.13", "3.14"}
    assert shown["Requires-Python"] == ">=3.11"


def test_each_extra_has_a_use_that_is_tried_after_its_installation() -> None:
    uses = runpy.run_path(str(ROOT / "scripts/check_extras.py"))["USES"]
    assert {"", *PROJECT["optional-dependencies"]} <= uses.keys()


def test_the_workflows_test_every_python_of_the_metadata(built: Built) -> None:
    pythons = re.findall(
        r"Python :: (3\.\d+)$", "\n".join(metadata(built.wheel).get_all("Classifier", [])), re.MULTILINE
    )
    matrix = re.search(r"python: \[(.+)\]", (ROOT / ".github/workflows/tests.yml").read_text())
    assert matrix is not None
    assert re.findall(r"3\.\d+", matrix[1]) == pythons


def test_every_classifier_is_a_known_one() -> None:
    """hatchling refuses to build with another; this also refuses those that are deprecated."""
    trove = import_module("trove_classifiers")
    assert set(PROJECT["classifiers"]) <= trove.classifiers - trove.deprecated_classifiers.keys()
    assert PROJECT["classifiers"] == sorted(PROJECT["classifiers"], key=lambda name: re.split(r"(\d+)", name))


def test_without_an_owner_the_metadata_has_no_address(built: Built) -> None:
    shown = metadata(built.wheel)
    assert (shown.get_all("Project-URL"), shown["Home-page"], shown["Author-email"]) == (None, None, None)
    assert f"/{OWNER}/" not in str(shown.get_payload())


def test_the_command_of_the_owner_sets_every_address(checkout: Path, tmp_path: Path) -> None:
    for name in ("src", "scripts"):
        (tmp_path / name).symlink_to(checkout / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, tmp_path / name)
    command = re.search(r"^owner=.+\nsed .+$", (ROOT / "RELEASING.md").read_text(), re.MULTILINE)
    assert command is not None
    subprocess.run(["/bin/sh", "-c", command[0]], cwd=tmp_path, check=True)
    output = subprocess.run(
        [sys.executable, "-m", "hatchling", "metadata"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    shown = json.loads(output.stdout)
    assert shown["urls"]["Source"] == "https://github.com/your-name/fastapi-cloudflare-access"
    assert not any(OWNER in url for url in shown["urls"].values())
    assert "](docs/" not in shown["readme"]["text"]
    assert f"]({shown['urls']['Documentation']}guides/guard/)" in shown["readme"]["text"]


# the bill of materials (PEP 770)


@pytest.fixture(scope="module")
def materials(built: Built) -> dict[str, Any]:
    with ZipFile(built.wheel) as packed:
        document: dict[str, Any] = json.loads(packed.read(f"{NAME}.dist-info/sboms/fastapi-cloudflare-access.cdx.json"))
    return document


def test_the_bill_of_materials_is_of_this_version(materials: dict[str, Any]) -> None:
    component = materials["metadata"]["component"]
    purl = f"pkg:pypi/fastapi-cloudflare-access@{PROJECT['version']}"
    assert (materials["bomFormat"], materials["specVersion"]) == ("CycloneDX", "1.6")
    assert (component["purl"], component["licenses"]) == (purl, [{"license": {"id": "MIT"}}])


def test_the_bill_of_materials_lists_every_dependency_once(materials: dict[str, Any]) -> None:
    required = {Requirement(one).name for one in PROJECT["dependencies"]}
    optional = {Requirement(one).name for extra in PROJECT["optional-dependencies"].values() for one in extra}
    scopes = [(part["name"], part["scope"]) for part in materials["components"]]
    assert scopes == sorted(
        [*((name, "required") for name in required), *((name, "optional") for name in optional - required)]
    )
    references = [part["bom-ref"] for part in materials["components"]]
    assert materials["dependencies"][0]["dependsOn"] == references
    assert [one["ref"] for one in materials["dependencies"][1:]] == references


def test_the_bill_of_materials_has_no_time_and_no_random_number(materials: dict[str, Any]) -> None:
    assert "serialNumber" not in materials
    assert "timestamp" not in materials["metadata"]
