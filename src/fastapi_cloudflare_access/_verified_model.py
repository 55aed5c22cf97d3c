"""The base of models whose instances come from a verified token, never from a request."""

import logging
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from fastapi_cloudflare_access._frozen import FrozenDict
from fastapi_cloudflare_access._not_a_dependency import NotADependency, forbid_as_dependency

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass as _ModelMeta
else:
    _ModelMeta = type(BaseModel)

logger = logging.getLogger("fastapi_cloudflare_access")

_logged: set[type[Any]] = set()
_FACTORY = NotADependency("Claims never come from a request: write Depends(access.user)")


def never_from_a_request(kind: type[Any]) -> str:
    """Return the error message for a class whose instances FastAPI must not create."""
    example = "UserClaims, Depends(access.user)"
    if (dependency := getattr(kind, "dependency", None)) is not None:
        example = f"{kind.__name__}, Depends({dependency})"
    return (
        f"{kind.__name__} never comes from a request: declare the parameter with a dependency of your CloudflareAccess "
        f"object, such as Annotated[{example}]"
    )


def instances_only(kind: type[Any], schema: CoreSchema) -> CoreSchema:
    """Return a schema that validates and serialises instances as `schema` does, and refuses everything else."""

    def check_instance(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if kind not in _logged:  # for the developer; the client does not see it
            _logged.add(kind)
            logger.error("%s", never_from_a_request(kind))
        raise PydanticCustomError("not_from_a_request", "this never comes from a request")

    return core_schema.no_info_before_validator_function(check_instance, schema)


class _VerifiedMeta(_ModelMeta):
    """Marks a class as complete; until then Pydantic builds the schema of the class itself."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        """Create the class."""
        created: Any = super().__new__(cls, *arguments, **options)
        created._is_built()  # noqa: SLF001 - of the class below
        return created


class VerifiedModel(BaseModel, metaclass=_VerifiedMeta):
    """A model that FastAPI never fills from a body, a form, a query, headers, or as a class dependency.

    Wherever another schema refers to the model (a route, a list, a union, another model), it admits instances only. Its
    own constructor and `model_validate` work as those of any model.
    """

    dependency: ClassVar[str | None] = None
    """The dependency that returns this model, if it is not one for claims."""
    _builds_itself: ClassVar[bool]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the model itself; a schema that refers to it gets one that admits instances only."""
        schema = handler(source)
        return schema if cls.__dict__.get("_builds_itself", True) else instances_only(cls, schema)

    @classmethod
    def model_rebuild(cls, *, _parent_namespace_depth: int = 2, **options: Any) -> bool | None:
        """Rebuild the model as Pydantic does, when names in its annotations are defined later."""
        cls._builds_itself = True
        try:
            return super().model_rebuild(_parent_namespace_depth=_parent_namespace_depth + 1, **options)
        finally:
            cls._is_built()

    @classmethod
    def model_validate(cls, obj: Annotated[Any, _FACTORY], **options: Any) -> Self:
        """Return an instance made from claims that the app trusts, as Pydantic does."""
        return super().model_validate(obj, **options)

    @classmethod
    def model_validate_json(cls, json_data: Annotated[str | bytes | bytearray, _FACTORY], **options: Any) -> Self:
        """Return an instance made from JSON that the app trusts, as Pydantic does."""
        return super().model_validate_json(json_data, **options)

    @classmethod
    def model_construct(cls, _fields_set: Annotated[set[str] | None, _FACTORY] = None, **values: Any) -> Self:
        """Return an instance of which nothing is checked, as Pydantic does."""
        return super().model_construct(_fields_set, **values)

    @property
    def model_fields_set(self) -> set[str]:
        """The members that the token or the identity has; a copy."""
        return set(self.__pydantic_fields_set__)

    @property
    def model_extra(self) -> dict[str, Any]:
        """The members that are not fields of this model, read-only."""
        return FrozenDict(self.__pydantic_extra__ or {})

    @classmethod
    def _is_built(cls) -> None:
        cls._builds_itself = False
        forbid_as_dependency(cls, never_from_a_request(cls))
