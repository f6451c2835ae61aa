"""Names that come from outside (a manifest, a bucket's listing) never lead out of the folder they belong to."""

from pathlib import Path

from components.errors import UserError


def inside(folder: Path, name: str) -> Path:
    """The path of ``name`` below ``folder``.

    Raises:
        UserError: the name is absolute, climbs out by '..', or leads nowhere.
    """
    root = folder.resolve()
    path = (root / name).resolve()
    if path == root or not path.is_relative_to(root):
        raise UserError(
            f"the name {name!r} leads out of its folder", remedy="do not use this store: someone has tampered with it"
        )
    return folder / name
