"""The step `servable` on adapters of a tiny model, its measurements against the formula written out."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from components.artifacts import Artifact, publish
from components.config import ModelConfig, RunConfig, ServingConfig
from components.inputs import START, outputs_digest
from components.label_logits import obtain_logits
from components.language_model import attach_adapter, load_base, save_adapter
from components.object_store import LocalStore
from components.on_demand import OnDemand
from components.prepared import SPLITS, PreparedDataset
from components.serving.router import read_router
from components.serving.servable import disagreement, run
from components.step import Step, read_references, write_references
from components.tables import read_logits
from tests.conftest import perturb, plain
from tests.tiny_training import LORA, publish_datasets, tiny_config, toy_dataset

DATASETS = [toy_dataset("mood"), toy_dataset("tone", seed=1), toy_dataset("tune", seed=2, template="Song: {text}\n")]
WEIGHTS = {"mood": [0.4, 0.3, 0.3], "tone": [0.0, 0.0, 1.0], "tune": [1.0, 0.0, 0.0]}
TEMPERATURES = {"mood": 1.5, "tone": 1.0, "tune": 2.0}
SHRINKAGE = 0.5  # boosting's default


def publish_adapters(config: RunConfig, store: LocalStore) -> dict[str, Artifact]:
    """theta*, two groups, the multi-task adapter, and a booster of the first group."""
    base, made = load_base(config.model), {}
    for seed, label in enumerate(
        (START, "adapter/group-0", "adapter/group-1", "adapter/multitask", "booster/group-0-0")
    ):
        model = attach_adapter(base, LORA, seed)
        perturb(model, seed)
        made[label] = publish(
            store, label.split("/")[0], {"seed": seed}, lambda folder, m=model: save_adapter(m, folder, base) or {}
        )
        model.unload()
    return made


def logits_of(step: Step, adapters: dict[str, Artifact], dataset: PreparedDataset) -> None:
    """Logits under every adapter, as the steps before leave them."""
    for label, artifact in adapters.items():
        work, name = OnDemand(step), label.split("/")[-1]
        for split in SPLITS[1:]:
            compute = work.logits(artifact.folder, dataset, split)
            obtain_logits(step, outputs_digest(step, artifact.digest), dataset, split, compute, model=name)


class Ran:
    """One run of the step after those it reads from."""

    def __init__(self, folder: Path, model: ModelConfig, serving: ServingConfig) -> None:
        config = tiny_config(model, folder / "store", serving=serving)
        self.store, self.text = LocalStore(folder / "store"), config.model_dump_json()
        publish_datasets(self.store, DATASETS, folder / "datasets")
        self.adapters = publish_adapters(config, self.store)
        with Step("earlier", self.text, "run") as step:
            for dataset in DATASETS:
                logits_of(step, self.adapters, dataset)
            rows = {name: {"weights": row, "temperature": TEMPERATURES[name]} for name, row in WEIGHTS.items()}
            step.obtain(
                "weights", "weights", {}, lambda _: {"members": ["group-0", "group-1", "multitask"], "rows": rows}
            )
            for label, artifact in self.adapters.items():
                step.adopt(label, artifact)
            step.pass_on(folder / "earlier")
        write_references(folder / "nothing", {})
        nothing, earlier = folder / "nothing", folder / "earlier"
        run(
            self.text, "run", folder / "datasets", earlier, nothing, [nothing], [nothing], [nothing], nothing,
            folder / "out",
        )  # fmt: skip
        self.references, self.earlier = read_references(folder / "out"), read_references(earlier)

    def load(self, label: str) -> Artifact:
        with Step("look", self.text, "look") as step:
            return step.load(self.references | self.earlier, label)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Ran:
    return Ran(tmp_path_factory.mktemp("servable"), plain(llama_folder), ServingConfig(rank=5))


def test_only_datasets_of_several_adapters_are_merged(ran: Ran) -> None:
    assert [label for label in ran.references if label.startswith("merged/")] == ["merged/mood", "merged/tune"]
    # tune has one group, but a boosted one: its adapter, the booster and theta*.
    settings = json.loads((ran.load("merged/tune").folder / "adapter_config.json").read_text())
    assert settings["r"] == 5
    assert 0 < ran.load("merged/tune").facts["lost"] < 1


def by_formula(ran: Ran, name: str, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact and merged logits at the dataset's temperature, the former written out, and the labels."""
    tables = {
        part: read_logits(ran.load(f"logits/{part}/{name}/{split}").folder, "logits")
        for part in (START, "group-0", "group-1", "multitask", "group-0-0", f"merged-{name}")
    }
    z = {part: table.logits for part, table in tables.items()}
    boosted = z["group-0"] + SHRINKAGE * (z["group-0-0"] - z[START])
    first, second, third = WEIGHTS[name]
    exact = z[START] + first * (boosted - z[START]) + second * (z["group-1"] - z[START])
    exact += third * (z["multitask"] - z[START])
    return exact / TEMPERATURES[name], z[f"merged-{name}"] / TEMPERATURES[name], tables[START].label


@pytest.mark.parametrize("name", ["mood", "tune"])
def test_the_disagreement_is_that_of_the_formula(ran: Ran, name: str) -> None:
    exact, merged, _ = by_formula(ran, name, "validation")
    p, q = softmax(exact, axis=1), softmax(merged, axis=1)
    found = ran.load(f"disagreement/{name}").facts
    assert found["rows"] == 16
    assert found["labels"] == pytest.approx(np.mean(p.argmax(1) != q.argmax(1)))
    assert found["kl"] == pytest.approx(rel_entr(p, q).sum(1).mean(), rel=1e-4)


def test_where_a_merged_adapter_answers_both_ways_are_tried_on_the_test_rows(
    tmp_path: Path, llama_folder: Path
) -> None:
    ran = Ran(tmp_path, plain(llama_folder), ServingConfig(rank=1, max_disagreement=1, router=False))
    for name in ("mood", "tune"):
        exact, merged, label = by_formula(ran, name, "test")
        found = ran.load(f"served/{name}").facts
        assert found["exact"] == pytest.approx(np.mean(exact.argmax(1) == label))
        assert found["merged"] == pytest.approx(np.mean(merged.argmax(1) == label))
        assert found["rows"] == len(label) == 16
    assert ran.load("served/mood").facts["exact"] != ran.load("served/tune").facts["exact"], "or it says little"


def test_where_it_does_not_the_test_rows_are_left_alone(tmp_path: Path, llama_folder: Path) -> None:
    ran = Ran(tmp_path, plain(llama_folder), ServingConfig(rank=1, max_disagreement=0, router=False))
    differ = [name for name in ("mood", "tune") if ran.load(f"disagreement/{name}").facts["labels"] > 0]
    assert differ
    assert not [name for name in differ if f"served/{name}" in ran.references]


def test_the_router_knows_the_datasets(ran: Ran) -> None:
    artifact = ran.load("router")
    router = read_router(artifact.folder, artifact.facts["datasets"])
    assert router.names == ["mood", "tone", "tune"]
    assert set(artifact.facts["by_dataset"]) == set(router.names)
    assert artifact.facts["accuracy"] == pytest.approx(np.mean(list(artifact.facts["by_dataset"].values())))


def test_the_router_can_be_left_out(tmp_path: Path, llama_folder: Path) -> None:
    references = Ran(tmp_path, plain(llama_folder), ServingConfig(router=False)).references
    assert "router" not in references and "merged/mood" in references


def test_disagreement_of_equals_and_of_opposites() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert disagreement(logits, logits.astype(np.float32)) == pytest.approx({"labels": 0.0, "kl": 0.0}, abs=1e-9)
    p = 1 / (1 + np.exp(-np.array([2.0, 1.0])))
    kl = np.mean(p * np.log(p / (1 - p)) + (1 - p) * np.log((1 - p) / p))
    assert disagreement(logits, logits[:, ::-1].astype(np.float32)) == pytest.approx({"labels": 1.0, "kl": kl})
