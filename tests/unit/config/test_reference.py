"""The page of config keys is what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_page_is_up_to_date() -> None:
    """`make docs` writes it."""
    script = ROOT / "scripts" / "generate_config_reference.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_key_is_there() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for key in ("method.kd_loss_weight", "model.student.keep_layers", "data.prompt_column", "run.threads"):
        assert f"`{key}`" in page
