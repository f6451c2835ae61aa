"""What a step needs of the steps before it, read from their references."""

from collections.abc import Mapping
from dataclasses import dataclass

from components.adapter_files import WEIGHTS
from components.artifacts import Artifact, digest_of, file_digest
from components.base_model import model_inputs
from components.prepared import PreparedDataset, read_prepared
from components.step import Step
from components.tables import Features, read_features

START, POINT = "start", "point"
BASE = "base"


@dataclass(frozen=True)
class Prepared:
    """The prepared datasets in the config's order, with the digest and the store key of each."""

    datasets: list[PreparedDataset]
    digests: dict[str, str]
    keys: dict[str, str]

    def __getitem__(self, name: str) -> PreparedDataset:
        return next(dataset for dataset in self.datasets if dataset.name == name)

    @property
    def names(self) -> list[str]:
        """The datasets' names."""
        return [dataset.name for dataset in self.datasets]


def read_datasets(step: Step, references: Mapping[str, str]) -> Prepared:
    """The datasets that `prepare` passed on."""
    found = {name: step.load(references, name) for name in references}
    return Prepared(
        [read_prepared(artifact) for artifact in found.values()],
        {name: artifact.digest for name, artifact in found.items()},
        dict(references),
    )


def features_of(step: Step, references: Mapping[str, str], names: list[str]) -> dict[str, Artifact]:
    """The feature artifacts of the named datasets."""
    return {name: step.load(references, f"features/{name}") for name in names}


def read_split(artifacts: Mapping[str, Artifact], split: str) -> list[Features]:
    """The features of one split of several datasets."""
    return [read_features(artifact.folder, split) for artifact in artifacts.values()]


def point_of(step: Step, references: Mapping[str, str]) -> Artifact:
    """The adapter at which gradients are taken: where `warm_start` looked ahead to, else theta* itself."""
    return step.load(references, POINT if POINT in references else START)


def outputs_digest(step: Step, adapter: str | None) -> str:
    """What fixes a model's outputs: the base, its quantization, and the adapter's digest (None: the bare base)."""
    return digest_of({"model": model_inputs(step.config.model), "adapter": adapter})


def weights_digest(adapter: Artifact) -> str:
    """sha256 of an adapter's weights alone: its curve does not change what it answers."""
    return file_digest(adapter.folder / WEIGHTS)
