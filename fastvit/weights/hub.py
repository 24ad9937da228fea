"""Download weights from the Hugging Face Hub into its local cache."""

from __future__ import annotations

import sys
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from fastvit.console import print_line
from fastvit.errors import UserError, first_line
from fastvit.weights.zoo import ZOO

FILENAME = "model.safetensors"


def download(repo: str, filename: str = FILENAME) -> Path:
    """Return the path of a file of the Hub in the local cache; download it with a progress bar if it is not cached.

    A cached file needs no connection. The license of Apple's weights is printed when they are downloaded.

    Args:
        repo: repository on the Hub, "owner/name".
        filename: file in the repository.

    Raises:
        UserError: the repository or the file does not exist, or the file is not cached and there is no connection; the
            message describes how to get it without one.
    """
    try:
        cached = try_to_load_from_cache(repo, filename)
        if isinstance(cached, str):
            return Path(cached)
        path = hf_hub_download(repo, filename)
    except HFValidationError as error:
        raise UserError(f"there is no file {repo}, and it is not a Hugging Face Hub id: {first_line(error)}") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the Hugging Face Hub has no repository {repo}, or it is private and you are not logged in"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"cannot download {filename} of {repo} from the Hugging Face Hub ({first_line(error)}). If the cache "
            "cannot be written, set HF_HOME to another folder. Without a connection: download "
            f"{filename} from the repository's page on another machine, copy it to this one and give its path instead "
            "(fastvit.load(path), fastvit.load_weights(model, path))"
        ) from error
    for weights in ZOO.values():
        if weights.repo == repo:
            print_line(
                f"{repo}: these weights are Apple's; their license: {weights.license.name}, {weights.license.url}",
                file=sys.stderr,
            )
    return Path(path)
