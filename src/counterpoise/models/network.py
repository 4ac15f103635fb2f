"""A network with what it needs to take plain pixels: its normalization, its input size, its classes."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from counterpoise.config import LARGEST_EDGE
from counterpoise.decoding import Reading, placing
from counterpoise.errors import CounterpoiseError, ModelError, OwnCodeError, nearest, of_memory
from counterpoise.models.padding import Padded
from counterpoise.models.promise import Promise, ScenePromise
from counterpoise.outputs import Outputs, in_eval_mode

Answers = Literal["auto", "logits", "probabilities"]
PROBABILITY_ERROR = 1e-2
"""How far their sum may be from 1: bfloat16 has 8 bits."""
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class SceneView(NamedTuple):
    """How scenes are shown to a network that segments them, beyond training.

    Attributes:
        reduction: how many times smaller than they are.
        window: height and width of a window that slides over them, in pixels as reduced; None shows them whole.
        overlap: share of the window that the next one covers again; None: a third.
        blend: how the windows over a pixel count: tasks/sliding.py.
    """

    reduction: float = 1.0
    window: tuple[int, int] | None = None
    overlap: float | None = None
    blend: str = "mean"

    @property
    def blended(self) -> bool:
        """Whether windows lie or count otherwise than by default."""
        return self[2:] != SceneView()[2:]


class VisionModel(nn.Module):
    """A network that normalizes for itself: pixels in, logits out.

    Args:
        net: takes normalized images [N, channels, H, W], returns logits [N, C, ...] (or what holds them).
        name: what the catalog calls it, such as `cifar/resnet20`.
        num_classes: C.
        arguments: further arguments `net` was built with.
        classes: names of the C classes where they are known.
        channels: of the pictures that it takes.
        mean, std: of each channel, of pixels in [0, 1].
        input_size: edge in pixels; images of another size are resized to it. None takes images as they come.
        crop_share: part of the shorter side that the central crop keeps for evaluation.
        fit: how pictures are brought to its square input: see `decoding.placing`.
        whole: whether it was trained on whole pictures, and so is evaluated on them: its crop_share is then 1.
        scenes: how scenes are shown to it, where it segments them.
        reading: how picture files are read for it, where they leave it open.
        stages: names of submodules of `net` whose outputs are its usual features.
        task: what the logits answer.
        selection: applied to the logits, such as a choice of classes.
        outputs: what `net` returns: logits, or probabilities, of which the logarithm is taken; auto: logits, where
            nobody has said so.
        thresholds: of several labels, the probability from which on each is answered, where that was chosen.
        promise: when it answers, and when it is not sure, where that was chosen.
        scene_promise: of scenes, which pixels it answers, where that was chosen.
        own: whether `net` is code of the user's own, whose errors are told as such.

    Attributes:
        memory_format: of the normalized images; `torch.channels_last` converts them.
        normalization: mean and std as they were given; the buffers of these names hold them in float32.
        by_position: whether its classes were given to its outputs in their order, because it names none itself.
        notes: what is to be said of its weights and its answers, a sentence each.
        trained_for: the task that its weights were trained for, where they say so.
        companions: modules whose state changes while `net` trains, by name: kept in checkpoints, not shipped.
        shipping: within it, `net` computes without what was hooked into it for training alone.
        together: within it, processes that share `net` out between them call it as often as each likes.
    """

    mean: Tensor
    std: Tensor
    _scale: Tensor
    _shift: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        num_classes: int,
        arguments: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        input_size: int | None = None,
        crop_share: float = 1.0,
        fit: str = "crop",
        whole: bool = False,
        scenes: SceneView = SceneView(),  # noqa: B008 - a tuple does not change
        reading: Reading = Reading(),  # noqa: B008
        stages: Sequence[str] = (),
        task: str = "classification",
        selection: nn.Module | None = None,
        outputs: Answers = "auto",
        thresholds: Sequence[float] | None = None,
        promise: Promise | None = None,
        scene_promise: ScenePromise | None = None,
        channels: int = 3,
        own: bool = False,
    ) -> None:
        super().__init__()
        fit_channels = len(mean) == channels == len(std)
        if not fit_channels or min(std) <= 0 or not _are_usable(*mean, *std, *(1 / s for s in std)):
            count = {1: "one finite number", 3: "three finite numbers"}.get(channels, f"{channels} finite numbers")
            raise ModelError(f"{name}: mean and std need {count} each, std positive; got {mean} and {std}.")
        if input_size is not None and not 1 <= input_size <= LARGEST_EDGE:
            raise ModelError(f"{name}: its input must be 1 to {LARGEST_EDGE} pixels, got {input_size}.")
        if classes is not None and len(classes) != num_classes:
            raise ModelError(f"{name} gives {num_classes} logits, but {len(classes)} class names are given.")
        self.net = net
        self.name = name
        self.num_classes = num_classes
        self.arguments = dict(arguments or {})
        self.classes = None if classes is None else tuple(classes)
        self.input_size = input_size
        self.crop_share = crop_share
        self.fit = fit
        self.whole = whole
        self.scenes = scenes
        self.reading = reading
        self.stages = tuple(stages)
        self.task = task
        self.selection = selection
        self.outputs = outputs
        self.channels = channels
        self.thresholds = None if thresholds is None else tuple(thresholds)
        self.promise = promise
        self.scene_promise = scene_promise
        self.own = own
        self.notes: tuple[str, ...] = ()
        self.trained_for: str | None = None
        self.memory_format = torch.preserve_format
        self.by_position = False
        self.companions: dict[str, nn.Module] = {}
        self.shipping: Callable[[], AbstractContextManager[None]] = nullcontext
        self.together: Callable[[], AbstractContextManager[None]] = nullcontext
        self.normalization = {"mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
        # float64 first, so that both forms below are the nearest float32 numbers
        mean64, std64 = (torch.tensor(values, dtype=torch.float64).view(1, channels, 1, 1) for values in (mean, std))
        for key, value in {"mean": mean64, "std": std64, "_scale": 1 / std64, "_shift": -mean64 / std64}.items():
            self.register_buffer(key, value.float(), persistent=False)

    def settings(self) -> dict[str, Any]:
        """Arguments that make another VisionModel like this one, `net` included."""
        names = inspect.signature(VisionModel).parameters
        return {name: getattr(self, name) for name in names} | self.normalization

    def shown_like(self, student: VisionModel) -> None:
        """Be shown pictures as in the training of a student that learned from this network."""
        self.fit = student.fit
        if student.whole:
            self.whole, self.crop_share = True, 1.0

    def answers_probabilities(self, size: tuple[int, int]) -> bool:
        """Whether what it answers are probabilities, though it is taken to answer logits.

        The one place where that is decided, from two pictures that are always the same, of this height and width: so
        that evaluation, predictions and exports take its answers alike.
        """
        if self.outputs != "auto":
            return False
        height, width = self.scenes.window or size
        index = torch.arange(2 * self.channels * height * width)
        pixels = (index * 7919 % 251).to(torch.uint8).view(2, self.channels, height, width).to(self.mean.device)
        call: Callable[[Tensor], Any] = self._plain()._call_impl  # never compiled for this
        with in_eval_mode(self), torch.inference_mode():
            answer = self._called(call, self.normalize(pixels))
        return are_probabilities(self._select(logits_of(answer, self.name)))

    def weights(self) -> dict[str, Tensor]:
        """The network's own state, unprefixed, whether it is compiled or not."""
        return self._plain().state_dict()

    def serialize(self) -> bytes:
        """The weights as a safetensors file; equal weights give equal bytes."""
        # copies, because safetensors takes no two tensors of one memory (tied weights)
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in self.weights().items()}
        return save(tensors, metadata={"format": "pt"})

    def weights_hash(self) -> str:
        """sha256 of `serialize()`, in hex: that of the model.safetensors in a student folder of these weights."""
        return hashlib.sha256(self.serialize()).hexdigest()

    def forward(self, images: Tensor, features: Sequence[str] = ()) -> Tensor | Outputs:
        """Logits [N, C], or `Outputs` where features are asked for by the names of submodules of `net`.

        Args:
            images: [N, channels, H, W], uint8, or float16, bfloat16 or float32 in [0, 1].
            features: submodules of `net` whose outputs are wanted, as they are when the whole forward pass is done;
                "@0", "@-1" and the like count its stages, from the stem on.

        Raises:
            ModelError: images of another dtype or shape; a feature that `net` has not, or that is no tensor; whatever
                code of the user's own raises.
        """
        pixels = self.normalize(images)
        if not features:
            return self._select(logits_of(self._called(self.net, pixels), self.name))
        caught: dict[str, Tensor] = {}
        net = self._plain()
        # A network that was compiled on its own has forgotten how to call hooks: features come from its plain form.
        call: Callable[[Tensor], Any] = net if net._compiled_call_impl is None else net._call_impl
        with ExitStack() as hooks:
            for feature in features:
                hooks.enter_context(self._submodule(feature).register_forward_hook(partial(_catch, caught, feature)))
            logits = self._select(logits_of(self._called(call, pixels), self.name))
        for feature in features:
            if not isinstance(caught.get(feature), Tensor):
                got = type(caught[feature]).__name__ if feature in caught else "nothing"
                raise ModelError(
                    f"{self.name}: feature '{feature}' gives {got}, expected a tensor; name a module inside it."
                )
        return Outputs(logits, {feature: caught[feature] for feature in features})

    def inner(self, pixels: Tensor) -> Tensor:
        """Logits of normalized images without the padding of dense networks: edges are multiples of its stride."""
        net = self._plain()
        call: Callable[[Tensor], Any] = net.answer if isinstance(net, Padded) else net
        return self._select(logits_of(self._called(call, pixels), self.name))

    def normalize(self, images: Tensor) -> Tensor:
        """What `net` is given: images of its input size as (pixel in [0, 1] - mean) / std, in the model's dtype."""
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ModelError(
                f"{self.name} takes images [N, {self.channels}, H, W], got a tensor of shape {list(images.shape)}."
            )
        if images.dtype != torch.uint8 and images.dtype not in _FLOATS:
            raise ModelError(
                f"{self.name} takes images as uint8 in [0, 255], or as float16, bfloat16 or float32 in [0, 1], "
                f"got {str(images.dtype).removeprefix('torch.')}."
            )
        whole = images.dtype == torch.uint8
        scale = self._scale / 255 if whole else self._scale
        if self.input_size is not None and images.shape[-2:] != (self.input_size, self.input_size):
            images = self._fitted(images.float(), self.input_size)
        pixels = torch.addcmul(self._shift, images.to(scale.dtype), scale)
        if self.memory_format is torch.preserve_format:
            return pixels
        return pixels.contiguous(memory_format=self.memory_format)  # last: twice as fast as before the arithmetic

    def _fitted(self, images: Tensor, edge: int) -> Tensor:
        """Images [N, channels, H, W] at the size of the input: all of each, its shape kept where it is to be padded."""
        _, (width, height), (left, top) = placing(images.shape[3], images.shape[2], (edge, edge), 1.0, self._whole_fit)
        images = F.interpolate(images, size=(height, width), mode="bilinear", antialias=True)
        if (height, width) == (edge, edge):
            return images
        return F.pad(images, (left, edge - width - left, top, edge - height - top))

    def _called(self, call: Callable[[Tensor], Any], pixels: Tensor) -> Any:
        """What the network returns; errors of the user's own code are told in its words."""
        if not self.own:
            return call(pixels)
        try:
            return call(pixels)
        except CounterpoiseError:
            raise
        except Exception as error:
            if of_memory(error):
                raise
            said = f"{self.name} fails on images {list(pixels.shape)} of {str(pixels.dtype).removeprefix('torch.')}"
            raise OwnCodeError(f"{said}: {type(error).__name__}: {error}") from error

    @property
    def _whole_fit(self) -> str:
        return "pad" if self.fit == "pad" else "squash"

    def _select(self, logits: Tensor) -> Tensor:
        if self.outputs == "probabilities":
            logits = logits.float().clamp_min(torch.finfo(torch.float32).tiny).log()
        selected: Tensor = logits if self.selection is None else self.selection(logits)
        return selected

    def _plain(self) -> nn.Module:
        net: nn.Module = getattr(self.net, "_orig_mod", self.net)  # what torch.compile(net) has wrapped
        return net

    def _submodule(self, name: str) -> nn.Module:
        net = self._plain()
        if name.startswith("@"):
            try:
                name = self.stages[int(name[1:])]
            except (ValueError, IndexError):
                raise ModelError(
                    f"{self.name} has no stage '{name}': it has {len(self.stages)} ({', '.join(self.stages)})."
                ) from None
        try:
            return net.get_submodule(name) if name else net
        except AttributeError:
            names = [known for known, _ in net.named_modules() if known]
            usual = f" Its stages: {', '.join(self.stages)}." if self.stages else ""
            raise ModelError(
                f"{self.name} has no module '{name}' to take a feature from.{nearest(name, names)}{usual}"
            ) from None


def _are_usable(*values: float) -> bool:
    """Whether numbers are finite in float32, too."""
    return all(abs(value) <= torch.finfo(torch.float32).max for value in values)


def are_probabilities(answer: Tensor, rounded: float = 0.0) -> bool:
    """Whether what a network answered, [N, C, ...], are probabilities: from 0 on, with sums of 1 over the classes.

    rounded: how far values may lie from what was answered, such as in a store.
    """
    if answer.ndim < 2 or answer.shape[1] < 2 or not answer.numel():
        return False
    values = answer.detach().float()
    apart = PROBABILITY_ERROR + rounded
    return bool((values >= -rounded).all() and ((values.sum(1) - 1).abs() < apart).all())


def _catch(caught: dict[str, Any], name: str, module: nn.Module, inputs: Any, output: Any) -> None:
    # layers of transformers 4 return their one tensor in a tuple, some with None beside it
    alone = isinstance(output, tuple) and output and all(other is None for other in output[1:])
    caught[name] = output[0] if alone else output


def logits_of(output: Any, name: str) -> Tensor:
    """The logits in what a network returned: a tensor, or named so in an object (GoogLeNet in training) or mapping."""
    if isinstance(output, Tensor):
        return output
    held = output.get("logits", output.get("out")) if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(held, Tensor):
        raise ModelError(
            f"{name} returned {type(output).__name__}, expected a tensor of logits, or one named 'logits'."
        )
    return held
