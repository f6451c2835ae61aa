"""The settings of a run, as types.

One YAML file becomes one :class:`RunConfig` (``config_file.py`` reads it). Every model refuses unknown keys, so a
misspelt setting is an error rather than a silent default. Nothing here imports torch: a config is checked in
milliseconds, before anything heavy is loaded.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from components.cluster_config import ClusterConfig, ImagesConfig, ScheduleConfig, Step, StepResources
from components.section import Name, Positive, Section, Share


class ModelConfig(Section):
    """The frozen base model."""

    id: str = Field(min_length=1, description="Hub id, local folder in transformers layout, or a staged s3://.")
    revision: str | None = Field(None, description="Commit of a hub model; pin it. Not used for a local folder.")
    quantization: Literal["nf4", "none"] = Field("nf4", description="nf4: 4-bit bitsandbytes, double-quantized.")
    dtype: Literal["bfloat16", "float32"] = Field("bfloat16", description="Compute type of the base model.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one.")
    max_length: Positive = Field(512, description="Tokens a prompt; longer texts are cut and counted.")
    storage: "StorageConfig | None" = Field(None, description="How an s3:// id is reached. Default: as the run's.")
    trust_remote_code: bool = Field(False, description="Run code shipped with the model. Read it first.")


class LoraConfig(Section):
    """The adapter's shape. All adapters of a run share it."""

    rank: int = Field(16, gt=0, le=4096)
    alpha: Positive = 32
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str | list[str] = Field("all-linear", description="Module names as PEFT takes them.")


class DatasetConfig(Section):
    """One labelled task. Give exactly one of ``path`` and ``hub``."""

    name: Name
    path: str | None = Field(None, description="File or folder (JSONL, CSV, Parquet, saved HF dataset) or s3://prefix.")
    hub: str | None = Field(None, description="Hugging Face dataset id.")
    revision: str | None = Field(None, description="Commit of a hub dataset.")
    subset: str | None = Field(None, description="Configuration name of a hub dataset.")
    text: str = Field("text", description="Field with the text.")
    text_pair: str | None = Field(None, description="Field with the second text of a pair.")
    label: str = Field("label", description="Field with the label.")
    prompt: str | None = Field(None, description="Completion datasets: field with the prompt.")
    response: str | None = Field(None, description="Completion datasets: field with the response.")
    template: str | None = Field(None, description="Prompt with {field} in braces. Default: the texts, then 'Answer:'.")
    labels: list[str] | dict[str, str] | None = Field(None, description="Labels, or label -> word the model answers.")
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    splits: dict[Literal["train", "validation", "test"], str] | None = Field(
        None, description="Published split names or file stems where they differ from train, validation, test."
    )
    max_rows: dict[Literal["train", "validation", "test"], Positive] | None = Field(
        None, description="At most so many rows a split, sampled by a hash of the row."
    )
    on_bad_rows: Literal["error", "drop"] = "error"

    @property
    def is_completion(self) -> bool:
        """Whether records are (prompt, response) rather than (text, label)."""
        return self.response is not None

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetConfig":
        if (self.path is None) == (self.hub is None):
            raise ValueError("give exactly one of 'path' and 'hub'")
        if (self.prompt is None) != (self.response is None):
            raise ValueError("a completion dataset needs both 'prompt' and 'response'")
        return self


class WarmStartConfig(Section):
    """The brief multi-task pass that makes theta*, and the look-ahead from there to where gradients are taken."""

    epochs: float = Field(1.0, ge=0, le=1000, description="0: the raw initialisation (estimates there say little).")
    samples_per_dataset: Positive = 400
    learning_rate: float | None = Field(None, gt=0, description="Default: training.learning_rate.")
    lookahead: float | None = Field(None, ge=0, le=1000, description="Epochs further; gradients are taken halfway.")
    renew: bool = Field(False, description="Make a new theta* although a usable one exists.")

    @property
    def lookahead_epochs(self) -> float:
        """Epochs of the look-ahead; 0: gradients are taken at theta* itself."""
        return self.epochs if self.lookahead is None else self.lookahead


class GradientsConfig(Section):
    """Per-sample gradients and their projection."""

    dim: int = Field(2400, gt=0, le=1_000_000, description="Numbers a sample is projected to.")
    samples_per_dataset: Positive | Literal["auto"] = Field(
        "auto", description="auto: warm start, look-ahead, extraction: 5 % of training's FLOPs, at least 200 rows."
    )
    projection: Literal["count_sketch", "rademacher"] = "count_sketch"
    batch_tokens: Positive = Field(4096, description="Tokens a batch, padding included.")
    datasets_per_shard: Positive = Field(8, description="Datasets a pod extracts, one shard after the other.")


class SurrogateConfig(Section):
    """Which subsets are estimated. Up to ``exhaustive_up_to`` datasets, all of them."""

    subsets: int = Field(400, gt=0, le=1_000_000)
    subset_size: Share = Field(0.3, description="Share of the datasets in a sampled subset.")
    pair_coverage: Positive = Field(5, description="Every pair of datasets is in at least so many subsets.")
    exhaustive_up_to: int = Field(12, ge=1, le=14)
    lambdas: list[Annotated[float, Field(gt=0)]] = Field(
        [1000, 300, 100, 30, 10, 3, 1],
        min_length=1,
        description="Regularisation path, largest first: 10 stands for a tenth of training, 1 for all of it.",
    )
    width: Positive = Field(400, description="Numbers of a sample solved for at once: estimates are means of parts.")


class PartitionConfig(Section):
    """How datasets become groups."""

    groups: Positive | Literal["auto"] = "auto"
    max_groups: Positive = Field(10, description="Upper end of the curve over m that 'auto' looks at.")
    bootstrap: int = Field(200, gt=0, le=100_000, description="Resamples of validation rows behind standard errors.")


class TrainingConfig(Section):
    """How a group's adapter is trained."""

    epochs: int = Field(3, gt=0, le=1000)
    learning_rate: float = Field(2e-4, gt=0)
    batch_size: Positive = 16
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    size_exponent: float = Field(0.0, ge=0, le=1, description="0: datasets equally often; 1: in proportion to size.")
    patience: Positive = Field(2, description="Epochs without a better validation loss before stopping.")
    gradient_checkpointing: bool = False


class BoostingConfig(Section):
    """Boosters on top of a group's adapter."""

    steps: int = Field(0, ge=0, le=5, description="0: none. Measured: docs/results.md.")
    method: Literal["linear", "trained"] = "linear"
    shrinkage: Share = Field(0.5, description="eta in z_g <- z_g + eta (z_b - z*).")


class EnsembleConfig(Section):
    """Weights, baselines and evaluation."""

    baselines: list[Literal["multitask", "per_dataset"]] = Field(
        ["multitask"],
        description="Also trained, to compare with. The multi-task adapter is a member too, and each dataset's first "
        "choice; without it that is the own group's.",
    )
    bootstrap: int = Field(1000, gt=0, le=100_000)


class RegistryConfig(Section):
    """When a new ensemble becomes the champion."""

    promote: Literal["if_better", "manual"] = "if_better"
    margin: float = Field(0.005, ge=0, description="How much worse the paired lower bound may be, as a share.")
    floor: float = Field(0.03, ge=0, description="No dataset may lose more than this, as a share, beyond its noise.")
    seed_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Standard deviation of the average metric between seeds, as a share. validate tells accuracy's.",
    )
    bundle_base: bool = Field(False, description="Put the base model's files into every registered version.")


class ServingConfig(Section):
    """What is prepared for serving the ensemble."""

    rank: Positive | None = Field(None, description="Rank of merged adapters. Default: lora.rank.")
    max_disagreement: float = Field(
        0.01, ge=0, le=1, description="Share of validation labels in which a merged adapter may differ and be used."
    )
    router: bool = Field(True, description="Train a router for requests that name no dataset.")


class DriftConfig(Section):
    """How far a dataset may move from what the champion was made of before a run warns."""

    features: float = Field(0.3, gt=0, description="Shift of the mean gradient, in standard deviations of the rows.")
    margin: float = Field(0.5, gt=0, description="Shift of the mean margin, likewise.")
    labels: float = Field(0.1, gt=0, le=1, description="Share of rows that would need another label.")


class AlertsConfig(Section):
    """Where news that need a person go: a POST of JSON. The address may hold a secret, so it is never written here."""

    webhook_env: str = Field(
        "LORALOOM_WEBHOOK",
        description="Environment variable that holds the webhook's address; while it is unset nothing is sent.",
    )

    @field_validator("webhook_env")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):  # not repeated in the message: it may be the secret address
            raise ValueError("should be an environment variable's name (A-Z, 0-9, _), which holds the address")
        return value


class ValidationConfig(Section):
    """What `loraloom validate` fine-tunes for real to see what the estimates are worth."""

    subsets: Positive = Field(24, description="Random subsets, as large as those that are estimated.")
    pairs: int = Field(8, ge=0, description="Random pairs.")
    partitions: int = Field(2, ge=0, description="Random partitions of the chosen one's shape.")
    seeds: int = Field(3, ge=2, description="Fine-tunes of each subset: what they differ by is noise.")
    distances: list[Annotated[float, Field(gt=0)]] = Field(
        [0.0005, 0.001, 0.002, 0.005, 0.01],
        min_length=1,
        description="Relative distances from the point at which the first-order error is measured.",
    )
    bootstrap: Positive = Field(1000, description="Resamples of the subsets behind intervals.")


class SelectionConfig(Section):
    """What `loraloom select` looks at. The command's options set it."""

    target: Name | None = Field(None, description="The dataset that others are chosen for.")
    subsets: Positive = Field(200, description="Random subsets behind the scores.")
    seeds: int = Field(3, ge=2, description="Fine-tunes of each set with --validate: what they differ by is noise.")


class TrackingConfig(Section):
    """Where MLflow is. null: a sqlite file and a folder beside the run."""

    uri: str | None = None
    experiment: str | None = Field(None, description="Default: the run's name.")


class StorageConfig(Section):
    """Where artifacts live. null: a folder beside the run; s3://bucket/prefix in production."""

    uri: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    ca_bundle: str | None = None
    kms_key: str | None = None


class RunConfig(Section):
    """Everything a run needs to know. Only ``model`` and ``datasets`` have no default."""

    name: Name = "loraloom"
    seed: int = Field(0, ge=0)
    model: ModelConfig
    lora: LoraConfig = LoraConfig()
    datasets: list[DatasetConfig] = Field(min_length=1)
    warm_start: WarmStartConfig = WarmStartConfig()
    gradients: GradientsConfig = GradientsConfig()
    surrogate: SurrogateConfig = SurrogateConfig()
    partition: PartitionConfig = PartitionConfig()
    training: TrainingConfig = TrainingConfig()
    boosting: BoostingConfig = BoostingConfig()
    ensemble: EnsembleConfig = EnsembleConfig()
    registry: RegistryConfig = RegistryConfig()
    drift: DriftConfig = DriftConfig()
    alerts: AlertsConfig = AlertsConfig()
    serving: ServingConfig = ServingConfig()
    validation: ValidationConfig = ValidationConfig()
    selection: SelectionConfig = SelectionConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: StorageConfig = StorageConfig()
    images: ImagesConfig = ImagesConfig()
    resources: dict[Step, StepResources] = Field({})
    cluster: ClusterConfig = ClusterConfig()
    schedule: ScheduleConfig | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "RunConfig":
        names = [dataset.name for dataset in self.datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"dataset names must differ; used more than once: {', '.join(twice)}")
        groups = self.partition.groups
        if groups != "auto" and groups > len(names):
            raise ValueError(f"partition.groups is {groups}, but there are only {len(names)} datasets")
        target = self.selection.target
        if target is not None and target not in names:
            raise ValueError(f"selection.target is {target}, which is no dataset; there are {', '.join(names)}")
        for step, asked in self.resources.items():
            if step != "train" and (asked.nodes > 1 or asked.sharding != "ddp"):
                raise ValueError(f"resources.{step}: only train runs in several processes (nodes, sharding)")
        return self

    def dataset(self, name: str) -> DatasetConfig:
        """The settings of the dataset called ``name``.

        Raises:
            KeyError: there is no such dataset.
        """
        return {dataset.name: dataset for dataset in self.datasets}[name]
