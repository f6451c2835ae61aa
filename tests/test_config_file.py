"""Every mistake in a config is named with its line, all of them at once."""

from pathlib import Path

import pytest

from components.config import RunConfig
from components.config_file import read_config, resolved
from components.errors import UserError
from tests.privileges import open_folder, without_privileges

SMALL = "model: {id: some/model}\ndatasets: [{name: a, path: data/a}]\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(folder: Path, text: str) -> list[str]:
    """The problems' lines, without the path in front: '12: training.epochs: ...'."""
    path = write(folder, text)
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert all(line.startswith(f"{path}:") for line in caught.value.problems)
    return [line.removeprefix(f"{path}:") for line in caught.value.problems]


def failure(folder: Path, text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        read_config(write(folder, text))
    return caught.value


def test_small_config_takes_all_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, SMALL))
    expected = RunConfig.model_validate(
        {"model": {"id": "some/model"}, "datasets": [{"name": "a", "path": str(tmp_path / "data/a")}]}
    )
    assert config == expected


def test_all_problems_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
seed: -1
model: {id: some/model, quantisation: nf4}
training:
  epochs: 0
  lerning_rate: 1
datasets:
  - {name: a, path: x}
  - {name: a, hub: y}
  - path: x
"""
    assert problems(tmp_path, text) == [
        "1: seed: should be greater than or equal to 0, not -1",
        "2: model.quantisation: unknown setting; did you mean 'quantization'?",
        "4: training.epochs: should be greater than 0, not 0",
        "5: training.lerning_rate: unknown setting; did you mean 'learning_rate'?",
        "8: datasets[1].name: another dataset is called 'a' already",
        "9: datasets[2].name: is required",
    ]


def test_missing_sections(tmp_path: Path) -> None:
    assert problems(tmp_path, "name: a\n") == ["1: datasets: is required", "1: model: is required"]


def test_setting_in_the_wrong_section(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, SMALL + "batch_size: 3\n")
    assert line == "3: batch_size: unknown setting; did you mean training.batch_size?"


def test_unknown_setting_without_a_neighbour_lists_the_known(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, SMALL + "schedule: {every: day}\n")[:1]
    assert line == "3: schedule.cron: is required"
    assert "3: schedule.every: unknown setting; known here: cron" in problems(
        tmp_path, SMALL + "schedule: {every: day}\n"
    )


def test_repeated_key(tmp_path: Path) -> None:
    text = SMALL + "training:\n  epochs: 1\n  epochs: 2\n"
    assert problems(tmp_path, text) == ["5: training.epochs stands twice; only one can count"]


def test_values_that_yaml_does_not_read_as_text(tmp_path: Path) -> None:
    text = "model: {id: some/model, revision: 1234}\ndatasets:\n  - {name: a, path: x, labels: [yes, maybe]}\n"
    assert problems(tmp_path, text) == [
        "1: model.revision: should be text; put it in quotes (unquoted, YAML reads 1234)",
        "3: datasets[0].labels[0]: should be text; put it in quotes (unquoted, YAML reads True)",
    ]


def test_arms_of_a_union_are_one_problem(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, SMALL + "partition: {groups: few}\n")
    assert line == "3: partition.groups: should be a valid integer or should be 'auto', not 'few'"


def test_empty_section(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, SMALL + "boosting:\n")
    assert line == "3: boosting: holds no settings; leave the section out, or give it some"


def test_what_is_required_cannot_be_left_out_or_empty(tmp_path: Path) -> None:
    assert problems(tmp_path, "model:\ndatasets: []\n") == [
        "1: model: holds no settings; give it some",
        "2: datasets: should not be empty",
    ]


def test_checks_between_settings_say_each_thing_once(tmp_path: Path) -> None:
    text = """\
model: {id: some/model}
datasets:
  - {name: a, path: x, hub: y}
  - {name: a, path: x, prompt: q}
partition: {groups: 3}
surrogate: {lambdas: [0.1, 0.3]}
"""
    assert problems(tmp_path, text) == [
        "3: datasets[0]: give exactly one of 'path' and 'hub'",
        "4: datasets[1]: a completion dataset needs both 'prompt' and 'response'",
        "4: datasets[1].name: another dataset is called 'a' already",
        "5: partition.groups: 3 groups cannot be made of 2 datasets",
        "6: surrogate.lambdas: should fall from one to the next: the path starts at the largest",
    ]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("training: {learning_rate: .inf}", "training.learning_rate: should be a finite number, not inf"),
        ("seed: 4294967296", "seed: should be below 4294967296"),
        ("schedule: {cron: 0 25 * * SUN}", "schedule.cron: '0 25 * * SUN': hour '25' is not within 0-23"),
        ("cluster: {endpoint: host:8888}", "cluster.endpoint: 'host:8888' should begin with http://"),
        ("cluster: {endpoint: 'http://me:hunter2@host'}", "cluster.endpoint: holds a password"),
        ("cluster: {secrets: {s3: {A-B: key}}}", "cluster.secrets.s3.A-B"),
        ("resources: {train: {shm: lots}}", "resources.train.shm: 'lots' is no amount"),
        ("resources: {train: {memory: 24 GB}}", "resources.train.memory: '24 GB' is no amount"),
        ("resources: {trian: {gpus: 1}}", "resources.trian: should be 'open_run', 'prepare'"),
        ("storage: {uri: 'gs://bucket'}", "storage.uri: 'gs://bucket' is neither a folder nor s3://"),
        ("storage: {endpoint_url: host:9000}", "storage.endpoint_url: 'host:9000' should begin with http://"),
        ("storage: {endpoint_url: 'http://me:hunter2@host'}", "storage.endpoint_url: holds a password"),
        ("tracking: {uri: mlruns}", "tracking.uri: 'mlruns' is no address for MLflow"),
        ("tracking: {uri: 'https://me:hunter2@host'}", "tracking.uri: holds a password"),
    ],
)
def test_single_values(tmp_path: Path, setting: str, says: str) -> None:
    (line,) = problems(tmp_path, SMALL + setting + "\n")
    assert line.startswith(f"3: {says}")
    assert "hunter2" not in line


@pytest.mark.parametrize("path", ["~/data", "$HOME/data", "${DATA}/a"])
def test_nothing_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv("DATA", "/data")
    text = f"model: {{id: some/model}}\ndatasets:\n  - name: a\n    path: {path!r}\n"
    (line,) = problems(tmp_path, text)
    assert line == f"4: datasets[0].path: {path!r}: '~' and environment variables are not expanded; write the path out"


def test_paths_start_at_the_configs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    text = """\
model: {id: model}
datasets:
  - {name: a, path: ../data/a}
  - {name: b, path: "s3://bucket/b"}
  - {name: c, hub: org/c}
storage: {uri: store, ca_bundle: ca.pem}
tracking: {uri: "sqlite:///runs.db"}
"""
    write(tmp_path / "sub", text)
    config = read_config(Path("sub/config.yaml"))
    assert config.model.id == str(tmp_path / "sub/model")
    assert [entry.path for entry in config.datasets] == [str(tmp_path / "data/a"), "s3://bucket/b", None]
    assert config.storage.uri == str(tmp_path / "sub/store")
    assert config.storage.ca_bundle == str(tmp_path / "sub/ca.pem")
    assert config.tracking.uri == f"sqlite:///{tmp_path}/sub/runs.db"


def test_absolute_addresses_stay(tmp_path: Path) -> None:
    text = SMALL + 'storage: {uri: "s3://b/p"}\ntracking: {uri: "sqlite:////srv/runs.db"}\n'
    config = read_config(write(tmp_path, text))
    assert (config.model.id, config.storage.uri, config.tracking.uri) == (
        "some/model",
        "s3://b/p",
        "sqlite:////srv/runs.db",
    )


def test_resolved_fills_only_what_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = read_config(write(tmp_path, SMALL))
    full = resolved(config, Path("root"))
    assert full.storage.uri == str(tmp_path / "root/store")
    assert full.tracking.uri == f"sqlite:///{tmp_path}/root/mlflow.db"
    assert resolved(full, Path("elsewhere")) == full


@pytest.mark.parametrize(
    ("text", "what", "remedy"),
    [
        ("a: [1\n", "config.yaml:2:1: not valid YAML: expected ',' or ']'", "look at the indentation"),
        ("a:\n\tb: 1\n", "config.yaml:2:1: not valid YAML: found character '\\t'", "spaces, not tabs"),
        ("a: !!python/name:os.system\n", "could not determine a constructor for the tag", "remove the tag"),
        ("a: 2024-13-45\n", "not valid YAML: month must be in 1..12", "in quotes"),
        ("# nothing\n", "is empty", "loraloom init"),
        ("- a\n- b\n", "holds no settings", "name: my-run"),
        ("a: 1\n---\nb: 2\n", "found another document", "one document"),
        ("[" * 1000, "nested too deeply", "four levels"),
        ("&a [*a]", "aliases", "without aliases"),
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str, what: str, remedy: str) -> None:
    error = failure(tmp_path, text)
    assert what in error.what
    assert remedy in error.remedy


def test_alias_bomb_is_refused_without_being_expanded(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 12)]  # 10^12 leaves
    assert "larger than any config" in failure(tmp_path, "\n".join(levels)).what


def test_a_harmless_alias_works(tmp_path: Path) -> None:
    text = (
        "model: {id: some/model}\ndatasets:\n  - &one {name: a, path: x, metric: macro_f1}\n  - {<<: *one, name: b}\n"
    )
    config = read_config(write(tmp_path, text))
    assert [(entry.name, entry.metric) for entry in config.datasets] == [("a", "macro_f1"), ("b", "macro_f1")]


def test_missing_folder_large_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no config file .*none\.yaml"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="is a folder"):
        read_config(tmp_path)
    assert "larger than 1 MiB" in failure(tmp_path, "#" * (1 << 20) + "\n").what
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 3\)"):
        read_config(tmp_path / "binary.yaml")


@pytest.mark.parametrize("path", ["config.yaml", "shut/config.yaml"])
def test_a_config_that_may_not_be_read(path: str) -> None:
    with open_folder() as folder:
        (folder / "shut").mkdir()
        for name in ("config.yaml", "shut/config.yaml"):
            (folder / name).write_text(SMALL)
            (folder / name).chmod(0)
        (folder / "shut").chmod(0)
        with without_privileges(), pytest.raises(UserError) as caught:
            read_config(folder / path)
    assert caught.value.what == f"{folder / path} cannot be read: Permission denied"
    assert caught.value.remedy == "let the user that runs loraloom read it"
