"""digits/NAME: the small networks of the demos."""

from __future__ import annotations

from counterpoise.models import digits
from counterpoise.models.families.base import Built, Request, register, require_no_arguments


@register(
    "digits",
    summary="small networks of the demos: cnn_A_B(_C) for digits, unet_A_B(_...) for scenes",
    names=digits.names,
)
def build(name: str, request: Request) -> Built:
    """A network of counterpoise.models.digits; it takes no further arguments."""
    require_no_arguments(f"digits/{name}", request)
    net = digits.create(name, request.num_classes, request.channels)
    num_classes, half = net.num_classes, (0.5,) * request.channels
    if isinstance(net, digits.ScenesNetwork):
        stages = [f"encoder.{stage}" for stage, _ in net.encoder.named_children()]
        stages += [f"decoder.{stage}" for stage, _ in net.decoder.named_children()]
        return Built(net, num_classes, mean=half, std=half, stages=stages, task="segmentation")
    stages = [f"features.{stage}" for stage, _ in net.features.named_children()]
    return Built(net, num_classes, mean=half, std=half, input_size=8, stages=stages)
