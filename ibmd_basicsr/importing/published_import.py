"""From a published file to weights in BasicSR's form and the options of their network and bridge."""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
from ibmd_basicsr.bridges import build_bridge
from ibmd_basicsr.checkpoints.architecture import derive_architecture
from ibmd_basicsr.checkpoints.conversion import add_condition, check_weights, drop_sigma, stand_alone
from ibmd_basicsr.checkpoints.i2sb_options import read_i2sb_options
from ibmd_basicsr.checkpoints.published import Published, recognise
from ibmd_basicsr.checkpoints.state_dict import load_file, save_atomically
from ibmd_basicsr.checkpoints.undetermined import choose_attention_order, choose_heads
from ibmd_basicsr.importing.choices import NOT_READ, ImportChoices
from ibmd_basicsr.utils.errors import CheckpointError, OptionError, printable
from ibmd_basicsr.utils.torch_files import UnreadableFile, check_records

GIVEN = 'as given on the command line'
Explained = tuple[dict[str, Any], dict[str, str]]
"""Options, and for those that the file does not show where they are from."""


@dataclass(frozen=True)
class Imported:
    """A published checkpoint in BasicSR's form.

    Attributes:
        family: ``i2sb``, ``adm``, ``ddbm`` or ``dbim``; None where either of two would do.
        family_reason: what it was told from.
        network: options of :class:`~ibmd_basicsr.archs.adm_unet_arch.ADMUNet`.
        network_reasons: where options that shapes do not show are from.
        bridge: options of :func:`~ibmd_basicsr.bridges.build_bridge`; None for a network that denoises.
        bridge_reasons: as those of the network.
        weights: ``params``, ``params_ema`` or both, each a state dict of the network.
    """

    family: str | None
    family_reason: str
    network: dict[str, Any]
    network_reasons: dict[str, str]
    bridge: dict[str, Any] | None
    bridge_reasons: dict[str, str]
    weights: dict[str, dict[str, Tensor]]

    @property
    def param_key(self) -> str:
        """Return the name of the weights to restore with."""
        return 'params_ema' if 'params_ema' in self.weights else 'params'

    @property
    def learned_variance(self) -> bool:
        """Tell whether the network has ADM's outputs for a variance, which bridges do not have."""
        return self.network['out_channels'] == 2 * self.network['in_channels']

    def save(self, path: str | os.PathLike) -> str:
        """Write the weights as a checkpoint of BasicSR; return its sha256, in hexadecimal.

        Raises:
            SaveError: it cannot be written.
        """
        return save_atomically(self.weights, path)


def import_published(file: str | os.PathLike, choices: ImportChoices | None = None) -> Imported:
    """Read a published checkpoint of I2SB, ADM, DDBM or DBIM; all names, shapes and checksums are compared.

    Args:
        file: the checkpoint. No code in it is run.
        choices: what the file does not show, and changes; default none.

    Raises:
        CheckpointError: the file is missing, damaged, of no such network, or leaves open what must be chosen.
        OptionError: a choice that does not fit the file.
    """
    file, choices = Path(file), choices or ImportChoices()
    source = str(file)
    content = load_file(file, mmap=True)
    try:
        check_records(file)
    except UnreadableFile as error:
        raise CheckpointError(f'{source}: {error}.') from error
    published = recognise(content, source)
    family = choices.family or published.family
    network, reasons = _describe_network(published, family, choices, source)
    check_weights(published, _state_dict_of(network, source), source)
    published, network = _changed(published, network, choices)
    own = _state_dict_of(network, source)
    check_weights(published, own, source)
    bridge, bridge_reasons = _describe_bridge(family, network, choices, file)
    weights = {key: stand_alone(params, own, torch.float16 if choices.half else torch.float32, f'{source}: {key}')
               for key, params in published.weights.items()}
    return Imported(family, GIVEN if choices.family else published.reason, network, reasons, bridge, bridge_reasons, weights)


def _describe_network(published: Published, family: str | None, choices: ImportChoices, source: str) -> Explained:
    network = derive_architecture({key: tuple(value.shape) for key, value in published.main.items()}, source, choices.cond_channels)
    order = choose_attention_order(published, family, network, choices.attention_order, source)
    heads_name, heads = choose_heads(family, network, choices.num_head_channels, choices.num_heads)
    network |= {heads_name: heads.value, 'attention_order': order.value, 'dropout': choices.dropout}
    reasons = {heads_name: heads.reason, 'attention_order': order.reason, 'dropout': 'the file does not show it; matters to training only'}
    return network, reasons


def _state_dict_of(network: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Return the state dict, on the meta device, of the network built from options."""
    try:
        with torch.device('meta'):
            return ADMUNet(**network).state_dict()
    except (ValueError, RuntimeError) as error:  # the latter for sizes beyond all memory
        raise OptionError(f'{source}: {printable(error, 200)} '
                          '(--num_head_channels, --num_heads and --dropout say what shapes do not show.)') from error


def _changed(published: Published, network: dict[str, Any], choices: ImportChoices) -> tuple[Published, dict[str, Any]]:
    """Return weights and options after ``drop_sigma`` and ``add_cond``."""
    def change(function: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Published:
        return replace(published, weights={key: function(params) for key, params in published.weights.items()})

    if choices.drop_sigma:
        if network['out_channels'] != 2 * network['in_channels']:
            raise OptionError(f'--drop_sigma: the network has {network["out_channels"]} outputs for {network["in_channels"]} image '
                              'channels, no learned variance.')
        published, network = change(drop_sigma), network | {'out_channels': network['in_channels']}
    if choices.add_cond:
        if network['cond_channels']:
            raise OptionError(f'--add_cond: the network has {network["cond_channels"]} input channels for x_T already.')
        published = change(lambda params: add_condition(params, choices.add_cond))
        network = network | {'cond_channels': network['in_channels']}
    return published, network


def _describe_bridge(family: str | None, network: Mapping[str, Any], choices: ImportChoices,
                     file: Path) -> tuple[dict[str, Any] | None, dict[str, str]]:
    reasons = {}
    denoises = family == 'adm' or network['out_channels'] != network['in_channels']
    i2sb = not denoises and (family == 'i2sb' or (family is None and network['attention_order'] == 'legacy'))
    inpaints = family == 'dbim' and network['num_classes'] is not None
    ddbm = not (denoises or i2sb or inpaints)
    for name, applies in (('beta_max', i2sb), ('ot_ode', i2sb), ('options', i2sb), ('schedule', ddbm)):
        if getattr(choices, name) is not None and not applies:
            raise OptionError(f'--{name} has no meaning for this file, whose family is {family}.')
    if denoises:
        return None, {}
    if i2sb:
        values, reasons = _i2sb_bridge(network, choices, file)
    elif inpaints:
        values = {'type': 'I2SB_DBIM', 'n_timestep': 1000, 'beta_max': 1.0}
    elif choices.schedule != 've':
        values = {'type': 'VP', 'beta_min': 0.1, 'beta_d': 2.0, 't_min': 0.0001}
        reasons['type'] = 'as both released checkpoints; --schedule ve for the other'
    else:
        values = {'type': 'VE', 'sigma_max': 80.0, 'sigma_min': 0.002}
        reasons['sigma_max'] = 'the published setting at 64x64; at 256x256 20.0 and 0.0005'
    values['conditional'] = network['cond_channels'] > 0
    try:
        build_bridge(**values)
    except ValueError as error:
        raise OptionError(str(error)) from error
    return values, reasons


def _i2sb_bridge(network: Mapping[str, Any], choices: ImportChoices, file: Path) -> Explained:
    beside = file.with_name('options.pkl')
    path = None if choices.options == NOT_READ else choices.options or (beside if beside.is_file() else None)
    settings = {} if path is None else read_i2sb_options(path)
    known = f'from {path}'
    if 'cond_x1' in settings and settings['cond_x1'] != (network['cond_channels'] > 0) and not choices.add_cond:
        raise OptionError(f'{path}: cond_x1 is {settings["cond_x1"]}, but the network has {network["cond_channels"]} input channels for '
                          'x_T; the two do not belong together (--options none: not read).')
    values = {'type': 'I2SB', 'n_timestep': settings.get('interval', 1000)}
    reasons = {'n_timestep': known} if 'interval' in settings else {}
    for name, default, given, usual in (
            ('beta_max', 0.3, choices.beta_max, '0.3 for super-resolution and JPEG, 1.0 for deblurring and inpainting (with hole: noise)'),
            ('ot_ode', False, choices.ot_ode, 'false for super-resolution and JPEG, true for inpainting and deblurring')):
        values[name] = given if given is not None else settings.get(name, default)
        reasons[name] = GIVEN if given is not None else (
            known if name in settings else f'a choice, the file does not show it: {usual}')
    if settings.get('corrupt', '').startswith('inpaint'):
        values['hole'], reasons['hole'] = 'noise', known
    differing = [f'{name} = {settings[name]}' for name, usual in (('t0', 1e-4), ('T', 1.0), ('add_x1_noise', False))
                 if settings.get(name, usual) != usual]
    if differing:
        reasons['type'] = f'trained with {", ".join(differing)}, which this bridge does not have'
    return values, reasons
