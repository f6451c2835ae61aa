"""From an ensemble folder to a loadable version, and from the version back to everything it was made from."""

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from components import model_versions, tracking
from components.config import RegistryConfig
from components.errors import UserError
from components.registry import register
from components.registry.aliases import moves
from components.registry.gate import Verdict
from components.registry.lineage import lineage
from components.serving.predict import EnsemblePredictor
from tests.tiny_ensemble import ADAPTERS, digest, write_base, write_ensemble

METRICS = {"accuracy": 0.75}
SETTINGS = RegistryConfig()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("anywhere")
    write_ensemble(folder, model)
    return folder


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    store = tmp_path_factory.mktemp("store")
    return tracking.connect(f"sqlite:///{store}/mlflow.db")


def pipeline_run(client, folder, name="desk"):
    """What the steps before registration leave in MLflow: a parent run and every adapter's version."""
    run_id = tracking.open_run(client, name, "run")
    uses = [tracking.DatasetUse(one, digest(one), "file:///x", {"train": 3}) for one in ("mood", "pair", "story")]
    tracking.log_datasets(client, run_id, uses)
    for kind in ("affinity", "partition"):
        tracking.log_folder(client, run_id, folder / "adapters" / "start", kind, digest(kind))
    versions = {}
    for adapter in ("start", "group-0", "group-1", "multitask"):
        with tracking.child_run(client, run_id, adapter) as child:
            tracking.log_folder(client, child, folder / "adapters" / adapter, "adapter", digest(adapter))
            tracking.log_datasets(client, child, uses[:1])
            versions[adapter] = model_versions.register_adapter(client, name, child, "adapter", digest(adapter), {})
    return run_id, versions


@pytest.fixture(scope="module")
def registered(client, folder):
    run_id, versions = pipeline_run(client, folder)
    return register.register_ensemble(client, "desk", run_id, folder, adapters=versions, metrics=METRICS)


@pytest.fixture(scope="module")
def local(client, registered):
    """Where the registered model's files are."""
    source = client.get_model_version_download_uri("desk", registered.version)
    return Path(source.removeprefix("file://"))


def rows():
    return pd.DataFrame(
        {
            "dataset": ["pair", "mood", "pair"],
            "text": ["a cat", "so glad", "rain"],
            "text_pair": ["an animal", None, "sun"],
        },
        index=[10, 11, 12],
    )


def test_the_version_says_what_it_was_made_from(client, registered):
    assert (registered.version, registered.changed) == ("1", True)
    assert register.with_alias(client, "desk", "challenger").version == "1"
    tags = registered.tags
    assert tags["git_sha"] == "c0ffee" and tags["seed"] == "7" and tags["base.quantization"] == "none"
    assert tags["dataset.mood.digest"] == digest("mood") and tags["start.digest"] == digest("start")
    assert tags["affinity.key"] == "affinity/1" and tags["partition.digest"] == digest("partition")
    assert tags["adapter.group-0.version"] == "2" and tags["adapter.group-0.digest"] == digest("group-0")
    assert json.loads(tags["adapter.group-0.boosters"]) == [digest("group-0-booster-0")]
    assert tags["metric.accuracy"] == "0.75"
    assert json.loads(tags["merged.mood"]) == {"labels": 0.25, "kl": 0.1, "rows": 4, "default": False, "test": None}
    assert register.served_merged(tags) == {}
    found = {"rows": 8, "labels": 0.0, "kl": 0.0, "exact": 0.5, "merged": 0.25}
    answering = {"merged.mood": json.dumps({"default": True, "test": found}), "merged.pair": tags["merged.mood"]}
    assert register.served_merged(answering) == {"mood": found}


def test_the_model_is_logged_under_the_parent_run(client, registered):
    run = client.get_run(registered.run_id)
    [output] = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert logged.source_run_id == registered.run_id and str(logged.status) == "READY"
    assert logged.experiment_id == run.info.experiment_id
    assert client.get_model_version("desk", "1").source == logged.artifact_location
    assert mlflow.active_run() is None


def test_nothing_is_pickled_and_the_base_is_not_packed(local):
    files = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pyc"))]
    assert {f"artifacts/ensemble/adapters/{name}/adapter_model.safetensors" for name in ADAPTERS} <= files
    assert [name for name in files if name.endswith(".safetensors") and "/adapters/" not in name] == []
    assert "code/components/language_model.py" in files
    pins = (local / "requirements.txt").read_text().split()
    assert f"mlflow=={mlflow.__version__}" in pins and not [pin for pin in pins if "+" in pin]
    assert f"bitsandbytes=={version('bitsandbytes')}" in pins, "the code imports it, whatever the quantization"


def test_the_loaded_model_predicts_what_the_ensemble_does(local, folder, model):
    loaded = mlflow.pyfunc.load_model(str(local))
    assert [column.name for column in loaded.metadata.signature.inputs] == ["dataset", "text", "text_pair"]
    frame = rows()
    answers = loaded.predict(frame)
    assert answers.columns.tolist() == ["label", "probability", "dataset"] and answers.index.tolist() == [10, 11, 12]
    full = loaded.predict(frame, params={"return_probabilities": True})
    ours = EnsemblePredictor.load(folder, model)
    pair = ours.predict("pair", {"text": ["a cat", "rain"], "text_pair": ["an animal", "sun"]})
    mood = ours.predict("mood", {"text": ["so glad"]})
    for answer, expected, labels in [
        (full.loc[10], pair[0], ours.labels("pair")),
        (full.loc[11], mood[0], ours.labels("mood")),
        (full.loc[12], pair[1], ours.labels("pair")),
    ]:
        np.testing.assert_allclose([answer["probabilities"][label] for label in labels], expected, atol=1e-6)
        assert answer["label"] == labels[int(expected.argmax())]
        assert answer["probability"] == pytest.approx(float(expected.max()), abs=1e-6)
    assert loaded.predict(frame.iloc[[1]].drop(columns="text_pair"))["label"].tolist() == [answers.loc[11, "label"]]
    for wrong, message in [({"dataset": ["weather"], "text": ["x"]}, "no dataset"), ({"dataset": ["mood"]}, "text")]:
        with pytest.raises(MlflowException, match=message) as raised:
            loaded.predict(pd.DataFrame(wrong))
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


def test_another_process_loads_it_by_alias_with_packed_code_and_without_pickle(client, registered, model, tmp_path):
    copy = tmp_path / "base"
    shutil.copytree(model.id, copy)
    code = (
        "import mlflow, pandas as pd\n"
        "loaded = mlflow.pyfunc.load_model('models:/desk@challenger')\n"
        "answers = loaded.predict(pd.DataFrame({'dataset': ['mood'], 'text': ['so glad']}))\n"
        "import components\n"
        "print(components.__file__, loaded.unwrap_python_model().predictor.base.config.id, answers['label'][0])\n"
    )
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": client.tracking_uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "LORALOOM_BASE_MODEL": str(copy),
    }
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    package, base, label = done.stdout.split()[-3:]
    assert package.endswith("/code/components/__init__.py") and not package.startswith(str(Path(__file__).parents[2]))
    assert base == str(copy) and label in ("negative", "positive")


def test_the_same_ensemble_is_registered_once(client, registered, folder, tmp_path):
    again = register.register_ensemble(client, "desk", registered.run_id, folder, adapters={}, metrics={})
    assert (again.version, again.changed) == ("1", True), "a second attempt of the same run"
    copy = tmp_path / "later"
    shutil.copytree(folder, copy)
    description = json.loads((copy / "ensemble.json").read_text())
    description |= {"git_sha": "beef", "seed": 8, "loraloom_version": "0.0.1", "results": {"mood": {}}}
    description["members"][0]["run_id"] = "another"
    (copy / "ensemble.json").write_text(json.dumps(description))
    later_run = tracking.open_run(client, "desk", "later")
    later = register.register_ensemble(client, "desk", later_run, copy, adapters={}, metrics={})
    assert (later.version, later.changed, later.run_id) == ("1", False, registered.run_id)
    assert client.get_run(later_run).outputs.model_outputs == []


def test_the_digest_follows_what_decides_predictions(folder):
    description = json.loads((folder / "ensemble.json").read_text())
    before = register.ensemble_digest(description)
    description["members"][0]["boosters"][0]["eta"] = 0.25
    assert register.ensemble_digest(description) != before
    described = json.loads((folder / "ensemble.json").read_text())
    for field, value in (("weights", [0.6, 0.4]), ("temperatures", 2.0)):
        changed = {**described, field: {**described[field], "mood": value}}
        assert register.ensemble_digest(changed) != before


def test_what_is_packed_for_serving_changes_the_version_but_not_the_answers(folder):
    description = json.loads((folder / "ensemble.json").read_text())
    digests = register.ensemble_digest(description), register.answers_digest(description)
    description["merged"]["mood"]["default"] = True
    description["base"]["folder"] = "base"
    packed = register.ensemble_digest(description), register.answers_digest(description)
    assert packed[0] != digests[0] and packed[1] == digests[1]
    description["weights"]["mood"] = [0.5, 0.3, 0.2]
    assert register.answers_digest(description) != digests[1]


def test_the_verdict_moves_the_champion(client, registered):
    assert register.champion(client, "desk") is None and register.champion(client, "no-such-model") is None
    register.promote(client, "desk", "1", Verdict("refused", "not better", {"difference": -0.1}), SETTINGS)
    assert register.champion(client, "desk") is None
    register.promote(client, "desk", "1", Verdict("promoted", "the first version", {"difference": 0.1}), SETTINGS)
    champion = register.champion(client, "desk")
    assert champion.version == "1" and champion.tags["gate.reason"] == "the first version"
    assert json.loads(champion.tags["gate.numbers"]) == {"difference": 0.1}
    second = client.create_model_version("desk", "file:///nowhere", registered.run_id)
    assert not register.is_judged(client, "desk", second.version, SETTINGS), "a step killed before the gate left it so"
    register.promote(client, "desk", second.version, Verdict("promoted", "better"), SETTINGS)
    assert [(one.version, one.instead_of) for one in moves(client, "desk")] == [("1", ""), (second.version, "1")]
    assert not register.is_judged(client, "desk", "1", SETTINGS), "it was judged when nobody served"
    register.promote(client, "desk", "1", Verdict("refused", "not better"), SETTINGS)
    assert register.is_judged(client, "desk", "1", SETTINGS)
    assert not register.is_judged(client, "desk", "1", RegistryConfig(margin=0.5)), "other settings, another verdict"
    register.promote(client, "desk", "1", Verdict("promoted", "rolled back by hand"), SETTINGS)
    assert register.champion(client, "desk").version == "1"


def test_fetch_brings_the_ensemble_folder(client, registered, folder, tmp_path):
    fetched = register.fetch(client, "desk", registered.version, tmp_path)
    assert (fetched / "ensemble.json").read_text() == (folder / "ensemble.json").read_text()
    assert sorted(path.name for path in (fetched / "adapters").iterdir()) == sorted([*ADAPTERS, "merged-mood"])


def test_from_a_version_back_to_everything(client, folder):
    run_id, versions = pipeline_run(client, folder, "walk")
    made = register.register_ensemble(client, "walk", run_id, folder, adapters=versions, metrics=METRICS)
    found = lineage(client, "walk", made.version)
    assert found["git_sha"] == "c0ffee" and found["run"]["id"] == run_id and found["aliases"] == ["challenger"]
    assert found["datasets"] == {name: digest(name) for name in ("mood", "pair", "story")}
    assert found["base"]["revision"] == "None" and len(found["base"]["digest"]) == 64
    assert found["metrics"] == METRICS and found["start"] == digest("start")
    root = client.get_run(run_id).info.artifact_uri
    assert found["artifacts"]["affinity"] == {
        "key": "affinity/1",
        "digest": digest("affinity"),
        "uri": f"{root}/affinity",
    }
    assert "uri" not in found["artifacts"]["features"], "features stay in the object store, under their key"
    adapter = found["adapters"]["group-0"]
    child = client.get_run(adapter["run_id"])
    assert child.data.tags["mlflow.parentRunId"] == run_id and child.info.run_name == "group-0"
    assert adapter["version"] == "2" and adapter["digest"] == digest("group-0")
    assert adapter["uri"] == f"{child.info.artifact_uri}/adapter" and adapter["inputs"] == {"mood": digest("mood")}
    assert adapter["datasets"] == ["mood", "story"] and adapter["boosters"] == [digest("group-0-booster-0")]
    assert adapter["git_sha"] == child.data.tags["mlflow.source.git.commit"]
    json.dumps(found)

    client.set_model_version_tag("walk-adapters", "2", "digest", digest("another"))
    client.delete_model_version("walk-adapters", "3")
    with pytest.raises(UserError) as raised:
        lineage(client, "walk", made.version)
    assert len(raised.value.problems) == 2
    assert "adapter group-0: version 2 of walk-adapters has another digest" in raised.value.problems[0]
    with pytest.raises(UserError, match="no version 99"):
        lineage(client, "walk", "99")
