"""Exported functions hold the values and derivatives that PyTorch itself gives."""

from __future__ import annotations

import pytest
import torch

from tests.client.frontends.torch import torch_table as table
from tests.client.frontends.torch.torch_oracle import agree, exported

ONE_TENSOR = {
    f"{family}: {name}": case
    for family, cases in {
        "one": table.ONE,
        "shapes": table.SHAPES,
        "reductions": table.REDUCTIONS,
        "matrices": table.MATRICES,
        "networks": table.ACTIVATIONS,
    }.items()
    for name, case in cases.items()
}


@pytest.mark.parametrize("case", ONE_TENSOR)
def test_a_function_of_one_tensor_agrees_with_pytorch(case: str) -> None:
    fn, x = ONE_TENSOR[case]
    family, _, name = case.partition(": ")
    linear = family == "shapes"
    second = not linear and case not in table.WITHOUT_SECOND
    agree(fn, x, rtol=table.RTOL.get(name, 1e-12), second=second)


@pytest.mark.parametrize("case", table.TWO)
def test_a_function_of_two_tensors_agrees_with_pytorch(case: str) -> None:
    fn, x, y = table.TWO[case]
    agree(fn, x, y, second=case not in table.WITHOUT_SECOND)


def test_the_gates_of_recurrent_cells_are_written_without_copies_of_all_of_them() -> None:
    cell, steps = torch.nn.LSTMCell(3, 4, dtype=torch.float64), 4

    def fn(x: torch.Tensor) -> torch.Tensor:
        state = None
        for step in range(steps):
            state = cell(x[step], state)
        return state[0]

    nodes = exported(fn, torch.rand(steps, 2, 3, dtype=torch.float64)).model.graph.node
    assert sum(node.op_type == "Concat" for node in nodes) <= 3
    assert len(nodes) <= 30 * steps
