"""In a fresh process that cannot import distil: run the code of model cards as it stands there.

    python ask_exported.py CELLS ANSWERS

CELLS is JSON: README.md by name. ANSWERS gets a dict by name: what the code prints, and the logits at PROMPT
of the model that it loads. The code runs beside its folder, which it names.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from ask_merged import PROMPT


def main(cells: Path, answers: Path) -> None:
    sys.modules["distil"] = None  # type: ignore[assignment]  # importing it is an error from here on
    import torch

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, card in json.loads(cells.read_text(encoding="utf-8")).items():
        os.chdir(Path(card).parent.parent)
        block = re.search(r"```python\n(.*?)```", Path(card).read_text(encoding="utf-8"), re.DOTALL)
        assert block is not None
        space: dict[str, Any] = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(block[1], space)
        with torch.no_grad():
            logits = space["model"](input_ids=torch.tensor([PROMPT])).logits
        found[name] = {"printed": printed.getvalue().removesuffix("\n"), "logits": logits}
    torch.save(found, answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
