"""Matrix products: the private operator and F.linear give the same, in true float32."""

import pytest
import torch

from spark_instructor.encoder import linear


@pytest.mark.parametrize("pointwise", [True, False], ids=["onednn", "F.linear"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "wide_in", "wide_out"), [(1, 1, 1), (3, 7, 5), (130, 256, 513)])
def test_products(monkeypatch, precision, pointwise, rows, wide_in, wide_out):
    if pointwise and not linear._POINTWISE[precision]:
        pytest.skip(f"this torch has no pointwise operator for {precision}")
    monkeypatch.setitem(linear._POINTWISE, precision, pointwise)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, wide_in, generator=generator).to(precision)
    weight = torch.randn(wide_out, wide_in, generator=generator).to(precision)
    exact = x.double() @ weight.double().T
    # bfloat16 keeps 8 bits of a result; a float32 product that fell back to it or to TF32 would miss the first bound.
    bounds = {"atol": 1e-4, "rtol": 1e-5} if precision == torch.float32 else {"atol": 0.1, "rtol": 1e-2}
    for product, wanted in ((linear.linear, exact), (linear.linear_relu, exact.relu())):
        found = product(x, weight)
        assert found.dtype == precision
        torch.testing.assert_close(found.double(), wanted, **bounds)
        assert product is linear.linear or found.min() >= 0


def test_inputs_are_left_alone():
    x, weight = torch.randn(4, 6), torch.randn(5, 6)
    before = x.clone(), weight.clone()
    linear.linear_relu(x, weight)
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


def test_missing_operator_is_noticed(monkeypatch):
    """Builds of torch without oneDNN are taken to F.linear."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not linear._has_pointwise(torch.float32)
