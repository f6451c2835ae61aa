"""Figures: what is drawn, in which order, and that text cannot break them."""

from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from components.ensemble import figures
from components.ensemble.figures import Image, draw_figures
from tests.ensemble.summary_example import GROUPS, NAMES, example_figures, example_summary

ORDERED = [name for group in GROUPS for name in group]


@pytest.fixture(scope="module")
def images() -> dict[str, Image]:
    return example_figures()


def texts(image: Image) -> list[str]:
    root = ElementTree.fromstring(image.svg)
    return ["".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_every_figure_comes_in_both_formats(images):
    assert list(images) == ["affinity", "groups", "results", "weights", "curves"]
    for image in images.values():
        assert image.png.startswith(b"\x89PNG\r\n") and len(image.png) > 10_000
        assert ElementTree.fromstring(image.svg).tag.endswith("svg")


def test_rows_and_columns_stand_in_group_order(images):
    shown = [text for text in texts(images["affinity"]) if text in NAMES]
    assert shown == ORDERED * 2
    rows = [text.split(" (T ") for text in texts(images["weights"]) if " (T " in text]
    temperatures = dict(zip(NAMES, example_summary()["weights"]["temperatures"], strict=True))
    assert rows == [[name, f"{temperatures[name]:.3g})"] for name in ORDERED]
    assert "banking (F1)" in texts(images["results"]) and "average" in texts(images["results"])


def test_cells_hold_the_reordered_matrix_and_boxes_enclose_the_groups():
    summary = example_summary()
    figure = figures.affinity_heatmap(summary)
    axes = figure.axes[0]
    matrix = np.array(summary["affinity"]["matrix"])
    drawn = np.asarray(axes.collections[0].get_array()).reshape(16, 16)
    for i, j in [(0, 1), (3, 9), (15, 14)]:
        assert drawn[i, j] == matrix[NAMES.index(ORDERED[i]), NAMES.index(ORDERED[j])]
    boxes = [(patch.get_x(), patch.get_y(), patch.get_width()) for patch in axes.patches]
    assert boxes == [(0, 0, 4), (4, 4, 4), (8, 8, 3), (11, 11, 3), (14, 14, 2)]
    assert axes.collections[0].norm(0) == 0.5


def test_the_chosen_number_of_groups_is_marked():
    axes = figures.group_curve(example_summary()).axes[0]
    x, y = axes.lines[-1].get_data()
    assert (list(x), list(y)) == ([5.0], [0.8117])


def test_dots_and_intervals_are_the_results():
    summary = example_summary()
    axes = figures.result_dots(summary).axes[0]
    ensemble = next(line for line in axes.lines if line.get_label() == "ensemble")
    expected = [summary["average"]["ensemble"]["metric"]["value"]]
    kinds = {one["name"]: one["metric"] for one in summary["datasets"]}
    expected += [summary["results"][name]["ensemble"][kinds[name]]["value"] for name in ORDERED]
    np.testing.assert_allclose(ensemble.get_xdata(), 100 * np.array(expected))


def test_drawing_is_deterministic_and_leaves_global_settings_alone(images):
    before = dict(matplotlib.rcParams)
    again = draw_figures({key: example_summary()[key] for key in ("partition", "groups")})
    assert again == {"groups": images["groups"]}
    assert dict(matplotlib.rcParams) == before


def test_only_what_there_is_data_for():
    assert draw_figures({"name": "empty", "affinity": None, "partition": None}) == {}


def test_names_are_text_and_not_markup_or_formulas():
    name = "<b>&$x_1$</b>"
    summary = {"affinity": {"datasets": [name, "b"], "matrix": [[1.0, 0.2], [0.1, 1.0]]}, "groups": [["b", name]]}
    assert texts(draw_figures(summary)["affinity"]).count(name) == 2


def test_many_datasets_lose_their_numbers_and_names_but_not_their_groups():
    names = [f"client-{k}" for k in range(80)]
    matrix = np.random.default_rng(0).normal(size=(80, 80)).tolist()
    summary = {"affinity": {"datasets": names, "matrix": matrix}, "groups": [names[:50], names[50:]]}
    image = draw_figures(summary)["affinity"]
    assert not [text for text in texts(image) if text.startswith("client")]
    assert len(image.svg) < 200_000 and len(figures.affinity_heatmap(summary).axes[0].patches) == 2
