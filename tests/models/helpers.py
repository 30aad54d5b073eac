"""What several tests of the models build, run and compare."""
import copy

import torch
from tiny import NETWORK, forked_command, options, parsed, write

import ibmd_basicsr.losses  # noqa: F401
import ibmd_basicsr.models  # noqa: F401  (before basicsr, which needs the shim)

from basicsr.models import build_model  # isort: skip
from ibmd_basicsr.checkpoints.state_dict import load_file

MODELS = ('BridgeModel', 'IBMDModel')
FLAT = NETWORK | {'channel_mult': [1], 'attention_resolutions': []}
"""One level (and the attention in the middle), so that torch.compile is done in seconds."""
ITERATIONS = 6


# ---- models in this process

def build(root, model, **changes):
    """Build a model as BasicSR's pipeline does, without its folders."""
    opt = parsed(options(root, model, **changes))
    opt.setdefault('network_bridge', copy.deepcopy(opt.get('teacher', {}).get('network')))
    opt['path'] |= {'models': str(root), 'training_states': str(root)}
    return build_model(opt)


def batch(count=2, size=8, gt=True, seed=0):
    g = torch.Generator().manual_seed(seed)
    data = {'lq': torch.rand(count, 3, size // 2, size // 2, generator=g), 'lq_path': [f'{i}.png' for i in range(count)]}
    return data | ({'gt': torch.rand(count, 3, 2 * size, 2 * size, generator=g)} if gt else {})


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def hold_still(net_d):
    """Let the estimates of spectral norm settle, then stop every call from moving them."""
    with torch.no_grad():
        for _ in range(20):
            net_d(torch.rand(1, 3, 16, 16))
    net_d.eval()


# ---- models of one level, whose runs are compared as a whole

def flat_model(root, model, checkpoint_levels=(), num_gpu=0, **train):
    """Build a model of one level for training. Plain gradient descent: Adam would divide rounding errors by themselves."""
    network = FLAT | {'checkpoint_levels': list(checkpoint_levels)}
    changes = {'num_gpu': num_gpu, 'train__optim_g': {'type': 'SGD', 'lr': 0.5 if model == 'BridgeModel' else 20}, 'network_g': network}
    if model == 'IBMDModel':
        changes |= {'train__optim_bridge': {'type': 'SGD', 'lr': 0.5}, 'network_g': network | {'noise_channels': 3},
                    'teacher': {'network': network, 'weights': str(root / 'teacher.pth'), 'param_key': 'params_ema'}}
    torch.manual_seed(1)
    built = build(root, model, **changes | {f'train__{key}': value for key, value in train.items()})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # a student has a gradient only where the bridge network differs from the teacher
        for p in (built.net_g if model == 'BridgeModel' else built.net_bridge).parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator).to(p.device))  # not randn_like, which follows the memory format
    return built


def iterate(model, iterations=ITERATIONS, first=1):
    for iteration in range(first, first + iterations):
        model.feed_data(batch(count=2, gt=type(model).__name__ == 'BridgeModel', seed=iteration))
        model.optimize_parameters(iteration)
    return model


def vectors(model):
    """Return all that was learnt, one vector for each network."""
    nets = {name: getattr(model, name) for name in ('net_g', 'net_bridge', 'net_g_ema') if hasattr(model, name)}
    return {name: torch.cat([value.detach().flatten() for value in net.parameters()]) for name, net in nets.items()}


def deviation(plain_run, model) -> float:
    """Return how far a run ended from the plain one, in units of how far that has moved; of the worst network."""
    start, end, _ = plain_run
    moved = {name: (end[name] - start[name]).norm() for name in end}
    assert min(moved.values()) > 1e-3  # far above what float32 resolves
    return max(((value - end[name]).norm() / moved[name]).item() for name, value in vectors(model).items())


# ---- runs of the command

def train(root, name, *arguments, model, cwd=None, processes=1, **changes):
    """Train in ``root`` and fail with the log if the command does."""
    file = write(root, options(root, model, name=name, **changes))
    result = forked_command('-opt', file, *arguments, cwd=cwd, processes=processes)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return root / 'experiments' / name


def contents(experiment, iteration):
    """Everything that a run leaves: networks with EMA, optimisers, schedulers."""
    files = {path.stem: load_file(path) for path in (experiment / 'models').glob(f'*_{iteration}.pth')}
    return files | {'state': load_file(experiment / 'training_states' / f'{iteration}.state')}


def assert_equal(a, b, tolerance=0.0, path=''):
    """Compare nested contents; tensors bit for bit, or to an absolute tolerance."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_equal(a[key], b[key], tolerance, f'{path}/{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, tolerance, f'{path}/{i}')
    elif isinstance(a, torch.Tensor):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, msg=lambda text: f'{path}: {text}')
    elif path.rsplit('/', 1)[-1] != 'version':
        assert a == b, path
