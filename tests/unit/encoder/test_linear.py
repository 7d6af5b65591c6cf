"""Matrix products: torch's private operators and its public ones give the same results in every precision."""

import pytest
import torch

from spark_instructor.encoder import cpu, linear
from spark_instructor.encoder.linear import FeedForward, Linear, QuantizedLinear, quantize

SHAPES = [(1, 1, 1), (3, 7, 5), (130, 256, 513)]
# bfloat16 keeps 8 bits of a result. A float32 product computed in bfloat16 or TF32 would exceed float32's bounds.
BOUNDS = {torch.float32: {"atol": 1e-4, "rtol": 1e-5}, torch.bfloat16: {"atol": 0.1, "rtol": 1e-2}}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("pointwise", [True, False], ids=["onednn", "F.linear"])
@pytest.mark.parametrize("precision", BOUNDS, ids=str)
@pytest.mark.parametrize(("rows", "wide_in", "wide_out"), SHAPES)
def test_products(monkeypatch, precision, pointwise, packed, rows, wide_in, wide_out):
    if pointwise and not linear._POINTWISE[precision]:
        pytest.skip(f"this torch has no pointwise operator for {precision}")
    monkeypatch.setitem(linear._POINTWISE, precision, pointwise)
    x, weight = normal(rows, wide_in), normal(wide_out, wide_in, seed=1).to(precision)
    product = Linear(weight)
    if packed:
        product = product.pack()
    actual = product(x)
    assert actual.dtype == precision
    exact = x.to(precision).double() @ weight.double().T
    torch.testing.assert_close(actual.double(), exact, **BOUNDS[precision])

    out = Linear((normal(7, wide_out, seed=2) / wide_out**0.5).to(precision))
    hidden = exact.relu().to(precision)
    torch.testing.assert_close(product.feed_forward(x, out).double(), out(hidden).double(), **BOUNDS[precision])


def test_packing_twice_copies_once():
    packed = Linear(normal(5, 6)).pack()
    assert packed.pack() is packed


@pytest.mark.parametrize("precision", [*BOUNDS, torch.int8], ids=str)
@pytest.mark.parametrize("hidden", [16, 40])
def test_feed_forward(monkeypatch, processor, precision, hidden):
    """With AMX, packing cuts a hidden layer in bfloat16 into blocks; the results stay the same up to rounding."""
    monkeypatch.setattr(linear, "_HIDDEN_COLUMNS", 16)
    weights = normal(hidden, 24, seed=1), normal(9, hidden, seed=2) / hidden**0.5
    if precision == torch.int8:
        wi, wo = (QuantizedLinear(*quantize(weight)) for weight in weights)
    else:
        wi, wo = (Linear(weight.to(precision)) for weight in weights)
    plain = FeedForward([(wi, wo)])
    packed = plain.pack().pack()
    is_cut = hidden > 16 and processor == "AMX" and precision == torch.bfloat16 and linear._POINTWISE[precision]
    assert len(packed._blocks) == (3 if is_cut else 1)
    x, stream = normal(5, 24), normal(5, 9, seed=3)
    by_plain, by_packed = stream.clone(), stream.clone()
    plain.add_to(by_plain, x)
    packed.add_to(by_packed, x)
    torch.testing.assert_close(by_packed, by_plain, **BOUNDS.get(precision, BOUNDS[torch.float32]))
    torch.testing.assert_close(by_plain - stream, (x @ weights[0].T).relu() @ weights[1].T, atol=0.1, rtol=0.02)


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize(("rows", "wide_in", "wide_out"), SHAPES)
def test_quantized_products(monkeypatch, rows, wide_in, wide_out, onednn):
    """A product is as exact as 8-bit inputs allow: rounding moves each input by at most half a step."""
    if onednn and not linear._QUANTIZED:
        pytest.skip("this torch or this processor has no quantized operator")
    monkeypatch.setattr(linear, "_QUANTIZED", onednn)
    x, weight = normal(rows, wide_in), normal(wide_out, wide_in, seed=1)
    product = QuantizedLinear(*quantize(weight))
    actual = product(x)
    assert actual.dtype == torch.float32
    exact = x.double() @ weight.double().T
    assert ((actual - exact).abs() <= half_steps(x, weight, levels=127) + 1e-5).all()

    of_out = normal(7, wide_out, seed=2)
    hidden = actual.relu()
    exact = hidden.double() @ of_out.double().T
    actual = product.feed_forward(x, QuantizedLinear(*quantize(of_out)))
    # The hidden values are never negative, so all 8 bits are available for their magnitude.
    assert ((actual - exact).abs() <= half_steps(hidden, of_out, levels=255) + 1e-5).all()


def half_steps(x, weight, levels):
    """Return the largest error that rounding can cause: half a step of each factor times the other factor."""
    step_of_x = x.abs().amax(1, keepdim=True) / levels
    step_of_weight = weight.abs().amax(1) / 127
    return step_of_x / 2 * weight.abs().sum(1) + step_of_weight / 2 * (
        x.abs().sum(1, keepdim=True) + x.shape[1] * step_of_x
    )


def test_quantized_products_agree(monkeypatch):
    """Integer sums are exact, so the private operator and the public one differ only by rounding."""
    if not linear._QUANTIZED:
        pytest.skip("this torch or this processor has no quantized operator")
    x, weight = normal(64, 300), quantize(normal(200, 300, seed=1))
    private = QuantizedLinear(*weight)(x)
    monkeypatch.setattr(linear, "_QUANTIZED", False)
    torch.testing.assert_close(QuantizedLinear(*weight)(x), private, atol=1e-4, rtol=1e-5)


def test_quantized_weights_without_the_operators_stay_as_they_are(monkeypatch):
    """Processes share the pages of the file; a float32 copy would belong to one of them and take four times as much."""
    monkeypatch.setattr(linear, "_QUANTIZED", False)
    weight = torch.ones(4, 8, dtype=torch.int8)
    product = QuantizedLinear(weight, torch.ones(4))
    product(torch.ones(2, 8))
    tensors = [value for value in vars(product).values() if isinstance(value, torch.Tensor)]
    assert {tensor.dtype: tensor.numel() for tensor in tensors} == {torch.int8: 32, torch.float32: 4}
    assert any(tensor.data_ptr() == weight.data_ptr() for tensor in tensors)
    packed = product.pack()
    assert packed.pack() is packed
    torch.testing.assert_close(packed(torch.ones(2, 8)), product(torch.ones(2, 8)), rtol=0, atol=0)


def test_quantized_rows_do_not_meet():
    """Each row has its own scale: large values do not affect other rows, and a row of zeros stays zero."""
    weight = quantize(torch.cat([normal(8, 16), torch.zeros(1, 16)]))
    x = normal(3, 16)
    together = QuantizedLinear(*weight)(torch.cat([x, x * 1e6, torch.zeros(1, 16)]))
    torch.testing.assert_close(together[:3], QuantizedLinear(*weight)(x))
    assert not together[-1].any()
    assert not together[:, -1].any()


def test_inputs_are_left_alone():
    x, weight, out = normal(4, 6), normal(5, 6), normal(3, 5)
    before = x.clone(), weight.clone()
    for product, second in (
        (Linear(weight).pack(), Linear(out)),
        (QuantizedLinear(*quantize(weight)), QuantizedLinear(*quantize(out))),
    ):
        product(x)
        product.feed_forward(x, second)
        assert torch.equal(x, before[0])
        assert torch.equal(weight, before[1])


def test_missing_operators_are_noticed(monkeypatch):
    """Builds of torch without oneDNN use the public operators."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not linear._has_pointwise(torch.float32)
    assert not linear._has_quantized()


def test_no_quantized_operator_without_vnni(monkeypatch):
    monkeypatch.setattr(cpu, "has_vnni", lambda: False)
    assert not linear._has_quantized()
