"""IBMDModel: inverse bridge matching distillation of a trained bridge into a one-step generator, inside BasicSR's loop."""
from __future__ import annotations

from copy import deepcopy

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor

from ibmd_basicsr.bridges import interpolate, uniform_steps
from ibmd_basicsr.checkpoints.state_dict import load_strictly, widen_entrance
from ibmd_basicsr.models.bridge_model import BridgeModel
from ibmd_basicsr.models.builders import build_frozen_network
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.seeding import PerImageNoise


@MODEL_REGISTRY.register()
class IBMDModel(BridgeModel):
    """Distils the frozen ``teacher`` into the student ``net_g`` with the help of ``net_bridge`` (IBMD, arXiv 2502.01362, algorithm 1).

    Every host iteration is one update on a fresh batch of corrupted images; no clean image is read. K bridge updates are followed by one
    student update: iteration i is the student's when i is a multiple of K + 1.

    * bridge update: ``net_bridge`` learns bridge matching on the student's own outputs;
    * student update: minimise :class:`InverseBridgeLoss` with teacher and ``net_bridge`` frozen (their parameters, not their inputs).

    Student and bridge network start from the teacher; extra input channels (z) start at zero weight. The teacher lies in its own
    ``teacher`` block, outside the host's rules for ``network_*``, and is in no checkpoint.
    """

    def init_training_settings(self) -> None:
        """Build teacher, bridge network and what :class:`BridgeModel` builds (host hook)."""
        self.bridge_updates = self.opt['train'].get('bridge_updates_per_student', 5)
        if not isinstance(self.bridge_updates, int) or self.bridge_updates < 1:
            raise OptionError(f'train.bridge_updates_per_student must be an integer of at least 1, got {self.bridge_updates!r}.')
        options = self.opt['teacher']
        self.teacher = build_frozen_network(options['network'], options['weights'], options.get('param_key', 'params_ema'), self.device)
        self._build_bridge_network()
        if self.opt['path'].get('pretrain_network_g') is None:
            self._copy_teacher(self.get_bare_model(self.net_g), 'net_g')
        super().init_training_settings()

    def _build_bridge_network(self) -> None:
        net = build_network(deepcopy(self.opt.get('network_bridge') or self.opt['teacher']['network']))
        path = self.opt['path'].get('pretrain_network_bridge')
        if path is None:
            self._copy_teacher(net, 'net_bridge')
        else:
            paths = self.opt['path']
            self.load_network(net, path, paths.get('strict_load_bridge', True), paths.get('param_key_bridge', 'params'))
        self.net_bridge = self.model_to_device(net)
        self.print_network(self.net_bridge)

    def _copy_teacher(self, net: torch.nn.Module, label: str) -> None:
        load_strictly(net, widen_entrance(self.teacher.state_dict(), net), 'the teacher')
        get_root_logger().info(f'{label} starts from the teacher ({self.opt["teacher"]["weights"]}).')

    def _build_losses(self) -> None:
        super()._build_losses()
        self.cri_ibmd = build_loss(deepcopy(self.opt['train']['ibmd_opt'])).to(self.device)
        self.ibmd_weight = self._time_weight('ibmd_opt', self.cri_ibmd)

    def setup_optimizers(self) -> None:
        """Build the optimisers of student and bridge network."""
        super().setup_optimizers()
        self.optimizer_bridge = self._build_optimizer('optim_bridge', self.net_bridge)
        self.optimizers.append(self.optimizer_bridge)

    def optimize_parameters(self, current_iter: int) -> None:
        """One update on a fresh batch: the student's every (K + 1)-th iteration, else the bridge network's."""
        student_turn = current_iter % (self.bridge_updates + 1) == 0
        self._let_learn(student_turn)
        noise = self._training_noise(current_iter)
        if student_turn:
            loss = self._student_loss(noise)
            self._terms['l_g'] = loss.detach()
            self._terms['grad_g'] = self._step(self.net_g, self.optimizer_g, loss, 'l_g', current_iter)
            if self.ema_decay > 0:
                self.model_ema(self.ema_decay)
        else:
            loss = self._bridge_loss(noise)
            self._terms['l_bridge'] = loss.detach()
            self._terms['grad_bridge'] = self._step(self.net_bridge, self.optimizer_bridge, loss, 'l_bridge', current_iter)

    def _let_learn(self, student_turn: bool) -> None:
        """Say who learns now: the only place that touches ``requires_grad``."""
        self.net_g.requires_grad_(student_turn)
        self.net_bridge.requires_grad_(not student_turn)

    def _bridge_loss(self, noise: PerImageNoise) -> Tensor:
        """Bridge matching on the student's outputs (IBMD eq. 12, inner problem)."""
        with torch.no_grad():
            x_0 = self._generate(self.get_bare_model(self.net_g), noise)
        return self._bridge_matching(self.net_bridge, x_0, self._draw_times(noise), noise)

    def _student_loss(self, noise: PerImageNoise) -> Tensor:
        """The inverse problem (IBMD eq. 12, outer): the gradient runs through x_0 and, for ``gradient: full``, through x_t."""
        x_0 = self._generate(self.net_g, noise)
        t = self._draw_times(noise)
        x_t = interpolate(self.bridge.schedule.coefficients(t), x_0, self.x_T, noise.randn_like(x_0))
        x_t = self.cri_ibmd.network_input(x_t)
        teacher_x0 = self._denoise(self.teacher, x_t, t)
        bridge_x0 = self._denoise(self.get_bare_model(self.net_bridge), x_t, t)
        self._log_diagnostics(teacher_x0, bridge_x0, x_0)
        return self.cri_ibmd(teacher_x0, bridge_x0, x_0, self.ibmd_weight(self.bridge.schedule.sigma(t)).to(x_0.dtype))

    def _generate(self, net: torch.nn.Module, noise: PerImageNoise) -> Tensor:
        """Return x_0 = G(x_T, z) in one call at t = 1."""
        channels = self.get_bare_model(net).noise_channels
        z = noise.randn_like(self.x_T.new_empty(len(self.x_T), channels, *self.x_T.shape[2:])) if channels else None
        return self._denoise(net, self.x_T, self.x_T.new_ones(len(self.x_T), dtype=torch.float64), z)

    def _draw_times(self, noise: PerImageNoise) -> Tensor:
        # the last step, where x_t is x_T but for 1e-3, is left out as in the published distillation
        n_timestep = self.bridge.schedule.n_timestep
        return uniform_steps(noise.rand(self.device), n_timestep=n_timestep, last=n_timestep - 2)

    @torch.no_grad()
    def _log_diagnostics(self, teacher_x0: Tensor, bridge_x0: Tensor, x_0: Tensor) -> None:
        """Log both regression errors, and E[f^2] - E[f x_0]: zero when a network is the conditional mean of the student's data."""
        for name, estimate in (('teacher', teacher_x0), ('fake', bridge_x0)):
            self._terms[f'l_{name}_on_student'] = (estimate - x_0).square().mean()
            self._terms[f'd_{name}'] = (estimate.square() - estimate * x_0).mean()

    def save(self, epoch: int, current_iter: int) -> None:
        """Write student (with EMA), bridge network, and last the training state. The teacher is not written."""
        self.save_network(self.net_bridge, 'net_bridge', current_iter)
        super().save(epoch, current_iter)
