"""Made-up run directories in, groups, differences and verdicts out."""

from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from scipy import stats

from distil.engine.checkpoints import seal
from distil.report.comparison import print_comparison, write_comparison
from distil.report.comparison.compare import Comparison, compare
from distil.report.comparison.runs import LeftOut
from distil.report.comparison.table import Cell
from distil.report.comparison.words import best_line
from distil.report.html import render
from distil.report.run_directory import GONE, Metric, read_run
from distil.system.locks import alone
from distil.types import InputError
from tests.unit.report.made_up_sweep import write_job, write_sweep

SFT = {0: 0.60, 1: 0.63, 2: 0.58}
KD = {0: 0.30, 1: 0.31, 2: 0.29}
CLOSE = {0: 0.61, 1: 0.60, 2: 0.60}


def cell(comparison: Comparison, group: str, metric: str = "nll") -> Cell:
    return next(column for column in comparison.columns if column.metric.name == metric).cells[group]


def keys_of(comparison: Comparison, kind: str) -> list[str]:
    return [each.key for each in comparison.differences if each.kind == kind]


def test_seeds_fold_into_intervals_and_paired_differences(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD, "revkd": CLOSE})
    comparison = compare([tmp_path])
    assert [group.label for group in comparison.groups] == ["sft", "kd", "revkd"]
    assert comparison.baselines == {"sft": None, "kd": "sft", "revkd": "sft"}
    for group, values in {"sft": SFT, "kd": KD, "revkd": CLOSE}.items():
        got = cell(comparison, group).estimate
        low, high = stats.t.interval(
            0.95, 2, loc=sum(values.values()) / 3, scale=stats.sem(list(values.values()))
        )
        assert got is not None
        assert (got.low, got.high, got.n) == pytest.approx((low, high, 3), rel=1e-9)
    for group, values in {"kd": KD, "revkd": CLOSE}.items():
        test = stats.ttest_rel(list(values.values()), list(SFT.values()))
        got = cell(comparison, group).difference
        assert got is not None
        assert (got.low, got.high) == pytest.approx(tuple(test.confidence_interval(0.95)), rel=1e-9)
    assert cell(comparison, "kd").verdict == "better"
    assert cell(comparison, "revkd").verdict == "not separable"
    assert cell(comparison, "sft").difference is None
    (nll,) = comparison.columns
    assert (nll.best, nll.leader, nll.rivals) == ("kd", "kd", ())


def test_the_best_is_not_named_where_the_interval_holds_zero(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "revkd": CLOSE})
    (nll,) = compare([tmp_path]).columns
    assert stats.ttest_rel(list(SFT.values()), list(CLOSE.values())).pvalue > 0.05
    assert nll.best is None
    assert nll.leader is not None
    assert nll.rivals == tuple({"sft", "revkd"} - {nll.leader})


def test_higher_is_better_turns_the_verdict(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD}, metric="accuracy")
    comparison = compare([tmp_path])
    assert cell(comparison, "kd", "accuracy").verdict == "worse"
    assert comparison.columns[0].best == "sft"


def test_neither_direction_has_no_best(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD}, metric="response_tokens")
    (column,) = compare([tmp_path]).columns
    assert column.leader is None
    assert column.cells["kd"].verdict == ""
    assert column.cells["kd"].difference is not None


def test_unequal_seeds_are_paired_where_both_ran(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": {1: 0.31, 2: 0.29, 7: 0.33}})
    comparison = compare([tmp_path])
    got = cell(comparison, "kd")
    assert got.estimate is not None
    assert got.estimate.n == 3
    assert got.difference is not None
    assert got.difference.n == 2
    assert got.difference.mean == pytest.approx((0.31 - 0.63 + 0.29 - 0.58) / 2)
    assert any("do not have the same seeds" in note for note in comparison.notes)


def test_without_common_seeds_nothing_is_told_apart(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": {0: 0.6, 1: 0.61}, "kd": {2: 0.1, 3: 0.11}})
    comparison = compare([tmp_path])
    assert cell(comparison, "kd").difference is None
    assert comparison.columns[0].best is None


def test_a_missing_job_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": {0: 0.30, 1: 0.31}})
    write_job(tmp_path, "kd", 2, {"nll": 0.29}, status="failed", reason="Out of memory.\nHalve it.")
    comparison = compare([tmp_path])
    (left,) = comparison.left_out
    assert left.run.startswith("kd-embedded-none-s2")
    assert left.why == "failed: Out of memory. Halve it."
    got = cell(comparison, "kd").difference
    assert got is not None
    assert got.n == 2
    assert "1 run is left out: a mean of those that ended may flatter." in comparison.notes


def test_a_ruined_student_is_not_ranked(tmp_path: Path) -> None:
    """Of such runs all scores are the same, to the last digit, and may be the best ones there are."""
    write_sweep(tmp_path, {"sft": SFT})
    job = write_job(tmp_path, "kd", 0, {"nll": 0.1}, changes={"trainer.learning_rate": 1e30})
    scored = json.loads((job / "results.json").read_text(encoding="utf-8"))
    (job / "results.json").write_text(json.dumps({**scored, "ruined": True}), encoding="utf-8")
    comparison = compare([tmp_path])
    assert [group.label for group in comparison.groups] == ["sft"]
    (left,) = comparison.left_out
    assert "its student is ruined" in left.why


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_only_done_runs_are_ranked(tmp_path: Path, status: str) -> None:
    write_sweep(tmp_path, {"sft": SFT})
    run = write_job(tmp_path, "kd", 0, {"nll": 0.1}, status=status)
    with alone(run, None):
        comparison = compare([tmp_path])
    assert [group.label for group in comparison.groups] == ["sft"]
    assert [left.why for left in comparison.left_out] == [status]
    gone = [left.why for left in compare([tmp_path]).left_out]
    assert gone == [GONE if status == "running" else status], "no process has it any more"


def test_a_run_without_a_value_is_not_averaged_away(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": {0: 0.30, 1: 0.31}})
    assert compare([tmp_path]).columns[0].best == "kd"
    write_job(tmp_path, "kd", 2, {"nll": None})
    comparison = compare([tmp_path])
    assert cell(comparison, "kd").estimate is None
    assert cell(comparison, "kd").difference is None
    assert comparison.columns[0].best is None


def test_a_group_without_a_value_is_nobodys_rival(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"gkd": SFT, "kd": KD, "revkd": {0: 0.61, 1: 0.64}})
    run = write_job(tmp_path, "revkd", 2, {"nll": None})
    comparison = compare([tmp_path])
    (nll,) = comparison.columns
    assert (nll.best, nll.rivals, nll.unvalued) == ("kd", (), ("revkd",))
    assert best_line(nll) == "best: kd; no value: revkd"
    assert f"{run.name}: no finite value of nll." in comparison.notes


def test_equal_means_tie_for_the_lead(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"gkd": {0: 0.5, 1: 0.25}, "kd": {0: 0.25, 1: 0.5}, "revkd": {0: 0.25, 1: 0.75}})
    (nll,) = compare([tmp_path]).columns
    assert best_line(nll) == "gkd, kd tie for the lead, not separable from revkd"
    write_job(tmp_path, "gkd", 2, {"nll": 0.375})  # one mean, not of the same seeds
    (nll,) = compare([tmp_path]).columns
    assert " leads, not separable from " in best_line(nll)


def test_nothing_is_held_against_a_baseline_that_lost_a_run(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": {0: 0.60, 1: 0.63}, "kd": KD})
    write_job(tmp_path, "sft", 2, {"nll": None})
    got = cell(compare([tmp_path]), "kd")
    assert got.estimate is not None
    assert got.difference is None
    assert got.verdict == ""


def test_who_leads_is_told_over_common_seeds(tmp_path: Path) -> None:
    """The seeds that kd alone ran are easy: its mean is best, and it is worse wherever both ran."""
    write_sweep(
        tmp_path,
        {
            "sft": {0: 0.60, 1: 0.63, 2: 0.58},
            "kd": {0: 0.65, 1: 0.68, 2: 0.631, 3: 0.1, 4: 0.1},
        },
    )
    comparison = compare([tmp_path])
    kd, sft = cell(comparison, "kd"), cell(comparison, "sft")
    assert kd.estimate is not None
    assert sft.estimate is not None
    assert kd.estimate.mean < sft.estimate.mean
    assert kd.verdict == "worse"
    assert comparison.columns[0].best == "sft"


@pytest.mark.parametrize("name", ["results.json", "cost.json", "metrics.jsonl"])
@pytest.mark.parametrize("huge", ["1e308", "-1e308", "1" + "0" * 400])
def test_numbers_that_nothing_can_be_reckoned_with_count_as_none(
    tmp_path: Path, name: str, huge: str
) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD})
    for seed in (0, 1):
        run = next(tmp_path.glob(f"kd-*-s{seed}-*"))
        text = (run / name).read_text(encoding="utf-8")
        text = re.sub(
            r'("nll": |"train": |"tokens": |"validation/nll_per_token": )[\d.]+', rf"\g<1>{huge}", text
        )
        assert huge in text
        (run / name).write_text(text, encoding="utf-8")
    comparison = compare([tmp_path])
    write_comparison(comparison, tmp_path)
    print_comparison(comparison, Console(file=io.StringIO(), width=80))
    if name == "results.json":
        assert cell(comparison, "kd").estimate is None
        assert sum("no finite value of nll" in note for note in comparison.notes) == 2


def test_a_format_may_not_ask_for_a_billion_digits(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT})
    for run in tmp_path.iterdir():
        text = (run / "results.json").read_text(encoding="utf-8")
        (run / "results.json").write_text(text.replace('".3f"', '".1000000000f"'), encoding="utf-8")
    assert compare([tmp_path]).columns[0].metric.format == Metric.format


def test_one_seed_each(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": {0: 0.6}, "kd": {0: 0.3}})
    comparison = compare([tmp_path])
    got = cell(comparison, "kd")
    assert got.difference is not None
    assert got.difference.low is None
    assert got.verdict == "not separable"
    assert comparison.columns[0].best is None
    assert "One seed a group" in comparison.notes[0]


def notes_of(folder: Path) -> str:
    return "\n".join(compare([folder]).notes)


def test_one_difference_in_all_seeds_is_no_certainty(tmp_path: Path) -> None:
    """A degenerate interval would leave zero out; what it is, and why it does not count, is said."""
    for method, gap in (("sft", 0.0), ("kd", 0.125)):
        for seed, nll in SFT.items():
            write_job(tmp_path, method, seed, {"nll": nll - gap * seed, "accuracy": seed / 4 + gap})
    comparison = compare([tmp_path])
    got = cell(comparison, "kd", "accuracy")
    assert got.difference is not None
    assert (got.difference.low, got.difference.mean, got.difference.high) == (0.125, 0.125, 0.125)
    assert got.verdict == "not separable"
    assert comparison.columns[1].best is None
    (note,) = [note for note in comparison.notes if "spread" in note]
    assert note.startswith("kd against sft: the difference in accuracy is the same in all seeds.")


def test_seeds_that_change_nothing_count_for_one_run(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": dict.fromkeys(SFT, 0.5), "kd": dict.fromkeys(SFT, 0.25)})
    comparison = compare([tmp_path])
    assert cell(comparison, "kd").verdict == "not separable"
    told = [note for note in comparison.notes if "to the last digit" in note]
    assert [note.partition(":")[0] for note in told] == ["sft", "kd"]
    assert "seeds 0, 1, 2" in told[0]
    assert "the same in all seeds" not in notes_of(tmp_path), "said already, of both of them"


def test_seeds_that_spread_are_left_in_peace(tmp_path: Path) -> None:
    """Also where they are equal to another group's: that difference is zero, whatever its spread."""
    write_sweep(tmp_path, {"sft": SFT, "kd": KD, "gkd": SFT})
    assert "spread" not in notes_of(tmp_path)
    assert "digit" not in notes_of(tmp_path)


@pytest.mark.parametrize(("before", "worse"), [(0.2, "sft, kd"), (0.5, "sft"), (0.59, ""), (0.8, "")])
def test_who_ended_worse_than_untouched_is_named(tmp_path: Path, before: float, worse: str) -> None:
    """In every seed: sft scores from .58 to .63, kd .3. The best of such groups is no gain."""
    write_sweep(tmp_path, {"sft": SFT, "kd": KD}, before=before)
    told = [note for note in compare([tmp_path]).notes if "untouched" in note]
    wanted = f"At the end worse than the untouched student, in every seed: {worse}, in nll."
    assert told == ([wanted] if worse else [])


def test_the_runs_own_notes_are_not_lost(tmp_path: Path) -> None:
    """Said once: what all say, and of a group what differs in its numbers alone."""
    write_sweep(tmp_path, {"sft": SFT, "kd": KD})
    for run in sorted(tmp_path.iterdir()):
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
        seed = int(run.name.rpartition("-s")[2][0])
        own = [f"{seed + 1} steps were left out."] if run.name.startswith("kd") else []
        told = results | {"notes": ["Teacher and student share 512 ids.", *own]}
        (run / "results.json").write_text(json.dumps(told), encoding="utf-8")
    notes = compare([tmp_path]).notes
    assert [note for note in notes if "512" in note] == ["Teacher and student share 512 ids."]
    assert [note for note in notes if "left out" in note] == [
        "kd, seed 0 and 2 more seeds: 1 steps were left out."
    ]


def test_many_notes_of_single_runs_are_counted(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD})
    run = next(tmp_path.glob("kd-*-s1-*"))
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    letters = "abcdefghijkl"
    (run / "results.json").write_text(json.dumps(results | {"notes": list(letters)}), encoding="utf-8")
    notes = compare([tmp_path]).notes
    assert [note for note in notes if note.startswith("kd, seed 1: ")] == [
        f"kd, seed 1: {letter}" for letter in letters[:8]
    ]
    assert "4 more notes of single runs: their reports have them." in notes


def test_one_run(tmp_path: Path) -> None:
    run = write_job(tmp_path, "kd", 0, {"nll": 0.3})
    comparison = compare([run])
    assert comparison.runs == 1
    assert comparison.columns[0].leader is None
    assert "nothing to hold it against" in comparison.notes[0]


def test_the_newer_of_two_equal_runs_counts(tmp_path: Path) -> None:
    write_job(tmp_path, "kd", 0, {"nll": 0.5}, name="kd-old", finished="2026-11-24T10:00:00+00:00")
    write_job(tmp_path, "kd", 0, {"nll": 0.3}, name="kd-new", finished="2026-11-25T10:00:00+00:00")
    comparison = compare([tmp_path])
    assert cell(comparison, "kd").by_seed == {0: 0.3}
    assert [left.run for left in comparison.left_out] == ["kd-old"]


@pytest.mark.parametrize(
    "then",
    [
        {"environment": {"code": "0.0.9+older"}},
        {"evaluation": {"rows": 10}},
        {"before": 0.1},
        {"metric": "accuracy"},
    ],
)
def test_a_run_that_was_done_again_says_nothing(tmp_path: Path, then: dict[str, Any]) -> None:
    """Neither its code, nor its rows, nor its student before, nor its metrics count any more."""
    write_sweep(tmp_path, {"sft": SFT, "kd": KD}, environment={"code": "0.1.0+now"})
    alone = compare([tmp_path])
    earlier = {"environment": {"code": "0.1.0+now"}, "finished": "2026-11-01T10:00:00+00:00", **then}
    write_sweep(tmp_path / "earlier", {"kd": {0: 0.9}}, **earlier)
    both = compare([tmp_path])
    assert not both.confounds
    assert (both.columns, both.differences, both.groups) == (alone.columns, alone.differences, alone.groups)
    (left,) = both.left_out
    assert left.why.startswith("done again")


class TestBadInput:
    def test_empty_and_missing_folders(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no run directory"):
            compare([tmp_path])
        with pytest.raises(InputError, match="no such folder"):
            compare([tmp_path / "nowhere"])

    def test_no_run_is_done(self, tmp_path: Path) -> None:
        write_job(tmp_path, "kd", 0, {"nll": 0.3}, status="failed", reason="NaN at step 4")
        with pytest.raises(InputError, match=r"none is done.*\n.*NaN at step 4"):
            compare([tmp_path])

    @pytest.mark.parametrize(
        ("changed", "told"),
        [
            ({"rows": 200}, r"evaluation\.rows: 200 in .*; 256 in"),
            ({"scored_tokens": 5}, "evaluation.scored_tokens"),
            ({"split": "validation"}, "evaluation.split"),
            ({"generation_rows": 10}, r"\beval\.generation_rows: "),
        ],
    )
    def test_different_rows_are_refused(self, tmp_path: Path, changed: dict[str, Any], told: str) -> None:
        write_sweep(tmp_path, {"sft": SFT})
        write_sweep(tmp_path, {"kd": KD}, evaluation=changed)
        with pytest.raises(InputError, match=f"(?s){told}.*--force"):
            compare([tmp_path])
        forced = compare([tmp_path], force=True)
        assert forced.unranked
        assert forced.columns[0].leader is None
        assert all(
            each.difference is None and each.verdict == "" for each in forced.columns[0].cells.values()
        )
        assert cell(forced, "kd").estimate is not None

    @pytest.mark.parametrize(
        ("changes", "environment", "rows", "why"),
        [
            ({}, {}, "256 rows (test) of data=embedded", ""),
            ({"data.max_eval_rows": 50}, {}, "256 rows (test) of data=embedded", "data.max_eval_rows"),
            (
                {"data.name": "jsonl", "data.test_file": "b.jsonl"},
                {},
                "256 rows (test) of data.test_file=b.jsonl",
                "data.name, data.test_file",
            ),
            (
                {},
                {"fingerprints": {"data.train_file": "ff"}},
                "256 rows (test) of data=embedded",
                "the contents of data.train_file",
            ),
            (
                {"model.student.path": "other"},
                {},
                "256 rows (test) of data=embedded",
                "model.student.path",
            ),
        ],
    )
    def test_a_digest_of_the_rows_decides_and_is_said_in_words(
        self, tmp_path: Path, changes: dict[str, Any], environment: dict[str, Any], rows: str, why: str
    ) -> None:
        """Which rows, of which file, in which runs, what makes them differ, and what can be done."""
        write_sweep(tmp_path, {"sft": SFT}, evaluation={"rows_digest": "a1b2"})
        other = {"evaluation": {"rows_digest": "c3d4"}, "changes": changes, "environment": environment}
        write_sweep(tmp_path, {"kd": KD}, **other)
        with pytest.raises(InputError) as caught:
            compare([tmp_path])
        told = str(caught.value)
        assert "a1b2" not in told
        assert "c3d4" not in told
        assert re.search(
            rf"evaluated on different rows: {re.escape(rows)} in kd-[^;]* and \d+ more; 256 rows", told
        )
        assert (f"They differ in {why}." in told) == bool(why)
        assert "data.test_file=" in told
        assert "distil evaluate RUN --data FILE" in told

    def test_a_digest_that_only_some_runs_have_is_no_difference(self, tmp_path: Path) -> None:
        write_sweep(tmp_path, {"sft": SFT}, evaluation={"rows_digest": "aa"})
        write_sweep(tmp_path, {"kd": KD})
        assert compare([tmp_path]).columns[0].best == "kd"

    def test_no_common_metric(self, tmp_path: Path) -> None:
        write_sweep(tmp_path, {"sft": SFT})
        write_sweep(tmp_path, {"kd": KD}, metric="accuracy")
        with pytest.raises(InputError, match=r"no metric that all of them have: .* has (nll|accuracy)"):
            compare([tmp_path])
        assert len(compare([tmp_path], force=True).columns) == 2

    def test_unknown_baseline_and_budget(self, tmp_path: Path) -> None:
        write_sweep(tmp_path, {"sft": SFT, "kd": KD})
        with pytest.raises(InputError, match="baseline=gkd: no such method, adapter or group among kd, sft"):
            compare([tmp_path], baseline="gkd")
        with pytest.raises(InputError, match="budget=money"):
            compare([tmp_path], budget="money")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("results.json", b'{"metrics": {'),
            ("results.json", b"\xff\xfe\x00garbage"),
            ("results.json", b"[]"),
            ("results.json", b'{"metrics": [], "student_after": [], "notes": 5, "evaluation": null}'),
            ("results.json", None),
            ("status.json", b"nul"),
            ("status.json", None),
            ("config.yaml", b"method: [unclosed"),
            ("config.yaml", b"when: 2026-99-99"),
            ("config.yaml", b"seed: three\nmethod: {name: kd}"),
            ("config.yaml", b"seed: 0\nmethod: kd"),
            ("config.yaml", b"seed: true\nmethod: {name: kd}"),
            ("config.yaml", b""),
            ("config.yaml", None),
        ],
    )
    def test_a_damaged_run_is_named_and_left_out(
        self, tmp_path: Path, name: str, content: bytes | None
    ) -> None:
        write_sweep(tmp_path, {"sft": SFT, "kd": KD})
        broken = write_job(tmp_path, "gkd", 0, {"nll": 0.2}, name="broken")
        if content is None:
            (broken / name).unlink()
        else:
            (broken / name).write_bytes(content)
        comparison = compare([tmp_path])
        assert [group.label for group in comparison.groups] == ["sft", "kd"]
        (left,) = comparison.left_out
        assert left.run == "broken"
        assert left.why == f"{name} is missing." if content is None else name in left.why
        assert "\n" not in left.why

    def test_a_hole_in_the_curves_costs_no_result(self, tmp_path: Path) -> None:
        write_sweep(tmp_path, {"sft": SFT, "kd": KD})
        run = next(tmp_path.glob("kd-*-s1-*"))
        (run / "metrics.jsonl").write_text(
            '{"step": 40, "validation/nll_per_token": 0.4}\nbroken', encoding="utf-8"
        )
        (run / "cost.json").write_text("{", encoding="utf-8")
        comparison = compare([tmp_path])
        assert comparison.columns[0].best == "kd"
        assert any(run.name in note and "metrics.jsonl" in note for note in comparison.notes)


def test_runs_are_found_once_wherever_they_lie(tmp_path: Path) -> None:
    write_sweep(tmp_path / "a" / "one", {"sft": SFT})
    write_sweep(tmp_path / "b", {"kd": KD})
    (next((tmp_path / "b").iterdir()) / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    shutil.copy(
        next((tmp_path / "b").glob("*/config.yaml")),
        next((tmp_path / "b").iterdir()) / "checkpoints" / "checkpoint-3" / "config.yaml",
    )
    comparison = compare([tmp_path, tmp_path / "b", next((tmp_path / "b").iterdir())])
    assert comparison.runs == 6
    assert not comparison.left_out


def test_a_run_that_has_lost_status_and_scores_is_named(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT})
    broken = write_job(tmp_path, "kd", 0, {"nll": 0.2}, name="broken")
    for name in ("status.json", "results.json"):
        (broken / name).unlink()
    (left,) = compare([tmp_path]).left_out
    assert (left.run, left.why) == ("broken", "status.json and results.json are missing.")


def test_scores_that_are_not_as_they_were_are_left_out(tmp_path: Path) -> None:
    """Another digit in one run, nothing else; a cut student costs a word and no score."""
    write_sweep(tmp_path, {"sft": SFT, "kd": KD})
    changed, cut = sorted(tmp_path.glob("kd-*"))[:2]
    for run in (changed, cut):
        (run / "student").mkdir(exist_ok=True)
        (run / "student" / "model.safetensors").write_bytes(bytes(100))
        seal(run, [run / "results.json", run / "student" / "model.safetensors"])
    assert not compare([tmp_path]).left_out
    scores = (changed / "results.json").read_text(encoding="utf-8")
    (changed / "results.json").write_text(scores.replace("0.", "9.", 1), encoding="utf-8")
    (cut / "student" / "model.safetensors").write_bytes(bytes(99))
    comparison = compare([tmp_path])
    (left,) = comparison.left_out
    assert (left.run, left.why) == (changed.name, "results.json has changed since the run was done.")
    problem = "student/model.safetensors has 99 bytes instead of 100 since the run was done"
    assert f"{cut.name}: {problem}" in comparison.notes


def test_a_student_that_was_removed_is_one_note(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT, "kd": KD})
    run = min(tmp_path.glob("kd-*"))
    names = ("config.json", "model.safetensors", "tokenizer.json")
    (run / "student").mkdir(exist_ok=True)
    files = [run / "student" / name for name in names]
    for file in files:
        file.write_bytes(b"1")
    seal(run, [run / "results.json", *files])
    shutil.rmtree(run / "student")
    told = f"{run.name}: student/: 3 files are missing since the run was done"
    assert [note for note in compare([tmp_path]).notes if "student/" in note] == [told]
    assert "student/: 3 files are missing" in render(read_run(run))


def test_an_exported_student_is_no_run(tmp_path: Path) -> None:
    run = write_job(tmp_path / "runs", "kd", 0, {"nll": 0.3})
    (tmp_path / "runs" / "exported").mkdir()
    shutil.copy(run / "config.yaml", tmp_path / "runs" / "exported")
    assert not compare([tmp_path]).left_out


def test_runs_that_left_no_directory_are_told_by_who_knows(tmp_path: Path) -> None:
    write_sweep(tmp_path, {"sft": SFT})
    lost = LeftOut("method=kd seed=1", "failed: Out of memory.")
    comparison = compare([tmp_path], left_out=[lost])
    assert comparison.left_out == (lost,)
    assert "1 run is left out: a mean of those that ended may flatter." in comparison.notes


def test_the_order_of_folders_does_not_matter(tmp_path: Path) -> None:
    runs = [
        write_job(tmp_path, m, s, {"nll": v}) for m, by in (("kd", KD), ("sft", SFT)) for s, v in by.items()
    ]
    one, other = compare(runs), compare(runs[::-1])
    assert one.columns == other.columns
    assert [group.label for group in one.groups] == [group.label for group in other.groups]


def test_numbers_in_swept_texts_are_in_order(tmp_path: Path) -> None:
    texts = ("rows 12\N{SUPERSCRIPT TWO}", "rows 10", "rows 9", "rows \N{ARABIC-INDIC DIGIT THREE}")
    compared = compare([grid(tmp_path, [("kd", {"model.name": text}) for text in texts])])
    baseline, *rest = [group.choices["model.name"] for group in compared.groups]
    assert [baseline, *rest] == [baseline, *(text for text in texts[::-1] if text != baseline)]


def grid(folder: Path, jobs: list[tuple[str, dict[str, Any]]]) -> Path:
    """A run for each (method, changes) and each of two seeds."""
    for method, changes in jobs:
        for seed in (0, 1):
            write_job(folder, method, seed, {"nll": 0.5 + seed / 100}, changes=changes)
    return folder


def adapters(*names: str, **others: Any) -> list[tuple[str, dict[str, Any]]]:
    return [("kd", {"peft.name": name, **others}) for name in names]


class TestBaseline:
    def test_of_adapters_is_full_training(self, tmp_path: Path) -> None:
        comparison = compare([grid(tmp_path, adapters("dora", "none", "ia3"))])
        assert comparison.baselines == {"peft=none": None, "dora": "peft=none", "ia3": "peft=none"}
        assert next(iter(comparison.baselines)) == "peft=none"
        asked = compare([tmp_path], baseline="dora")
        assert asked.baselines == {"dora": None, "peft=none": "dora", "ia3": "dora"}

    def test_of_methods_and_adapters_is_the_group_of_both(self, tmp_path: Path) -> None:
        jobs = [(m, {"peft.name": p}) for m in ("kd", "sft") for p in ("lora", "none")]
        comparison = compare([grid(tmp_path, jobs)])
        assert comparison.baselines == {
            "sft peft=none": None,
            **dict.fromkeys(("kd lora", "kd peft=none", "sft lora"), "sft peft=none"),
        }  # fmt: skip
        # Named by one choice, the other choices stand still.
        assert compare([tmp_path], baseline="sft").baselines == {
            "sft lora": None, "sft peft=none": None, "kd lora": "sft lora", "kd peft=none": "sft peft=none",
        }  # fmt: skip
        assert compare([tmp_path], baseline="lora").baselines == {
            "kd lora": None, "sft lora": None, "kd peft=none": "kd lora", "sft peft=none": "sft lora",
        }  # fmt: skip
        assert compare([tmp_path], baseline="kd peft=none").baselines["sft lora"] == "kd peft=none"

    def test_without_the_group_of_both_one_of_them_does(self, tmp_path: Path) -> None:
        jobs = [("kd", {"peft.name": "none"}), ("revkd", {"peft.name": "lora"})]
        comparison = compare([grid(tmp_path, jobs)])
        assert list(comparison.baselines.values()).count(None) == 1
        assert comparison.baselines["revkd lora"] == "kd peft=none"

    def test_other_choices_stand_still(self, tmp_path: Path) -> None:
        jobs = [j for t in (1.0, 2.0) for j in adapters("none", "lora", **{"method.temperature": t})]
        comparison = compare([grid(tmp_path, jobs)])
        assert comparison.baselines["lora temperature=2"] == "peft=none temperature=2"
        assert comparison.baselines["peft=none temperature=1"] is None

    def test_else_it_is_what_the_sweep_was_asked_for_first(self, tmp_path: Path) -> None:
        grid(tmp_path, [(method, {}) for method in ("gkd", "kd", "revkd")])
        assert compare([tmp_path]).baselines["kd"] == "gkd"  # nobody said an order
        runs = sorted(run.name for run in tmp_path.iterdir())
        jobs = [{"run": name} for name in sorted(runs, reverse=True)]
        (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}), encoding="utf-8")
        comparison = compare([tmp_path])
        assert comparison.baselines == {"revkd": None, "gkd": "revkd", "kd": "revkd"}
        assert compare(sorted(tmp_path.glob("*-s*"))).baselines == comparison.baselines

    @pytest.mark.parametrize("content", ["", "[]", '{"jobs": 3}', '{"jobs": [1, {"run": null}]}'])
    def test_a_damaged_record_of_the_sweep_costs_no_comparison(self, tmp_path: Path, content: str) -> None:
        grid(tmp_path, [("kd", {}), ("revkd", {})])
        (tmp_path / "sweep.json").write_text(content, encoding="utf-8")
        assert compare([tmp_path]).baselines == {"kd": None, "revkd": "kd"}


def test_without_the_usual_baseline_the_first_group_is_it(tmp_path: Path) -> None:
    for temperature in (10, 1, 2):
        for seed in (0, 1):
            changes = {"method.temperature": float(temperature)}
            write_job(tmp_path, "kd", seed, {"nll": temperature + seed}, changes=changes)
    comparison = compare([tmp_path])
    assert [group.label for group in comparison.groups] == [
        "temperature=1",
        "temperature=2",
        "temperature=10",
    ]
    assert comparison.baselines["temperature=10"] == "temperature=1"
    assert compare([tmp_path], baseline="temperature=2").baselines["temperature=1"] == "temperature=2"
