"""Real processes that open things whose time, memory and faults are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from counterpoise.deploy.measuring import timing, worker
from counterpoise.deploy.measuring.subjects import Subject
from counterpoise.deploy.measuring.timing import Settings
from counterpoise.errors import ConfigError, MeasureError

QUICK = {"rounds": 6, "seconds": 0.0001, "warm_up": 0.0, "calls": 3}
SLEEPS = "def load(path, threads):\n    import time\n    return lambda pixels: time.sleep({seconds} * len(pixels))\n"


def subject(source: str, path: Path = Path("nothing"), name: str = "thing", batch: int | None = None) -> Subject:
    return Subject(name, "python", "float32", path, source, (4, 6), (), batch)


def test_the_interval_is_that_of_order_statistics() -> None:
    assert timing.interval([3.0, 9.0, 1.0, 5.0, 7.0, 2.0, 4.0, 6.0, 8.0]) == (2.0, 8.0)
    assert timing.interval([3.0, 1.0, 2.0, 5.0, 4.0, 6.0]) == (1.0, 6.0)
    assert timing.interval([1.0] * 5) == (None, None)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).lognormal(size=(400, 9))
    held = [low is not None and high is not None and low <= 1.0 <= high for low, high in map(timing.interval, draws)]
    assert 0.93 < np.mean(held) < 0.99  # 96.1% of nine


def test_latency_is_that_of_a_call_with_the_whole_batch() -> None:
    ((one, four),) = timing.time_all([subject(SLEEPS.format(seconds=0.004))], Settings(batches=(1, 4), **QUICK))
    assert (one.batch, four.batch) == (1, 4)
    assert 4 <= one.median_ms < 8
    assert 16 <= four.median_ms < 24
    assert one.low_ms is not None
    assert one.high_ms is not None
    assert one.low_ms <= one.median_ms <= one.high_ms
    assert one.calls == 18
    assert one.processor_ms is not None
    assert one.processor_ms < 2  # asleep is not at work


def test_things_take_turns(tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    source = (
        "def load(path, threads):\n"
        "    import time\n"
        "    return lambda pixels: (open(path, 'a').write('{letter}'), time.sleep(0.001))\n"
    )
    pair = [subject(source.format(letter=letter), diary) for letter in "ab"]
    timing.time_all(pair, Settings(**QUICK))
    turn = 1 + 3  # a call to warm up, and three
    rounds = diary.read_text()
    assert rounds == ("a" * turn + "b" * turn + "b" * turn + "a" * turn) * 3


def test_memory_is_that_of_a_fresh_process() -> None:
    ours = np.ones(25_000_000)  # 200 MB, none of which a child has
    source = (
        "def load(path, threads):\n"
        "    import numpy as np\n"
        "    weights = np.ones(5_000_000)\n"  # 40 MB
        "    return lambda pixels: np.ones(len(pixels) * 1_250_000).sum() + weights[0]\n"  # 10 MB a picture
    )
    ((one, eight),) = timing.time_all([subject(source)], Settings(batches=(1, 8), **QUICK))
    assert one.peak_mb is not None
    assert one.network_mb is not None
    assert eight.network_mb is not None
    assert one.peak_mb < 8 * ours.size / 1e6
    assert 45 < one.network_mb < 75
    assert 60 < eight.network_mb - one.network_mb < 80


def test_threads_are_told_to_the_runtime_and_to_openmp() -> None:
    source = (
        "def load(path, threads):\n"
        "    import os, time\n"
        "    assert os.environ['OMP_NUM_THREADS'] == str(threads)\n"
        "    return lambda pixels: time.sleep(0.002 * threads)\n"
    )
    ((one, three),) = timing.time_all([subject(source)], Settings(threads=(1, 3), **QUICK))
    assert three.median_ms > 2 * one.median_ms


def test_a_fixed_batch_is_measured_as_it_is() -> None:
    source = (
        "def load(path, threads):\n    def run(pixels):\n        assert pixels.shape == (2, 3, 4, 6)\n    return run\n"
    )
    ((case,),) = timing.time_all([subject(source, batch=2)], Settings(batches=(1, 8), **QUICK))
    assert case.batch == 2


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def load(path, threads):\n    raise RuntimeError('no such operator: Spin')\n", "no such operator: Spin"),
        ("def load(path, threads):\n    return lambda pixels: pixels / None\n", "TypeError"),
        ("def load(path, threads):\n    import os\n    os._exit(9)\n", "its process ended with 9"),
        ("def load(path, threads):\n    print('noise')\n    import no_such_runtime\n", "no_such_runtime"),
    ],
)
def test_what_cannot_be_run_is_named(source: str, told: str) -> None:
    good = subject(SLEEPS.format(seconds=0), name="good")
    with pytest.raises(MeasureError, match=f"bad cannot be measured with python: .*{told}") as caught:
        timing.time_all([good, subject(source, name="bad")], Settings(**QUICK))
    assert caught.value.name == "bad"


@pytest.mark.parametrize("wrong", [{"rounds": 5}, {"threads": (0,)}, {"batches": ()}, {"seconds": 0.0}])
def test_settings_that_measure_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)).rstrip("es")):
        Settings(**wrong)  # type: ignore[arg-type]


def test_energy_is_read_as_the_kernel_lays_it_out(tmp_path: Path) -> None:
    """Documentation/power/powercap: packages are intel-rapl:N, and parts of them, not counted twice, intel-rapl:N:M."""
    for name, value in (("intel-rapl:0", 5_000_000), ("intel-rapl:0:0", 1), ("intel-rapl:1", 262_143_000_000)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
    before = worker._energy(str(tmp_path))
    assert before == [(5_000_000, 262_143_328_850), (262_143_000_000, 262_143_328_850)]
    assert worker._risen(before[0], (7_500_000, before[0][1])) == 2.5
    assert worker._risen(before[1], (671_150, before[1][1])) == pytest.approx(1.0)  # it started again
    assert worker._energy(str(tmp_path / "nothing")) is None
