"""onnxruntime-web, the runtime in the browser: fetched from the npm registry once, checked, and kept for every site.

Its WebAssembly is 41 MB, which neither the repository nor the wheel should carry.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

from counterpoise.errors import RuntimeMissingError

VERSION = "1.30.0"
_INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # SHA-512
_ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"

EVERYWHERE = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
"""What every browser needs: it computes on the CPU."""
FOR_GPUS = ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""What a browser needs on top where it is told to compute on the GPU."""


def files() -> Mapping[str, Path]:
    """The files of the runtime by name, from the user's cache, fetched where it has none.

    Raises RuntimeMissingError where the registry cannot be reached or gives something else than was published.
    """
    folder = _cache() / f"onnxruntime-web-{VERSION}"
    found = {name: folder / name for name in (*EVERYWHERE, *FOR_GPUS)}
    if not all(file.is_file() for file in found.values()):
        from counterpoise.system.files import held  # brings torch

        folder.mkdir(parents=True, exist_ok=True)
        with held(folder / ".lock", raises=RuntimeMissingError):  # two processes that find nothing fetch it once
            if not all(file.is_file() for file in found.values()):
                _unpack(_fetch(), found)
    return found


def _cache() -> Path:
    """The folder for what can be fetched again, as the XDG base directory specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "counterpoise"


def _fetch() -> bytes:
    """The package: what lies in the cache under its own name, or else from the registry that npm is set to."""
    given = _cache() / _ARCHIVE
    registry = os.environ.get("NPM_CONFIG_REGISTRY") or "https://registry.npmjs.org"
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/{_ARCHIVE}"
    by_hand = f"Without a network, put {address} at {given}."
    if given.is_file():
        content, origin = given.read_bytes(), str(given)
    else:
        origin = address
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                content = answer.read()
        except (
            OSError,
            ValueError,
        ) as error:  # urllib's errors are OSErrors; an address without a scheme is a ValueError
            why = error.reason if isinstance(error, urllib.error.URLError) else error
            raise RuntimeMissingError(
                f"The page needs onnxruntime-web {VERSION} (33 MB), fetched once from the npm registry, and {address} "
                f"cannot be reached: {why}. {by_hand}"
            ) from None
    if hashlib.sha512(content).digest() != b64decode(_INTEGRITY):
        raise RuntimeMissingError(
            f"{origin} is not the onnxruntime-web {VERSION} that was published: its SHA-512 differs. {by_hand}"
        )
    return content


def _unpack(archive: bytes, files: Mapping[str, Path]) -> None:
    from counterpoise.system.files import replacing  # brings torch

    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        for name, file in files.items():
            member = package.extractfile(f"package/dist/{name}")
            assert member is not None  # the archive is, to the byte, the one that was looked at
            with replacing(file) as temporary:
                temporary.write_bytes(member.read())
