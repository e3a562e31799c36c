"""Heads on constant weights against arithmetic by hand or an independent loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynens.config.learner import LearnerConfig, ModelName
from dynens.models.dcnv2 import DCNv2Head
from dynens.models.deepfm import DeepFMHead
from dynens.models.dnn import DNNHead
from dynens.models.finalmlp import FinalMLPHead
from dynens.models.fm import FMHead
from dynens.models.ipnn import IPNNHead
from dynens.models.lr import LRHead
from dynens.models.masknet import MaskNetHead
from dynens.models.network import Head, HeadClass, HeadInputs, HeadShape

DENSE = torch.tensor([[2.0]])
# Two fields with two components each.
EMBEDDINGS = torch.tensor([[[1.0, 2.0], [3.0, -1.0]]])


def head_of(head_class: HeadClass, model: ModelName, **updates: object) -> Head:
    config = LearnerConfig(model=model, embedding_dim=2, hidden_units=(2,), dropout=0.0)
    config = config.model_copy(update=updates)
    shape = HeadShape(1, 2, head_class.embedding_width(config))
    return head_class(shape, config).eval()


def fill(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_lr_adds_weights() -> None:
    head = head_of(LRHead, "lr")
    with torch.no_grad():
        head.get_parameter("dense.weight").fill_(0.5)
        head.get_parameter("dense.bias").fill_(0.25)
    # .25 + .5·2 + 1 + (-3)
    assert head(HeadInputs.of(DENSE, torch.tensor([[[1.0], [-3.0]]]))).item() == pytest.approx(
        -0.75
    )


def test_fm_by_hand() -> None:
    head = head_of(FMHead, "fm")
    with torch.no_grad():
        head.get_parameter("fm.linear.weight").fill_(0.5)
        head.get_parameter("fm.linear.bias").fill_(0.25)
        head.get_parameter("fm.dense_factors").copy_(torch.tensor([[1.0, 0.5]]))
    # Embeddings are [w, v]; w = .1 and .2, v as in EMBEDDINGS; the dense factor is 2·(1, .5).
    embeddings = torch.cat([torch.tensor([[[0.1], [0.2]]]), EMBEDDINGS], dim=2)
    first = 0.25 + 0.5 * 2 + 0.1 + 0.2
    pairs = (2 * 1 + 1 * 2) + (2 * 3 + 1 * -1) + (1 * 3 + 2 * -1)
    assert head(HeadInputs.of(DENSE, embeddings)).item() == pytest.approx(first + pairs)


def test_dnn_by_hand() -> None:
    head = head_of(DNNHead, "dnn")
    fill(head, 0.5)
    # x = [2, 1, 2, 3, -1] sums to 7; both hidden units are .5·7 + .5 = 4.
    assert head.features(HeadInputs.of(DENSE, EMBEDDINGS)).tolist() == [[4.0, 4.0]]
    assert head(HeadInputs.of(DENSE, EMBEDDINGS)).item() == pytest.approx(0.5 * 8 + 0.5)


@pytest.mark.parametrize(
    ("head_class", "model", "widths"),
    [
        (DNNHead, "dnn", (4, 3)),
        (IPNNHead, "ipnn", (4, 3)),
        (DeepFMHead, "deepfm", (4, 3)),
        (DCNv2Head, "dcnv2", (4, 3 + 5)),  # the last beside the cross network's output
        (FinalMLPHead, "finalmlp", (8, 6)),  # two streams
        (MaskNetHead, "masknet", (3, 3)),  # three blocks of a third of the first width
        (FMHead, "fm", (2,)),
        (LRHead, "lr", (3,)),
    ],
)
def test_hidden_layers_from_the_input_up(
    head_class: HeadClass, model: ModelName, widths: tuple[int, ...]
) -> None:
    head = head_of(head_class, model, hidden_units=(4, 3), fusion_heads=1)
    width = head.shape.embedding_dim
    inputs = HeadInputs.of(DENSE, torch.rand(1, 2, width))
    hidden = head.hidden(inputs)
    assert tuple(part.shape[1] for part in hidden) == widths
    assert torch.equal(hidden[-1], head.features(inputs))


def test_branches_are_networks_side_by_side() -> None:
    """Two branches are two perceptrons with one input, and the logit is their mean."""
    branched = head_of(DNNHead, "dnn", branches=2, hidden_units=(3, 2))
    singles = [head_of(DNNHead, "dnn", hidden_units=(3, 2)) for _ in range(2)]
    inputs = HeadInputs.of(DENSE, EMBEDDINGS)
    weights = branched.state_dict()
    for k, single in enumerate(singles):
        first = slice(3 * k, 3 * k + 3)
        single.load_state_dict(
            {
                "mlp.layers.0.weight": weights["mlp.layers.0.weight"][first],
                "mlp.layers.0.bias": weights["mlp.layers.0.bias"][first],
                "mlp.layers.2.weight": weights[f"mlp.layers.2.maps.{k}.weight"],
                "mlp.layers.2.bias": weights[f"mlp.layers.2.maps.{k}.bias"],
                "output.weight": weights[f"output.maps.{k}.weight"],
                "output.bias": weights[f"output.maps.{k}.bias"],
            }
        )
    expected = torch.stack([single(inputs) for single in singles], dim=1)
    features = branched.features(inputs)
    assert features.shape == (1, 4)
    torch.testing.assert_close(branched.branch_scores(features, inputs), expected)
    torch.testing.assert_close(branched(inputs), expected.mean(dim=1))
    assert expected[0, 0] != expected[0, 1]


def test_only_perceptrons_branch() -> None:
    with pytest.raises(ValueError, match="branches is 2 but model is dcnv2"):
        LearnerConfig(model="dcnv2", branches=2)


def test_dcnv2_by_hand() -> None:
    head = head_of(DCNv2Head, "dcnv2", cross_layers=1)
    fill(head, 0.5)
    # W x0 + b = 4 in every component, so the cross gives 4·x0 + x0 = 5·x0, which sums to 35.
    assert head(HeadInputs.of(DENSE, EMBEDDINGS)).item() == pytest.approx(0.5 * (35 + 8) + 0.5)


def test_low_rank_by_hand() -> None:
    dcnv2 = head_of(DCNv2Head, "dcnv2", cross_layers=1, rank=2)
    fill(dcnv2, 0.5)
    # V x0 = 3.5 twice, U of it + b = .5·7 + .5 = 4 as with the full matrix of this test above.
    assert dcnv2(HeadInputs.of(DENSE, EMBEDDINGS)).item() == pytest.approx(0.5 * (35 + 8) + 0.5)
    assert [tuple(p.shape) for p in dcnv2.cross.parameters()] == [(2, 5), (5, 2), (5,)]
    assert head_of(FinalMLPHead, "finalmlp", rank=2).gates[0][0].out_features == 2


def test_deepfm_is_fm_plus_dnn() -> None:
    deepfm = head_of(DeepFMHead, "deepfm")
    fm, dnn = head_of(FMHead, "fm"), head_of(DNNHead, "dnn")
    for head in (deepfm, fm, dnn):
        fill(head, 0.5)
    embeddings = torch.cat([torch.tensor([[[0.1], [0.2]]]), EMBEDDINGS], dim=2)
    expected = fm(HeadInputs.of(DENSE, embeddings)) + dnn(HeadInputs.of(DENSE, EMBEDDINGS))
    assert deepfm(HeadInputs.of(DENSE, embeddings)).item() == pytest.approx(expected.item())


def test_ipnn_by_hand() -> None:
    head = head_of(IPNNHead, "ipnn")
    fill(head, 0.5)
    # The one inner product is 1·3 + 2·(-1) = 1, so x sums to 8 and hidden units are 4.5.
    assert head(HeadInputs.of(DENSE, EMBEDDINGS)).item() == pytest.approx(0.5 * 9 + 0.5)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    return {k: v.detach().double().numpy() for k, v in module.named_parameters()}


def test_masknet_against_numpy() -> None:
    torch.manual_seed(0)
    head = head_of(MaskNetHead, "masknet", hidden_units=(4, 3), mask_blocks=2)
    p = arrays(head)
    e = EMBEDDINGS.double().numpy()[0]
    guide = np.concatenate([[2.0], e.ravel()])
    normed = np.concatenate([[2.0], layer_norm(e, p["norm.weight"], p["norm.bias"]).ravel()])
    blocks = []
    for k in range(2):
        q = {name.removeprefix(f"blocks.{k}."): v for name, v in p.items()}
        hidden = np.maximum(q["mask.0.weight"] @ guide + q["mask.0.bias"], 0)
        mask = q["mask.2.weight"] @ hidden + q["mask.2.bias"]
        out = layer_norm(q["hidden.weight"] @ (mask * normed), q["norm.weight"], q["norm.bias"])
        blocks.append(np.maximum(out, 0))
    hidden = np.maximum(
        p["mlp.layers.0.weight"] @ np.concatenate(blocks) + p["mlp.layers.0.bias"], 0
    )
    expected = p["output.weight"] @ hidden + p["output.bias"]
    assert head(HeadInputs.of(DENSE, EMBEDDINGS)).item() == pytest.approx(expected[0], abs=1e-5)


def test_finalmlp_against_numpy() -> None:
    torch.manual_seed(0)
    head = head_of(FinalMLPHead, "finalmlp", hidden_units=(4,), fusion_heads=2)
    p = arrays(head)
    x = np.array([2.0, 1.0, 2.0, 3.0, -1.0])
    streams = []
    for s in range(2):
        gate = p[f"gates.{s}.weight"] @ x + p[f"gates.{s}.bias"]
        gated = 2 / (1 + np.exp(-gate)) * x
        weight, bias = p[f"streams.{s}.layers.0.weight"], p[f"streams.{s}.layers.0.bias"]
        streams.append(np.maximum(weight @ gated + bias, 0))
    first, second = streams
    expected = p["fusion.linear.weight"] @ np.concatenate(streams) + p["fusion.linear.bias"]
    for k in range(2):
        cut = slice(2 * k, 2 * k + 2)
        expected = expected + first[cut] @ p["fusion.weight"][k] @ second[cut]
    assert head(HeadInputs.of(DENSE, EMBEDDINGS)).item() == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize("rows", [1, 5])
def test_finalmlp_logits_are_one_per_row(rows: int) -> None:
    head = head_of(FinalMLPHead, "finalmlp", hidden_units=(4,))
    logits: Tensor = head(HeadInputs.of(DENSE.expand(rows, -1), EMBEDDINGS.expand(rows, -1, -1)))
    assert logits.shape == (rows,)


@pytest.mark.parametrize(
    ("head_class", "model"),
    [
        (LRHead, "lr"),
        (FMHead, "fm"),
        (DNNHead, "dnn"),
        (DeepFMHead, "deepfm"),
        (DCNv2Head, "dcnv2"),
        (IPNNHead, "ipnn"),
        (MaskNetHead, "masknet"),
        (FinalMLPHead, "finalmlp"),
    ],
)
def test_the_logit_is_the_score_of_the_features(head_class: HeadClass, model: ModelName) -> None:
    torch.manual_seed(0)
    head = head_of(head_class, model, hidden_units=(4,))
    embeddings = torch.randn(3, 2, head.shape.embedding_dim)
    dense = torch.randn(3, 1)
    inputs = HeadInputs.of(dense, embeddings)
    features = head.features(inputs)
    assert features.ndim == 2
    torch.testing.assert_close(head.score(features, inputs), head(inputs))
