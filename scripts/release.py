"""Check a release, and print its notes, from pyproject.toml and CHANGELOG.md.

python scripts/release.py check v0.1.0   fail unless the tag, the version and the changelog agree
python scripts/release.py notes v0.1.0   print the section of the changelog
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def sections(changelog: str) -> dict[str, tuple[str, str]]:
    """Return the date and the text of each section of the changelog, by version."""
    parts = re.split(r"^## \[(.+?)\](?: - (\S+))?$", changelog, flags=re.MULTILINE)[1:]
    return {
        version: (date or "", text.strip())
        for version, date, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def mistakes(tag: str, version: str, changelog: str) -> list[str]:
    """Return why the release cannot be published."""
    found: list[str] = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, and the version in pyproject.toml is {version}")
    entries = sections(changelog)
    date, text = entries.get(version, ("", ""))
    if not text:
        found.append(f"CHANGELOG.md has no section [{version}]")
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        found.append(f"the section [{version}] of CHANGELOG.md has no date")
    if entries.get("Unreleased", ("", ""))[1]:
        found.append("the section [Unreleased] of CHANGELOG.md is not empty")
    return found


def main(arguments: list[str]) -> int:
    """Run a command, and return its exit code."""
    if len(arguments) != 2 or arguments[0] not in {"check", "notes"}:  # noqa: PLR2004
        print(__doc__)
        return 2
    command, tag = arguments
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    found = mistakes(tag, version, changelog)
    for mistake in found:
        print(mistake, file=sys.stderr)
    if command == "notes" and not found:
        print(sections(changelog)[version][1])
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
