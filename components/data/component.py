"""The KFP component of `prepare`."""

from typing import List  # kfp reads annotations of its own

from kfp import dsl

from components.image import CPU


@dsl.component(base_image=CPU, packages_to_install=[], install_kfp_package=False)
def prepare(config: str, run_name: str, datasets: dsl.Output[dsl.Dataset]) -> List[str]:
    """Read, check and split every dataset; returns the shards for `extract`."""
    from pathlib import Path

    from components.data.run import run

    return run(config, run_name, Path(datasets.path))
