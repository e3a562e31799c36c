from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dynens.batch import DenseDot, FeatureLayout, component_names
from dynens.layers.dots import DotColumns, dots, grid
from dynens.models.onnx_export import export_module
from dynens.models.selection import select_features
from tests.unit.layers.pairs import pairs_of

LAYOUT = FeatureLayout(
    (*component_names("user", 2), "price", *component_names("item", 2)),
    (),
    context_dense=2,
    dots=(DenseDot("item", "user", 2, 0.5, 2.0),),
)


def test_products_by_hand() -> None:
    dense = torch.tensor([[1.0, -0.5, 7.0, 0.5, 2.0], [0.0, 2.0, 7.0, 1.0, 1.25]])
    pairs = pairs_of(select_features(LAYOUT, None), dots)
    assert pairs == (DotColumns(slice(3, 5), slice(0, 2), 0.5, 2.0, owner_is_context=True),)
    # 0.5 - 1 and 2.5, less 0.5, by 2.
    torch.testing.assert_close(dots(dense, dense, pairs), torch.tensor([[-2.0], [4.0]]))


def test_one_context_stands_for_all_rows() -> None:
    dense = torch.tensor([[1.0, -0.5, 7.0, 0.5, 2.0], [1.0, -0.5, 7.0, 1.0, 1.25]])
    pairs = pairs_of(select_features(LAYOUT, None), dots)
    assert dots(dense, dense[:1], pairs).tolist() == dots(dense, dense, pairs).tolist()


def test_half_a_vector_has_no_product() -> None:
    assert select_features(LAYOUT, ("user[0]", "user[1]", "price", "item[0]")).pairs == ()
    assert select_features(LAYOUT, None).num_pairs == 1


def test_layouts_keep_products() -> None:
    assert FeatureLayout.from_dict(LAYOUT.to_dict()) == LAYOUT
    assert "dots" not in replace(LAYOUT, dots=()).to_dict()


@pytest.mark.parametrize("length", [1, 8, 64, 768, 65536])
def test_sums_are_exact_in_any_order(length: int) -> None:
    """Even of components beyond the largest."""
    generator = torch.Generator().manual_seed(length)
    first, second = 20 * torch.randn(2, 1, length, generator=generator)
    pair = DotColumns(slice(0, length), slice(length, 2 * length), 0.0, 1.0)
    rows = torch.cat([first, second], dim=1)
    order = torch.randperm(length, generator=generator)
    shuffled = torch.cat([first[:, order], second[:, order]], dim=1)
    assert dots(rows, rows, [pair]).equal(dots(shuffled, shuffled, [pair]))
    steps = grid(length)
    on_grid = [np.round(np.clip(x[0].double(), -8, 8) * steps) for x in (first, second)]
    assert dots(rows, rows, [pair]).item() == (on_grid[0] * on_grid[1]).sum().item() / steps**2


def test_rounding_moves_products_little() -> None:
    rows = torch.randn(500, 2 * 768, generator=torch.Generator().manual_seed(0))
    pair = DotColumns(slice(0, 768), slice(768, 2 * 768), 0.0, 768**-0.5)
    exact = (rows[:, :768] * rows[:, 768:]).sum(dim=1, keepdim=True) * pair.scale
    assert (dots(rows, rows, [pair]) - exact).std() < 0.03 * exact.std()


def test_onnx_runtime_has_the_same_to_the_last_bit(tmp_path: Path) -> None:
    length = 96
    layout = FeatureLayout(
        (*component_names("u", length), *component_names("v", length)),
        (),
        dots=(DenseDot("v", "u", length, 0.3, 0.7),),
    )
    pairs = pairs_of(select_features(layout, None), dots)

    class Dots(nn.Module):
        def forward(self, dense: Tensor, ids: Tensor, context_rows: Tensor | None = None) -> Tensor:
            return dots(dense, dense, pairs)

    export_module(Dots(), layout, tmp_path / "dots.onnx", outputs=("dots",))
    session = onnxruntime.InferenceSession(tmp_path / "dots.onnx")
    dense = torch.randn(300, 2 * length, generator=torch.Generator().manual_seed(0))
    ids = np.zeros((300, 0), np.int32)
    (found,) = session.run(["dots"], {"dense": dense.numpy(), "ids": ids})
    assert np.array_equal(found, dots(dense, dense, pairs).numpy())
