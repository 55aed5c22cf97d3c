"""The configuration file `access.toml`: its reader, whose errors name the key, and its template."""

import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.local.config import App, Config, Person, Policy, ServiceToken, Team
from fastapi_cloudflare_access.local.toml_lines import KeyPath, line_of

FILE_NAME = "access.toml"
"""Default name of the file."""
MAX_SIZE = 1_000_000
"""Largest size of the file, in bytes."""

_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_.\"'-]+)\s*=")
_NAME = re.compile(r"[\w@.+ -]{1,64}")
_KEYS = [key for model in (Config, Team, App, Policy, Person, ServiceToken) for key in model.model_fields]
_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "int_parsing": "a number",
    "int_type": "a number",
    "model_type": "a table",
    "string_type": "a text in quotes",
    "tuple_type": "a list in brackets",
}
"""Names of TOML's types, by Pydantic's kind of error; its own messages name Python's types."""
_POSITION = re.compile(r"\(at line (\d+), column \d+\)")


def load_config(path: Path) -> Config:
    """Read a configuration file.

    Raises:
        ConfigurationError: The file is not valid; the message names the file, the line and the key.
    """
    text = _read_text(path)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise ConfigurationError(_syntax_error(path.name, text, str(problem))) from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path.name}: a number is too long, or the nesting is too deep") from None
    try:
        return Config.model_validate(data)
    except ValidationError as invalid:
        raise ConfigurationError(_validation_error(path.name, text, data, invalid)) from None


def load_config_or_default(path: Path | None) -> Config:
    """Read the named file, else `access.toml`, else return the defaults.

    Raises:
        ConfigurationError: The file is not valid.
    """
    if path is None and not Path(FILE_NAME).exists():
        return Config()
    return load_config(path or Path(FILE_NAME))


def write_template(path: Path) -> None:
    """Write a configuration file with comments.

    Raises:
        ConfigurationError: The file already exists, or it cannot be written.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write((Path(__file__).parent / "templates" / FILE_NAME).read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigurationError(f"{path} already exists; delete it, or name another file with --config") from None
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be written: {problem.strerror}") from None


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be read: {problem.strerror}") from None
    if len(data) > MAX_SIZE:
        raise ConfigurationError(f"{path} is larger than {MAX_SIZE} bytes")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as problem:
        line = data[: problem.start].count(b"\n") + 1
        raise ConfigurationError(f"{path.name}, line {line}: is not UTF-8") from None


def _syntax_error(name: str, text: str, problem: str) -> str:
    found = _POSITION.search(problem)
    line = int(found[1]) if found else text.rstrip().count("\n") + 1
    key = _ASSIGNMENT.match(text.split("\n")[line - 1])
    message = _POSITION.sub("", problem).replace("(at end of document)", "").strip()
    return f"{name}, line {line}{f', {key[1]}' if key else ''}: {message}"


def _validation_error(name: str, text: str, data: Any, invalid: ValidationError) -> str:
    errors = invalid.errors()
    error = next((error for error in errors if error["type"] != "too_short"), errors[0])
    key_path: KeyPath = tuple(error.get("ctx", {}).get("path", error["loc"]))
    line = line_of(text, key_path)
    place = f"{name}, line {line}" if line else name
    return f"{place}, {_dotted_path(key_path)}{_shown_name(data, key_path)}: {_message(error)}"


def _shown_name(data: object, key_path: KeyPath) -> str:
    """Return the name of the innermost app, person or service token on the path, in brackets; else nothing."""
    shown, value = "", data
    for key in key_path:
        try:
            value = cast("Any", value)[key]
        except (KeyError, IndexError, TypeError):
            break
        entry = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        name = entry.get("name", entry.get("email"))
        if isinstance(name, str) and _NAME.fullmatch(name):
            shown = f" ({name})"
    return shown


def _dotted_path(key_path: KeyPath) -> str:
    text = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in key_path)
    return text.lstrip(".") or "the file"


def _message(error: Any) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "too_short":
        return "must not be empty"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1]), _KEYS, n=1)
        return f"is not a known key{f'; did you mean {near[0]}?' if near else ''}"
    if error["type"] in _EXPECTED:
        return f"must be {_EXPECTED[error['type']]}"
    return str(error["msg"]).removeprefix("Value error, ")
