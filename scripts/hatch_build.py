"""What hatchling calls while it builds: the long description, from README.md, and the bill of materials of the wheel.

The links of README.md point to files of the repository, which a reader on a package index does not have. If
`[project.urls]` in pyproject.toml has `Source`, each link becomes absolute. Otherwise its text stays, without the link.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.requirements import Requirement

CODE = re.compile(r"^```.*?^```[ \t]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
"""A code block or a code span; brackets in it are no link."""
LINK = re.compile(r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])+)\]\((?P<target>[^()\s]+)\)")
ABSOLUTE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


class Description(MetadataHookInterface):
    """Sets the long description, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `readme`."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        described = long_description(text, metadata.get("urls", {}), metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": described}


def long_description(readme: str, urls: dict[str, str], version: str) -> str:
    """Return the text of README.md for a package index.

    Args:
        readme: The text, with links relative to the root of the repository.
        urls: `[project.urls]`; `Source` and `Documentation` are read.
        version: The version, whose tag the links name.
    """

    def replace(link: re.Match[str]) -> str:
        text, target = link["text"], link["target"]
        if ABSOLUTE.match(target):
            return link[0]
        if "Source" not in urls:
            return text
        return f"{link['image']}[{text}]({address(target, urls, version, image=bool(link['image']))})"

    parts: list[str] = []
    end = 0
    # Links may contain code spans, so these are first replaced by marks, and put back afterwards.
    codes: list[str] = []
    for code in CODE.finditer(readme):
        parts += [readme[end : code.start()], f"\0{len(codes)}\0"]
        codes.append(code[0])
        end = code.end()
    replaced = LINK.sub(replace, "".join([*parts, readme[end:]]))
    return re.sub(r"\0(\d+)\0", lambda mark: codes[int(mark[1])], replaced)


def address(target: str, urls: dict[str, str], version: str, *, image: bool) -> str:
    """Return the absolute address of a file of the repository."""
    path, _, section = target.partition("#")
    anchor = f"#{section}" if section else ""
    page = re.fullmatch(r"docs/(.+)\.md", path)
    if page and "Documentation" in urls:
        place = page[1].removesuffix("index")
        return f"{urls['Documentation'].rstrip('/')}/{place}{'/' if place and not place.endswith('/') else ''}{anchor}"
    view = "raw" if image else "tree" if path.endswith("/") else "blob"
    return f"{urls['Source'].rstrip('/')}/{view}/v{version}/{path or 'README.md'}{anchor}"


class Materials(BuildHookInterface):  # type: ignore[type-arg] # hatchling does not say of what
    """Writes the bill of materials into the wheel (PEP 770)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the document, except for an editable installation."""
        if self.target_name != "wheel" or version == "editable":
            return
        self.folder = TemporaryDirectory()
        document = bill_of_materials(tomllib.loads(Path(self.root, "pyproject.toml").read_text("utf-8"))["project"])
        path = Path(self.folder.name, f"{document['metadata']['component']['name']}.cdx.json")
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        build_data["sbom_files"].append(str(path))

    def finalize(self, *_: object) -> None:
        """Remove the temporary file."""
        if hasattr(self, "folder"):
            self.folder.cleanup()


def bill_of_materials(project: dict[str, Any]) -> dict[str, Any]:
    """Return a CycloneDX document: the package, and what it declares to depend on.

    The wheel bundles no other software. The document has no time and no random number, so that two builds are equal.

    Args:
        project: The table `[project]` of pyproject.toml.
    """
    name, version = project["name"], project["version"]
    reference = f"pkg:pypi/{name}@{version}"
    parts = [*components(project)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": reference,
                "name": name,
                "version": version,
                "description": project["description"],
                "licenses": [{"license": {"id": project["license"]}}],
                "purl": reference,
            }
        },
        "components": parts,
        "dependencies": [
            {"ref": reference, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }


def components(project: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return each package that the package declares to depend on, once, with the ranges and the extras."""
    declared: dict[str, list[tuple[str, str]]] = {}
    for extra, requirements in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        for requirement in map(Requirement, requirements):
            if requirement.name != project["name"]:
                declared.setdefault(requirement.name, []).append((extra, str(requirement)))
    for name, uses in sorted(declared.items()):
        required = not all(extra for extra, _ in uses)
        yield {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}",
            "name": name,
            "purl": f"pkg:pypi/{name}",
            "scope": "required" if required else "optional",
            "properties": [
                {"name": f"requirement of the extra {extra}" if extra else "requirement", "value": requirement}
                for extra, requirement in uses
            ],
        }
