"""Names that the option files of our models may use: what their blocks hold, and what the host adds to them."""
from __future__ import annotations

import torch
from basicsr.models import lr_scheduler

from ibmd_basicsr.models.extras import EXTRA_LOSSES
from ibmd_basicsr.models.switches import SWITCHES

OWN_MODELS = ('BridgeModel', 'IBMDModel')

TOP = {'name', 'model_type', 'scale', 'num_gpu', 'manual_seed', 'find_unused_parameters', 'dist_params', 'datasets', 'network_g', 'path',
       'train', 'val', 'logger', 'bridge'}
ADDED_TO_TOP = {'dist', 'rank', 'world_size', 'auto_resume', 'is_train', 'root_path'}  # by the host
TRAIN = {'ema_decay', 'grad_clip', 'micro_batch', 'shard_optimizer', *SWITCHES, 'optim_g', 'scheduler', 'total_iter', 'warmup_iter',
         'bridge_opt'}
IBMD_TOP = {'teacher', 'network_bridge', 'network_d'}
IBMD_TRAIN = {'optim_bridge', 'ibmd_opt', 'bridge_updates_per_student', 'share_generator_pass', 'student', 'real_pairs', 'optim_d',
              *EXTRA_LOSSES}
TEACHER = {'network', 'weights', 'param_key'}
LOGGER = {'print_freq', 'save_checkpoint_freq', 'keep_checkpoints', 'use_tb_logger', 'wandb'}
VAL = {'val_freq', 'save_img', 'suffix', 'pbar', 'metrics', 'sampler'}
PATH = {'resume_state', 'ignore_resume_networks', 'experiments_root', 'results_root'}
ADDED_TO_PATH = {'models', 'training_states', 'log', 'visualization'}  # by the host
SCHEDULERS = {'MultiStepLR': lr_scheduler.MultiStepRestartLR, 'MultiStepRestartLR': lr_scheduler.MultiStepRestartLR,
              'CosineAnnealingRestartLR': lr_scheduler.CosineAnnealingRestartLR, 'StepLR': torch.optim.lr_scheduler.StepLR}
PATH_PREFIXES = ('pretrain_network_', 'param_key_', 'strict_load_')
