"""``python -m ibmd_basicsr.compare -opt FILE``: restorers side by side: quality, calls, seconds, pictures."""
from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ibmd_basicsr.command import exit_code, one_line
from ibmd_basicsr.utils.errors import OptionError
from ibmd_basicsr.utils.project import project_root

EPILOG = """\
examples:
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --limit 2 -o /tmp/quick
  python -m ibmd_basicsr.compare -opt options/compare/sr4x.yml --fresh --device cpu

outputs, in the folder of the option file's `output` (relative to the project root) or of -o:
  table.md             means over the images, with the machine and the weights
  grid.png             pictures of the first images
  results.csv          one line a restorer and image
  images/ROW/IMAGE.png restored images
  results.jsonl        what is done: the same command again computes only what is missing or has changed (options, weights, images)

exit codes: 0 done; 1 a restorer failed, the others are in the table; 2 wrong command line, option file or images; 130 interrupted."""

METRICS = ('psnr', 'ssim', 'lpips', 'niqe', 'texture_distance')
METRICS_VERSION = 1
"""Raise when a metric's numbers change, so that stored results are not mixed with new ones."""
NIQE_BLOCK = 96
"""NIQE describes an image by blocks of this side; it needs two of them."""

KEYS = {'name', 'scale', 'manual_seed', 'crop_border', 'output', 'dataset', 'restorers', 'speed_reference', 'grid'}
ROW_KEYS = {'input': {'name', 'kind'}, 'bridge': {'name', 'kind', 'network', 'bridge', 'weights', 'param_key', 'sampler', 'steps'}}
GRID_KEYS = {'columns', 'images', 'crop', 'zoom'}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: unique; ``teacher@20`` for the row ``teacher`` with 20 steps.
        kind: ``input`` (the corrupted image, enlarged by bicubic interpolation where it is smaller) or ``bridge``.
        options: network, bridge, param_key, sampler; what :func:`~ibmd_basicsr.models.build_restorer` takes.
        weights: candidates, the first that exists is taken.
    """

    name: str
    kind: str
    options: dict[str, Any]
    weights: tuple[str, ...] = ()

    def find_weights(self) -> str | None:
        """Return the first weight file that exists; None for rows without weights.

        Raises:
            FileNotFoundError: none of the candidates exists.
        """
        if not self.weights:
            return None
        for path in self.weights:
            if Path(path).is_file():
                return path
        raise FileNotFoundError(f'no weight file: {" or ".join(self.weights)} not found.')


@dataclass(frozen=True)
class Picture:
    """A test image: ``lq`` (1, 3, h, w) and ``gt`` (1, 3, H, W), RGB, [0, 1], on the CPU; ``digest`` changes when they do."""

    name: str
    lq: Any
    gt: Any
    digest: str


class InputRestorer:
    """The corrupted image as it is, enlarged by ``cv2.INTER_CUBIC`` for super-resolution. Called like a ``Restorer``."""

    calls = 0
    parameters = 0

    def __init__(self, scale: int):
        self.scale = scale

    def __call__(self, lq, noise, on_step=None):
        """Return (B, 3, scale h, scale w) in [0, 1]; ``noise`` and ``on_step`` are not used."""
        import cv2
        import torch
        images = [image.permute(1, 2, 0).numpy() for image in lq.cpu()]
        if self.scale > 1:
            images = [cv2.resize(image, None, fx=self.scale, fy=self.scale, interpolation=cv2.INTER_CUBIC) for image in images]
        return torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).clamp(0, 1).to(lq.device)


class _WarmedUp(Exception):
    """Leaves a restorer after its first network call."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog='python -m ibmd_basicsr.compare', epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Run several restorers on the same images and compare quality, network calls and time.')
    parser.add_argument('-opt', required=True, metavar='FILE', help='option file (YAML), see options/compare/')
    parser.add_argument('-o', '--output', metavar='FOLDER', help="instead of the option file's output")
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: a GPU if there is one')
    parser.add_argument('--limit', type=int, metavar='N', help='only the first N images')
    parser.add_argument('--fresh', action='store_true', help='ignore the results of earlier runs')
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command, with ``sys.argv`` by default, and return its exit code; see :data:`EPILOG`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = make_parser().parse_args(arguments)
    try:
        return _run(args, shlex.join(['python', '-m', 'ibmd_basicsr.compare', *arguments]))
    except KeyboardInterrupt:
        print('error: interrupted; the same command continues.', file=sys.stderr)
        return 130
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        print(f'error: {one_line(error)}', file=sys.stderr)
        return code


def _run(args: argparse.Namespace, command: str) -> int:
    option_file = Path(args.opt).resolve()
    if not option_file.is_file():
        raise OptionError(f'-opt {args.opt}: no such file.')
    if args.limit is not None and args.limit < 1:
        raise OptionError(f'--limit must be at least 1, got {args.limit}.')
    output = Path(args.output).resolve() if args.output else None
    os.chdir(project_root(option_file))

    import torch

    from ibmd_basicsr.compat.options import normalise_numbers, read_option_file
    opt = normalise_numbers(read_option_file(option_file))
    rows = read_rows(opt)
    try:
        device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f'--device {args.device}: {one_line(error).splitlines()[0]}') from error
    comparison = Comparison(opt, rows, output=output or Path(opt['output']), device=device, limit=args.limit, fresh=args.fresh)
    failures = comparison.run()
    sys.stdout.write(comparison.report(command, failures))
    for name, message in failures.items():
        print(f'error: {name}: {message}', file=sys.stderr)
    return 1 if failures else 0


def read_rows(opt: dict[str, Any]) -> list[Row]:
    """Check the option file and return its rows, one for each number of steps.

    Raises:
        OptionError: unknown or missing keys, values that network, bridge or sampler refuse, names that are given twice.
    """
    from ibmd_basicsr.utils.option_check import check_keys
    check_keys('', opt, KEYS, ('name', 'scale', 'output', 'dataset', 'restorers'))
    check_keys('grid', opt.get('grid') or {}, GRID_KEYS)
    if not isinstance(opt['scale'], int) or opt['scale'] < 1:
        raise OptionError(f'scale: must be a positive integer, got {opt["scale"]!r}.')
    if not isinstance(opt['restorers'], list) or not opt['restorers']:
        raise OptionError('restorers: must be a list of rows with a name and a kind.')
    rows = []
    for number, block in enumerate(opt['restorers']):
        rows += _read_row(block, f'restorers[{number}]')
    names = [row.name for row in rows]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'restorers: the name {name!r} is given twice.')
    named = {'speed_reference': [opt['speed_reference']] if opt.get('speed_reference') else [],
             'grid.columns': (opt.get('grid') or {}).get('columns') or []}
    for key, values in named.items():
        for value in values:
            if value not in names:
                raise OptionError(f'{key}: no row {value!r}. Rows: {", ".join(names)}.')
    return rows


def _read_row(block: Any, path: str) -> list[Row]:
    from ibmd_basicsr.archs.adm_unet_arch import ADMUNet
    from ibmd_basicsr.bridges import build_bridge
    from ibmd_basicsr.restorer import SamplerOptions
    from ibmd_basicsr.utils.option_check import build_from_options, check_keys, option_parameters
    if not isinstance(block, dict) or not isinstance(block.get('name'), str):
        raise OptionError(f'{path}: must be a block with a name, got {block!r}.')
    name, kind = block['name'], block.get('kind')
    path = f'{path} ({name})'
    if kind not in ROW_KEYS:
        raise OptionError(f'{path}.kind: must be one of {", ".join(map(repr, ROW_KEYS))}, got {kind!r}.')
    if not name or name != Path(name).name or name.startswith('.'):
        raise OptionError(f'{path}.name: names a folder of images, got {name!r}.')
    if kind == 'input':
        check_keys(path, block, ROW_KEYS[kind])
        return [Row(name, kind, {})]
    check_keys(path, block, ROW_KEYS[kind], ('network', 'bridge', 'weights', 'sampler'))
    network, bridge, sampler = block['network'], block['bridge'], block['sampler']
    for key in ('network', 'bridge', 'sampler'):
        if not isinstance(block[key], dict):
            raise OptionError(f'{path}.{key}: must be a block of keys, got {block[key]!r}.')
    if network.get('type') == ADMUNet.__name__:
        names, required = option_parameters(ADMUNet)
        check_keys(f'{path}.network', network, [*names, 'type'], required)
    try:
        build_bridge(**bridge)
    except (TypeError, ValueError) as error:
        raise OptionError(f'{path}.bridge: {error}') from error
    weights = block['weights'] if isinstance(block['weights'], list) else [block['weights']]
    if not weights or not all(isinstance(file, str) for file in weights):
        raise OptionError(f'{path}.weights: must be a file or a list of files, got {block["weights"]!r}.')
    if 'steps' in block and 'steps' in sampler:
        raise OptionError(f'{path}: steps is given twice, in the row and in its sampler.')
    steps = block.get('steps')
    samplers = {name: sampler} if steps is None else {
        f'{name}@{n}': sampler | {'steps': n} for n in (steps if isinstance(steps, list) else [steps])}
    for options in samplers.values():
        build_from_options(SamplerOptions, options, f'{path}.sampler')
    common = {'network': network, 'bridge': bridge, 'param_key': block.get('param_key', 'params_ema')}
    return [Row(row, kind, common | {'sampler': options}, tuple(weights)) for row, options in samplers.items()]


class Comparison:
    """All rows on all images, resumable; then the report.

    Args:
        opt: checked options.
        rows: from :func:`read_rows`.
        output: folder for everything that is written.
        device: where restorers and LPIPS run.
        limit: only so many images.
        fresh: forget earlier results.

    Raises:
        OptionError, FileNotFoundError, ValueError: the dataset cannot be built or read.
    """

    def __init__(self, opt: dict[str, Any], rows: list[Row], *, output: Path, device, limit: int | None = None, fresh: bool = False):
        from ibmd_basicsr.reporting.results import ResultStore
        self.opt = opt
        self.rows = rows
        self.output = output
        self.device = device
        self.crop_border = opt.get('crop_border', opt['scale'] if opt['scale'] > 1 else 0)
        self.pictures = _load_pictures(opt, limit)
        self.store = ResultStore(output / 'results.jsonl', fresh=fresh)
        self.records: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}

    def run(self) -> dict[str, str]:
        """Restore and measure what is not yet done; return the rows that failed with the reason."""
        from tqdm import tqdm
        failures = {}
        bar = tqdm(total=len(self.rows) * len(self.pictures), unit='image', dynamic_ncols=True)
        with bar, _quiet_host():
            for number, row in enumerate(self.rows, 1):
                bar.set_description(row.name)
                try:
                    self._run_row(row, bar)
                except Exception as error:  # the other rows are still worth having
                    failures[row.name] = one_line(error)
                    bar.write(f'{row.name} failed: {failures[row.name]}', file=sys.stderr)
                bar.set_postfix_str('')
                bar.update(number * len(self.pictures) - bar.n)  # what a failed row has left out
        return failures

    def _run_row(self, row: Row, bar) -> None:
        from ibmd_basicsr.reporting.results import file_digest, fingerprint
        weights = row.find_weights()
        digest = file_digest(weights) if weights else None
        origin = [row.kind, row.options, digest, self.opt['scale'], self.opt.get('manual_seed') or 0, self.crop_border, METRICS_VERSION,
                  device_name(self.device)]
        restorer = None
        for picture in self.pictures:
            key = fingerprint(*origin, picture.digest)
            record = self.store.get(row.name, picture.name, key)
            if record is None or not self.image_path(row.name, picture.name).is_file():
                if restorer is None:
                    restorer = self._build(row, weights)
                    self._warm_up(restorer, picture)
                measured = self._measure(restorer, row, picture, bar)
                record = {'row': row.name, 'image': picture.name, 'fingerprint': key, 'weights': weights, 'sha256': digest} | measured
                self.store.add(record)
            self.records[row.name].append(record)
            bar.update()

    def _build(self, row: Row, weights: str | None):
        if row.kind == 'input':
            return InputRestorer(self.opt['scale'])
        from ibmd_basicsr.models import build_restorer
        return build_restorer(**row.options, weights=weights, scale=self.opt['scale'], device=self.device)

    def _warm_up(self, restorer: Callable, picture: Picture) -> None:
        """Make one network call whose time does not count: threads, kernels and memory are set up by then."""
        def stop(*_):
            raise _WarmedUp

        try:
            restorer(picture.lq.to(self.device), self._noise(picture), on_step=stop)
        except _WarmedUp:
            pass

    def _noise(self, picture: Picture):
        from ibmd_basicsr.utils.seeding import PerImageNoise
        return PerImageNoise.for_images(self.opt.get('manual_seed') or 0, [picture.name])

    def _measure(self, restorer: Callable, row: Row, picture: Picture, bar) -> dict[str, Any]:
        """Restore one image, save it and return what the store shall know of it."""
        import cv2
        from basicsr.utils import tensor2img
        done, shown = 0, time.monotonic()

        def on_step(*_):
            nonlocal done, shown
            done += 1
            if time.monotonic() - shown > 0.5:
                shown = time.monotonic()
                bar.set_postfix_str(f'step {done}/{restorer.calls}')

        lq, noise = picture.lq.to(self.device), self._noise(picture)
        start = self._now()
        restored = restorer(lq, noise, on_step=on_step)
        seconds = self._now() - start
        image = tensor2img(restored)
        path = self.image_path(row.name, picture.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not cv2.imwrite(str(path), image):
            raise OSError(f'{path}: cannot be written.')
        return {'calls': restorer.calls, 'parameters': restorer.parameters, 'seconds': seconds,
                **measure(image, tensor2img(picture.gt), self.crop_border, str(self.device))}

    def _now(self) -> float:
        import torch
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def image_path(self, row: str, image: str) -> Path:
        """Return where a restored image lies."""
        return self.output / 'images' / row / f'{image}.png'

    def report(self, command: str, failures: dict[str, str]) -> str:
        """Write results.csv, table.md and grid.png; return the text for the terminal.

        Args:
            command: what was typed, for the footer.
            failures: rows that failed; the means of a row that failed halfway are left out.
        """
        from ibmd_basicsr.reporting.tables import markdown_table, write_csv
        keys = ('row', 'image', 'calls', 'seconds', *METRICS, 'parameters', 'weights', 'sha256')
        write_csv(self.output / 'results.csv', [record for records in self.records.values() for record in records], keys)
        complete = {name: records for name, records in self.records.items() if name not in failures}
        table = markdown_table(self._means(complete), self._columns()) if complete else ''
        lines = [f'# {self.opt["name"]}', '', table, '', *self._notes(command, complete)]
        lines += [f'* **{name} failed**: {message}' for name, message in failures.items()]
        (self.output / 'table.md').write_text('\n'.join(lines) + '\n', encoding='utf-8')
        places = [f'table:    {self.output / "table.md"}']
        if complete:
            self._draw_grid(complete)
            places.append(f'pictures: {self.output / "grid.png"}')
        return '\n'.join([table, '', *places, ''])

    def _means(self, complete: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float | None]]:
        from ibmd_basicsr.reporting.tables import mean
        means = {name: {key: mean(record.get(key) for record in records) for key in ('calls', 'seconds', *METRICS)}
                 for name, records in complete.items()}
        reference = means.get(self.opt.get('speed_reference'))
        if reference:
            for values in means.values():
                values['speed'] = reference['seconds'] / values['seconds'] if values['calls'] else None
        return means

    def _columns(self) -> list:
        from ibmd_basicsr.metrics import BETTER
        from ibmd_basicsr.reporting.tables import Column
        speed = [Column('speed', f'speed (x {self.opt["speed_reference"]})', 1)] if self.opt.get('speed_reference') else []
        titles = {'psnr': ('PSNR dB', 2), 'ssim': ('SSIM', 4), 'lpips': ('LPIPS', 4), 'niqe': ('NIQE', 2),
                  'texture_distance': ('texture', 1)}
        return [Column('calls', 'calls', 0), Column('seconds', 's/image', 3), *speed,
                *(Column(key, *titles[key], BETTER[key]) for key in METRICS)]

    def _notes(self, command: str, complete: dict[str, list[dict[str, Any]]]) -> list[str]:
        import torch
        origins: dict[tuple, list[str]] = {}
        for name, records in complete.items():
            if records[0]['weights']:
                origins.setdefault((records[0]['weights'], records[0]['sha256'], records[0]['parameters']), []).append(name)
        weights = [f'* {", ".join(names)}: `{file}` (sha256 {digest[:12]}...), {count:,} parameters'
                   for (file, digest, count), names in origins.items()]
        return [
            f'Means over {len(self.pictures)} images; {self.crop_border} pixels at each border are left out of all metrics. PSNR and SSIM '
            'on RGB, LPIPS v0.1 AlexNet; NIQE and PSNR/SSIM are BasicSR\'s. texture: sliced Wasserstein distance of Laplacian patches '
            'x 1000 to the true image. Arrows point to better; best in bold. NIQE sees few blocks of small images: a hint at best.',
            '',
            f'* `{command}`, {date.today().isoformat()}',
            f'* {device_name(self.device)}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}; seconds '
            'per image at batch size 1 after one warm-up call, measured when the row was computed',
            *weights,
        ]

    def _draw_grid(self, complete: dict[str, list[dict[str, Any]]]) -> None:
        import cv2
        from basicsr.utils import tensor2img

        from ibmd_basicsr.reporting.grid import Cell, picture_grid
        options = self.opt.get('grid') or {}
        names = [name for name in options.get('columns') or complete if name in complete]
        rows = []
        for number, picture in enumerate(self.pictures[:options.get('images', 6)]):
            values = [complete[name][number]['lpips'] for name in names]
            cells = [Cell(cv2.imread(str(self.image_path(name, picture.name))), f'LPIPS {value:.3f}', value == min(values))
                     for name, value in zip(names, values)]
            rows.append([*cells, Cell(tensor2img(picture.gt), picture.name)])
        grid = picture_grid(rows, [*names, 'ground truth'], crop=options.get('crop', 96), zoom=options.get('zoom', 3))
        cv2.imwrite(str(self.output / 'grid.png'), grid, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def measure(image, truth, crop_border: int, device: str) -> dict[str, float | None]:
    """Return all :data:`METRICS` of a restored image, each on 8-bit BGR (H, W, 3) as the host's validation computes them.

    NIQE is None where the image holds fewer than two of its blocks.
    """
    from basicsr.metrics import calculate_metric

    import ibmd_basicsr.metrics  # noqa: F401  (registers ours)
    values = {}
    for name in METRICS:
        blocks = [(side - 2 * crop_border) // NIQE_BLOCK for side in image.shape[:2]]
        if name == 'niqe' and blocks[0] * blocks[1] < 2:
            values[name] = None
            continue
        options = {'type': f'calculate_{name}', 'crop_border': crop_border} | ({'device': device} if name == 'lpips' else {})
        values[name] = float(calculate_metric({'img': image, 'img2': truth}, options))
    return values


def device_name(device) -> str:
    """Return the name of the GPU or CPU that ``device`` means."""
    if device.type == 'cuda':
        import torch
        return torch.cuda.get_device_name(device)
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        lines = []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return models[0] if models else platform.processor() or platform.machine()


def _load_pictures(opt: dict[str, Any], limit: int | None) -> list[Picture]:
    import hashlib

    from basicsr.data import build_dataset

    import ibmd_basicsr.data  # noqa: F401  (registers ours)
    if not isinstance(opt['dataset'], dict) or 'type' not in opt['dataset']:
        raise OptionError('dataset: must be a block with a type, such as DegradedImageDataset.')
    with _quiet_host():
        options = {'name': opt['name'], **opt['dataset'], 'phase': 'val', 'scale': opt['scale']}
        try:
            dataset = build_dataset(options | {'manual_seed': opt.get('manual_seed') or 0})
        except KeyError as error:
            raise OptionError(f'dataset: {one_line(error)}') from error
    pictures = []
    for index in range(min(len(dataset), limit or len(dataset))):
        sample = dataset[index]
        if 'gt' not in sample:
            raise OptionError('dataset: has no ground truth to compare with; give dataroot_gt and leave return_gt out.')
        lq, gt = sample['lq'][None], sample['gt'][None]
        digest = hashlib.sha256(lq.numpy().tobytes() + gt.numpy().tobytes()).hexdigest()
        pictures.append(Picture(Path(sample['lq_path']).stem, lq, gt, digest))
    names = [picture.name for picture in pictures]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f'dataset: two images are called {name!r}; results are kept by name.')
    return pictures


class _quiet_host:
    """While open, BasicSR's log shows warnings only: a line for each network would tear the progress bar."""

    def __enter__(self):
        from basicsr.utils import get_root_logger
        self.logger = get_root_logger()
        self.level = self.logger.level
        self.logger.setLevel('WARNING')

    def __exit__(self, *_):
        self.logger.setLevel(self.level)


if __name__ == '__main__':
    sys.exit(main())
