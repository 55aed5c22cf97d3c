"""A release: the tag, the version and the changelog agree, and the workflows keep to the rules."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/release.py"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-02-03

- More.

## [0.1.0] - 2026-01-02

- A package.
"""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)


def test_this_version_has_its_section_in_the_changelog(script: dict[str, Any]) -> None:
    """What has changed since a release is under *Unreleased*, which only a tag requires to be empty."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.sub(r"(## \[Unreleased\]\n).*?(?=^## )", r"\1\n", changelog, flags=re.MULTILINE | re.DOTALL)
    assert script["mistakes"](f"v{VERSION}", VERSION, released) == []


def test_a_check_of_a_release_without_mistakes_is_silent(tmp_path: Path) -> None:
    for name in ("scripts/release.py", "pyproject.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.replace("0.1.0", VERSION))
    command = [sys.executable, str(tmp_path / "scripts/release.py"), "check", f"v{VERSION}"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_notes_are_the_section_of_the_changelog(script: dict[str, Any]) -> None:
    assert script["sections"](CHANGELOG)["0.1.0"] == ("2026-01-02", "- A package.")


@pytest.mark.parametrize(
    ("tag", "version", "changelog", "mistake"),
    [
        ("0.2.0", "0.2.0", CHANGELOG, "the tag is 0.2.0, and the version in pyproject.toml is 0.2.0"),
        ("v0.3.0", "0.2.0", CHANGELOG, "the tag is v0.3.0, and the version in pyproject.toml is 0.2.0"),
        ("v0.3.0", "0.3.0", CHANGELOG, "CHANGELOG.md has no section [0.3.0]"),
        (
            "v0.2.0",
            "0.2.0",
            CHANGELOG.replace("2026-02-03", "soon"),
            "the section [0.2.0] of CHANGELOG.md has no date",
        ),
        (
            "v0.2.0",
            "0.2.0",
            CHANGELOG.replace("## [0.2.0]", "- Forgotten.\n\n## [0.2.0]"),
            "the section [Unreleased] of CHANGELOG.md is not empty",
        ),
    ],
    ids=["no_v", "other_version", "no_section", "no_date", "unreleased"],
)
def test_a_mistake_stops_the_release(
    script: dict[str, Any], tag: str, version: str, changelog: str, mistake: str
) -> None:
    assert script["mistakes"](tag, version, changelog) == [mistake]


def test_a_tag_that_does_not_fit_gets_no_notes() -> None:
    refused = run("notes", "v9.9.9")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "v9.9.9" in refused.stderr


@pytest.mark.parametrize("arguments", [[], ["check"], ["publish", "v0.1.0"], ["check", "v0.1.0", "now"]])
def test_other_arguments_show_the_usage(arguments: list[str]) -> None:
    shown = run(*arguments)
    assert (shown.returncode, "release.py check v0.1.0" in shown.stdout) == (2, True)


# the workflows


def loaded(path: Path) -> dict[Any, Any]:
    found: dict[Any, Any] = import_module("yaml").safe_load(path.read_text())
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))
def test_a_workflow_has_no_permissions_but_those_of_a_job(path: Path) -> None:
    workflow = loaded(path)
    assert workflow["permissions"] == {}
    assert [name for name, job in workflow["jobs"].items() if "permissions" not in job] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))
def test_every_action_is_pinned_by_its_hash_and_names_its_version(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\$/\.github/workflows/[\w.]+")
    assert used
    assert [one for one in used if not pinned.fullmatch(one)] == []


def test_each_action_has_one_hash() -> None:
    used = {one for path in WORKFLOWS for one in re.findall(r"uses: (\S+)@(\S+)", path.read_text())}
    assert len({name for name, _ in used}) == len(used)


def test_only_two_jobs_may_write_and_one_publishes_after_the_tests() -> None:
    jobs = loaded(ROOT / ".github/workflows/release.yml")["jobs"]
    writing = {name for name, job in jobs.items() if "write" in job["permissions"].values()}
    assert writing == {"publish", "notes"}
    assert (jobs["publish"]["needs"], jobs["publish"]["environment"]) == (["tests", "build"], "pypi")
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))
def test_every_script_that_a_workflow_runs_exists(path: Path) -> None:
    scripts = set(re.findall(r"\bscripts/[\w.]+", path.read_text()))
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


def test_the_issue_templates_and_dependabot_are_yaml_with_a_name_or_a_version() -> None:
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("[0-9]*.yml"):
        assert {"name", "description", "body"} <= loaded(path).keys(), path.name
    assert loaded(ROOT / ".github/dependabot.yml")["version"] == 2


def test_every_hook_of_pre_commit_runs_a_tool_of_the_project() -> None:
    hooks = [hook for repo in loaded(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks if "$(scripts/setup)" not in hook["entry"]] == []
