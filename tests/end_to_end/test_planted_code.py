"""Folders that hold code: pickles and modules that would write a file. They are refused by name, or passed
over, and the file is never written."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from distil.engine.checkpoints import MANIFEST, _describe, _files, published
from tests.end_to_end.conftest import environment

Command = Callable[..., "subprocess.CompletedProcess[str]"]


class Canary:
    """Pickled, it writes a file wherever somebody reads it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def plant(file: Path, canary: Path, torchs: bool = False) -> None:
    """Write a pickle that writes ``canary``: a bare one, or in torch's own format."""
    if torchs:
        import torch

        torch.save({"state": Canary(canary)}, file)
    else:
        file.write_bytes(pickle.dumps({"state": Canary(canary)}))


def signed(checkpoint: Path) -> None:
    """Let the manifest agree with what is there, as who plants something would."""
    files = [_describe(file, checkpoint) for file in _files(checkpoint) if file.name != MANIFEST]
    (checkpoint / MANIFEST).write_text(json.dumps({"files": files}), encoding="utf-8")


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr, done.stderr
    return re.sub(r"\s+", " ", done.stderr)


@pytest.mark.parametrize("torchs", [False, True], ids=["bare", "torch"])
def test_the_canary_sings_where_pickles_are_read(torchs: bool, tmp_path: Path) -> None:
    """Or the tests below could not fail."""
    import torch

    plant(tmp_path / "file.pt", tmp_path / "canary", torchs)
    if torchs:
        torch.load(tmp_path / "file.pt", weights_only=False)
    else:
        pickle.loads((tmp_path / "file.pt").read_bytes())
    assert (tmp_path / "canary").exists()


@pytest.fixture(scope="module")
def stopped(
    small_arguments: list[str], run_command: Command, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An output folder with a run that has its checkpoints and was not finished."""
    output = tmp_path_factory.mktemp("stopped") / "out"
    done = run_command(*small_arguments, "trainer.max_steps=12", f"output_dir={output}")
    assert done.returncode == 0, done.stderr
    (status,) = output.glob("*/*/status.json")
    told = json.loads(status.read_text(encoding="utf-8"))
    status.write_text(json.dumps(told | {"status": "interrupted"}), encoding="utf-8")
    return output


@pytest.mark.parametrize(
    ("name", "torchs"),
    [
        ("optimizer.pt", True),
        pytest.param("optimizer.pt", False, marks=pytest.mark.slow),
        pytest.param("scheduler.pt", True, marks=pytest.mark.slow),
        pytest.param("rng_state.pth", True, marks=pytest.mark.slow),
        pytest.param("pytorch_model.bin", True, marks=pytest.mark.slow),
        pytest.param("training_args.bin", False, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint(
    name: str,
    torchs: bool,
    stopped: Path,
    small_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    """Its manifest agrees with it. What is read is refused by name; training_args.bin nobody reads."""
    output, canary = tmp_path / "out", tmp_path / "canary"
    shutil.copytree(stopped, output)
    (folder,) = output.glob("*/*/checkpoints")
    newest, last = published(folder)
    shutil.rmtree(last)  # there are steps left to train
    plant(newest / name, canary, torchs)
    if name == "pytorch_model.bin":
        (newest / "model.safetensors").unlink()
    signed(newest)
    done = run_command(*small_arguments, "trainer.max_steps=12", f"output_dir={output}")
    assert not canary.exists()
    if name == "training_args.bin":
        assert done.returncode == 0, done.stderr
        return
    assert done.returncode == 1
    assert f"{newest.name}: {name} holds more than numbers" in said(done)
    assert "run.resume=false" in said(done)


PICKLED = [
    ("a model", "model.student.path", "pytorch_model.bin", ["model.safetensors"], "pickled weights"),
    ("an adapter", "model.student.adapter", "adapter_model.bin", [], "adapter_model.safetensors"),
    ("rows", "data.train_file", "rows.pkl", [], "unknown kind of file '.pkl'"),
    ("rows of torch", "data.train_file", "rows.bin", [], "unknown kind of file '.bin'"),
    ("a folder of rows", "data.path", "train.pkl", [], "has no training file"),
    ("a saved set", "data.path", "data.pkl", [], "cannot be read"),
]


@pytest.mark.parametrize(
    ("key", "name", "removed", "wanted"), [case[1:] for case in PICKLED], ids=[case[0] for case in PICKLED]
)
def test_a_folder_of_pickles(
    key: str,
    name: str,
    removed: list[str],
    wanted: str,
    small_pair: Path,
    small_arguments: list[str],
    run_command: Command,
    tmp_path: Path,
) -> None:
    """Where a safe format is wanted, a pickle is none."""
    folder, canary = tmp_path / "given", tmp_path / "canary"
    if key == "model.student.path":
        shutil.copytree(small_pair / "student", folder)
    folder.mkdir(exist_ok=True)
    for each in removed:
        (folder / each).unlink()
    plant(folder / name, canary)
    extra = []
    if key == "model.student.adapter":
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
        extra = ["peft=lora"]
    if name == "data.pkl":
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data.pkl"}]}', encoding="utf-8")
        (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    if key == "data.path":
        extra = ["data=hf"]
    given = [word for word in small_arguments if not word.startswith((f"{key}=", "data.train_file="))]
    given += [] if key.startswith("data.") else [f"data.train_file={small_pair / 'rows.jsonl'}"]
    path = folder / name if key == "data.train_file" else folder
    done = run_command(*given, f"{key}={path}", *extra, f"output_dir={tmp_path / 'out'}")
    assert not canary.exists()
    assert done.returncode == 2, done.stderr
    assert str(folder) in said(done)
    assert wanted in said(done)
    assert not list((tmp_path / "out").rglob("results.json"))


def test_a_tokenizer_and_weights_of_pickles_beside_good_ones(small_pair: Path, tmp_path: Path) -> None:
    """Names under which libraries of the past kept pickles: nobody opens them."""
    folder, canary = tmp_path / "model", tmp_path / "canary"
    shutil.copytree(small_pair / "student", folder)
    for name in ("vocab.bin", "tokenizer.pkl", "vocab.pkl", "pytorch_model.bin", "training_args.bin"):
        plant(folder / name, canary)
    code = (
        "import sys\n"
        "from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig\n"
        "from distil.models import check_models, load_student, load_tokenizer\n"
        "config = ModelConfig('m', TeacherConfig(), StudentConfig(path=sys.argv[1]))\n"
        "check_models(config, allow_network=False)\n"
        "load_tokenizer(config, allow_network=False)\n"
        "print(load_student(config, 0, allow_network=False).model.num_parameters())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
    assert not canary.exists()


def test_code_beside_a_model(
    small_pair: Path, small_arguments: list[str], run_command: Command, tmp_path: Path
) -> None:
    """Refused unless the config trusts it; then the results and the report say so, and the student loads."""
    folder, canary, output = tmp_path / "foreign", tmp_path / "canary", tmp_path / "out"
    shutil.copytree(small_pair / "student", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    names = {"AutoConfig": "foreign.ForeignConfig", "AutoModelForCausalLM": "foreign.ForeignForCausalLM"}
    told = config | {"model_type": "foreign", "auto_map": names}
    (folder / "config.json").write_text(json.dumps(told), encoding="utf-8")
    (folder / "foreign.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(canary)!r}).touch()\n"
        "class ForeignConfig(LlamaConfig):\n    model_type = 'foreign'\n"
        "class ForeignForCausalLM(LlamaForCausalLM):\n    config_class = ForeignConfig\n",
        encoding="utf-8",
    )
    given = [word for word in small_arguments if not word.startswith("model.student.path=")]
    given += [f"model.student.path={folder}", f"output_dir={output}", "trainer.max_steps=2"]
    done = run_command(*given)
    assert done.returncode == 2, done.stderr
    assert "model.student.trust_remote_code=true" in said(done)
    assert not canary.exists()
    assert not output.exists()

    done = run_command(*given, "model.student.trust_remote_code=true")
    assert done.returncode == 0, done.stderr
    assert canary.exists()
    run = next(output.glob("*/*/status.json")).parent
    note = f"model.student.trust_remote_code=true: Python files of {folder} were run."
    assert note in json.loads((run / "results.json").read_text(encoding="utf-8"))["notes"]
    assert note in (run / "report.html").read_text(encoding="utf-8")
    assert (run / "student" / "foreign.py").is_file()
    canary.unlink()
    for trust, code in (([], 2), (["--trust-remote-code"], 0)):  # the run may be somebody else's
        done = subprocess.run(
            [sys.executable, "-m", "distil", "generate", str(run), "--prompt", "the cat ?", *trust],
            capture_output=True,
            text=True,
            check=False,
            env=environment() | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert done.returncode == code, done.stderr
        assert canary.exists() == bool(trust)
        assert trust or "add --trust-remote-code" in said(done)
