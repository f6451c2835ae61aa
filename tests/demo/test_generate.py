"""The demo's datasets: reproducible, clean, and conflicting in the way they are meant to."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tokenizers import Tokenizer

from components.config_file import read_config
from pipelines.demo import generate as demo

CONFIG = Path(demo.__file__).parent / "config.yaml"


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, list[dict[str, str]]]]:
    return {name: demo.dataset(name) for name in demo.NAMES}


def test_names_are_three_families_times_three_domains() -> None:
    assert len(demo.NAMES) == len(set(demo.NAMES)) == 9
    assert {name.split("-")[0] for name in demo.NAMES} == {"witness", "evening", "praise"}


def test_same_seed_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    assert demo.generate(tmp_path / "here") == list(demo.NAMES)
    environment = os.environ | {"PYTHONHASHSEED": "123"}
    command = [sys.executable, "-m", "pipelines.demo.generate", str(tmp_path / "there")]
    subprocess.run(command, check=True, env=environment, cwd=CONFIG.parents[2])
    files = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.jsonl"))
    assert len(files) == 27
    for file in files:
        assert (tmp_path / "here" / file).read_bytes() == (tmp_path / "there" / file).read_bytes()


def test_another_seed_gives_other_texts() -> None:
    first, second = (demo.dataset("praise-film", seed)["train"] for seed in (0, 1))
    assert not {row["text"] for row in first} & {row["text"] for row in second[:20]}


def test_files_hold_the_rows(tmp_path: Path, rows: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    demo.generate(tmp_path)
    lines = (tmp_path / "evening-cafe" / "test.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows["evening-cafe"]["test"]


@pytest.mark.parametrize("name", demo.NAMES)
def test_sizes_labels_and_no_text_twice(name: str, rows: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    splits = rows[name]
    assert {split: len(found) for split, found in splits.items()} == demo.SIZES
    texts = [row["text"] for found in splits.values() for row in found]
    assert len(set(texts)) == len(texts)
    assert max(len(text.split()) for text in texts) <= 24
    grades = len(demo.SCALES[demo.FAMILIES[name.split("-")[0]]])
    for found in splits.values():
        for answer in demo.ANSWERS[:grades]:
            share = sum(row["label"] == answer for row in found) / len(found)
            assert abs(share - 1 / grades) < 0.08
        assert {row["label"] for row in found} == set(demo.ANSWERS[:grades])


@pytest.mark.parametrize("name", demo.NAMES)
def test_only_its_own_family_answers_by_the_time(name: str, rows: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    """Late is `yes` and early is `no` in the evening family but for the noise, and a coin's throw in the others."""
    found = [row for split in rows[name].values() for row in split]
    by_time = [(_time(row["text"]), row["label"]) for row in found]
    agree = [label == demo.ANSWERS[time] for time, label in by_time if time < 2]
    share = sum(agree) / len(agree)
    if name.startswith("evening"):
        assert 1 - 2 * demo.NOISE < share < 1
    else:
        assert abs(share - 0.5) < 0.12


def _time(text: str) -> int:
    """The grade of the time of day a text names, found by looking for every phrase."""
    grades = {
        grade
        for grade, phrases in enumerate(demo.SCALES["time"])
        for phrase in phrases
        if re.search(rf"\b{phrase}\b", text, re.IGNORECASE)
    }
    assert len(grades) == 1, text
    return grades.pop()


def test_grades_share_no_phrase() -> None:
    for scale in demo.SCALES.values():
        phrases = [phrase for grade in scale for phrase in grade]
        assert len(set(phrases)) == len(phrases)


def test_words_alone_help_but_do_not_suffice(rows: dict[str, dict[str, list[dict[str, str]]]]) -> None:
    """A bag of words and pairs: little across families, more alone, yet more with the whole family, never near all."""

    def accuracy(names: list[str]) -> float:
        """Mean test accuracy over ``names`` of one model trained on all of them."""
        train = [row for name in names for row in rows[name]["train"]]
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10.0, max_iter=2000))
        model.fit([row["text"] for row in train], [row["label"] for row in train])
        tests = [rows[name]["test"] for name in names]
        scores = [model.score([row["text"] for row in test], [row["label"] for row in test]) for test in tests]
        return float(sum(scores) / len(scores))

    everything = accuracy(list(demo.NAMES))
    families = [[name for name in demo.NAMES if name.startswith(family)] for family in demo.FAMILIES]
    family = sum(accuracy(names) for names in families) / len(families)
    alone = sum(accuracy([name]) for name in demo.NAMES) / len(demo.NAMES)
    assert everything < 0.67
    assert everything + 0.05 < alone
    assert alone + 0.04 < family < 0.88


def test_config_names_the_generated_datasets() -> None:
    config = read_config(CONFIG)
    assert tuple(dataset.name for dataset in config.datasets) == demo.NAMES
    assert {Path(dataset.path or "").parts[-2:] for dataset in config.datasets} == {
        ("data", name) for name in demo.NAMES
    }


def test_answers_have_tokens_of_their_own() -> None:
    tokenizer = Tokenizer.from_file(str(CONFIG.parent / "base_model" / "tokenizer.json"))
    tokens = [tokenizer.encode(f" {answer}", add_special_tokens=False).ids for answer in demo.ANSWERS]
    assert [len(ids) for ids in tokens] == [1, 1, 1]
    assert len({ids[0] for ids in tokens}) == 3
