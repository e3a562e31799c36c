"""Embeddings: the three forms agree with each other and with arithmetic by hand."""

from __future__ import annotations

import pytest
import torch

from dynens.batch import SparseField, field_offsets
from dynens.config.learner import Pooling
from dynens.layers.blocks import ByteDropout
from dynens.layers.columns import Columns
from dynens.layers.embeddings import POOLINGS, FlatEmbeddings, SparseEmbeddings
from dynens.layers.field_tables import FieldTables, join_flat_table, split_flat_table
from dynens.layers.interactions import CrossNetwork, PairwiseInnerProducts, fm_second_order

FIELDS = (SparseField("a", 3), SparseField("b", 4, 2))
# Field a's ids, then two columns of field b; -1 pads.
IDS = torch.tensor([[0, 1, 3], [2, 2, -1]], dtype=torch.int32)


def numbered(embeddings: SparseEmbeddings) -> SparseEmbeddings:
    """Row r of the flat table becomes (r, 10·r); padding rows stay zero."""
    with torch.no_grad():
        rows = torch.arange(len(embeddings.weight), dtype=torch.float32)
        embeddings.weight.copy_(torch.stack([rows, 10 * rows], dim=1))
        embeddings.weight[[0, 4]] = 0.0
    return embeddings


def test_offsets_point_one_past_the_padding_row() -> None:
    assert field_offsets(FIELDS) == [1, 5]


@pytest.mark.parametrize(("pooling", "of_list"), [("sum", 14.0), ("mean", 7.0)])
def test_lookup_and_pooling_by_hand(pooling: Pooling, of_list: float) -> None:
    embeddings = numbered(SparseEmbeddings(FIELDS, 2, pooling=pooling))
    # Row 0: a = row 1; b = rows 6 and 8. Row 1: a = row 3; b = row 7 alone.
    expected = [[[1.0, 10.0], [of_list, 10 * of_list]], [[3.0, 30.0], [7.0, 70.0]]]
    assert embeddings(IDS).tolist() == expected


@pytest.mark.parametrize(("pooling", "num_summed"), [("sum", 2), ("mean", 0)])
def test_inference_form_equals_training_form(pooling: Pooling, num_summed: int) -> None:
    embeddings = SparseEmbeddings(FIELDS, 2, pooling=pooling)
    twin = FlatEmbeddings(FIELDS, embeddings.weight, num_summed)
    torch.testing.assert_close(twin(IDS), embeddings(IDS))


def test_single_valued_fields_take_the_same_values() -> None:
    single = (SparseField("a", 3), SparseField("b", 4))
    embeddings = numbered(SparseEmbeddings(single, 2))
    ids = IDS[:, :2]
    assert embeddings(ids).tolist() == [[[1.0, 10.0], [6.0, 60.0]], [[3.0, 30.0], [7.0, 70.0]]]
    torch.testing.assert_close(FlatEmbeddings(single, embeddings.weight, 0)(ids), embeddings(ids))


@pytest.mark.parametrize("fields", [FIELDS, (SparseField("a", 3), SparseField("b", 4))])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_field_tables_hold_the_same_function(
    fields: tuple[SparseField, ...], pooling: Pooling
) -> None:
    flat = SparseEmbeddings(fields, 4, pooling=pooling)
    tables = FieldTables(fields, 4, pooling)
    with torch.no_grad():
        for name, rows in split_flat_table(fields, flat.weight).items():
            tables.collection.embedding_bags[name].weight.copy_(rows)
    ids = IDS if fields is FIELDS else IDS[:, :2]
    torch.testing.assert_close(tables(ids), flat(ids))


def test_flat_table_survives_the_round_trip() -> None:
    flat = SparseEmbeddings(FIELDS, 4).weight.detach()
    assert torch.equal(join_flat_table(FIELDS, split_flat_table(FIELDS, flat)), flat)


def test_sums_and_means_of_lists_by_hand() -> None:
    fields = (SparseField("a", 3), SparseField("b", 4, 3), SparseField("c", 9, 2))
    ids = torch.tensor(
        [[1, 2, 0, 3, 5, -1], [0, 1, -1, -1, 1, -1]], dtype=torch.int32
    )  # row 1: both lists are empty
    rows = torch.arange(19.0).unsqueeze(1).repeat(1, 2)
    rows[[0, 4, 9]] = 0.0  # padding
    pooled = FlatEmbeddings(fields, rows, 1)(ids)
    # Row 0: a 2; b (7, 5, 8); c 15. Row 1: a 1; missing is row 6 of b and row 11 of c.
    sums, means = [[2.0, 20.0, 15.0], [1.0, 6.0, 11.0]], [[2.0, 20 / 3, 15.0], [1.0, 6.0, 11.0]]
    torch.testing.assert_close(pooled, torch.tensor([sums, means]).permute(1, 2, 0))
    for num_summed in (0, 2):
        same = FlatEmbeddings(fields, rows, num_summed)(ids)
        torch.testing.assert_close(same, pooled[:, :, [1 - num_summed // 2] * 2])


def test_byte_dropout_keeps_the_mean_and_drops_the_share() -> None:
    torch.manual_seed(0)
    dropped = ByteDropout(0.25)(torch.ones(200, 500))
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.max().item() == pytest.approx(4 / 3)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)


def test_byte_dropout_is_the_identity_when_evaluating() -> None:
    x = torch.randn(3, 5)
    assert ByteDropout(0.5).eval()(x) is x


def test_cross_layer_by_hand() -> None:
    cross = CrossNetwork(2, 2)
    with torch.no_grad():
        for parameter in cross.parameters():
            parameter.fill_(1.0)
    # x0 = (1, 2): W x0 + b = 4, x1 = 4·x0 + x0 = (5, 10); W x1 + b = 16, x2 = 16·x0 + x1.
    assert cross(Columns.of(torch.tensor([[1.0, 2.0]]))).tolist() == [[21.0, 42.0]]


def test_fm_equals_the_sum_over_pairs() -> None:
    v = torch.randn(6, 5, 3)
    pairs = sum((v[:, i] * v[:, j]).sum(1) for i in range(5) for j in range(i + 1, 5))
    torch.testing.assert_close(fm_second_order(v), pairs)


def test_inner_products_in_order_of_pairs() -> None:
    v = torch.tensor([[[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]]])
    assert PairwiseInnerProducts(3)(Columns.of(v)).whole().tolist() == [[2.0, 0.0, 3.0]]


def test_the_deviation_at_the_start_is_as_asked() -> None:
    fields = (SparseField("user", 4000),)
    weights = [SparseEmbeddings(fields, 4, initial_std=std).weight for std in (0.01, 0.3)]
    torch.testing.assert_close(
        torch.tensor([float(w.detach().std()) for w in weights]),
        torch.tensor([0.01, 0.3]),
        rtol=0.05,
        atol=0,
    )


def test_values_never_met_have_the_mean_row_of_their_field() -> None:
    table = SparseEmbeddings((SparseField("a", 3), SparseField("b", 4), SparseField("c", 2)), 1)
    with torch.no_grad():
        table.weight.copy_(torch.arange(12.0)[:, None])
    count = torch.tensor([0, 0, 1, 3, 7, 2, 2, 0, 0, 0, 0, 0])  # padding stays, met or not
    table.fill_unseen(count)
    weights = table.weight.detach().squeeze(1).tolist()
    assert weights == [0, (2 + 3 * 3) / 4, 2, 3, 4, 5, 6, 5.5, 5.5, 9, 10, 11]
