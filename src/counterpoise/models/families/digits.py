"""digits/NAME: the small networks of the demo."""

from __future__ import annotations

from counterpoise.errors import ModelError
from counterpoise.models import digits
from counterpoise.models.families.base import Built, Request, register


@register("digits", summary="small networks for 8x8 digits: any cnn_A_B or cnn_A_B_C", names=digits.names)
def build(name: str, request: Request) -> Built:
    """A network of counterpoise.models.digits; it takes no further arguments."""
    if request.arguments:
        raise ModelError(f"digits/{name} takes no arguments, got {', '.join(sorted(request.arguments))}.")
    num_classes = 10 if request.num_classes is None else request.num_classes
    net = digits.create(name, num_classes)
    stages = [f"features.{stage}" for stage, _ in net.features.named_children()]
    return Built(net, num_classes, mean=(0.5,) * 3, std=(0.5,) * 3, input_size=8, stages=stages)
