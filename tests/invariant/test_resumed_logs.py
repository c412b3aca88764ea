"""What is logged after a resume is what would have been logged: means go over it, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training import Setup, build_method, random_rows


@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_logs_of_a_resumed_run(method: str, tmp_path: Path) -> None:
    """Checkpoints in the middle of what a log is the mean of, and of what the watch looks at."""
    arguments = {"logging_steps": 5, "save_strategy": "steps", "save_steps": 3}

    def logged(resume: Path | None = None) -> list[dict[str, Any]]:
        setup = Setup(
            build_method(method), tmp_path, steps=12, rows=random_rows(48), dropout=0.1, arguments=arguments
        )
        trainer = setup.train(resume)
        return [record for record in trainer.state.log_history if "grad_norm" in record]

    whole = logged()
    assert [record["step"] for record in whole] == [5, 10, 12], "and the last step"
    assert all(record["loss"] > 0 for record in whole)
    assert ("rollout_length" in whole[1]) is (method == "gkd")
    for at in (3, 6, 9):
        assert logged(tmp_path / f"checkpoint-{at}") == whole
