"""The files, the page as text, the terminal and the command."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from distil.cli import main
from distil.report.comparison import Comparison, compare, print_comparison, write_comparison
from distil.report.comparison.style import group_hues, places
from distil.report.palette import METHODS, hues
from tests.unit.report.made_up_sweep import read, write, write_job, write_sweep
from tests.unit.report.test_html import Page

SFT = {0: 0.60, 1: 0.63, 2: 0.58}
KD = {0: 0.30, 1: 0.31, 2: 0.29}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "runs", {"sft": SFT, "kd": KD})


def test_results_are_equal_bytes_and_costs_are_elsewhere(tmp_path: Path) -> None:
    written = []
    for place, seconds, day in (("a", 10.0, 24), ("b/deeper", 17.3, 25)):
        runs = write_sweep(
            tmp_path / place,
            {"sft": SFT, "kd": KD},
            seconds=seconds,
            finished=f"2026-11-{day}T10:00:00+00:00",
        )
        write_comparison(compare([runs]), tmp_path / place)
        written.append(
            [(tmp_path / place / f"comparison{end}").read_bytes() for end in (".json", "_cost.json")]
        )
    assert written[0][0] == written[1][0]
    assert written[0][1] != written[1][1]
    assert b"seconds" not in written[0][0]
    assert str(tmp_path).encode() not in written[0][0]


def test_files_do_not_depend_on_the_order_of_folders(tmp_path: Path) -> None:
    runs = [
        write_job(tmp_path, method, seed, {"nll": value}, changes={"data.max_train_rows": rows})
        for method, by_seed, rows in (("kd", KD, 400), ("sft", SFT, 300), ("gkd", SFT, 500))
        for seed, value in by_seed.items()
    ]
    for number, order in enumerate((runs, runs[::-1], runs[4:] + runs[:4])):
        write_comparison(compare(order), tmp_path / str(number))
    for end in (".json", "_cost.json", ".csv", ".md", ".html"):
        assert len({(tmp_path / str(n) / f"comparison{end}").read_bytes() for n in range(3)}) == 1


def test_json_holds_what_the_comparison_says(sweep: Path) -> None:
    comparison = compare([sweep])
    write_comparison(comparison, sweep)
    results = read(sweep / "comparison.json")
    (nll,) = results["scores"]
    assert (nll["metric"], nll["best"], nll["higher_is_better"]) == ("nll", "kd", False)
    assert nll["groups"]["kd"]["by_seed"] == {"0": 0.30, "1": 0.31, "2": 0.29}
    difference = comparison.columns[0].cells["kd"].difference
    assert difference is not None
    assert nll["groups"]["kd"]["difference"]["high"] == difference.high
    assert [group["group"] for group in results["groups"]] == ["sft", "kd"]
    assert len(results["groups"][1]["runs"]) == 3
    costs = read(sweep / "comparison_cost.json")
    assert costs["held_equal"] == {"steps": True, "tokens": True, "seconds": True}
    assert {column["metric"] for column in costs["costs"]} >= {"train_seconds", "peak_memory", "tokens"}


def test_csv_has_a_line_a_group_and_number(sweep: Path) -> None:
    write_comparison(compare([sweep]), sweep)
    rows = list(csv.DictReader(io.StringIO((sweep / "comparison.csv").read_text(encoding="utf-8"))))
    scores = [row for row in rows if row["kind"] == "score"]
    assert [(row["group"], row["metric"], row["best"]) for row in scores] == [
        ("sft", "nll", ""),
        ("kd", "nll", "best"),
    ]
    assert float(scores[1]["mean"]) == pytest.approx(0.3)
    assert float(scores[1]["difference_high"]) < 0
    assert {row["kind"] for row in rows} >= {"score", "cost"}


def test_a_spreadsheet_runs_no_text_of_a_config(tmp_path: Path) -> None:
    for formula in ("=1+1", "@SUM(A1)"):
        write_job(tmp_path, "kd", 0, {"nll": 0.5}, changes={"model.student.path": formula})
    write_comparison(compare([tmp_path]), tmp_path)
    cells = [
        cell for row in csv.reader(io.StringIO((tmp_path / "comparison.csv").read_text())) for cell in row
    ]
    assert not any(re.match(r"[=@+]|-[^0-9]", cell) for cell in cells)
    assert "'=1+1" in cells


def test_names_and_units_of_metrics_do_nothing(tmp_path: Path) -> None:
    """They are somebody's words too: no formula in a spreadsheet, no markup, no end of a table's cell."""
    evil = "=1+1|<img src=x>*[a](b)*"
    for method in ("sft", "kd"):
        for seed in (0, 1):
            run = write_job(tmp_path, method, seed, {evil: 0.5 + seed / 10})
            results = read(run / "results.json")
            results["metrics"][evil]["unit"] = "@SUM(A1)|<b>"
            write(run, "results.json", results)
    write_comparison(compare([tmp_path]), tmp_path)
    text = (tmp_path / "comparison.csv").read_text(encoding="utf-8")
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert f"'{evil}" in cells
    assert not any(re.match(r"[=@+]|-[^0-9]", cell) for cell in cells)
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<(?!br>)|(?<!\\)\[", text)
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_markdown_tables_are_whole(sweep: Path) -> None:
    write_comparison(compare([sweep]), sweep)
    text = (sweep / "comparison.md").read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\|$\n?)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "**0.3000 ± 0.0248** ★" in text or "**0.300 ± 0.025** ★" in text
    assert "kd against sft: better in nll." in text


def test_the_page_escapes_and_holds_everything(tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>{{7*7}}"
    for method in ("sft", "kd"):
        for seed in (0, 1):
            changes = {"model.student.path": evil} if method == "kd" else {}
            write_job(tmp_path, method, seed, {"nll": 0.5 + seed / 10}, changes=changes, hostile=True)
    write_job(tmp_path, "kd", 5, {"nll": 1.0}, status="failed", reason=evil)
    page = Page(write_comparison(compare([tmp_path]), tmp_path))
    assert evil in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(tag == "img" or any(name.startswith("on") for name in attrs) for tag, attrs in page.tags)
    assert not any(attrs.get("src") or (attrs.get("href") or "#")[0] not in "#d" for _, attrs in page.tags)
    assert "Left out:" in page.text


def test_one_run_and_unranked_runs_have_a_page(tmp_path: Path) -> None:
    write_job(tmp_path, "kd", 0, {"nll": 0.3}, curve=[])
    assert "One group only" in Page(write_comparison(compare([tmp_path]), tmp_path)).text
    write_job(tmp_path, "sft", 0, {"accuracy": 0.3}, evaluation={"rows": 3})
    text = Page(write_comparison(compare([tmp_path], force=True), tmp_path)).text
    assert "Nothing is ranked here" in text
    assert "not separable" not in text
    assert "In short" not in text


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_the_terminal_says_what_differs_before_any_number(sweep: Path, width: int, encoding: str) -> None:
    write_sweep(sweep, {"gkd": KD}, changes={"trainer.max_steps": 9})
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_comparison(compare([sweep]), Console(file=file, width=width))
    file.flush()
    text = raw.getvalue().decode(encoding)
    assert max(map(len, text.splitlines())) <= width
    assert text.index("trainer.max_steps") < text.index("nll")
    assert "CONFOUND" in text
    assert "better" in text
    assert "not separable" in text  # kd and gkd score the same


@pytest.mark.parametrize("width", range(60, 141, 5))
def test_every_table_in_the_terminal_is_whole(tmp_path: Path, width: int) -> None:
    """In as many blocks as the width asks for, each with its rows' names, and no cell cut."""
    for method, score in {"sft": 0.4, "kd": 0.5}.items():  # of one seed: short cells, a long last row
        write_job(tmp_path, method, 0, {f"metric_{n}": score for n in range(9)})
    file = io.StringIO()
    print_comparison(compare([tmp_path]), Console(file=file, width=width))
    text = file.getvalue()
    assert "…" not in text
    starts = [line.split(" ", 1)[0] for line in text.splitlines()]
    assert starts.count("sft") == starts.count("kd") - 1 >= 2  # kd opens a sentence, too
    assert starts.count("best") >= 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_long_names_of_groups_are_read_in_the_terminal(tmp_path: Path, width: int) -> None:
    """The name of the best stands below its column, too: it takes no room from the names of the rows."""
    paths = [
        f"a-rather-long-directory-name-of-a-student-that-was-made-in-{place}" for place in ("may", "june")
    ]
    for path, score in zip(paths, (0.4, 0.5), strict=True):
        for seed in (0, 1, 2):
            write_job(
                tmp_path, "kd", seed, {"nll": score * (1 + seed / 99)}, changes={"model.student.path": path}
            )
    file = io.StringIO()
    print_comparison(compare([tmp_path]), Console(file=file, width=width))
    table = file.getvalue().partition("nll ↓")[2].partition("training ↓")[0]
    named = "".join(re.split(r"   +", line)[0] for line in table.splitlines())
    assert all(path in named for path in paths)
    assert "made-in-may" in table.partition("best")[2]


def test_what_stands_beside_the_numbers(tmp_path: Path) -> None:
    """The floor is explained where there is one; rows and lists that say nothing are not shown."""
    names = ["nll", *(f"ranked_{number}" for number in range(5))]
    for method in ("sft", "kd"):
        for seed in (0, 1):
            scores = dict.fromkeys(names, 0.5 + seed * (method == "kd"))
            write_job(tmp_path, method, seed, scores)
    comparison = compare([tmp_path])
    long = (
        f"The student is worse than the untouched one: {'by this and that, ' * 15}and fewer steps may help."
    )
    comparison = replace(comparison, notes=(*comparison.notes, long))
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=60))
    text = " ".join(file.getvalue().split())
    assert "nobody beats it but by chance, on few rows." in text
    assert "≈: not separable." in text
    assert file.getvalue().count("\nfloor") == 1  # of all tables, that of the metric which has one
    assert "Note: Two seeds a group" in text
    assert f"Note: {long}" in text, "wrapped, and not cut before what can be done"
    assert "kd against sft: not separable in any of 6 metrics." in text
    write_comparison(comparison, tmp_path)
    for page in ("comparison.md", "comparison.html"):
        written = (tmp_path / page).read_text(encoding="utf-8")
        assert "nobody beats it" in written
        assert "not separable in any of 6 metrics." in written


def said(comparison: Comparison, folder: Path) -> dict[str, str]:
    """What a reader sees in the terminal, the Markdown and the page."""
    file = io.StringIO()
    print_comparison(comparison, Console(file=file, width=80))
    page = Page(write_comparison(comparison, folder))
    markdown = (folder / "comparison.md").read_text(encoding="utf-8")
    texts = {"terminal": file.getvalue(), "md": markdown, "html": page.text}
    return {where: " ".join(text.replace("\\", "").split()) for where, text in texts.items()}


@pytest.mark.parametrize("rows", [8, 256])
def test_on_how_many_rows_is_said_everywhere_and_what_few_mean(tmp_path: Path, rows: int) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD}, evaluation={"rows": rows, "scored_tokens": 50 * rows})
    for where, text in said(compare([tmp_path]), tmp_path).items():
        assert f"on the same {rows} rows of the test split ({50 * rows:,} scored tokens)" in text, where
        assert "64 of them answered, greedy, at most 128 new tokens." in text, where
        assert ("The intervals over seeds do not include that." in text) == (rows == 8), where
        assert ("8 rows are few" in text) == (rows == 8), where


def test_of_intervals_nothing_is_said_where_there_are_none(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": {0: 0.5}, "kd": {0: 0.4}}, evaluation={"rows": 8})
    for where, text in said(compare([tmp_path]), tmp_path).items():
        assert "8 rows are few" in text, where
        assert "The intervals over seeds do not include that." not in text, where


def test_of_rows_that_differ_only_what_is_common_is_said(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT}, evaluation={"rows": 300})
    write_sweep(tmp_path, {"kd": KD})
    for where, text in said(compare([tmp_path], force=True), tmp_path).items():
        assert "Evaluated 64 of them answered" not in text, where
        assert "on the same" not in text, where


def test_verdicts_are_those_of_the_table_above_them(tmp_path: Path) -> None:
    """At the end kd is better, on the way it was worse: asked for the way, nobody reads of the end."""
    for method, by_seed, nll in (("sft", SFT, 0.3), ("kd", KD, 0.5)):
        for seed, value in by_seed.items():
            curve = [{"step": 400, "seconds": 9.0, "tokens": 9, "validation/nll_per_token": nll + seed / 100}]
            curve[0]["validation/nll_per_token"] += 0.001 * (method == "kd") * seed
            write_job(tmp_path, method, seed, {"nll": value}, curve=curve)
    at_the_end, on_the_way = "kd against sft: better in nll.", "kd against sft: worse in nll."
    for budget, told in ((None, at_the_end), ("steps", on_the_way)):
        texts = said(compare([tmp_path], budget=budget), tmp_path)
        for where, text in texts.items():
            assert [line for line in (at_the_end, on_the_way) if line in text] == [told], where
    assert texts["html"].index("At equal steps") < texts["html"].index("At the end of the runs")
    assert "the most that every run reached" in texts["html"].partition("kd against sft")[0]


def test_a_budget_that_no_curve_has_is_said(tmp_path: Path) -> None:
    write_job(tmp_path, "sft", 0, {"nll": 0.5}, curve=[])
    write_job(tmp_path, "kd", 0, {"nll": 0.4}, curve=[])
    texts = said(compare([tmp_path], budget="steps"), tmp_path)
    for where, text in texts.items():
        assert "can be read at equal steps: scores at the end." in text, where
        assert "student before" in text, "of the end are the references, too"


def test_sweeps_that_were_too_short_to_draw_say_so(tmp_path: Path) -> None:
    """One evaluation each: a table at an equal budget, and no picture of single dots."""
    for method, nll in (("sft", 0.5), ("kd", 0.4)):
        for seed in (0, 1):
            curve = [{"step": 8, "seconds": 2.0, "tokens": 80, "validation/nll_per_token": nll + seed / 100}]
            write_job(tmp_path, method, seed, {"nll": nll + seed / 50}, curve=curve)
    page = Page(write_comparison(compare([tmp_path]), tmp_path))
    assert "Too few values for a curve" in page.text
    assert "At equal steps" in page.text
    pictures = [a["aria-label"] or "" for tag, a in page.tags if tag == "svg" and a.get("class") == "curve"]
    assert not [label for label in pictures if " by steps" in label]


@pytest.mark.parametrize("took", [0, 3, 4])
def test_times_of_whole_runs_are_said_to_be_unequal_where_some_evaluated_for_all(
    tmp_path: Path, took: int
) -> None:
    write_sweep(tmp_path, {"sft": {0: 0.6, 1: 0.5}, "kd": {0: 0.3, 1: 0.2}})
    for run in sorted(path for path in tmp_path.iterdir())[:took]:
        cost = read(run / "cost.json") | {"scores_taken_over": {"teacher": "another"}}
        write(run, "cost.json", cost)
    comparison = compare([tmp_path])
    for where, text in said(comparison, tmp_path).items():
        assert ("In all: 3 of 4 runs took over scores" in text) == (took == 3), where
    assert "took over" not in (tmp_path / "comparison.json").read_text(encoding="utf-8"), "chance decides it"


def test_the_command(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(sweep)]) == 0
    names = {
        "comparison.html", "comparison.md", "comparison.csv", "comparison.json", "comparison_cost.json",
    }  # fmt: skip
    own = {path: path.read_bytes() for path in sweep.glob("comparison*")}
    assert {path.name for path in own} == names
    one, other = sorted(sweep.glob("kd-*"))[:2]
    capsys.readouterr()
    assert main(["compare", str(sweep), "--budget", "steps"]) == 0
    out = capsys.readouterr().out
    assert "On the validation rows, at 400 steps" in out
    for arguments in (["--budget", "steps", str(sweep)], [str(one), str(other)], [str(one)]):
        assert main(["compare", *arguments]) == 0
    assert {path: path.read_bytes() for path in own} == own, "another view does not take its place"
    views = [path for path in sweep.glob("comparison-*") if path.is_dir()]
    assert len(views) == 3
    assert all({path.name for path in view.iterdir()} == names for view in views)
    assert main(["compare", str(one), "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere" / "comparison.html").is_file()
    assert not list(one.glob("comparison*"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "FOLDER"),
        (["--budget", "money", "x"], "steps"),
        (["--basline", "kd", "x"], "unrecognized arguments"),
        (["nowhere"], "no such folder"),
    ],
)
def test_the_command_refuses_bad_input(
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_a_method_has_one_colour_everywhere(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD, "mine": KD})
    write_job(tmp_path, "kd", 0, {"nll": 0.1}, changes={"method.temperature": 4.0})
    comparison = compare([tmp_path])
    found = group_hues(comparison)
    assert found["kd temperature=2"] is found["kd temperature=4"] is METHODS["kd"]
    assert len({found["sft temperature=2"], found["kd temperature=4"], found["mine temperature=2"]}) == 3
    looks = places(comparison)
    assert looks["kd temperature=2"] != looks["kd temperature=4"]
    assert hues(["kd"])["kd"] is hues(["zzz", "gkd", "kd"])["kd"]
