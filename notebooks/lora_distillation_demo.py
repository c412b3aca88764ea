# %% [markdown]
# # Distilling with LoRA
#
# Distillation usually trains every weight of the student. An adapter trains a few new ones beside a frozen
# student: less memory for gradients and optimizer, and a product of a few megabytes that can be swapped. What
# does that cost in quality? This notebook distils one student both ways, then tries other adapters.
#
# **Which models.** As it stands the notebook fetches `gpt2-medium`, `gpt2` and Dolly from the Hugging Face
# hub. With `LOCAL = True` it needs no network: a teacher of 0.9 M parameters that ships with `distil-runner`,
# a student made of two of its four layers, and rows of the grammar that it was trained on.
#
# **The outputs below were made with `LOCAL = True`**, in a minute or two of one CPU core. They show how
#   things
# work. The shares do not carry over to large models: eight ranks are 7 % of so small a student, and 0.24 % of
# GPT-2.

# %% [markdown]
# ## 1. Choose and load
#
# `pip install -e ".[notebooks,adapters]"` brings what this notebook needs.

# %%
import json
import os
import shutil
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import datasets
import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.ticker import LogLocator, NullFormatter
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils.logging import disable_progress_bar

from distil.report.palette import AFTER, BEFORE, HUES, REFERENCE
from llm_distil import DistillationConfig, KnowledgeDistillation, compute_perplexity, get_tokenizer

LOCAL = os.environ.get("DISTIL_LOCAL") == "1"  # or simply True: no network
DATA = os.environ.get("DISTIL_DOLLY")  # a file of Dolly's rows (JSON Lines), or None
TRAIN_ROWS = int(os.environ.get("DISTIL_ROWS", "200"))
EVAL_ROWS = 40
MAX_LENGTH = 256  # tokens
OUTPUT = Path("outputs/lora_demo")

disable_progress_bar()
datasets.disable_progress_bars()
plt.rcParams.update(
    {
        "figure.dpi": 110,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlelocation": "left",
        "axes.titlesize": "medium",
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#E5E5E5",
    }
)

# %%
if LOCAL:
    from distil.models.pruning import prune_layers
    from distil.models.sources import ASSETS

    teacher_name, teacher_folder = "distil:embedded/teacher", ASSETS / "embedded" / "teacher"
    student_name = student_folder = str(OUTPUT / "untouched")
    half = AutoModelForCausalLM.from_pretrained(teacher_folder)
    prune_layers(half, [0, 3])
    half.save_pretrained(student_folder)
    get_tokenizer(teacher_name).save_pretrained(student_folder)
    learning_rate = 1e-3
    targets = "all-linear"  # half of its layers are gone: an adapter beside every matrix
else:
    teacher_name = teacher_folder = "gpt2-medium"
    student_name = student_folder = "gpt2"
    learning_rate = 5e-5
    targets = None  # PEFT's choice for the family: c_attn

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
teacher = AutoModelForCausalLM.from_pretrained(teacher_folder).to(device).eval()
untouched = AutoModelForCausalLM.from_pretrained(student_folder).to(device).eval()
tokenizer = get_tokenizer(student_name)

print(f"teacher  {teacher_name:32} {teacher.num_parameters():12,} parameters")
print(f"student  {student_name:32} {untouched.num_parameters():12,} parameters")

# %% [markdown]
# ## 2. Read and tokenise rows
#
# Prompts are not scored (labels of -100); a response ends with the token that ends it.


# %%
def prompt_and_response(row):
    """A row of Dolly as one prompt and one response."""
    context = f"\n\n### Input:\n{row['context']}" if row.get("context") else ""
    prompt = f"### Instruction:\n{row['instruction']}{context}\n\n### Response:\n"
    return {"prompt": prompt, "response": row["response"]}


if DATA:
    lines = Path(DATA).read_text(encoding="utf-8").splitlines()
    rows = (prompt_and_response(json.loads(line)) for line in lines)
elif LOCAL:
    from distil.data.embedded import generate_rows

    rows = iter(generate_rows("train", 2 * TRAIN_ROWS + EVAL_ROWS, seed=0))
else:
    rows = map(prompt_and_response, datasets.load_dataset("databricks/databricks-dolly-15k", split="train"))


def tokenised(rows):
    """Rows as ids, those that leave no room for a response left out."""
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        response = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
        if len(prompt) > MAX_LENGTH // 2 or not response:
            continue
        ids = (prompt + response + [tokenizer.eos_token_id])[:MAX_LENGTH]
        labels = [-100] * len(prompt) + ids[len(prompt) :]
        yield {
            "prompt": row["prompt"],
            "response": row["response"],
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": labels,
        }


encoded = tokenised(rows)
train_dataset = datasets.Dataset.from_list(list(islice(encoded, TRAIN_ROWS)))
eval_dataset = datasets.Dataset.from_list(list(islice(encoded, EVAL_ROWS)))
print(f"{len(train_dataset)} rows to train on, {len(eval_dataset)} held out; one of them:\n")
print(f"{eval_dataset[0]['prompt']}→ {eval_dataset[0]['response']}")

# %% [markdown]
# ## 3. Evaluate both before
#
# The teacher is the mark to reach, the untouched student the place to start from.

# %%
EPOCHS = 2


def config_of(rate, **more):
    """One training: two passes in batches of 8, the warm-up a tenth of it."""
    steps = EPOCHS * len(train_dataset) // 8
    return DistillationConfig(
        teacher_model_name=teacher_name,
        student_model_name=student_name,
        epochs=EPOCHS,
        batch_size=8,
        learning_rate=rate,
        warmup_steps=steps // 10,
        logging_steps=5,
        eval_steps=5,
        max_length=MAX_LENGTH,
        output_dir=str(OUTPUT / "training"),
        **more,
    )


ceiling = compute_perplexity(teacher, eval_dataset, tokenizer)
before = KnowledgeDistillation(teacher, untouched, config_of(learning_rate), tokenizer).evaluate(eval_dataset)
print(f"perplexity on held-out rows: teacher {ceiling:.3f}, untouched student {before['perplexity']:.3f}")

# %% [markdown]
# ## 4. Distil all of the student

# %%
results, runs = {}, {}


def distil(name, config, *, watch=False, quantization=None):
    """Distil a fresh copy of the student, keep what it costs and what it reaches."""
    shutil.rmtree(OUTPUT / "training", ignore_errors=True)
    kind = {} if quantization is None else {"quantization_config": quantization}
    student = AutoModelForCausalLM.from_pretrained(student_folder, **kind)
    student = student if quantization else student.to(device)
    kd = KnowledgeDistillation(teacher, student, config, tokenizer)
    kd.train(train_dataset, eval_dataset if watch else None)
    folder = OUTPUT / "students" / name
    kd.save_student(folder)
    score = kd.evaluate(eval_dataset)
    results[name] = {
        "trained parameters": sum(p.numel() for p in kd.student.parameters() if p.requires_grad),
        "perplexity": score["perplexity"],
        "KL to teacher": score["kl_to_teacher"],
        "saved bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
    }
    runs[name] = kd
    return kd


full = distil("full", config_of(learning_rate), watch=True)
print(f"{full.student.num_parameters():,} parameters trained, perplexity {results['full']['perplexity']:.3f}")

# %% [markdown]
# ## 5. Distil a LoRA adapter
#
# Beside each chosen matrix W stand two narrow ones: the layer computes (W + α/r · B·A)·x, with A of r rows
# and B of r columns. W is frozen, B starts at zero, so the adapted student starts as the untouched one.
# An adapter wants a higher learning rate than the whole student: ten times is a start, a search is better.

# %%
LORA = {"use_peft": True, "peft_type": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_modules": targets}
lora = distil("LoRA r=8", config_of(10 * learning_rate, **LORA), watch=True)
lora.student.print_trainable_parameters()
print(f"perplexity {results['LoRA r=8']['perplexity']:.3f}")

# %% [markdown]
# ## 6. What each trains

# %%
COLOURS = {"untouched": BEFORE.light, "full": HUES[0].light, "LoRA r=8": AFTER.light}


def bars(values, title, unit, text):
    """Horizontal bars with their values written beside them."""
    _, axes = plt.subplots(figsize=(8, 0.5 + 0.5 * len(values)))
    drawn = axes.barh(list(values), list(values.values()), color=[COLOURS[name] for name in values])
    axes.bar_label(drawn, [text(value) for value in values.values()], padding=4)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=unit, title=title, xlim=(0, 1.3 * max(values.values())))
    plt.show()


pair = ("full", "LoRA r=8")
total = untouched.num_parameters()
trained = {name: results[name]["trained parameters"] / 1000 for name in pair}
bars(trained, "Trained parameters", "thousands", lambda n: f"{n:,.1f} thousand, {1000 * n / total:.2%}")
print(f"LoRA trains {1 - trained['LoRA r=8'] / trained['full']:.2%} fewer")

# %% [markdown]
# ## 7. What each reaches

# %%
_, axes = plt.subplots(figsize=(8, 3.4))
for name in pair:
    logged = [entry for entry in runs[name].history if "eval_perplexity" in entry]
    seen = [(0, before["perplexity"])] + [(entry["step"], entry["eval_perplexity"]) for entry in logged]
    axes.plot(*zip(*seen, strict=True), color=COLOURS[name], marker="o", markersize=3.5, label=name)
axes.axhline(ceiling, color=REFERENCE.light, linestyle="--", label="teacher")
axes.set(xlabel="optimizer step (8 rows each)", ylabel="perplexity", title="Held-out rows, while training")
axes.legend(frameon=False)
plt.show()

bars(
    {"untouched": before["perplexity"]} | {name: results[name]["perplexity"] for name in pair},
    f"Held-out rows, afterwards (perplexity of the teacher: {ceiling:.3f})",
    "perplexity",
    lambda value: f"{value:.3f}",
)

# %% [markdown]
# ## 8. What each weighs, and how it is used
#
# Of an adapted student the adapter alone is saved. `from_pretrained` finds the base that it names. Merged
# into its base it is a model like any other, as large and as fast as the base.

# %%
bars(
    {name: results[name]["saved bytes"] / 1e6 for name in pair},
    "Weights on disk",
    "MB",
    lambda size: f"{size:.2f} MB",
)
reloaded = AutoPeftModelForCausalLM.from_pretrained(OUTPUT / "students" / "LoRA r=8").to(device)
again = compute_perplexity(reloaded, eval_dataset, tokenizer)
merged = reloaded.merge_and_unload()
plain = compute_perplexity(merged, eval_dataset, tokenizer)
print(f"perplexity: adapter loaded again {again:.3f}, merged into its base {plain:.3f}")
print(f"{type(merged).__name__} of {merged.num_parameters():,} parameters")

# %% [markdown]
# ## 9. More experiments
#
# The same training with other adapters. Their learning rates are rough choices, one try each: search before
# you compare in earnest (`distil compare` does it over seeds, too). Two kinds stand out.
#
# * **QLoRA** holds the frozen base in 4 bits (it needs `bitsandbytes`): the memory of its matrices falls to
#   about an eighth of float32, and their rounding comes on top.
# * **Prefix and prompt tuning** learn positions before every row instead of changing what the student
#   computes. They can steer a model that has the ability; they do not make up for the layers that this one
#   lost.

# %%
experiments = {
    "LoRA r=2": (10, {**LORA, "lora_r": 2, "lora_alpha": 4}, None),
    "LoRA r=32": (10, {**LORA, "lora_r": 32, "lora_alpha": 64}, None),
    "DoRA r=8": (10, {**LORA, "peft_type": "dora"}, None),
    "IA3": (100, {"use_peft": True, "peft_type": "ia3"}, None),
    "prefix": (100, {"use_peft": True, "peft_type": "prefix"}, None),
    "prompt": (100, {"use_peft": True, "peft_type": "prompt"}, None),
}
if find_spec("bitsandbytes"):
    four_bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    experiments["QLoRA r=8"] = (10, {**LORA, "peft_type": "qlora"}, four_bits)

for name, (factor, adapter, quantization) in experiments.items():
    distil(name, config_of(factor * learning_rate, **adapter), quantization=quantization)

table = pd.DataFrame(results).T.sort_values("perplexity")
table["share"] = (table["trained parameters"] / total).map("{:.2%}".format)
table["saved"] = (table["saved bytes"] / 1e6).map("{:.2f} MB".format)
table["trained parameters"] = table["trained parameters"].map("{:,.0f}".format)
table[["trained parameters", "share", "perplexity", "KL to teacher", "saved"]].round(3)

# %%
FAMILIES = {"full": HUES[0].light, "LoRA": AFTER.light, "DoRA": HUES[3].light, "QLoRA": HUES[5].light}
FAMILIES |= {"IA3": HUES[1].light, "prefix": HUES[4].light, "prompt": HUES[4].light}
_, axes = plt.subplots(figsize=(8, 4.2))
labels = []  # (x, y, names): what lies together is named together
for name, result in sorted(results.items(), key=lambda item: -item[1]["KL to teacher"]):
    x, y = result["trained parameters"], result["KL to teacher"]
    axes.plot(x, y, "o", markersize=8, alpha=0.85, color=FAMILIES[name.split()[0]])
    near = [label for label in labels if 0.8 < label[0] / x < 1.25 and 0.8 < label[1] / y < 1.25]
    if near:
        near[0][2].append(name)
    else:
        labels.append((x, y, [name]))
for x, y, names in labels:
    axes.annotate(
        "\n".join(names), (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9
    )
axes.axhline(before["kl_to_teacher"], color=BEFORE.light, linestyle=":")
axes.annotate(
    "untouched student",
    (max(result["trained parameters"] for result in results.values()), before["kl_to_teacher"]),
    xytext=(0, -14),
    textcoords="offset points",
    ha="center",
    fontsize=9,
)
axes.set_xscale("log")
axes.set_yscale("log")
axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
axes.yaxis.set_major_formatter("{x:g}")
axes.yaxis.set_minor_formatter(NullFormatter())
axes.margins(x=0.1, y=0.15)
axes.set(
    xlabel="trained parameters (log scale)",
    ylabel="KL to the teacher (nats per token, log scale)",
    title="Held-out rows: how far from the teacher, against what is trained",
)
plt.show()

# %% [markdown]
# ## 10. Hear them, and choose


# %%
def generate(model, prompt):
    """What the model answers, always taking the likeliest token."""
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    with torch.no_grad():
        out = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=64,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
    return tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


speakers = {"teacher": teacher, "untouched": untouched} | {name: runs[name].student for name in runs}
prompt = eval_dataset[1]["prompt"]
print(f"PROMPT      {prompt.strip()}\n")
for name in ("teacher", "untouched", "full", "LoRA r=8", "IA3", "prefix"):
    print(f"{name:10}  {generate(speakers[name], prompt)}\n")

# %% [markdown]
# What to take (rules of thumb; the run above illustrates them, it does not prove them):
#
# | you want | take |
# |---|---|
# | the best student, memory is no matter | all of it (`use_peft=False`) |
# | nearly that, many variants of one base | LoRA, `lora_r=8` to `32`, `lora_alpha=2*r`, a higher rate |
# | more of it from the same adapter | `lora_target_modules="all-linear"` |
# | a base that does not fit in memory otherwise | QLoRA |
# | the fewest parameters | IA3 |
# | to steer a model that can already do the task | prefix or prompt tuning |
#
# From here to a sweep: `lora.command()` prints the command line that does the same, and `-m
# peft=none,lora,ia3 seed=0,1,2` repeats it for each adapter and seed.
