"""Which registered ensemble a command is about: the options, and what they mean together."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.config_file import read_config, resolved
from pipelines.local import default_root

if TYPE_CHECKING:
    from components.registry.reference import ModelReference

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME[@ALIAS|/VERSION]",
        help="A registered ensemble on the server that MLFLOW_TRACKING_URI names, instead of the config's.",
    ),
]
VersionOption = Annotated[
    str | None, typer.Option(help="A version's number, or an alias; the champion if not given.", show_default=False)
]


def registered_model(model: str | None, config_file: Path, root: Path | None, version: str | None) -> "ModelReference":
    """The ensemble that is meant; the config is read only where no model is named.

    Raises:
        UserError: the config cannot be read, or the model's name.
    """
    config = None if model else read_config(config_file)
    from components.registry.reference import of_config, of_name

    if config is None:
        return of_name(str(model), version)
    return of_config(resolved(config, root or default_root(config)), version)
