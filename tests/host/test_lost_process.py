"""A process that is lost or told to stop: the others end within seconds with one line, and the run goes on as if nothing had happened."""
import os
import runpy
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from tiny import FORKS, REPOSITORY, environment, options, write

from ibmd_basicsr.checkpoints.state_dict import load_file
from ibmd_basicsr.utils import ending

# the command, in which something happens to a process before iteration 6; states are saved at 4 and 8
COMMAND = textwrap.dedent('''
    import os, signal, sys, time
    from ibmd_basicsr.cli import pipelines
    from ibmd_basicsr.models.bridge_model import BridgeModel
    step = BridgeModel.optimize_parameters
    def until_6(self, iteration):
        if iteration == 6:
            happens(self.opt['rank'])
        step(self, iteration)
    def happens(rank):
        {event}
    if __name__ == '__main__':
        if (os.environ['RANK'], os.environ.get('TORCHELASTIC_RESTART_COUNT')) == ('0', '1'):
            time.sleep(3)  # the other looks for it where it was before
        BridgeModel.optimize_parameters = until_6
        sys.exit(pipelines.main(is_train=True))
''')
KILLED = "rank == 1 and os.environ.get('TORCHELASTIC_RESTART_COUNT', '0') == '0' and os.kill(os.getpid(), signal.SIGKILL)"
HANGS = 'rank == 1 and time.sleep(60)'
TOLD_TO_STOP = ("__import__('threading').Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start(), "
                "__import__('torch').distributed.HashStore().wait(['never'], __import__('datetime').timedelta(seconds=200))")  # C++


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """The unbroken run on two processes: its folder and its last files."""
    from tiny import make_photos
    root = tmp_path_factory.mktemp('lost')
    make_photos(root / 'photos')
    start(root, 'whole', 'None', processes=2).codes_are(0, 0)
    return root, last_files(root, 'whole')


def last_files(root, name):
    folder = root / 'experiments' / name
    return load_file(folder / 'models/net_g_8.pth') | {'optimizers': load_file(folder / 'training_states/8.state')['optimizers']}


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool((a == b).all()) if hasattr(a, 'all') else a == b


class Started:
    """Processes of a run without a launcher, which would end the others by itself."""

    def __init__(self, processes, outputs):
        self.processes, self.outputs = processes, outputs

    def codes_are(self, *codes):
        for process in self.processes:
            process.join(120)
        found = tuple(process.exitcode for process in self.processes)
        assert found == codes, [output.read_text()[-3000:] for output in self.outputs]

    def errors(self, rank):
        return [line for line in self.outputs[rank].read_text().splitlines() if line.startswith('error')]


def start(root, name, event, *arguments, processes, **changes):
    opt = options(root, name=name, **changes)
    del opt['val'], opt['datasets']['val']
    file = write(root, opt)
    script = root / f'{name}.py'
    script.write_text(COMMAND.format(event=event))
    import socket
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    launcher = ('--launcher', 'pytorch') if processes > 1 else ()
    arguments = [str(script), '-opt', str(file), *arguments, *launcher]
    outputs, running = [], []
    for rank in range(processes):
        variables = environment() | {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': str(processes),
                                     'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
        outputs.append(root / f'{name}.{rank}.out')
        running.append(FORKS.Process(target=be, args=(arguments, variables, str(outputs[-1]))))
        running[-1].start()
    return Started(running, outputs)


def be(arguments, variables, output):
    """Be ``python SCRIPT ...`` with these arguments."""
    import multiprocessing

    import torch
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name='__main__')


def test_killed_process_ends_the_other_and_the_run_goes_on(whole):
    root, files = whole
    run = start(root, 'killed', KILLED, processes=2)
    run.processes[1].join(120)
    lost = time.monotonic()
    run.codes_are(ending.LOST, -signal.SIGKILL)
    assert time.monotonic() - lost < 10
    assert run.errors(0) == ['error: another process of this run ended; --auto_resume continues from iteration 4.']
    assert 'Traceback' not in run.outputs[0].read_text()
    start(root, 'killed', 'None', '--auto_resume', processes=2).codes_are(0, 0)
    assert equal(last_files(root, 'killed'), files)


def test_process_that_hangs_ends_the_other_after_the_timeout(whole):
    root, _ = whole
    run = start(root, 'hangs', HANGS, processes=2, dist_params={'timeout_minutes': 0.1})
    run.processes[0].join(120)
    os.kill(run.processes[1].pid, signal.SIGKILL)
    run.codes_are(ending.LOST, -signal.SIGKILL)
    assert run.errors(0) == ['error: another process of this run did not answer in time (dist_params.timeout_minutes); --auto_resume '
                             'continues from iteration 4.']


def test_sigterm_ends_a_process_that_is_busy_in_a_library(whole):
    root, _ = whole
    before = time.monotonic()
    run = start(root, 'stopped', TOLD_TO_STOP, processes=1)
    run.codes_are(ending.TERMINATED)
    assert time.monotonic() - before < 150  # it would wait longer
    assert run.errors(0) == ['error: told to stop (SIGTERM), as launchers do when another process has ended or time is up; --auto_resume '
                             'continues from iteration 4.']


@pytest.mark.slow  # each start imports torch
def test_torchrun_restarts_and_the_run_goes_on_by_itself(whole):
    """One kill, ``--max-restarts=1``: torchrun ends well, and what it leaves is what the unbroken run left."""
    root, files = whole
    opt = options(root, name='elastic')
    del opt['val'], opt['datasets']['val']
    script = root / 'elastic.py'
    script.write_text(COMMAND.format(event=KILLED))
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--max-restarts=1', '--rdzv-backend=c10d',
              '--rdzv-endpoint=127.0.0.1:0']
    result = subprocess.run([*launch, str(script), '-opt', str(write(root, opt)), '--launcher', 'pytorch', '--auto_resume'],
                            env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    # torchrun may notice the loss first and tell the other to stop before it does
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and lines[0].endswith('; --auto_resume continues from iteration 4.'), result.stderr[-3000:]
    assert 'another process of this run ended' in lines[0] or 'told to stop (SIGTERM)' in lines[0]
    assert 'Resuming training from epoch' in result.stderr and 'iter: 4' in result.stderr
    assert equal(last_files(root, 'elastic'), files)


# ---------------------------------------------------------------- what counts as a loss
@pytest.fixture
def group(monkeypatch):
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_world_size', lambda: 2)


@pytest.mark.parametrize('error, expected', [
    (RuntimeError('[../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer [10.0.0.1]:4'), 'ended'),
    (RuntimeError('[../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 6000ms for recv operation'),
     'did not answer in time'),
    (dist.DistBackendError('NCCL error ...: remote process exited or there was a network error'), 'ended'),
    (dist.DistBackendError('NCCL error ...: unhandled cuda error'), None),
    (dist.DistNetworkError('Failed to recv, got 0 bytes. Connection was likely closed.'), 'ended'),
    (RuntimeError('DataLoader worker (pid 5) is killed by signal: Killed.'), None),
    (RuntimeError('DataLoader timed out after 5 seconds'), None),
    (ValueError('gloo/transport'), None),
])
def test_which_errors_are_losses(group, error, expected):
    found = ending.loss_of_a_process(error)
    assert found is None if expected is None else expected in found


def test_a_single_process_loses_nobody():
    assert ending.loss_of_a_process(dist.DistNetworkError('Connection was likely closed.')) is None


def test_how_to_go_on(tmp_path):
    try:
        ending.note_states(tmp_path)
        assert ending.how_to_go_on() == '; no state was saved yet, --auto_resume starts anew'
        for name in ('8.state', '16.state', '24.state.tmp'):
            (tmp_path / name).touch()
        assert ending.how_to_go_on() == '; --auto_resume continues from iteration 16'
    finally:
        ending.note_states(None)
    assert ending.how_to_go_on() == ''


def test_the_watch_leaves_no_trace():
    before = signal.getsignal(signal.SIGTERM), len(os.listdir('/proc/self/fd')) if Path('/proc').exists() else 0
    with ending.sigterm_ends(0, grace=0):
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        child = subprocess.run([sys.executable, '-c', 'import signal; print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)'],
                               capture_output=True, text=True)
        assert child.stdout.strip() == 'True'
    assert before == (signal.getsignal(signal.SIGTERM), len(os.listdir('/proc/self/fd')) if Path('/proc').exists() else 0)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_sigterm_to_a_forked_child_ends_the_child_alone():
    read, write = os.pipe()
    with ending.sigterm_ends(0, grace=0):
        child = os.fork()
        if child == 0:
            os.write(write, b'here')
            time.sleep(60)
            os._exit(0)
        assert os.read(read, 4) == b'here'
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.2)  # had the parent's watch been told, this process would be gone
