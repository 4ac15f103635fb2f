"""The data section of the run file: what is read, how, and how it is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from counterpoise.config.intensity import Intensity
from counterpoise.config.section import MOST_CHANNELS, MOST_REDUCED, Edge, Positive, Section
from counterpoise.system.addresses import address_of

if TYPE_CHECKING:
    from counterpoise.reading import Reading


class RandAugment(Section):
    """RandAugment (Cubuk et al. 2020): `operations` random operations of one strength."""

    operations: int = Field(2, ge=1, le=8, description="operations an image")
    magnitude: int = Field(9, ge=0, le=30, description="strength, 0 to 30")


class Views(Section):
    """How a training image is varied; drawn from (seed, epoch, sample index) alone."""

    crop: Literal["auto", "none", "pad", "resized"] = Field(
        "auto",
        description="pad: pad and crop; resized: random resized crop; auto: pad where all images have one size of at "
        "most 64 pixels, else resized",
    )
    size: tuple[int, int] | None = Field(
        None,
        description="height and width of a training view; default: data.size, or small images' own size, or the larger "
        "input of the two models",
    )
    padding: int = Field(4, ge=0, le=1024, description="pixels of padding for crop pad")
    scale: tuple[float, float] = Field((0.08, 1.0), description="share of the area kept by crop resized")
    ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="aspect ratios of crop resized")
    flip: bool = Field(True, description="mirror half of the views")
    flip_vertical: bool = Field(False, description="turn half of the views upside down (timm's vflip)")
    rotate: float = Field(
        0.0,
        ge=0.0,
        le=180.0,
        description="degrees by which a view is turned at most, either way, as torchvision's RandomRotation; 0 is off",
    )
    decode: Literal["exact", "scaled"] = Field(
        "exact",
        description="exact: every pixel of a photo is decoded; scaled: a JPEG that is much larger than its view needs "
        "is decoded at 1/2, 1/4 or 1/8 of its size, still at least twice that of the view; evaluation is always exact",
    )
    randaugment: RandAugment | None = Field(None, description="RandAugment; none when left out")
    mixup: float = Field(0.0, ge=0.0, description="alpha of mixup's Beta(alpha, alpha); 0 is off")
    cutmix: float = Field(0.0, ge=0.0, description="alpha of cutmix's Beta(alpha, alpha); 0 is off")

    def still(self) -> Views:
        """The same with nothing left to chance."""
        off = {"flip": False, "flip_vertical": False, "rotate": 0.0, "randaugment": None, "mixup": 0, "cutmix": 0}
        return self.model_copy(update={"crop": "none", **off})

    @model_validator(mode="after")
    def _ranges(self) -> Views:
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must rise within (0, 1], got {list(self.scale)}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be positive and rise, got {list(self.ratio)}")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"size must be 1 pixel or more, got {list(self.size)}")
        return self


class Elastic(Section):
    """Views bent like a sheet of rubber: the points of a grid move at random, and what lies between them follows."""

    strength: Positive = Field(6.0, le=256.0, description="pixels by which a point moves at most, in either direction")
    spacing: int = Field(32, ge=4, le=4096, description="pixels of the view between two points")

    @model_validator(mode="after")
    def _does_not_fold(self) -> Elastic:
        if 2 * self.strength > self.spacing:
            raise ValueError(
                f"strength is at most half of spacing, beyond which pictures fold over; got {self.strength:g} and "
                f"{self.spacing}"
            )
        return self


class Scenes(Section):
    """How an image with a mask is shown, for segmentation. Training views are drawn as those of `views` are."""

    size: tuple[Edge, Edge] | None = Field(
        None, description="height and width of a training view; default: data.size, or that of the scenes"
    )
    reduction: float = Field(
        1.0,
        ge=1.0,
        le=MOST_REDUCED,
        description="how many times smaller than the files networks see scenes, in training and afterwards",
    )
    scale: tuple[float, float] = Field((0.5, 2.0), description="smallest and largest enlargement of a training view")
    flip: bool = Field(True, description="mirror half of the views")
    jitter: float = Field(0.0, ge=0.0, le=1.0, description="strength of changes in brightness, contrast, saturation")
    flip_vertical: bool = Field(False, description="turn half of the views upside down")
    rotate: float = Field(
        0.0, ge=0.0, le=180.0, description="degrees by which a view is turned at most, either way; 0 is off"
    )
    elastic: Elastic | None = Field(None, description="bend views; not where left out")
    gamma: float = Field(
        0.0, ge=0.0, le=4.0, description="intensities to a power from 1 / (1 + gamma) to 1 + gamma; 0 is off"
    )
    blur: float = Field(
        0.0,
        ge=0.0,
        le=16.0,
        description="standard deviation of a Gaussian blur at most, in pixels of the view; 0 is off",
    )
    noise: float = Field(
        0.0, ge=0.0, le=1.0, description="standard deviation of normal noise at most, as a share of white; 0 is off"
    )
    crops: int = Field(
        1,
        ge=1,
        le=2**16,
        description="views of each scene in an epoch, each with a place and a draw of its own, so that few large "
        "scenes make many steps",
    )
    foreground: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="share of views that are laid on a pixel of an object, as nnU-Net's oversampling; those of scenes "
        "without one lie anywhere",
    )
    foreground_classes: tuple[str, ...] = Field(
        (), description="the classes that are objects, for foreground; default: all but the one called background"
    )
    window: tuple[Edge, Edge] | None = Field(
        None, description="height and width of a window that slides over a scene in evaluation; default: whole scenes"
    )
    overlap: float | None = Field(
        None,
        ge=0.0,
        le=0.95,
        description="share of that window which the next one covers again; default: a third",
    )
    blend: Literal["mean", "linear", "gaussian"] = Field(
        "mean",
        description="how the windows over a pixel count: alike (mean), less towards their edges (linear), or as a bell "
        "from their middles (gaussian)",
    )
    resolution: Literal["full", "logits"] = Field(
        "full",
        description="where logits are compared with the teacher's: at that of the view (full), or at that of the "
        "student's logits, to which the teacher's are resampled; labels always count at full resolution",
    )

    def still(self) -> Scenes:
        """The same with nothing left to chance."""
        strengths = dict.fromkeys(("jitter", "rotate", "gamma", "blur", "noise"), 0.0)
        return self.model_copy(
            update={
                "scale": (1.0, 1.0),
                "flip": False,
                "flip_vertical": False,
                "elastic": None,
                **strengths,
                "crops": 1,
                "foreground": 0.0,
            }
        )

    @model_validator(mode="after")
    def _ranges(self) -> Scenes:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be positive and rise, got {list(self.scale)}")
        if self.scale[1] > 16:
            raise ValueError(f"scale enlarges by up to 16, got {list(self.scale)}")
        if self.window is None and (self.overlap is not None or self.blend != "mean"):
            raise ValueError("overlap and blend are of a window that slides over scenes: give window, too")
        if self.foreground_classes and not self.foreground:
            raise ValueError("foreground_classes says where views are laid: give foreground, the share of views, too")
        return self


class Data(Section):
    """Where the images come from. A bare path stands for `{path: PATH}`."""

    path: Path | None = Field(
        None, description="folder of the data set; of packs also an address, such as s3://bucket/pack"
    )
    source: str = Field("auto", description="kind of data: see `counterpoise list sources`; auto looks at the folder")
    options: dict[str, Any] = Field(default_factory=dict, description="arguments of the source, by name")
    unlabeled: Path | None = Field(
        None,
        description="pictures without labels or masks, for distill: the teacher's word alone; a folder of pictures or "
        "volumes, a pack, or a table that names pictures",
    )
    questions: dict[str, Any] | None = Field(
        None,
        description="of masks, for multilabel_segmentation: each question by its name, with the classes whose pixels "
        "are its yes, such as {disc: [rim, cup], cup: cup}; a list of classes asks for each of them",
    )
    val_fraction: float = Field(0.1, gt=0.0, lt=1.0, description="part held out where the data has no val split")
    split_seed: int = Field(0, ge=0, lt=2**63, description="seed of that split, and of folds")
    fold: str | None = Field(
        None,
        description="2/5: of the training images in 5 folds, the second takes the place of val; a val that the data "
        "bring is left alone",
    )
    held_out: int = Field(
        0,
        ge=0,
        description="training images, by split_seed, that take the place of val: to choose without looking at it",
    )
    class_order: Literal["numbers", "text"] = Field(
        "numbers",
        description="classes that are all called by whole numbers are in their order, or in that of text (0, 1, 10, "
        "11, 2), as earlier versions had them",
    )
    on_corrupt: Literal["stop", "skip"] = Field("stop", description="what to do with an image that cannot be read")
    fit: Literal["crop", "squash", "pad"] = Field(
        "crop",
        description="how pictures are brought to the square input: crop cuts out the center, squash resizes all of "
        "them, pad keeps their shape within black",
    )
    alpha: Literal["auto", "white", "ignore"] = Field(
        "auto",
        description="a fourth band of pictures: white composites it as transparency over white, ignore leaves it out "
        "as data; auto looks at some of them",
    )
    white_level: int | None = Field(
        None, ge=1, le=65535, description="value that is white in gray files of 16 bits, such as 4095; default: 65535"
    )
    intensity: Intensity | None = Field(
        None, description="how values of any depth become the 8 bits that networks see; default: see white_level"
    )
    channels: int = Field(
        3,
        ge=1,
        le=MOST_CHANNELS,
        description="channels of pictures, as timm's in_chans: 3 reads all as RGB, 1 as gray; of any other number "
        "pictures must have that many (RGBA as data, bands of a TIFF, .npy [H, W, channels])",
    )
    max_megapixels: Positive = Field(179.0, description="larger pictures are refused, before they fill the memory")
    size: Edge | None = Field(
        None,
        description="edge in pixels of training views, and of pictures for networks without an input size; default: "
        "see data.views.size",
    )
    memory_limit_gb: float = Field(
        2.0, ge=0.0, allow_inf_nan=False, description="images of one size that fit are held in memory, decoded"
    )
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        "auto",
        description="processes that decode images which are not in memory; auto: the cores that this one may use, at "
        "most 16, and none where there is one batch",
    )
    shuffle: Literal["full", "blocks"] = Field(
        "full",
        description="order of an epoch: full, any image anywhere; blocks, what lies together is read together",
    )
    block_size: int | None = Field(
        None, ge=1, description="images in a block, for shuffle blocks; default: the shards of a pack, 64 elsewhere"
    )
    shuffle_window: int | None = Field(
        None,
        ge=1,
        description="blocks whose images are mixed, for shuffle blocks; default: 16, or as many as hold 16,384 images",
    )
    balance: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="how much more often an epoch shows images of rare classes: 0, as they are; 1, all classes equally "
        "often; between, a class of n images in proportion to n^(1 - balance)",
    )
    views: Views = Field(default_factory=Views, description="augmentation")
    scenes: Scenes = Field(default_factory=Scenes, description="images with masks, for segmentation")

    @field_validator("questions", mode="before")
    @classmethod
    def _questions_may_be_names(cls, given: Any) -> Any:
        if isinstance(given, str | int) and not isinstance(given, bool):
            given = [given]
        if isinstance(given, list | tuple):
            given = {str(name): name for name in given}
        if not isinstance(given, dict):
            return given
        return {
            str(name): [str(one) for one in (classes if isinstance(classes, list | tuple) else [classes])]
            for name, classes in given.items()
        }

    @field_validator("questions")
    @classmethod
    def _questions_have_a_yes(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given is not None and not given:
            raise ValueError("names no question: give some, such as {vessel: [vessel]}, or leave it out")
        for name, classes in (given or {}).items():
            if not name or not classes:
                raise ValueError(f"each question has a name and classes, got {name!r}: {classes}")
        return given

    @model_validator(mode="after")
    def _balances(self) -> Data:
        if self.balance and self.shuffle == "blocks":
            raise ValueError(
                "balance brings images from anywhere, and shuffle: blocks reads what lies together: take one"
            )
        if self.balance and (self.views.mixup or self.views.cutmix):
            raise ValueError(
                "balance shows an image several times an epoch, in one view, and mixup and cutmix would mix it with "
                "another each time: take one"
            )
        return self

    @model_validator(mode="after")
    def _channels_fit(self) -> Data:
        if self.channels != 3 and self.views.randaugment is not None:
            raise ValueError(f"views.randaugment is for pictures of three channels, and channels is {self.channels}")
        if self.channels != 3 and self.scenes.jitter:
            raise ValueError(
                f"scenes.jitter changes colors, brightness and contrast of three channels, and channels is "
                f"{self.channels}; scenes.gamma and scenes.noise are for any"
            )
        if self.channels not in (1, 3) and self.alpha == "white":
            raise ValueError(f"alpha: white is for transparency, and channels: {self.channels} takes all bands as data")
        return self

    @model_validator(mode="after")
    def _one_white(self) -> Data:
        if self.intensity is not None and self.white_level is not None:
            raise ValueError("white_level and intensity both say which value is white: take one")
        return self

    @property
    def reading(self) -> Reading:
        """How files are read, where alpha is not left to be found."""
        from counterpoise.reading import Reading

        intensity = None if self.intensity is None else self.intensity.mapping
        return Reading("white", self.white_level, self.max_megapixels, self.channels, intensity)

    @field_validator("fold")
    @classmethod
    def _fold_is_one_of_several(cls, fold: str | None) -> str | None:
        if fold is None:
            return None
        found = re.fullmatch(r"\s*([0-9]{1,6})\s*/\s*([0-9]{1,6})\s*", fold)
        number, count = (int(found[1]), int(found[2])) if found else (0, 0)
        if count < 2 or not 1 <= number <= count:
            raise ValueError(f"is one of several, 1/5 to 5/5 of five, got {fold!r}")
        return f"{number}/{count}"

    @property
    def fold_of(self) -> tuple[int, int]:
        """Which fold, from 1, and of how many. Only where there is one."""
        assert self.fold is not None
        number, _, count = self.fold.partition("/")
        return int(number), int(count)

    @field_serializer("path", "unlabeled", when_used="json-unless-none")
    def _address(self, path: Path) -> str:
        return address_of(path) or str(path)
