"""Configs that cannot work: each is refused in milliseconds, with its line, by ``loraloom check``."""

from pathlib import Path

from tests.faults.harness import Fault, Sound, copy_of, parametrize, told

SMALL = "model: {id: model}\ndatasets: [{name: film, path: film}]\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
SECRET = "https://example.org/hooks/S3CR3T"


def text(content: str | bytes) -> object:
    return lambda project: project.text(content)


def added(line: str) -> object:
    """The small config with one more line."""
    return text(SMALL + line + "\n")


def of_dataset(settings: str) -> object:
    """The small config with other settings of its dataset."""
    return text(f"model: {{id: model}}\ndatasets: [{{name: film, {settings}}}]\n")


FAULTS = [
    # Words that no setting has, and settings in the wrong place.
    Fault(
        "unknown-key", added("training: {epoch: 3}"), (":3: training.epoch: unknown setting; did you mean 'epochs'?",)
    ),
    Fault("unknown-section", added("optimizer: {lr: 1}"), (":3: optimizer: unknown setting; known here: name, seed",)),
    Fault("key-twice", added("seed: 1\nseed: 2"), (":4: seed stands twice; only one can count",)),
    Fault("null-section", added("training:"), (":3: training: holds no settings; leave the section out",)),
    # Wrong types.
    Fault(
        "word-for-number",
        added("training: {epochs: many}"),
        (":3: training.epochs: should be a valid integer, not 'many'",),
    ),
    Fault("yes-for-number", added("training: {epochs: yes}"), (":3: training.epochs: should be a number, not True",)),
    Fault(
        "yes-for-fraction",
        added("training: {learning_rate: on}"),
        (":3: training.learning_rate: should be a number, not True",),
    ),
    Fault(
        "fraction-of-an-epoch",
        added("training: {epochs: 1.5}"),
        (":3: training.epochs: should be a valid integer, got a number with a fractional part, not 1.5",),
    ),
    Fault("list-for-section", added("training: [3]"), (":3: training: holds no settings; leave the section out",)),
    Fault(
        "mapping-for-list",
        text("model: {id: model}\ndatasets: {film: film}\n"),
        (":2: datasets: should be a valid list",),
    ),
    Fault(
        "number-for-text",
        text("model: {id: model, revision: 12345}\ndatasets: [{name: a, path: a}]\n"),
        (":1: model.revision: should be text; put it in quotes",),
    ),
    Fault(
        "date-for-text",
        text("model: {id: model, revision: 2024-01-01}\ndatasets: [{name: a, path: a}]\n"),
        (":1: model.revision: should be text; put it in quotes",),
    ),
    Fault(
        "nothing-but-a-list",
        text("- a\n- b\n"),
        ("holds no settings", "it should begin with lines such as 'name: my-run'"),
    ),
    # Contradictions.
    Fault(
        "path-and-hub", of_dataset("path: film, hub: glue"), (":2: datasets[0]: give exactly one of 'path' and 'hub'",)
    ),
    Fault("prompt-without-response", of_dataset("path: film, prompt: q"), ("needs both 'prompt' and 'response'",)),
    Fault(
        "same-name-twice",
        text("model: {id: m}\ndatasets: [{name: a, path: a}, {name: a, path: b}]\n"),
        ("another dataset is called 'a' already",),
    ),
    Fault("more-groups-than-datasets", added("partition: {groups: 3}"), ("3 groups cannot be made of 1 datasets",)),
    Fault("rising-lambdas", added("surrogate: {lambdas: [0.1, 1.0]}"), ("should fall from one to the next",)),
    Fault(
        "nodes-for-a-step-that-takes-one",
        added("resources: {extract: {nodes: 2}}"),
        ("resources.extract: only train runs in several processes",),
    ),
    # Impossible sizes.
    Fault("no-epochs", added("training: {epochs: 0}"), (":3: training.epochs: should be greater than 0, not 0",)),
    Fault("negative-rank", added("lora: {rank: -4}"), (":3: lora.rank: should be greater than 0, not -4",)),
    Fault(
        "rank-beyond-any-model", added("lora: {rank: 100000000}"), (":3: lora.rank: should be less than or equal to",)
    ),
    Fault(
        "dim-beyond-any-memory",
        added("gradients: {dim: 100000000000}"),
        (":3: gradients.dim: should be less than or equal to",),
    ),
    Fault("dropout-of-everything", added("lora: {dropout: 1}"), (":3: lora.dropout: should be less than 1, not 1",)),
    Fault("not-a-number", added("training: {learning_rate: .nan}"), ("should be a finite number, not nan",)),
    Fault("seed-too-large", added("seed: 99999999999"), ("should be below 4294967296 (2^32)",)),
    Fault("no-datasets", text("model: {id: model}\ndatasets: []\n"), (":2: datasets: should not be empty",)),
    Fault(
        "no-rows-wanted",
        of_dataset("path: film, max_rows: {train: 0}"),
        ("datasets[0].max_rows.train: should be greater than 0",),
    ),
    # Names that would leave their folder.
    Fault(
        "run-name-climbs", added("name: ../../etc"), (":3: name: should be lower-case letters, digits, '-' and '_'",)
    ),
    Fault(
        "dataset-name-climbs",
        text("model: {id: m}\ndatasets: [{name: ../film, path: film}]\n"),
        ("datasets[0].name: should be lower-case letters",),
    ),
    Fault(
        "absolute-name", added("name: /etc/passwd"), (":3: name: should be lower-case letters, digits, '-' and '_'",)
    ),
    Fault(
        "name-with-a-line-break",
        added('name: "a\\n"'),
        (":3: name: should be lower-case letters, digits, '-' and '_'",),
    ),
    Fault("experiment-climbs", added("tracking: {experiment: ../../../etc}"), (":3: tracking.experiment: ", "'..'")),
    # Files that are no config, and YAML meant to do harm.
    Fault("alias-bomb", text(BOMB + SMALL), ("is larger than any config when its aliases (*name) are written out",)),
    Fault(
        "nested-beyond-reason",
        text("a: " + "[" * 3000 + "]" * 3000 + "\n"),
        ("config.yaml is nested too deeply", "four levels"),
    ),
    Fault(
        "code-in-a-tag",
        added("seed: !!python/object/apply:os.system ['true']"),
        ("not valid YAML: could not determine a constructor", "remove the tag"),
    ),
    Fault("tab", added("training:\n\tepochs: 3"), ("not valid YAML", "indented with spaces, not tabs")),
    Fault("nul-byte", text(SMALL.encode() + b"seed: 1\x00\n"), ("not valid YAML", "#x0000")),
    Fault("not-utf8", text(SMALL.encode("utf-16")), ("is not UTF-8 text", "save it as UTF-8")),
    Fault("empty", text(""), ("config.yaml is empty", "loraloom init")),
    Fault("two-documents", text(SMALL + "---\n" + SMALL), ("a config is one document: remove the line '---'",)),
    Fault("larger-than-any-config", text("# " + "x" * 2_000_000 + "\n" + SMALL), ("is larger than 1 MiB",)),
    # Addresses and secrets.
    Fault(
        "password-in-an-address",
        added("tracking: {uri: 'https://me:hunter2@host'}"),
        ("holds a password; leave it out",),
    ),
    Fault(
        "webhook-in-the-config",
        added(f"alerts: {{webhook_env: '{SECRET}'}}"),
        ("alerts.webhook_env: should be an environment variable's name",),
    ),
    Fault(
        "unknown-store",
        added("storage: {uri: 'ftp://host/x'}"),
        ("'ftp://host/x' is neither a folder nor s3://bucket/prefix",),
    ),
    Fault("bucket-without-name", added("storage: {uri: 's3://'}"), ("storage.uri: 's3://' names no bucket",)),
    Fault("unknown-tracking", added("tracking: {uri: 'redis://host'}"), ("is no address for MLflow",)),
    Fault("cron-that-never-comes", added("schedule: {cron: '0 0 25 * * *'}"), ("hour '25' is not within 0-23",)),
]


@parametrize(FAULTS)
def test_a_config_that_cannot_work_is_refused_with_its_line(fault: Fault, sound: Sound, tmp_path: Path) -> None:
    project = copy_of(sound, tmp_path / "project")
    fault.do(project)
    message = told(project, "check")
    for words in fault.says:
        assert words in message
    for secret in ("hunter2", "S3CR3T"):
        assert secret not in message


def test_the_sound_project_is_fine(sound: Sound) -> None:
    code, _, errors = sound.command("check")
    assert (code, errors) == (0, "")
