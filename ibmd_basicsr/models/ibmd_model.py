"""IBMDModel: inverse bridge matching distillation of a trained bridge into a generator of one or a few steps, inside BasicSR's loop."""
from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from ibmd_basicsr.bridges import TIME_WEIGHTS, draw_posterior, interpolate, keep_known, rebridge, student_walk
from ibmd_basicsr.checkpoints.state_dict import load_strictly, widen_entrance
from ibmd_basicsr.models.bridge_model import BridgeModel
from ibmd_basicsr.models.builders import build_frozen_network
from ibmd_basicsr.models.extras import Extras
from ibmd_basicsr.models.known_weights import misuse
from ibmd_basicsr.models.real_pairs import RealPairs, scale_target
from ibmd_basicsr.models.recipes import task_of
from ibmd_basicsr.models.student_options import StudentOptions
from ibmd_basicsr.models.turns import BRIDGE, Turns
from ibmd_basicsr.utils.endpoints import x_0_to_gt
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise, derive_seed


@dataclass(frozen=True)
class StudentPass:
    """One pass of the student: x_0 = G(x_n, z, t_n), with the input x_n (B, C, H, W) and its times t_n (B,)."""

    x_0: Tensor
    x_n: Tensor
    t_n: Tensor

    def part(self, images: slice) -> StudentPass:
        """Return the pass of some images of the batch."""
        return StudentPass(self.x_0[images], self.x_n[images], self.t_n[images])


@MODEL_REGISTRY.register()
class IBMDModel(BridgeModel):
    """Distils the frozen ``teacher`` into the student ``net_g`` with the help of ``net_bridge`` (IBMD, arXiv 2502.01362, algorithm 1).

    Every host iteration is one update on a fresh batch of corrupted images; no clean image is read, unless ``train.real_pairs`` asks for
    it (:class:`RealPairs`) or one of :class:`Extras`. K bridge updates are followed by one student update: iteration i is the student's
    when i is a multiple of K + 1; with ``train.share_generator_pass``, when it is a multiple of K, and it then makes the K-th bridge
    update, too (:meth:`_shared_updates`).

    * bridge update: ``net_bridge`` learns bridge matching on the student's own outputs;
    * student update: minimise :class:`InverseBridgeLoss` with teacher and ``net_bridge`` frozen (their parameters, not their inputs),
      plus the extras; with ``train.gan_opt`` the discriminator ``net_d`` then learns from the same outputs, made before the student's step.

    Student and bridge network start from the teacher; extra input channels (z) start at zero weight. The teacher lies in its own
    ``teacher`` block, outside the host's rules for ``network_*``, and is in no checkpoint.
    """

    def init_training_settings(self) -> None:
        """Build teacher, bridge network and what :class:`BridgeModel` builds (host hook)."""
        self.turns = Turns.from_options(self.opt)
        self.student = StudentOptions(**(self.opt['train'].get('student') or {}))
        pairs = self.opt['train'].get('real_pairs')
        self.real_pairs = RealPairs(**pairs) if pairs else None
        self.student_grid = self.bridge.schedule.student_grid(self.student.steps).to(self.device)
        options = self.opt['teacher']
        self.teacher = self.switches.prepare(
            build_frozen_network(options['network'], options['weights'], options.get('param_key', 'params_ema'), self.device))
        warning = misuse(Path(options['weights']), task_of(self.opt), self.opt['scale'], 'this training')
        if warning:
            get_root_logger().warning(f'teacher.weights: {warning}')
        self._build_bridge_network()
        self.extras = Extras(self.opt['train'], self.device) if Extras.wanted(self.opt['train']) else None
        self.net_d = self._build_discriminator() if self.extras is not None and self.extras.gan is not None else None
        if self.opt['path'].get('pretrain_network_g') is None:
            self._copy_teacher(self.get_bare_model(self.net_g), 'net_g')
        super().init_training_settings()

    def _build_bridge_network(self) -> None:
        net = build_network(deepcopy(self.opt.get('network_bridge') or self.opt['teacher']['network']))
        if not self._load_pretrained(net, 'bridge'):
            self._copy_teacher(net, 'net_bridge')
        self.net_bridge = self.model_to_device(net)
        self.print_network(self.net_bridge)

    def _build_discriminator(self) -> torch.nn.Module:
        net = build_network(deepcopy(self.opt['network_d']))
        self._load_pretrained(net, 'd')
        self._fakes: list[Tensor] = []  # the student's outputs, by micro-batch, on their way to the discriminator's update
        # not set up as a bridge's network: spectral norm changes its buffers in every call
        net = self._distribute(net.to(self.device)).train()
        self.print_network(net)
        return net

    def _load_pretrained(self, net: torch.nn.Module, name: str) -> bool:
        """Load ``path.pretrain_network_<name>``, which a resumed run sets; tell whether it is given."""
        paths = self.opt['path']
        if paths.get(f'pretrain_network_{name}') is None:
            return False
        self.load_network(net, paths[f'pretrain_network_{name}'], paths.get(f'strict_load_{name}', True),
                          paths.get(f'param_key_{name}', 'params'))
        return True

    def _copy_teacher(self, net: torch.nn.Module, label: str) -> None:
        load_strictly(net, widen_entrance(self.teacher.state_dict(), net), 'the teacher')
        get_root_logger().info(f'{label} starts from the teacher ({self.opt["teacher"]["weights"]}).')

    def _build_losses(self) -> None:
        super()._build_losses()
        self.cri_ibmd = build_loss(deepcopy(self.opt['train']['ibmd_opt'])).to(self.device)
        self.ibmd_weight = TIME_WEIGHTS[self.cri_ibmd.time_weight]

    def setup_optimizers(self) -> None:
        """Build the optimisers of student, bridge network and discriminator (if there is one)."""
        super().setup_optimizers()
        self.optimizer_bridge = self._build_optimizer('optim_bridge', self.net_bridge)
        self.optimizers.append(self.optimizer_bridge)
        if self.net_d is not None:
            self.optimizer_d = self._build_optimizer('optim_d', self.net_d)
            self.optimizers.append(self.optimizer_d)

    def update(self, current_iter: int) -> None:
        """One update on a fresh batch: the student's (and the discriminator's) or the bridge network's, by :class:`Turns`.

        With ``train.share_generator_pass`` the student's iterations are updates of the bridge network, too.
        """
        noise = self._training_noise(current_iter)
        if self.turns.of(current_iter) == BRIDGE:
            self._let_learn(self.net_bridge)
            self._log_step('bridge', *self._step(self.net_bridge, self.optimizer_bridge, 'l_bridge', current_iter, noise,
                                                 partial(self._bridge_loss, current_iter=current_iter)))
            return
        if self.turns.shared:
            self._shared_updates(noise, current_iter)
        else:
            self._let_learn(self.net_g)
            self._log_step('g', *self._step(self.net_g, self.optimizer_g, 'l_g', current_iter, noise,
                                            partial(self._student_loss, current_iter=current_iter)))
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)
        if self.net_d is not None:
            self._let_learn(self.net_d)
            self._log_step('d', *self._step(self.net_d, self.optimizer_d, 'l_d', current_iter, noise, self._real_loss, self._fake_loss))

    def _log_step(self, name: str, loss: Tensor, grad_norm: Tensor) -> None:
        self._terms[f'l_{name}'], self._terms[f'grad_{name}'] = loss, grad_norm

    def _shared_updates(self, noise: PerImageNoise, current_iter: int) -> None:
        """Make the last bridge update of a cycle and the student's update on one batch and one pass of the student.

        Both learn from the same x_0 = G(x_n, z): the bridge network from its values, before; then the student through a loss that already
        has the new bridge network in it. That is exact: x_0 does not depend on the bridge network, and the student has not moved in
        between. Networks, optimiser states and EMA are those of a bridge update followed by a student update that were given the same
        batch and the same draws up to x_0; loss times and loss noise go on in each image's stream, so the two losses are drawn apart.

        The student is called and differentiated once for the whole batch, whatever ``train.micro_batch``: the micro-batches of its loss
        gather dL/dx_0, which then goes back through it.
        """
        self._let_learn(self.net_g)
        drawn = self._student_pass(self.net_g, noise, current_iter)
        made = replace(drawn, x_0=drawn.x_0.detach())
        self._let_learn(self.net_bridge)
        parts = iter([made.part(images) for images in self._parts()])
        self._log_step('bridge', *self._step(self.net_bridge, self.optimizer_bridge, 'l_bridge', current_iter, noise,
                                             lambda noise: self._bridge_loss_on(next(parts), noise)))
        self._let_learn(self.net_g)
        made.x_0.requires_grad_()
        parts = iter([made.part(images) for images in self._parts()])
        self.optimizer_g.zero_grad(set_to_none=True)
        loss = self._accumulate(self.net_g, noise, lambda noise: self._student_loss_on(next(parts), noise))
        drawn.x_0.backward(made.x_0.grad)
        self._log_step('g', loss, self._apply(self.optimizer_g, 'l_g', current_iter, loss))

    def _let_learn(self, learner: torch.nn.Module) -> None:
        """Say who learns now: the only place that touches ``requires_grad``."""
        for net in (self.net_g, self.net_bridge, self.net_d):
            # all parameters of a network are alike
            if net is not None and next(net.parameters()).requires_grad is not (net is learner):
                net.requires_grad_(net is learner)

    def _bridge_loss(self, noise: PerImageNoise, current_iter: int) -> Tensor:
        """Bridge matching on the student's outputs (IBMD eq. 12, inner problem), and on real pairs where the options ask for them."""
        with torch.no_grad():
            drawn = self._student_pass(self.get_bare_model(self.net_g), noise, current_iter)
        return self._bridge_loss_on(drawn, noise)

    def _bridge_loss_on(self, drawn: StudentPass, noise: PerImageNoise) -> Tensor:
        """Return the bridge network's loss on a pass of the student without gradient."""
        pairs = self.real_pairs
        if pairs is None:
            return self._matching(drawn, noise)
        loss = self._matching(drawn, noise, pairs.ratio)
        return pairs.alpha * loss + (1 - pairs.alpha) * self._matching(self._real_pass(drawn.t_n, noise), noise, pairs.real_ratio)

    def _matching(self, drawn: StudentPass, noise: PerImageNoise, factor: float = 1.0) -> Tensor:
        """Return the regression of the bridge network on ``drawn``; ``factor`` as in :func:`scale_target`."""
        with torch.no_grad():
            x_t, t = self._bridge_sample(drawn, noise)
        return self._regression(self.net_bridge, x_t, scale_target(drawn.x_0, x_t, factor), t, self._step_map(drawn))

    def _real_pass(self, t_n: Tensor, noise: PerImageNoise) -> StudentPass:
        """Return what a student would have been given and have made at ``t_n`` if its outputs were the clean images.

        Raises:
            OptionError: the batch has no clean images.
        """
        x_0 = self._clean('train.real_pairs')
        x_n = interpolate(self.bridge.schedule.coefficients(t_n), x_0, self.x_T, noise.randn_like(x_0))
        return StudentPass(x_0, torch.where((t_n == 1).reshape(-1, 1, 1, 1), self.x_T, x_n), t_n)

    def _clean(self, option: str) -> Tensor:
        """Return the true x_0 for the sake of ``option``.

        Raises:
            OptionError: the batch has no clean images.
        """
        if self.x_0 is None:
            raise OptionError(f'{option}: the training set hands out no clean images; give dataroot_gt and leave return_gt out.')
        return self.x_0

    def _student_loss(self, noise: PerImageNoise, current_iter: int) -> Tensor:
        """The inverse problem (IBMD eq. 12, outer): the gradient runs through x_0 and, for ``gradient: full``, through x_t."""
        return self._student_loss_on(self._student_pass(self.net_g, noise, current_iter), noise)

    def _student_loss_on(self, drawn: StudentPass, noise: PerImageNoise) -> Tensor:
        """Return the student's loss on a pass of it; the gradient goes to ``drawn.x_0``."""
        x_t, t = self._bridge_sample(drawn, noise)
        x_t = self.cri_ibmd.network_input(x_t)
        teacher_x0 = self._denoise(self.teacher, x_t, t)
        bridge_x0 = self._denoise(self.get_bare_model(self.net_bridge), x_t, t, self._step_map(drawn))
        self._log_diagnostics(teacher_x0, bridge_x0, drawn.x_0)
        target, share = drawn.x_0, 1.0
        if self.real_pairs is not None:
            target, share = scale_target(drawn.x_0, x_t, self.real_pairs.ratio), self.real_pairs.alpha
        loss = share * self.cri_ibmd(teacher_x0, bridge_x0, target, self._weight(self.ibmd_weight, t, drawn.x_0), self.mask)
        return loss if self.extras is None else loss + self._extra_loss(drawn.x_0, loss)

    def _extra_loss(self, x_0: Tensor, ibmd: Tensor) -> Tensor:
        """Return the sum of the extras on the student's ``x_0``; log them and the distillation's own loss, of the last micro-batch.

        Raises:
            OptionError: the batch has no clean images.
        """
        image, clean = x_0_to_gt(x_0), x_0_to_gt(self._clean(Extras.wanted(self.opt['train'])))
        if self.net_d is not None:
            self._fakes.append(image.detach())
        # not through DistributedDataParallel, which would wait for gradients of the frozen discriminator
        terms = self.extras.student_terms(image, clean, None if self.net_d is None else self.get_bare_model(self.net_d))
        self._terms.update(l_g_ibmd=ibmd.detach(), **{name: term.detach() for name, term in terms.items()})
        return torch.stack(list(terms.values())).sum()

    def _real_loss(self, noise: PerImageNoise) -> Tensor:
        """Return the discriminator's loss on the clean images; ``noise`` is not used."""
        return self._discriminator_loss(x_0_to_gt(self._clean('train.gan_opt')), real=True)

    def _fake_loss(self, noise: PerImageNoise) -> Tensor:
        """Return the discriminator's loss on what the student made for its own update, in the order of the micro-batches."""
        return self._discriminator_loss(self._fakes.pop(0), real=False)

    def _discriminator_loss(self, image: Tensor, real: bool) -> Tensor:
        terms = self.extras.discriminator_terms(self.net_d, image, real)
        self._terms.update({name: term.detach() for name, term in terms.items()})
        return terms['l_d_real' if real else 'l_d_fake']

    def _step_map(self, drawn: StudentPass) -> Tensor | None:
        """Return t_n as a map (B, 1, H, W) for a bridge network that is told it."""
        x = drawn.x_n
        return drawn.t_n.to(x.dtype).reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]) if self.student.tell_bridge else None

    def _student_pass(self, net: torch.nn.Module, noise: PerImageNoise, current_iter: int) -> StudentPass:
        """Call ``net`` once, at a time and on an input that inference will meet; the gradient runs through this call alone."""
        with torch.no_grad():
            x_n, t_n = self._student_input(noise, current_iter)
        return StudentPass(self._generate(net, x_n, t_n, noise), x_n, t_n)

    def _student_input(self, noise: PerImageNoise, current_iter: int) -> tuple[Tensor, Tensor]:
        """Return x_{t_n} and t_n (B,) by the student's scheme (:class:`StudentOptions`)."""
        steps, grid = self.student.steps, self.student_grid
        student = self.get_bare_model(self.net_g)
        if steps == 1:
            return self.x_T, grid[:1].expand(len(self.x_T))
        if self.student.scheme == 'bridge':
            n = derive_seed('student_step', self.opt['manual_seed'], current_iter) % steps
            x, x_0 = self._rollout(student, n, noise)
            if n:
                x = rebridge(self.bridge.schedule, x, x_0, grid[n - 1], grid[n], noise.randn_like)
            return x.to(self.x_T.dtype), grid[n].expand(len(x))
        _, x_0 = self._rollout(self.net_g_ema if self.ema_decay > 0 else student, steps, noise)
        n = (noise.rand(self.device) * steps).long()
        x_n = interpolate(self.bridge.schedule.coefficients(grid[n]), x_0, self.x_T, noise.randn_like(x_0))
        return torch.where((n == 0).reshape(-1, 1, 1, 1), self.x_T, x_n), grid[n]

    def _rollout(self, net: torch.nn.Module, calls: int, noise: PerImageNoise) -> tuple[Tensor, Tensor | None]:
        """Walk ``calls`` steps of the student's grid from x_T; return the last call's input (float64) and its x_0 (None without calls)."""
        def generate(x: Tensor, t: Tensor) -> Tensor:
            return self._generate(net, x.to(self.x_T.dtype), t.expand(len(x)), noise)

        return student_walk(generate, self.bridge.schedule, self.x_T, self.student_grid, calls, randn_like=noise.randn_like)

    def _generate(self, net: torch.nn.Module, x_t: Tensor, t: Tensor, noise: PerImageNoise) -> Tensor:
        """Return G(x_t, z, t); outside the hole of an inpainting task its pixels are those of x_T."""
        channels = self.get_bare_model(net).noise_channels
        z = noise.randn_like(x_t.new_empty(len(x_t), channels, *x_t.shape[2:])) if channels else None
        x_0 = self._denoise(net, x_t, t, z)
        return x_0 if self.mask is None else keep_known(x_0, self.x_T, self.mask)

    def _bridge_sample(self, drawn: StudentPass, noise: PerImageNoise) -> tuple[Tensor, Tensor]:
        """Draw the loss time t and x_t: on the bridge to x_T, or, for the scheme ``posterior``, between x_0 and x_{t_n}."""
        schedule = self.bridge.schedule
        posterior = self.student.steps > 1 and self.student.scheme == 'posterior'
        # on discrete schedules the last step, where x_t is x_T but for 1e-3, is left out as in the published distillation
        t = schedule.training_times(noise.rand(self.device), below=drawn.t_n if posterior else torch.ones_like(drawn.t_n))
        if not posterior:
            return interpolate(schedule.coefficients(t), drawn.x_0, self.x_T, noise.randn_like(drawn.x_0)), t
        x_t = draw_posterior(schedule.posterior(t, drawn.t_n), drawn.x_0, drawn.x_n, noise.randn_like(drawn.x_0))
        return x_t.to(drawn.x_0.dtype), t

    @torch.no_grad()
    def _log_diagnostics(self, teacher_x0: Tensor, bridge_x0: Tensor, x_0: Tensor) -> None:
        """Log both regression errors, and E[f^2] - E[f x_0], zero when a network is the conditional mean of the student's data.

        Of a batch that is cut into micro-batches, of the last one.
        """
        for name, estimate in (('teacher', teacher_x0), ('fake', bridge_x0)):
            self._terms[f'l_{name}_on_student'] = (estimate - x_0).square().mean()
            self._terms[f'd_{name}'] = (estimate.square() - estimate * x_0).mean()

    def save(self, epoch: int, current_iter: int) -> None:
        """Write student (with EMA), bridge network, discriminator, and last the training state. The teacher is not written."""
        self.save_network(self.net_bridge, 'net_bridge', current_iter)
        if self.net_d is not None:
            self.save_network(self.net_d, 'net_d', current_iter)
        super().save(epoch, current_iter)
