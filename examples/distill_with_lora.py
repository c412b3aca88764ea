"""Distilling all of a student against distilling a LoRA adapter beside it.

    python examples/distill_with_lora.py                      # gpt2-medium -> gpt2, from the Hugging Face hub
    python examples/distill_with_lora.py --local              # no network: models and rows that ship with us

``pip install -e ".[adapters]"`` brings PEFT. Models, rows and options are those of
``distill_dolly15k.py``. GPT-2 trains 0.24 % of its parameters here; the student of --local is so small that
its adapter is 7 % of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
from distill_dolly15k import (
    DEVICE,
    HELD_OUT,
    MAX_LENGTH,
    Models,
    choose_models,
    generate,
    parser,
    read_rows,
    step,
    tokenise,
)
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from llm_distil import DistillationConfig, KnowledgeDistillation, compute_perplexity, get_tokenizer

LORA: dict[str, Any] = {"use_peft": True, "peft_type": "lora", "lora_r": 8, "lora_alpha": 16}


def configs(
    models: Models, epochs: int, rows: int, output: Path, local: bool
) -> dict[str, DistillationConfig]:
    """The same training twice. An adapter starts as nothing and wants a higher rate: ten times is a start."""
    shared: dict[str, Any] = {
        "teacher_model_name": models.teacher,
        "student_model_name": models.student,
        "epochs": epochs,
        "batch_size": 8,
        "warmup_steps": epochs * rows // 80,
        "logging_steps": 5,
        "max_length": MAX_LENGTH,
    }
    # None is PEFT's choice for the family: c_attn for GPT-2. The small student lost half of its layers, and
    # an adapter that has to make up for that wants a place beside every matrix.
    targets = "all-linear" if local else None
    rate = models.learning_rate
    return {
        "full": DistillationConfig(**shared, learning_rate=rate, output_dir=str(output / "full")),
        "LoRA": DistillationConfig(
            **shared,
            **LORA,
            lora_target_modules=targets,
            learning_rate=10 * rate,
            output_dir=str(output / "lora"),
        ),
    }


def weights_size(folder: Path) -> int:
    """Bytes of the weights that were saved in ``folder``."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def main() -> None:
    """Two trainings of one student, and what each costs."""
    options = parser(__doc__, "outputs/distill_with_lora").parse_args()
    disable_progress_bar()
    datasets.disable_progress_bars()

    step(1, "Load models, read and tokenise rows")
    models = choose_models(options)
    teacher, student = models.load_teacher(), models.load_student()
    tokenizer = get_tokenizer(models.student)
    rows = read_rows(options)
    train_dataset = tokenise(rows, tokenizer, options.rows)
    eval_dataset = tokenise(rows, tokenizer, HELD_OUT)
    ceiling = compute_perplexity(teacher, eval_dataset, tokenizer)
    untouched = compute_perplexity(student, eval_dataset, tokenizer)
    print(f"teacher {models.teacher}: {teacher.num_parameters():,} parameters, perplexity {ceiling:.3f}")
    print(f"student {models.student}: {student.num_parameters():,} parameters, perplexity {untouched:.3f}")

    step(2, "Distil: all of the student, then an adapter beside it")
    distilled, table = {}, {}
    pair = configs(models, options.epochs, len(train_dataset), options.output, options.local)
    for name, config in pair.items():
        kd = KnowledgeDistillation(teacher, models.load_student(), config, tokenizer)
        seconds = kd.train(train_dataset).metrics["train_runtime"]
        folder = options.output / "students" / name.lower()
        kd.save_student(folder)
        trained = sum(p.numel() for p in kd.student.parameters() if p.requires_grad)
        table[name] = (trained, seconds, kd.evaluate(eval_dataset), weights_size(folder))
        distilled[name] = kd
        print(f"{name}: done", flush=True)

    step(3, "Compare")
    total = student.num_parameters()
    print(
        f"{'':5}  {'trained':>12}  {'share':>7}  {'seconds':>7}  {'perplexity':>10}  {'KL':>6}  {'saved':>10}"
    )
    for name, (trained, seconds, score, size) in table.items():
        print(
            f"{name:5}  {trained:12,}  {trained / total:7.2%}  {seconds:7.0f}  {score['perplexity']:10.3f}  "
            f"{score['kl_to_teacher']:6.3f}  {size / 1e6:7.2f} MB"
        )
    fewer = 1 - table["LoRA"][0] / table["full"][0]
    smaller = 1 - table["LoRA"][3] / table["full"][3]
    print(f"LoRA trains {fewer:.2%} fewer parameters, and saves {smaller:.2%} fewer bytes")

    step(4, "Generate")
    row = eval_dataset[0]
    print(f"prompt     {row['prompt'].strip()}")
    speakers = {"teacher": teacher, "untouched": student}
    for name, model in (speakers | {name: kd.student for name, kd in distilled.items()}).items():
        print(f"{name:9}  {generate(model, tokenizer, row['prompt']).strip()}")

    step(5, "Load the adapter again, and merge it")
    # transformers finds the base that the adapter names, and puts the adapter onto it.
    reloaded = AutoModelForCausalLM.from_pretrained(options.output / "students" / "lora").to(DEVICE)
    again = compute_perplexity(reloaded, eval_dataset, tokenizer)
    merged: Any = distilled["LoRA"].student
    merged = merged.merge_and_unload()
    plain = compute_perplexity(merged, eval_dataset, tokenizer)
    print(f"perplexity: loaded again {again:.3f}, merged into the base {plain:.3f}")
    merged.save_pretrained(options.output / "students" / "merged")
    tokenizer.save_pretrained(options.output / "students" / "merged")
    print(f"a model like any other: {options.output / 'students' / 'merged'}")


if __name__ == "__main__":
    main()
