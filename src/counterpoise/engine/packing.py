"""A set packed into shards, as a Python function and as a verb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoise.config.options import keywords
from counterpoise.engine import inputs
from counterpoise.engine.inputs import RunLike
from counterpoise.engine.options import Pack
from counterpoise.engine.progress import Pace
from counterpoise.errors import ConfigError

QUALITY = 95


@keywords(Pack)
def pack(data: RunLike, options: Pack) -> dict[str, Any]:
    """Write a set once into tar shards with an index beside them, which later runs read fast and in any order.

    `data` is a data folder, or a run whose `data` section is used. The pack takes its place as data.path: labels,
    classes, parts and the order of samples are those of the set, and so are the bytes of the files unless `shorter` is
    given.

    Returns:
        What was packed.
    """
    from counterpoise.data.packs import making
    from counterpoise.data.packs.samples import Shrinking

    if options.quality is not None and options.shorter is None:
        raise ConfigError("quality is of images that are made smaller: give shorter (--shorter 256), too.")
    shrinking = None if options.shorter is None else Shrinking(options.shorter, options.quality or QUALITY)
    pace: list[Pace] = []

    def tell(done: int, total: int) -> None:
        pace[:] = pace or [Pace(total, "images", options.show)]
        pace[0].at(done)

    section = inputs.named_data(data)
    return making.make(
        section,
        Path(options.out),
        shrinking=shrinking,
        shards=options.shards,
        shuffled=options.shuffle,
        tell=tell,
    )
