"""Search: the better of two regions, as many trials for each choice, the same trials after a kill."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distil.config.trainer import TrainerConfig
from distil.sweeps.record import DONE, Job, SweepRecord
from distil.sweeps.search import (
    JOURNAL,
    Choice,
    Interval,
    SearchSweeper,
    Study,
    Trial,
    at_edge,
    validation_score,
)
from distil.sweeps.searching import Search, best_by, finish_search
from distil.types import InputError

RATE = {"trainer.learning_rate": Interval(1e-5, 1e-1, log=True, whole=False)}
ROOT = Path(__file__).resolve().parents[3]


def two_regions(rate: float, best: float) -> float:
    """A narrow valley at ``best``, and a shallow one two decades away: the wrong region."""
    here, there = math.log10(rate / best), math.log10(rate / best) + 2
    return 2 - 1.5 * math.exp(-((here / 0.5) ** 2)) - 0.5 * math.exp(-((there / 0.5) ** 2))


def run(study: Study, best: float = 3e-3) -> list[Trial]:
    """Search to the end; every proposal is scored."""
    while proposed := study.propose():
        for trial in proposed:
            study.tell(trial, two_regions(*trial.values.values(), best))
    return study.trials()


def study(folder: Path, name: str = "kd", space: dict[str, Interval] = RATE, **settings: int) -> Study:
    return Study(folder / JOURNAL, name, space, SearchSweeper(**settings))


@pytest.mark.parametrize("best", [3e-2, 3e-3])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_better_region_is_found(best: float, batch: int, tmp_path: Path) -> None:
    searched = study(tmp_path, trials=10, batch=batch)
    trials = run(searched, best)
    assert len(trials) == 10
    found = searched.best()
    assert found is not None
    assert abs(math.log10(found.values["trainer.learning_rate"] / best)) < 0.5
    assert found.score == min(trial.score or 9.0 for trial in trials)
    second = searched.best({found.number})  # the best one's student is ruined
    assert second is not None
    assert second.score == min(trial.score or 9.0 for trial in trials if trial.number != found.number)
    assert searched.best({trial.number for trial in trials}) is None


def test_every_choice_has_the_same_budget_and_the_same_first_half(tmp_path: Path) -> None:
    first, second = (run(study(tmp_path, name, trials=8), best) for name, best in (("a", 3e-2), ("b", 3e-4)))
    assert len(first) == len(second) == 8
    assert [trial.values for trial in first[:4]] == [trial.values for trial in second[:4]]
    assert [trial.values for trial in first[4:]] != [trial.values for trial in second[4:]]
    shares = [RATE["trainer.learning_rate"].share(*trial.values.values()) for trial in first[:4]]
    assert shares == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8]), "evenly, by ratios"


def test_more_trials_go_on_from_those_that_are_done(tmp_path: Path) -> None:
    before = run(study(tmp_path, trials=4))
    after = run(study(tmp_path, trials=6))
    assert after[:4] == before
    assert len(after) == 6
    assert study(tmp_path, trials=6).propose() == []


def test_a_failed_trial_is_tried_again_by_the_next_attempt(tmp_path: Path) -> None:
    """Within one attempt it is not, and the search goes on without it."""
    searched = study(tmp_path, trials=3)
    (first,) = searched.propose()
    searched.tell(first, None)
    (second,) = searched.propose()
    assert second.values != first.values
    searched.tell(second, math.nan)
    (third,) = searched.propose()
    searched.tell(third, 1.0)
    assert searched.propose() == []
    again = study(tmp_path, trials=3)
    assert [trial.values for trial in again.propose()] == [first.values, second.values]
    run(again)
    assert len(again.trials()) == 3
    assert all(trial.score is not None for trial in again.trials())


def test_a_small_space_of_whole_numbers_ends(tmp_path: Path) -> None:
    """Proposals repeat there: each counts."""
    space = {"peft.r": Interval(1, 2, log=False, whole=True)}
    searched = study(tmp_path, space=space, trials=6)
    while proposed := searched.propose():
        for trial in proposed:
            searched.tell(trial, trial.values["peft.r"])
    assert len(searched.trials()) == 6
    assert {trial.values["peft.r"] for trial in searched.trials()} == {1, 2}
    assert Choice(["method=kd"], "", space).job(searched.trials()[0])[1] in ("peft.r=1", "peft.r=2")


SEARCHING = """
import os, signal, sys
from pathlib import Path
from tests.unit.sweeps.test_search import study, two_regions
calls, limit = 0, int(sys.argv[2])
def perhaps_die():
    global calls
    calls += 1
    if calls == limit:
        os.kill(os.getpid(), signal.SIGKILL)
from optuna.storages.journal import JournalFileBackend
append = JournalFileBackend.append_logs
def dying(self, logs):
    perhaps_die()
    append(self, logs)
    perhaps_die()
JournalFileBackend.append_logs = dying
searched = study(Path(sys.argv[1]), trials=7, batch=2)
while proposed := searched.propose():
    for trial in proposed:
        searched.tell(trial, two_regions(*trial.values.values(), 3e-3))
"""


def test_a_search_that_is_killed_comes_to_the_same_trials(tmp_path: Path) -> None:
    """kill -9 before and after writes to the journal, a little further each time."""
    (tmp_path / "killed").mkdir()
    (tmp_path / "peace").mkdir()
    expected = [(trial.values, trial.score) for trial in run(study(tmp_path / "peace", trials=7, batch=2))]
    killed = 0
    for limit in (3, 4, 5, 7, 8, 10, 1000):
        command = [sys.executable, "-c", SEARCHING, str(tmp_path / "killed"), str(limit)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
        killed += done.returncode == -signal.SIGKILL
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert killed >= 4
    assert [(t.values, t.score) for t in study(tmp_path / "killed", trials=7, batch=2).trials()] == expected


@pytest.mark.parametrize(
    ("keys", "step"),
    [
        ({}, 3),
        ({"load_best_model_at_end": True}, 2),
        ({"load_best_model_at_end": True, "save_steps": 2}, 2),
        ({"load_best_model_at_end": True, "save_steps": 3}, 3),  # the best has no checkpoint
        ({"load_best_model_at_end": True, "eval_steps": 0.25, "save_steps": 0.5}, 2),  # every second one
        ({"load_best_model_at_end": True, "eval_steps": 0.3, "save_steps": 0.9}, 3),
        ({"load_best_model_at_end": True, "save_steps": None}, 3),
        ({"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}, 2),
        ({"load_best_model_at_end": True, "metric_for_best_model": "nll_per_token"}, 2),
        ({"load_best_model_at_end": True, "metric_for_best_model": "eval_nll_per_token"}, 2),
        ({"load_best_model_at_end": True, "metric_for_best_model": "top1_agreement"}, 1),
        ({"load_best_model_at_end": True, "metric_for_best_model": "eval_top1_agreement"}, 1),
    ],
    ids=lambda value: str(value),
)
def test_a_trial_has_the_score_of_the_student_that_is_kept(
    keys: dict[str, Any], step: int, tmp_path: Path
) -> None:
    """Not the best of what is searched by, where Trainer goes by something else."""
    from transformers import TrainingArguments  # not above: processes that are killed import this file

    nll, agreement = {1: 0.5, 2: 0.2, 3: 0.3}, {1: 0.9, 2: 0.8, 3: 0.7}
    lines = [
        {"validation/nll_per_token": nll[at], "validation/top1_agreement": agreement[at], "step": at}
        for at in (1, 2, 3)
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in ({"train/loss": 1}, *lines)), encoding="utf-8"
    )
    keys = {"eval_steps": 1, "save_steps": 1, **keys}
    trainer = TrainerConfig(eval_strategy="steps", save_strategy="steps", **keys)
    kept_by, theirs = best_by(trainer), TrainingArguments(str(tmp_path), **trainer.arguments())
    assert (kept_by is None) is (not theirs.load_best_model_at_end)
    assert kept_by is None or kept_by.less is not theirs.greater_is_better
    assert validation_score(tmp_path, "nll_per_token", kept_by) == nll[step]
    assert validation_score(tmp_path, "top1_agreement", kept_by) == agreement[step]
    with pytest.raises(InputError, match="eval_steps"):
        validation_score(tmp_path, "kl_per_token", kept_by)


@pytest.mark.parametrize("left", [None, '{"validation/nll_per_token": 0.5}\n{"validation/nll_p'])
def test_a_score_that_is_gone_is_said(left: str | None, tmp_path: Path) -> None:
    """An older one is not taken for it: which line is the last is not known any more."""
    if left is not None:
        (tmp_path / "metrics.jsonl").write_text(left, encoding="utf-8")
    with pytest.raises(InputError, match=r"metrics.jsonl cannot be read .*Remove the folder"):
        validation_score(tmp_path, "nll_per_token")


def test_a_ruined_trial_is_not_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where all else is worse by the score, too; and where all are ruined, nothing is found."""
    choice, searched, record = (
        Choice(["method=kd"], "method=kd", RATE),
        study(tmp_path),
        SweepRecord(tmp_path, "key"),
    )
    for score in (7.0, 8.0):
        searched.tell(searched.propose()[0], score)
    jobs = [Job(choice.job(trial), run=str(trial.number), status=DONE) for trial in searched.trials()]
    search = Search([choice], SearchSweeper(), lambda _: InputError("composed already"))
    for number, (score, line) in enumerate(
        [(8.0, "method=kd: the student of 1 trial is ruined"), (None, "the students of 2 trials are ruined")]
    ):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "results.json").write_text('{"ruined": true}', encoding="utf-8")
        record.begin("run.py -m", jobs)
        finish_search(search, {"method=kd": searched}, record, "run.py -m")
        (found,) = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))["choices"]
        assert found["score"] == score
        assert [row.get("ruined", False) for row in found["trials"]] == [True, number == 1]
        said = capsys.readouterr().out
        assert line in said
        assert ("each is ruined" in said) is (score is None)


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0.9, 0.9999, False), (0.9991, 0.9994, False), (0.12345, 0.5, True), (-1, 1, False)],
)
def test_what_is_tried_lies_in_its_interval(low: float, high: float, log: bool) -> None:
    """Rounded, too, and what differs in the interval differs as it is written."""
    interval = Interval(low, high, log, whole=False)
    written = [interval.written(interval.at(share / 60)) for share in range(61)]
    assert all(low <= float(word) <= high for word in written)
    assert len(set(written)) >= 50
    assert (float(written[0]), float(written[-1])) == (low, high)
    assert Interval(3e-4, 3e-2, log=True, whole=False).written(0.00123456) == "0.00123"


def test_values_found_are_numbers(tmp_path: Path) -> None:
    """Those that are written without a point, too (1e-05), which YAML takes for a word."""
    space = {"trainer.learning_rate": Interval(1e-6, 1e2, log=True, whole=False)}  # 1/8 of the way first
    searched, record = study(tmp_path, space=space), SweepRecord(tmp_path, "key")
    searched.tell(searched.propose()[0], 1.0)
    record.begin("run.py -m", [])
    search = Search([Choice([], "", space)], SearchSweeper(), lambda _: InputError("composed already"))
    finish_search(search, {"": searched}, record, "run.py -m")
    (found,) = json.loads((tmp_path / "search.json").read_text(encoding="utf-8"))["choices"]
    assert found["trials"][0]["values"]["trainer.learning_rate"] == pytest.approx(1e-5)


@pytest.mark.parametrize("choice", ["peft.target_modules=[q_proj]", "data.train_file=[/rows/a.csv]"])
def test_what_was_found_is_told_with_its_lists(
    choice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Square brackets are no markup, neither in a choice nor in the name of a folder."""
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "rates [a]"
    folder.mkdir()
    space = {"trainer.learning_rate": Interval(1e-6, 1e2, log=True, whole=False)}
    searched, record = study(folder, space=space), SweepRecord(folder, "key")
    searched.tell(searched.propose()[0], 1.0)
    record.begin("run.py -m", [])
    options = [Choice([choice], choice, space, "tuned/mine_kd.yaml")]
    finish_search(
        Search(options, SearchSweeper(), lambda _: InputError("composed already")),
        {choice: searched}, record, "run.py -m",
    )  # fmt: skip
    said = capsys.readouterr().out
    assert choice in said
    assert f"put --config-dir {folder}/found into" in said


def test_an_edge_is_noticed() -> None:
    def told(*rates: float, best: int) -> list[str]:
        trials = [Trial({"trainer.learning_rate": rate}, number, 1.0) for number, rate in enumerate(rates)]
        untried = Trial({"trainer.learning_rate": 5e-2}, len(rates))
        return at_edge(RATE, trials[best], [*trials, untried])

    assert told(1e-4, 1.2e-5, 1.1e-5, best=1) == ["trainer.learning_rate"], "near the end of the interval"
    assert told(1e-4, 1e-3, 5e-3, best=1) == []
    assert told(1e-4, 1e-3, best=1) == ["trainer.learning_rate"], "none beyond it was tried"
    assert told(1e-3, 1e-4, best=1) == ["trainer.learning_rate"]
    assert told(1e-3, best=0) == ["trainer.learning_rate"]


@pytest.mark.parametrize("wrong", [{"trials": 0}, {"batch": -1}, {"objective": "rouge"}])
def test_settings_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match=f"hydra.sweeper.{next(iter(wrong))}"):
        SearchSweeper(**wrong)
