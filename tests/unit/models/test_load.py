"""Loading: what comes back is what was asked for, and what cannot be loaded says why."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models import check_models, load_student, load_teacher, needs_calibration
from distil.types import InputError

if TYPE_CHECKING:
    from tests.conftest import ModelFactory


@pytest.fixture(scope="session")
def teacher_folder(tiny_llama: ModelFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    tiny_llama(num_hidden_layers=4).save_pretrained(folder)
    return folder


def config(folder: Path | None, **student: Any) -> ModelConfig:
    return ModelConfig("m", TeacherConfig(path=folder and str(folder)), StudentConfig(**student))


def test_teacher_is_frozen(teacher_folder: Path) -> None:
    teacher = load_teacher(config(teacher_folder))
    assert teacher is not None
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert load_teacher(config(None, path=str(teacher_folder))) is None


def test_student_starts_as_the_teacher_and_is_its_own(teacher_folder: Path) -> None:
    teacher, student = load_teacher(config(teacher_folder)), load_student(config(teacher_folder), seed=0)
    assert teacher is not None
    assert student.kept_layers is None
    theirs = teacher.state_dict()
    for name, parameter in student.model.named_parameters():
        assert parameter.requires_grad
        assert torch.equal(parameter, theirs[name])
        assert parameter.data_ptr() != theirs[name].data_ptr()


@pytest.mark.parametrize("init", ["pretrained", "random"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
def test_dtype_and_attention(teacher_folder: Path, init: str, dtype: str) -> None:
    asked = config(teacher_folder, dtype=dtype, attn_implementation="eager", init=init)
    model = load_student(asked, seed=0).model
    assert model.dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    assert model.config._attn_implementation == "eager"


def test_keep_layers(teacher_folder: Path) -> None:
    student = load_student(config(teacher_folder, keep_layers=[0, 2]), seed=0)
    assert student.kept_layers == [0, 2]
    original = AutoModelForCausalLM.from_pretrained(teacher_folder)
    for new, old in enumerate([0, 2]):
        kept = student.model.model.layers[new].state_dict()
        for name, value in original.model.layers[old].state_dict().items():
            assert torch.equal(kept[name], value)


def test_a_count_is_chosen_on_rows(teacher_folder: Path) -> None:
    asked = config(teacher_folder, keep_layers=2)
    assert needs_calibration(asked)
    assert not needs_calibration(config(teacher_folder, keep_layers=[0, 1]))
    student = load_student(asked, 0, [[3, 4, 5, 6], [7, 8]])
    assert student.kept_layers is not None
    assert len(student.kept_layers) == student.model.config.num_hidden_layers == 2
    chosen = load_student(config(teacher_folder, keep_layers=student.kept_layers), 0).model
    assert all(
        torch.equal(a, b) for a, b in zip(chosen.parameters(), student.model.parameters(), strict=True)
    )
    with pytest.raises(ValueError, match="calibration_rows"):
        load_student(asked, 0)


def test_random_is_seeded_and_leaves_chance_alone(teacher_folder: Path) -> None:
    asked = config(teacher_folder, init="random", overrides={"hidden_size": 16, "num_hidden_layers": 1})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = load_student(asked, seed=1).model
    assert torch.equal(torch.rand(3), expected)
    again, other = load_student(asked, seed=1).model, load_student(asked, seed=2).model
    assert one.config.hidden_size == 16
    assert one.config.num_hidden_layers == 1
    assert torch.equal(one.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one(torch.tensor([[1, 2]])).logits.shape == (1, 2, 64)


def test_what_followed_from_sizes_still_does(tiny_llama: ModelFactory, tmp_path: Path) -> None:
    tiny_llama(num_key_value_heads=4, head_dim=8).save_pretrained(tmp_path)
    overrides = {"hidden_size": 64, "num_attention_heads": 2}
    changed = load_student(config(tmp_path, init="random", overrides=overrides), 0).model.config
    assert (changed.num_key_value_heads, changed.head_dim) == (2, 32)


def test_overrides_in_gpt2s_words_or_everybodys(tiny_gpt2: ModelFactory, tmp_path: Path) -> None:
    tiny_gpt2().save_pretrained(tmp_path)
    for overrides in ({"n_layer": 1, "n_embd": 16}, {"num_hidden_layers": 1, "hidden_size": 16}):
        model = load_student(config(tmp_path, init="random", overrides=overrides), 0).model
        assert (model.config.n_layer, model.config.n_embd, len(model.transformer.h)) == (1, 16, 1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hiden_size": 64}, r"overrides=hiden_size is unknown\. Did you mean hidden_size\?"),
        ({"model_type": "gpt2"}, "overrides=model_type is unknown"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_bad_overrides(teacher_folder: Path, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_student(config(teacher_folder, init="random", overrides=overrides), 0)
    assert "model.student.overrides" in str(caught.value)


def test_missing_weights_are_never_random(teacher_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_bytes((teacher_folder / "config.json").read_bytes())
    weights = load_file(teacher_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"no weights for model\.layers\.1\.mlp\.up_proj\.weight"):
        load_teacher(config(tmp_path))


def test_weights_of_another_model_than_the_config_beside_them(
    tiny_llama: ModelFactory, teacher_folder: Path, tmp_path: Path
) -> None:
    tiny_llama(intermediate_size=24).config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((teacher_folder / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match="the weights there are not of the sizes that its config"):
        load_teacher(config(tmp_path))


def test_damaged_files(teacher_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((teacher_folder / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((teacher_folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"model\.teacher\.path=.* cannot be loaded: SafetensorError"):
        load_teacher(config(tmp_path))


def test_no_code_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}'
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('this ran')")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"model\.teacher\.trust_remote_code=false\. Nothing of it was run"):
        load_teacher(config(tmp_path))


def test_real_model(shared_data: Path) -> None:
    folder = shared_data / "models" / "stories260K"
    student = load_student(config(folder, keep_layers=[0, 2, 4]), 0).model
    size = sum(parameter.numel() for parameter in student.parameters())
    embedding_and_norm = 512 * 64 + 64
    assert size == embedding_and_norm + (260_032 - embedding_and_norm) * 3 // 5


@pytest.mark.parametrize("keys", [{"device_map": "nowhere"}, {"attn_implementation": "nothing"}])
def test_how_it_was_to_be_loaded_is_named_where_that_fails(
    teacher_folder: Path, keys: dict[str, str]
) -> None:
    teacher = TeacherConfig(path=str(teacher_folder), **keys)  # type: ignore[arg-type]  # all texts
    ((key, value),) = keys.items()
    with pytest.raises(InputError, match=rf"with model\.teacher\.{key}={value} cannot be loaded"):
        load_teacher(ModelConfig("m", teacher, StudentConfig()))


def test_from_the_hub_cache_and_by_revision(teacher_folder: Path) -> None:
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / "models--distil-test--cached"
    shutil.copytree(teacher_folder, repository / "snapshots" / "abc", dirs_exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "v1").write_text("abc")
    named = TeacherConfig(path="distil-test/cached", revision="v1")
    assert load_teacher(ModelConfig("m", named, StudentConfig())) is not None
    with pytest.raises(InputError, match=r"model\.teacher\.path=distil-test/cached .*not in the local cache"):
        load_teacher(
            ModelConfig("m", TeacherConfig(path="distil-test/cached", revision="v2"), StudentConfig())
        )


def test_models_that_ship_with_the_package(teacher_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distil.models.sources.ASSETS", teacher_folder.parent)
    shipped = TeacherConfig(path=f"distil:{teacher_folder.name}")
    assert load_teacher(ModelConfig("m", shipped, StudentConfig())) is not None


def write_gguf(model: Any, file: Path) -> None:
    """``model`` (a Llama) and a few tokens as a GGUF file, weights in 8-bit blocks of 32."""
    gguf = pytest.importorskip("gguf")
    c = model.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(c.num_hidden_layers)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(ord("!") + i) for i in range(c.vocab_size)])
    writer.add_token_merges(["! !"])
    writer.add_eos_token_id(2)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, c.num_hidden_layers)
    for key, value in model.state_dict().items():
        name = names.get_name(key, try_suffixes=(".weight",))
        weights = value.numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if weights.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_file(tiny_llama: ModelFactory, tmp_path: Path) -> None:
    original = tiny_llama(num_hidden_layers=3)
    write_gguf(original, tmp_path / "m.gguf")
    student = StudentConfig(path=str(tmp_path), gguf_file="m.gguf", keep_layers=[0, 2])
    asked = ModelConfig("m", TeacherConfig(path=str(tmp_path), gguf_file="m.gguf"), student)
    check_models(asked, allow_network=False)
    teacher, model = load_teacher(asked), load_student(asked, 0).model
    assert teacher is not None
    kept = model.model.layers[1].mlp.up_proj.weight
    assert torch.equal(kept, teacher.model.layers[2].mlp.up_proj.weight)
    torch.testing.assert_close(kept, original.model.layers[2].mlp.up_proj.weight, atol=1e-3, rtol=0)
    ids = torch.tensor([[3, 4, 5]])
    model(ids, labels=ids).loss.backward()
    assert kept.grad is not None
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(
        AutoModelForCausalLM.from_pretrained(tmp_path / "saved")(ids).logits, model(ids).logits
    )
