"""The Hugging Face Hub: fetching released weights into its cache."""

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
    """Path of a Hub file in the local cache, fetched with a progress bar if it is not there yet.

    A warm cache works offline. The license of Apple's weights is shown when they are fetched, not from then on.

    Raises:
        UserError: there is no such repository or file, or no connection and nothing in the cache; the message says
            which file to put where.
    """
    try:
        cached = try_to_load_from_cache(repo, filename)
        if isinstance(cached, str):
            return Path(cached)
        path = hf_hub_download(repo, filename)
    except HFValidationError as error:
        raise UserError(f"there is no file {repo}, and it is no Hub id: {first_line(error)}") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the Hugging Face Hub has no repository {repo}, or it is private and you are not logged in"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(
            f"cannot fetch {filename} of {repo} from the Hugging Face Hub ({first_line(error)}). If the "
            "client's cache cannot be written, set HF_HOME to another folder. Without a connection: download "
            f"{filename} from the repository's page on another machine, copy it here and give its path instead "
            "(fastvit.load(path), fastvit.load_weights(model, path))"
        ) from error
    for weights in ZOO.values():
        if weights.repo == repo:
            print_line(
                f"{repo}: these weights are Apple's, not ours: {weights.license.name}, {weights.license.url}",
                file=sys.stderr,
            )
    return Path(path)
