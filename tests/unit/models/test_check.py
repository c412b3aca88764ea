"""Bad models end in one message that names key, value and way out, before anything heavy is imported."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import check_models
from distil.models.sources import SMOLLM2
from distil.types import InputError


def pair(teacher: object, student: object = None, **keys: Any) -> ModelConfig:
    return ModelConfig(
        "pair",
        TeacherConfig(path=None if teacher is None else str(teacher)),
        StudentConfig(path=None if student is None else str(student), **keys),
    )


def check(config: ModelConfig, *, allow_network: bool = False) -> None:
    check_models(config, allow_network=allow_network)


def tokenizer_json(words: list[str], added: dict[str, int]) -> dict[str, Any]:
    entries = [{"id": i, "content": token, "special": True} for token, i in added.items()]
    return {"added_tokens": entries, "model": {"type": "BPE", "vocab": {w: i for i, w in enumerate(words)}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder as far as these checks look."""
    return make_folder(tmp_path / "model")


def make_folder(
    path: Path, layers: int = 5, words: str = "abcd", added: dict[str, int] | None = None
) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": layers}))
    (path / "model.safetensors").write_bytes(save({}))
    content = tokenizer_json(list(words), added or {"</s>": len(words)})
    (path / "tokenizer.json").write_text(json.dumps(content))
    return path


def test_a_good_pair(folder: Path) -> None:
    check(pair(folder))
    check(pair(folder, folder, keep_layers=[0, 4]))
    check(pair(folder, keep_layers=5))
    check(pair(None, folder))


def test_nothing_given() -> None:
    with pytest.raises(InputError, match=r"there is no model\. Set at least one"):
        check(pair(None))


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        (["config.json"], r"lacks config\.json\. It holds model\.safetensors"),
        (["model.safetensors"], r"lacks weights \(model\.safetensors\)"),
        (["config.json", "model.safetensors"], r"lacks config\.json and weights"),
        (["config.json", "model.safetensors", "tokenizer.json"], r"It holds nothing"),
    ],
)
def test_incomplete_folder(folder: Path, removed: list[str], named: str) -> None:
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(InputError, match=named) as caught:
        check(pair(folder))
    assert str(caught.value).startswith(f"model.teacher.path={folder}: ")


def test_weights_that_are_not_all_there_are_told_by_their_headers(folder: Path) -> None:
    """Cut anywhere; and the real file of two tensors is whole to the last byte."""
    whole = save({"a": torch.zeros(3, 2), "b": torch.ones(5)}, metadata={"format": "pt"})
    file = folder / "model.safetensors"
    file.write_bytes(whole)
    check(pair(folder))
    for size in (*range(0, len(whole), 7), len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(
            InputError, match=rf"model.safetensors \({size} bytes\) is cut off or broken. Copy"
        ):
            check(pair(folder))
    check(pair(None, folder, init="random"))  # which reads none
    file.write_bytes(whole)
    index = {"weight_map": {"a": "model-1-of-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(InputError, match=r"index.json names model-1-of-2.safetensors, which is not there"):
        check(pair(folder))


@pytest.mark.parametrize(
    ("present", "hint"),
    [
        ("model.Q4_1.gguf", r"add model\.teacher\.gguf_file=model\.Q4_1\.gguf"),
        ("adapter_config.json", "holds an adapter"),
        ("pytorch_model.bin", "pickled weights"),
    ],
)
def test_folder_of_another_kind(folder: Path, present: str, hint: str) -> None:
    (folder / "model.safetensors").rename(folder / present)
    with pytest.raises(InputError, match=hint):
        check(pair(folder))


def test_gguf_file(folder: Path) -> None:
    config = ModelConfig("m", TeacherConfig(path=str(folder), gguf_file="a.gguf"), StudentConfig())
    (folder / "b.gguf").touch()
    with pytest.raises(InputError, match=r"model\.teacher\.gguf_file=a\.gguf: not in .* there: b\.gguf"):
        check(config)
    (folder / "a.gguf").touch()
    check(config)
    with pytest.raises(
        InputError, match=r"is a file\. Give its folder: .* and model\.teacher\.gguf_file=a\.gguf"
    ):
        check(pair(folder / "a.gguf"))


def test_a_file_in_no_models_folder(folder: Path, tmp_path: Path) -> None:
    """Rows given as a model: the folder they lie in is offered only where it is one."""
    for place, way_out in ((folder, "Give its folder: "), (tmp_path, "Give the folder of a model, which ")):
        (place / "qa.csv").touch()
        with pytest.raises(InputError, match=rf"is a file\. {way_out}"):
            check(pair(place / "qa.csv"))


def test_random_needs_no_weights_and_keeps_no_layers(folder: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(folder, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    check(pair(folder, bare, init="random"))
    with pytest.raises(InputError, match=r"overrides\.num_hidden_layers"):
        check(pair(folder, bare, init="random", keep_layers=[0]))


def test_missing_folder_names_its_neighbours(folder: Path) -> None:
    with pytest.raises(InputError, match=rf"model\.student\.path=.*modle: no such folder.* {folder.name}\."):
        check(pair(folder, folder.parent / "modle"))
    with pytest.raises(InputError, match="does not exist either"):
        check(pair(folder, folder / "a" / "b"))
    with pytest.raises(InputError, match="ships no such model"):
        check(pair("distil:nothing/of/the/sort"))


def test_a_run_directory_is_told_of_its_student(folder: Path, tmp_path: Path) -> None:
    make_folder(tmp_path / "run" / "student")
    with pytest.raises(InputError, match=r"give its student, model\.student\.path=.*/run/student$"):
        check(pair(folder, tmp_path / "run"))
    (tmp_path / "run" / "student" / "config.json").rename(
        tmp_path / "run" / "student" / "adapter_config.json"
    )
    with pytest.raises(InputError, match="distil merge RUN"):
        check(pair(folder, tmp_path / "run"))


def test_a_folder_has_one_version(folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"^model\.teacher\.revision=v1: .*has one version: model\.teacher\.revision=null\.$"
    ):
        check(ModelConfig("m", TeacherConfig(path=str(folder), revision="v1"), StudentConfig()))


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_config_of_something_else(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"model\.teacher\.path=.*config\.json"):
        check(pair(folder))


@pytest.mark.parametrize(
    ("keep", "allowed"), [([0, 5], r"indices lie in 0\.\.4"), (6, r"a count lies in 1\.\.5")]
)
def test_layers_out_of_range(folder: Path, keep: object, allowed: str) -> None:
    with pytest.raises(InputError, match=rf"model\.student\.keep_layers=.* has 5 blocks, so {allowed}"):
        check(pair(folder, keep_layers=keep))


def test_layers_under_the_name_that_gpt2_gives_them(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 12}))
    check(pair(folder, keep_layers=[11]))
    with pytest.raises(InputError, match="has 12 blocks"):
        check(pair(folder, keep_layers=[12]))


def test_tokenizers_that_differ(folder: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other", words="abdcef")
    with pytest.raises(InputError) as caught:
        check(pair(folder, other))
    message = str(caught.value)
    assert f"model.teacher.path={folder} and model.student.path={other} have different tokenizers" in message
    assert "5 tokens against 7" in message
    assert "id 2 is 'c' to the teacher and 'd' to the student" in message
    assert "keep_layers" in message


def test_one_learnt_more(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", added={"</s>": 9})
    other = make_folder(tmp_path / "other", words="abcdef", added={"</s>": 9})
    with pytest.raises(InputError, match="2 learnt tokens are in one only, such as 'e' in the student's"):
        check(pair(folder, other))


def test_more_added_tokens_are_no_difference(folder: Path, tmp_path: Path) -> None:
    check(pair(folder, make_folder(tmp_path / "other", added={"</s>": 4, "<tool>": 5})))


def test_real_tokenizers_that_differ(shared_data: Path) -> None:
    models = shared_data / "models"
    with pytest.raises(InputError, match="512 tokens against 2,048"):
        check(pair(models / "stories260K", models / "TinyStories-656K"))
    check(pair(models / "stories260K", models / "stories260K", keep_layers=[0, 2, 4]))


def test_damaged_tokenizer(folder: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other")
    (other / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"is not a tokenizer\.json"):
        check(pair(folder, other))


def test_our_mirror_stands_for_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"python scripts/get_smollm2\.py"):
        check(pair(SMOLLM2))
    make_folder(tmp_path / "models" / SMOLLM2.replace("/", "--"))
    check(pair(SMOLLM2, keep_layers=[0, 4]))
    with pytest.raises(InputError, match="not in the local cache"):
        check(ModelConfig("m", TeacherConfig(path=SMOLLM2, revision="v2"), StudentConfig()))


PROGRAM = """
import sys, time
from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import check_models
from distil.types import InputError
start = time.monotonic()
try:
    config = ModelConfig("m", TeacherConfig(path=sys.argv[1]), StudentConfig())
    check_models(config, allow_network=sys.argv[2] == "True")
    print("passed")
except InputError as error:
    print(error)
assert time.monotonic() - start < 5
assert not {"torch", "transformers", "numpy"} & set(sys.modules)
"""


def ask(name: str, hub: str, cache: Path, *, network: bool = True, offline: str = "0") -> str:
    """What the checks say of hub model ``name`` in a fresh process, with ``hub`` as the hub."""
    environment = {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": offline, "HF_HOME": str(cache), "no_proxy": "*"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, str(network)],
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "HOME": str(cache)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@contextmanager
def hub_that_answers(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_no_network(tmp_path: Path) -> None:
    said = ask("org/model", "http://127.0.0.1:9", tmp_path)
    assert said.startswith(
        "model.teacher.path=org/model is no local folder and not in the local cache, and the hub "
    )
    assert "cannot be reached" in said


def test_a_hub_that_never_answers(tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        start = time.monotonic()
        said = ask("org/model", f"http://127.0.0.1:{deaf.getsockname()[1]}", tmp_path)
        assert time.monotonic() - start < 8
    assert "cannot be reached" in said


def test_a_hub_that_answers(tmp_path: Path) -> None:
    with hub_that_answers(200) as hub:
        assert ask("org/model", hub, tmp_path) == "passed\n"
        assert "run.allow_network=false" in ask("org/model", hub, tmp_path, network=False)
        assert "HF_HUB_OFFLINE is set" in ask("org/model", hub, tmp_path, offline="1")
    with hub_that_answers(404) as hub:
        assert "Check the spelling" in ask("org/modle", hub, tmp_path)
    with hub_that_answers(401) as hub:
        assert "log in" in ask("org/private", hub, tmp_path)


def test_a_model_in_the_hub_cache_needs_no_network(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--model"
    make_folder(repository / "snapshots" / "abc", layers=3)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert ask("org/model", "http://127.0.0.1:9", tmp_path, network=False) == "passed\n"
