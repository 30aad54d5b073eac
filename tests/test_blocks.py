"""Wrong blocks for networks, bridges and samplers: whoever reads them says the same, in one line and before anything is built."""
import pytest
import yaml
from tiny import NETWORK, make_photos, make_teacher, options, parsed, write

from ibmd_basicsr.cli import compare, export, restore
from ibmd_basicsr.models import build_restorer
from ibmd_basicsr.models.option_rules import find_problems
from ibmd_basicsr.utils.errors import OptionError

WRONG = {
    'network: key': ('network', NETWORK | {'model_chanels': 8}, ": unknown key 'model_chanels', did you mean 'model_channels'?"),
    'network: value': ('network', NETWORK | {'num_head_channels': 0}, ': ADMUNet: num_head_channels must be an integer of at least 1'),
    'network: type': ('network', NETWORK | {'type': 'ADMUnet'}, ".type: must be one of 'ADMUNet', got 'ADMUnet'."),
    'bridge: key': ('bridge', {'type': 'I2SB', 'beta_mx': 0.3}, ": unknown key 'beta_mx', did you mean 'beta_max'?"),
    'bridge: value': ('bridge', {'type': 'I2SB', 'beta_max': -1}, ': bridge.beta_max must be positive, got -1'),
    'bridge: type': ('bridge', {'type': 'I2BS'}, ".type: must be one of 'I2SB', 'I2SB_DBIM', 'VP', 'VE', got 'I2BS'."),
    'bridge: too large to compute with': ('bridge', {'type': 'VP', 'sigma_data': 1e300}, ': '),
    'sampler: key': ('sampler', {'type': 'ancestral', 'stps': 2}, ": unknown key 'stps', did you mean 'steps'?"),
    'sampler: value': ('sampler', {'type': 'ancestral', 'steps': -2}, ': sampler.steps must be a positive integer, got -2'),
    'sampler: type': ('sampler', {'type': 'euler'}, ": sampler.type must be one of ('ancestral', "),
    'sampler: of another bridge': ('sampler', {'type': 'heun'}, ': sampler.type heun needs a bridge of type VP or VE, got I2SBSchedule'),
}
NAMES = {'network': 'network_g', 'bridge': 'bridge', 'sampler': 'val.sampler'}


@pytest.fixture
def world(tmp_path):
    make_photos(tmp_path / 'photos', 1)
    make_teacher(tmp_path)
    return tmp_path


def run(main, capsys, *arguments) -> str:
    """Run a command that ends with exit code 2 and one line; return that."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    return error


@pytest.mark.parametrize('block, value, message', WRONG.values(), ids=WRONG)
def test_everyone_says_the_same(block, value, message, world, capsys):
    key = {'network': 'network_g', 'bridge': 'bridge', 'sampler': 'val__sampler'}[block]
    opt = options(world, **{key: value})
    file, name = write(world, opt), NAMES[block]
    arguments = ('-opt', file, '-o', world / 'out.safetensors')
    photo = world / 'photos/photo_0.png'
    assert f'{file}: {name}{message}' in run(restore.main, capsys, photo, '--weights', world / 'teacher.pth', *arguments)
    assert f'{file}: {name}{message}' in run(export.main, capsys, world / 'teacher.pth', *arguments)

    blocks = {'network': NETWORK, 'bridge': opt['bridge'], 'sampler': {'type': 'ancestral', 'steps': 2}, block: value}
    row = {'name': 'a', 'kind': 'bridge', 'weights': str(world / 'teacher.pth'), **blocks}
    comparison = world / 'compare.yml'
    comparison.write_text(yaml.safe_dump({'name': 'x', 'scale': 4, 'output': str(world / 'out'), 'restorers': [row]}))
    assert f'restorers[0] (a).{block}{message}' in run(compare.main, capsys, '-opt', comparison)

    with pytest.raises(OptionError) as error:
        build_restorer(**{'bridge': {'type': 'I2SB'}, **blocks}, weights='nowhere.pth')
    assert str(error.value).startswith(f'{block}{message}')

    for phase, dataset in opt['datasets'].items():
        dataset |= {'phase': phase, 'scale': opt['scale']}
    problems = find_problems(parsed(opt))
    assert len(problems) == 1 and problems[0].startswith(f'{name}{message}')
