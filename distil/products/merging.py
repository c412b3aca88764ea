"""Base and adapter of a run as one plain model, proven against the unmerged one before it is published."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from distil.cards.brief import base_card, merged_card, run_card
from distil.products.finished_run import FinishedRun
from distil.products.library import SavedStudent
from distil.products.loading import load_base, load_tokenizer, put_on
from distil.system.files import all_or_nothing, check_output, write_text
from distil.system.quiet import no_hints, quiet_transformers
from distil.types import RunFailed

PROBE_TOKENS = 32
"""Random ids on which what was written is compared with what was meant."""

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
"""Largest difference of the logits, as a share of the largest logit; coarser for half precision."""
HALF_TOLERANCE = 0.1


@dataclass(frozen=True)
class Written:
    """What a merge left, and how far its logits lie from those before."""

    folder: Path
    bytes: int
    difference: float
    """From the unmerged student (base alone: from the base), largest over all logits of the probe."""
    largest: float
    """The largest logit there."""
    rounding: float | None
    """Of that, what the quantised model rounds at run time beyond its weights; None: not quantised."""
    bits: int | None
    """How many bits the base was held in."""
    dtype: str


def merge(run: FinishedRun, output: Path, command: str, *, base_only: bool = False) -> Written:
    """Write base and adapter of ``run`` as one plain model (``base_only``: the base alone) into ``output``.

    Quantised weights are unpacked first, and the adapter goes onto those. Raises InputError for what cannot
    be merged, RunFailed (nothing is left) where what was written does not say what the student says.
    """
    check_output(output)
    base = load_base(run)
    probe_BT = probe_ids(base)
    student = base if base_only else put_on(base, run)
    asked_BTV = _logits(student, probe_BT)
    bits, plain_BTV = _bits(base), asked_BTV
    if bits is not None:
        del base, student
        base = _dequantised(load_base(run))  # afresh: PEFT takes no IA3 off a quantised base
        student = base if base_only else put_on(base, run)
        plain_BTV = _logits(student, probe_BT)
    merged = base if base_only else _merged(student)
    if bits is not None:
        _restore_conv1d(merged)
    merged.config.use_cache = True
    merged.train(False)
    dtype = merged.dtype
    with all_or_nothing(output) as partial:
        _save(partial, merged, load_tokenizer(run), _card(run, command, base_only))
        del merged, student, base
        said_BTV = _proven(partial, probe_BT, plain_BTV, dtype)
    return Written(
        output,
        sum(file.stat().st_size for file in output.glob("*.safetensors")),
        _apart(said_BTV, asked_BTV),
        float(asked_BTV.abs().max()),
        None if bits is None else _apart(plain_BTV, asked_BTV),
        bits,
        str(dtype).removeprefix("torch."),
    )


def _merged(student: PreTrainedModel) -> PreTrainedModel:
    untyped: Any = student
    _untie(student)
    with warnings.catch_warnings():
        # Said by the config that is written: `tie_word_embeddings`.
        warnings.filterwarnings("ignore", "(Input and output embeddings are no longer|Model with `tie_word)")
        merged: PreTrainedModel = untyped.merge_and_unload()
    return merged


def _untie(student: PreTrainedModel) -> None:
    """Give head and embeddings a weight each where an adapter sits on one of them.

    Merging writes into the weight, and one that both share would change the other too.
    """
    untyped: Any = student
    base = untyped.get_base_model()
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    if not any(hasattr(module, "base_layer") for module in (head, embedding)):
        return
    head, embedding = (getattr(module, "base_layer", module) for module in (head, embedding))
    if head.weight is embedding.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        for config in (base.config, base.config.get_text_config()):
            config.tie_word_embeddings = False


def _bits(model: PreTrainedModel) -> int | None:
    """How many bits bitsandbytes holds its weights in; None: they are plain."""
    if getattr(model, "is_loaded_in_4bit", False):
        return 4
    return 8 if getattr(model, "is_loaded_in_8bit", False) else None


def _dequantised(model: PreTrainedModel) -> PreTrainedModel:
    untyped: Any = model
    with no_hints():
        plain: PreTrainedModel = untyped.dequantize()
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        setattr(plain, flag, False)  # left standing; PEFT goes by them
    # How files in 4 bits were read, which saving would undo; None: what the architecture itself asks for.
    setattr(plain, "_weight_conversions", None)  # noqa: B010  (torch types attributes of modules as tensors)
    plain.train(False)
    return plain


def _restore_conv1d(model: PreTrainedModel) -> None:
    """GPT-2 keeps its weights transposed, in ``Conv1D``; quantising made plain linear modules of those."""
    with torch.device("meta"):
        twin = type(model)(copy.deepcopy(model.config))
    for name, module in twin.named_modules():
        if not isinstance(module, Conv1D):
            continue
        ours: Any = model.get_submodule(name)
        if type(ours) is nn.Linear:
            theirs = Conv1D(ours.out_features, ours.in_features)  # type: ignore[no-untyped-call]  # theirs has no types
            theirs.weight = nn.Parameter(ours.weight.detach().T.contiguous(), requires_grad=False)
            theirs.bias = nn.Parameter(ours.bias.detach(), requires_grad=False)
            model.set_submodule(name, theirs)


# ---- writing, and proof


def _save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: str) -> None:
    with quiet_transformers():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_text(folder / "README.md", card)


def _proven(folder: Path, probe_BT: Tensor, wanted_BTV: Tensor, dtype: torch.dtype) -> Tensor:
    """What the model in ``folder`` says, loaded as anybody would.

    Raises RunFailed where that is not ``wanted_BTV``.
    """
    said_BTV = _logits(_reload(folder), probe_BT)
    apart = _apart(said_BTV, wanted_BTV)
    largest = float(wanted_BTV.abs().max())
    if not apart <= TOLERANCE.get(dtype, HALF_TOLERANCE) * max(largest, 1.0):
        raise RunFailed(
            f"The merged model's logits lie {apart:.2g} from the unmerged ones (the largest is "
            f"{largest:.2g}): nothing was written. Please report this with the run's config.yaml; "
            "until then load the adapter with PEFT (PeftModel.from_pretrained)."
        )
    return said_BTV


def _reload(folder: Path) -> PreTrainedModel:
    with quiet_transformers():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    model.train(False)
    return model


def probe_ids(model: PreTrainedModel) -> Tensor:
    """Random ids, always the same: as many as the model's context holds at most."""
    text = model.config.get_text_config()
    length = min(PROBE_TOKENS, getattr(text, "max_position_embeddings", None) or PROBE_TOKENS)
    generator = torch.Generator().manual_seed(0)
    return torch.randint(text.vocab_size, (1, length), generator=generator)


@torch.no_grad()
def _logits(model: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    with no_hints(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "MatMul8bitLt")  # announced at each product in 8 bits
        device = next(model.parameters()).device
        logits_BTV: Tensor = model(input_ids=ids_BT.to(device)).logits
    return logits_BTV.float().cpu()


def _apart(one_BTV: Tensor, other_BTV: Tensor) -> float:
    return float((one_BTV - other_BTV).abs().max())


def _card(run: FinishedRun, command: str, base_only: bool) -> str:
    model, kind, saved = run.config.model, run.config.peft.name, isinstance(run, SavedStudent)
    source = str(model.student.path or model.teacher.path)
    made = f"{run.command}\n{command}".strip()
    if base_only:
        folder = "ADAPTER_FOLDER" if saved else 'RUN_FOLDER + "/student"'
        return base_card(source, run.sidecar["kept_layers"], (kind, folder), made)
    return merged_card(run.title, source, kind, made) if saved else run_card(run.title, made, None)
