"""load_resume_state: on the CPU, from anywhere, past damaged files; and what it leaves alone."""
import logging

import pytest
import torch

import ibmd_basicsr.compat  # noqa: F401  (must precede any import of basicsr)
from ibmd_basicsr.compat.resume import load_resume_state
from ibmd_basicsr.utils.errors import OptionError


@pytest.fixture
def opt(tmp_path):
    """Options of a run with complete states of the iterations 5, 10 and 100."""
    run = tmp_path / 'experiments' / 'x'
    for name in ('models', 'training_states'):
        (run / name).mkdir(parents=True)
    for iteration in (5, 10, 100):
        torch.save({'epoch': 1, 'iter': iteration, 'optimizers': [], 'schedulers': []}, run / 'training_states' / f'{iteration}.state')
        for net in ('g', 'bridge'):
            torch.save({'params': {'w': torch.zeros(3)}}, run / 'models' / f'net_{net}_{iteration}.pth')
    return {'auto_resume': True, 'rank': 0, 'name': 'x', 'network_g': {}, 'network_bridge': {}, 'datasets': {'train': {}},
            'teacher': {'network': {}, 'weights': 'teacher.pth', 'param_key': 'params_ema'},
            'path': {'models': str(run / 'models'), 'training_states': str(run / 'training_states'), 'resume_state': None,
                     'param_key_g': 'params_ema'}}


def truncate(path):
    content = open(path, 'rb').read()
    with open(path, 'wb') as file:
        file.write(content[:len(content) // 2])


def test_newest_state_from_any_folder(opt, tmp_path, monkeypatch):
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    state = load_resume_state(opt)
    assert state['iter'] == 100  # by number: not '5.state', the last by name
    assert opt['datasets']['train']['start_iter'] == 100
    assert opt['path']['pretrain_network_g'].endswith('models/net_g_100.pth')
    assert opt['path']['pretrain_network_bridge'].endswith('models/net_bridge_100.pth')


def test_a_number_that_would_never_be_printed(opt):
    bomb = ()
    for _ in range(60):
        bomb = (bomb, bomb)
    file = f'{opt["path"]["training_states"]}/100.state'
    torch.save({'epoch': 1, 'iter': bomb, 'optimizers': [], 'schedulers': []}, file)
    assert load_resume_state(opt)['iter'] == 10
    opt |= {'auto_resume': False}
    opt['path']['resume_state'] = file
    with pytest.raises(OptionError, match='its iter is a tuple, not a number from 0'):
        load_resume_state(opt)


def test_teacher_is_untouched_by_the_hosts_resume(opt):
    teacher = dict(opt['teacher'])
    load_resume_state(opt)
    assert opt['path']['param_key_g'] == 'params'  # the host rewrites these, which is why the teacher's is elsewhere
    assert opt['teacher'] == teacher


def test_state_of_a_gpu_is_loaded_onto_the_cpu(opt, monkeypatch):
    locations = []
    load = torch.load

    def spy(*args, **kwargs):
        locations.append((kwargs['map_location'], kwargs['weights_only']))
        return load(*args, **kwargs)

    monkeypatch.setattr(torch, 'load', spy)
    load_resume_state(opt)
    assert locations and set(locations) == {('cpu', True)}


@pytest.mark.parametrize('damage', [
    lambda run: truncate(run / 'training_states' / '100.state'),
    lambda run: (run / 'training_states' / '100.state').write_bytes(b''),
    lambda run: torch.save({'iter': 100}, run / 'training_states' / '100.state'),
    lambda run: truncate(run / 'models' / 'net_g_100.pth'),
    lambda run: (run / 'models' / 'net_bridge_100.pth').unlink(),
], ids=['truncated state', 'empty state', 'incomplete state', 'truncated network', 'missing network'])
def test_walks_back_over_damage_and_says_so(opt, tmp_path, caplog, monkeypatch, damage):
    damage(tmp_path / 'experiments' / 'x')
    monkeypatch.setattr(logging.getLogger('basicsr'), 'propagate', True)  # the host turns it off
    with caplog.at_level(logging.WARNING, logger='basicsr'):
        assert load_resume_state(opt)['iter'] == 10
    assert len(set(caplog.messages)) == 1 and 'passes over iteration 100' in caplog.text
    assert opt['datasets']['train']['start_iter'] == 10


def test_ignored_networks_need_no_file(opt, tmp_path):
    (tmp_path / 'experiments' / 'x' / 'models' / 'net_bridge_100.pth').unlink()
    opt['path']['ignore_resume_networks'] = ['network_bridge']
    assert load_resume_state(opt)['iter'] == 100
    assert 'pretrain_network_bridge' not in opt['path']


def test_code_in_a_state_is_never_run(opt, tmp_path):
    class Code:
        def __reduce__(self):
            return print, ('ran',)

    torch.save(Code(), tmp_path / 'experiments' / 'x' / 'training_states' / '200.state')
    assert load_resume_state(opt)['iter'] == 100


def test_named_state_must_be_good(opt, tmp_path):
    opt['auto_resume'] = False
    state = tmp_path / 'experiments' / 'x' / 'training_states' / '10.state'
    opt['path']['resume_state'] = str(state)
    assert load_resume_state(opt)['iter'] == 10
    truncate(state)
    with pytest.raises(OptionError, match=r'path.resume_state: .*10\.state'):
        load_resume_state(opt)


def test_new_run(opt, tmp_path):
    opt['path']['training_states'] = str(tmp_path / 'nothing')
    assert load_resume_state(opt) is None
    assert 'start_iter' not in opt['datasets']['train']
