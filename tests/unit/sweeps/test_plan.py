"""The plan of a sweep on real configs: what is done, what is one run, what cannot run; the time left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distil.config.schema import ExperimentConfig, PeftConfig, TrackerConfig
from distil.data.embedded import EmbeddedDataConfig
from distil.data.jsonl import JsonlConfig
from distil.methods.kd import KDConfig
from distil.methods.sft import SFTConfig
from distil.preflight import locate
from distil.sweeps.plan import ending, not_ranked, opening, plan, time_left
from distil.sweeps.record import DONE, FAILED, PENDING, Job
from distil.system.files import write_json
from distil.types import InputError


def config(folder: Path, **changes: object) -> ExperimentConfig:
    made = ExperimentConfig(
        output_dir=str(folder),
        method=KDConfig(),
        peft=PeftConfig(name="none"),
        data=EmbeddedDataConfig(),
        tracker=TrackerConfig(name="none"),
    )
    made.model.name = "embedded"
    made.model.teacher.path = "distil:embedded/teacher"
    made.model.student.path = "distil:embedded/student"
    return replace(made, **changes)  # type: ignore[arg-type]


def test_jobs_of_one_identity_are_one_run(tmp_path: Path) -> None:
    """By what they compute, not by what was typed: SFT ignores the temperature."""
    jobs = [
        (["method=sft", "method.temperature=1"], config(tmp_path, method=SFTConfig(temperature=1.0))),
        (["method=kd", "method.temperature=1"], config(tmp_path, method=KDConfig(temperature=1.0))),
        (["method=sft", "method.temperature=2"], config(tmp_path, method=SFTConfig(temperature=2.0))),
        (["method=kd", "method.temperature=2"], config(tmp_path, method=KDConfig(temperature=2.0))),
    ]
    planned = plan(jobs, tmp_path / "default")
    assert [job.same_as for job in planned] == [None, None, 1, None]
    lines = opening(planned, tmp_path / "default")
    assert "Sweep of 4 jobs" in lines[0]
    assert "3 new" in lines[0]
    assert "Job 3 (method=sft method.temperature=2) is the same run as job 1" in lines[1]
    twice = plan([jobs[0], jobs[0]], tmp_path / "default")
    assert opening(twice, tmp_path / "default")[1] == "Job 2 is the same run as job 1: it runs once."


def test_what_is_done_is_known_and_what_is_begun_goes_on(tmp_path: Path) -> None:
    configs = [config(tmp_path, seed=seed) for seed in range(3)]
    for seed, status in ((0, "done"), (1, "interrupted")):
        run = locate(configs[seed])[1]
        run.mkdir(parents=True)
        write_json(run / "status.json", {"status": status})
        write_json(run / "cost.json", {"seconds": {"total": 40.0}})
    planned = plan([([f"seed={seed}"], configs[seed]) for seed in range(3)], tmp_path / "default")
    assert [(job.status, job.before, job.seconds) for job in planned] == [
        (DONE, True, 40.0),
        (PENDING, False, None),
        (PENDING, False, None),
    ]
    assert "1 done before, 1 begun before, 1 new" in opening(planned, tmp_path / "default")[0]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({"split_seed": 0}, {"split_seed": 1}, "data.split_seed: "),
        (
            {"split_seed": 0, "validation_fraction": 0.1},
            {"split_seed": 1, "validation_fraction": 0.2},
            "data.split_seed and data.validation_fraction: ",
        ),
        ({"test_file": "a.csv", "split_seed": 0}, {"test_file": "a.csv", "split_seed": 1}, None),
        ({"test_file": "a.csv"}, {"test_file": "b.csv"}, "data.test_file: "),
        ({"max_train_rows": 10}, {"max_train_rows": 20}, None),
        ({"score": "all"}, {"score": "response"}, "data.score: "),
    ],
)
def test_jobs_that_will_not_be_ranked_are_told_before_the_first(
    one: dict[str, Any], other: dict[str, Any], told: str | None, tmp_path: Path
) -> None:
    configs = [config(tmp_path, data=JsonlConfig(train_file="rows.csv", **keys)) for keys in (one, other)]
    lines = not_ranked(configs)
    assert [line.partition("jobs that are evaluated on different rows")[0] for line in lines] == (
        [told] if told else []
    )
    assert not_ranked(configs[:1]) == []
    drawn = told is not None and "split_seed" in told
    assert all(("data.test_file=FILE" in line) == drawn for line in lines)


def test_one_job_that_cannot_run_refuses_all(tmp_path: Path) -> None:
    good = config(tmp_path)
    bad = replace(good, model=replace(good.model, teacher=replace(good.model.teacher, path="/nowhere")))
    with pytest.raises(InputError, match=r"job 2 of 3 \(seed=1\).*/nowhere"):
        plan([(["seed=0"], good), (["seed=1"], bad), (["seed=2"], good)], tmp_path)
    with pytest.raises(InputError, match="All 2 jobs"):
        plan([(["seed=0"], bad), (["seed=1"], bad)], tmp_path)
    many = [([f"seed={n}"], InputError(f"reason {n}")) for n in range(30)]
    with pytest.raises(InputError) as told:
        plan(many, tmp_path)
    assert "30 of 30 jobs cannot run" in str(told.value)
    assert "and 20 more" in str(told.value)


def test_one_reason_is_said_once(tmp_path: Path) -> None:
    """Where some jobs share a bad key, before a sweep and at its end."""
    jobs = [(f"method={method} seed={seed}", method) for method in ("kd", "gkd", "sft") for seed in range(6)]
    bad = {"kd": "no lambda", "gkd": "no beta"}
    with pytest.raises(InputError) as told:
        plan([(w.split(), InputError(bad[m]) if m in bad else config(tmp_path)) for w, m in jobs], tmp_path)
    error = ending(
        [Job(w.split(), w, status=FAILED if m in bad else DONE, reason=bad.get(m)) for w, m in jobs], "again"
    )
    for said in (str(told.value), str(error)):
        assert "12 of 18 jobs" in said
        assert said.count("no lambda") == said.count("no beta") == 1
        assert "jobs 1 (method=kd seed=0), 2 (method=kd seed=1), 3 (method=kd seed=2), 4" in said
        assert "and 2 more: no lambda" in said


def test_the_end_names_what_failed_and_why() -> None:
    jobs = [
        Job(["seed=0"], "seed=0", status=DONE),
        Job(["seed=1"], "seed=1", status=FAILED, reason="NaN at step 3"),
        Job(["seed=01"], "seed=01", status=FAILED, reason="NaN at step 3", same_as=2),
    ]
    error = ending(jobs, "python run.py -m seed=0,1,01")
    assert error is not None
    assert error.exit_code == 1
    assert "1 of 2 jobs failed" in str(error)
    assert "job 2 (seed=1): NaN at step 3" in str(error)
    assert "python run.py -m seed=0,1,01" in str(error)
    assert ending(jobs[:1], "") is None


def of(kind: str, status: str, seconds: float | None = None, before: bool = False) -> Job:
    return Job([], run=f"{kind}-s0-abc", status=status, seconds=seconds, before=before)


def test_time_left_is_that_of_jobs_of_the_same_kind() -> None:
    jobs = [of("sft", DONE, 10), of("gkd", DONE, 90), of("sft", PENDING), of("gkd", PENDING)]
    # One after the other: 10 + 90. The same two jobs at the same time: half.
    assert time_left(jobs, elapsed=100) == pytest.approx((100, 0))
    assert time_left(jobs, elapsed=50) == pytest.approx((50, 0))


def test_all_jobs_that_are_done_count() -> None:
    jobs = [of("gkd", DONE, 60), of("gkd", DONE, 120), of("gkd", DONE, 90), of("gkd", PENDING)]
    assert time_left(jobs, elapsed=270) == pytest.approx((90, 0))


def test_a_method_that_nobody_has_seen_comes_on_top() -> None:
    """A job of GKD takes ten times one of SFT: what the first job took says nothing about the last."""
    jobs = [of("sft-tiny-none", DONE, 10), of("sft-tiny-none", PENDING), of("gkd-tiny-none", PENDING)]
    assert time_left(jobs, elapsed=10) == pytest.approx((10, 1))
    assert time_left([jobs[0], jobs[2]], elapsed=10) is None
    assert time_left([jobs[0], of("sft-large-none", PENDING)], elapsed=10) is None
    assert time_left([*jobs[:2], of("gkd-tiny-none", DONE, 90)], elapsed=100) == pytest.approx((10, 0))


def test_time_left_of_an_adapter_that_nobody_has_seen_is_that_of_its_method_and_model() -> None:
    jobs = [
        of("kd-tiny-none", DONE, 10),
        of("gkd-tiny-none", DONE, 90),
        of("gkd-tiny-lora", DONE, 70),
        of("gkd-tiny-ia3", PENDING),
    ]
    assert time_left(jobs, elapsed=170) == pytest.approx((80, 0))


def test_time_left_tells_jobs_of_one_method_apart_by_what_else_was_asked() -> None:
    def job(steps: int, seed: int, status: str, seconds: float | None = None) -> Job:
        words = ["method=kd", f"seed={seed}", f"trainer.max_steps={steps}"]
        return Job(words, run=f"kd-tiny-none-s{seed}-abc", status=status, seconds=seconds)

    jobs = [job(100, 0, DONE, 10), job(900, 0, DONE, 90), job(900, 1, PENDING), job(900, 2, PENDING)]
    assert time_left(jobs, elapsed=100) == pytest.approx((180, 0))


def test_time_left_counts_what_is_left_alone() -> None:
    assert time_left([of("kd", PENDING)], elapsed=1) is None
    assert time_left([of("kd", PENDING)], elapsed=1, unseen=5) is None
    done_before = [of("kd", DONE, 30, before=True), of("kd", PENDING), of("kd", PENDING)]
    assert time_left(done_before, elapsed=1) == pytest.approx((60, 0))
    failed = [of("kd", DONE, 30), of("kd", FAILED, 1), of("kd", PENDING)]
    assert time_left(failed, elapsed=31) == pytest.approx((30, 0))
    assert time_left([of("kd", DONE, 30), of("kd", FAILED, 1)], elapsed=31) == (0, 0)


def test_jobs_that_a_search_has_not_found_yet_are_left_too() -> None:
    jobs = [of("kd", DONE, 30), of("gkd", DONE, 90), of("kd", PENDING)]
    assert time_left(jobs, elapsed=120, unseen=2) == pytest.approx((30 + 2 * 60, 0))
