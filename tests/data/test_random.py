import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from counterpoise.data import random

SEEDS = st.integers(0, 2**64 - 1)
EPOCHS = st.integers(0, 2**32 - 1)
INDICES = st.lists(st.integers(0, 2**62), min_size=1, max_size=8)
STREAMS = st.sampled_from([random.ORDER, random.CROP, random.FLIP, random.RANDAUGMENT, random.MIX, random.SPLIT])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    words = [torch.tensor(int(word, 16)) for word in counter.split()]
    first, second = (int(word, 16) for word in key.split())
    assert random.philox(tuple(words), (first, second)).tolist() == [int(word, 16) for word in expected.split()]


@given(SEEDS, EPOCHS, INDICES, STREAMS, st.integers(1, 9))
def test_words_are_philox_of_index_epoch_and_stream(seed, epoch, indices, stream, count):
    found = random.words(seed, epoch, torch.tensor(indices), stream, count)
    for row, index in zip(found.tolist(), indices, strict=True):
        expected = []
        for block in range(3):
            counter = (index & 0xFFFFFFFF, index >> 32, epoch, stream * 65536 + block)
            expected += _philox_in_python(counter, (seed & 0xFFFFFFFF, seed >> 32))
        assert row == expected[:count]


def _philox_in_python(x, k):
    """The algorithm in Python's integers of any length, as the paper states it."""
    for _ in range(10):
        p, q = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = (q >> 32 ^ x[1] ^ k[0], q & 0xFFFFFFFF, p >> 32 ^ x[3] ^ k[1], p & 0xFFFFFFFF)
        k = ((k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF)
    return list(x)


@given(SEEDS, EPOCHS, INDICES, STREAMS)
def test_words_of_an_index_do_not_depend_on_the_others(seed, epoch, indices, stream):
    together = random.words(seed, epoch, torch.tensor(indices), stream, 6)
    alone = [random.words(seed, epoch, torch.tensor([index]), stream, 6) for index in indices]
    assert torch.equal(together, torch.cat(alone))


def test_seed_epoch_index_and_stream_each_change_the_words():
    index = torch.tensor([5])
    draws = [
        random.words(1, 2, index, random.CROP, 4),
        random.words(1 + 2**40, 2, index, random.CROP, 4),
        random.words(1, 3, index, random.CROP, 4),
        random.words(1, 2, index + 2**40, random.CROP, 4),
        random.words(1, 2, index, random.FLIP, 4),
    ]
    assert len({tuple(draw.flatten().tolist()) for draw in draws}) == len(draws)


def test_uniform_fills_the_unit_interval_evenly():
    values = random.to_uniform(random.words(7, 0, torch.arange(20000), random.MIX, 3))
    assert values.dtype == torch.float32
    assert values.shape == (20000, 3)
    assert 0 <= values.min() < 1e-3
    assert 1 - 1e-3 < values.max() < 1
    counts = torch.histc(values, bins=10, min=0, max=1)
    assert (counts - 6000).abs().max() < 6 * 6000**0.5
    assert torch.corrcoef(values.T).fill_diagonal_(0).abs().max() < 0.04


def test_the_largest_word_stays_below_one_and_below_the_bound():
    largest = torch.tensor([2**32 - 1])
    assert random.to_uniform(largest).item() == 1 - 2**-24
    assert random.to_integers(largest, 9).item() == 8
    assert random.to_integers(largest, 2**31 - 1).item() == 2**31 - 2


@given(st.integers(0, 2**63 - 1), EPOCHS, st.integers(0, 300))
def test_permutation_holds_every_index_once(seed, epoch, n):
    order = random.permutation(seed, epoch, n)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(n))


def test_every_epoch_and_seed_has_its_own_order():
    orders = {tuple(random.permutation(seed, epoch, 50).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_place_of_an_order_is_reached_evenly():
    places = torch.stack([random.permutation(0, epoch, 6).argsort() for epoch in range(900)])
    counts = torch.stack([(places == place).sum(0) for place in range(6)])
    assert (counts - 150).abs().max() < 6 * 150**0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_words_are_the_same_on_cpu_and_gpu():
    indices = torch.arange(1000) * 2**33 + 17
    on_gpu = random.words(2**63 + 5, 9, indices.cuda(), random.MIX, 5)
    assert torch.equal(on_gpu.cpu(), random.words(2**63 + 5, 9, indices, random.MIX, 5))


@given(SEEDS, EPOCHS, INDICES, STREAMS, st.integers(1, 40))
def test_words_from_arrays_are_those_from_tensors(seed, epoch, indices, stream, count):
    """As a GPU makes them, made on the CPU."""
    rows = torch.tensor(indices).unsqueeze(1)
    blocks = torch.arange(-(-count // 4))
    counter = (rows & 0xFFFFFFFF, rows >> 32, torch.full_like(blocks, epoch), stream * 65536 + blocks)
    expected = random.philox(counter, (seed & 0xFFFFFFFF, seed >> 32)).flatten(1)[:, :count]
    found = random.words(seed, epoch, torch.tensor(indices), stream, count)
    assert found.dtype == torch.int64
    assert torch.equal(found, expected)


def test_no_samples_have_no_words():
    assert random.words(1, 2, torch.arange(0), random.CROP, 6).shape == (0, 6)
