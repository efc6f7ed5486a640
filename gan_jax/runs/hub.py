"""Upload of an exported model to the Hugging Face Hub, with the login of the user. Not tried against the real hub."""

import pathlib
from typing import Any

from gan_jax.runs.exported import Exported
from gan_jax.types import InvalidInputError


def _hub() -> Any:
    try:
        import huggingface_hub  # noqa: PLC0415 - an extra
        import huggingface_hub.utils  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInputError(
            "push_to: the package huggingface_hub is missing: pip install 'gan_jax[hub]'"
        ) from error
    return huggingface_hub


def check_login(repository: str) -> None:
    """Checks that the user is logged in, and that the name is one of a repository.

    Args:
      repository: name of the repository, `NAME/MODEL`.

    Raises:
      InvalidInputError: if not, or if the hub cannot be reached.
    """
    hub = _hub()
    try:
        hub.HfApi().whoami()
    except Exception as error:  # of huggingface_hub, its HTTP client, and sockets
        raise InvalidInputError(
            f"push_to={repository}: the hub takes no upload ({type(error).__name__}: {_first(error)}): expected "
            "NAME/MODEL, and a login, as `hf auth login` makes it"
        ) from error


def push(folder: pathlib.Path, repository: str, *, public: bool = False) -> str:
    """Uploads the files of an exported model, and nothing else that is in its folder.

    Args:
      folder: folder of the model.
      repository: name of the repository, `NAME/MODEL`; created if it does not exist.
      public: whether a new repository is public.

    Returns:
      The URL of the upload.

    Raises:
      InvalidInputError: if the hub refuses; the folder stays as it is.
    """
    api, files = _hub().HfApi(), [*Exported(folder).record["files"], "config.json", "README.md"]
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files))
    except Exception as error:  # likewise
        raise InvalidInputError(
            f"push_to={repository}: the upload has failed ({type(error).__name__}: {_first(error)}); {folder} is "
            "complete, and `hf upload` takes it"
        ) from error


def _first(error: Exception) -> str:
    return next(filter(None, str(error).splitlines()), "")
