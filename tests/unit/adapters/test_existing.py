"""Going on from a saved adapter: the same model again, or a refusal that names both."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distil.adapters.base import ADAPTERS
from distil.adapters.existing import SIDECAR, check_stored
from distil.config.schema import ExperimentConfig, TeacherConfig
from distil.config.validate import validate
from distil.parts import load_adapted_student
from distil.preflight import fingerprints
from distil.results import keep_student
from distil.types import InputError
from tests.adapters import (
    ADAPTED,
    adapter_of,
    experiment,
    load,
    peft_config,
    save_bases,
    stir,
    trained_state,
    word_tokenizer,
)

CONTINUED = [case for case in ADAPTED if adapter_of(case).no_resume is None]
IDS = torch.tensor([[5, 9, 31, 7, 12, 40, 2]])


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bases(tmp_path_factory.mktemp("bases"))


def save(base: Path, folder: Path, case: str, **keys: Any) -> Tensor:
    """Save a stirred adapter in ``folder/student``; its logits."""
    student, loaded, _ = load_adapted_student(experiment(base, peft_config(case, **keys)), word_tokenizer())
    stir(student)
    recipe = {
        "peft": case,
        "model": {"path": loaded.name},
        "kept_layers": loaded.kept_layers,
        "base_print": loaded.base_print,
    }
    keep_student(folder, student, word_tokenizer(), "A student", "python run.py", recipe)
    return say(student)


def test_an_adapter_is_told_by_what_it_is_not_by_how_it_is_written(bases: Path, tmp_path: Path) -> None:
    """PEFT writes the names of modules in an order of the process; the card holds a command."""
    save(bases / "llama", tmp_path, "lora", target_modules=["q_proj", "v_proj"])
    saved = tmp_path / "student"
    made = experiment(bases / "llama", peft_config("lora"))
    made.model.student.adapter = str(saved)
    prints = [fingerprints(made)]
    (saved / "README.md").write_text("another", encoding="utf-8")
    stored = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    for changed in ({"target_modules": stored["target_modules"][::-1]}, {"lora_alpha": 3}):
        (saved / "adapter_config.json").write_text(json.dumps(stored | changed), encoding="utf-8")
        prints.append(fingerprints(made))
    assert prints[0] == prints[1]
    apart = {key for key, value in prints[2].items() if prints[1][key] != value}
    assert apart == {"model.student.adapter.config"}


@torch.no_grad()
def say(student: torch.nn.Module) -> Tensor:
    logits: Tensor = student.eval()(input_ids=IDS).logits
    return logits


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("case", CONTINUED)
def test_it_goes_on_where_it_was_saved(case: str, family: str, bases: Path, tmp_path: Path) -> None:
    """From another seed, in a model still to be trained: the same logits at the start."""
    expected = save(bases / family, tmp_path, case)
    fresh = load(bases / family, case, seed=4)
    assert not torch.allclose(say(fresh), expected, atol=1e-3), "without its weights it says something else"
    student = load(bases / family, case, seed=4, student={"adapter": str(tmp_path / "student")})
    assert torch.equal(say(student), expected)
    assert trained_state(student).keys() == trained_state(fresh).keys(), "and the same is trained"


def test_modules_trained_whole_go_on_too(bases: Path, tmp_path: Path) -> None:
    keys = {"modules_to_save": ["lm_head"], "target_modules": ["q_proj"]}
    expected = save(bases / "llama", tmp_path, "lora", **keys)
    student = load(bases / "llama", "lora", student={"adapter": str(tmp_path / "student")}, seed=4, **keys)
    assert torch.equal(say(student), expected)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_took_part_of_the_base_goes_on_beside_the_rest_of_it(
    start: str, bases: Path, tmp_path: Path
) -> None:
    """Said again at the second start; without, it is refused (below): the base would be the whole one."""
    expected = save(bases / "llama", tmp_path, "lora", init_lora_weights=start)
    adapter = {"adapter": str(tmp_path / "student")}
    student = load(bases / "llama", "lora", seed=4, student=adapter, init_lora_weights=start)
    assert torch.allclose(say(student), expected, atol=1e-5)


def test_another_start_that_leaves_the_base_alone_goes_on(bases: Path, tmp_path: Path) -> None:
    expected = save(bases / "llama", tmp_path, "lora", init_lora_weights="gaussian")
    student = load(bases / "llama", "lora", student={"adapter": str(tmp_path / "student")})
    assert torch.equal(say(student), expected)


@pytest.mark.parametrize("case", ["lora", "ia3", "prompt", "prefix"])
def test_weights_that_are_not_all_there(case: str, bases: Path, tmp_path: Path) -> None:
    """A whole file that holds one tensor less: said, not filled up with fresh ones."""
    from safetensors.torch import load_file, save_file

    save(bases / "llama", tmp_path, case)
    file = tmp_path / "student" / "adapter_model.safetensors"
    weights = load_file(file)
    absent = sorted(weights)[-1]
    save_file({k: v for k, v in weights.items() if k != absent}, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"adapter_model\.safetensors lacks"):
        load(bases / "llama", case, student={"adapter": str(tmp_path / "student")})


@pytest.mark.parametrize("kind", ["MLP", "LSTM"])
def test_a_prompt_written_by_a_network_goes_on_as_a_prompt(kind: str, bases: Path, tmp_path: Path) -> None:
    """peft=ptuning cannot go on, and says what can."""
    expected = save(bases / "gpt2", tmp_path, "ptuning", encoder_reparameterization_type=kind)
    folder = str(tmp_path / "student")
    with pytest.raises(InputError, match=r"peft=ptuning.*peft=prompt") as refused:
        validate(_with_teacher(experiment(bases / "gpt2", peft_config("ptuning"), adapter=folder)))
    assert folder in str(refused.value)
    student = load(bases / "gpt2", "prompt", student={"adapter": folder})
    assert torch.allclose(say(student), expected, atol=1e-5)


def test_a_projected_prefix_goes_on_as_a_prefix(bases: Path, tmp_path: Path) -> None:
    expected = save(bases / "gpt2", tmp_path, "prefix", prefix_projection=True)
    folder = str(tmp_path / "student")
    peft = peft_config("prefix", prefix_projection=True)
    with pytest.raises(InputError, match=r"peft\.prefix_projection=false"):
        validate(_with_teacher(experiment(bases / "gpt2", peft, adapter=folder)))
    student = load(bases / "gpt2", "prefix", student={"adapter": folder})
    assert torch.allclose(say(student), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("saved", "wanted", "said"),
    [
        (("lora", {"r": 4}), ("lora", {}), ("r=4", "peft.r is 8", "peft.r=4")),
        (("lora", {}), ("lora", {"lora_alpha": 32}), ("lora_alpha=16", "peft.lora_alpha is 32")),
        (("lora", {}), ("dora", {}), ("use_dora=False", "True", "Take peft=lora.")),
        (("dora", {}), ("lora", {}), ("use_dora=True", "Take peft=dora.")),
        (
            ("lora", {"init_lora_weights": "pissa"}),
            ("lora", {}),
            ("init_lora_weights=pissa", "is True", "peft.init_lora_weights=pissa"),
        ),
        (
            ("lora", {"init_lora_weights": False}),
            ("lora", {"init_lora_weights": "olora"}),
            ("init_lora_weights=False", "is olora", "peft.init_lora_weights=false"),
        ),
        (("lora", {}), ("prefix", {}), ("of the kind LORA", "PREFIX_TUNING")),
        (("ia3", {}), ("lora", {}), ("of the kind IA3", "LORA")),
        (("prompt", {}), ("prompt", {"num_virtual_tokens": 9}), ("num_virtual_tokens=6", "is 9")),
        (
            ("lora", {}),
            ("lora", {"target_modules": ["q_proj"]}),
            ("target_modules=[q_proj,v_proj]", "peft.target_modules is [q_proj]"),
        ),
    ],
)
def test_another_kind_or_shape(
    saved: tuple[str, dict[str, Any]],
    wanted: tuple[str, dict[str, Any]],
    said: tuple[str, ...],
    bases: Path,
    tmp_path: Path,
) -> None:
    save(bases / "llama", tmp_path, saved[0], **saved[1])
    folder = tmp_path / "student"
    with pytest.raises(InputError, match=re.escape(f"model.student.adapter={folder}")) as refused:
        load(bases / "llama", wanted[0], student={"adapter": str(folder)}, **wanted[1])
    for words in said:
        assert words in str(refused.value)
    asked = ADAPTERS.get(wanted[0]).factory(peft_config(wanted[0], **wanted[1])).shape()
    with pytest.raises(InputError, match=re.escape(str(refused.value))):  # and before anything loads
        check_stored(folder, asked)


@pytest.mark.parametrize("case", CONTINUED)
def test_another_base_of_the_same_size(case: str, bases: Path, tmp_path: Path) -> None:
    """The weights tell, though every size fits; a copy elsewhere, or in other bits, is the same base."""
    save(bases / "llama", tmp_path, case)
    folder = tmp_path / "student"
    other = save_bases(tmp_path / "others", layers=2)
    _change_embeddings(other / "llama")
    with pytest.raises(InputError) as refused:
        load(other / "llama", case, student={"adapter": str(folder)})
    for words in (str(folder), str(bases / "llama"), str(other / "llama")):
        assert words in str(refused.value)

    moved = tmp_path / "moved"
    shutil.copytree(bases / "llama", moved)
    load(moved, case, student={"adapter": str(folder)})


def test_bits_do_not_make_another_base(bases: Path, tmp_path: Path) -> None:
    """What was trained beside 4 bits goes on beside the floats, or 8 bits, and the other way round."""
    for saved, wanted in (("qlora-4", "lora"), ("lora", "qlora-4"), ("qlora-8", "qlora-4")):
        save(bases / "llama", tmp_path / saved, saved)
        folder = tmp_path / saved / "student"
        student = load(bases / "llama", wanted, student={"adapter": str(folder)})
        assert all(torch.isfinite(p).all() for p in trained_state(student).values())


@pytest.mark.parametrize("case", ["lora", "prompt", "prefix"])
def test_a_base_of_another_size(case: str, bases: Path, tmp_path: Path) -> None:
    """Without our sidecar, an adapter made elsewhere: sizes tell."""
    wide = save_bases(tmp_path / "wide", width=128)
    save(wide / "llama", tmp_path, case)
    folder = tmp_path / "student"
    (folder / SIDECAR).unlink()
    with pytest.raises(InputError) as refused:
        load(bases / "llama", case, student={"adapter": str(folder)})
    for words in (str(folder), str(bases / "llama")):
        assert words in str(refused.value)


def test_a_base_of_another_name(bases: Path, tmp_path: Path) -> None:
    """Without our sidecar, where both are hub names: names tell."""
    from distil.adapters.existing import load_existing

    save(bases / "llama", tmp_path, "lora")
    folder = tmp_path / "student"
    (folder / SIDECAR).unlink()
    config = (folder / "adapter_config.json").read_text(encoding="utf-8")
    config = config.replace(str(bases / "llama"), "someone/one-base")
    (folder / "adapter_config.json").write_text(config, encoding="utf-8")
    with pytest.raises(InputError, match=r"someone/one-base.*someone/another"):
        load_existing(load(bases / "llama", "lora"), folder, "someone/another", "")
    assert load_existing(load(bases / "llama", "lora"), folder, "elsewhere/one-base", "") is None
    note = load_existing(load(bases / "llama", "lora"), folder, str(bases / "llama"), "")
    assert note is not None
    assert "someone/one-base" in note


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("nowhere", "no such folder"),
        ("adapter_model.safetensors", "lacks adapter_model.safetensors"),
        ("adapter_config.json", "lacks adapter_config.json"),
    ],
)
def test_no_adapter_there(broken: str, said: str, bases: Path, tmp_path: Path) -> None:
    save(bases / "llama", tmp_path, "lora")
    folder = tmp_path / ("nowhere" if broken == "nowhere" else "student")
    (folder / broken).unlink(missing_ok=True)
    with pytest.raises(InputError, match=said):
        load(bases / "llama", "lora", student={"adapter": str(folder)})


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", SIDECAR])
def test_files_that_are_cut_off(file: str, bases: Path, tmp_path: Path) -> None:
    """A copy that broke off: said, with the folder, not a traceback."""
    save(bases / "llama", tmp_path, "lora")
    folder = tmp_path / "student"
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=re.escape(str(folder))):
        load(bases / "llama", "lora", student={"adapter": str(folder)})


def _with_teacher(config: ExperimentConfig) -> ExperimentConfig:
    return replace(config, model=replace(config.model, teacher=TeacherConfig("somewhere")))


def _change_embeddings(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = load_file(file)
    for tensor in weights.values():
        tensor.mul_(0.5)
    save_file(weights, file, metadata={"format": "pt"})
