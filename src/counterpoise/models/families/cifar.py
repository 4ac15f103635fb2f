"""cifar/NAME: the 32x32 networks of the distillation literature."""

from __future__ import annotations

from counterpoise.models import cifar
from counterpoise.models.families.base import Built, Request, each_channel, register, require_no_arguments

# Means and deviations of CIFAR-100's training images, which the literature uses for CIFAR-10 too.
MEAN = (0.5071, 0.4867, 0.4408)
STD = (0.2675, 0.2565, 0.2761)


@register("cifar", summary="32x32 networks of the literature, with RepDistiller's parameter names", names=cifar.names)
def build(name: str, request: Request) -> Built:
    """A network of counterpoise.models.cifar; it takes no further arguments."""
    require_no_arguments(f"cifar/{name}", request)
    num_classes = 100 if request.num_classes is None else request.num_classes
    net = cifar.create(name, num_classes, request.channels)
    mean, std = (each_channel(values, request.channels) for values in (MEAN, STD))
    return Built(net, num_classes, mean=mean, std=std, input_size=32, stages=cifar.stages(name))
