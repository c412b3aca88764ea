"""The script that runs all that the docs show leaves nothing out, and tells what failed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts import rehearse
from scripts.rehearse import ROOT, SMALL_BENCHMARK, Command, Record, commands, main, state


def test_nothing_that_users_run_is_left_out() -> None:
    lines = [command.words for command in commands()]
    for kind in ("experiment", "debug", "sweep"):
        for path in (ROOT / "conf" / kind).glob("*.yaml"):
            assert any(f"{kind}={path.stem}" in line.split() for line in lines), path
    for path in (ROOT / "conf" / "hydra").glob("*/*.yaml"):
        assert any(f"hydra/{path.parent.name}={path.stem}" in line.split() for line in lines), path
    for path in (ROOT / "conf" / "accelerate").glob("*.yaml"):
        assert any(f"conf/accelerate/{path.name}" in line for line in lines), path
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
    good = Command("readme", f'test -z "$ARGS$MAKEFLAGS" && echo once >> {folder}/said', "")
    bad = Command("readme", "echo wrong; exit 3", "")
    other = Command("presets", "python run.py data.path=FOLDER", "")
    far = Command("presets", "python run.py model=large", "", "wants a larger machine")
    monkeypatch.setattr(rehearse, "commands", lambda: [good, bad, other, far])
    monkeypatch.setattr("sys.argv", ["rehearse.py", "--quick"])
    monkeypatch.setattr(rehearse, "OUTPUT", folder)
    monkeypatch.setenv("ARGS", "--data FOLDER")  # of `make rehearse`, which is no word for the commands' own
    monkeypatch.setenv("MAKEFLAGS", "-- ARGS=--data")
    for _ in range(2):
        assert main() == 1
        said = capsys.readouterr().out
        assert f"2/2  echo wrong; exit 3 … exit 3, see {folder / '02-readme.log'}" in said
        assert "1 of 2 passed in 0 min, 1 failed" in said
        assert "left out, no --data: python run.py data.path=FOLDER" in said
        assert "left out, wants a larger machine: python run.py model=large" in said
    assert (folder / "said").read_text() == "once\n"
    assert (folder / "02-readme.log").read_text().splitlines() == ["$ echo wrong; exit 3 ", "wrong"]
    assert list(json.loads((folder / "quick.json").read_text())["seconds"]) == [good.words]
    monkeypatch.setattr("sys.argv", ["rehearse.py", "--quick", "--list", "readme"])
    assert main() == 0
    assert capsys.readouterr().out.splitlines() == [f"{good.words} ", f"{bad.words} "]


def test_a_pass_is_one_of_this_code_and_this_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, check=True)

    monkeypatch.setattr(rehearse, "ROOT", tmp_path)
    git("init", "-q")
    (tmp_path / "code.py").write_text("1")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    git("add", ".")
    git("commit", "-qm", "first")
    first = state(None)
    Record(tmp_path / ".git" / "quick.json", first).add("a command", 1.0)
    (tmp_path / "benchmarks" / "results" / "made.md").write_text("by a command")
    assert state(None) == first
    assert Record(tmp_path / ".git" / "quick.json", state(None)).passed == {"a command": 1.0}
    seen = [first, state(tmp_path)]
    for name, text in (("code.py", "2"), ("new.py", "3"), ("new.py", "4")):
        (tmp_path / name).write_text(text)
        seen.append(state(None))
    assert len({tuple(one.values()) for one in seen}) == len(seen)
    assert not Record(tmp_path / ".git" / "quick.json", seen[-1]).passed


@pytest.mark.parametrize("words", [["presents"], ["--data", "nowhere"]])
def test_a_slip_is_told(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rehearse.py", *words])
    with pytest.raises(SystemExit):
        main()
    assert words[-1] in capsys.readouterr().err
