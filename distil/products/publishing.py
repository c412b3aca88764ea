"""A folder onto the Hugging Face hub, where it was asked for and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.system.hub import endpoint, offline_asked, token
from distil.system.printable import one_line
from distil.system.redact import redact
from distil.types import DistilError, InputError, RunFailed

STALE = ["*.safetensors", "*.index.json", "adapter_config.json", "distil.json", "config.json", "base/*"]
"""What an earlier export left there, and would be loaded in the place of this one, or beside it."""


@dataclass(frozen=True)
class Target:
    """Where a folder goes to."""

    name: str
    """``owner/name``."""
    public: bool
    exists: bool
    """The repository is there already: the folder becomes its next commit."""

    @property
    def url(self) -> str:
        """Its page."""
        return f"{endpoint()}/{self.name}"


def find_target(name: str, *, public: bool) -> Target:
    """Ask the hub whether a folder could be pushed to ``name``; nothing is written anywhere.

    Raises InputError without a token, with one that the hub refuses, for a name that cannot be or is
    somebody else's, for a repository that is public already where nobody asked for that, and where the hub
    does not answer.
    """
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # theirs, documented

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"--push {name}: {error} Give OWNER/NAME, or NAME for your own account.") from error
    if variable := offline_asked():
        raise InputError(f"--push {name}: {variable} asks to stay off the network. Unset it to push.")
    if token() is None:
        raise InputError(
            f"--push {name}: there is no token for {endpoint()}. Make one with write access at "
            f"{endpoint()}/settings/tokens, then run `hf auth login`, or set HF_TOKEN. Nothing was written; "
            "without --push the folder is written all the same."
        )
    api = _api()
    with _explained(f"--push {name}", InputError):
        me: Any = api.whoami()
    whole = name if "/" in name else f"{me['name']}/{name}"
    with _explained(f"--push {name}", InputError):
        try:
            info: Any = api.model_info(whole)
        except RepositoryNotFoundError:
            return Target(whole, public, exists=False)
    mine = [str(owner["name"]) for owner in (me, *me.get("orgs", ()))]
    if whole.partition("/")[0] not in mine:
        raise InputError(
            f"--push {name}: {endpoint()}/{whole} is there already, and not yours: the token speaks for "
            f"{', '.join(mine)}. Give another name."
        )
    if not info.private and not public:
        raise InputError(
            f"--push {name}: {endpoint()}/{whole} is there, and public. Add --public, or give another name."
        )
    return Target(whole, not info.private, exists=True)


def push(folder: Path, target: Target) -> str:
    """Upload ``folder`` as one commit, into a repository that is made where it is missing. Returns its page.

    Raises RunFailed, saying how to try again, where the hub or the network fails.
    """
    api = _api()
    with _explained(
        f"--push {target.name}", RunFailed, f" The folder is whole: hf upload {target.name} {folder}"
    ):
        if not target.exists:
            api.create_repo(target.name, private=not target.public, repo_type="model", exist_ok=True)
        api.upload_folder(
            repo_id=target.name,
            folder_path=folder,
            repo_type="model",
            commit_message="Upload a distilled model",
            delete_patterns=STALE,
        )
    return target.url


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint(), token=token(), library_name="distil-runner")


@contextmanager
def _explained(what: str, kind: type[DistilError], way: str = "") -> Iterator[None]:
    """Errors of the hub, and of the way there, as ours: one line, without secrets."""
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        yield
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        said = one_line(redact(error.server_message or str(error)))
        if status == 401:
            raise InputError(
                f"{what}: {endpoint()} refuses the token ({said}). Make another with write access at "
                f"{endpoint()}/settings/tokens and run `hf auth login`.{way}"
            ) from error
        if status == 403:
            raise InputError(
                f"{what}: the token may not do this ({said}). It needs write access, and OWNER must be you "
                f"or an organisation of yours.{way}"
            ) from error
        raise kind(f"{what}: {endpoint()} answers {status}: {said}.{way}") from error
    except Exception as error:
        # The hub's library has changed its client once (httpx, httpx2): told by where they are from.
        if not isinstance(error, (OSError, ValueError)) and not type(error).__module__.startswith("httpx"):
            raise
        said = one_line(redact(str(error)))
        raise kind(
            f"{what}: {endpoint()} cannot be reached ({type(error).__name__}: {said}).{way}"
        ) from error
