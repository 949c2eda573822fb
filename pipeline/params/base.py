"""Strict validation of one section: unknown keys, types and ranges, each with a helpful error."""

import difflib
from collections.abc import Iterable, Mapping, Set
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pipeline.errors import PipelineError

SECTION_NAMES = ("data", "train", "model", "resolutions", "runtime", "extract", "fit", "replay", "report")


# What every library takes as one.
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """Frozen values of one section; an unknown key or a wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _leave_empty(cls, values: Any) -> Any:
        """`-S key=` of DVC's writes an empty text where YAML has nothing."""
        if not isinstance(values, dict):
            return values
        optional = {
            name for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)
        }
        return {name: None if value == "" and name in optional else value for name, value in values.items()}


SectionType = TypeVar("SectionType", bound=Section)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error: the known name that `name` is like, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"


def check_section_names(document: Mapping[str, Any], where: str) -> None:
    for name in document:
        if name not in SECTION_NAMES:
            raise PipelineError(f"{where}: unknown section {name!r}; {nearest(str(name), SECTION_NAMES)}")


def read_section(
    document: Mapping[str, Any],
    name: str,
    kind: type[SectionType],
    where: str,
    set_apart: Set[str] = frozenset(),
) -> SectionType:
    """Validate `document[name]` as `kind`; raises PipelineError naming every faulty key.

    The document is from `where`, but for the keys `set_apart`, each with its section: those are from --set.
    """
    if name not in document:
        raise PipelineError(
            f"{where}: section {name!r} is missing; expected one of its own for {kind.__name__}"
        )
    try:
        return kind.model_validate(document[name])
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            path = ".".join([name, *map(str, fault["loc"])])
            faults.append(f"{_find_origin(path, where, set_apart)}: {_explain(fault, path, kind)}")
        raise PipelineError("\n".join(faults)) from None


def _find_origin(path: str, where: str, set_apart: Set[str]) -> str:
    """Where the value at `path` is from, or the values in it."""
    if any(f"{path}.".startswith(f"{key}.") for key in set_apart):
        return "--set"
    return f"{where} with --set" if any(key.startswith(f"{path}.") for key in set_apart) else where


def _explain(fault: ErrorDetails, path: str, kind: type[Section]) -> str:
    if fault["type"] == "extra_forbidden":
        return f"{path}: unknown key; {nearest(str(fault['loc'][-1]), _keys_at(kind, fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"{path}: missing; set it as in the project's params.yaml"
    message = fault["msg"].removeprefix("Value error, ")
    return f"{path}: found {fault['input']!r}; {message[0].lower()}{message[1:]}"


def _keys_at(kind: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    for step in path:
        inner = kind.model_fields[str(step)].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            kind = inner
    return list(kind.model_fields)
