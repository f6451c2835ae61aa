"""Who serves, and how it came to: every move of the alias `champion` is written down on the version it moved to.

A move is a tag ``champion.<time>`` of the version, so that the log is as safe as the registry itself and two writers
never overwrite each other. A version that was rolled back carries ``rolled_back`` until a person promotes it again:
the gate leaves it alone.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.errors import UserError
from components.model_versions import move_alias, tag_version
from components.tracking import MlflowClient

CHALLENGER, CHAMPION = "challenger", "champion"
ROLLED_BACK = "rolled_back"
MOVE = "champion."


@dataclass(frozen=True)
class Move:
    """A move of the alias `champion`.

    Attributes:
        time: ISO 8601, UTC.
        kind: promoted (by the gate or a person), or rolled_back.
        version: whom the alias moved to.
        instead_of: whom it left; '' where nobody served.
        by: 'gate', or the person.
    """

    time: str
    kind: Literal["promoted", "rolled_back"]
    version: str
    instead_of: str
    by: str
    reason: str


def holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version of ``name`` with ``alias``, or None where model or alias do not exist."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        # A missing model is RESOURCE_DOES_NOT_EXIST, a missing alias INVALID_PARAMETER_VALUE.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of ``name``, oldest first, with their aliases."""
    found = client.search_model_versions(f"name = '{name}'", max_results=10_000)
    aliases = client.get_registered_model(name).aliases if found else {}
    for version in found:
        version.aliases = sorted(alias for alias, number in aliases.items() if str(number) == str(version.version))
    return sorted(found, key=lambda version: int(version.version))


def moves(client: MlflowClient, name: str) -> list[Move]:
    """Every move of the champion, oldest first."""
    logged = [
        Move(**json.loads(value))
        for version in versions(client, name)
        for key, value in version.tags.items()
        if key.startswith(MOVE)
    ]
    return sorted(logged, key=lambda move: move.time)


def promote_by_hand(client: MlflowClient, name: str, number: str | None, *, by: str, reason: str) -> Move:
    """Make a version the champion whatever the gate said.

    Args:
        number: of the version; None for the challenger.

    Raises:
        UserError: there is no such version, or it serves already.
    """
    found = holder(client, name, CHALLENGER) if number is None else numbered(client, name, number)
    if found is None:
        raise UserError(f"no version of {name} is the challenger", remedy="run the pipeline, or name a version")
    serving = holder(client, name, CHAMPION)
    if serving is not None and str(serving.version) == str(found.version):
        raise UserError(f"version {found.version} of {name} is the champion already", remedy="loraloom history")
    if ROLLED_BACK in found.tags:
        client.delete_model_version_tag(name, found.version, ROLLED_BACK)
    return move(client, name, str(found.version), "promoted", by=by, reason=reason)


def roll_back(client: MlflowClient, name: str, *, by: str, reason: str) -> Move:
    """Give the alias back to the champion before the present one.

    The version left behind is marked, so that a scheduled run which makes it again does not bring it back.

    Raises:
        UserError: nothing serves, or nothing served before, or that version was deleted.
    """
    serving = holder(client, name, CHAMPION)
    if serving is None:
        raise UserError(f"no version of {name} is the champion", remedy="loraloom history")
    arrived = [one for one in moves(client, name) if one.kind == "promoted" and one.version == str(serving.version)]
    before = arrived[-1].instead_of if arrived else ""
    if not before:
        raise UserError(
            f"version {serving.version} of {name} replaced nobody",
            remedy="loraloom promote VERSION -m WHY takes any version",
        )
    numbered(client, name, before)
    tag_version(client, name, str(serving.version), ROLLED_BACK, reason)
    return move(client, name, before, "rolled_back", by=by, reason=reason)


def move(
    client: MlflowClient, name: str, number: str, kind: Literal["promoted", "rolled_back"], *, by: str, reason: str
) -> Move:
    """Write the move down, then move the alias: stopped in between, doing it again puts it right."""
    serving = holder(client, name, CHAMPION)
    time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    made = Move(time, kind, number, str(serving.version) if serving else "", by, reason)
    tag_version(client, name, number, f"{MOVE}{time}", json.dumps(asdict(made)))
    move_alias(client, name, CHAMPION, number)
    return made


def numbered(client: MlflowClient, name: str, number: str) -> ModelVersion:
    """The version of this number. Raises ``UserError`` where there is none."""
    try:
        return client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(f"{name} has no version {number}", remedy="loraloom history lists them") from error
