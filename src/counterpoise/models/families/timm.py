"""timm/NAME: the networks and published weights of timm. NAME may carry a tag: resnet50.a1_in1k."""

from __future__ import annotations

from typing import Any

from counterpoise.errors import ModelError, nearest, unknown
from counterpoise.models import checkpoint, imagenet, published
from counterpoise.models.families.base import (
    BUILDING,
    Built,
    Request,
    State,
    cannot_build,
    each_channel,
    read_by_library,
    register,
)
from counterpoise.system import torchvision_guard

SAFE_FILES = {
    "pytorch_model.bin": "model.safetensors",
    "open_clip_pytorch_model.bin": "open_clip_model.safetensors",
}


def names() -> list[str]:
    """All architectures of the timm that is installed."""
    torchvision_guard.ready()
    import timm

    listed: list[str] = timm.list_models()
    return listed


def publish(name: str, request: Request, pretrained: bool | str) -> checkpoint.Weights:
    """Published weights, adapted to the arguments of the request by timm, with the head they were published with."""
    config = _config(name, pretrained if isinstance(pretrained, str) else None)
    if not config.has_weights:
        raise ModelError(
            f"timm/{name} has no published weights{f' of tag {config.tag}' if config.tag else ''}.{_tags(name)}"
        )
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        usual = config.hf_hub_filename or "pytorch_model.bin"
        files = [SAFE_FILES.get(usual, usual), usual]
        path = published.from_hub(repository, list(dict.fromkeys(files)), revision or None, f"timm/{name}")
    else:
        url, filename = config.url if isinstance(config.url, tuple) else (config.url, None)
        path = published.from_url(url, filename, f"timm/{name}")
    net = _create(name, request, config.tag, checkpoint.read(path).state)
    usual_size = _config(name, None).input_size
    resized = config.fixed_input_size and config.input_size != usual_size and request.input_size is None
    return checkpoint.Weights(
        origin=str(path),
        state=net.state_dict(),
        arguments={"img_size": config.input_size[-1]} if resized else {},
        classes=imagenet.classes(net.num_classes) if net.num_classes else None,
        mean=config.mean,
        std=config.std,
        input_size=None if "img_size" in request.arguments else config.input_size[-1],
        crop_share=config.crop_pct,
    )


def convert(name: str, request: Request, state: State) -> State | None:
    """What a file as it was published has, in this network's names and sizes; None where timm cannot read it."""
    config = _config(name, None)
    head = state.get(f"{config.classifier}.weight") if isinstance(config.classifier, str) else None

    def read(given: State) -> State:
        net = _create(name, request, config.tag, given, len(head) if head is not None else None)
        return dict(net.state_dict())

    try:
        found, lacking = read_by_library(read, state)
    except ModelError:
        return None
    return {key: value for key, value in found.items() if key not in lacking}


@register("timm", summary="networks of timm, with published weights", names=names, published=publish, convert=convert)
def build(name: str, request: Request) -> Built:
    """A network of timm, with normalization, input size and crop of its published weights."""
    net = _create(name, request, name.partition(".")[2] or None)
    config = net.pretrained_cfg
    size = request.arguments.get("img_size", config["input_size"][-1])
    arguments = dict(request.arguments)
    if request.input_size is not None and config.get("fixed_input_size"):
        size = arguments["img_size"] = request.input_size
    modules = {known for known, _ in net.named_modules()}
    stages = [info["module"] for info in getattr(net, "feature_info", None) or () if isinstance(info, dict)]
    return Built(
        net,
        int(net.num_classes),
        arguments,
        mean=each_channel(config["mean"], request.channels),
        std=each_channel(config["std"], request.channels),
        input_size=size if isinstance(size, int) else max(size),
        crop_share=config.get("crop_pct", 0.875),
        stages=[stage for stage in stages if stage in modules],
    )


def _create(name: str, request: Request, tag: str | None, state: State | None = None, held: int | None = None) -> Any:
    """A network of timm; with `state`, timm reads it as it does its published files, whose head has `held` classes."""
    config = _config(name, tag)
    import timm

    base = name.partition(".")[0]
    arguments = dict(request.arguments)
    if request.channels != 3:
        arguments["in_chans"] = request.channels
    # A network built for one size (such as a ViT) must be told of another; the others take what comes.
    if request.input_size is not None and config.fixed_input_size:
        arguments.setdefault("img_size", request.input_size)
    overlay: dict[str, Any] = {}
    if state is not None:
        overlay = {"state_dict": dict(state), "custom_load": False}
        if held is not None:
            overlay["num_classes"] = held
    elif request.num_classes is not None:
        arguments["num_classes"] = request.num_classes
    try:
        net: Any = timm.create_model(
            base,
            pretrained=state is not None,
            pretrained_cfg=tag,
            pretrained_cfg_overlay=overlay or None,
            **arguments,
        )
    except BUILDING as error:
        raise cannot_build(f"timm/{name}", arguments, error) from error
    net.pretrained_cfg.pop("state_dict", None)
    return net


def _config(name: str, tag: str | None) -> Any:
    """timm's PretrainedCfg of a name. Raises ModelError where name or tag are unknown, or two tags are given."""
    torchvision_guard.ready()
    import timm
    from timm.models import PretrainedCfg, get_pretrained_cfg

    base, _, own_tag = name.partition(".")
    if not timm.is_model(base):
        raise ModelError(unknown("timm model", base, timm.list_models()))
    if tag and own_tag and tag != own_tag:
        raise ModelError(f"timm/{name} names the tag '{own_tag}', and `pretrained:` the tag '{tag}': give one of them.")
    tag = tag or own_tag
    try:
        return get_pretrained_cfg(f"{base}.{tag}" if tag else base) or PretrainedCfg()
    except RuntimeError:
        raise ModelError(f"timm/{base} has no weights of tag '{tag}'.{_tags(base, tag)}") from None


def _tags(name: str, given: str = "") -> str:
    import timm

    base = name.partition(".")[0]
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    return f"{nearest(given, tags)} Its tags: {', '.join(tags)}." if tags else " It has none under any tag."
