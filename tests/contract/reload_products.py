"""In a fresh process, with transformers and PEFT alone: load every product of the grid, ask each of them.

    python reload_products.py CELLS ANSWERS

CELLS is JSON: a list of ``{name, base, product, adapted, quantization, prompt, new_tokens}``. ANSWERS gets a
dict by name: the logits at the prompt, and the tokens that ``generate()`` adds to it.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import bitsandbytes
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
torch.set_num_threads(1)


def _unrounded(A: Any, B: Any, out: Any, bias: Any, state: Any) -> Any:
    """8 bits on a CPU as in training; in eval mode bitsandbytes would round the activations too."""
    return bitsandbytes.autograd._functions.MatMul8bitFp.apply(A, B, out, bias, state)


def load(cell: dict[str, Any]) -> Any:
    """The product as somebody without this project would load it."""
    if not cell["adapted"]:
        return AutoModelForCausalLM.from_pretrained(cell["product"], dtype=torch.float32).eval()
    options: dict[str, Any] = {"dtype": torch.float32}
    if cell["quantization"]:
        options["quantization_config"] = BitsAndBytesConfig(**cell["quantization"])
    base = AutoModelForCausalLM.from_pretrained(cell["base"], **options)
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    bitsandbytes.autograd._functions.MatMul8bitLt.apply = _unrounded
    return PeftModel.from_pretrained(base, cell["product"]).eval()


@torch.no_grad()
def ask(model: Any, cell: dict[str, Any]) -> dict[str, Any]:
    """What it says at each position of the prompt, and after it."""
    ids = torch.tensor([cell["prompt"]])
    written = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=cell["new_tokens"],
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return {"logits": model(input_ids=ids).logits, "written": written[0, -cell["new_tokens"] :].tolist()}


if __name__ == "__main__":
    cells = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.save({cell["name"]: ask(load(cell), cell) for cell in cells}, sys.argv[2])
