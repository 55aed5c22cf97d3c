"""Reading claims for policies: by path, as groups, and as addresses in one spelling."""

from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Union, cast, get_args, get_origin

from pydantic import BaseModel

from fastapi_cloudflare_access._domains import normal_domain
from fastapi_cloudflare_access.claims import Claims
from fastapi_cloudflare_access.identity import Identity


class UnreadableClaim(Exception):
    """A claim has a part that cannot be read, so that the whole policy refuses the caller."""


def read_claim(caller: Claims, path: Sequence[str]) -> object:
    """Return the claim at a path; None if it is absent or null, or if a part on the way is not an object.

    The default of a field in a model of the app is no claim: Access drops claims that do not fit into a cookie.
    """
    return _read(caller, path)


def _read(value: object, path: Sequence[str]) -> object:
    for name in path:
        if isinstance(value, dict):  # fast path: the checks below are those of abstract classes
            value = cast("dict[str, object]", value).get(name)
        elif isinstance(value, BaseModel):
            fields, extra = value.__dict__, value.__pydantic_extra__ or {}
            present = name in value.__pydantic_fields_set__
            value = (fields if name in fields else extra).get(name) if present else None
        else:
            value = cast("Mapping[str, object]", value).get(name) if isinstance(value, Mapping) else None
    return value


def dropping_model(kind: object, path: Sequence[str]) -> tuple[type[BaseModel], str] | None:
    """Return the model that drops the claim at a path, and the field that it lacks; None if none drops it.

    A model without a field for a claim drops it, unless it has `extra="allow"`.

    Args:
        kind: The model of a user's claims, or what a field in it is annotated with.
        path: The names of the members, from the outermost one.
    """
    if not path or not isinstance(kind, type) or not issubclass(kind, BaseModel):
        return None
    if (field := kind.model_fields.get(path[0])) is None:
        return None if kind.model_config.get("extra") == "allow" else (kind, path[0])
    kinds = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else (field.annotation,)
    found = [dropping_model(each, path[1:]) for each in kinds if each is not NoneType]
    return next(iter(found), None) if all(found) else None


def read_identity(identity: Identity, path: Sequence[str]) -> object:
    """Return what an identity has for the path of a claim; None if it is absent or null.

    What a token has under `custom`, an identity has under `oidc_fields` or `saml`.
    """
    if path[0] != "custom":
        return _read(identity, path)
    found = _read(identity.oidc_fields, path[1:])
    return _read(identity.saml, path[1:]) if found is None else found


def group_names(value: object) -> Iterator[str]:
    """Yield the names and ids of the groups in a claim: a text is one group, an object has `id` or `name`.

    Raises:
        UnreadableClaim: A part is something else.
    """
    for group in cast("Sequence[object]", value) if isinstance(value, (list, tuple, set, frozenset)) else (value,):
        if isinstance(group, str):
            yield group
            continue
        if not isinstance(group, Mapping):
            raise UnreadableClaim
        members = cast("Mapping[str, object]", group)
        names = [members[name] for name in ("id", "name") if members.get(name) is not None]
        if not names or not all(isinstance(name, str) for name in names):
            raise UnreadableClaim
        yield from cast("list[str]", names)


def normal_address(text: str, error: Exception) -> str:
    """Return an address in one spelling: its domain as `normal_domain`, an ASCII local part in lower case.

    Raises:
        Exception: The given error; it is not an address.
    """
    local, _, domain = text.partition("@")
    if not local or "@" in domain:
        raise error
    return f"{local.lower() if local.isascii() else local}@{normal_domain(domain, error)}"
