"""BridgeModel: training and testing of a diffusion-bridge teacher inside BasicSR's loop."""
from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import copy, deepcopy
from functools import cached_property
from pathlib import Path

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

import ibmd_basicsr.archs  # noqa: F401  (option blocks name our networks and losses)
import ibmd_basicsr.losses  # noqa: F401
from ibmd_basicsr.bridges import TIME_WEIGHTS, build_bridge, expand_time, interpolate
from ibmd_basicsr.checkpoints.state_dict import load_file, load_params, load_strictly
from ibmd_basicsr.models.finite_guard import FiniteGuard
from ibmd_basicsr.models.saving import SafeSaving
from ibmd_basicsr.models.switches import Switches, align_optimizer
from ibmd_basicsr.models.validation import ShardedValidation
from ibmd_basicsr.restorer import Restorer, SamplerOptions
from ibmd_basicsr.utils.endpoints import gt_to_x_0, lq_to_x_T
from ibmd_basicsr.utils.errors import DataError, OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise

OPTIMIZERS = ('Adam', 'AdamW', 'RAdam', 'SGD')
FUSED_OPTIMIZERS = ('Adam', 'AdamW', 'SGD')
"""Those that torch (on CPUs from 2.4 on) can run as one kernel: the nano networks' step on a CPU takes 3.5 ms instead of 9."""


def clip_gradient(parameters: list[Tensor], limit: float | None) -> Tensor:
    """Return the norm of the gradient and scale it to ``limit`` where it is longer.

    As ``torch.nn.utils.clip_grad_norm_``, which multiplies by 1 in most iterations so as not to look at the norm. On a CPU it is at hand,
    and to read and write all gradients takes longer.

    Args:
        parameters: of one network.
        limit: of the norm over all gradients; None for any.
    """
    limit = limit or float('inf')
    if parameters[0].device.type != 'cpu' or not hasattr(nn.utils, 'get_total_norm'):  # torch 2.6
        return nn.utils.clip_grad_norm_(parameters, limit).detach()
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if norm + 1e-6 > limit:  # torch's own margin
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm.detach()


@MODEL_REGISTRY.register()
class BridgeModel(SafeSaving, ShardedValidation, SRModel):
    """Trains ``net_g`` to estimate the clean image from bridge samples (bridge matching), and tests it with a sampler.

    Reads the option blocks ``bridge``, ``network_g``, ``val.sampler`` and ``train`` (``bridge_opt``, ``optim_g``, ``grad_clip``,
    ``micro_batch``, ``ema_decay``, :class:`~ibmd_basicsr.models.switches.Switches`). All noise is drawn from one generator per sample,
    keyed by (manual_seed, iteration, place in the global batch): a resumed run repeats the unbroken one, and N ranks see the noise that
    one process with N times the batch would see.
    """

    draws_noise = True

    def __init__(self, opt: dict):
        self.bridge = build_bridge(**opt['bridge'])
        super().__init__(opt)

    # ------------------------------------------------------------------ set-up
    @cached_property
    def switches(self) -> Switches:
        """How the arithmetic is done; tests leave it to torch."""
        return Switches(self.opt['train'] if self.opt['is_train'] else {}, self.device)

    def init_training_settings(self) -> None:
        """Build the EMA network, losses, optimisers and schedulers (host hook, called by the constructor)."""
        self.net_g.train()
        train_opt = self.opt['train']
        self.grad_clip = train_opt.get('grad_clip')
        self.switches.set_tf32()
        self._build_ema()
        self._build_losses()
        self.setup_optimizers()
        self.setup_schedulers()
        self._terms: dict[str, Tensor] = OrderedDict()
        self.guard = FiniteGuard(deferred=self.device.type == 'cuda')

    def _build_ema(self) -> None:
        self.ema_decay = self.opt['train'].get('ema_decay', 0)
        if not 0 <= self.ema_decay < 1:
            raise OptionError(f'train.ema_decay must lie in [0, 1), got {self.ema_decay}.')
        if self.ema_decay == 0:
            return
        self.net_g_ema = self.switches.prepare(build_network(deepcopy(self.opt['network_g']))).requires_grad_(False).eval()
        self.net_g_ema.load_state_dict(self.get_bare_model(self.net_g).state_dict())
        path = self.opt['path'].get('pretrain_network_g')
        if path is not None and 'params_ema' in load_file(path):
            load_strictly(self.net_g_ema, load_params(path, 'params_ema'), str(path))

    def _build_losses(self) -> None:
        self.cri_bridge = build_loss(deepcopy(self.opt['train']['bridge_opt'])).to(self.device)
        self.bridge_weight = TIME_WEIGHTS[self.cri_bridge.time_weight]

    def setup_optimizers(self) -> None:
        """Build the optimiser of ``net_g`` from ``train.optim_g``."""
        self.optimizer_g = self._build_optimizer('optim_g', self.net_g)
        self.optimizers.append(self.optimizer_g)

    def _build_optimizer(self, block: str, net: nn.Module) -> torch.optim.Optimizer:
        # YAML knows lists alone; torch's optimisers hold betas as a tuple, given so or not
        options = {key: tuple(value) if isinstance(value, list) else value for key, value in self.opt['train'][block].items()}
        return self.get_optimizer(options.pop('type'), list(net.parameters()), **options)

    def get_optimizer(self, optim_type: str, params: list, lr: float, **kwargs) -> torch.optim.Optimizer:
        """Build a torch optimiser by name (the host's 1.4.2 release knows Adam alone), fused unless the options say otherwise.

        With ``train.shard_optimizer`` and several processes its state is shared out over them.

        Raises:
            OptionError: a type that is not offered.
        """
        if optim_type not in OPTIMIZERS:
            raise OptionError(f'Optimizer type must be one of {OPTIMIZERS}, got {optim_type!r}.')
        chosen = any(kwargs.get(name) is not None for name in ('fused', 'foreach')) or kwargs.get('differentiable')
        if optim_type in FUSED_OPTIMIZERS and not chosen and torch.__version__ >= '2.4':
            kwargs['fused'] = True
        optimizer = getattr(torch.optim, optim_type)
        if self.opt['train'].get('shard_optimizer'):
            if self.opt['world_size'] > 1:
                from ibmd_basicsr.models.sharded_optimizer import ShardedOptimizer  # not every build of torch has it
                return ShardedOptimizer(params, optimizer, lr=lr, **kwargs)
            get_root_logger().info('train.shard_optimizer: one process keeps the whole state of its optimiser, nothing is shared out.')
        return optimizer(params, lr, **kwargs)

    def setup_schedulers(self) -> None:
        """Build one scheduler per optimiser: the host's types, or ``StepLR`` (I2SB: 0.99 every 1000).

        All of them count host iterations, also those in which their optimiser rests. The host pops from the options it reads, so it
        gets a copy.
        """
        options = dict(self.opt['train']['scheduler'])
        if options.pop('type') == 'StepLR':
            self.schedulers += [torch.optim.lr_scheduler.StepLR(optimizer, **options) for optimizer in self.optimizers]
            return
        shared, self.opt['train']['scheduler'] = self.opt['train']['scheduler'], deepcopy(self.opt['train']['scheduler'])
        try:
            super().setup_schedulers()
        finally:
            self.opt['train']['scheduler'] = shared

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Step the schedulers (host hook, before the optimiser's step).

        The host's warm-up overwrites the learning rate from which ``MultiStepLR`` and ``StepLR`` go on; they get their own back first.
        """
        if 1 < current_iter <= warmup_iter:
            self._set_lr([scheduler.get_last_lr() for scheduler in self.schedulers])
        with warnings.catch_warnings():
            # an optimiser whose turn has not come yet is no mistake here
            warnings.filterwarnings('ignore', message='Detected call of `lr_scheduler.step')
            super().update_learning_rate(current_iter, warmup_iter=warmup_iter)

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Set a bridge's network up for the device, then for several processes; unlike the host's, also on CPUs (gloo)."""
        return self._distribute(self.switches.prepare(net))

    def _distribute(self, net: nn.Module) -> nn.Module:
        if self.opt['dist']:
            device_ids = [torch.cuda.current_device()] if self.device.type == 'cuda' else None
            return DistributedDataParallel(net, device_ids=device_ids,
                                           find_unused_parameters=self.opt.get('find_unused_parameters', False))
        return DataParallel(net) if self.opt['num_gpu'] > 1 else net

    def print_network(self, net: nn.Module) -> None:
        """Log the network's name and size in one line (the host prints every layer)."""
        bare = self.get_bare_model(net)
        get_root_logger().info(f'Network: {type(bare).__name__}, with parameters: {sum(p.numel() for p in bare.parameters()):,d}')

    def load_network(self, net: nn.Module, load_path: str, strict: bool = True, param_key: str | None = 'params') -> None:
        """Load weights strictly and safely; a key that is missing is an error, never replaced by another.

        Raises:
            CheckpointError: the file is missing, damaged or does not fit.
            OptionError: ``strict`` is false.
        """
        if not strict:
            raise OptionError('path.strict_load_*: false is not supported: weights either fit or are refused.')
        load_strictly(self.get_bare_model(net), load_params(load_path, param_key), str(load_path))
        get_root_logger().info(f'Loaded {type(self.get_bare_model(net)).__name__} from {load_path} [{param_key}].')

    # ---------------------------------------------------------------- training
    def feed_data(self, data: dict) -> None:
        """Take a batch: the border from the host's images to the bridge's (utils/endpoints.py).

        Raises:
            DataError: an image of a class that the network does not have.
        """
        self.lq = data['lq'].to(self.device, non_blocking=True)
        self.names = [Path(path).stem for path in data['lq_path']]
        self.x_T = lq_to_x_T(self.lq, self.opt['scale'])
        self._check_labels(data)
        self.mask, self.labels = (data[key].to(self.device, non_blocking=True) if key in data else None for key in ('mask', 'label'))
        self.x_0 = None
        if 'gt' in data:
            self.gt = data['gt'].to(self.device, non_blocking=True)
            self.x_0 = gt_to_x_0(self.gt)

    def _check_labels(self, data: dict) -> None:
        """Refuse classes that the network does not have, before a GPU meets them: there it would be an assertion without a name.

        Raises:
            DataError: the first image of such a class.
        """
        classes = self.opt['network_g'].get('num_classes')
        for label, path in zip(data['label'].tolist() if 'label' in data and classes is not None else (), data['lq_path']):
            if label >= classes:
                raise DataError(f'{path}: has the label {label}; network_g.num_classes is {classes}, labels are 0 to {classes - 1}.')

    def optimize_parameters(self, current_iter: int) -> None:
        """One step of bridge matching: x_t ~ q(x_t | x_0, x_T), regress x_0."""
        self.update(current_iter)
        self.finish_iteration(current_iter)

    def update(self, current_iter: int) -> None:
        """Let the networks learn from the batch that was fed; what :meth:`optimize_parameters` is without the stop on a signal."""
        noise = self._training_noise(current_iter)
        loss, grad_norm = self._step(self.net_g, self.optimizer_g, 'l_bridge', current_iter, noise, self._teacher_loss)
        self._terms.update(l_bridge=loss, grad_g=grad_norm)
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)

    def _training_noise(self, current_iter: int) -> PerImageNoise:
        """Return the iteration's source of noise, after the hole of x_T (inpainting tasks) has been filled from it."""
        noise = PerImageNoise.for_training(self.opt['manual_seed'], current_iter, batch=len(self.x_T), rank=self.opt['rank'],
                                           world_size=self.opt['world_size'], device=self.device)
        self.x_T = self.bridge.fill_hole(self.x_T, self.mask, noise.randn_like)
        return noise

    def _teacher_loss(self, noise: PerImageNoise) -> Tensor:
        t = self.bridge.schedule.training_times(noise.rand(self.device))
        return self._bridge_matching(self.net_g, self.x_0, t, noise)

    def _bridge_matching(self, net: nn.Module, x_0: Tensor, t: Tensor, noise: PerImageNoise) -> Tensor:
        """Return the bridge-matching loss of ``net`` on clean images ``x_0`` and the batch's x_T."""
        x_t = interpolate(self.bridge.schedule.coefficients(t), x_0, self.x_T, noise.randn_like(x_0))
        return self._regression(net, x_t, x_0, t)

    def _regression(self, net: nn.Module, x_t: Tensor, x_0: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        """Return ``E lambda(t) |x0_hat(x_t, t) - x_0|^2`` of ``net`` on given bridge samples; ``z`` (B, Cz, H, W) for its extra inputs."""
        return self.cri_bridge(self._denoise(net, x_t, t, z), x_0, self._weight(self.bridge_weight, t, x_0), self.mask)

    def _weight(self, time_weight: Callable[[Tensor, Tensor], Tensor], t: Tensor, x_0: Tensor) -> Tensor:
        """Return lambda(t), broadcastable against ``x_0`` and in its dtype."""
        c_out = self.bridge.precond.scalings(t, x_0.ndim).c_out
        return time_weight(expand_time(t, x_0.ndim), c_out).to(x_0.dtype)

    def _denoise(self, net: nn.Module, x_t: Tensor, t: Tensor, z: Tensor | None = None) -> Tensor:
        dtype = self.switches.autocast
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            return self.bridge.denoiser(net, self.labels)(x_t, t, self.x_T, z)

    def _step(self, net: nn.Module, optimizer: torch.optim.Optimizer, label: str, current_iter: int, noise: PerImageNoise,
              *losses: Callable[[PerImageNoise], Tensor]) -> tuple[Tensor, Tensor]:
        """Backward, clip, check, step; return the loss and the gradient norm before clipping.

        Args:
            net: who learns.
            optimizer: of ``net``.
            label: what to call the loss.
            current_iter: iteration of the host.
            noise: what the losses draw from.
            losses: see :meth:`_accumulate`.

        Raises:
            NonFiniteError: the loss or a gradient, on a GPU of this step or the one before, is not finite. The parameters are left as
                they were (:class:`FiniteGuard`).
        """
        optimizer.zero_grad(set_to_none=True)
        loss = self._accumulate(net, noise, *losses)
        return loss, self._apply(optimizer, label, current_iter, loss)

    def _accumulate(self, net: nn.Module, noise: PerImageNoise, *losses: Callable[[PerImageNoise], Tensor]) -> Tensor:
        """Add the gradient of the sum of ``losses`` to that of ``net``, micro-batch by micro-batch; return the value of the sum.

        Each loss returns its mean over the images that ``self`` now holds, all of a batch or those of a micro-batch, and is followed by
        its own backward, so that a network that is called in two of them keeps one's activations.
        """
        loss = torch.zeros((), device=self.device)
        for part_noise, share, last in self._micro_batches(noise):
            for number, loss_of in enumerate(losses, 1):
                # gradients are averaged over ranks once, with the last backward
                synchronise = last and number == len(losses)
                with nullcontext() if synchronise or not isinstance(net, DistributedDataParallel) else net.no_sync():
                    part = share * loss_of(part_noise)
                    part.backward()
                loss = loss + part.detach()
        return loss

    def _apply(self, optimizer: torch.optim.Optimizer, label: str, current_iter: int, loss: Tensor) -> Tensor:
        """Clip, check, step; return the gradient norm before clipping. Arguments and errors as for :meth:`_step`."""
        # the optimiser's list of them: to walk through a network's modules takes 0.3 ms at nano size
        grad_norm = clip_gradient([parameter for group in optimizer.param_groups for parameter in group['params']], self.grad_clip)
        # after the all-reduce every rank sees the same norm, so all ranks stop together
        self.guard.step(optimizer, label, current_iter, loss, grad_norm)
        return grad_norm

    def _micro_batches(self, noise: PerImageNoise) -> Iterator[tuple[PerImageNoise, float, bool]]:
        """Let ``self`` hold ``train.micro_batch`` images of the batch at a time; yield their noise, their share, and whether they are last.

        Since every image has its own generator, the sum of the gradients is that of the whole batch.
        """
        count = len(self.x_T)
        whole = {name: getattr(self, name) for name in ('x_T', 'x_0', 'mask', 'labels')}
        for part in self._parts():
            for name, value in whole.items():
                setattr(self, name, None if value is None else value[part])
            yield noise.part(part), len(self.x_T) / count, part.stop >= count
        for name, value in whole.items():
            setattr(self, name, value)

    def _parts(self) -> list[slice]:
        """Return where the micro-batches lie in the batch that ``self`` holds."""
        count = len(self.x_T)
        size = self.opt['train'].get('micro_batch') or count
        return [slice(start, start + size) for start in range(0, count, size)]

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move ``net_g_ema`` towards ``net_g``: parameters by the decay, buffers (which the host forgets) by copy."""
        targets, sources, buffers = self._ema_pairs
        torch._foreach_lerp_(targets, sources, 1 - decay)
        for ours, theirs in buffers:
            ours.copy_(theirs)

    @cached_property
    def _ema_pairs(self) -> tuple[list[Tensor], list[Tensor], list[tuple[Tensor, Tensor]]]:
        """Parameters of ``net_g_ema``, those of ``net_g``, and both's buffers in pairs: to collect them takes longer than the arithmetic.

        They stay what they are as long as the model lives: weights are loaded, and stepped, in place.
        """
        source, target = self.get_bare_model(self.net_g), self.net_g_ema
        return (list(target.parameters()), [p.detach() for p in source.parameters()],
                list(zip(target.buffers(), source.buffers(), strict=True)))

    def get_current_log(self) -> dict[str, float]:
        """Return the latest value of every logged term, averaged over ranks (called by the host every ``print_freq``).

        Raises:
            NonFiniteError: the last step was not made.
        """
        self.guard.check()
        return self.reduce_loss_dict(OrderedDict((name, value.detach().float()) for name, value in self._terms.items()))

    # -------------------------------------------------------------------- test
    def test(self, sample: int = 0) -> None:
        """Restore the fed batch with the EMA network (if there is one) and ``val.sampler``.

        Args:
            sample: which restoration of each image; another number is another noise.
        """
        # a shallow copy has the same weights and is not compiled, as it would be for every size of image
        net = copy(self.net_g_ema if hasattr(self, 'net_g_ema') else self.get_bare_model(self.net_g))
        restorer = Restorer(net=net, bridge=self.bridge, sampler=SamplerOptions(**(self.opt['val'].get('sampler') or {})),
                            scale=self.opt['scale'])
        noise = PerImageNoise.for_images(self.opt.get('manual_seed') or 0, self.names, sample)
        self.output = restorer(self.lq, noise, mask=self.mask, labels=self.labels)

    # ------------------------------------------------------------ save, resume
    def save_network(self, net, net_label: str, current_iter: int, param_key='params') -> None:
        """See :class:`SafeSaving`.

        Raises:
            NonFiniteError: the last step was not made.
        """
        self.guard.check()
        super().save_network(net, net_label, current_iter, param_key)

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """See :class:`SafeSaving`.

        Raises:
            NonFiniteError: the last step was not made.
        """
        self.guard.check()
        super().save_training_state(epoch, current_iter)

    def resume_training(self, resume_state: dict) -> None:
        """See :class:`SafeSaving`; the optimisers' states then lie in memory as the weights do."""
        super().resume_training(resume_state)
        for optimizer in self.optimizers:
            align_optimizer(optimizer)
