"""A hub model's files come all, or none of them is used.

transformers asks for file after file, and where the network is cut it goes on without those that some models
do not have: generation_config.json, a chat template. Nobody would miss them, then or later.
"""

from __future__ import annotations

from collections.abc import Iterator

from distil.models.check import ask_hub, is_cached
from distil.models.sources import Source
from distil.system.hub import ask, endpoint, offline_asked

TEXTS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
"""What configs and tokenizers are in."""
READ = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
)
"""What loading reads of them where there is a tokenizer.json; without it, a vocabulary may be in any."""
WHOLE = "model.safetensors"
TENSORS = (WHOLE, "model.safetensors.index.json", "model-*-of-*.safetensors", "model.safetensors-*-of-*")
FOLDERS = "*/*"
"""Of other formats and earlier checkpoints: never read. Patterns' stars take slashes too."""
CUT = frozenset({"ConnectionError", "TimeoutError", "TransportError"})
"""Errors of a connection, of whichever library."""


def fetch(source: Source, allow_network: bool, *, weights: bool) -> None:
    """Bring what loading ``source`` reads into the hub's cache, unless it is there or is not of the hub.

    ``weights``: those of the model too. Raises what ``huggingface_hub`` does, and InputError where no hub
    answers. Left to the loader, which asks for file after file: a cache that is not whole where nobody may
    be asked, and a hub (a mirror, a proxy) that gives files and does not list them.
    """
    if source.folder is not None or source.gguf_file is not None:
        return
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if is_cached(source, weights):
        try:
            snapshot_download(
                source.name,
                revision=source.revision,
                allow_patterns=_read(source, weights),
                ignore_patterns=FOLDERS,
                local_files_only=True,
            )
            return
        except LocalEntryNotFoundError:  # a download that was cut
            pass
    if not allow_network or offline_asked() is not None:
        return
    ask.cache_clear()  # it may have answered long ago
    answer = ask_hub(source, allow_network)  # seconds, where its library tries for most of a minute
    patterns = [*TEXTS, *(TENSORS if weights else ()), *(["*.py"] if source.trust_remote_code else [])]
    try:
        snapshot_download(
            source.name, revision=source.revision, allow_patterns=patterns, ignore_patterns=FOLDERS
        )
    except Exception as error:
        if answer >= 400 or _of(error, CUT) or _listed(source):
            raise


def _read(source: Source, weights: bool) -> list[str]:
    """Patterns of the files without which a cache is not whole. Not code: without it no loader goes on."""
    texts = TEXTS if source.file("tokenizer.json") is None else READ
    tensors = (WHOLE,) if source.file(WHOLE) is not None else TENSORS
    return [*texts, *(tensors if weights else ())]


def _listed(source: Source) -> bool:
    """Whether the hub has said which files there are of ``source``."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        get_cached_repo_tree(source.name, revision=source.revision)
    except CachedRepoTreeNotFoundError:
        return False
    return True


def lost(error: BaseException) -> bool:
    """Whether ``error`` came of a hub that answered no more, or was not asked. Who says no has answered."""
    answered = any(getattr(each, "response", None) is not None for each in _chain(error))
    return _of(error, CUT | {"LocalEntryNotFoundError"}) and not answered


def _of(error: BaseException, names: frozenset[str]) -> bool:
    """Whether ``error``, or what it came of, is of a class of one of these names."""
    return any(names & {kind.__name__ for kind in type(each).__mro__} for each in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def told(source: Source, text: str) -> str:
    """The message about a hub that was lost while it gave ``source``."""
    return (
        f"{source.label}: the hub at {endpoint()} was lost while its files came ({text}). What has come is "
        "kept: once the hub answers, the same command goes on."
    )
