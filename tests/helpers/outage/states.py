"""What a crash may leave of recorded steps, on a disk that promises no more than POSIX does.

On disk is what was synced. Of a file's bytes since then, any blocks of 512 bytes may be there, the others being as they
were, or zero behind the old end; so may be its size alone. Of a folder's names since then, any changes may be there, in
any order, but one rename or exchange is there as a whole or not. A folder's sync puts its names on disk, and neither
the bytes of what they name nor its own name.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from outage.recording import ROOT, Data, Journal, Names, Size, Step, Sync

BLOCK = 512


class State(NamedTuple):
    """Files by their path, None for folders; ended: whether the function had come back before the crash."""

    entries: dict[str, bytes | None]
    ended: bool
    step: int

    def put(self, folder: Path) -> None:
        """Make it, in a new folder."""
        folder.mkdir()
        for path, content in self.entries.items():
            if content is None:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(content)


class _Disk:
    """What is on disk at a moment, and what may be."""

    def __init__(self, journal: Journal) -> None:
        self.folders = {node: dict(names) for node, names in journal.folders.items()}
        self.files = dict(journal.files)
        self.names: dict[int, list[dict[str, int | None]]] = {}  # by folder, changes that are not synced
        self.bytes: dict[int, list[bytes]] = {}  # by file, what it was after each change that is not synced
        self.choices: dict[int, list[bytes]] = {}

    def take(self, step: Step) -> None:
        if isinstance(step, Names):
            ((folder, _), *_) = step.changes
            self.names.setdefault(folder, []).append({name: node for (_, name), node in step.changes.items()})
        elif isinstance(step, Sync):
            nodes = [*self.names, *self.bytes] if step.node is None else [step.node]
            for node in nodes:
                for change in self.names.pop(node, ()):
                    _apply(self.folders[node], change)
                if node in self.bytes:
                    self.files[node] = self.bytes.pop(node)[-1]
                    self.choices.pop(node, None)
        else:
            now = self.bytes.setdefault(step.file, [])
            old = now[-1] if now else self.files.get(step.file, b"")
            now.append(_changed(old, step))
            self.choices.pop(step.file, None)

    def tree(self, marks: dict[int, Sequence[bool]]) -> dict[str, int]:
        """Paths and what they are, where of a folder's changes those are there that are so marked."""
        found: dict[str, int] = {}

        def walk(node: int, path: str) -> None:
            names = dict(self.folders[node])
            for change, there in zip(self.names.get(node, ()), marks.get(node, ()), strict=True):
                if there:
                    _apply(names, change)
            for name, inner in sorted(names.items()):
                found[f"{path}{name}"] = inner
                if inner in self.folders:
                    walk(inner, f"{path}{name}/")

        walk(ROOT, "")
        return found

    def contents(self, node: int, seed: int, torn: int) -> list[bytes]:
        """What a file may hold: as synced, as written, cut, filled with zeros, and `torn` mixtures of blocks."""
        if node not in self.choices:
            self.choices[node] = list(dict.fromkeys(self._contents(node, random.Random(f"{seed} {node}"), torn)))
        return self.choices[node]

    def _contents(self, node: int, chance: random.Random, torn: int) -> Iterator[bytes]:
        old = self.files.get(node, b"")
        yield old
        later = self.bytes.get(node)
        if not later:
            return
        yield later[-1]
        bases = [old, *(each for each in later if len(each) < len(old))]  # what was cut off may be zeros
        for base in bases:
            yield _mixed(base, later[-1], ())
        yield from later[:-1][:: max(1, len(later) // 8)]
        for turn in range(torn):
            new = later[-1] if turn % 2 == 0 else chance.choice(later)
            blocks = range(-(-len(new) // BLOCK))
            share = chance.choice((0.05, 0.5, 0.95))
            kept = range(chance.randrange(len(blocks) + 1)) if turn % 3 == 0 else blocks
            yield _mixed(
                chance.choice(bases), new, [block for block in kept if turn % 3 == 0 or chance.random() < share]
            )


def _apply(names: dict[str, int], change: dict[str, int | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _changed(old: bytes, step: Data | Size) -> bytes:
    if isinstance(step, Size):
        return old[: step.size].ljust(step.size, b"\0")
    end = step.offset + len(step.content)
    return old[: step.offset].ljust(step.offset, b"\0") + step.content + old[end:]


def _mixed(old: bytes, new: bytes, blocks: Sequence[int]) -> bytes:
    """The size of `new`, of its bytes these blocks, and otherwise those of `old`."""
    mixed = bytearray(old[: len(new)].ljust(len(new), b"\0"))
    for block in blocks:
        mixed[block * BLOCK : (block + 1) * BLOCK] = new[block * BLOCK : (block + 1) * BLOCK]
    return bytes(mixed)


def crashes(journal: Journal, most: int, seed: int = 0, torn: int = 3) -> Iterator[State]:
    """Different states that crashes between the steps may leave, up to about `most`: all, or a sample by `seed`.

    torn: how many mixtures of old and new blocks are tried of a file at a moment.
    """
    disk, chance = _Disk(journal), random.Random(seed)
    seen: set[bytes] = set()
    moments = [None, *journal.steps]
    for number, step in enumerate(moments):
        if step is not None:
            disk.take(step)
        share = (most - len(seen)) // (len(moments) - number)
        last = number == len(moments) - 1
        if share < 4 and not last and chance.random() * 4 > share:
            continue
        share = max(4, share)
        for entries in itertools.islice(_moment(disk, chance, seed, torn, share), 4 * share):
            key = _key(entries, last)
            if key not in seen:
                seen.add(key)
                yield State(entries, last, number)
                share -= 1
                if share == 0:
                    break


def _moment(disk: _Disk, chance: random.Random, seed: int, torn: int, share: int) -> Iterator[dict[str, bytes | None]]:
    """States of one moment: all where they are few; else those at the corners, and then at random."""
    changes = [(folder, len(made)) for folder, made in disk.names.items()]
    count = sum(made for _, made in changes)
    few = 2**count <= 2 * share
    if few:
        marks: Iterator[Sequence[bool]] = iter(itertools.product((True, False), repeat=count))
    else:
        marks = itertools.chain(_corners(count, chance), _random_marks(count, chance))
    for mark in marks:
        places = iter(mark)
        tree = disk.tree({folder: [next(places) for _ in range(made)] for folder, made in changes})
        nodes = {path: node for path, node in tree.items() if node not in disk.folders}
        held = sorted(set(nodes.values()))
        options = [disk.contents(node, seed, torn) for node in held]
        combinations = 1
        for each in options:
            combinations *= len(each)
        if few and combinations <= share:
            picks: Iterator[Sequence[bytes]] = iter(itertools.product(*options))
        else:
            picks = _some_of(options, chance)
        for pick in picks:
            known = dict(zip(held, pick, strict=True))
            yield {path: known[node] if path in nodes else None for path, node in tree.items()}


def _some_of(options: list[list[bytes]], chance: random.Random) -> Iterator[list[bytes]]:
    """All as written, all as synced, one otherwise than written, and any."""
    written = [each[min(1, len(each) - 1)] for each in options]
    yield written
    yield [each[0] for each in options]
    open_ones = [place for place, each in enumerate(options) if len(each) > 1]
    for place in chance.sample(open_ones, min(6, len(open_ones))):
        yield [*written[:place], chance.choice(options[place]), *written[place + 1 :]]
    for _ in range(3):
        yield [chance.choice(each) for each in options]


def _corners(count: int, chance: random.Random) -> Iterator[Sequence[bool]]:
    """All changes and none; all but one, one alone, and the first and the last of them, in any order."""
    yield [True] * count
    yield [False] * count
    kept = (
        lambda other, place: other != place,
        lambda other, place: other == place,
        lambda other, place: other <= place,
        lambda other, place: other >= place,
    )
    corners = [[keep(other, place) for other in range(count)] for keep in kept for place in range(count)]
    yield from chance.sample(corners, len(corners))


def _random_marks(count: int, chance: random.Random) -> Iterator[list[bool]]:
    while True:
        share = chance.choice((0.1, 0.5, 0.9))
        yield [chance.random() < share for _ in range(count)]


def _key(entries: dict[str, bytes | None], last: bool) -> bytes:
    digest = hashlib.blake2b(b"last" if last else b"")
    for path, content in sorted(entries.items()):
        digest.update(os.fsencode(path) + (b"\0/" if content is None else b"\0." + hashlib.blake2b(content).digest()))
    return digest.digest()
