"""The options of ``debug=`` do what their line in ``--help`` says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.end_to_end.conftest import Command


def debug(option: str, small_arguments: list[str], output: Path) -> list[str]:
    """The small run without the keys that the option sets itself."""
    kept = [word for word in small_arguments if not word.startswith(("trainer.", "eval.generation_rows"))]
    return [f"debug={option}", f"output_dir={output}", "trainer.learning_rate=1e-2", *kept]


def test_overfit_sees_one_batch_and_learns_it(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    done = run_command(*debug("overfit", small_arguments, tmp_path), "run.threads=2")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "debug_overfit").iterdir()
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    assert environment["threads"] == 2, "what the run had, not what the process began with"
    assert json.loads((run / "results.json").read_text(encoding="utf-8"))["data"]["train_rows"] == 8
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["train/loss"] for line in lines]
    assert losses[-1] < losses[0] / 2
    assert not list((run / "checkpoints").glob("*"))


def test_anomaly_names_the_operation(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    arguments = debug("anomaly", small_arguments, tmp_path)
    done = run_command(*arguments, "trainer.learning_rate=1e30", "trainer.max_grad_norm=0")
    assert done.returncode == 1
    (run,) = (tmp_path / "debug_anomaly").iterdir()
    status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    assert status["status"] == "failed"
    assert re.search(r"\w+Backward\d*' returned nan|[Dd]etected inf/nan", status["reason"])


def test_profile_says_speed_and_memory(
    small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    done = run_command(*debug("profile", small_arguments, tmp_path))
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "debug_profile").iterdir()
    log = (run / "run.log").read_text(encoding="utf-8")
    assert "train_steps_per_second" in log
    assert "train_mem_cpu_peaked_delta" in log
