"""Which registered ensemble is meant: by a run's config, or by name where there is none, as on a serving machine."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from components.config import RunConfig, StorageConfig
from components.errors import UserError

if TYPE_CHECKING:
    from components.tracking import MlflowClient

TRACKING = "MLFLOW_TRACKING_URI"
DEFAULT = "champion"
WRITTEN = re.compile(r"(?:models:/)?(?P<name>[^@/:]+)(?:@(?P<alias>[^@/:]+)|/(?P<number>\d+))?")


@dataclass(frozen=True)
class ModelReference:
    """A registered ensemble.

    Attributes:
        tracking: address of the MLflow server, or embedded store, that holds it.
        version: a number, or an alias.
        storage: how buckets are reached that records come from and answers go to.
    """

    tracking: str
    name: str
    version: str
    storage: StorageConfig = field(default_factory=StorageConfig)

    def connect(self) -> "MlflowClient":
        """A client of the store that holds it. An embedded one that is not there is not made: only runs make one.

        Raises:
            UserError: there is no such store, or it does not answer.
        """
        database = Path(self.tracking.removeprefix("sqlite:///"))
        if self.tracking.startswith("sqlite:///") and not database.is_file():
            raise UserError(
                f"no run has been recorded in {database}, which is not there",
                remedy=f"run the pipeline first; or was another --root, tracking.uri or {TRACKING} meant?",
            )
        from components.tracking import connect

        return connect(self.tracking)


def of_config(config: RunConfig, version: str | None = None) -> ModelReference:
    """The ensemble that a config's runs register; the champion unless another version is named."""
    return ModelReference(str(config.tracking.uri), config.name, version or DEFAULT, config.storage)


def of_name(text: str, version: str | None = None) -> ModelReference:
    """The ensemble called ``text``, ``NAME``, ``NAME@ALIAS`` or ``NAME/NUMBER``, with ``models:/`` before it or not.

    The MLflow server is the one that ``MLFLOW_TRACKING_URI`` names.

    Raises:
        UserError: there is no such way to write it, it names a version and ``version`` another, or no server is named.
    """
    found = WRITTEN.fullmatch(text)
    if found is None:
        raise UserError(f"{text!r} names no registered model", remedy="write NAME, NAME@ALIAS or NAME/NUMBER")
    told = found["alias"] or found["number"]
    if told and version and told != version:
        raise UserError(f"{text} and version {version} are two answers to one question", remedy="give one of them")
    tracking = os.environ.get(TRACKING)
    if not tracking:
        raise UserError(
            f"no MLflow server is named that would know {text}",
            remedy=f"set {TRACKING} (http(s)://host:port), or give a run's config with -c",
        )
    return ModelReference(tracking, found["name"], told or version or DEFAULT)
