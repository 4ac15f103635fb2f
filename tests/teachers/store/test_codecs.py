"""What each precision keeps of logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from counterpoise.errors import StoreError
from counterpoise.objectives.divergence import forward_kl_values, reverse_kl_values
from counterpoise.teachers.store import codecs

PRECISIONS = (*codecs.PRECISIONS, "top1", "top2", "top3")
quick = settings(max_examples=40)


@st.composite
def logits(draw: st.DrawFn, least: int = 4) -> Tensor:
    """[N, C] or [N, C, h, w] of many magnitudes, with ties and equal rows."""
    classes = draw(st.integers(least, 70))
    inner = draw(st.sampled_from([(), (2, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    values = torch.randn(draw(st.integers(1, 5)), classes, *inner, generator=generator)
    values = values * 10.0 ** draw(st.integers(-4, 3)) + draw(st.sampled_from([0.0, 5.0, -300.0]))
    if draw(st.booleans()):
        values = values.round()
    if draw(st.booleans()):
        values[0] = values[0].flatten()[0]
    return values


def roundtrip(precision: str, values: Tensor) -> Tensor:
    codec = codecs.find(precision, values.shape[1:])
    records = codec.encode(values)
    assert records.shape == (len(values), codec.row_bytes)
    assert records.dtype == torch.uint8
    return codec.decode(records)


@quick
@given(logits())
def test_float32_keeps_every_bit(values: Tensor) -> None:
    assert torch.equal(roundtrip("float32", values), values)


@quick
@given(logits())
def test_float16_keeps_every_bit_of_a_half_precision_teacher(values: Tensor) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        half = values.to(dtype)
        if dtype is torch.bfloat16:  # below 2**-14, float16 has fewer bits
            half = torch.where(half.abs() < 2**-6, 0, half)
        assert torch.equal(roundtrip("float16", half), half.float())


@pytest.mark.parametrize("format", [1, 2])
@pytest.mark.parametrize("bits", [8, 4])
@quick
@given(values=logits())
def test_an_error_is_at_most_half_a_step_of_the_rest(bits: int, format: int, values: Tensor) -> None:
    codec = codecs.find(f"int{bits}", values.shape[1:], format)
    decoded = codec.decode(codec.encode(values))
    head = codecs.HEADS[format] if values.shape[1] >= codecs.SMALL else 0
    largest, where = values.topk(head + 1, dim=1)
    smallest, levels = values.amin(1, keepdim=True), 2**bits - 1
    step = (largest[:, -1:] - smallest) / levels
    # dense positions of one scale have it and their low in float16
    size = values.abs().amax(1, keepdim=True)
    rounding = 2e-6 * size + 1e-7 if values.ndim == 2 else 2**-10 * size + 1e-5 + 2**-10 * 2**bits * step
    if isinstance(codec, codecs.Halves):
        middle = values.median(dim=1, keepdim=True).values
        over, under = (largest[:, -1:] - middle) / (levels - codec.lower), (middle - smallest) / codec.lower
        step = torch.where(values < middle, under, over)
        rounding = 2e-6 * size + 1e-7 + 2**-10 * (largest[:, :1] - smallest)
    error = (decoded - values).abs()
    kept = torch.zeros_like(values, dtype=torch.bool).scatter(1, where[:, :head], True)
    assert (error <= torch.where(kept, 0, step / 2) + rounding + kept * (2**-10 * (largest[:, :1] - values))).all()


@pytest.mark.parametrize("precision", PRECISIONS)
@quick
@given(values=logits())
def test_a_record_depends_on_its_own_logits_alone(precision: str, values: Tensor) -> None:
    codec = codecs.find(precision, values.shape[1:])
    together = codec.encode(values)
    assert torch.equal(together, torch.cat([codec.encode(row[None]) for row in values]))
    assert torch.equal(codec.decode(together)[-1:], codec.decode(together[-1:]))


@pytest.mark.parametrize("precision", PRECISIONS)
@quick
@given(values=logits())
def test_the_records_are_what_numpy_reads(precision: str, values: Tensor) -> None:
    codec = codecs.find(precision, values.shape[1:])
    rows = codec.encode(values).numpy().view(codec.dtype)[:, 0]
    if precision.startswith("float"):
        assert torch.equal(torch.from_numpy(rows["logits"].copy()).float(), codec.decode(codec.encode(values)))
    elif precision == "int8" and "where" not in rows.dtype.names:
        read = rows["low"].astype("f4") + rows["codes"].astype("f4") * rows["scale"].astype("f4")
        torch.testing.assert_close(torch.from_numpy(read), codec.decode(codec.encode(values)), rtol=1e-5, atol=1e-3)
    elif precision in ("int8", "int4") and "where" in rows.dtype.names:
        below = rows["top"] - rows["below"].astype("f4")
        high, middle, low = below[:, -3:-2], below[:, -2:-1], below[:, -1:]
        median = np.sort(values.numpy(), axis=1)[:, [(values.shape[1] - 1) // 2]]
        assert (np.abs(middle - median) <= 2**-10 * (rows["top"] - median) + 1e-4).all()
        codes = rows["codes"]
        if precision == "int4":
            codes = np.concatenate([codes & 15, codes >> 4], axis=1)[:, : values.shape[1]]
        codes, split, steps = codes.astype("f4"), *((91, 255) if precision == "int8" else (6, 15))
        upper = middle + (codes - split) * (high - middle) / (steps - split)
        read = np.where(codes > split, upper, low + codes * (middle - low) / split)
        np.put_along_axis(read, rows["where"].astype("i8"), np.concatenate([rows["top"], below[:, :-3]], axis=1), 1)
        torch.testing.assert_close(torch.from_numpy(read), codec.decode(codec.encode(values)), rtol=1e-5, atol=1e-3)
    else:
        assert rows.dtype.itemsize == codec.row_bytes


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_teacher_s_answer_stays(precision: str) -> None:
    values = torch.randn(500, 100, generator=torch.Generator().manual_seed(0)) * 4
    assert torch.equal(roundtrip(precision, values).argmax(1), values.argmax(1))


def test_8_bits_keep_both_divergences_and_their_gradients_to_one_percent() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = 3.6 * torch.randn(300, 100, generator=generator)
    teacher[:, 0] += 12
    student = (0.4 * teacher + torch.randn(300, 100, generator=generator)).requires_grad_()
    decoded = roundtrip("int8", teacher)
    rank = teacher.argsort(1, descending=True).argsort(1)
    for values in (forward_kl_values, reverse_kl_values):
        for temperature in (1.0, 2.0, 4.0):
            losses, gradients = [], []
            for logits in (teacher, decoded):
                losses.append(values(student, logits, temperature))
                gradients.append(torch.autograd.grad(losses[-1].sum(), student)[0])
            assert (losses[1] - losses[0]).abs().mean() < 0.01 * losses[0].mean()
            for part in (rank < 10, (rank >= 10) & (rank < 50), rank >= 50):
                assert (gradients[1] - gradients[0])[part].norm() < 0.01 * gradients[0][part].norm()


def test_top_k_spreads_the_mass_of_the_tail_evenly() -> None:
    values = 3 * torch.randn(20, 50, generator=torch.Generator().manual_seed(0))
    decoded = roundtrip("top5", values)
    before, after = values.softmax(1), decoded.softmax(1)
    where = values.topk(5, dim=1).indices
    torch.testing.assert_close(after.gather(1, where), before.gather(1, where), rtol=3e-3, atol=1e-5)
    rest = after.scatter(1, where, 0).sort(1).values[:, 5:]
    torch.testing.assert_close(rest, rest[:, :1].expand_as(rest))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_logits_that_are_not_finite_are_refused(precision: str, bad: float) -> None:
    values = torch.zeros(2, 10)
    values[1, 3] = bad
    with pytest.raises(StoreError, match="not finite"):
        codecs.find(precision, (10,)).encode(values)


@pytest.mark.parametrize(("precision", "shape"), [("float16", (10,)), ("int8", (10, 2, 2)), ("int8", (100,))])
def test_logits_too_large_for_a_precision_are_refused(precision: str, shape: tuple[int, ...]) -> None:
    values = torch.zeros(1, *shape)
    values[:, 0], values[:, 1] = -1e5, 1e5
    with pytest.raises(StoreError, match="too large"):
        codecs.find(precision, shape).encode(values)


@pytest.mark.parametrize(
    ("precision", "shape", "message"),
    [
        ("int7", (10,), "Precision 'int7' is unknown. Did you mean 'int8'"),
        ("top0", (10,), "unknown"),
        ("top10", (10,), "it keeps 1 to 9"),
        ("int8", (10, 3), r"\[C\] or \[C, h, w\]"),
    ],
)
def test_what_no_codec_does_is_said(precision: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        codecs.find(precision, shape)


def test_logits_of_another_shape_are_refused() -> None:
    with pytest.raises(StoreError, match=r"\[10\].*gave \[11\]"):
        codecs.find("int8", (10,)).encode(torch.zeros(3, 11))


def test_sizes_are_as_documented() -> None:
    sizes = {precision: codecs.find(precision, (100,)).row_bytes for precision in codecs.PRECISIONS}
    assert sizes == {"float32": 400, "float16": 200, "int8": 132, "int4": 82}
    assert codecs.find("int8", (1000,)).row_bytes == 1040
    assert codecs.find("int8", (150, 8, 8)).row_bytes == 64 * (150 + 32)
    assert codecs.find("int8", (19, 8, 8)).row_bytes == 64 * (19 + 4)
    assert [codecs.find(f"int{bits}", (100,), 1).row_bytes for bits in (8, 4)] == [122, 72]
    places = {classes: codecs.find("top1", (classes,)).row_bytes - 8 for classes in (256, 257, 2**15, 2**15 + 1)}
    assert places == {256: 1, 257: 2, 2**15: 2, 2**15 + 1: 4}


def test_logits_have_a_class_and_a_place_at_least() -> None:
    for shape in ((0,), (3, 0, 2), (), (2, 3), (2, 3, 4, 5)):
        with pytest.raises(StoreError, match=r"must have shape \[C\] or \[C, h, w\]"):
            codecs.find("float32", shape)
    assert [codecs.find("float32", shape).row_bytes for shape in ((1,), (1, 1, 1))] == [4, 4]
