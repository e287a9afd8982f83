"""The report says what the JSON files say, and calls a tie a tie."""

import json
import shlex

import numpy as np
import pytest

from robult_edge.errors import RobultError
from train import evaluate, figures, report, runs

LEVELS = [f"{level:g}" for level in report.NOISE]


def scores(accuracy):
    names = ("balanced_accuracy", "macro_f1", "ece", "coverage", "set_size")
    return {"n": 10, "accuracy": accuracy, **{name: 0.5 for name in names}}


def said(a, b, both, noisy=0.5):
    return {
        "subsets": {"a": scores(a), "b": scores(b), "a+b": scores(both)},
        "confidence_rises": 0.125,
        "rises_unprovoked": 0.0625,
        "noise": {level: {"mean": noisy, "worst": 0.4, "full": 0.6} for level in LEVELS},
    }


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "quick"
    folder.mkdir()
    settings = {"short": True, "rates": [0.001], "folds": 3, "epochs": 8, "steps": 20}
    settings["encoder"] = "conv1d"
    (folder / "settings.json").write_text(json.dumps(settings))

    def write(method, rule, variant, seed, scored):
        cell = {"dataset": "d", "labels": 0.05, "seed": seed, "method": method,
                "variant": variant, "labelled_windows": 98, "rules": {rule: scored}}  # fmt: skip
        (folder / f"d_0.05_{seed}_{method}_{variant}.json").write_text(json.dumps(cell))

    def many(seed, scored):
        cell = {"dataset": "d", "labels": 0.5, "seed": seed, "method": "supervised",
                "variant": "default", "labelled_windows": 980,
                "rules": {"late": scored}}  # fmt: skip
        (folder / f"d_0.5_{seed}_supervised_default.json").write_text(json.dumps(cell))

    costs = {
        "branch": {"conv1d": {"parameters": 58279, "flops": 1449000, "us": 46.4}},
        "kept": {"64": 210823},
    }
    (folder / "costs.json").write_text(json.dumps(costs))
    for seed, lift in enumerate((0.0, 0.02, 0.01)):
        many(seed, said(0.7 + lift, 0.45 + lift, 0.6))
        write("supervised", "late", "default", seed, said(0.5 + lift, 0.4 + lift, 0.6 + lift, 0.3))
        write("gmc", "gmc", "default", seed, said(0.5 + lift, 0.3 + 3 * lift, 0.7 - lift))
        write("robult", "robult", "default", seed, said(0.6 + lift, 0.5 + lift, 0.7 + lift))
        write("robult", "robult", "no-L_rec", seed, said(0.5 + lift, 0.4 + lift, 0.6 + lift))
    return folder


def test_tables_hold_what_the_json_says(results, tmp_path):
    report.render(results, tmp_path / "docs" / "RESULTS.md")
    text = (tmp_path / "docs" / "RESULTS.md").read_text()
    assert text.startswith("# Results\n\n```text\npython -m train.evaluate --quick")
    assert "which holds 15 of the 15 trainings" in text
    assert "short form" in text
    assert ": 3 with 5 %, 3 with 50 % of the labels;" in text
    # Robult: means .6, .62, .61; worst .5, .52, .51; all alive .7, .72, .71.
    assert "| Robult, pool | 0.610 ± 0.010 | 0.510 ± 0.010 | 0.710 ± 0.010 |" in text
    # The best comparator in the mean is late fusion, .1 below in each seed; with all alive GMC.
    assert "| Robult, pool | mean | supervised late fusion | +0.100 ± 0.000 | ahead |" in text
    assert "| Robult, pool | all alive | GMC | " not in text
    assert "| Robult, pool | full | GMC | +0.020 ± 0.050 | tie |" in text
    assert "| Robult, pool | no-L_rec | -0.100 ± 0.000 (behind) |" in text
    # With ten times the labels: means .58, .59, .585; worst .45, .47, .46.
    assert "| Robult, pool | worst | 0.510 ± 0.010 | 0.460 ± 0.010 | +0.050 ± 0.000 | ahead" in text
    assert "| conv1d | 58,279 | 1,449 | 46 |" in text
    assert "| 64 | 210,823 |" in text
    assert (tmp_path / "docs" / "results" / "d-0.05.png").stat().st_size > 10_000


def test_a_page_names_the_command_that_makes_it(results, tmp_path):
    settings = {"rates": [0.001], "folds": 3, "steps": 20}
    for short, epochs, encoder in ((True, 8, "conv1d"), (True, 30, "rocket"), (False, 25, "")):
        settings |= {"short": short, "epochs": epochs, "encoder": encoder}
        (results / "settings.json").write_text(json.dumps(settings))
        report.render(results, tmp_path / "RESULTS.md")
        text = (tmp_path / "RESULTS.md").read_text()
        made, rendered = text.splitlines()[3:5]
        grid = evaluate.asked(evaluate.command_line().parse_args(shlex.split(made)[3:]))
        assert (grid.encoder, grid.config.epochs) == (encoder, epochs)
        there, named = runs.cells(results), set(grid.cells())
        assert there == named if short else there < named  # the full form has all variants anyway
        assert rendered.startswith("python -m train.report ")
        assert (f"\n{20 * epochs} steps at most" in text) is short


def test_a_page_says_how_much_is_still_to_be_trained(results, tmp_path):
    (results / "d_0.05_1_gmc_default.json").unlink()
    report.render(results, tmp_path / "RESULTS.md")
    assert "which holds 14 of the 15 trainings" in (tmp_path / "RESULTS.md").read_text()


def test_few_labels_are_set_against_many_on_the_same_seeds(results, tmp_path):
    (results / "d_0.5_2_supervised_default.json").unlink()
    report.render(results, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    _, section = text.split("ten times as many:")
    row = section.split("| Robult, pool | mean |")[1].splitlines()[0]
    assert "0.610 ± 0.014" in row  # of seeds 0 and 1, as of late fusion
    assert "0.590 ± 0.009" in row


def test_how_much_is_luck_is_said_where_it_is_known(results, tmp_path):
    for seed, floor in enumerate((0.02, 0.04)):
        file = results / f"d_0.05_{seed}_robult_default.json"
        cell = json.loads(file.read_text())
        for scored in cell["rules"]["robult"]["subsets"].values():
            scored["ece_floor"] = floor
        file.write_text(json.dumps(cell))
    report.render(results, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "would show an ECE of\n0.030 ± 0.014 on so many windows." in text
    assert "Sets made with 98 labels cover 90 ± 3.0 %" in text
    assert "that 61 % of answers are right, so many labels\nshow to ± 4.9 points" in text


def test_sets_of_too_few_labels_hold_everything_and_nothing_is_said_of_them(results, tmp_path):
    for seed in range(3):
        file = results / f"d_0.05_{seed}_robult_default.json"
        cell = json.loads(file.read_text()) | {"labelled_windows": 8}
        for scored in cell["rules"]["robult"]["subsets"].values():
            scored["ece_floor"] = 0.02
        file.write_text(json.dumps(cell))
    report.render(results, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Luck alone" in text
    assert "Sets made" not in text


def test_the_overview_pairs_over_data_sets(results, tmp_path):
    cell = {"labels": 0.05, "seed": 0, "variant": "default", "labelled_windows": 9}
    for rule, variant, scored in (
        ("robult", "default", said(0.5, 0.5, 0.5)),
        ("robult", "no-L_rec", said(0.4, 0.6, 0.5)),
        ("gmc", "default", said(0.4, 0.3, 0.7)),
    ):
        for scores in scored["subsets"].values():
            scores["ece"] = 0.1
        other = cell | {"dataset": "e", "method": rule, "variant": variant, "rules": {rule: scored}}
        (results / f"e_0.05_0_{rule}_{variant}.json").write_text(json.dumps(other))
    report.render(results, tmp_path / "RESULTS.md")
    head, overview = (tmp_path / "RESULTS.md").read_text().split("## Over all data sets")
    assert ": 1 to 3 with 5 %, 3 with 50 % of the labels;" in head
    overview = overview.split("\n## ")[0]
    # Mean over subsets: +.1 on d, averaged over its seeds, and +.0333 on e.
    assert "| 5 % | GMC | +0.067 ± 0.424 (tie, 2 of 2) |" in overview
    # Without L_rec it loses .1 in each subset of d; on e one is worse and one better.
    row = "| 5 % | no-L_rec | -0.050 ± 0.635 (tie, 0 of 2) | -0.100 ± 0.000 (behind, 0 of 2) |"
    assert row in overview
    # ECE is .5 on d and .1 on e.
    assert "| GMC | 0.300 |" in overview
    assert "| Robult, pool | 0.300 |" in overview
    # Late fusion is known of one data set alone, so nothing is said of it.
    assert "late fusion" not in overview


def test_a_picture_shows_what_more_labels_bring(results, tmp_path, monkeypatch):
    for method, seeds in (("robult", (0, 2)), ("gmc", (2,))):
        for seed in seeds:
            cell = {"dataset": "d", "labels": 1.0, "seed": seed, "method": method,
                    "variant": "default", "labelled_windows": 1960,
                    "rules": {method: said(0.7, 0.8, 0.9)}}  # fmt: skip
            (results / f"d_1_{seed}_{method}_default.json").write_text(json.dumps(cell))
    drawn = {}

    def draw_labels(curves, titles, path):
        drawn.update(curves)
        draw(curves, titles, path)

    draw = report.plots.draw_labels
    monkeypatch.setattr(report.plots, "draw_labels", draw_labels)
    report.render(results, tmp_path / "RESULTS.md")
    # Over the seeds that Robult was run with at both shares: 0 and 2, means .6 and .61 at 5 %.
    assert drawn["d"]["robult"] == pytest.approx({0.05: 0.605, 1.0: 0.8})
    assert drawn["d"]["gmc"] == pytest.approx({0.05: 0.505, 1.0: 0.8})
    assert drawn["d"]["late"] == pytest.approx({0.05: 0.505}), "half of the labels are no share"
    assert "(results/labels.png)" in (tmp_path / "RESULTS.md").read_text()
    assert (tmp_path / "results" / "labels.png").stat().st_size > 10_000


def test_one_share_of_labels_makes_no_such_picture(results, tmp_path):
    report.render(results, tmp_path / "RESULTS.md")
    assert "labels.png" not in (tmp_path / "RESULTS.md").read_text()


def test_the_same_json_gives_the_same_report(results, tmp_path):
    page, picture = tmp_path / "RESULTS.md", tmp_path / "results" / "d-0.05.png"
    report.render(results, page)
    first = page.read_bytes(), picture.read_bytes()
    report.render(results, page)
    assert (page.read_bytes(), picture.read_bytes()) == first


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([0.1, 0.1, 0.1], "ahead"),
        ([-0.1, -0.11, -0.1], "behind"),
        ([0.1, -0.05, 0.02], "tie"),
        ([0.1], "one seed"),
        ([0.0, 0.0, 0.0], "tie"),
    ],
)
def test_a_difference_inside_its_interval_is_a_tie(differences, said):
    assert figures.verdict(*figures.interval(differences)) == said


def test_the_interval_is_students():
    mean, half = figures.interval([0.1, 0.2, 0.3, 0.4])
    assert mean == pytest.approx(0.25)
    # t(0.975, 3) = 3.1824 from a table; the standard error is 0.1291 / 2.
    assert half == pytest.approx(3.1824 * np.std([0.1, 0.2, 0.3, 0.4], ddof=1) / 2, rel=1e-4)


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(RobultError, match="holds no results"):
        report.read(tmp_path)
