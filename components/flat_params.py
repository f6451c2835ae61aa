"""A nested config as MLflow's parameters, which are flat and of bounded length."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from components.artifacts import canonical

# MLflow's own limits: characters of a parameter, and what its name may hold.
PARAM_LENGTH = 6000
PARAM_KEY = re.compile(r"[\w\-. /:]{1,120}")


def flat_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dotted keys to texts. A list of things with a ``name`` is keyed by it; any other list becomes JSON.

    A value over MLflow's limit is cut and ends in its digest, so that different values stay different.
    """
    return {key: _cut(value) for key, value in _flatten(settings).items()}


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, list) and value and all(isinstance(item, dict) and "name" in item for item in value):
            value = {item["name"]: item for item in value}
        if isinstance(value, Mapping) and value and all(PARAM_KEY.fullmatch(str(name)) for name in value):
            flat |= _flatten(value, f"{path}.")
        else:
            flat[path] = value if isinstance(value, str) else canonical(value)
    return flat


def _cut(value: str) -> str:
    if len(value) <= PARAM_LENGTH:
        return value
    tail = f"... sha256 {hashlib.sha256(value.encode()).hexdigest()}"
    return value[: PARAM_LENGTH - len(tail)] + tail
