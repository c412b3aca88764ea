"""Keys of one of several swept options: each job takes its own."""

from __future__ import annotations

import pytest

from distil.sweeps.own_keys import fitted, keys_below, lacking


def test_each_job_takes_the_keys_of_its_option() -> None:
    grid = [
        [f"method={method}", f"peft={peft}", "method.lambda_gkd=0.3", "method.temperature=2", "seed=1"]
        for method in ("kd", "gkd")
        for peft in ("none", "lora")
    ]
    jobs, left_out = fitted(grid)
    assert (
        jobs
        == [[word for word in job if "kd" not in word or "=0.3" not in word] for job in grid[:2]] + grid[2:]
    )
    assert left_out == ["method.lambda_gkd is a key of method=gkd: method=kd goes without it."]


def test_jobs_that_differ_in_a_key_they_lack_are_one() -> None:
    grid = [
        [f"peft={peft}", f"peft.r={r}", f"seed={seed}"]
        for peft in ("none", "lora", "ia3", "dora")
        for r in (4, 8)
        for seed in (0, 1)
    ]
    jobs, left_out = fitted(grid)
    alone = [[f"peft={peft}", f"seed={seed}"] for peft in ("none", "ia3") for seed in (0, 1)]
    assert [job for job in jobs if len(job) == 2] == alone
    assert [job for job in jobs if len(job) == 3] == [
        job for job in grid if job[0] in ("peft=lora", "peft=dora")
    ]
    assert left_out == ["peft.r is a key of peft=dora,lora: peft=ia3,none goes without it."]


@pytest.mark.parametrize(
    "job",
    [
        ["method=kd", "method.lamda=1"],  # nobody has it
        ["method=kd", "method.lambda_gkd=1"],  # no other option is asked for
        ["method=mine", "method.weight=1"],  # not ours to know
        ["seed=1", "seed=1"],
    ],
)
def test_the_rest_stays_as_it_was_asked_for(job: list[str]) -> None:
    assert fitted([job, job]) == ([job, job], [])
    two = [[*job, "peft=none"], [*job, "peft=lora"]]
    assert fitted(two) == (two, [])


def test_an_option_that_is_not_known_may_have_any_key() -> None:
    jobs, left_out = fitted([[f"method={name}", "method.lambda_gkd=1"] for name in ("kd", "gkd_soft")])
    assert jobs == [["method=kd"], ["method=gkd_soft", "method.lambda_gkd=1"]]
    assert left_out == ["method.lambda_gkd is a key of method=gkd_soft: method=kd goes without it."]


def test_what_the_chosen_option_lacks() -> None:
    words = ["method.temperature=2", "method.lambda_gkd=1", "peft.r=4", "+data.foo=1"]
    choices = {"method": "kd", "peft": "mine", "data": "jsonl"}
    assert lacking(words, choices) == ["method.lambda_gkd=1", "+data.foo=1"]


def test_keys_below_groups() -> None:
    words = ["method=kd", "method.temperature=2", "+method.x=1", "peft.r=4", "trainer.max_steps=1", "--cfg"]
    assert keys_below(("method",), words) == ["method.temperature=2", "+method.x=1"]
    assert keys_below((), words) == []
