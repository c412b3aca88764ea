"""Python files beside a model: run where the config says so, and only there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from distil.products.library import open_product
from distil.types import InputError

if TYPE_CHECKING:
    from tests.conftest import ModelFactory

ROOT = Path(__file__).resolve().parents[3]
LOAD = """
import sys
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import check_models, load_student, load_skeleton
from distil.models.sources import trusted
from distil.types import InputError
folder, trust, init = sys.argv[1], sys.argv[2] == "True", sys.argv[3]
config = ModelConfig(
    "m", TeacherConfig(path=folder, trust_remote_code=trust),
    StudentConfig(path=folder, trust_remote_code=trust, init=init),
)
try:
    check_models(config, allow_network=False)
    model = load_student(config, 0, allow_network=False).model
    load_skeleton(config, allow_network=False)
    print(type(model).__name__, *trusted(config), sep="|")
except InputError as error:
    print("refused", error, sep="|")
"""


@pytest.fixture
def foreign(tiny_llama: ModelFactory, tmp_path: Path) -> Path:
    """A model of a kind that only the Python files beside it know; they write ``canary``."""
    folder = tmp_path / "foreign"
    tiny_llama().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "foreign"
    names = {"AutoConfig": "code.ForeignConfig", "AutoModelForCausalLM": "code.ForeignForCausalLM"}
    names = {key: f"foreign_{value}" for key, value in names.items()}
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": names}), encoding="utf-8")
    (folder / "foreign_code.py").write_text(
        "from pathlib import Path\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        f"Path({str(tmp_path / 'canary')!r}).touch()\n"
        "class ForeignConfig(LlamaConfig):\n    model_type = 'foreign'\n"
        "class ForeignForCausalLM(LlamaForCausalLM):\n    config_class = ForeignConfig\n",
        encoding="utf-8",
    )
    return folder


def load(folder: Path, trust: bool, init: str = "pretrained") -> str:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), str(trust), init],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("init", ["pretrained", "random"])
def test_code_runs_only_where_the_config_says_so(foreign: Path, init: str) -> None:
    canary = foreign.parent / "canary"
    said = load(foreign, False, init)
    assert said.startswith(f"refused|model.teacher.path={foreign}: ")
    assert "model.teacher.trust_remote_code=false" in said
    assert "Nothing of it was run" in said
    assert not canary.exists()
    kind, *notes = load(foreign, True, init).split("|")
    assert kind == "ForeignForCausalLM"
    assert canary.exists()
    assert [note.partition("=")[0] for note in notes] == [
        "model.teacher.trust_remote_code",
        "model.student.trust_remote_code",
    ]


def test_a_kind_that_transformers_knows_runs_none(foreign: Path) -> None:
    """Many models name code of their own beside a kind that has long been known."""
    config = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    (foreign / "config.json").write_text(json.dumps(config | {"model_type": "llama"}), encoding="utf-8")
    assert load(foreign, False) == "LlamaForCausalLM"
    assert not (foreign.parent / "canary").exists()


def test_a_tokenizer_that_wants_code(foreign: Path) -> None:
    """It is found when it loads; the message names the key."""
    from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
    from distil.models import load_tokenizer

    config = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    (foreign / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k != "auto_map"} | {"model_type": "llama"}),
        encoding="utf-8",
    )
    told = {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["foreign_code.Mine", None]}}
    (foreign / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(InputError, match=r"model\.student\.trust_remote_code=true"):
        load_tokenizer(ModelConfig("m", TeacherConfig(), StudentConfig(path=str(foreign))))
    assert not (foreign.parent / "canary").exists()


def test_no_folder_says_for_its_reader_what_may_run(tmp_path: Path) -> None:
    """An adapter's distil.json names the base under it; it cannot ask for its code."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").touch()
    model = {"path": "somewhere", "trust_remote_code": True}
    told = {"peft": "lora", "model": model, "seed": 0, "kept_layers": None, "base_print": "x"}
    (tmp_path / "distil.json").write_text(json.dumps(told), encoding="utf-8")
    assert open_product(tmp_path).config.model.student.trust_remote_code is False
