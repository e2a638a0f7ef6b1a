from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from frozenmm.foundation.masked_tokens import attend, cell_rows, multi_token_mask, pyramid_cells


@pytest.mark.parity
def test_the_mask_equals_the_recorded_one_at_the_real_grid(golden_case) -> None:
    case = golden_case('frozen_detr', 'clip_multi_class_token__mask_grid24')
    grid = case.params['patch_grid']
    for count in case.params['num_class_tokens']:
        packed = np.packbits(multi_token_mask(grid, count).numpy())
        assert np.array_equal(packed, case.outputs[f'mask_packed_{count}'].numpy())


@given(rows=st.integers(1, 12), columns=st.integers(1, 12), count=st.sampled_from([1, 5, 14, 30]))
def test_every_patch_is_in_some_cell_of_every_step(rows: int, columns: int, count: int) -> None:
    cells = pyramid_cells((rows, columns), count)
    assert cells.shape == (count, rows * columns) and cells[0].all() and cells.any(1).all()
    start = 0
    for step in {1: [1], 5: [1, 2], 14: [1, 2, 3], 30: [1, 2, 3, 4]}[count]:
        assert cells[start:start + step**2].any(0).all()
        start += step**2


@given(grid=st.tuples(st.integers(1, 9), st.integers(1, 9)), count=st.sampled_from([1, 5, 14]))
def test_cells_are_those_of_adaptive_pooling(grid: tuple[int, int], count: int) -> None:
    values = torch.rand(1, 1, *grid, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    steps = {1: 1, 5: 2, 14: 3}[count]
    expected = torch.cat([F.adaptive_avg_pool2d(values, k).flatten() for k in range(1, steps + 1)])
    cells = pyramid_cells(grid, count).double()
    torch.testing.assert_close((cells / cells.sum(1, keepdim=True)) @ values.flatten(), expected)


@pytest.mark.parametrize('count', [1, 5, 14])
@pytest.mark.parametrize('grid', [(6, 6), (4, 7)])
def test_attention_in_two_parts_equals_attention_under_the_whole_mask(count: int, grid: tuple[int, int],
                                                                      generator: torch.Generator) -> None:
    shape = (2, 3, count + grid[0] * grid[1], 8)
    query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=~multi_token_mask(grid, count))
    torch.testing.assert_close(attend(query, key, value, cell_rows(grid, count)), expected)


def test_registers_are_not_seen_by_cell_tokens(generator: torch.Generator) -> None:
    shape = (1, 2, 4 + 3 + 4, 8)
    query, key, value = (torch.randn(shape, generator=generator) for _ in range(3))
    cells = cell_rows((2, 2), 5, prefix=3)
    before = attend(query, key, value, cells)
    value[:, :, 5:7] += 1
    after = attend(query, key, value, cells)
    assert torch.equal(before[:, :, :4], after[:, :, :4]) and not torch.equal(before[:, :, 4:], after[:, :, 4:])


@pytest.mark.parametrize('count', [0, 2, 6])
def test_other_numbers_of_tokens_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=r'num_tokens must be one of \[1, 5, 14, 30\], got'):
        multi_token_mask(6, count)
