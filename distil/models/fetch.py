"""A hub model's files come all, or none of them is used.

transformers asks for file after file, and where the network is cut it goes on without those that some models
do not have: generation_config.json, a chat template. Nobody would miss them, then or later.
"""

from __future__ import annotations

from distil.hub import endpoint, offline_asked
from distil.models.check import ask_hub, is_cached
from distil.models.sources import Source

TEXTS = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
"""What configs and tokenizers are in."""
TENSORS = "model*.safetensors"


def fetch(source: Source, allow_network: bool, *, weights: bool) -> None:
    """Bring what loading ``source`` reads into the hub's cache, unless it is there or is not of the hub.

    ``weights``: those of the model too. Raises what ``huggingface_hub`` does, and InputError where no hub
    answers. A cache that is not whole is left to the loader where nobody may be asked.
    """
    if source.folder is not None or source.gguf_file is not None:
        return
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = [*TEXTS, *([TENSORS] if weights else []), *(["*.py"] if source.trust_remote_code else [])]
    if is_cached(source, weights):
        try:
            snapshot_download(
                source.name, revision=source.revision, allow_patterns=patterns, local_files_only=True
            )
            return
        except LocalEntryNotFoundError:  # a download that was cut
            pass
    if allow_network and offline_asked() is None:
        ask_hub(source, allow_network)  # seconds, where its library tries for most of a minute
        snapshot_download(source.name, revision=source.revision, allow_patterns=patterns)


def lost(error: BaseException) -> bool:
    """Whether ``error`` came of a hub that answered no more."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError"}:
        return True
    before = error.__cause__ or error.__context__
    return before is not None and lost(before)


def told(source: Source, text: str) -> str:
    """The message about a hub that was lost while it gave ``source``."""
    return (
        f"{source.label}: the hub at {endpoint()} was lost while its files came ({text}). What has come is "
        "kept: once the hub answers, the same command goes on."
    )
