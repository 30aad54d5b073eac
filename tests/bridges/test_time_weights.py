"""The weights lambda(t) of the losses, against the formulas of I2SB, DDBM and the released IBMD code."""
import pytest
import torch

from ibmd_basicsr.bridges import TIME_WEIGHTS

T = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
C_OUT = torch.tensor([-0.5, 2.0, -4.0], dtype=torch.float64)


@pytest.mark.parametrize('name, expected', [
    ('uniform', [1, 1, 1]),
    ('inverse_variance', [4, 1 / 4, 1 / 16]),
    ('clean_end', [100, 10**1.5, 1]),
    ('clean_end_inverse_variance', [40, 10**0.75 / 4, 1 / 16])])
def test_weights(name, expected):
    torch.testing.assert_close(TIME_WEIGHTS[name](T, C_OUT), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_all_weights_are_tested():
    assert set(TIME_WEIGHTS) == {'uniform', 'inverse_variance', 'clean_end', 'clean_end_inverse_variance'}
