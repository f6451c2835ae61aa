import torch

from components.columns import Blocks, Columns


def blocks(seed: int = 0, odds: float = 0.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    random = torch.Generator().manual_seed(seed)
    features = [torch.randn(rows, 6, generator=random) * torch.arange(1.0, 7.0) for rows in (20, 35)]
    return features, [torch.randn(len(block), generator=random) + odds for block in features]


def test_the_rotation_diagonalises_the_mean_hessian() -> None:
    features, odds = blocks()
    rotated, rotation = Blocks.rotated(features, odds)
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(6), atol=1e-5, rtol=0)
    hessian = torch.zeros(6, 6)
    for block, values in zip(rotated.features, odds, strict=True):
        weight = torch.sigmoid(values) * torch.sigmoid(-values) / len(block)
        hessian += block.T @ torch.diag(weight) @ block / 2
    torch.testing.assert_close(hessian, torch.diag(rotated.curvature), atol=1e-4, rtol=1e-4)


def test_another_lambda_is_as_if_started_with_it() -> None:
    rotated, _ = Blocks.rotated(*blocks())
    members = torch.tensor([[True, False], [True, True]])
    columns = Columns.start(rotated, members, torch.ones(2))
    columns.iterate()
    columns.set_lambda(torch.tensor([False, True]), torch.tensor([0.2]))
    w = columns.w[1].double()
    gradient = 0.2 * w
    for block, odds in zip(rotated.features, rotated.odds, strict=True):
        slope = torch.sigmoid(odds.double() + block.double() @ w)
        gradient += slope @ block.double() / len(block) / 2
    torch.testing.assert_close(columns.gradient[1].double(), gradient, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(columns.lam, torch.tensor([1.0, 0.2]))


def test_no_step_passes_the_minimum_far_where_a_newton_step_would() -> None:
    rotated, _ = Blocks.rotated(*blocks(odds=20.0))
    columns = Columns.start(rotated, torch.ones(1, 2, dtype=torch.bool), torch.tensor([1e-3]))
    direction, before = columns.direction.clone(), (columns.gradient * columns.direction).sum()
    columns.iterate()
    behind = (columns.gradient * direction).sum()
    assert before < 0
    assert behind <= -0.5 * before
