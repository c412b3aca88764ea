"""In a fresh process with transformers alone (PEFT and bitsandbytes cannot be imported): ask merged models.

    python ask_merged.py CELLS ANSWERS

CELLS is JSON: folder by name. ANSWERS gets a dict by name: the logits at PROMPT, what ``generate()`` adds,
and the ids of two words.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROMPT = [5, 9, 31, 7, 12, 40, 2]
NEW = 6


def main(cells: Path, answers: Path) -> None:
    for name in ("peft", "bitsandbytes", "distil"):
        sys.modules[name] = None  # type: ignore[assignment]  # importing it is an error from here on
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, folder in json.loads(cells.read_text(encoding="utf-8")).items():
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = torch.tensor([PROMPT])
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        written = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        found[name] = {
            "logits": logits,
            "written": written[0, len(PROMPT) :].tolist(),
            "words": tokenizer("w5 w9")["input_ids"],
        }
    torch.save(found, answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
