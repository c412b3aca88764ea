"""What a verb or a run says where it was given what another takes: the way out, before anything loads."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from distil import cli
from distil.config.schema import ExperimentConfig, MethodConfig, TrackerConfig
from distil.config.trainer import TrainerConfig
from distil.methods.base import method_of
from distil.methods.gkd import GKDConfig
from distil.methods.kd import KDConfig
from distil.methods.sft import SFTConfig
from distil.preflight import identify, unused, unused_by_all
from tests.unit.sweeps.test_plan import config


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "RUN", "data.train_file=my rows.csv"], "Did you mean --data 'my rows.csv'?"),
        (["evaluate", "RUN", "data.prompt_column=q"], "Did you mean --prompt-column q?"),
        (
            ["evaluate", "RUN", "seed=1"],
            "seed=1 is a key of a run, and this takes flags. See distil evaluate",
        ),
        (["evaluate", "RUN", "a.csv"], "takes one folder; a.csv is a second. Did you mean --data a.csv?"),
        (["export", "RUN", "my out"], "'my out' is a second. Did you mean --output 'my out'?"),
        (["evaluate", "RUN", "--twice"], "unrecognized arguments: --twice. See distil evaluate --help"),
        (["generate", "RUN"], "Give --prompt TEXT"),
        (["generate", "RUN", "eval.max_new_tokens=3"], "Did you mean --max-new-tokens 3?"),
        (["generate", "RUN", "--seed", "1", "Hello"], "RUN: no such folder"),
        (["generate", "RUN", "hello"], "RUN: no such folder"),  # a prompt without its flag is one
        (["doctor", "rows.csv"], "It takes a run directory, or nothing"),
    ],
)
def test_what_another_takes(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text("prompt,response\na,b\n", encoding="utf-8")
    assert cli.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_the_kernel_s_folders_take_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "output_dir=/proc/x"]) == 2
    told = capsys.readouterr().err
    assert "output_dir=/proc/x cannot be written to (no folder can be made there: " in told
    assert "Errno" not in told


def test_no_folder_is_made_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "afile").touch()
    assert cli.main(["run", f"output_dir={tmp_path}/afile/x"]) == 2
    assert f"afile/x: {tmp_path}/afile is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "typed", ["method.name=gkd", "data.name=hf", "peft.name=lora", "teacher_cache.name=topk"]
)
def test_a_name_alone_chooses_no_option(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", typed]) == 2
    assert f"Write {typed.replace('.name', '')}." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "more"),
    [
        ("peft=null", "peft=none."),
        ("method=null", "--help lists them."),
        ("hydra/launcher=null", "--help lists them."),
        ("model=7", "--help lists them."),
    ],
)
@pytest.mark.parametrize(
    "before", [[], ["seed=1", "name=null", "method=kd", "output_dir=out"], ["--cfg", "job"]]
)
def test_null_is_no_option(
    typed: str, more: str, before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["run", *before, typed]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {typed} names no option of the group")
    assert told.endswith(f"{more}\n")


@pytest.mark.parametrize(
    ("made", "word", "told"),
    [
        (SFTConfig(), "method.temperature=2", True),
        (SFTConfig(), "teacher_cache.k=5", True),
        (SFTConfig(), "teacher_cache=none", False),
        (SFTConfig(), "trainer.learning_rate=1", False),
        (KDConfig(), "method.temperature=2", False),
        (KDConfig(), "rollouts.top_k=5", True),
        (KDConfig(), "+rollouts.top_k=5", True),
        (GKDConfig(), "rollouts.top_k=5", False),
        (GKDConfig(), "method.kd_loss_weight=1", True),
    ],
)
def test_a_key_that_changes_nothing_is_told(made: SFTConfig, word: str, told: bool, tmp_path: Path) -> None:
    """Whatever the method: what does not enter the identity of its run."""
    experiment: ExperimentConfig = config(tmp_path, method=made)
    lines = unused(experiment, [word, "seed=1", word])
    expected = f"{word.lstrip('+')} changes nothing: this run does not use it (method={made.name})."
    assert lines == ([expected] if told else [])


@pytest.mark.parametrize(
    ("made", "teacher", "told"),
    [
        (SFTConfig(), True, False),
        (SFTConfig(), False, True),
        (GKDConfig(lambda_gkd=0.0), True, True),  # the teacher stays for what the student writes
    ],
)
@pytest.mark.parametrize("word", ["teacher_cache=hidden", "teacher_cache.folder=kept"])
def test_a_cache_that_evaluation_reads_is_of_use(
    made: MethodConfig, teacher: bool, word: str, told: bool, tmp_path: Path
) -> None:
    """Training does not read it, and the validation and test rows' answers are kept there all the same."""
    experiment = config(tmp_path, method=made)
    experiment.eval.teacher = teacher
    assert bool(unused(experiment, [word])) is told


def test_epochs_that_steps_overrule_are_told_and_are_the_same_run(tmp_path: Path) -> None:
    """transformers reads no epochs where there are steps, so they make no other run; else they do."""

    def made(epochs: int, steps: int | None) -> ExperimentConfig:
        trainer = TrainerConfig(num_train_epochs=epochs, max_steps=steps)
        return config(tmp_path, method=KDConfig(), trainer=trainer)

    def names(steps: int | None) -> set[str]:
        return {identify(made(epochs, steps), method_of(KDConfig())) for epochs in (1, 2)}

    word = "trainer.num_train_epochs=2"
    assert unused(made(2, 7), [word]) == [
        f"{word} changes nothing: trainer.max_steps=7 counts (-1: epochs do)."
    ]
    assert len(names(7)) == 1
    for steps in (None, -1):
        assert unused(made(2, steps), [word]) == []
        assert len(names(steps)) == 2


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("eval.top_k=5", "answers are greedy (eval.do_sample=true draws them)"),
        ("tracker.project=mine", "tracker=none (tracker=wandb uses it)"),
    ],
)
def test_what_another_key_overrules_names_it(word: str, told: str, tmp_path: Path) -> None:
    experiment = config(tmp_path, method=KDConfig())
    assert unused(experiment, [word]) == [f"{word} changes nothing: {told}."]
    experiment = replace(
        experiment, eval=replace(experiment.eval, do_sample=True), tracker=TrackerConfig(name="wandb")
    )
    assert unused(experiment, [word]) == []


@pytest.mark.parametrize("tracker", ["none", "tensorboard"])
def test_what_is_for_wandb_or_a_sweep_alone_is_told(tracker: str, tmp_path: Path) -> None:
    experiment = replace(config(tmp_path, method=KDConfig()), tracker=TrackerConfig(name=tracker))
    words = [f"tracker={tracker}", "tracker.project=mine", "compare.budget=steps"]
    assert unused(experiment, words) == [
        f"tracker.project=mine changes nothing: tracker={tracker} (tracker=wandb uses it).",
        "compare.budget=steps changes nothing: it is read at the end of a sweep (-m).",
    ]
    assert not any("compare" in line for line in unused_by_all([(words, experiment)]))


def test_a_sweep_tells_what_none_of_its_jobs_uses(tmp_path: Path) -> None:
    """One that a single job uses is no mistake; the others of its value need not."""
    methods = {"sft": SFTConfig(), "kd": KDConfig(), "gkd": GKDConfig()}

    def told(names: list[str], *words: str) -> list[str]:
        made = {name: config(tmp_path, method=methods[name]) for name in names}
        return unused_by_all([([f"method={name}", *words], made[name]) for name in names])

    assert told(["sft", "kd"], "method.temperature=2", "rollouts.top_k=5") == [
        "rollouts.top_k=5 changes nothing: no job that has it uses it."
    ]
    assert told(["sft", "kd", "gkd"], "method.temperature=2", "rollouts.top_k=5") == []


@pytest.mark.parametrize("arguments", [["--version"], ["run", "--version"], ["run", "seed=1", "--version"]])
def test_the_version_is_the_products(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == f"distil-runner {version('distil-runner')}\n"


def test_a_sweep_has_no_one_config_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["-m", "--cfg", "job"], ["--multirun", "-c", "job"]):
        assert cli.main(["run", "method=kd,sft", *flags]) == 2
        assert "--cfg shows the config of one run: leave out -m" in capsys.readouterr().err


def test_ctrl_c_outside_a_run_that_is_begun_says_only_what_is_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes while libraries load, and also where a run or a sweep that is done is shown."""

    def stop(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", stop)
    assert cli.main(["run"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"
