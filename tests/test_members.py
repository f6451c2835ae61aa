"""Who may answer a dataset, and who does so first."""

from components.members import first_choice, members_of, own_group

GROUPS = [["film", "food"], ["mood"]]


def test_the_multi_task_adapter_is_a_member_where_it_is_trained() -> None:
    members = members_of(GROUPS, ["multitask", "per_dataset"])
    assert members == {"group-0": ["film", "food"], "group-1": ["mood"], "multitask": ["film", "food", "mood"]}
    assert {first_choice(members, name) for name in ("film", "mood")} == {"multitask"}
    assert [own_group(members, name) for name in ("film", "food", "mood")] == ["group-0", "group-0", "group-1"]


def test_without_it_the_own_group_comes_first() -> None:
    members = members_of(GROUPS, ["per_dataset"])
    assert list(members) == ["group-0", "group-1"]
    assert [first_choice(members, name) for name in ("film", "mood")] == ["group-0", "group-1"]


def test_one_group_of_everything_is_the_multi_task_adapter_itself() -> None:
    members = members_of([["film", "food"]], ["multitask"])
    assert list(members) == ["group-0"] and first_choice(members, "food") == "group-0"
