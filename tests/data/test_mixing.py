import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from counterpoise.data import mixing, random

ALPHAS = st.sampled_from([0.0, 0.1, 0.2, 1.0, 3.0])


def draw(indices, mixup=0.0, cutmix=0.0, height=32, width=32, seed=5, epoch=1):
    return mixing.draw(seed, epoch, indices, mixup=mixup, cutmix=cutmix, height=height, width=width)


def noise(n, height=32, width=32, seed=0):
    return torch.randint(
        0, 256, (n, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), ALPHAS, ALPHAS, st.integers(1, 40), st.integers(1, 40))
def test_a_batch_gives_the_bits_of_one_sample_at_a_time(indices, mixup, cutmix, height, width):
    if not mixup and not cutmix:
        mixup = 0.4
    n = len(indices)
    own, partner = noise(n, height, width, 1), noise(n, height, width, 2)
    labels, others = torch.arange(n) % 3, torch.arange(n) % 5 - 1
    mix = draw(torch.tensor(indices), mixup, cutmix, height, width)
    together = mixing.images(own, partner, mix), mixing.targets(labels, others, mix.share, 5)
    for i in range(n):
        one = draw(torch.tensor(indices[i : i + 1]), mixup, cutmix, height, width)
        assert torch.equal(mixing.images(own[i : i + 1], partner[i : i + 1], one)[0], together[0][i])
        assert torch.equal(mixing.targets(labels[i : i + 1], others[i : i + 1], one.share, 5)[0], together[1][i])


def test_mixup_is_the_weighted_mean_of_both_images():
    mix = draw(torch.arange(50), mixup=1.0)
    own, partner = noise(50, seed=1), noise(50, seed=2)
    share = mix.share.view(-1, 1, 1, 1)
    expected = own * share + partner * (1 - share)
    mixed = mixing.images(own, partner, mix)
    assert mixed.dtype == torch.uint8
    assert (mixed - expected).abs().max() <= 0.501


def test_mixing_an_image_with_itself_changes_nothing():
    images = noise(50)
    for mix in (draw(torch.arange(50), mixup=0.5), draw(torch.arange(50), cutmix=0.5)):
        assert torch.equal(mixing.images(images, images, mix), images)


@settings(max_examples=30)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 1000))
def test_cutmix_share_is_the_area_that_is_left(height, width, epoch):
    mix = draw(torch.arange(20), cutmix=1.0, height=height, width=width, epoch=epoch)
    own = torch.zeros(20, 3, height, width, dtype=torch.uint8)
    partner = torch.full_like(own, 255)
    mixed = mixing.images(own, partner, mix)
    assert torch.allclose(mix.share, mixed[:, 0].eq(0).flatten(1).float().mean(1), atol=1e-6)
    assert torch.equal(mixed[:, 0], mixed[:, 2])


def test_cutmix_box_is_one_rectangle():
    mixed = mixing.images(
        torch.zeros(30, 3, 16, 24, dtype=torch.uint8),
        torch.ones(30, 3, 16, 24, dtype=torch.uint8),
        draw(torch.arange(30), cutmix=1.0, height=16, width=24),
    )
    for image, box in zip(mixed[:, 0], draw(torch.arange(30), cutmix=1.0, height=16, width=24).box, strict=True):
        top, left, bottom, right = box.tolist()
        expected = torch.zeros(16, 24, dtype=torch.uint8)
        expected[top:bottom, left:right] = 1
        assert torch.equal(image, expected)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_share_is_beta_distributed(alpha):
    share = draw(torch.arange(20000), mixup=alpha).share.double()
    assert share.mean() == pytest.approx(0.5, abs=0.02)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_both_share_the_samples_evenly():
    mix = draw(torch.arange(4000), mixup=1.0, cutmix=1.0)
    by_box = mix.weight == 65536
    assert by_box.double().mean() == pytest.approx(0.5, abs=0.04)
    assert mix.box[~by_box, 2:].eq(mix.box[~by_box, :2]).all()


def test_targets_sum_to_one_where_both_are_labeled():
    generator = torch.Generator().manual_seed(0)
    own, partner = torch.randint(0, 10, (2, 500), generator=generator)
    for mix in (draw(torch.arange(500), mixup=0.3), draw(torch.arange(500), cutmix=1.0)):
        target = mixing.targets(own, partner, mix.share, 10)
        assert target.dtype == torch.float32
        assert torch.allclose(target.sum(1), torch.ones(500), atol=1e-6)
        assert torch.allclose(target[torch.arange(500), own][own != partner], mix.share[own != partner])
        assert target[own == partner].max(1).values.allclose(torch.tensor(1.0))


def test_a_mixture_with_an_unlabeled_sample_is_unlabeled():
    own, partner = torch.tensor([1, -1, 1, -1]), torch.tensor([2, 2, -1, -1])
    target = mixing.targets(own, partner, torch.tensor([0.25, 0.25, 1.0, 0.5]), 4)
    assert target.tolist() == [[0, 0.25, 0.75, 0], [0] * 4, [0] * 4, [0] * 4]


def test_partner_is_the_next_in_the_order_of_the_epoch():
    order = random.permutation(0, 0, 9)
    partner = mixing.partners(order)
    assert [partner[index].item() for index in order.tolist()] == [*order[1:].tolist(), order[0].item()]
    assert mixing.partners(torch.tensor([0])).tolist() == [0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_bits_of_the_cpu():
    mix = draw(torch.arange(60), mixup=0.4, cutmix=1.0)
    own, partner = noise(60, seed=1), noise(60, seed=2)
    on_gpu = mixing.images(own.cuda(), partner.cuda(), mix.to(torch.device("cuda")))
    assert torch.equal(on_gpu.cpu(), mixing.images(own, partner, mix))
