"""The model card beside a student, for people and for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from counterpoise.models import catalog, folder
from counterpoise.models.network import VisionModel


def of_student(model: VisionModel, description: folder.Description, name: str) -> str:
    """A Hugging Face model card: what it is, how it is used, how good it is, where it comes from."""
    from huggingface_hub import ModelCard, ModelCardData

    from counterpoise import tasks

    timm = model.name.startswith("timm/")
    data = ModelCardData(
        library_name="counterpoise",
        pipeline_tag=tasks.get(description.task).hub_name,
        tags=["knowledge-distillation", *(["timm"] if timm else [])],
    )
    classes = description.classes
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "Network": f"`{model.name}`",
        "Parameters": f"{parameters:,}",
        "Classes": f"{len(classes)}: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}",
        "Input": f"RGB pixels{_shape(description.input)}; the student normalizes them itself",
    }
    also = ""
    if timm:
        also = (
            "\nWith timm alone (images normalized as `config.json` says):\n\n"
            f'```python\nimport timm\n\nnet = timm.create_model("local-dir:{name}", pretrained=True)\n```\n'
        )
    code = f", model={model.name!r}" if catalog.is_code(model.name) else ""
    body = f"""
# {name}: a {len(classes)}-class student

{table(("", ""), facts.items())}

## How to use

```python
from counterpoise import load_student

student = load_student("{name}"{code})  # this folder
for answer in student.predict(["photo.jpg"]):
    print({tasks.get(description.task).shown})
```
{also}
## Metrics

{table(("metric", "value"), _flat(description.metrics).items())}

{_of_epoch(description.provenance.get("epoch"))}

## Provenance

{_origins(description)}
"""
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{body}"))


def for_epoch(card: str, before: folder.Description, after: folder.Description) -> str:
    """The card of a student, for that of another epoch of its run."""
    if before == after:
        return card
    said, wanted = (_of_epoch(description.provenance.get("epoch")) for description in (before, after))
    card = card.replace(_origins(before), _origins(after))
    return card.replace(said, wanted) if said and said in card else f"{card.rstrip()}\n\n{wanted}\n"


def _origins(description: folder.Description) -> str:
    """Where a student comes from, as a table; of which epoch its weights are stands beside their score."""
    told = {key: value for key, value in description.provenance.items() if key != "epoch"}
    return table(("", ""), _flat(told).items())


def _of_epoch(told: Any) -> str:
    """Of which epoch the weights are, and how far the score of the best one can be believed."""
    if not isinstance(told, Mapping):
        return ""
    ships, by = told.get("ships"), told.get("by")
    weights = f"The weights are those of the {ships} epoch, {told.get('number')} of {told.get('of')}."
    if by is None:
        return weights
    chosen = f"The best epoch, {told.get('best')}, was chosen by {by} on the validation images"
    if told.get("own_test"):
        return f"{weights} {chosen}; the data has other images to test on, which chose nothing."
    return f"{weights} {chosen} that it is scored on here, so that score is higher than on images which chose nothing."


def _shape(made_for: folder.Input) -> str:
    if not made_for.size:
        return ""
    how = {"crop": "", "squash": ", pictures squashed to it", "pad": ", pictures padded to it with black"}
    return f", {made_for.size} x {made_for.size}{how[made_for.fit]}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = f"{value:.4g}" if isinstance(value, float) else str(value)
    return flat


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown of a table; words where it has no rows."""
    cells = [[cell.replace("|", "/") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (head, *cells)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) if cells else "None recorded."
