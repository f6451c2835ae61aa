"""How a config travels to the steps: as JSON, or, when that is large, as a reference to a copy in the store.

A step gets all its parameters in one argument, which Linux ends at 128 KiB. A config with hundreds of datasets or long
label lists comes near, so above ``INLINE_BYTES`` only a key, a checksum and the store's address travel.
"""

import hashlib
import json
from pathlib import Path

from components.config import RunConfig, StorageConfig
from components.errors import UserError
from components.object_store import open_store

INLINE_BYTES = 32 * 1024


def pack(config: RunConfig, here: StorageConfig | None = None) -> str:
    """The text that stands for ``config``, whose ``storage.uri`` is set; a large config is put into that store.

    Args:
        here: how the store is reached from this machine, where that differs.
    """
    text = config.model_dump_json()
    data = text.encode()
    if len(data) <= INLINE_BYTES:
        return text
    digest = hashlib.sha256(data).hexdigest()
    key = f"configs/{digest}.json"
    open_store(here or config.storage, Path()).write(key, data)
    return json.dumps({"config_key": key, "sha256": digest, "storage": config.storage.model_dump(mode="json")})


def unpack(text: str) -> RunConfig:
    """The config that :func:`pack` made ``text`` from.

    Raises:
        UserError: the copy in the store is gone or is not the one that was put there.
    """
    reference = json.loads(text)
    if "config_key" not in reference:
        return RunConfig.model_validate_json(text)
    store = open_store(StorageConfig.model_validate(reference["storage"]), Path())
    key = reference["config_key"]
    try:
        data = store.read(key)
    except KeyError:
        raise UserError(f"the run's config is not at {store.uri(key)} any more", remedy="start the run again") from None
    if hashlib.sha256(data).hexdigest() != reference["sha256"]:
        raise UserError(f"{store.uri(key)} does not match its checksum", remedy="delete it and start the run again")
    return RunConfig.model_validate_json(data)
