"""A sweep pays for its teacher once, and ends as it would have without a cache."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Command

SWEPT = ["method=kd,revkd,gkd", "seed=0,1,2"]
LOADED = "Loading the teacher itself"


def results(folder: Path) -> dict[str, Any]:
    """Of each run, by method and seed."""
    found = {}
    for run in sorted(folder.glob("*/results.json")):
        method, _, rest = run.parent.name.partition("-")
        found[f"{method} {rest.split('-s')[1][0]}"] = json.loads(run.read_text(encoding="utf-8"))
    return found


def costs(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(run.read_text(encoding="utf-8")) for run in sorted(folder.glob("*/cost.json"))]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output")


@pytest.fixture(scope="module")
def words(small_arguments: list[str], output: Path) -> list[str]:
    short = ["trainer.save_strategy=no", "eval.metrics=[likelihood,agreement,length]"]
    return [*small_arguments, *short, f"output_dir={output}"]


def sweep(run_command: Command, words: list[str], cache: str) -> subprocess.CompletedProcess[str]:
    done = run_command("-m", *words, f"name={cache}", f"teacher_cache={cache}", *SWEPT)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def plain(run_command: Command, words: list[str], output: Path) -> dict[str, Any]:
    """The sweep without a cache, its evaluations let go: the next sweeps are to find them by themselves."""
    sweep(run_command, words, "none")
    shutil.rmtree(output / ".evaluations")
    assert not (output / ".teacher_cache").exists()
    return results(output / "none")


@pytest.mark.slow
@pytest.mark.parametrize(("cache", "near"), [("hidden", 2e-5), ("topk", 2e-2)])
def test_nine_jobs_ask_the_teacher_once_and_end_as_without_a_cache(
    cache: str, near: float, plain: dict[str, Any], run_command: Command, words: list[str], output: Path
) -> None:
    """Scores of teacher and untouched student are exact whatever training reads."""
    done = sweep(run_command, words, cache)
    found = results(output / cache)
    assert found.keys() == plain.keys()
    assert len(found) == 9
    for job, mine in found.items():
        for who, tolerance in (("teacher", 1e-6), ("student_before", 1e-6), ("student_after", near)):
            for metric in ("nll", "kl_to_teacher", "top1_agreement"):
                wanted = plain[job][who][metric]
                if metric != "top1_agreement" or tolerance < 1e-3:
                    assert mine[who][metric] == pytest.approx(wanted, rel=tolerance, abs=tolerance), job
    facts = [cost["teacher_cache"] for cost in costs(output / cache)]
    assert sum(fact["built"] for fact in facts) == 1
    assert len({(fact["format"], fact["tokens"], fact["bytes"]) for fact in facts}) == 1
    logs = [log.read_text(encoding="utf-8") for log in (output / cache).glob("*/run.log")]
    assert sum(text.count(LOADED) for text in logs) <= 1, "but for gkd, whose teacher stays"
    assert done.stderr.count("Teacher cache: training rows") == 1


@pytest.mark.slow
def test_teacher_and_untouched_student_are_evaluated_once(
    plain: dict[str, Any], run_command: Command, words: list[str], output: Path
) -> None:
    """Once for a way to evaluate: another seed, method or learning rate shares it, other rows do not."""
    evaluated = output / ".evaluations"
    before = set(evaluated.iterdir()) if evaluated.exists() else set()

    def added(*more: str) -> int:
        done = run_command(*words, "name=once", "trainer.max_steps=2", *more)
        assert done.returncode == 0, done.stderr
        return len(set(evaluated.iterdir()) - before)

    first = added("eval.max_new_tokens=7")
    assert first == 2
    assert added("eval.max_new_tokens=7", "seed=5", "method=revkd", "trainer.learning_rate=1e-3") == first
    assert added("eval.max_new_tokens=7", "method=sft", "eval.samples=3") == first
    assert added("eval.max_new_tokens=6") == first + 2
    assert added("eval.max_new_tokens=6", "data.split_seed=1") == first + 4
    assert added("eval.max_new_tokens=6", "model.student.init=random", "seed=1") == first + 5


def test_what_a_cache_cannot_say_is_refused_before_anything_is_there(
    run_command: Command, words: list[str], tmp_path: Path
) -> None:
    done = run_command(*words, f"output_dir={tmp_path / 'o'}", "method=revkd", "teacher_cache=sampled")
    assert done.returncode == 2
    assert "teacher_cache=sampled with method=revkd" in done.stderr
    assert not (tmp_path / "o").exists()
