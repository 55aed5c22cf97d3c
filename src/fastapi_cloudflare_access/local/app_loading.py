"""Load the app that `cf-access dev` protects, as uvicorn and the FastAPI command line do."""

import inspect
import sys
import tomllib
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from starlette.types import ASGIApp
from uvicorn.importer import ImportFromStringError, import_from_string

from fastapi_cloudflare_access.errors import ConfigurationError

_TABLE = "[tool.fastapi]"


class AppImportError(Exception):
    """An error that the module of the app raised; the message is its traceback, without the frames of loaders."""


def entrypoint(folder: Path) -> str | None:
    """Return `entrypoint` under `[tool.fastapi]` in the pyproject.toml of a folder, or None.

    Raises:
        ConfigurationError: The file is not valid TOML, or the value is not a text.
    """
    file = folder / "pyproject.toml"
    try:
        value: Any = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ConfigurationError(f"{file} cannot be read as TOML; correct it, or name the app") from None
    for key in ("tool", "fastapi", "entrypoint"):
        value = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"entrypoint under {_TABLE} in {file} must be a text such as 'package.module:app'")
    return value


def load_app(name: str, *, folder: Path, is_factory: bool) -> ASGIApp:
    """Import an app, or call its factory.

    Raises:
        ConfigurationError: The name is wrong, or the object is not an app.
        AppImportError: The module or the factory raises.
    """
    if name.endswith(".py"):
        raise ConfigurationError(f"{name} is a file; name its module and the app in it, such as {Path(name).stem}:app")
    if ":" not in name:
        raise ConfigurationError(f"{name} names no app in the module; write {name}:app")
    if (place := str(folder.absolute())) not in sys.path:
        sys.path.insert(0, place)
    try:
        found = import_from_string(name)
    except ImportFromStringError as problem:
        raise ConfigurationError(f"{str(problem).rstrip('.')}; it is looked for in {place}") from None
    except ModuleNotFoundError as missing:
        if not f"{name.partition(':')[0]}.".startswith(f"{missing.name}."):
            raise AppImportError(_own_traceback(missing)) from None
        raise ConfigurationError(f"the module {missing.name} does not exist; check the import string") from None
    except Exception as problem:  # noqa: BLE001 - the app's code can raise anything
        raise AppImportError(_own_traceback(problem)) from None
    return _called(found, name) if is_factory or _is_factory(found) else found


@contextmanager
def fresh_modules(name: str) -> Generator[None]:
    """Import the package of an app again inside the context; afterwards, modules imported before are as they were."""
    top = name.partition(":")[0].partition(".")[0]
    before = _take_modules(top)
    try:
        yield
    finally:
        if before:
            _take_modules(top)
            sys.modules.update(before)


def _take_modules(top: str) -> dict[str, ModuleType]:
    names = [known for known in sys.modules if f"{known}.".startswith(f"{top}.")]
    return {known: sys.modules.pop(known) for known in names}


def _is_factory(found: Any) -> bool:
    """Return whether the object can be called without arguments, as uvicorn finds out by calling it."""
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def _called(factory: Callable[[], ASGIApp], name: str) -> ASGIApp:
    if not callable(factory):
        raise ConfigurationError(f"{name} is not a function, so it cannot be an app factory; leave --factory out")
    try:
        return factory()
    except Exception as problem:  # noqa: BLE001 - the app's code can raise anything
        raise AppImportError(_own_traceback(problem)) from None


def _own_traceback(problem: Exception) -> str:
    """Format an error without the frames above the user's code."""
    loaders = ("importlib", "uvicorn", str(Path(__file__).parent))
    frames = traceback.extract_tb(problem.__traceback__)
    first = next((n for n, frame in enumerate(frames) if not _is_loader(frame.filename, loaders)), len(frames))
    shown = traceback.StackSummary.from_list(frames[first:])
    return "".join([*shown.format(), *traceback.format_exception_only(problem)]).rstrip()


def _is_loader(filename: str, loaders: tuple[str, ...]) -> bool:
    return filename.startswith("<frozen importlib") or any(loader in filename for loader in loaders)
