"""Valid inputs to begin with: two tiny runs and what they leave, data files of every kind, command lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.chaos.runs import finished, make_pair
from scripts.fuzz.mutate import Files, read

ROWS: list[dict[str, Any]] = [
    {
        "prompt": f"the cat {i} ?",
        "response": f"a dog {i} .",
        "slots": {"required": [["dog"]]},
        "log_probability": -1.5,
    }
    for i in range(8)
]
SHAPES: dict[str, list[dict[str, Any]]] = {
    "pairs": ROWS,
    "chats": [
        {
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": f"the cat {i} ?"},
                {"role": "assistant", "content": [{"type": "text", "text": "a dog ."}]},
            ]
        }
        for i in range(6)
    ],
    "texts": [{"text": f"the cat sees the dog {i} ."} for i in range(6)],
    "tokens": [
        {
            "input_ids": [2, 3, 4 + i],
            "attention_mask": [1, 1, 1],
            "labels": [-100, 3, 4 + i],
            "prompt_input_ids": [2],
            "prompt_attention_mask": [1],
        }
        for i in range(6)
    ],
}
COMMANDS = [
    ["method=kd", "method.temperature=3", "seed=1"],
    ["method=gkd", "model=embedded", "peft=lora", "peft.r=4", "rollouts.top_p=0.9"],
    [
        "method=sft",
        "data.train_file=rows.jsonl",
        "data.on_bad_row=skip",
        "model=gpt2",
        "eval.metrics=[rouge,bleu]",
    ],
    ["experiment=smollm2_dolly", "trainer.max_steps=1", "run.packing=true"],
    ["-m", "method=kd,sft", "seed=0,1", "name=x"],
    ["model.teacher.path=teacher", "model.student.path=null", "model.student.keep_layers=[0,2]"],
    [
        "model.student.init=random",
        "+model.student.overrides.hidden_size=8",
        "teacher_cache=topk",
        "tracker=wandb",
    ],
    ["--cfg", "job", "trainer.learning_rate=1e-3", "data.prompt_template='{q}: '", "run.plugins=[]"],
]
RUN = (
    "status",
    "config.yaml",
    "environment",
    "results",
    "cost",
    "metrics",
    "samples",
    "before",
    "spent",
    "student",
    "manifest",
    "bad_rows",
    "broken",
)


def run_seeds(folder: Path) -> dict[str, Path]:
    """Two finished runs by name of their adapter, made below ``folder`` where they are not there yet."""
    pair = [] if (folder / "none").exists() else make_pair(folder)
    short = ["trainer.max_steps=2", "trainer.save_total_limit=1", "trainer.dataloader_num_workers=0"]
    for name, overrides in {
        "lora": ["method=kd", "peft=lora", "teacher_cache=topk", "teacher_cache.k=4"],
        "none": ["method=gkd", "peft=none", "teacher_cache=hidden"],
    }.items():
        if pair:
            finished(folder / name, [*pair, *short, *overrides])
    return {
        name: next((folder / name / "outputs").glob("*/*/status.json")).parent for name in ("lora", "none")
    }


def data_files() -> list[Files]:
    """One file of each shape and kind."""
    found: list[Files] = []
    for name, rows in SHAPES.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        found.append({f"{name}.jsonl": lines.encode()})
        found.append({f"{name}.json": json.dumps(rows).encode()})
    cells = "".join(f'"{row["prompt"]}",{row["response"]}\r\n' for row in ROWS)
    found.append({"pairs.csv": f"question,answer\r\n{cells}".encode()})
    return found


def parquet_file(folder: Path) -> Files:
    """The rows as Parquet."""
    from datasets import Dataset

    Dataset.from_list(SHAPES["texts"]).to_parquet(str(folder / "texts.parquet"))
    return {"texts.parquet": (folder / "texts.parquet").read_bytes()}


def of_run(run: Path) -> Files:
    """A run directory without weights, checkpoints and pictures."""
    return {
        name: content
        for name, content in read(run).items()
        if name.startswith(RUN) and not name.endswith((".safetensors", ".html"))
    }
