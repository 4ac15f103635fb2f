"""What a store is on disk: `index.json` and chunks of plain records; `Header` says what was recorded and how it lies.

A layout of our own and not zarr 3, which needs 14 ms to pick 64 random rows from uncompressed chunks and does not map
them: `np.fromfile(chunk, dtype)` reads these, and 64 rows take 0.03 ms mapped, 0.07 ms by positional reads.

A store is a folder:

    index.json                  the header, the records' dtype, and the SHA-256 of each chunk; written last
    chunks/SSSSSS-PPPPPP.bin    records of view slot S: samples P * rows_per_chunk and on, one record a sample
    recording.json              the header of a recording that is not finished
    chunks/SSSSSS-PPPPPP.sha256 the checksum of each chunk of such a recording

A chunk holds one slot only, so that more epochs are more files, and dropping a slot is dropping its files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from counterpoise.data.walking import of_earlier
from counterpoise.errors import CounterpoiseError, StoreError, damage
from counterpoise.system.documents import parse_json, read_text, why_unread
from counterpoise.teachers import identity
from counterpoise.teachers.store.codecs import FORMAT, Codec, find

INDEX, RECORDING, CHUNKS = "index.json", "recording.json", "chunks"
SAMPLE = "data_sample"
"""The note that says what some files of the data set held: see `data.contents`. Earlier versions kept none."""
CHUNK_BYTES = 32 * 2**20
"""About how large a chunk is, unless said otherwise: what is lost at most where a recording is killed."""

INDEX_BYTES = 2**27
CHUNKS_AT_MOST, SLOTS = 1_000_000, 1_000_000
RECORD_BYTES = 2**31
"""What an index may ask for at most; chunks of the usual size are then 32 TB."""

Kind = Literal["complete", "epochs", "plain"]


class Chunk(NamedTuple):
    """The records of samples start, ..., stop - 1 in view slot `slot`; `part` numbers the chunks of a slot."""

    slot: int
    part: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Its file within `chunks/`."""
        return f"{self.slot:06d}-{self.part:06d}.bin"


@dataclass(frozen=True)
class Header:
    """What was recorded, and how it lies on disk.

    Attributes:
        data: fingerprint of the data set; what some of its files held stands among the notes.
        teacher: hash of the teacher's weights; the rest of who it is stands among the notes.
        kind: `complete`: slot v is view number v of countable views; `epochs`: slot v is the view of epoch v; `plain`:
            slot 0 is the image without augmentation.
        views: the view specification, as JSON holds it. Its entry `seed` counts for `epochs` alone.
        count: samples.
        slots: the view slots that are recorded, ascending.
        shape: of a sample's logits: [C], or [C, h, w] for dense ones.
        precision: float32, float16, int8, int4, or topK for the K largest logits.
        rows_per_chunk: records in a chunk; the last of a slot may hold fewer.
        classes: names of the C classes where they are known.
        notes: words on the recording, which fit every run.
        format: of the store that it was read from, and of chunks that are added to it.

    Raises:
        StoreError: values that no store can have.
    """

    data: str
    teacher: str
    kind: Kind
    views: dict[str, Any]
    count: int
    slots: tuple[int, ...]
    shape: tuple[int, ...]
    precision: str
    rows_per_chunk: int
    classes: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    format: int = field(default=FORMAT, compare=False)

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.kind not in get_args(Kind):
            raise StoreError(f"Views of a store are {', '.join(get_args(Kind))}; got '{self.kind}'.")
        if self.count < 1 or self.rows_per_chunk < 1:
            raise StoreError(f"A store needs samples: got {self.count}, in chunks of {self.rows_per_chunk}.")
        if list(self.slots) != sorted(set(self.slots)) or not self.slots or self.slots[0] < 0:
            raise StoreError(f"Slots of a store must ascend from 0 or later, got {words(self.slots) or 'none'}.")
        if self.classes and len(self.classes) != self.shape[0]:
            raise StoreError(f"{len(self.classes)} class names were given for {self.shape[0]} logits.")
        if self.codec.row_bytes > RECORD_BYTES:
            raise StoreError(f"A store's records have up to {RECORD_BYTES:,} bytes, got {self.codec.row_bytes:,}.")
        if self.slots[-1] >= SLOTS or len(self.slots) * self.parts > CHUNKS_AT_MOST:
            raise StoreError(
                f"A store has up to {SLOTS:,} views and {CHUNKS_AT_MOST:,} chunks, got view {self.slots[-1]:,} and "
                f"{len(self.slots) * self.parts:,} chunks of {self.count:,} samples."
            )

    def _check_kinds(self) -> None:
        """Raises StoreError where a value is not even of its type, as in an index that somebody else wrote."""
        whole = (self.count, self.rows_per_chunk, *self.slots, *self.shape)
        texts = (self.data, self.teacher, self.precision, *self.classes, *self.notes, *self.notes.values())
        if any(type(value) is not int for value in whole) or any(type(value) is not str for value in texts):
            raise StoreError("A store's header must hold whole numbers and texts where they are expected.")
        if not self.shape or min(self.shape) < 1:
            raise StoreError(f"The shape of a store's logits must be [C] or [C, h, w], got {list(self.shape)}.")

    @classmethod
    def create(
        cls,
        *,
        data: str,
        teacher: str,
        kind: Kind,
        views: Mapping[str, Any],
        count: int,
        slots: Sequence[int],
        shape: Sequence[int],
        precision: str = "float16",
        chunk_bytes: int = CHUNK_BYTES,
        classes: Sequence[str] = (),
        notes: Mapping[str, str] | None = None,
    ) -> Header:
        """A header whose chunks hold about `chunk_bytes` each; arguments are the attributes."""
        size = find(precision, shape).row_bytes
        rows = max(1, min(count, chunk_bytes // size))
        return cls(
            data,
            teacher,
            kind,
            dict(views),
            count,
            tuple(slots),
            tuple(shape),
            precision,
            rows,
            tuple(classes),
            dict(notes or {}),
        )

    @property
    def identity(self) -> dict[str, str]:
        """Who answered, as `teachers.identity` has it; of stores of earlier versions the weights and little more."""
        return {identity.WEIGHTS: self.teacher, **{k: v for k, v in self.notes.items() if k in identity.PARTS}}

    def answered_by(self, teacher: Mapping[str, str]) -> Header:
        """The same with another identity."""
        own = {key: value for key, value in self.notes.items() if key not in identity.PARTS}
        known = {key: value for key, value in teacher.items() if key != identity.WEIGHTS}
        return replace(self, teacher=teacher[identity.WEIGHTS], notes={**own, **known})

    @property
    def sample(self) -> str | None:
        """A hash of what some files of the data set held, where that is known."""
        return self.notes.get(SAMPLE)

    def sampled(self, sample: str | None) -> Header:
        """The same with another such hash, or none."""
        if sample == self.sample:
            return self
        own = {key: value for key, value in self.notes.items() if key != SAMPLE}
        return replace(self, notes=own if sample is None else {SAMPLE: sample, **own})

    @cached_property
    def codec(self) -> Codec:
        """From logits to records and back."""
        return find(self.precision, self.shape, self.format)

    @property
    def parts(self) -> int:
        """Chunks of a slot."""
        return -(-self.count // self.rows_per_chunk)

    @property
    def bytes(self) -> int:
        """Size of all chunks."""
        return len(self.slots) * self.count * self.codec.row_bytes

    def chunk(self, slot: int, part: int) -> Chunk:
        """Chunk number `part` of a slot."""
        start = part * self.rows_per_chunk
        return Chunk(slot, part, start, min(start + self.rows_per_chunk, self.count))

    def chunks(self) -> Iterator[Chunk]:
        """All chunks, slot after slot."""
        for slot in self.slots:
            for part in range(self.parts):
                yield self.chunk(slot, part)

    def chunk_size(self, chunk: Chunk) -> int:
        """Bytes of a chunk."""
        return (chunk.stop - chunk.start) * self.codec.row_bytes

    def with_slots(self, slots: Sequence[int]) -> Header:
        """The same with other slots, in any order."""
        return replace(self, slots=tuple(sorted(set(slots))))

    def difference(self, other: Header, *, layout: bool = False) -> list[str]:
        """What of `other` does not fit this store, a sentence each; nothing where its teacher, data and views do.

        Args:
            other: what a run needs, or the header of another recording.
            layout: compare how records lie as well, so that chunks of one can stand in the other. Slots may differ.
        """
        found = []
        if self.data != other.data:
            hint = of_earlier(other.classes)
            found.append(
                f"other data: sha256 {self.data[:12]}... in the store, {other.data[:12]}... given{hint and f'.{hint}'}"
            )
        elif self.sample and other.sample and self.sample != other.sample:
            found.append(
                f"other contents of files with the same names and sizes: sha256 {self.sample[:12]}... of some of them "
                f"in the store, {other.sample[:12]}... given. Give the files back as they were, or record into another "
                "folder"
            )
        for name, there, here in identity.differences(
            self.identity, other.identity, but="" if layout else identity.PRECISION
        ):
            what = "other teacher" if name == identity.WEIGHTS else f"{name} of the teacher"
            found.append(f"{what}: {there} in the store, {here} given")
        pairs: list[tuple[str, Any, Any]] = [
            ("number of samples", self.count, other.count),
            ("shape of the logits", list(self.shape), list(other.shape)),
            ("kind of views", self.kind, other.kind),
        ]
        if self.classes and other.classes and self.classes != other.classes:
            pairs.append(("classes", ", ".join(self.classes[:5]), ", ".join(other.classes[:5])))
        for key in sorted(self.views.keys() | other.views.keys()):
            if key != "seed" or "epochs" in (self.kind, other.kind):
                pairs.append((f"views, {key}", self.views.get(key, "nothing"), other.views.get(key, "nothing")))
        if layout:
            pairs.append(("precision", self.precision, other.precision))
            if self.precision == other.precision:
                pairs.append(("format of the records", self.codec.format, other.codec.format))
            pairs.append(("samples a chunk", self.rows_per_chunk, other.rows_per_chunk))
        found += [f"{name}: {there} in the store, {here} given" for name, there, here in pairs if there != here]
        return found

    def require(self, other: Header, where: object, *, layout: bool = False) -> None:
        """Raises StoreError with every `difference`; `where` is what the store is called."""
        found = self.difference(other, layout=layout)
        if found:
            raise StoreError(f"Store {where} does not fit:" + "".join(f"\n  - {line}" for line in found))


class Index(NamedTuple):
    """A finished store: its header, and the SHA-256 (hex) of each chunk by its name."""

    header: Header
    checksums: dict[str, str]


def dump(header: Header, checksums: Mapping[str, str] | None = None) -> str:
    """The text of `index.json`, or without checksums of `recording.json`. Equal stores give equal text."""
    # as numpy takes it: np.dtype([tuple(field) for field in dtype])
    values: dict[str, Any] = {**asdict(header), "dtype": header.codec.fields}
    # That of the records, so that whoever reads format 1 alone reads all that it has.
    values = {"format": header.codec.format, **{key: value for key, value in values.items() if key != "format"}}
    if checksums is not None:
        values["chunks"] = {chunk.name: checksums[chunk.name] for chunk in header.chunks()}
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def parse(text: str, where: object, *, finished: bool = True) -> Index:
    """The reverse of `dump`; `where` is what the file is called, `finished` whether it must have checksums.

    Raises:
        StoreError: the text is damaged or of another version.
    """
    try:
        values = parse_json(text)
        version = values.pop("format")
        if version not in range(1, FORMAT + 1):
            raise StoreError(f"{where} is of store format {version}; this counterpoise reads formats 1 to {FORMAT}.")
        fields, checksums = values.pop("dtype"), values.pop("chunks", {})
        for key in ("slots", "shape", "classes"):
            values[key] = tuple(values[key])
        header = Header(**values, format=version)
        if json.loads(json.dumps(header.codec.fields)) != fields:
            raise ValueError(f"records of {header.precision} do not lie as it says")
        if not isinstance(checksums, dict) or not all(isinstance(one, str) for one in checksums.values()):
            raise ValueError("its chunks have no checksums")
        if (finished or checksums) and len(checksums) != len(header.slots) * header.parts:
            raise ValueError(f"it lists {len(checksums)} chunks, and has {len(header.slots) * header.parts}")
        if checksums and any(chunk.name not in checksums for chunk in header.chunks()):
            raise ValueError("its chunks are not those that its slots have")
    except CounterpoiseError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # whatever json, or the header, find wrong with a damaged file
        raise StoreError(
            f"{where} is damaged: {damage(error)}. Restore it from a copy, or record the store again."
        ) from None
    return Index(header, checksums)


def load(path: Path) -> Index:
    """The index of a finished store. Raises StoreError where there is none, or a recording that is not finished."""
    local(path)
    try:
        return parse(read_text(path / INDEX, within=path, limit=INDEX_BYTES), path / INDEX)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise StoreError(f"{path / INDEX} cannot be read: {why_unread(error)}.") from None
    if not (path / RECORDING).exists():
        raise StoreError(f"{path} holds no store: there is no {INDEX}.")
    header = load_recording(path)
    assert header is not None
    names = {chunk.name for chunk in header.chunks()}
    done = len(names & present(path).keys())
    raise StoreError(
        f"The recording in {path} is not finished: {done} of {len(names)} chunks are there. "
        "Go on with the command that began it."
    )


def local(path: Path) -> None:
    """Raise StoreError where a path was meant as an address: as a path, s3://bucket is the folder s3:/bucket."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        address = str(path).replace(":/", "://", 1)
        raise StoreError(
            f"{address} is an address, from which a store can be read (teacher.store). It is recorded, looked at and "
            "changed in a folder on this machine, which is then uploaded as it is."
        )


def load_recording(path: Path) -> Header | None:
    """The header of an unfinished recording, None where there is none. Raises StoreError where it is damaged."""
    local(path)
    try:
        text = read_text(path / RECORDING, within=path, limit=INDEX_BYTES)
        return parse(text, path / RECORDING, finished=False).header
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{path / RECORDING} cannot be read: {why_unread(error)}.") from None


def unfinished(path: Path, old: Header | None) -> Header | None:
    """The header of a recording that adds to `old`: where that has all its views, a crash has brought it back.

    Raises as `load_recording`.
    """
    begun = load_recording(path)
    return None if begun is not None and old is not None and {*begun.slots} <= {*old.slots} else begun


def present(path: Path) -> dict[str, int]:
    """The files in `chunks/` and their sizes; nothing where there is no such folder."""
    try:
        return {file.name: file.stat().st_size for file in (path / CHUNKS).iterdir() if file.is_file()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StoreError(f"{path / CHUNKS} cannot be read: {error}.") from None


def words(numbers: Sequence[int]) -> str:
    """Ascending numbers as a person writes them: 0-4, 7, 9-11."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
