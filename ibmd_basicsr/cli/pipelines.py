"""The commands ``python -m ibmd_basicsr.train`` and ``.test``: BasicSR's pipelines behind a help text, a project root and short errors."""
from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ibmd_basicsr.cli.arguments import CommandParser
from ibmd_basicsr.utils import ending
from ibmd_basicsr.utils.allocator import keep_freed_memory
from ibmd_basicsr.utils.errors import InputError, Interrupted, NonFiniteError, OptionError, exit_code, one_line
from ibmd_basicsr.utils.project import find_option_file, project_root

PLUGIN_PACKAGES = ('archs', 'data', 'losses', 'metrics', 'models')
"""Packages that register what option files name."""

EPILOGS = {
    'train': """\
examples:
  python -m ibmd_basicsr.train -opt options/sr4x_ibmd.yml
  python -m ibmd_basicsr.train -opt options/sr4x_ibmd.yml --auto_resume
  python -m ibmd_basicsr.train -opt options/sr4x_ibmd.yml --force_yml train:optim_g:lr=1e-4 num_gpu=0
  python -m ibmd_basicsr.train -opt options/paper/sr4x_ibmd.yml --dry-run
  torchrun --nproc_per_node=2 -m ibmd_basicsr.train -opt options/sr4x_ibmd.yml --launcher pytorch

outputs, in the project root (the folder that holds the options/ folder with the option file, else the working directory):
  experiments/NAME/models/           net_g_ITER.pth, for IBMD also net_bridge_ITER.pth
  experiments/NAME/training_states/  ITER.state, for --auto_resume
  experiments/NAME/visualization/    validation images (val.save_img)
  experiments/NAME/resolved_options.yml  all options with their defaults, and the versions
  experiments/NAME/train_*.log       log; tb_logger/NAME for tensorboard
  A run that is started again without --auto_resume renames the old folder to NAME_archived_TIME.

exit codes: 0 done; 2 wrong command line, option file, data or weights; 3 loss not finite; 4 another process of this run ended or does not
answer; 5 a file cannot be written (disk full); 6 the GPU failed or is gone; 130 Ctrl-C, 143 SIGTERM or SIGUSR1 (slurm): a state was saved
after the iteration if the message says so, --auto_resume continues; 1 anything else.""",
    'test': """\
examples:
  python -m ibmd_basicsr.test -opt options/test/sr4x_ibmd.yml
  python -m ibmd_basicsr.test -opt options/test/sr4x_ibmd.yml --force_yml val:save_img=true

outputs, in the project root (the folder that holds the options/ folder with the option file, else the working directory):
  results/NAME/visualization/DATASET/  restored images (val.save_img)
  results/NAME/test_*.log              log with the metrics

exit codes: 0 done; 2 wrong command line, option file, data or weights; 4 another process of this run ended or does not answer;
6 the GPU failed or is gone; 130 interrupted; 143 told to stop (SIGTERM); 1 anything else.""",
}


def make_parser(is_train: bool) -> CommandParser:
    """Return the parser of a command: BasicSR's options, with a help text."""
    kind = 'train' if is_train else 'test'
    parser = CommandParser(
        prog=f'python -m ibmd_basicsr.{kind}', epilog=EPILOGS[kind],
        description='Train a bridge (BridgeModel) or distil one (IBMDModel) with BasicSR.' if is_train
        else 'Run a trained model on the test sets of an option file with BasicSR.')
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file (YAML)')
    parser.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), default='none',
                        help='how the processes of a run on several GPUs (or CPUs) were started: torchrun is "pytorch"')
    parser.add_argument('--auto_resume', '--auto-resume', action='store_true',
                        help='continue from the newest readable state of this experiment' if is_train else argparse.SUPPRESS)
    if is_train:
        parser.add_argument('--dry-run', '--dry_run', action='store_true',
                            help='check the option file without data, weights or GPUs; print networks, passes and FLOPs of an iteration, '
                                 'estimates of memory per GPU and of GPU hours, and all options; write nothing')
    parser.add_argument('--debug', action='store_true',
                        help='name the run debug_NAME, log every iteration, validate and save every 8; show tracebacks')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)  # set by old launchers
    parser.add_argument('--force_yml', nargs='+', metavar='BLOCK:KEY=VALUE', help='change single values of the option file')
    return parser


def main(is_train: bool) -> int:
    """Run one of BasicSR's pipelines with ``sys.argv`` and return the exit code; see :data:`EPILOGS`."""
    args = make_parser(is_train).parse_args()
    try:
        _run(args, is_train)
    except Interrupted as stop:
        _print_error(one_line(stop), args, everywhere=False)
        return stop.exit_code
    except KeyboardInterrupt:
        _print_error(f'interrupted{ending.how_to_go_on()}.', args, everywhere=False)
        return 130
    except Exception as error:
        code = exit_code(error)
        if code is None or args.debug:
            raise
        # every rank meets a wrong option, but a file may be missing on one machine only
        everywhere = isinstance(error, InputError) or not isinstance(error, (OptionError, NonFiniteError))
        _print_error(one_line(error), args, everywhere)
        return code
    return 0


def _run(args: argparse.Namespace, is_train: bool) -> None:
    option_file = find_option_file(args.opt).resolve()
    if args.launcher == 'none' and 'TORCHELASTIC_RUN_ID' in os.environ and int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise OptionError('Started by torchrun with several processes: add --launcher pytorch.')
    root = project_root(option_file)
    os.chdir(root)
    keep_freed_memory()
    sys.argv[1:] = _host_arguments(args, option_file)

    from ibmd_basicsr import compat
    for name in PLUGIN_PACKAGES:
        importlib.import_module(f'ibmd_basicsr.{name}')
    if getattr(args, 'dry_run', False):
        from ibmd_basicsr.cli.dry_run import dry_run
        dry_run(root, args.launcher)
        return
    from ibmd_basicsr.models.option_rules import prepare_options
    from ibmd_basicsr.models.resolved_options import describe_run
    from ibmd_basicsr.models.run_inputs import check_inputs

    def prepare(opt: dict[str, Any], auto_gpu: bool) -> None:
        prepare_options(opt, auto_gpu)
        check_inputs(opt)

    compat.install(prepare, describe_run)
    from ibmd_basicsr.compat.interruption import STOP
    from ibmd_basicsr.compat.run_folder import RUN_FOLDER
    from ibmd_basicsr.compat.workers import naming_images
    module = importlib.import_module('basicsr.train' if is_train else 'basicsr.test')
    rank, grace = _rank(args), 0 if args.launcher == 'none' else ending.GRACE
    # in this order: a SIGTERM that comes while a loss is being reported must not end the process without its line
    with ending.sigterm_ends(rank, grace, STOP.takes_it), _ending_at_losses(args), STOP.armed(), naming_images(), RUN_FOLDER.let_go_after():
        (module.train_pipeline if is_train else module.test_pipeline)(str(root))

        import torch.distributed as dist
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def _ending_at_losses(args: argparse.Namespace) -> Iterator[None]:
    """Within this block the loss of another process or of the GPU ends this process with a line, at once."""
    try:
        yield
    except Exception as error:
        if args.debug or exit_code(error) is not None:
            raise
        from ibmd_basicsr.utils.device_errors import device_failure
        lost = ending.loss_of_a_process(error) if args.launcher != 'none' else None
        # a context of CUDA that is broken may hang at an orderly exit
        message, code = (lost, ending.LOST) if lost is not None else device_failure(error) or (None, None)
        if message is None:
            raise
        ending.end(f'{message}{ending.how_to_go_on()}.', code, _rank(args))


def _host_arguments(args: argparse.Namespace, option_file: Path) -> list[str]:
    """Return the command line for the host's parser: the same, with an absolute option file."""
    flags = [f'--{name}' for name in ('auto_resume', 'debug') if getattr(args, name)]
    forced = ['--force_yml', *args.force_yml] if args.force_yml else []
    launcher = 'none' if getattr(args, 'dry_run', False) else args.launcher  # a dry run joins no process group
    return ['-opt', str(option_file), '--launcher', launcher, '--local_rank', str(args.local_rank), *flags, *forced]


def _print_error(message: str, args: argparse.Namespace, everywhere: bool) -> None:
    rank = _rank(args)
    if rank == 0 or everywhere:
        print(f'error: {message}' if rank == 0 else f'error (rank {rank}): {message}', file=sys.stderr, flush=True)


def _rank(args: argparse.Namespace) -> int:
    """Return the number of this process by its launcher's environment; the process group may not stand yet, or no more."""
    return int(os.environ.get({'pytorch': 'RANK', 'slurm': 'SLURM_PROCID'}.get(args.launcher, ''), 0))
