# %% [markdown]
# # Three ways to distil a language model
#
# A large **teacher** and a small **student** read the same instructions and responses. Plain training tells
# the student which token came next. Distillation tells it what the teacher thought of *every* token. This
# notebook distils one student three times, with KD, reverse KD and GKD, and compares what comes out.
#
# **Which models.** As it stands the notebook fetches `gpt2-medium`, `gpt2` and 15,000 rows of Dolly from the
# Hugging Face hub. With `LOCAL = True` it needs no network: a teacher of 0.9 M parameters that ships with
# `distil-runner`, a student made of two of its four layers, and rows of the grammar that it was trained on.
#
# **The outputs below were made with `LOCAL = True`**, on one CPU core in about a minute. They show how the
# three methods work; they are no benchmark of them, and their numbers are not those of GPT-2.

# %% [markdown]
# ## 1. Choose
#
# `pip install -e ".[notebooks]"` brings what this notebook needs. `DATA` may name a file of Dolly's
# rows (JSON Lines with `instruction`, `context`, `response`).

# %%
import json
import os
from itertools import islice
from pathlib import Path
from textwrap import fill

import datasets
import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.ticker import LogLocator, NullFormatter
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from distil.report.palette import BEFORE, METHODS, REFERENCE
from llm_distil import (
    DistillationConfig,
    GeneralizedKnowledgeDistillation,
    KnowledgeDistillation,
    ReverseKnowledgeDistillation,
    compute_perplexity,
    compute_rouge,
    get_tokenizer,
)

LOCAL = os.environ.get("DISTIL_LOCAL") == "1"  # or simply True: no network
DATA = os.environ.get("DISTIL_DOLLY")  # a file of rows, or None
TRAIN_ROWS = int(os.environ.get("DISTIL_ROWS", "200"))
EVAL_ROWS = 40
MAX_LENGTH = 256  # tokens
OUTPUT = Path("outputs/dolly15k_demo")

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

# %% [markdown]
# ## 2. Load teacher and student
#
# Both must read the same token ids. With `LOCAL` the student is the teacher without its two middle layers:
# it has the right words, and has lost its way with them.

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
else:
    teacher_name = teacher_folder = "gpt2-medium"
    student_name = student_folder = "gpt2"
    learning_rate = 5e-5

device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
teacher = AutoModelForCausalLM.from_pretrained(teacher_folder).to(device).eval()
untouched = AutoModelForCausalLM.from_pretrained(student_folder).to(device).eval()
tokenizer = get_tokenizer(student_name)

print(f"teacher  {teacher_name:32} {teacher.num_parameters():12,} parameters")
print(f"student  {student_name:32} {untouched.num_parameters():12,} parameters")

# %% [markdown]
# ## 3. Look at the rows


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

for row in islice(rows, 3):
    print(f"{row['prompt']}→ {row['response']}\n")

# %% [markdown]
# ## 4. Tokenise
#
# A row is prompt, response and the token that ends it. Labels of -100 leave the prompt unscored: the student
# learns to answer, not to ask. `prompt_input_ids` is what GKD's student goes on from by itself. (Rows of text
# with columns like Dolly's can be given to `train` as they are; here you see what becomes of them.)


# %%
def tokenised(rows):
    """Rows as ids, those that leave no room for a response left out."""
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


encoded = tokenised(rows)
train_dataset = datasets.Dataset.from_list(list(islice(encoded, TRAIN_ROWS)))
eval_dataset = datasets.Dataset.from_list(list(islice(encoded, EVAL_ROWS)))

lengths = pd.DataFrame(
    {
        "prompt tokens": [len(ids) for ids in train_dataset["prompt_input_ids"]],
        "scored tokens": [sum(label != -100 for label in labels) for labels in train_dataset["labels"]],
    }
)
print(f"{len(train_dataset)} rows to train on, {len(eval_dataset)} held out")
lengths.describe().loc[["mean", "min", "max"]].round(1)

# %% [markdown]
# ## 5. What a teacher knows that the data do not
#
# The data say which token came next in one row. The teacher says what else could have come. Of eight held-out
# rows, this is the place where the teacher has its doubts (at least half a nat of entropy) and the untouched
# student is furthest from them.


# %%
def next_token(model, ids):
    """Log-probability of every token after ids[:1], ids[:2], …"""
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits[0, :-1]
    return logits.float().log_softmax(-1).cpu()


def furthest_place(row):
    """KL(teacher || untouched student) in nats where it is largest, and that position in the row."""
    teacher_TV, student_TV = (next_token(model, row["input_ids"]) for model in (teacher, untouched))
    shared = min(teacher_TV.shape[1], student_TV.shape[1])  # embeddings may be padded
    teacher_TV, student_TV = teacher_TV[:, :shared], student_TV[:, :shared]
    kl_T = (teacher_TV.exp() * (teacher_TV - student_TV)).sum(-1)
    entropy_T = torch.special.entr(teacher_TV.exp()).sum(-1)
    kl_T[entropy_T < 0.5] = -1
    kl_T[: len(row["prompt_input_ids"]) - 1] = -1  # within the prompt
    return float(kl_T.max()), int(kl_T.argmax())


(_, place), example = max(
    ((furthest_place(row), row) for row in eval_dataset.select(range(8))), key=lambda found: found[0]
)
ids = example["input_ids"]


def compare_at_place(models, title):
    """Bars of what each model would say at ``place``: the eight tokens that they find likeliest together."""
    said = {name: next_token(model, ids)[place].exp() for name, (model, _) in models.items()}
    shared = min(len(probabilities) for probabilities in said.values())
    likely = sum(probabilities[:shared] for probabilities in said.values()).topk(8).indices
    words = [repr(tokenizer.decode([token]))[1:-1] for token in likely]
    _, axes = plt.subplots(figsize=(8, 3.2))
    width = 0.8 / len(models)
    for number, (name, (_, colour)) in enumerate(models.items()):
        offsets = [x + (number - (len(models) - 1) / 2) * width for x in range(len(likely))]
        axes.bar(offsets, said[name][likely], width, label=name, color=colour)
    axes.set_xticks(range(len(likely)), words)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="next token", ylabel="probability", title=title)
    axes.legend(frameon=False)
    plt.show()


print(f"{tokenizer.decode(ids[: place + 1])} …")
print(f"the row itself goes on with {tokenizer.decode([ids[place + 1]])!r}")
pair = {"teacher": (teacher, REFERENCE.light), "untouched student": (untouched, BEFORE.light)}
compare_at_place(pair, "What could come next, according to each")

# %% [markdown]
# ## 6. Three objectives
#
# With T the temperature, α = `kd_loss_weight`, λ = `lambda_gkd`, and CE the cross-entropy on the data:
#
# | method | loss | the student is to |
# |---|---|---|
# | KD | (1 - α)·CE + α·T²·KL(teacher ‖ student) | cover all that the teacher would say |
# | RevKD | (1 - α)·CE + α·T²·KL(student ‖ teacher) | say only what the teacher would say |
# | GKD | λ·JSD on the data + (1 - λ)·JSD on the student's own text | be right on its own paths, too |
#
# Nobody set a temperature below, so each method takes its own: 2 for KD and RevKD, 1 for GKD.

# %%
steps = len(train_dataset) // 8
config = DistillationConfig(
    teacher_model_name=teacher_name,
    student_model_name=student_name,
    kd_loss_weight=0.5,
    lambda_gkd=0.5,
    epochs=1,
    batch_size=8,
    learning_rate=learning_rate,
    warmup_steps=steps // 10,
    logging_steps=5,
    eval_steps=5,
    max_length=MAX_LENGTH,
    max_new_tokens=64,  # of the sequences that GKD's student samples
    output_dir=str(OUTPUT),
)
methods = {
    "KD": KnowledgeDistillation,
    "RevKD": ReverseKnowledgeDistillation,
    "GKD": GeneralizedKnowledgeDistillation,
}
colours = {name: METHODS[name.lower()].light for name in methods}

# %% [markdown]
# ## 7. Train
#
# Three students from the same start, on the same rows in the same order. GKD takes longest: its student
# writes 8 texts in every step. The losses of the three are different things, so the curves show what can be
# compared: two measures on the held-out rows.

# %%
before = KnowledgeDistillation(teacher, untouched, config, tokenizer).evaluate(eval_dataset)
ceiling = compute_perplexity(teacher, eval_dataset, tokenizer)
distilled, seconds = {}, {}
for name, method in methods.items():
    student = AutoModelForCausalLM.from_pretrained(student_folder).to(device)
    distilled[name] = method(teacher, student, config, tokenizer)
    seconds[name] = distilled[name].train(train_dataset, eval_dataset).metrics["train_runtime"]

# %%
figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
for axes, key, title in (
    (panels[0], "perplexity", "Perplexity"),
    (panels[1], "kl_to_teacher", "KL to the teacher (nats per token, log scale)"),
):
    for name, kd in distilled.items():
        seen = [(0, before[key])]
        seen += [(entry["step"], entry[f"eval_{key}"]) for entry in kd.history if f"eval_{key}" in entry]
        axes.plot(*zip(*seen, strict=True), color=colours[name], marker="o", markersize=3.5, label=name)
    axes.set(xlabel="optimizer step (8 rows each)", title=title)
panels[0].axhline(ceiling, color=REFERENCE.light, linestyle="--", label="teacher")
panels[0].legend(frameon=False)
panels[1].set_yscale("log")
panels[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
panels[1].yaxis.set_major_formatter("{x:g}")
panels[1].yaxis.set_minor_formatter(NullFormatter())
figure.suptitle(f"{len(eval_dataset)} held-out rows, while training", x=0.01, ha="left", fontsize="large")
plt.show()

# %% [markdown]
# ## 8. Compare
#
# Perplexity asks how likely the student finds the data; KL, how far it is from the teacher; top-1 agreement,
# how often both would say the same token. The teacher is the mark: a student made of it hardly gets past it.

# %%
scores = {"untouched": before} | {name: kd.evaluate(eval_dataset) for name, kd in distilled.items()}
table = pd.DataFrame(scores).T[["perplexity", "kl_to_teacher", "top1_agreement"]]
table.loc["teacher"] = [ceiling, 0.0, 1.0]
table["seconds"] = pd.Series(seconds)
table.round(3)

# %%
order = ["untouched", *methods]
bars = [BEFORE.light, *colours.values()]
figure, panels = plt.subplots(1, 3, figsize=(8, 2.6), layout="constrained")
for axes, column, title, goal in (
    (panels[0], "perplexity", "Perplexity ↓ (dashed: teacher)", ceiling),
    (panels[1], "kl_to_teacher", "KL to teacher ↓ (nats/token)", None),
    (panels[2], "top1_agreement", "Same top token ↑ (share)", None),
):
    values = table.loc[order, column]
    drawn = axes.barh(order, values, color=bars)
    axes.bar_label(drawn, [f"{value:.3f}" for value in values], padding=3, fontsize="small")
    axes.set_xlim(0, 1.3 * max(values))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(title, fontsize="small")
    if goal is not None:
        axes.axvline(goal, color=REFERENCE.light, linestyle="--", linewidth=1)
    axes.tick_params(labelleft=axes is panels[0])
figure.suptitle("After one epoch, on the held-out rows", x=0.01, ha="left", fontsize="medium")
plt.show()

# %% [markdown]
# And at the place of section 5: what has the student learnt of the teacher's doubts?

# %%
speakers = pair | {name: (kd.student, colours[name]) for name, kd in distilled.items()}
compare_at_place(speakers, "The same place after distillation")

# %% [markdown]
# ## 9. Generate
#
# Greedy answers to held-out prompts, and their ROUGE-L with the reference. A good answer need not be *that*
# answer: the teacher's own row says how much ROUGE-L can be expected.


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


asked = eval_dataset.select(range(8))
answers = {
    name: [generate(model, prompt) for prompt in asked["prompt"]] for name, (model, _) in speakers.items()
}
for number in range(2):
    print(f"PROMPT      {asked['prompt'][number].strip()}")
    print(f"reference   {asked['response'][number]}")
    for name, texts in answers.items():
        print(f"{name.removesuffix(' student'):10}  {texts[number]}")
    print()

rouge = {name: compute_rouge(texts, asked["response"])["rougeL"] for name, texts in answers.items()}
pd.DataFrame({"ROUGE-L (0 to 1), 8 prompts": rouge}).round(3)

# %% [markdown]
# ## 10. Save, load, and go on
#
# A saved student is a plain `transformers` folder with its tokenizer and a model card.

# %%
for name, kd in distilled.items():
    kd.save_student(OUTPUT / "students" / name.lower())
reloaded = AutoModelForCausalLM.from_pretrained(OUTPUT / "students" / "gkd").to(device)
prompt = eval_dataset["prompt"][0]
print(
    "the same text after loading:", generate(reloaded, prompt) == generate(distilled["GKD"].student, prompt)
)

# %% [markdown]
# The same training from the command line, on the same rows: it ends in the same student, with a report, and
# can be swept over methods and seeds (`-m method=kd,revkd,gkd seed=0,1,2`) before anything is concluded from
# one run.

# %%
datasets.DatasetDict({"train": train_dataset, "validation": eval_dataset, "test": eval_dataset}).save_to_disk(
    OUTPUT / "rows"
)
print(fill(distilled["KD"].command(OUTPUT / "rows"), 100, break_long_words=False, break_on_hyphens=False))
