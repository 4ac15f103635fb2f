"""onnxruntime-web from the registry: once, checked, and a clear word where it cannot be had."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from counterpoise.deploy.site import runtime
from counterpoise.errors import RuntimeMissingError
from counterpoise.system.server import Answer, Server

ARCHIVE = f"onnxruntime-web-{runtime.VERSION}.tgz"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "counterpoise"


def package() -> bytes:
    """An archive of the same form, with files of a few bytes."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name in (*runtime.EVERYWHERE, *runtime.FOR_GPUS, "ort.min.js"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return file.getvalue()


def test_it_is_fetched_once_and_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = package()
    monkeypatch.setattr(runtime, "_INTEGRITY", b64encode(hashlib.sha512(content).digest()).decode())
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        return Answer(content, "application/octet-stream")

    with Server(answer) as registry:
        registry.start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry.address)
        for _ in range(2):
            found = runtime.files()
            assert {name: path.read_text() for name, path in found.items()} == {name: name for name in found}
        registry.shutdown()
    assert asked == [f"onnxruntime-web/-/{ARCHIVE}"]
    assert set(found) == {*runtime.EVERYWHERE, *runtime.FOR_GPUS}


def test_two_processes_fetch_it_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = package()
    monkeypatch.setattr(runtime, "_INTEGRITY", b64encode(hashlib.sha512(content).digest()).decode())
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        time.sleep(0.2)
        return Answer(content, "application/octet-stream")

    with Server(answer) as registry, ThreadPoolExecutor(4) as pool:
        registry.start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry.address)
        found = [future.result() for future in [pool.submit(runtime.files) for _ in range(4)]]
        registry.shutdown()
    assert len(asked) == 1
    assert all(path.is_file() for files in found for path in files.values())


def test_anything_else_than_what_was_published_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(lambda path: Answer(package(), "application/octet-stream")) as registry:
        registry.start()
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry.address)
        with pytest.raises(RuntimeMissingError, match="SHA-512 differs"):
            runtime.files()
        registry.shutdown()
    assert not any(cache.rglob("*.wasm"))


def test_without_a_network_it_says_what_to_put_where(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(RuntimeMissingError) as refused:
        runtime.files()
    said = str(refused.value)
    assert "cannot be reached" in said
    assert f"put http://127.0.0.1:9/onnxruntime-web/-/{ARCHIVE} at {cache / ARCHIVE}" in said


def test_an_archive_put_there_by_hand_is_taken(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = package()
    monkeypatch.setattr(runtime, "_INTEGRITY", b64encode(hashlib.sha512(content).digest()).decode())
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    cache.mkdir()
    (cache / ARCHIVE).write_bytes(content)
    assert all(path.is_file() for path in runtime.files().values())


def test_what_was_published_is_what_is_pinned() -> None:
    """The real files: fetched where the cache has none. A site is made of these."""
    sizes = {name: path.stat().st_size for name, path in runtime.files().items()}
    assert sizes == {
        "ort.wasm.bundle.min.mjs": 73_054,
        "ort-wasm-simd-threaded.wasm": 14_239_897,
        "ort.webgpu.bundle.min.mjs": 117_732,
        "ort-wasm-simd-threaded.asyncify.wasm": 26_781_914,
    }
