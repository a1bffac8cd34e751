"""Upload of an exported folder to the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from mudit.errors import EnvironmentFailure, UsageError
from mudit.export.extras import huggingface_hub

_MASK = "***"


def check_repository(name: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        EnvironmentFailure: huggingface_hub is not installed.
        UsageError: The name is not `user/name`.
    """
    library = huggingface_hub()
    try:
        library.utils.validate_repo_id(name)
        valid = name.count("/") == 1
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"--push_to_hub is {name!r}, expected USER/NAME: letters, digits, '-', '_' and '.'."
        )


def push_folder(folder: Path, name: str, *, public: bool = False) -> str:
    """Upload a folder to a repository of models, which is made if absent.

    The token is that of the environment (HF_TOKEN) or of `hf auth login`.

    Args:
        folder: An export.
        name: `user/name`.
        public: Whether a new repository can be seen by all; an old one stays as it is.

    Returns:
        The repository's address.

    Raises:
        EnvironmentFailure: The hub cannot be reached or refuses; the folder stays whole.
        UsageError: `name` is no name.
    """
    library = huggingface_hub()
    check_repository(name)
    # Read here, as huggingface_hub reads it once, when it is imported.
    hub = library.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        address = hub.create_repo(name, private=not public, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message="mudit export")
    # What it raises is of its HTTP library, of its own or of the system, by its version; whatever
    # it is, the upload has failed and the folder has not.
    except Exception as error:
        raise EnvironmentFailure(
            f"{folder} is complete, but could not be pushed to {name}: {_reason(error)} With a "
            f"token that may write (HF_TOKEN, or `hf auth login`), push it later with `hf upload "
            f"{name} {folder}`."
        ) from None
    return str(address)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    token = huggingface_hub().get_token()
    return (text.replace(token, _MASK) if token else text)[:300].rstrip(".") + "."
