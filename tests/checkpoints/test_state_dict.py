"""Weight files: strict, safe, atomic."""
import os
import pickle

import pytest
import torch
from torch import nn

from ibmd_basicsr.checkpoints.state_dict import load_file, load_params, load_preferred_params, load_strictly, save_atomically
from ibmd_basicsr.utils.errors import CheckpointError


class Evil:
    """Unpickling this object would create a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_half_precision_files_load_into_float32(tmp_path):
    net = nn.Linear(3, 2)
    save_atomically({'params_ema': {k: v.half() for k, v in net.state_dict().items()}}, tmp_path / 'a.pth')
    other = nn.Linear(3, 2)
    load_strictly(other, load_params(tmp_path / 'a.pth', 'params_ema'), 'a.pth')
    assert other.weight.dtype == torch.float32
    torch.testing.assert_close(other.weight, net.weight, rtol=1e-3, atol=1e-3)


def test_module_prefixes_are_removed(tmp_path):
    torch.save({'params': {'module.weight': torch.ones(1)}}, tmp_path / 'a.pth')
    assert list(load_params(tmp_path / 'a.pth')) == ['weight']


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    for name, content in (('a.pth', Evil(tmp_path / 'ran')), ('b.pth', {'params': Evil(tmp_path / 'ran')})):
        torch.save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match=rf'{name}: needs code to be run to be read \(global posix.mkdir\), refused\.$'):
            load_file(tmp_path / name)
    (tmp_path / 'c.pth').write_bytes(pickle.dumps(Evil(tmp_path / 'ran')))
    with pytest.raises(CheckpointError, match='c.pth'):
        load_file(tmp_path / 'c.pth')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('damage', [b'', b'not a checkpoint', None])
def test_damaged_files_give_one_line(tmp_path, damage):
    path = tmp_path / 'a.pth'
    torch.save({'params': {'w': torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:700] if damage is None else damage)
    with pytest.raises(CheckpointError) as caught:
        load_params(path)
    assert str(path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('content, found', [
    ({'params': {'w': torch.zeros(1)}, 'params_ema': {'module.w': torch.ones(1)}}, 'params_ema'),
    ({'params': {'w': torch.ones(1)}, 'iter': 3}, 'params'),
    ({'module.w': torch.ones(1)}, None),
])
def test_preferred_weights_are_named(tmp_path, content, found):
    torch.save(content, tmp_path / 'a.pth')
    params, key = load_preferred_params(tmp_path / 'a.pth')
    assert key == found and params == {'w': torch.ones(1)}


def test_a_file_without_weights_lists_its_keys(tmp_path):
    torch.save({'generator': {'w': torch.ones(1)}, 'iter': 3}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match="has neither 'params_ema' nor 'params'; it holds 'generator', 'iter'"):
        load_preferred_params(tmp_path / 'a.pth')


def test_a_missing_key_is_never_replaced_by_another(tmp_path):
    torch.save({'params': {}}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match="no 'params_ema'; it holds 'params'"):
        load_params(tmp_path / 'a.pth', 'params_ema')
    with pytest.raises(CheckpointError, match='no such file'):
        load_params(tmp_path / 'b.pth')
    torch.save({'params': [1]}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match="'params' is a list"):
        load_params(tmp_path / 'a.pth')


def test_what_does_not_fit_is_listed():
    with pytest.raises(CheckpointError, match=r'file.pth: .* 1 missing \(bias\); 1 unknown \(offset\); '
                                              r'1 of another shape \(weight \(2, 2\), network \(2, 3\)\)'):
        load_strictly(nn.Linear(3, 2), {'weight': torch.zeros(2, 2), 'offset': torch.zeros(2)}, 'file.pth')


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / 'a.pth'
    save_atomically({'params': {'w': torch.ones(1)}}, path)

    class Fails:
        def __reduce__(self):
            raise RuntimeError('disk full')

    with pytest.raises(RuntimeError, match='disk full'):
        save_atomically({'params': Fails()}, path)
    assert load_params(path)['w'].item() == 1 and os.listdir(tmp_path) == ['a.pth']


@pytest.mark.parametrize('weight, message', [
    (torch.full((2, 3), float('nan')), 'weight has values that are not finite'),
    (torch.ones(2, 3, dtype=torch.int64), 'weight has values of torch.int64, the network Linear has torch.float32'),
    (torch.ones(2, 3, dtype=torch.complex64), 'weight has values of torch.complex64'),
])
def test_values_that_are_no_weights_are_refused(weight, message):
    with pytest.raises(CheckpointError, match=f'a.pth: {message}'):
        load_strictly(nn.Linear(3, 2), {'weight': weight, 'bias': torch.zeros(2)}, 'a.pth')


@pytest.mark.parametrize('params, message', [
    ({'w': [1.0]}, 'w is a list, not a tensor'), ({3: torch.ones(1)}, 'has 3 in place of a name'),
    ({'w': torch.ones(1, device='meta')}, 'its values are not in the file'), ({'w': torch.ones(1).to_sparse()}, 'w is a sparse tensor'),
    ({'w': torch.ones(1).expand(2**20, 2**20)}, r'w claims the shape \(1048576, 1048576\)'),
])
def test_what_is_no_tensor_is_named(tmp_path, params, message):
    torch.save({'params': params}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=message):
        load_params(tmp_path / 'a.pth')
