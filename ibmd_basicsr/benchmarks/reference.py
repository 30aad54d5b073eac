"""REFERENCE, for comparison only: the same iterations written as the published programs write them.

Written here from what those programs are known to do (I2SB, guided-diffusion, the distillations built on them); no line is theirs, and the
figures are those of this text, not of their code. What it does that our models do not:

* float32 throughout, memory format left alone, one tensor at a time in optimiser and EMA;
* the frozen networks are not frozen: the student's backward computes the gradients of all parameters of teacher and bridge network;
* attention in plain matrix products with a float32 softmax, and computed a second time in every backward;
* ``.item()`` on every loss, in every iteration;
* sampling puts the EMA weights in and takes them out around every batch, and copies every state to the CPU.

What costs nothing in a single process, gradients that are averaged over the processes once per micro-batch, is left out. Noise comes from
our generators, so that losses can be compared; I2SB bridges and students of one step alone.
"""
from __future__ import annotations

import copy
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ibmd_basicsr.archs.adm_layers import AttentionBlock
from ibmd_basicsr.models.turns import BRIDGE, Turns
from ibmd_basicsr.utils.seeding import PerImageNoise


def published_form(net: nn.Module) -> nn.Module:
    """Return a copy of a network as the published programs hold it: channels outermost, gradients for all, attention computed again."""
    return recompute_attention(copy.deepcopy(net)).to(memory_format=torch.contiguous_format).requires_grad_(True)


def recompute_attention(net: nn.Module) -> nn.Module:
    """Give the attention blocks of ``net`` the published arithmetic, behind a checkpoint; return ``net``."""
    for module in net.modules():
        if isinstance(module, AttentionBlock):
            module.forward = types.MethodType(_checkpointed, module)
    return net


def _checkpointed(block: AttentionBlock, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return _attention(block, x)
    return checkpoint(_attention, block, x, use_reentrant=False)


def _attention(block: AttentionBlock, x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    flat = x.reshape(batch, channels, -1)
    qkv = block.qkv(block.norm(flat)).reshape(batch * block.num_heads, -1, height * width)
    q, k, v = qkv.chunk(3, dim=1)
    scale = q.shape[1]**-0.25
    weight = torch.softmax(torch.bmm((q * scale).transpose(1, 2), k * scale).float(), dim=-1).type(q.dtype)
    h = torch.bmm(v, weight.transpose(1, 2)).reshape(batch, channels, -1)
    return (flat + block.proj_out(h)).reshape(batch, channels, height, width)


class I2SBTables:
    """The schedule as float32 tables, looked up by step."""

    def __init__(self, n_timestep: int, beta_max: float, device: torch.device):
        half = torch.linspace(1e-4**0.5, (beta_max / n_timestep)**0.5, n_timestep, dtype=torch.float64)[:n_timestep // 2]**2
        betas = torch.cat([half, half.flip(0)])
        forward, backward = betas.cumsum(0), betas.flip(0).cumsum(0).flip(0)
        total = forward + backward
        self.n_timestep = n_timestep
        self.variance = forward.to(device, torch.float32)
        self.sigma = forward.sqrt().to(device, torch.float32)
        self.on_x_0, self.on_x_T = ((part / total).to(device, torch.float32) for part in (backward, forward))
        self.std = (forward * backward / total).sqrt().to(device, torch.float32)
        self.network_time = (torch.linspace(1e-4, 1, n_timestep, dtype=torch.float64) * n_timestep).to(device, torch.float32)

    @staticmethod
    def at(table: Tensor, n: Tensor) -> Tensor:
        """Return the values of a table for steps n (B,), broadcastable against images."""
        return table[n].reshape(-1, 1, 1, 1)

    def sample(self, n: Tensor, x_0: Tensor, x_T: Tensor, eps: Tensor) -> Tensor:
        """Draw x_n between x_0 and x_T."""
        return self.at(self.on_x_0, n) * x_0 + self.at(self.on_x_T, n) * x_T + self.at(self.std, n) * eps

    def estimate(self, net: nn.Module, n: Tensor, x: Tensor, **kwargs: Tensor) -> Tensor:
        """Return the network's estimate of x_0."""
        return x - self.at(self.sigma, n) * net(x, self.network_time[n], **kwargs)


class ReferenceTeacher:
    """A teacher's iteration: draw, regress, ``.item()``, step, EMA.

    Args:
        model: a fresh BridgeModel, whose networks and options are copied.

    Attributes:
        losses: by name, of the last iteration.
    """

    def __init__(self, model):
        bridge = model.opt['bridge']
        self.opt, self.device = model.opt, model.device
        self.tables = I2SBTables(bridge['n_timestep'], bridge['beta_max'], self.device)
        self.net = self._copy(model.net_g)
        self.shadow = [p.detach().clone() for p in self.net.parameters()]
        self.optimizer = self._optimizer('optim_g', self.net)
        self.clip = model.opt['train'].get('grad_clip')
        self.decay = model.opt['train']['ema_decay']
        self.losses: dict[str, float] = {}

    def _copy(self, net: nn.Module) -> nn.Module:
        return published_form(net).train()

    def _optimizer(self, block: str, net: nn.Module) -> torch.optim.Optimizer:
        options = {name: value for name, value in self.opt['train'][block].items() if name != 'type'}
        return torch.optim.AdamW(net.parameters(), foreach=False, fused=False, **options)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Leave the rate as it is."""

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch."""
        lq = data['lq'].to(self.device)
        self.x_T = F.interpolate(lq, scale_factor=self.opt['scale'], mode='nearest') * 2 - 1
        self.x_0 = data['gt'].to(self.device) * 2 - 1 if 'gt' in data else None

    def optimize_parameters(self, current_iter: int) -> None:
        """Make an iteration."""
        noise = self._noise(current_iter)
        n = self._steps(noise, self.tables.n_timestep)
        x_n = self.tables.sample(n, self.x_0, self.x_T, noise.randn_like(self.x_0))
        label = (x_n - self.x_0) / self.tables.at(self.tables.sigma, n)
        loss = F.mse_loss(self.net(x_n, self.tables.network_time[n]), label)
        self._step('l_bridge', loss, self.net, self.optimizer)
        self._update_ema()

    def _noise(self, current_iter: int) -> PerImageNoise:
        return PerImageNoise.for_training(self.opt['manual_seed'], current_iter, batch=len(self.x_T), device=self.device)

    def _steps(self, noise: PerImageNoise, count: int) -> Tensor:
        return (noise.rand(self.device) * count).long()

    def _step(self, name: str, loss: Tensor, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        if self.clip:
            nn.utils.clip_grad_norm_(net.parameters(), self.clip)
        optimizer.step()
        self.losses[name] = loss.item()

    @torch.no_grad()
    def _update_ema(self) -> None:
        for shadow, value in zip(self.shadow, self.net.parameters()):
            shadow.sub_((1 - self.decay) * (shadow - value))


class ReferenceIBMD(ReferenceTeacher):
    """An iteration of the distillation: a bridge update, or every (K + 1)-th time one of the student.

    Args:
        model: a fresh IBMDModel with a student of one step, whose networks and options are copied.
    """

    def __init__(self, model):
        super().__init__(model)
        self.net_bridge, self.teacher = self._copy(model.net_bridge), self._copy(model.teacher)
        self.optimizer_bridge = self._optimizer('optim_bridge', self.net_bridge)
        self.turns = Turns.from_options(model.opt)
        self.full = model.opt['train']['ibmd_opt'].get('gradient', 'full') == 'full'

    def optimize_parameters(self, current_iter: int) -> None:
        """Make an iteration."""
        noise = self._noise(current_iter)
        if self.turns.of(current_iter) == BRIDGE:
            with torch.no_grad():
                x_0 = self._generate(noise)
            n, x_n = self._bridge_sample(x_0, noise)
            loss = (self.tables.estimate(self.net_bridge, n, x_n) - x_0).square().mean()
            self._step('l_bridge', loss, self.net_bridge, self.optimizer_bridge)
            return
        x_0 = self._generate(noise)
        n, x_n = self._bridge_sample(x_0, noise)
        x_n = x_n if self.full else x_n.detach()
        r, f = (self.tables.estimate(net, n, x_n) for net in (self.teacher, self.net_bridge))
        loss = (2 * (r - f) * (r - x_0) - (r - f).square()).mean()
        self._step('l_g', loss, self.net, self.optimizer)
        for net in (self.teacher, self.net_bridge):
            net.zero_grad()  # what nobody asked for
        self._update_ema()

    def _generate(self, noise: PerImageNoise) -> Tensor:
        last = torch.full((len(self.x_T),), self.tables.n_timestep - 1, device=self.device)
        return self.tables.estimate(self.net, last, self.x_T, z=noise.randn_like(self.x_T))

    def _bridge_sample(self, x_0: Tensor, noise: PerImageNoise) -> tuple[Tensor, Tensor]:
        n = self._steps(noise, self.tables.n_timestep - 1)
        return n, self.tables.sample(n, x_0, self.x_T, noise.randn_like(x_0))


class ReferenceSampler:
    """Ancestral sampling with EMA weights that are put in and taken out around the batch; every state goes to the CPU.

    Args:
        net: the network, which keeps its weights.
        tables: of its schedule.
        steps: of the schedule, from 0 up; one network call between each two.
    """

    def __init__(self, net: nn.Module, tables: I2SBTables, steps: list[int]):
        self.net = published_form(net).eval()
        self.tables = tables
        self.steps = steps
        self.shadow = [p.detach().clone() for p in net.parameters()]

    @torch.no_grad()
    def __call__(self, x_T: Tensor, randn_like) -> Tensor:
        """Restore (B, C, H, W) in [-1, 1]; return the last state, on the CPU."""
        collected = [p.clone() for p in self.net.parameters()]
        for parameter, value in zip(self.net.parameters(), self.shadow):
            parameter.copy_(value)
        x, states = x_T, []
        for now, then in zip(self.steps[:0:-1], self.steps[-2::-1]):
            n = torch.full((len(x),), now, device=x.device)
            x0_hat = self.tables.estimate(self.net, n, x)
            var_n, var_p = self.tables.variance[now], self.tables.variance[then]
            delta = var_n - var_p
            x = delta / var_n * x0_hat + var_p / var_n * x
            if then:
                x = x + (delta * var_p / var_n).sqrt() * randn_like(x)
            states += [x.cpu(), x0_hat.cpu()]
        for parameter, value in zip(self.net.parameters(), collected):
            parameter.copy_(value)
        return states[-2]
