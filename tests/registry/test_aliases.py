"""Promotion by hand, rollback and the history they leave, on a registry whose versions carry what ours carry."""

import shutil

import pytest

from components import tracking
from components.artifacts import canonical
from components.config import RegistryConfig
from components.errors import UserError
from components.registry import register
from components.registry.aliases import CHALLENGER, ROLLED_BACK, moves, promote_by_hand, roll_back
from components.registry.gate import Verdict
from components.registry.history import history

SETTINGS = RegistryConfig()
# Version -> its datasets' and groups' digests, theta*, average.
MADE = [
    ({"film": "f1", "food": "o1"}, ["g1", "h1"], "t1", 0.70),
    ({"film": "f2", "food": "o1"}, ["g2", "h1"], "t1", 0.75),
    ({"film": "f2", "news": "n1"}, ["g3", "h1"], "t2", 0.60),
]


def add_version(client, run_id, datasets, groups, start, metric):
    tags = {f"dataset.{name}.digest": digest for name, digest in datasets.items()}
    tags |= {f"adapter.group-{k}.digest": digest for k, digest in enumerate(groups)}
    tags |= {"adapter.multitask.digest": f"on everything at {start}", "adapter.booster-group-0-0.digest": metric}
    tags |= {"start.digest": start, "base.digest": "b", "metric.ensemble": repr(metric)}
    number = client.create_model_version("desk", "file:///nowhere", run_id, tags=tags).version
    client.set_registered_model_alias("desk", CHALLENGER, number)
    return str(number)


def judge(client, number, decision, difference=None):
    numbers = {} if difference is None else {"baseline": "champion", "difference": difference}
    register.promote(client, "desk", number, Verdict(decision, f"{decision} by the gate", numbers), SETTINGS)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty registry's database: to make its tables takes seconds, to copy it nothing."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    tracking.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def nobody(empty, tmp_path):
    return tracking.connect(f"sqlite:///{shutil.copy(empty, tmp_path)}")


@pytest.fixture
def client(nobody):
    """Three versions: the first two promoted by the gate, the third refused."""
    client = nobody
    client.create_registered_model("desk")
    run_id = tracking.open_run(client, "desk", "run")
    for made, decision, difference in zip(MADE, ("promoted", "promoted", "refused"), (None, 0.05, -0.15), strict=True):
        judge(client, add_version(client, run_id, *made), decision, difference)
    return client


class Stopped(Exception):
    """A process that died."""


class Stopping:
    """The client of a process that dies before its ``number``-th change to a version."""

    def __init__(self, client, number):
        self.client, self.left = client, number

    def __getattr__(self, name):
        if name.startswith("set_"):
            self.left -= 1
            if self.left == 0:
                raise Stopped
        return getattr(self.client, name)


def serving(client):
    found = register.champion(client, "desk")
    return found and found.version


def test_back_one_champion_at_a_time_and_no_further(client):
    assert serving(client) == "2"
    made = roll_back(client, "desk", by="ann", reason="complaints")
    assert (made.version, made.instead_of, serving(client)) == ("1", "2", "1")
    with pytest.raises(UserError, match="version 1 of desk replaced nobody"):
        roll_back(client, "desk", by="ann", reason="more complaints")
    assert serving(client) == "1"


def test_a_second_rollback_goes_further_back_and_not_forth_again(client):
    promote_by_hand(client, "desk", "3", by="bob", reason="a trial")
    assert roll_back(client, "desk", by="bob", reason="trial over").version == "2"
    assert roll_back(client, "desk", by="bob", reason="worse than I thought").version == "1"
    assert [(move.kind, move.instead_of, move.version, move.by) for move in moves(client, "desk")] == [
        ("promoted", "", "1", "gate"),
        ("promoted", "1", "2", "gate"),
        ("promoted", "2", "3", "bob"),
        ("rolled_back", "3", "2", "bob"),
        ("rolled_back", "2", "1", "bob"),
    ]


def test_the_gate_leaves_alone_what_a_person_took_back(client):
    roll_back(client, "desk", by="ann", reason="complaints")
    assert register.is_judged(client, "desk", "2", SETTINGS)
    assert register.is_judged(client, "desk", "2", RegistryConfig(margin=1.0)), "whatever the settings"
    assert not register.is_judged(client, "desk", "3", SETTINGS), "judged against version 2, which serves no more"
    promote_by_hand(client, "desk", "2", by="ann", reason="it was not to blame")
    assert serving(client) == "2" and ROLLED_BACK not in client.get_model_version("desk", "2").tags


def test_a_person_promotes_the_challenger_whatever_the_gate_said(client):
    made = promote_by_hand(client, "desk", None, by="bob", reason="the test rows were wrong")
    assert (made.version, made.instead_of, serving(client)) == ("3", "2", "3")
    tags = client.get_model_version("desk", "3").tags
    assert (tags["gate.decision"], tags["gate.reason"]) == ("refused", "refused by the gate"), "the verdict stands"
    with pytest.raises(UserError, match="version 3 of desk is the champion already"):
        promote_by_hand(client, "desk", "3", by="bob", reason="again")
    with pytest.raises(UserError, match="desk has no version 9"):
        promote_by_hand(client, "desk", "9", by="bob", reason="typo")
    with pytest.raises(UserError, match="no version of nothing is the challenger"):
        promote_by_hand(client, "nothing", None, by="bob", reason="typo")


def test_a_champion_that_was_deleted_cannot_come_back(client):
    client.delete_model_version("desk", "1")
    with pytest.raises(UserError, match="desk has no version 1"):
        roll_back(client, "desk", by="ann", reason="complaints")
    assert serving(client) == "2" and ROLLED_BACK not in client.get_model_version("desk", "2").tags


def test_nothing_serves(nobody):
    with pytest.raises(UserError, match="no version of desk is the champion"):
        roll_back(nobody, "desk", by="ann", reason="x")
    assert history(nobody, "desk") == {"name": "desk", "versions": [], "moves": []}


def test_the_history_says_what_changed_and_what_became_of_it(client):
    roll_back(client, "desk", by="ann", reason="complaints")
    found = history(client, "desk")
    first, second, third = found["versions"]
    assert first["changed"] is None and first["aliases"] == ["champion"] and first["against"] is None
    unmoved = {"added": [], "removed": [], "start": False, "base": False}
    assert second["changed"] == {**unmoved, "changed": ["film"], "trained": ["group-0"]}
    assert (second["against"], second["difference"], second["metrics"]) == ("1", 0.05, {"ensemble": 0.75})
    assert (second["decision"], second["rolled_back"], second["aliases"]) == ("promoted", "complaints", [])
    assert third["changed"] == {
        "added": ["news"],
        "removed": ["food"],
        "changed": [],
        "trained": ["group-0", "multitask"],
        "start": True,
        "base": False,
    }
    assert (third["decision"], third["aliases"]) == ("refused", ["challenger"])
    assert [move["kind"] for move in found["moves"]] == ["promoted", "promoted", "rolled_back"]
    canonical(found)  # JSON-able


@pytest.mark.parametrize(("decision", "changes", "ends"), [("promoted", 7, "4"), ("refused", 5, "2")])
def test_a_verdict_stopped_half_way_is_none(client, decision, changes, ends):
    """Wherever it stops: either all that matters is done, or the version is judged again."""
    number = add_version(client, client.get_model_version("desk", "1").run_id, {"film": "f4"}, ["g4"], "t1", 0.8)
    assert number == "4"
    for change in range(1, changes + 1):
        with pytest.raises(Stopped):
            judge(Stopping(client, change), number, decision)
        if register.is_judged(client, "desk", number, SETTINGS):
            assert serving(client) == ends
        else:
            assert serving(client) != number
    judge(client, number, decision)
    assert register.is_judged(client, "desk", number, SETTINGS)
    assert serving(client) == ends
