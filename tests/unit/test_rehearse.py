"""The script that runs all that the docs show leaves nothing out, and tells what failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts import rehearse
from scripts.rehearse import ROOT, SMALL_BENCHMARK, Command, commands, main


def test_nothing_that_users_run_is_left_out() -> None:
    lines = [command.words for command in commands()]
    for kind in ("experiment", "debug", "sweep"):
        for path in (ROOT / "conf" / kind).glob("*.yaml"):
            assert any(f"{kind}={path.stem}" in line.split() for line in lines), path
    for folder in ("examples", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            if "__main__" in path.read_text(encoding="utf-8"):
                assert any(f"{folder}/{path.name}" in line for line in lines), path
    assert {Path(word).stem for line in lines for word in line.split() if "benchmarks/" in word} == set(
        SMALL_BENCHMARK
    )


def test_in_small_it_writes_over_no_result() -> None:
    for command in commands():
        line = command.line(quick=True, data=Path("/data"))
        assert "FOLDER" not in line
        assert "REVISION" not in line
        if command.part == "benchmarks":
            assert "--output outputs/rehearsal/" in line


def test_what_passed_is_not_run_again_and_what_failed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "checkout"
    folder.mkdir()
    good = Command("readme", f"echo once >> {folder}/said", "")
    bad = Command("readme", "echo wrong; exit 3", "")
    other = Command("presets", "python run.py data.path=FOLDER", "")
    monkeypatch.setattr(rehearse, "commands", lambda: [good, bad, other])
    monkeypatch.setattr("sys.argv", ["rehearse.py", "--quick"])
    monkeypatch.setattr(rehearse, "OUTPUT", folder)
    for _ in range(2):
        assert main() == 1
        said = capsys.readouterr().out
        assert f"2/3  echo wrong; exit 3 … exit 3, see {folder / '02-readme.log'}" in said
        assert "3/3  python run.py data.path=FOLDER … left out: no --data" in said
        assert "1 of 3 passed, 1 failed, 1 left out" in said
    assert (folder / "said").read_text() == "once\n"
    assert (folder / "02-readme.log").read_text().splitlines() == ["$ echo wrong; exit 3 ", "wrong"]
    assert list(json.loads((folder / "quick.json").read_text())["seconds"]) == [good.words]


@pytest.mark.parametrize("words", [["presents"], ["--data", "nowhere"]])
def test_a_slip_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rehearse.py", *words])
    with pytest.raises(SystemExit):
        main()
    assert words[-1] in capsys.readouterr().err
