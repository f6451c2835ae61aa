"""The config file: YAML in, :class:`RunConfig` out, or every problem at once with its line.

Whoever gets a config wrong three times over should learn so once. So the file is checked to its end: repeated keys,
unknown keys (with the likely meaning), wrong values, and what only makes sense between values. Nothing heavy is
imported on the way.
"""

import difflib
import itertools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from components import cron
from components.config import RunConfig
from components.errors import UserError
from components.yaml_tree import YamlTree, read_yaml, spell

Problem = tuple[int, tuple[str | int, ...], str]  # line, path, what is wrong

QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")  # what Kubernetes takes for cpu and memory
STORE_SCHEMES = ("", "file", "s3")
SELF_EXPLAINING = (
    "missing",
    "extra_forbidden",
    "string_type",
    "model_type",
    "value_error",
)  # no ", not <value>" behind these
TRACKING_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")


def read_config(path: Path) -> RunConfig:
    """Read and check ``path``; relative paths in it are taken from its folder.

    Environment variables are not expanded: the same file means the same run everywhere.

    Raises:
        UserError: one line for each problem, with file, line and setting.
    """
    tree = read_yaml(path)
    if not isinstance(tree.data, dict):
        raise UserError(f"{path} holds no settings", remedy="it should begin with lines such as 'name: my-run'")
    own = list(_own_checks(tree))
    try:
        config = RunConfig.model_validate(tree.data)
        reported: list[Problem] = []
    except ValidationError as error:
        # What spans the whole file is among our own checks, where it has a line and is found beside other problems.
        reported = [found for found in _from_pydantic(error, tree) if found[1] or not own]
    problems = sorted({*own, *reported}, key=lambda found: (found[0], spell(found[1])))
    if problems:
        lines = tuple(f"{path}:{line}: {spell(where)}{': ' if where else ''}{what}" for line, where, what in problems)
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise UserError(f"{count} in {path}", problems=lines, remedy="`loraloom schema` lists every setting")
    return _with_absolute_paths(config, path.resolve().parent)


def resolved(config: RunConfig, root: Path) -> RunConfig:
    """The config with the embedded store and tracking database under ``root`` where it names none."""
    root = Path(os.path.abspath(root))
    storage = config.storage.model_copy(update={"uri": config.storage.uri or str(root / "store")})
    tracking = config.tracking.model_copy(update={"uri": config.tracking.uri or f"sqlite:///{root / 'mlflow.db'}"})
    return config.model_copy(update={"storage": storage, "tracking": tracking})


def _with_absolute_paths(config: RunConfig, folder: Path) -> RunConfig:
    def absolute(value: str | None) -> str | None:
        return value if value is None or _scheme(value) else os.path.abspath(folder / value)

    model, storage, tracking = config.model, config.storage, config.tracking
    if (folder / model.id).is_dir():
        model = model.model_copy(update={"id": absolute(model.id)})
    datasets = [entry.model_copy(update={"path": absolute(entry.path)}) for entry in config.datasets]
    storage = storage.model_copy(update={"uri": absolute(storage.uri), "ca_bundle": absolute(storage.ca_bundle)})
    if _scheme(model.id) == "s3" and model.storage is None:
        model = model.model_copy(update={"storage": storage})
    if tracking.uri and (relative := re.fullmatch(r"sqlite:///(?!/)(.+)", tracking.uri)):
        tracking = tracking.model_copy(update={"uri": f"sqlite:///{absolute(relative[1])}"})
    cluster = config.cluster.model_copy(update={"ca_bundle": absolute(config.cluster.ca_bundle)})
    update = {"model": model, "datasets": datasets, "storage": storage, "tracking": tracking, "cluster": cluster}
    return config.model_copy(update=update)


def _scheme(value: str) -> str:
    return value.partition("://")[0] if "://" in value else ""


# What pydantic found -------------------------------------------------------------------------------------------------


def _from_pydantic(error: ValidationError, tree: YamlTree) -> Iterator[Problem]:
    """One problem a place: the arms of a union are joined by 'or'."""
    places: dict[tuple[int, tuple[str | int, ...]], list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        line, where = tree.locate(detail["loc"])
        if detail["type"] == "missing":
            where = (*where, detail["loc"][-1])
        places.setdefault((line, where), []).append(detail)
    for (line, where), details in places.items():
        deeper = any(other[: len(where)] == where and other != where for _, other in places)
        if deeper and all(detail["type"] in ("list_type", "dict_type") for detail in details):
            continue  # the other arm of a union was meant: what is wrong inside it is reported
        says = list(dict.fromkeys(_say(detail, where) for detail in details))
        given = details[0]["input"]
        shown = isinstance(given, str | int | float) and details[0]["type"] not in SELF_EXPLAINING
        yield line, where, " or ".join(says) + (f", not {given!r}" if shown else "")


def _say(detail: ErrorDetails, where: tuple[str | int, ...]) -> str:
    kind, given = detail["type"], detail["input"]
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return f"unknown setting{_did_you_mean(where)}"
    if kind == "string_type" and given is not None and not isinstance(given, list | dict):
        whose = "the key " if detail["loc"][-1] == "[key]" else ""
        return f"{whose}should be text; put it in quotes (unquoted, YAML reads {given!r})"
    if kind == "model_type":
        instead = "give it some" if where == ("model",) else "leave the section out, or give it some"
        return f"holds no settings; {instead}"
    if kind == "too_short":
        return "should not be empty"
    if kind == "string_pattern_mismatch":
        return "should be lower-case letters, digits, '-' and '_', at most 63 of them"
    return detail["msg"].removeprefix("Value error, ").removeprefix("Input ").partition(", unable to parse")[0]


def _did_you_mean(where: tuple[str | int, ...]) -> str:
    """The nearest setting's name, or the section where a setting of this name belongs."""
    wrong = str(where[-1])
    section: type[BaseModel] | None = RunConfig
    for element in where[:-1]:
        if section is not None and isinstance(element, str):
            section = _section_of(section, element)
    known = list(section.model_fields) if section else []
    if near := difflib.get_close_matches(wrong, known, n=1):
        return f"; did you mean '{near[0]}'?"
    sections = {name: _section_of(RunConfig, name) for name in RunConfig.model_fields}
    homes = [name for name, inside in sections.items() if inside is not None and wrong in inside.model_fields]
    if homes:
        return f"; did you mean {' or '.join(f'{home}.{wrong}' for home in homes)}?"
    return f"; known here: {', '.join(known)}"


def _section_of(model: type[BaseModel], field: str) -> type[BaseModel] | None:
    """The section class behind a field, through lists, dictionaries and unions."""
    info = model.model_fields.get(field)
    waiting = [info.annotation] if info else []
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        waiting.extend(get_args(annotation))
    return None


# What pydantic cannot see --------------------------------------------------------------------------------------------


def _own_checks(tree: YamlTree) -> Iterator[Problem]:
    for line, name in tree.repeated:
        yield line, (), f"{name} stands twice; only one can count"
    for where, what in _between_settings(tree.data):
        yield tree.locate(where)[0], where, what
    for where, value in _leaves(tree.data):
        if what := _bad_value(where, value):
            yield tree.locate(where)[0], where, what


def _between_settings(data: dict[Any, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    datasets = data.get("datasets")
    entries = datasets if isinstance(datasets, list) else []
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        name = entry.get("name") if isinstance(entry, dict) else None
        if isinstance(name, str) and name in seen:
            yield ("datasets", index, "name"), f"another dataset is called {name!r} already"
        seen.add(str(name))
        if isinstance(entry, dict):
            yield from ((("datasets", index), what) for what in _source_problems(entry))
    groups = _at(data, "partition", "groups")
    if isinstance(groups, int) and entries and groups > len(entries):
        yield ("partition", "groups"), f"{groups} groups cannot be made of {len(entries)} datasets"
    lambdas = _at(data, "surrogate", "lambdas")
    numbers = isinstance(lambdas, list) and all(isinstance(value, int | float) for value in lambdas)
    if numbers and any(later >= earlier for earlier, later in itertools.pairwise(lambdas)):
        yield ("surrogate", "lambdas"), "should fall from one to the next: the path starts at the largest"


def _source_problems(entry: dict[Any, Any]) -> Iterator[str]:
    """What DatasetConfig checks too, in its words: pydantic gets there only when every single value is right."""
    if (entry.get("path") is None) == (entry.get("hub") is None):
        yield "give exactly one of 'path' and 'hub'"
    if (entry.get("prompt") is None) != (entry.get("response") is None):
        yield "a completion dataset needs both 'prompt' and 'response'"


def _at(data: dict[Any, Any], section: str, name: str) -> Any:
    inside = data.get(section)
    return inside.get(name) if isinstance(inside, dict) else None


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(child, (*path, key))
    else:
        yield path, value


def _bad_value(where: tuple[str | int, ...], value: Any) -> str:
    """What is wrong with a single value, '' where nothing is."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"should be a finite number, not {value}"
    match where:
        case ("seed",) if isinstance(value, int) and value >= 2**32:
            return "should be below 4294967296 (2^32), which all libraries take"
        case ("schedule", "cron") if isinstance(value, str):
            return cron.problem(value)
        case ("resources", _, "cpu" | "memory" | "shm") if isinstance(value, str) and not QUANTITY.fullmatch(value):
            return f"{value!r} is no amount; write it as in '4', '500m' or '24Gi'"
    return _bad_address(where, value) if isinstance(value, str) else ""


def _bad_address(where: tuple[str | int, ...], value: str) -> str:
    match where:
        case ("storage", "uri") if _scheme(value) not in STORE_SCHEMES:
            return f"{value!r} is neither a folder nor s3://bucket/prefix"
        case ("storage", "uri") if _scheme(value) == "s3" and not urlsplit(value).netloc:
            return f"{value!r} names no bucket; write s3://bucket/prefix"
        case ("tracking", "experiment") if ".." in value.split("/"):
            return f"{value!r} climbs out of its folder by '..'; give it a plain name"
        case ("storage", "endpoint_url") | ("cluster", "endpoint") if _scheme(value) not in ("http", "https"):
            return f"{value!r} should begin with http:// or https://"
        case ("tracking", "uri") if _scheme(value).partition("+")[0] not in TRACKING_SCHEMES and value != "databricks":
            return f"{value!r} is no address for MLflow; write sqlite:///path.db or https://server, or leave it out"
        case ("storage" | "tracking" | "cluster", "uri" | "endpoint_url" | "endpoint"):
            if "://" in value and urlsplit(value).password:
                return "holds a password; leave it out: secrets come from the environment (AWS_*, MLFLOW_TRACKING_*)"
        case ("datasets", int(), "path") | ("model", "id"):
            if value.startswith("~") or re.match(r"\$\{?\w", value):
                return f"{value!r}: '~' and environment variables are not expanded; write the path out"
    return ""
