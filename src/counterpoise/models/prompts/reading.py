"""What is said of each class: a prompts file, its names and sentences, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from counterpoise.errors import DocumentError, ModelError, nearest
from counterpoise.system import documents

TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a photo of a {} from far away.",
    "a picture in which there is a {}.",
)
"""What stands around a class's name, where a file says nothing else; the mean of the sentences counts."""
FORMS = (
    "expected a list of class names, or {class: nothing, a sentence, a list of them, {name: ...} or {cosine: ...}}, or "
    "both under 'classes' beside 'templates'"
)
_NAMED = 5  # classes or sentences that a message names


@dataclass(frozen=True)
class Prompts:
    """What is said of each class.

    Attributes:
        classes: their names, in the order of the file.
        sentences: of each, one or more; the mean of what they mean is the class. None of a class without a prompt.
        cosine: of the class without a prompt, where there is one: it is the answer where no other class is nearer.
    """

    classes: tuple[str, ...]
    sentences: tuple[tuple[str, ...], ...]
    cosine: float | None = None

    @property
    def flat(self) -> list[str]:
        """All sentences, class after class."""
        return [sentence for several in self.sentences for sentence in several]

    @property
    def counts(self) -> list[int]:
        """How many there are of each class."""
        return [len(several) for several in self.sentences]


def read(path: Path) -> Prompts:
    """The prompts in a YAML file. Raises ModelError for what is no such file, or says one thing of two classes."""
    where = f"teacher.prompts: {path}"
    try:
        values = documents.read_yaml(path, limit=documents.JSON_BYTES)
    except FileNotFoundError:
        raise ModelError(f"{where} does not exist.") from None
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {documents.why_unread(error)}.") from None
    except DocumentError as error:
        raise ModelError(f"{where} is not YAML: {error}") from None
    return parse(values, where)


def parse(values: Any, where: str) -> Prompts:
    """Prompts from the values of a file; `where` begins messages. Raises ModelError."""
    templates: Sequence[str] = TEMPLATES
    if isinstance(values, Mapping) and "classes" in values and values.keys() <= {"classes", "templates"}:
        if "templates" in values:
            templates = _texts(values["templates"], f"{where}: templates")
            plain = [template for template in templates if "{}" not in template]
            if plain:
                raise ModelError(f"{where}: template {plain[0]!r} has no {{}}, where the name of a class goes.")
        values = values["classes"]
    if isinstance(values, list):
        names = [_name(value, where) for value in values]
        if twice := _repeated(names):
            raise ModelError(f"{where}: class '{twice}' is named twice.")
        values = dict.fromkeys(names)
    if not isinstance(values, Mapping):
        raise ModelError(f"{where} holds {_kind(values)}: {FORMS}.")
    if len(values) < 2:
        raise ModelError(f"{where} names {len(values)} classes; a classifier needs at least 2: {FORMS}.")
    said = {_name(key, where): value for key, value in values.items()}
    if len(said) < len(values):
        raise ModelError(f"{where}: two classes have one name once they are text.")
    cosines = {name: _cosine(value, f"{where}: {name}") for name, value in said.items()}
    bare = [name for name, cosine in cosines.items() if cosine is not None]
    if len(bare) > 1:
        raise ModelError(f"{where}: '{bare[0]}' and '{bare[1]}' have no prompt: nothing could tell them apart.")
    sentences = tuple(
        () if name in bare else _sentences(name, value, templates, f"{where}: {name}") for name, value in said.items()
    )
    prompts = Prompts(tuple(said), sentences, cosines[bare[0]] if bare else None)
    _require_distinct(prompts, where)
    return prompts


def require_classes(prompts: Prompts, classes: Sequence[str], path: Path) -> None:
    """Raises ModelError unless the prompts are for just the classes of the data; case and underscores do not count."""
    ours, theirs = ({_plain(name): name for name in names} for names in (classes, prompts.classes))
    missing = [name for key, name in ours.items() if key not in theirs]
    extra = [name for key, name in theirs.items() if key not in ours]
    if not missing and not extra:
        return
    lines = [
        f"\n  {what}: {_listed(names)}"
        for what, names in (("in the data alone", missing), ("in the prompts alone", extra))
        if names
    ]
    near = nearest(missing[0], extra) if missing and extra else ""
    raise ModelError(
        f"teacher.prompts: {path} is for {len(prompts.classes)} classes, and the data has {len(classes)} of other "
        f"names:{''.join(lines)}{near}\nName the classes alike. Where the folders of the data are no classes, say "
        "data.source: photos."
    )


def _sentences(name: str, value: Any, templates: Sequence[str], where: str) -> tuple[str, ...]:
    """What is said of a class: sentences as they are, with its name for {}, or names within the templates."""
    spoken = name.replace("_", " ")
    if value is None:
        found = [template.replace("{}", spoken) for template in templates]
    elif isinstance(value, Mapping) and set(value) == {"name"}:
        called = _texts(value["name"], f"{where}: name")
        found = [template.replace("{}", one) for one in called for template in templates]
    elif isinstance(value, str | list):
        found = [text.replace("{}", spoken) for text in _texts(value, where)]
    else:
        raise ModelError(
            f"{where} is {_kind(value)}: expected nothing, a sentence, a list of them, {{name: ...}} or "
            f"{{cosine: ...}}."
        )
    if twice := _repeated(found):
        raise ModelError(f"{where}: {twice!r} is said twice.")
    return tuple(found)


def _cosine(value: Any, where: str) -> float | None:
    """Of a class without a prompt the cosine that stands for it; None of one that has some."""
    if not isinstance(value, Mapping) or set(value) != {"cosine"}:
        return None
    cosine = value["cosine"]
    if isinstance(cosine, bool) or not isinstance(cosine, int | float) or not -1 < cosine < 1:
        raise ModelError(f"{where}: cosine must be a number between -1 and 1, such as 0.2, got {_kind(cosine)}.")
    return float(cosine)


def _texts(value: Any, where: str) -> list[str]:
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise ModelError(f"{where}: expected a sentence, or a list of them, got {_kind(text)}.")
    if not texts:
        raise ModelError(f"{where}: the list is empty.")
    return [" ".join(text.split()) for text in texts]


def _name(value: Any, where: str) -> str:
    """The name of a class: YAML takes 7 for a number, and no for a truth value."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ModelError(f"{where}: expected the name of a class, got {_kind(value)}; put it between quotes.")
    name = str(value).strip()
    if not name:
        raise ModelError(f"{where}: a class without a name.")
    return name


def _require_distinct(prompts: Prompts, where: str) -> None:
    owner: dict[str, str] = {}
    for name, several in zip(prompts.classes, prompts.sentences, strict=True):
        for sentence in several:
            other = owner.setdefault(sentence, name)
            if other != name:
                raise ModelError(
                    f"{where}: '{other}' and '{name}' have one prompt, {sentence!r}: nothing could tell them apart."
                )


def _repeated(texts: Iterable[str]) -> str | None:
    seen: set[str] = set()
    return next((text for text in texts if text in seen or seen.add(text)), None)  # type: ignore[func-returns-value]


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"{value!r:.60}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
