"""Bad data, told by the real command: exit code 2, one message naming key, value and way out."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

GOOD = '{"prompt": "the cat ?", "response": "a dog ."}\n'
OTHERS = GOOD.replace("cat", "dog") + GOOD.replace("cat", "sea")
FILES: list[tuple[str, str, list[str], str]] = [
    ("empty.jsonl", "", [], "is empty"),
    ("blank.jsonl", "\n\n", [], "holds no rows"),
    ("shape.jsonl", GOOD * 6 + '"text"\n' + GOOD, [], "line 7 is not a JSON object: '\"text\"'"),
    ("broken.jsonl", GOOD * 2 + '{"prompt": \n', [], "line 3 is not a JSON object"),
    ("array.json", "[1, 2]", [], "row 0 is not a JSON object"),
    ("rows.csv", "prompt,response\n", [], "a header and no rows"),
    ("fields.csv", "prompt,response\na,b\nc\n", [], "line 3 has 1 field, the header 2"),
    ("twice.csv", "prompt,prompt,response\na,b,c\n", [], "its first line names prompt"),
    ("blank.csv", "prompt,response,\na,b,\n", [], "a column without a name"),
    ("deep.jsonl", '{"prompt": ' + "[" * 9999 + "]" * 9999 + "}\n", [], "line 1 is nested too deeply"),
    (
        "cell.jsonl",
        GOOD + OTHERS + "\n" + '{"prompt": {}, "response": ""}\n',
        [],
        "line 5: column prompt holds dict",
    ),
    ("half.parquet", "PAR1", [], "not a complete Parquet file"),
    ("kind.docx", "text", [], "unknown kind of file '.docx'. Known: .jsonl"),
    ("columns.jsonl", '{"q": "a", "a": "b"}\n', [], "Its columns: a, q. Name them: data.prompt_column"),
]


def message_of(result: subprocess.CompletedProcess[str], output: Path) -> str:
    """The one message of a refused run, on one line; no model was loaded far enough to leave anything."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert not list(output.rglob("*.safetensors"))
    assert not list(output.rglob("results.json"))
    return re.sub(r"\s+", " ", result.stderr).strip()


@pytest.fixture
def refused(run_command: Run, small_pair: Path, tmp_path: Path) -> Callable[..., str]:
    """``refused(*overrides)``: the message of a run on the small pair that bad data ends."""

    def run(*overrides: str) -> str:
        output = tmp_path / "outputs"
        result = run_command(
            f"model.teacher.path={small_pair / 'teacher'}",
            f"model.student.path={small_pair / 'student'}",
            f"output_dir={output}",
            *overrides,
        )
        return message_of(result, output)

    return run


@pytest.mark.parametrize(("name", "text", "overrides", "wanted"), FILES, ids=[name for name, *_ in FILES])
def test_bad_files(
    name: str, text: str, overrides: list[str], wanted: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    message = refused("data=jsonl", f"data.train_file={path}", *overrides)
    assert f"data.train_file={path}" in message
    assert wanted in message


def test_skipped_rows(small_pair: Path, small_arguments: list[str], tmp_path: Path, run_command: Run) -> None:
    """Said once, counted in the results, listed with their lines."""
    path, output = tmp_path / "mixed.jsonl", tmp_path / "outputs"
    lines = (small_pair / "rows.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:5], "torn\n", *lines[5:], '{"prompt": "a", "response": {}}\n']))
    result = run_command(
        *small_arguments, "trainer.max_steps=2", f"data.train_file={path}", "data.on_bad_row=skip",
        f"output_dir={output}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (folder,) = (output / "default").iterdir()
    assert result.stderr.count("2 malformed rows are left out") == 1
    assert json.loads((folder / "results.json").read_text())["data"]["dropped"] == {"malformed": 2}
    listed = [json.loads(line) for line in (folder / "bad_rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in listed] == [6, 202]
    assert " rows that were read were left out: malformed." in (folder / "report.html").read_text()


def test_missing_file(refused: Callable[..., str]) -> None:
    assert "data.train_file=/no/such.jsonl: no such file" in refused(
        "data=jsonl", "data.train_file=/no/such.jsonl"
    )


def test_no_file_named(refused: Callable[..., str]) -> None:
    assert "data.train_file" in refused("data=jsonl")


def test_missing_column(small_pair: Path, refused: Callable[..., str]) -> None:
    message = refused(
        "data=jsonl", f"data.train_file={small_pair / 'rows.jsonl'}", "data.response_column=answer"
    )
    assert "data.response_column=answer is not a column" in message
    assert "Its columns: prompt, response" in message


def test_max_length_too_small_for_any_prompt(small_pair: Path, refused: Callable[..., str]) -> None:
    message = refused("data=jsonl", f"data.train_file={small_pair / 'rows.jsonl'}", "data.max_length=4")
    assert "data.max_length=4" in message
    assert "the shortest prompt has 5 tokens" in message


def test_no_row_with_a_scored_token(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "unscored.jsonl"
    rows = [{"input_ids": [2, 3, 4 + i % 9], "labels": [-100] * 3, "number": i} for i in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    message = refused("data=jsonl", f"data.train_file={path}")
    assert "no train row has a scored token. Dropped: no scored token" in message


@pytest.mark.parametrize("override", ["data.truncation=left", "data.score=some", "data.max_length=0"])
def test_values_out_of_range(override: str, small_pair: Path, refused: Callable[..., str]) -> None:
    key, value = override.split("=")
    message = refused("data=jsonl", f"data.train_file={small_pair / 'rows.jsonl'}", override)
    assert key in message
    assert value in message


def test_chat_template_that_nobody_has(small_pair: Path, refused: Callable[..., str]) -> None:
    message = refused("data=jsonl", f"data.train_file={small_pair / 'rows.jsonl'}", "data.chat_template=true")
    assert "data.chat_template=true, but the model's tokenizer has no chat template" in message


def test_a_hub_that_does_not_answer(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Within seconds, not the most of a minute that the libraries retry."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        message = refused("data=dolly15k")
        seconds = time.monotonic() - start
    assert "data.path=databricks/databricks-dolly-15k" in message
    assert "the hub does not answer" in message
    assert seconds < 10, "3 seconds of waiting, and a start-up on a busy machine"


def test_network_forbidden(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    message = refused("data=hf", "data.path=owner/name", "run.allow_network=false")
    assert "data.path=owner/name" in message
    assert "run.allow_network=false keeps the hub out" in message
