"""Published weights: from the caches of this machine, else from the net; the error says which file to bring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from counterpoise.errors import ModelError


def from_hub(repository: str, filenames: Sequence[str], revision: str | None, what: str) -> Path:
    """A file of a Hugging Face repository.

    Args:
        repository: owner/name.
        filenames: the first one that exists is taken.
        revision: branch, tag or commit; None is main.
        what: whose weights they are, for the error.

    Raises:
        ModelError: it is not in the hub's cache, and cannot be fetched.
    """
    from huggingface_hub import constants, file_exists, hf_hub_download, try_to_load_from_cache

    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    reason = "the repository has no such file"
    try:
        for filename in filenames:
            if file_exists(
                repository, filename, revision=revision
            ):  # fails at once offline; downloading tries for long
                return Path(hf_hub_download(repository, filename, revision=revision))
    except Exception as error:  # kinds differ between versions of the hub's client
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
    cache = Path(constants.HF_HUB_CACHE, f"models--{repository.replace('/', '--')}")
    raise ModelError(
        f"The published weights of {what} are not on this machine and cannot be fetched ({reason}).\n"
        f"  Bring the file {filenames[0]} of https://huggingface.co/{repository}"
        f" and give it as `checkpoint:` in place of `pretrained:`,\n"
        f"  or bring the hub's folder {cache}, where it is looked for (HF_HOME names another cache)."
    )


def from_url(url: str, filename: str | None, what: str) -> Path:
    """A file of torch.hub's cache, or of its address. Raises ModelError where it is not there and cannot be fetched."""
    filename = filename or url.rpartition("/")[2]
    path = Path(torch.hub.get_dir(), "checkpoints", filename)
    if path.is_file():
        return path
    checksum = torch.hub.HASH_REGEX.search(filename)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), checksum.group(1) if checksum else None)
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"The published weights of {what} are not on this machine and cannot be fetched ({error}).\n"
            f"  Bring the file {url}\n"
            f"  and put it at {path}, where it is looked for (TORCH_HOME names another cache),\n"
            f"  or give it as `checkpoint:` in place of `pretrained:`."
        ) from None
    return path
