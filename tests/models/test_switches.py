"""Switches of a training change how it is computed, not what: each against the plain float32 run, over several iterations."""
import copy
import warnings

import pytest
import torch
from helpers import FLAT, ITERATIONS, MODELS, deviation, flat_model, iterate, same, vectors, weights
from tiny import NETWORK, forked_command, options, parsed, write
from torch import nn
from torch._dynamo.utils import counters

from ibmd_basicsr.archs import adm_layers
from ibmd_basicsr.archs.adm_layers import Linear32
from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.models import switches
from ibmd_basicsr.models.option_rules import find_problems
from ibmd_basicsr.models.switches import Switches, compile_problems

CHANGES = {
    'checkpointed': {'checkpoint_levels': [1]},
    'accumulated': {'micro_batch': 1},
    'channels_last': {'channels_last': True},
    'bf16': {'amp': 'bf16'},
    'bf16, checkpointed': {'amp': 'bf16', 'checkpoint_levels': [1]},
    'traced': {'compile': 'eager'},
    'aot_eager, checkpointed': {'compile': 'aot_eager', 'checkpoint_levels': [1]},
    'inductor': {'compile': True},
}
ROUNDS_OTHERWISE = ('accumulated', 'channels_last', 'bf16', 'inductor')


@pytest.fixture(scope='module')
def plain(flat):
    """Start and end of the plain run of either model."""
    runs = {}
    for model in MODELS:
        built = flat_model(flat, model)
        start = vectors(built)
        runs[model] = start, vectors(iterate(built)), built.get_current_log()
    return runs


@pytest.mark.parametrize(('switch', 'model', 'tolerance'), [
    *(('checkpointed', model, 0) for model in MODELS),
    *(('accumulated', model, 1e-5) for model in MODELS),
    *(('channels_last', model, 1e-5) for model in MODELS),
    *(('bf16', model, 0.05) for model in MODELS),
    ('traced', 'BridgeModel', 0),  # of IBMDModel: the test of its graphs
    ('aot_eager, checkpointed', 'BridgeModel', 1e-5),
    *(pytest.param('inductor', model, 1e-5, marks=pytest.mark.slow) for model in MODELS),
])
def test_a_switch_changes_rounding_alone(flat, plain, switch, model, tolerance):
    torch._dynamo.reset()
    run = iterate(flat_model(flat, model, **CHANGES[switch]))
    apart = deviation(plain[model], run)
    assert apart <= tolerance
    if switch in ROUNDS_OTHERWISE:
        assert apart > 0  # it was switched
    assert all(value.dtype == torch.float32 for value in (*run.net_g.parameters(), *run.optimizer_g.param_groups[0]['params']))


def test_checkpoints_recompute_what_autocast_made(flat):
    """The backward runs outside autocast; what it computes again is still bf16."""
    one, other = (iterate(flat_model(flat, 'IBMDModel', **CHANGES[name])) for name in ('bf16', 'bf16, checkpointed'))
    assert all(torch.equal(a, b) for a, b in zip(vectors(one).values(), vectors(other).values(), strict=True))


def test_each_network_is_compiled_once_for_each_of_its_turns(flat, plain):
    """Five graphs: student with and without gradient, bridge network likewise, teacher. Validation of any size adds none."""
    torch._dynamo.reset()
    counters.clear()
    model = flat_model(flat, 'IBMDModel', compile='eager', ema_decay=0)
    seen = []
    for iteration in range(1, ITERATIONS + 1):
        iterate(model, 1, first=iteration)
        seen.append(counters['stats']['unique_graphs'])
    assert seen == [2, 2, 5, 5, 5, 5]
    assert deviation(plain['IBMDModel'], model) == 0
    model.feed_data({'lq': torch.rand(1, 3, 7, 5), 'lq_path': ['a.png']})
    model.test()
    assert counters['stats']['unique_graphs'] == 5 and model.net_g.training
    network = model.opt['network_g']
    model.save(0, 6)
    saved = load_file(flat / 'net_g_6.pth')['params']
    assert list(saved) == list(adm_unet(network).state_dict()) and same(saved, weights(model.net_g))
    fresh = flat_model(flat, 'IBMDModel', ema_decay=0)
    fresh.load_network(fresh.net_g, str(flat / 'net_g_6.pth'))
    fresh.feed_data({'lq': model.lq, 'lq_path': ['a.png']})
    fresh.test()
    assert torch.equal(fresh.output, model.output)


def adm_unet(block):
    from ibmd_basicsr.models.builders import build_quietly
    return build_quietly(block)


@pytest.mark.parametrize('before, after', [(True, False), (False, True)])
def test_memory_format_is_no_matter_of_files(flat, before, after):
    """Weights and optimiser state of a run go on in another format, here with an optimiser that is fused."""
    def start(channels_last):
        model = flat_model(flat, 'BridgeModel', channels_last=channels_last)
        model.optimizers.clear()
        model.opt['train']['optim_g'] = {'type': 'AdamW', 'lr': 1e-3, 'eps': 1e-5}
        model.setup_optimizers()
        model.schedulers.clear()
        model.setup_schedulers()
        return model

    def follows(model, channels_last):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        kernels = [p for p in model.net_g.parameters() if p.ndim == 4 and min(p.shape[1], p.shape[2]) > 1]
        states = [model.optimizer_g.state[p][name] for p in kernels for name in ('exp_avg', 'exp_avg_sq')]
        return all(value.is_contiguous(memory_format=layout) for value in kernels + states)

    model = iterate(start(before), 2)
    assert follows(model, before)
    model.save(0, 2)
    assert all(value.is_contiguous() for value in load_file(flat / 'net_g_2.pth')['params'].values())
    other = start(after)
    other.load_network(other.net_g, str(flat / 'net_g_2.pth'))
    other.load_network(other.net_g_ema, str(flat / 'net_g_2.pth'), param_key='params_ema')
    other.resume_training(load_file(flat / '2.state'))
    assert follows(other, after)
    for one in (model, other):
        iterate(one, 2, first=3)
        one.feed_data({'lq': torch.full((1, 3, 7, 5), 0.3), 'lq_path': ['a.png']})
        one.test()  # through the Restorer
    for a, b in zip(model.net_g.parameters(), other.net_g.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.output, other.output, rtol=0, atol=1e-4)


@pytest.mark.parametrize('model', MODELS)
def test_autocast_leaves_times_norms_and_losses_in_float32(flat, monkeypatch, model):
    run = flat_model(flat, model, amp='bf16')
    exact = flat_model(flat, model)
    norms, times, convs, losses = [], [], [], []
    group_norm = torch.group_norm

    def watched(x, *args):
        norms.extend([x.dtype, group_norm(x, *args).dtype])
        return group_norm(x, *args)

    monkeypatch.setattr(adm_layers.torch, 'group_norm', watched)
    for name in ('net_g', 'net_bridge', 'teacher'):
        for module in getattr(run, name, nn.Identity()).modules():
            if isinstance(module, nn.Linear):
                assert isinstance(module, Linear32)
                module.register_forward_hook(lambda layer, inputs, output: times.extend([inputs[0].dtype, output.dtype]))
            elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
                module.register_forward_hook(lambda layer, inputs, output: convs.append(output.dtype))
    for name in ('cri_bridge', 'cri_ibmd'):
        if hasattr(run, name):
            getattr(run, name).register_forward_hook(
                lambda loss, inputs, output: losses.extend([output.dtype, *(x.dtype for x in inputs if isinstance(x, torch.Tensor))]))
    iterate(run, 3)
    assert set(norms) == set(times) == set(losses) == {torch.float32} and set(convs) == {torch.bfloat16}
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in run.net_g.parameters())

    embeddings = []
    for one in (run, exact):
        one.net_g.load_state_dict(exact.net_g.state_dict())
        handle = one.net_g.time_embed.register_forward_hook(lambda layer, inputs, output: embeddings.append(output))
        iterate(one, 1, first=3)
        handle.remove()
    assert torch.equal(*embeddings)


# ------------------------------------------------------------------ options
@pytest.mark.parametrize(('changes', 'line'), [
    ({'train__compile': 'max-autotune'}, "train.compile: must be one of False, True, 'aot_eager', 'eager', got 'max-autotune'."),
    ({'train__compile': ['eager']}, "train.compile: must be one of False, True, 'aot_eager', 'eager', got ['eager']."),
    ({'train__tf32': 'yes'}, "train.tf32: must be one of False, True, got 'yes'."),
    ({'train__channels_last': 'always'}, "train.channels_last: must be one of False, True, 'auto', got 'always'."),
    ({'train__amp': 'fp16'}, "train.amp: must be one of False, 'bf16', 'auto', got 'fp16'."),
    ({'train__comple': True}, "train: unknown key 'comple', did you mean 'compile'?"),
    ({'network_g': NETWORK | {'checkpoint_levels': [4]}},
     'network_g: ADMUNet: checkpoint_levels must be a list of downsampling factors out of [1, 2], got [4].'),
    ({'network_g': NETWORK | {'checkpoint_levels': True}},
     'network_g.checkpoint_levels: must be a list, got True.'),
])
def test_wrong_switches_are_one_line(tmp_path, changes, line):
    opt = parsed(options(tmp_path, **changes))
    problems = find_problems(opt)
    assert len(problems) == 1 and problems[0].startswith(line)


def test_what_compilation_needs(monkeypatch, tmp_path):
    assert compile_problems(True, 'cpu') == compile_problems('eager', 'cuda') == compile_problems(False, 'cpu') == []
    monkeypatch.setenv('CXX', 'no-such-compiler')
    assert compile_problems('aot_eager', 'cpu') == compile_problems(False, 'cpu') == []
    [line] = compile_problems(True, 'cpu')
    assert line.startswith("train.compile: true: needs a C++ compiler, 'no-such-compiler' is not installed")
    monkeypatch.delenv('CXX')
    monkeypatch.setattr(switches.sysconfig, 'get_path', lambda name: str(tmp_path))
    assert [line.startswith("train.compile: true: needs Python's headers") for line in compile_problems(True, 'cpu')] == [True]
    monkeypatch.delattr(nn.Module, 'compile')
    assert compile_problems('eager', 'cpu') == [f'train.compile: eager: needs torch 2.2 or later, found {torch.__version__}.']


def test_a_torch_that_cannot_compile_says_so_in_a_line(flat, monkeypatch):
    def refuse(self, **_):
        raise RuntimeError('torch.compile is not supported on Python 3.99')
    monkeypatch.setattr(nn.Module, 'compile', refuse)
    with pytest.raises(ValueError, match=r'^train.compile: not with torch .* under Python .* \(torch.compile is not supported'):
        flat_model(flat, 'BridgeModel', compile=True)


def test_tf32_is_set_for_gpus_alone():
    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    cpu, gpu, before = torch.device('cpu'), torch.device('cuda'), flags()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            for value in (True, False):
                Switches({'tf32': not value}, gpu).set_tf32()
                for untouched in (Switches({'tf32': value}, cpu), Switches({}, gpu), Switches({'tf32': None}, gpu)):
                    untouched.set_tf32()
                    assert flags() == (not value, not value)
                Switches({'tf32': value}, gpu).set_tf32()
                assert flags() == (value, value)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(('train', 'device', 'layout'), [
    ({}, 'cpu', torch.channels_last), ({'amp': 'bf16'}, 'cpu', torch.contiguous_format), ({}, 'cuda', torch.contiguous_format),
    ({'channels_last': 'auto'}, 'cuda', torch.contiguous_format), ({'channels_last': 'auto'}, 'cpu', torch.contiguous_format),
    ({'channels_last': 'auto', 'amp': 'bf16'}, 'cuda', torch.contiguous_format),
    ({'channels_last': 'auto', 'amp': 'bf16'}, 'cpu', torch.channels_last), ({'channels_last': True}, 'cpu', torch.channels_last)])
def test_automatic_memory_format(train, device, layout):
    assert Switches(train, torch.device(device)).memory_format is layout


@pytest.mark.slow
def test_two_compiled_processes_equal_one(flat):
    """Compiled inside DistributedDataParallel, and with checkpoints, which its own splitting of graphs does not take."""
    common = dict(train__total_iter=3, logger__save_checkpoint_freq=3, network_g=FLAT | {'checkpoint_levels': [1], 'noise_channels': 3},
                  teacher={'network': FLAT, 'weights': str(flat / 'teacher.pth'), 'param_key': 'params_ema'},
                  train__optim_g={'type': 'SGD', 'lr': 0.5}, train__optim_bridge={'type': 'SGD', 'lr': 0.5})
    results = []
    for name, processes, changes in (('one', 1, {'datasets__train__batch_size_per_gpu': 4}), ('two', 2, {'train__compile': 'aot_eager'})):
        opt = options(flat, 'IBMDModel', name=name, **common, **changes)
        result = forked_command('-opt', write(flat, copy.deepcopy(opt)), processes=processes)
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
        results.append([load_file(flat / f'experiments/{name}/models/{net}_3.pth')['params'] for net in ('net_g', 'net_bridge')])
    for one, two in zip(*results, strict=True):
        for name in one:
            torch.testing.assert_close(two[name], one[name], rtol=0, atol=1e-5)
