"""The code of a card: Python that loads the folder with transformers and PEFT alone, and lets it answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from distil.data.columns import Kind, prompt_of, template_fields
from distil.data.encode import closed
from distil.data.prompting import ending_of
from distil.data.turns import as_turns, system_of
from distil.models.quantize import resolved
from distil.products.loading import load_tokenizer

if TYPE_CHECKING:
    from distil.cards.subject import Subject
    from distil.products.finished_run import FinishedRun

OWN = "Once upon a time"
"""A prompt where none of the run's may be shown."""
BASE = "base"
"""Folder of the model under an adapter, where that is not a model that others have."""


def usage_of(subject: Subject, architecture: str | None, name: str, samples: int) -> str:
    """Python that loads the folder and answers the run's first sample, with nothing of ours.

    Args:
        subject: the student.
        architecture: the class of the model under the adapter where that is in the folder, else None.
        name: the folder, or its name on the hub.
        samples: how many of the run's prompts may be shown; with none the prompt is ours.
    """
    run = subject.run
    auto = "AutoModelForCausalLM"
    if subject.kind == "adapter":
        base, more = _base_line(subject, architecture)
        names = sorted(filter(None, (architecture or auto, "AutoTokenizer", more)))
        imports = ["from peft import PeftModel", f"from transformers import {', '.join(names)}"]
        loads = [base, "model = PeftModel.from_pretrained(base, name)"]
    else:
        imports = [f"from transformers import {auto}, AutoTokenizer"]
        loads = [f"model = {auto}.from_pretrained(name)"]
    ask, given = _asking(run, samples)
    limit = run.config.eval.max_new_tokens
    return "\n".join([
        *imports, "",
        f"name = {json.dumps(name)}  # the way to this folder, or its name on the hub",
        "tokenizer = AutoTokenizer.from_pretrained(name)",
        *loads, "",
        *given,
        f"inputs = {ask}",
        f"written = model.generate(**inputs, max_new_tokens={limit}, do_sample=False)",
        'print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ])  # fmt: skip


def _base_line(subject: Subject, architecture: str | None) -> tuple[str, str]:
    """The line that loads the base, and what it needs of transformers beside the model's class."""
    if architecture is not None:
        return f'base = {architecture}.from_pretrained(name, subfolder="{BASE}")', ""
    student, quantization = subject.config.model.student, subject.run.quantization
    given = {"revision": student.revision} if student.revision else {}
    given |= {"dtype": student.dtype} if student.dtype != "auto" else {}
    more = [f"{key}={json.dumps(value)}" for key, value in given.items()]
    needs = ""
    if quantization is not None:
        needs = "BitsAndBytesConfig"
        keys = resolved(quantization, student.dtype).items()
        told = ", ".join(f"{key}={json.dumps(v) if isinstance(v, str) else v}" for key, v in keys)
        more.append(f"quantization_config={needs}(\n        {told}\n    )")
    words = "".join(f"\n    {each}," for each in [json.dumps(subject.start.hub), *more])
    return f"base = AutoModelForCausalLM.from_pretrained({words}\n)", needs


def _asking(run: FinishedRun, shown: int) -> tuple[str, list[str]]:
    """How a prompt becomes ids as in training: (expression, lines before it)."""
    tokenizer: Any = load_tokenizer(run)
    kind = run.shape.kind
    prompt = next(iter(run.prompts[:shown]), None)
    off = getattr(run.config.data, "chat_template", None) is False or kind in (Kind.TEXT, Kind.TOKENS)
    chat = bool(tokenizer.chat_template) and not off
    text = prompt or _own_prompt(run, chat)
    asked = json.dumps(text, ensure_ascii=False)
    if chat:
        turns = as_turns(text) if kind is Kind.MESSAGES else [{"role": "user", "content": text}]
        told = [json.dumps(turn, ensure_ascii=False) for turn in turns]
        lines = [f"messages = [{told[0]}]"]
        if len(told) > 1:
            lines = ["messages = [", *(f"    {turn}," for turn in told), "]"]
        elif prompt is None and kind is Kind.MESSAGES and system_of(run.prompts):
            lines = ["# The rows of the training begin with a system message: put yours first.", *lines]
        options = 'add_generation_prompt=True, return_dict=True, return_tensors="pt"'
        return f"tokenizer.apply_chat_template(\n    messages, {options}\n)", lines
    # Training puts a BOS where the tokenizer does, and nothing else around a prompt.
    bare = tokenizer(OWN, add_special_tokens=False).input_ids
    usual = tokenizer(OWN).input_ids
    begun = [tokenizer.bos_token_id, *bare]
    more = "" if usual in (bare, begun) else ", add_special_tokens=False"
    return f'tokenizer(prompt, return_tensors="pt"{more})', [f"prompt = {asked}"]


def _own_prompt(run: FinishedRun, chat: bool) -> str:
    """A prompt that is no row's, in the form of those that the run was trained on."""
    shape = run.shape
    if shape.kind is not Kind.PAIR:
        return OWN
    columns = template_fields(shape.template) or [name for name in (shape.prompt, shape.context) if name]
    written = prompt_of(dict.fromkeys(columns, OWN), shape, chat, where="the card")
    return closed(written, ending_of(run.prompts)) if shape.as_it_is and not chat else written
