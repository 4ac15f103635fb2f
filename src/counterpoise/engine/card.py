"""The model card beside a student, for people and for the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from counterpoise import tasks
from counterpoise.data.noticing import said_of_intensity
from counterpoise.models import catalog, folder
from counterpoise.models.network import VisionModel


def of_student(model: VisionModel, description: folder.Description, name: str) -> str:
    """A Hugging Face model card: what it is, how it is used, how good it is, where it comes from."""
    from huggingface_hub import ModelCard, ModelCardData

    task, timm = tasks.get(description.task), model.name.startswith("timm/")
    tags = ["knowledge-distillation", *(["timm"] if timm else [])]
    data = ModelCardData(library_name="counterpoise", pipeline_tag=task.hub_name, tags=tags)
    classes, size = description.classes, description.input.size
    kind = {3: "RGB", 1: "gray"}.get(model.channels, f"{model.channels} channels of")
    brought = {"crop": "", "squash": ", pictures squashed to it", "pad": ", pictures padded to it with black"}
    shape = f", {size} x {size}{brought[description.input.fit]}" if size else ""
    facts = {
        "Network": f"`{model.name}`",
        "Parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "Classes": f"{len(classes)}: {', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}",
        "Input": f"{kind} pixels{shape}; the student normalizes them itself",
    }
    if (intensity := description.input.reading.intensity) is not None:
        facts["Values"] = f"become 8 bits by {said_of_intensity(intensity)} (`data.intensity`), before anything else"
    with_timm = (
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
    print({task.shown})
```
{with_timm if timm else ""}
## Metrics

{table(("metric", "value"), _flat(description.metrics).items())}
{_against_teacher(description)}
{_of_epoch(description)}

## Provenance

{_origins(description)}
"""
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{body}"))


def _against_teacher(description: folder.Description) -> str:
    shipped = description.metrics.get(folder.shipped_epoch(description.provenance))
    counted = isinstance(shipped, Mapping) and any(name.startswith(tasks.AGREEMENT) for name in shipped)
    return f"\n{tasks.AGREEMENT_ALONE}\n" if counted else ""


def for_epoch(card: str, before: folder.Description, after: folder.Description) -> str:
    """The card of a student, for that of another epoch of its run."""
    if before == after:
        return card
    present, wanted = _of_epoch(before), _of_epoch(after)
    card = card.replace(_origins(before), _origins(after))
    return card.replace(present, wanted) if present and present in card else f"{card.rstrip()}\n\n{wanted}\n"


def _origins(description: folder.Description) -> str:
    """Where a student comes from, as a table; of which epoch its weights are stands beside their score."""
    origins = {key: value for key, value in description.provenance.items() if key != "epoch"}
    return table(("", ""), _flat(origins).items())


def _of_epoch(description: folder.Description) -> str:
    """Of which epoch the weights are, and how far the score of the best one can be believed."""
    epoch = description.provenance.get("epoch")
    if not isinstance(epoch, Mapping):
        return ""
    weights = f"The weights are those of the {epoch.get('ships')} epoch, {epoch.get('number')} of {epoch.get('of')}."
    if epoch.get("by") is None:
        return weights
    chosen = f"The best epoch, {epoch.get('best')}, was chosen by {epoch['by']} on the validation images"
    if epoch.get("own_test"):
        return f"{weights} {chosen}; the data has other images to test on, which chose nothing."
    return f"{weights} {chosen} that it is scored on here, so that score is higher than on images which chose nothing."


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
