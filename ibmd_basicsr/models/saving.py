"""Saving that survives crashes: files that are whole, a state that names its networks by digest, and a stop on signals in between."""
from __future__ import annotations

import random
import signal
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from basicsr.utils import get_root_logger

from ibmd_basicsr.checkpoints.state_dict import save_atomically
from ibmd_basicsr.compat.interruption import STOP
from ibmd_basicsr.compat.iteration_sampler import IterationSampler
from ibmd_basicsr.utils.errors import Interrupted, OptionError, printable
from ibmd_basicsr.version import __version__

SCHEDULER_POSITION = ('last_epoch', '_step_count', '_last_lr')
"""What a resumed scheduler takes from the saved state."""
KEPT_OF_OPTIMIZERS = ('fused', 'foreach', 'capturable', 'differentiable')
"""How a step is computed: a resumed optimiser goes on as it did, to the last bit."""
EXIT_CODES = {signal.SIGINT: 130}
ENDED = 143
"""Exit code after any other signal than Ctrl-C: that of a process that SIGTERM ended."""


class SafeSaving:
    """Comes first in the bases of a model of BasicSR and replaces how it saves and resumes.

    Each file is written beside its place, flushed and renamed. The networks of an iteration come first and its training state last, with
    the sha256 of every network file: a state that can be read, and whose networks have these digests, is complete.
    ``logger.keep_checkpoints`` removes older ones.

    The model calls :meth:`finish_iteration` at the end of ``optimize_parameters``.
    """

    def __init__(self, opt: dict[str, Any]):
        self._digests: dict[str, str] = {}  # of the network files that belong to the next state
        self._complete: list[int] = []  # iterations whose states this run wrote or came from
        self._validating: tuple[int, dict] | None = None  # the iteration, and the generators before validation
        super().__init__(opt)

    # ------------------------------------------------------------------- stop
    def finish_iteration(self, current_iter: int) -> None:
        """Save and end the run if a signal asks for that.

        Raises:
            Interrupted: after the state was saved, on every rank behind the same iteration.
        """
        number = STOP.due(current_iter)
        if number is not None:
            self._save_and_stop(current_iter, number)

    def validation(self, dataloader, current_iter, tb_logger, save_img=False) -> None:
        """Validate (host's method) without moving the global generators: a run that stopped before it goes on as one that did not.

        A single process also stops between two images, since a batch system waits half a minute, no more.

        Raises:
            Interrupted: after the state of before the validation was saved.
        """
        generators = rng_state()
        self._validating = (current_iter, generators) if self.is_train and self.opt['world_size'] == 1 else None
        super().validation(dataloader, current_iter, tb_logger, save_img)
        self._validating = None
        set_rng_state(generators)

    def _restore(self, data: dict[str, Any], draws: int, name: str) -> Any:
        if self._validating is not None and STOP.signal is not None:
            iteration, generators = self._validating
            set_rng_state(generators)
            self._save_and_stop(iteration, STOP.signal)
        return super()._restore(data, draws, name)

    def _save_and_stop(self, current_iter: int, number: int) -> NoReturn:
        self.save(IterationSampler.current_epoch, current_iter)
        if self.opt['dist']:
            torch.distributed.barrier()  # torchrun ends all ranks as soon as one has left
        raise Interrupted(f'{signal.Signals(number).name}: stopped after iteration {current_iter}, its state is saved; '
                          '--auto_resume continues.', EXIT_CODES.get(number, ENDED))

    # ------------------------------------------------------------ save, resume
    def save(self, epoch: int, current_iter: int) -> None:
        """Save networks, then the state (host's method); iteration -1 is the end of training."""
        super().save(epoch, current_iter)
        if current_iter == -1:
            STOP.release()  # nothing is left to be saved

    def save_network(self, net, net_label: str, current_iter: int, param_key='params') -> None:
        """Write ``models/<label>_<iter>.pth``, on rank 0. Arguments as in the host's method.

        Raises:
            SaveError: it cannot be written; files of other iterations are intact.
        """
        if self.opt['rank'] != 0:
            return
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        content = {key: {name: value.detach().cpu().contiguous() for name, value in self.get_bare_model(one).state_dict().items()}
                   for one, key in zip(nets, keys, strict=True)}
        file = Path(self.opt['path']['models']) / f'{net_label}_{"latest" if current_iter == -1 else current_iter}.pth'
        self._digests[file.name] = save_atomically(content, file)

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write ``training_states/<iter>.state``, after the networks: their digests, optimisers, schedulers, RNG of every rank.

        Called on all ranks, which shared optimisers and the RNG need.

        Raises:
            SaveError: as :meth:`save_network`.
        """
        digests, self._digests = self._digests, {}
        if current_iter == -1:
            return
        optimizers = [o.gather_state() if hasattr(o, 'gather_state') else o.state_dict() for o in self.optimizers]
        rng = [rng_state()]
        if self.opt['dist']:
            rng = [None] * self.opt['world_size']
            torch.distributed.all_gather_object(rng, rng_state())
        if self.opt['rank'] != 0:
            return
        state = {'epoch': epoch, 'iter': current_iter, 'optimizers': optimizers,
                 'schedulers': [s.state_dict() for s in self.schedulers], 'rng': rng, 'best': self._best_metrics(),
                 'sha256': digests, 'version': __version__}
        save_atomically(state, Path(self.opt['path']['training_states']) / f'{current_iter}.state')
        self._complete.append(current_iter)
        self._prune()

    def _best_metrics(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the best value of each metric so far, by data set, in types that a safe ``torch.load`` reads."""
        return {dataset: {metric: best | {'val': float(best['val'])} for metric, best in record.items()}
                for dataset, record in getattr(self, 'best_metric_results', {}).items()}

    def _prune(self) -> None:
        """Remove what is older than the ``logger.keep_checkpoints`` newest iterations that this run knows to be complete.

        The others do not count, whatever their number: they may be damaged, or be left from a run that went further.
        """
        keep = self.opt['logger'].get('keep_checkpoints')
        if keep is None or len(self._complete) < keep:
            return
        self._complete = self._complete[-int(keep):]
        for state in Path(self.opt['path']['training_states']).glob('*.state'):
            if state.stem.isdigit() and int(state.stem) < self._complete[0]:
                state.unlink(missing_ok=True)  # before its networks: no state is ever without them
                for network in Path(self.opt['path']['models']).glob(f'net_*_{state.stem}.pth'):
                    network.unlink(missing_ok=True)

    def resume_training(self, resume_state: dict) -> None:
        """Restore optimisers, positions of the schedulers, best metrics, and this rank's RNG. The constructor has loaded the networks.

        The schedules themselves are those of the option file, so that a run can be resumed with a longer one, and so are learning rates,
        betas and what else an optimiser is told: the saved learning rate is scaled by the ratio of the initial ones.

        Raises:
            OptionError: the state is of another model, or its optimisers are nothing that torch takes.
        """
        try:
            positions = [{key: value for key, value in state.items() if key in SCHEDULER_POSITION} for state in resume_state['schedulers']]
            optimizers, factors = [], []
            for optimizer, state in zip(self.optimizers, resume_state['optimizers']):
                groups, scales = zip(*map(_as_in_the_options, optimizer.param_groups, state['param_groups']))
                optimizers.append(state | {'param_groups': list(groups)})
                factors.append(scales)
            optimizers += resume_state['optimizers'][len(optimizers):]  # too many, which the host refuses
            for position, scales in zip(positions, factors):
                position['_last_lr'] = [rate * scale for rate, scale in zip(position['_last_lr'], scales)]
            super().resume_training(resume_state | {'schedulers': positions, 'optimizers': optimizers})
            if any(scale != 1 for scales in factors for scale in scales):
                get_root_logger().info('The learning rates of the option file are not those of the run that is resumed: from here on, '
                                       'they are those of the option file.')
        except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise OptionError(f'path.resume_state: {self.opt["path"]["resume_state"]}: its optimizers and schedulers do not fit this run '
                              f'({type(error).__name__}: {printable(error, 160)}).') from error
        if isinstance(resume_state.get('best'), dict):
            self.best_metric_results = resume_state['best']
        self._complete = [resume_state['iter']]
        rng = resume_state.get('rng', [])
        if self.opt['rank'] < len(rng):
            IterationSampler.on_resume = (resume_state['epoch'], partial(set_rng_state, rng[self.opt['rank']]))
        else:
            get_root_logger().warning('The state holds no random state for this rank: datasets of BasicSR that draw from the global '
                                      'generators will not repeat the unbroken run.')


def _as_in_the_options(own: dict[str, Any], saved: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Return a saved group of an optimiser with the options of this run, and the ratio of the initial learning rates, new over old.

    Args:
        own: group of the optimiser as the option file has it.
        saved: group of the state.
    """
    scale = own['initial_lr'] / saved['initial_lr']
    told = {key: value for key, value in own.items() if key not in (*KEPT_OF_OPTIMIZERS, 'params', 'lr')}
    return saved | told | {'lr': saved['lr'] * scale}, scale


def rng_state() -> dict:
    """Return the state of the global generators (python, numpy, torch, this rank's GPU) in types that a safe ``torch.load`` reads."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = {'python': random.getstate(), 'numpy': (name, keys.tolist(), int(position), int(has_gauss), float(cached)),
             'torch': torch.get_rng_state()}
    return state | ({'cuda': torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {})


def set_rng_state(state: dict) -> None:
    """Restore what :func:`rng_state` returned; a GPU's state only where there is one."""
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))
    np.random.set_state(tuple(state['numpy']))
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
