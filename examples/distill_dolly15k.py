"""Three objectives on databricks-dolly-15k, side by side: KD, reverse KD and GKD.

    python examples/distill_dolly15k.py                       # gpt2-medium -> gpt2, from the Hugging Face hub
    python examples/distill_dolly15k.py --local               # no network: models and rows that ship with us
    python examples/distill_dolly15k.py --local --data databricks-dolly-15k.jsonl
    python examples/distill_dolly15k.py --teacher my/teacher --student my/student --data rows.jsonl

200 rows and one epoch: enough to see every step (under a minute with --local), too little for a good GPT-2.
The teacher of --local knows the rows that come with it and no other English: with --data it shows the steps,
not a result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, DatasetDict, load_dataset
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from distil.data.embedded import generate_rows
from distil.models.pruning import prune_layers
from distil.models.sources import ASSETS
from llm_distil import (
    DistillationConfig,
    GeneralizedKnowledgeDistillation,
    KnowledgeDistillation,
    ReverseKnowledgeDistillation,
    compute_perplexity,
    compute_rouge,
    get_tokenizer,
)

DOLLY = "databricks/databricks-dolly-15k"
LOCAL_TEACHER = str(ASSETS / "embedded" / "teacher")
METHODS = {
    "KD": KnowledgeDistillation,
    "RevKD": ReverseKnowledgeDistillation,
    "GKD": GeneralizedKnowledgeDistillation,
}
DEVICE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"

MAX_LENGTH = 256
MAX_NEW_TOKENS = 64
HELD_OUT = 40


@dataclass
class Models:
    """Names of a pair (of the hub, or folders), and a learning rate that suits it."""

    teacher: str
    student: str
    learning_rate: float

    def load_teacher(self) -> Any:
        """The model that is imitated."""
        return AutoModelForCausalLM.from_pretrained(self.teacher).to(DEVICE)

    def load_student(self) -> Any:
        """The model that learns, as it is before."""
        return AutoModelForCausalLM.from_pretrained(self.student).to(DEVICE)


def parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """The options of both examples."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--local", action="store_true", help="models and rows of the package: no network")
    made.add_argument("--data", type=Path, metavar="FILE", help="Dolly's rows as JSON Lines: no download")
    made.add_argument("--teacher", metavar="NAME", help="hub name or folder (gpt2-medium)")
    made.add_argument("--student", metavar="NAME", help="hub name or folder (gpt2)")
    made.add_argument("--learning-rate", type=float, metavar="X", help="5e-5; with --local 1e-3")
    made.add_argument("--rows", type=int, default=200, metavar="N", help="to train on (200)")
    made.add_argument("--epochs", type=int, default=1, metavar="N", help="passes over them (1)")
    made.add_argument("--output", type=Path, default=Path(output), metavar="DIR", help=output)
    return made


def choose_models(options: argparse.Namespace) -> Models:
    """GPT-2, or with --local the teacher that ships with the package and two of its four layers."""
    if not options.local:
        rate = options.learning_rate or 5e-5
        return Models(options.teacher or "gpt2-medium", options.student or "gpt2", rate)
    teacher = options.teacher or LOCAL_TEACHER
    student = options.student or str(half_of(teacher, options.output / "students" / "untouched"))
    return Models(teacher, student, options.learning_rate or 1e-3)


def half_of(teacher: str, folder: Path) -> Path:
    """Write a student made of the first and the last layer of a teacher of four; it stumbles, and heals."""
    student = AutoModelForCausalLM.from_pretrained(teacher)
    prune_layers(student, [0, student.config.num_hidden_layers - 1])
    student.save_pretrained(folder)
    get_tokenizer(teacher).save_pretrained(folder)
    return folder


def read_rows(options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Prompts and responses: of a file, of the package's grammar, or of the hub."""
    if options.data is not None:
        with options.data.open(encoding="utf-8") as lines:
            yield from (prompt_and_response(json.loads(line)) for line in lines)
    elif options.local:
        yield from generate_rows("train", 2 * options.rows + HELD_OUT, seed=0)
    else:
        # Dolly's first rows are no better than others, but everybody who runs this gets the same.
        yield from map(prompt_and_response, load_dataset(DOLLY, split="train"))


def prompt_and_response(row: dict[str, str]) -> dict[str, str]:
    """A row of Dolly as one prompt and one response."""
    context = f"\n\n### Input:\n{row['context']}" if row.get("context") else ""
    prompt = f"### Instruction:\n{row['instruction']}{context}\n\n### Response:\n"
    return {"prompt": prompt, "response": row["response"]}


def tokenise(rows: Iterable[dict[str, str]], tokenizer: Any, count: int) -> Dataset:
    """``count`` rows of ids. Labels of -100 leave the prompt unscored; GKD's student goes on from it."""
    return Dataset.from_list(list(islice(_tokenised(rows, tokenizer), count)))


def _tokenised(rows: Iterable[dict[str, str]], tokenizer: Any) -> Iterator[dict[str, Any]]:
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        response = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        if len(prompt) > MAX_LENGTH // 2 or not response:
            continue  # no room to answer
        ids = (prompt + response + [tokenizer.eos_token_id])[:MAX_LENGTH]
        yield {
            "prompt": row["prompt"],
            "response": row["response"],
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [-100] * len(prompt) + ids[len(prompt) :],
            "prompt_input_ids": prompt,
        }


def generate(model: Any, tokenizer: Any, prompt: str) -> str:
    """What ``model`` answers, always taking the likeliest token."""
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.no_grad():
        ids = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    return str(tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def step(number: int, title: str) -> None:
    """A heading."""
    print(f"\n== {number}. {title}", flush=True)


def main() -> None:
    """Eight steps from two names to three students."""
    options = parser(__doc__, "outputs/distill_dolly15k").parse_args()
    disable_progress_bar()
    datasets.disable_progress_bars()

    step(1, "Load teacher and student")
    models = choose_models(options)
    teacher, student = models.load_teacher(), models.load_student()
    tokenizer = get_tokenizer(models.student)
    for role, name, model in (("teacher", models.teacher, teacher), ("student", models.student, student)):
        print(f"{role}: {name}, {model.num_parameters():,} parameters")

    step(2, "Read rows")
    rows = read_rows(options)
    first = next(rows)
    print(f"{first['prompt']}{first['response']}")

    step(3, "Tokenise")
    train_dataset = tokenise(rows, tokenizer, options.rows)
    eval_dataset = tokenise(rows, tokenizer, HELD_OUT)
    print(f"{len(train_dataset)} rows to train on, {len(eval_dataset)} held out")

    step(4, "Configure")
    config = DistillationConfig(
        teacher_model_name=models.teacher,
        student_model_name=models.student,
        epochs=options.epochs,
        batch_size=8,
        learning_rate=models.learning_rate,
        warmup_steps=options.epochs
        * len(train_dataset)
        // 80,  # a tenth: the default, 500, is for large sets
        logging_steps=5,
        max_length=MAX_LENGTH,
        max_new_tokens=MAX_NEW_TOKENS,  # of GKD's rollouts
        output_dir=str(options.output),
    )
    print(f"equivalent command: {config.command('kd', options.output / 'rows')}")

    step(5, "Evaluate both before")
    before = KnowledgeDistillation(teacher, student, config, tokenizer).evaluate(eval_dataset)
    ceiling = compute_perplexity(teacher, eval_dataset, tokenizer)
    print(f"perplexity of the teacher {ceiling:.3f}, of the untouched student {before['perplexity']:.3f}")

    step(6, "Train with each method, from the same start")
    distilled, scores = {}, {"untouched": before}
    for name, method in METHODS.items():
        distilled[name] = method(teacher, models.load_student(), config, tokenizer)
        spent = distilled[name].train(train_dataset).metrics["train_runtime"]
        scores[name] = distilled[name].evaluate(eval_dataset)
        print(f"{name}: {spent:.0f} s", flush=True)
    print(f"\n{'':10}  perplexity  KL to teacher (nats/token)  same top token")
    for name, score in scores.items():
        kl, agreement = score["kl_to_teacher"], score["top1_agreement"]
        print(f"{name:10}  {score['perplexity']:10.3f}  {kl:26.3f}  {agreement:14.1%}")

    step(7, "Generate")
    row = eval_dataset[0]
    print(f"prompt     {row['prompt'].strip()}\nreference  {row['response']}")
    speakers = {"teacher": teacher, "untouched": student}
    for name, model in (speakers | {name: kd.student for name, kd in distilled.items()}).items():
        text = generate(model, tokenizer, row["prompt"])
        rouge = compute_rouge([text], [row["response"]])["rougeL"]
        print(f"{name:9}  {text.strip()}  (ROUGE-L {rouge:.2f})")

    step(8, "Save")
    for name, kd in distilled.items():
        folder = options.output / "students" / name.lower()
        kd.save_student(folder)
        print(f"{name}: {folder}")
    reloaded = AutoModelForCausalLM.from_pretrained(options.output / "students" / "kd")
    same = generate(reloaded.to(DEVICE), tokenizer, row["prompt"])
    assert same == generate(distilled["KD"].student, tokenizer, row["prompt"])
    print("loaded again, the student of KD says the same")
    # The rows beside them, so that the equivalent command above can be run, swept and compared.
    splits = {"train": train_dataset, "validation": eval_dataset, "test": eval_dataset}
    DatasetDict(splits).save_to_disk(options.output / "rows")


if __name__ == "__main__":
    main()
