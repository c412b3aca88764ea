"""``distil merge``, ``generate`` and ``evaluate`` on runs of every kind; merged models in a fresh process."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.cli import main
from distil.data.columns import ALPACA, ALPACA_CONTEXT
from distil.products.finished_run import open_run
from distil.products.loading import load_product
from distil.products.rows_file import RowsFile
from distil.results import seal
from distil.types import InputError
from tests.adapters import save_bases, word_tokenizer
from tests.end_to_end.ask_merged import NEW, PROMPT

MERGED: dict[str, list[str]] = {
    "lora": ["peft=lora"],
    "lora-gpt2": ["peft=lora", "model.student.path={bases}/gpt2"],
    "lora-pruned": ["peft=lora", "model.student.path={teachers}/llama", "model.student.keep_layers=2"],
    "lora-random": ["peft=lora", "model.student.init=random", "model.student.overrides.num_hidden_layers=1"],
    "lora-self": ["peft=lora", "model.teacher.path=self", "method=sft"],
    "lora-head": ["peft=lora", "peft.target_modules=[q_proj,lm_head]"],
    "lora-embedding": ["peft=lora", "peft.target_modules=[q_proj,embed_tokens]"],
    "lora-saved-head": ["peft=lora", "peft.modules_to_save=[lm_head]"],
    "pissa": ["peft=lora", "peft.init_lora_weights=pissa", "peft.r=4"],
    "dora": ["peft=dora"],
    "ia3": ["peft=ia3"],
    "qlora-4": ["peft=qlora"],
    "qlora-4-gpt2": ["peft=qlora", "model.student.path={bases}/gpt2"],
    "qlora-8": ["peft=qlora", "peft.bits=8"],
    "qlora-8-gpt2": ["peft=qlora", "peft.bits=8", "model.student.path={bases}/gpt2"],
}
PACKED = {"ia3-on-4-bit": ["peft=ia3", "model.student.path={bases}/packed"]}
UNMERGED: dict[str, list[str]] = {
    "none": [],
    "prefix": ["peft=prefix", "peft.num_virtual_tokens=6"],
    "prompt": ["peft=prompt", "peft.num_virtual_tokens=6"],
    "ptuning": ["peft=ptuning", "peft.num_virtual_tokens=6"],
}
CASES = MERGED | UNMERGED

CHAT = (
    "{% for m in messages %}{{ {'system': 'w2 ', 'user': 'w3 ', 'assistant': 'w4 '}[m['role']] }}"
    "{{ m['content'] }} w1 {% endfor %}{% if add_generation_prompt %}w4 {% endif %}"
)


class Runs:
    """Runs of seconds, each made once, where a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bases, self.teachers = save_bases(folder / "bases"), save_bases(folder / "teachers", layers=3)
        _pack(self.bases / "llama", self.bases / "packed")
        chance = random.Random(0)
        for name, count in (("rows", 48), ("test", 12)):
            lines = [
                json.dumps(
                    {key: " ".join(f"w{chance.randrange(2, 64)}" for _ in range(n)) for key, n in sizes}
                )
                for sizes in ([("prompt", chance.randint(2, 6)), ("response", chance.randint(2, 8))],) * count
            ]
            (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
        self.made: dict[str, Path] = {}

    def run(self, case: str) -> Path:
        """The run directory of ``case``."""
        if case not in self.made:
            output = self.folder / "outputs" / case
            overrides = [o.format(bases=self.bases, teachers=self.teachers) for o in (CASES | PACKED)[case]]
            assert main(["run", *self.arguments(output), *overrides]) == 0
            (self.made[case],) = (output / "default").iterdir()
        return self.made[case]

    def copy(self, case: str, folder: Path) -> Path:
        """A copy of the run directory, to be spoilt."""
        return Path(shutil.copytree(self.run(case), folder / "run"))

    def arguments(self, output: Path) -> list[str]:
        """What all runs share."""
        return [
            f"output_dir={output}",
            f"model.teacher.path={self.teachers / 'llama'}",
            f"model.student.path={self.bases / 'llama'}",
            f"data.train_file={self.folder / 'rows.jsonl'}",
            f"data.test_file={self.folder / 'test.jsonl'}",
            "run.threads=1",
            "eval.generation_rows=4",
            f"eval.max_new_tokens={NEW}",
            "trainer.per_device_train_batch_size=4",
            "trainer.max_steps=3",
            "trainer.learning_rate=3e-2",
            "trainer.warmup_steps=0",
            "trainer.eval_strategy=no",
            "trainer.save_strategy=no",
        ]


def _pack(base: Path, folder: Path) -> None:
    """``base`` as a folder whose weights are in 4 bits already."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    four = BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # theirs has no types
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="float32"
    )
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, quantization_config=four)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("verbs"))


def logits_of(run: Path) -> Tensor:
    """What the run's student says, unmerged."""
    with torch.no_grad():
        logits: Tensor = load_product(open_run(run))(input_ids=torch.tensor([PROMPT])).logits
    return logits


def results_of(run: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return results


def samples_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("module", ["distil", "distil.cli"])
def test_the_modules_are_the_command_too(module: str) -> None:
    command = [sys.executable, "-m", module]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    assert "usage: distil VERB" in shown
    wrong = subprocess.run([*command, "rnu"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "Did you mean run?" in wrong.stderr


# ---- evaluate


QUICK = ("none", "lora", "lora-pruned", "qlora-4", "qlora-8-gpt2", "prefix")
"""Cases that are evaluated again without being asked for."""


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_evaluate_gives_the_numbers_of_the_run_again(case: str, runs: Runs, tmp_path: Path) -> None:
    """To the last bit: the student's and the teacher's, on the test rows and on the same rows as a file."""
    run, told = runs.run(case), tmp_path / "told.json"
    results = results_of(run)
    for data in ([], ["--data", str(runs.folder / "test.jsonl")]):
        assert main(["evaluate", str(run), "--json", str(told), *data]) == 0
        again = json.loads(told.read_text(encoding="utf-8"))
        assert again["student"] == results["student_after"]
        assert again["teacher"] == results["teacher"]
        assert again["metrics"] == results["metrics"]
        assert again["evaluation"]["scored_tokens"] == results["evaluation"]["scored_tokens"]
        assert again["notes"] == []
    before = results["student_before"]
    assert again["student"] != before, "training moved it, or nothing was shown"


def test_evaluate_some_rows_and_the_student_alone(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told.json"
    command = ["evaluate", str(runs.run("lora")), "--rows", "3", "--generation-rows", "2", "--no-teacher"]
    capsys.readouterr()
    assert main([*command, "--json", str(told)]) == 0
    result = json.loads(told.read_text(encoding="utf-8"))
    assert (result["evaluation"]["rows"], result["evaluation"]["generation_rows"]) == (3, 2)
    assert result["teacher"] is None
    assert not any(name.startswith(("kl", "top1")) for name in result["student"])
    shown = capsys.readouterr().out
    assert "3 test rows of the run" in shown
    assert "teacher" not in shown.splitlines()[0]


def rows_in(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def evaluated(run: Path, file: Path, rows: list[dict[str, str]], *named: str) -> dict[str, Any]:
    """What ``distil evaluate --data`` says of these rows."""
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    told = file.with_suffix(".told")
    assert main(["evaluate", str(run), "--data", str(file), "--json", str(told), *named]) == 0
    result: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
    return result


def test_evaluate_a_file_with_columns_of_its_own(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever its columns are called, the numbers of the run: prompts have the form of its training."""
    rows, run = rows_in(runs.folder / "test.jsonl"), runs.run("lora")

    def called(prompt: str, response: str, *named: str) -> dict[str, Any]:
        mine = [{prompt: row["prompt"], response: row["response"]} for row in rows]
        return evaluated(run, tmp_path / "rows.jsonl", [*mine, {prompt: "w3", response: ""}], *named)

    names = ("--prompt-column", "ask", "--response-column", "say")
    for result in (called("instruction", "output"), called("ask", "say", *names)):
        assert result["student"] == results_of(run)["student_after"]
        assert result["teacher"] == results_of(run)["teacher"]
        assert result["evaluation"]["rows"] == len(rows)
        assert result["notes"] == ["Rows left out: 1 empty response."]
    rows += [{"prompt": "w3", "response": "w5 " * 2000}, *rows_in(runs.folder / "rows.jsonl")]
    trained = results_of(run)["data"]["train_rows"]
    _, cut, shared = called("ask", "say", *names)["notes"]
    assert cut.startswith(f"1 of {len(rows)} given rows is longer than data.max_length=")
    assert shared.startswith(f"{trained} of {len(rows)} given rows are training rows, too: ")
    first = called("ask", "say", *names, "--rows", str(len(rows_in(runs.folder / "test.jsonl"))))
    assert not any("training rows" in note for note in first["notes"]), "of those that are evaluated"
    assert main(["evaluate", str(run), "--data", str(tmp_path / "rows.jsonl")]) == 2
    assert "--prompt-column" in capsys.readouterr().err, "unnamed, nobody can know them"


@pytest.mark.parametrize(
    ("rows", "says"),
    {
        "columns": ([{"ask": "w3", "say": "w4"}], "no columns to learn from. Its columns: ask, say"),
        "cells": ([{"prompt": {"a": 1}, "response": "w4"}], "line 1: column prompt holds dict values"),
        "empty": ([{"prompt": "w3", "response": ""}] * 2, "learn from: empty response (2)"),
    }.values(),
)
def test_rows_that_cannot_be_evaluated_are_refused_before_a_model_loads(
    rows: list[dict[str, Any]], says: str, runs: Runs, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        RowsFile(open_run(runs.run("none")), tmp_path / "rows.jsonl", {}).check()
    assert str(caught.value).startswith(f"--data {tmp_path / 'rows.jsonl'}")
    assert says in str(caught.value)
    assert "data." not in str(caught.value).replace("data.on_bad_row", "")


def test_evaluate_says_where_rows_are_copies(runs: Runs, tmp_path: Path) -> None:
    rows = rows_in(runs.folder / "test.jsonl")[:2] * 3
    notes = evaluated(runs.run("none"), tmp_path / "rows.jsonl", rows)["notes"]
    assert any(note.startswith("Of 6 rows 2 are different: copies tell nothing new") for note in notes)
    notes = evaluated(runs.run("none"), tmp_path / "rows.jsonl", rows, "--rows", "2")["notes"]
    assert not any("copies" in note for note in notes), "of those that are evaluated"


def test_evaluate_says_where_a_file_lacks_the_context_that_prompts_had(runs: Runs, tmp_path: Path) -> None:
    run = runs.copy("none", tmp_path)
    more = [row | {"facts": "w3 w4"} for row in rows_in(runs.folder / "test.jsonl")]
    unread = "Columns that are not read: facts. The prompts of the run had no context, either."
    assert unread in evaluated(run, tmp_path / "rows.jsonl", more)["notes"]
    results = results_of(run)
    results["data"]["shape"] |= {"context": "about"}
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")
    rows = [row | {"facts": "w3 w4"} for row in rows_in(runs.folder / "test.jsonl")]
    notes = evaluated(run, tmp_path / "rows.jsonl", rows)["notes"]
    assert any(note.startswith("The prompts of the run had a context (its column about)") for note in notes)
    named = ("--prompt-column", "prompt", "--response-column", "response", "--context-column", "facts")
    notes = evaluated(run, tmp_path / "rows.jsonl", rows, *named)["notes"]
    assert not any("context" in note for note in notes)


def test_generate_says_where_a_prompt_lacks_the_context_that_all_had(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.copy("none", tmp_path)
    results, samples = results_of(run), samples_of(run)
    results["data"]["shape"] = {"kind": "pair", "prompt": "ask", "context": "about", "headings": True}
    (run / "results.json").write_text(json.dumps(results), encoding="utf-8")

    def said(prompts: list[str], *more: str) -> str:
        lines = [json.dumps(s | {"prompt": prompt}) for s, prompt in zip(samples, prompts, strict=False)]
        (run / "samples.jsonl").write_text("\n".join(lines), encoding="utf-8")
        seal(run)
        assert main(["generate", str(run), "--prompt", "w3", "--max-new-tokens", "1", *more]) == 0
        return capsys.readouterr().err

    with_one = ALPACA_CONTEXT.format(prompt="w3", context="w4")
    lacks = "had a context each (column about), and this has none: --context TEXT."
    assert lacks in said([with_one, with_one])
    assert lacks not in said([with_one, with_one], "--context", "w5")
    assert lacks not in said([with_one, ALPACA.format(prompt="w3")])


def test_a_chat_is_asked_in_the_turns_of_its_rows(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt as the samples show it, or its last turn and ``--system``, has the answer of the sample."""
    models = {
        who: Path(shutil.copytree(folder / "llama", tmp_path / who))
        for who, folder in (("teacher", runs.teachers), ("student", runs.bases))
    }
    for folder in models.values():
        tokenizer = word_tokenizer()
        tokenizer.chat_template = CHAT
        tokenizer.save_pretrained(folder)
    for name in ("rows", "test"):
        chats = [
            [("system", "w9 w8"), ("user", row["prompt"]), ("assistant", row["response"])]
            for row in rows_in(runs.folder / f"{name}.jsonl")
        ]
        lines = [json.dumps({"messages": [{"role": r, "content": c} for r, c in chat]}) for chat in chats]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    keys = [f"model.{who}.path={folder}" for who, folder in models.items()]
    keys += [
        f"data.{split}_file={tmp_path}/{name}.jsonl" for split, name in (("train", "rows"), ("test", "test"))
    ]
    assert main(["run", *runs.arguments(tmp_path / "out"), *keys]) == 0
    (run,) = (tmp_path / "out" / "default").iterdir()
    capsys.readouterr()
    answers = set()
    for sample in samples_of(run):
        alone = sample["prompt"].removeprefix("system: w9 w8\nuser: ")
        assert alone != sample["prompt"]
        for asked in ([sample["prompt"]], [alone, "--system", "w9 w8"]):
            assert main(["generate", str(run), *asked]) == 0
            said = capsys.readouterr()
            assert said.out == f"{sample['student_after']}\n"
            assert "had a system message" not in said.err
            assert ("written in turns" in said.err) == (len(asked) == 1)
        assert main(["generate", str(run), alone]) == 0
        said = capsys.readouterr()
        assert "had a system message each, and this has none. One of them: --system 'w9 w8'\n" in said.err
        answers.add(said.out == f"{sample['student_after']}\n")
    assert False in answers, "the message counts"
    rows = rows_in(runs.folder / "test.jsonl")
    lacks = (
        "The prompts of the run had a system message each, and those here have none: give rows of messages."
    )
    assert lacks in evaluated(run, tmp_path / "pairs.jsonl", rows)["notes"]
    assert lacks not in evaluated(run, tmp_path / "chats.jsonl", rows_in(tmp_path / "test.jsonl"))["notes"]


def test_evaluate_writes_rows_of_a_file_as_the_run_wrote_its_own(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its template, under the names of the file; its special tokens."""
    keys = ['data.prompt_template="w9 {prompt} w8"', "data.split_special_tokens=false"]
    assert main(["run", *runs.arguments(tmp_path / "out"), *keys]) == 0
    (run,) = (tmp_path / "out" / "default").iterdir()
    rows = rows_in(runs.folder / "test.jsonl")
    scores = results_of(run)["student_after"]
    file = tmp_path / "rows.jsonl"
    assert evaluated(run, file, rows)["student"] == scores
    mine = [{"ask": row["prompt"], "response": row["response"]} for row in rows]
    assert evaluated(run, file, mine, "--prompt-column", "ask")["student"] == scores
    better = [{"prompt": row["prompt"], "better": row["response"]} for row in rows]
    assert evaluated(run, file, better, "--response-column", "better")["student"] == scores
    file.write_text("\n".join(map(json.dumps, mine)), encoding="utf-8")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", str(file)]) == 2
    assert "has no column prompt, of which the prompts of this run are written" in capsys.readouterr().err


def test_evaluate_says_where_the_rows_are_others(runs: Runs, tmp_path: Path) -> None:
    """The digest of the rows is in results.json: rows that changed since do not pass for the same."""
    run, told = runs.copy("lora", tmp_path), tmp_path / "told.json"
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(config.replace("test.jsonl", "rows.jsonl"), encoding="utf-8")
    assert main(["evaluate", str(run), "--json", str(told)]) == 0
    (note,) = json.loads(told.read_text(encoding="utf-8"))["notes"]
    assert "not the test rows of the run" in note


def test_evaluate_says_of_no_row_that_a_changed_file_was_trained_on(runs: Runs, tmp_path: Path) -> None:
    """What a run was trained on is what its files held then."""
    run, trained = runs.copy("lora", tmp_path), tmp_path / "trained.jsonl"
    config, rows = (run / "config.yaml").read_text(encoding="utf-8"), rows_in(runs.folder / "rows.jsonl")
    shutil.copy(runs.folder / "rows.jsonl", trained)
    moved = config.replace(str(runs.folder / "rows.jsonl"), str(trained))
    (run / "config.yaml").write_text(moved, encoding="utf-8")

    def notes() -> list[str]:
        told = evaluated(run, tmp_path / "rows.jsonl", rows, "--no-teacher")["notes"]
        return [note for note in told if "training rows" in note]

    assert len(notes()) == 1
    trained.write_text("\n".join(map(json.dumps, rows[::-1])), encoding="utf-8")
    assert notes() == []


# ---- generate


@pytest.mark.parametrize("case", ["none", "lora-gpt2", "qlora-4", "prefix", "prompt", "lora-self"])
def test_generate_answers_as_the_run_did(case: str, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """The run's own test prompts, typed again: the same text as in its samples."""
    run = runs.run(case)
    for sample in samples_of(run)[:2]:
        capsys.readouterr()
        assert main(["generate", str(run), "--prompt", sample["prompt"]]) == 0
        assert capsys.readouterr().out == sample["student_after"] + "\n"


def test_generate_beside_the_teacher(
    runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs.run("lora")
    first, second = samples_of(run)[:2]
    for width in ("80", "140"):
        monkeypatch.setenv("COLUMNS", width)
        capsys.readouterr()
        command = [
            "generate",
            str(run),
            "--teacher",
            "--prompt",
            first["prompt"],
            "--prompt",
            second["prompt"],
        ]
        assert main(command) == 0
        shown = capsys.readouterr().out
        for sample in (first, second):
            for text in (sample["prompt"], sample["teacher"], sample["student_after"]):
                assert text in shown


def test_generate_ends_where_the_run_did(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the ends of text that the run's teacher knows, too, though that one is not loaded."""
    long = samples_of(runs.run("none"))[0]
    word = long["student_after"].split()[1]
    teacher = Path(shutil.copytree(runs.teachers / "llama", tmp_path / "teacher"))
    config = json.loads((teacher / "generation_config.json").read_text(encoding="utf-8"))
    ends = [config["eos_token_id"], word_tokenizer().convert_tokens_to_ids(word)]
    for name in ("generation_config.json", "config.json"):  # of the first; without it, of the second
        file = teacher / name
        told = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(told | {"eos_token_id": ends}), encoding="utf-8")
    arguments = [*runs.arguments(tmp_path / "out"), f"model.teacher.path={teacher}"]
    assert main(["run", *arguments]) == 0
    (run,) = (tmp_path / "out" / "default").iterdir()
    short = samples_of(run)[0]
    assert long["student_after"].startswith(short["student_after"])
    assert len(short["student_after"]) < len(long["student_after"])
    for file in (teacher / "absent", teacher / "generation_config.json"):
        file.unlink(missing_ok=True)
        capsys.readouterr()
        assert main(["generate", str(run), "--prompt", short["prompt"]]) == 0
        assert capsys.readouterr().out == short["student_after"] + "\n"
    shutil.rmtree(teacher)
    assert main(["generate", str(run), "--prompt", short["prompt"]]) == 0, "the student needs no teacher"


def test_generate_says_which_answers_have_no_end(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", str(runs.run("none")), "--max-new-tokens", "1"]
    said = "no end: at most 1 tokens are written (--max-new-tokens)."
    asked = {"The answer has": ["--prompt", "w5"], "4 of 4 answers have": ["w5 w6", "w7 w8", "--teacher"]}
    for told, words in asked.items():
        capsys.readouterr()
        assert main([*command, *words]) == 0
        shown = capsys.readouterr()
        assert f"{told} {said}\n" in shown.err
        assert said not in shown.out


def test_generate_draws_from_its_seed(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(*words: str) -> str:
        capsys.readouterr()
        command = ["generate", str(runs.run("none")), "--prompt", "w5 w9", "--max-new-tokens", "20", *words]
        assert main(command) == 0
        return capsys.readouterr().out

    greedy, drawn_3 = drawn(), drawn("--temperature", "5", "--seed", "3")
    assert drawn("--temperature", "5", "--seed", "3") == drawn_3
    assert drawn("--temperature", "5", "--seed", "4") != drawn_3
    assert drawn_3 != greedy
    assert drawn("--greedy") == greedy
    assert drawn("--sample", "--top-k", "1") == greedy, "of the one likeliest token, every draw is that one"


# ---- merge


@pytest.fixture(scope="module")
def merged(runs: Runs) -> Path:
    """A folder with every merged model, by case."""
    folder = runs.folder / "merged"
    for case in MERGED:
        assert main(["merge", str(runs.run(case)), "--output", str(folder / case)]) == 0
    return folder


def test_merged_models_say_what_their_students_say(runs: Runs, merged: Path, tmp_path: Path) -> None:
    """Loaded by transformers alone in a process without PEFT and bitsandbytes, 4 bits within 1e-5."""
    (tmp_path / "cells.json").write_text(json.dumps({case: str(merged / case) for case in MERGED}))
    script = str(Path(__file__).with_name("ask_merged.py"))
    command = [sys.executable, script, str(tmp_path / "cells.json"), str(tmp_path / "answers.pt")]
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    answers = torch.load(tmp_path / "answers.pt")
    apart = {}
    for case, answer in answers.items():
        wanted = logits_of(runs.run(case))
        apart[case] = float((answer["logits"] - wanted).abs().max())
        greedy = wanted[0, -1].argmax().item()
        assert answer["written"][0] == greedy
        assert len(answer["written"]) == NEW
        assert answer["words"] == word_tokenizer()("w5 w9")["input_ids"]
    assert {case: far for case, far in apart.items() if far > 1e-5} == {}


@pytest.mark.parametrize("case", MERGED)
def test_merged_folders_are_plain(case: str, runs: Runs, merged: Path) -> None:
    """No trace of quantisation, of an adapter, or (but for the commands in the card) of this machine."""
    config = json.loads((merged / case / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config
    assert config["use_cache"] is True
    assert not list((merged / case).glob("adapter*"))
    for file in (merged / case).glob("*.json"):
        assert str(runs.folder) not in file.read_text(encoding="utf-8")
    card = (merged / case / "README.md").read_text(encoding="utf-8")
    assert "peft" not in card.split("---")[1]
    assert "distil run " in card
    assert f"distil merge {runs.run(case)} --output {merged / case}" in card
    assert not list(merged.glob(".*")), "nothing half-written beside it"


@pytest.mark.parametrize(
    "case", ["lora-pruned", "lora-random", "qlora-4-gpt2", "qlora-8", "prompt", "prefix"]
)
def test_base_only_is_the_base_of_the_adapter(case: str, runs: Runs, tmp_path: Path) -> None:
    """PEFT puts the run's adapter onto it: the student, as it left the run."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    output = tmp_path / "base"
    assert main(["merge", str(runs.run(case)), "--output", str(output), "--base-only"]) == 0
    base = AutoModelForCausalLM.from_pretrained(output)
    student: Any = PeftModel.from_pretrained(base, str(runs.run(case) / "student"))
    with torch.no_grad():
        logits = student.eval()(input_ids=torch.tensor([PROMPT])).logits
    assert torch.allclose(logits, logits_of(runs.run(case)), atol=1e-5)


def test_ia3_on_a_base_in_4_bits_is_merged_through_its_unpacked_weights(runs: Runs, tmp_path: Path) -> None:
    """PEFT merges IA3 into no quantised weight. Unpacked base + adapter, by PEFT, says the same."""
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    run = runs.copy("ia3-on-4-bit", tmp_path)
    weights = run / "student" / "adapter_model.safetensors"
    stirred = {name: tensor + 0.5 * torch.randn(tensor.shape) for name, tensor in load_file(weights).items()}
    save_file(stirred, weights)
    seal(run)  # as if it had been trained to these
    assert main(["merge", str(run), "--output", str(tmp_path / "merged")]) == 0
    assert main(["merge", str(run), "--output", str(tmp_path / "base"), "--base-only"]) == 0
    models: list[Any] = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("merged", "base")]
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        merged, base = (model(input_ids=ids).logits for model in models)
        student: Any = PeftModel.from_pretrained(models[1], str(run / "student"))
        wanted = student.eval()(input_ids=ids).logits
    assert torch.allclose(merged, wanted, atol=1e-5)
    assert (base - wanted).abs().max() > 0.1
    assert "quantization_config" not in (tmp_path / "merged" / "config.json").read_text(encoding="utf-8")


# ---- what cannot work


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("none", ["peft=none", "plain model already", "student"]),
        ("prefix", ["peft=prefix", "nothing to merge", "--base-only"]),
        ("prompt", ["peft=prompt", "nothing to merge", "--base-only"]),
        ("ptuning", ["peft=ptuning", "nothing to merge", "--base-only"]),
    ],
)
def test_what_cannot_be_merged_says_why(
    case: str, words: list[str], runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.run(case)
    capsys.readouterr()
    assert main(["merge", str(run), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)
    assert not (tmp_path / "out").exists()


def test_output_must_be_absent_or_empty(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs.run("lora"))
    (tmp_path / "empty").mkdir()
    assert main(["merge", run, "--output", str(tmp_path / "empty")]) == 0
    before = sorted((tmp_path / "empty").iterdir())
    for output in (tmp_path / "empty", tmp_path / "empty" / "config.json", tmp_path / "empty/config.json/x"):
        capsys.readouterr()
        assert main(["merge", run, "--output", str(output)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"error: {output}"), said  # before anything loads
        assert "--output DIR" in said
    assert sorted((tmp_path / "empty").iterdir()) == before


def _truncate(run: Path) -> None:
    weights = run / "student" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _lose_a_tensor(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = run / "student" / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors.popitem()
    save_file(tensors, weights)


def _grow_a_tensor(run: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = run / "student" / "adapter_model.safetensors"
    save_file({name: torch.cat([t, t]) for name, t in load_file(weights).items()}, weights)


def _say(file: str, before: str, after: str) -> Any:
    def change(run: Path) -> None:
        text = (run / file).read_text(encoding="utf-8")
        assert before in text
        (run / file).write_text(text.replace(before, after), encoding="utf-8")

    return change


SPOILT: dict[str, tuple[Any, list[str]]] = {
    "truncated weights": (_truncate, ["adapter_model.safetensors", "damaged"]),
    "a tensor is gone": (_lose_a_tensor, ["adapter_model.safetensors", "damaged"]),
    "tensors of another size": (_grow_a_tensor, ["adapter_model.safetensors", "damaged"]),
    "adapter config": (
        lambda run: (run / "student/adapter_config.json").write_text("{"),
        ["adapter_config.json", "damaged"],
    ),
    "no sidecar": (lambda run: (run / "student/distil.json").unlink(), ["lacks distil.json", "run.rerun"]),
    "sidecar": (lambda run: (run / "student/distil.json").write_text("{}"), ["distil.json", "damaged"]),
    "no student": (lambda run: shutil.rmtree(run / "student"), ["student lacks", "run.rerun"]),
    "unfinished": (_say("status.json", '"done"', '"interrupted"'), ["interrupted", "distil run"]),
    "no config": (lambda run: (run / "config.yaml").unlink(), ["config.yaml is missing"]),
    "config is no yaml": (lambda run: (run / "config.yaml").write_text("a: ["), ["config.yaml"]),
    "config of another version": (
        _say("config.yaml", "max_length:", "max_len:"),
        ["data.max_len is unknown"],
    ),
    "another kind of value": (_say("config.yaml", "max_length: 512", "max_length: many"), ["config.yaml"]),
    "base is gone": (_say("config.yaml", "bases/llama", "bases/nowhere"), ["nowhere", "config.yaml"]),
    "another base": (
        _say("config.yaml", "bases/llama", "bases/gpt2"),
        ["other weights", "bases/gpt2", "student"],
    ),
}


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one message of a refused verb, after the line that says what began where it got so far."""
    begun, error, said = capsys.readouterr().err.partition("error: ")
    assert error
    assert re.fullmatch(r"(\w+ .*: libraries and models load first\.\n)?", begun)
    return said


def least(verb: str, folder: Path) -> list[str]:
    """What a verb cannot do without, beside the run."""
    if verb == "evaluate":
        return []
    return ["--prompt", "w3"] if verb == "generate" else ["--output", str(folder / "out")]


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_run_ends_in_one_message(
    what: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil, words = SPOILT[what]
    run = runs.copy("lora", tmp_path)
    spoil(run)
    for verb in ("merge", "generate", "evaluate"):
        capsys.readouterr()
        assert main([verb, str(run), *least(verb, tmp_path)]) == 2
        said = error_of(capsys)
        assert all(word in said for word in words), said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def _flip(file: Path) -> None:
    """Another bit in the middle of the last tensor: it loads, and is something else."""
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


def test_no_verb_takes_a_student_that_is_not_as_the_run_left_it(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bit of the adapter: whoever loads it refuses it, whoever only reads scores says it."""
    run = runs.copy("lora", tmp_path)
    _flip(run / "student" / "adapter_model.safetensors")
    problem = "student/adapter_model.safetensors has changed since the run was done"
    for verb in ("merge", "export", "generate", "evaluate"):
        capsys.readouterr()
        assert main([verb, str(run), *least(verb, tmp_path)]) == 2
        said = error_of(capsys)
        assert problem in said
        assert "run.rerun=true" in said
        assert said.count("\n") == 1
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().err == f"warning: {run}: {problem}.\n"
    assert problem in (run / "report.html").read_text(encoding="utf-8")
    assert main(["compare", str(run), "--out", str(tmp_path / "compared")]) == 0
    assert f"{run.name}: {problem}" in " ".join(capsys.readouterr().out.split())


def test_a_student_may_lie_elsewhere_and_be_edited(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Links in its place give what the run left; another setting for answers is somebody's wish."""
    run = runs.copy("none", tmp_path)
    (run / "student").rename(tmp_path / "scratch")
    (run / "student").symlink_to(tmp_path / "scratch", target_is_directory=True)
    blob = (tmp_path / "scratch" / "model.safetensors").rename(tmp_path / "blob")
    (tmp_path / "scratch" / "model.safetensors").symlink_to(blob)
    capsys.readouterr()
    assert main(["generate", str(run), "--prompt", "w3"]) == 0
    assert main(["doctor", str(run)]) == 0
    assert "warning" not in capsys.readouterr().err
    with open(run / "student" / "generation_config.json", "a", encoding="utf-8") as settings:
        settings.write("\n")
    warning = rf"warning: {run}: student/generation_config.json has \d+ bytes instead of \d+ since the run"
    for words in (["generate", "--prompt", "w3"], ["export", "--output", str(tmp_path / "out")]):
        assert main([words[0], str(run), *words[1:]]) == 0
        assert re.search(warning, capsys.readouterr().err)
    _flip(blob)
    assert main(["generate", str(run), "--prompt", "w3"]) == 2
    assert "student/model.safetensors has changed since the run was done" in error_of(capsys)


@pytest.mark.parametrize("how", ["gone", "other scores"])
def test_no_verb_tells_scores_that_are_not_the_runs_own(
    how: str, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs.copy("lora", tmp_path)
    page, scores = (run / "report.html").read_bytes(), run / "results.json"
    if how == "gone":
        scores.unlink()
    else:
        scores.write_text(scores.read_text(encoding="utf-8").replace("0.", "1.", 1), encoding="utf-8")
    problem = f"results.json {'is missing' if how == 'gone' else 'has changed'}"
    for words in (["export", "--output", str(tmp_path / "out")], ["report"], ["compare"]):
        capsys.readouterr()
        assert main([words[0], str(run), *words[1:]]) == 2
        assert problem in error_of(capsys)
    assert (run / "report.html").read_bytes() == page, "it holds the scores still"
    capsys.readouterr()
    assert main(["generate", str(run), "--prompt", "w3"]) == 0
    assert f"warning: {run}: {problem} since the run was done.\n" in capsys.readouterr().err


def test_a_changed_base_is_seen(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other weights at the same path: both are named, and nothing is made of them."""
    from safetensors.torch import load_file, save_file

    base = Path(shutil.copytree(runs.bases / "llama", tmp_path / "base"))
    run = runs.copy("lora", tmp_path)
    _say("config.yaml", str(runs.bases / "llama"), str(base))(run)
    assert main(["generate", str(run), "--prompt", "w3"]) == 0
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] += 0.5
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    capsys.readouterr()
    assert main(["generate", str(run), "--prompt", "w3"]) == 2
    said = capsys.readouterr().err
    assert str(base) in said
    assert str(run / "student") in said


def test_a_run_goes_anywhere(runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Moved away from its data, a full student still answers as it did; so does an adapter with its base."""
    for case in ("none", "lora"):
        run = runs.copy(case, tmp_path / case)
        _say("config.yaml", str(runs.folder / "rows.jsonl"), str(tmp_path / "gone.jsonl"))(run)
        sample = samples_of(run)[0]
        capsys.readouterr()
        assert main(["generate", str(run), "--prompt", sample["prompt"]]) == 0
        assert capsys.readouterr().out == sample["student_after"] + "\n"
        assert main(["evaluate", str(run)]) == 2
        assert "gone.jsonl" in capsys.readouterr().err
        assert main(["evaluate", str(run), "--data", str(runs.folder / "test.jsonl")]) == 0


BAD: dict[str, tuple[list[str], list[str]]] = {
    "no run": (["generate", "--prompt", "w3"], ["RUN", "--help"]),
    "no prompt": (["generate", "{run}"], ["--prompt", "--help"]),
    "empty prompt": (["generate", "{run}", "--prompt", " "], ["--prompt", "empty prompt"]),
    "long prompt": (["generate", "{run}", "--prompt", "w3 " * 200], ["200 tokens", "128"]),
    "cold": (["generate", "{run}", "--prompt", "w3", "--temperature", "0"], ["--temperature 0", "--greedy"]),
    "colder": (["generate", "{run}", "--prompt", "w3", "--temperature", "-1"], ["--temperature", "above 0"]),
    "all of nothing": (["generate", "{run}", "--prompt", "w3", "--top-p", "0"], ["--top-p", "(0, 1]"]),
    "greedy seed": (["generate", "{run}", "--prompt", "w3", "--greedy", "--seed", "1"], ["--seed"]),
    "no tokens": (["generate", "{run}", "--prompt", "w3", "--max-new-tokens", "0"], ["at least 1"]),
    "a word": (["evaluate", "{run}", "--rows", "many"], ["--rows", "many"]),
    "unknown": (["evaluate", "{run}", "--teachers"], ["--teachers"]),
    "no file": (["evaluate", "{run}", "--data", "nowhere.jsonl"], ["--data nowhere.jsonl", "no such file"]),
    "column": (["evaluate", "{run}", "--prompt-column", "x"], ["--prompt-column", "--data"]),
    "no column": (["evaluate", "{run}", "--data", "{rows}", "--prompt-column", "x"], ["--prompt-column=x"]),
    "no file name": (["evaluate", "{run}", "--json", "{run}"], ["--json", "is a folder"]),
    "no place": (["evaluate", "{run}", "--json", "{run}/nowhere/told.json"], ["--json"]),
    "no output": (["merge", "{run}"], ["--output"]),
    "no such run": (["merge", "nowhere", "--output", "x"], ["nowhere", "no such folder"]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_ends_in_one_message(what: str, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    command, words = BAD[what]
    run = runs.run("lora-gpt2")
    capsys.readouterr()
    assert main([word.format(run=run, rows=runs.folder / "test.jsonl") for word in command]) == 2
    said = error_of(capsys)
    assert said.count("\n") == 1
    assert all(word in said for word in words), said


@pytest.mark.parametrize("verb", ["merge", "generate", "evaluate", "export"])
def test_each_verb_has_a_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: distil {verb}")
