"""Build the training photographs of the model zoo, datasets/zoo/train, from Debian packages that anybody can download.

    python scripts/fetch_photos.py [--out datasets/zoo/train] [--debs FOLDER] [--keep]

A package is taken from the folder of .deb files if it lies there, else fetched by `apt-get download`, which needs no administrator. Each
photograph is reduced by Lanczos where its original is a visible JPEG, and written as a JPEG of high quality without chroma subsampling;
MANIFEST.csv beside them names package, version, licence, size, divisor and sha256. Photographs that exist are left alone. None of them
occurs in datasets/photos/test or datasets/photos/tune. Deterministic for one version of Pillow.
"""
from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from urllib.parse import unquote

from PIL import Image
from tqdm import tqdm

from ibmd_basicsr.cli.errors import report_errors
from ibmd_basicsr.utils.errors import one_line

QUALITY = 95


@dataclass(frozen=True)
class Photograph:
    """Where a photograph comes from: package, path inside it, licence, and the divisor of its size."""
    package: str
    path: str
    licence: str
    divisor: int


def photographs(package: str, path: str, licence: str, divisor: int, names: str) -> dict[str, Photograph]:
    """Return a group of one package that shares licence and divisor; `path` holds {} where the name goes."""
    return {name: Photograph(package, path.format(name), licence, divisor) for name in names.split()}


BUDGIE = 'budgie-backgrounds', 'usr/share/backgrounds/budgie/{}.jpg'
LOMIRI_16, LOMIRI_20 = (('lomiri-wallpapers-' + year, 'usr/share/backgrounds/{}.jpg') for year in ('16.04', '20.04'))
LXQT_JPEG, LXQT_PNG = (('lxqt-themes', 'usr/share/lxqt/wallpapers/{}.' + ending) for ending in ('jpg', 'png'))
MATE = 'mate-backgrounds', 'usr/share/backgrounds/mate/nature/{}.jpg'
PALAPELI = 'palapeli-data', 'usr/share/palapeli/collection/{}.jpg'
PLASMA = 'plasma-workspace-wallpapers', 'usr/share/wallpapers/{}/contents/images/2560x1600.jpg'

# Licences as the packages state them: per photograph for lomiri (copyright), palapeli (*.desktop) and plasma (metadata.json).
# Left out: drawings, renderings and gradients, and every photograph of which datasets/photos/test or datasets/photos/tune holds a crop.
PHOTOGRAPHS = {
    **photographs(*BUDGIE, 'CC0-1.0', 2, 'abstract-spiral beacon-street-sunset blue-periwinkle canyon-wren casa-mila extreme-desert-hike '
                  'high-trestle-trail lake-sherburne perched-osprey piazza-gae-aulenti singaporean-cityscape tea-gardens'),
    **photographs(*LOMIRI_16, 'CC-BY-SA-4.0', 2, 'Bridge_by_Sander_Klootwijk free_by_Peter_Nerlich greentock_by_Peter_Nerlich'),
    **photographs(*LOMIRI_16, 'CC-BY-SA-4.0', 3, 'Dragonfly_by_Bolly'),
    **photographs(*LOMIRI_16, 'CC-BY-4.0', 2, 'sunset_by_Aitzol_Berasategi'),
    **photographs(*LOMIRI_20, 'CC-BY-SA-3.0', 3, 'Kleiber_by_Lukas_Baubkus'),
    **photographs(*LXQT_JPEG, 'LGPL-2.1+', 2, 'Butterfly-Kenneth-Wimer fog this-is-not-windows'),
    **photographs(*LXQT_PNG, 'LGPL-2.1+', 2, 'appleflower beam butterfly cloud drop flowers'),
    **photographs(*MATE, 'GPL-2+', 1, 'Blinds'),
    **photographs(*MATE, 'GPL-2+', 2, 'Aqua Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings Wood YellowFlower'),
    **photographs(*PALAPELI, 'public domain', 2, 'cincinnati-bridge citrus-fruits european-honey-bee'),
    **photographs(*PALAPELI, 'GFDL', 2, 'castle-maintenon panther-chameleon-female'),
    **photographs(*PLASMA, 'LGPL-3', 2, 'BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey OneStandsOut Path '
                  'summer_1am'),
}


@dataclass(frozen=True)
class Row:
    """A line of MANIFEST.csv."""
    file: str
    package: str
    version: str
    licence: str
    size: str
    divisor: int
    sha256: str


class FetchError(Exception):
    """A package or a photograph cannot be had; the message names it."""


@report_errors('interrupted; the same command goes on.')
def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('datasets/zoo/train'), help='folder of the photographs (default: %(default)s)')
    parser.add_argument('--debs', type=Path, help='folder with .deb files downloaded before (default: debs beside the folder --out)')
    parser.add_argument('--keep', action='store_true', help='keep packages that are downloaded now in the folder --debs')
    args = parser.parse_args(arguments)
    debs = args.debs or args.out.parent / 'debs'
    if args.debs and not args.keep and not debs.is_dir():
        parser.error(f'{debs}: no such folder')
    try:
        problems = build(args.out, debs, args.keep)
        rows = write_manifest(args.out)
    except OSError as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return 2
    megapixels = sum(int(width) * int(height) for width, height in (row.size.split('x') for row in rows)) / 1e6
    megabytes = sum((args.out / row.file).stat().st_size for row in rows) / 1e6
    print(f'{args.out}: {len(rows)} of {len(PHOTOGRAPHS)} photographs, {megapixels:.1f} megapixels, {megabytes:.1f} MB')
    return 2 if problems else 0


def build(out: Path, debs: Path, keep: bool) -> int:
    """Write the photographs that are missing, package by package; report what cannot be had, go on, and return how often that was."""
    out.mkdir(parents=True, exist_ok=True)
    missing: dict[str, list[str]] = {}
    for name, photograph in PHOTOGRAPHS.items():
        if not (out / f'{name}.jpg').is_file():
            missing.setdefault(photograph.package, []).append(name)
    versions = {row.file: row.version for row in read_manifest(out)}
    problems = 0

    def report(problem: FetchError) -> None:
        nonlocal problems
        problems += 1
        tqdm.write(f'error: {problem}', file=sys.stderr)

    absent = [package for package in missing if not packages_in(debs, package)]
    if absent and not shutil.which('apt-get'):
        report(FetchError(f'not in {debs}, and this machine has no apt-get: {" ".join(absent)}; {how_to_fetch(absent)}'))
        missing = {package: names for package, names in missing.items() if package not in absent}
    with tqdm(total=sum(map(len, missing.values())), unit='photograph', dynamic_ncols=True) as bar:
        for package, names in missing.items():
            bar.set_description(package)
            try:
                with find_package(package, debs, keep) as deb:
                    originals = read_members(deb, {PHOTOGRAPHS[name].path for name in names})
                    for name in names:
                        try:
                            convert(deb, originals, PHOTOGRAPHS[name], out / f'{name}.jpg')
                            versions[f'{name}.jpg'] = version_of(deb)
                        except FetchError as problem:
                            report(problem)
                        bar.update()
            except FetchError as problem:
                report(problem)
                bar.update(len(names))
            write_manifest(out, versions)  # so that an interrupted run does not lose the versions
    return problems


@contextmanager
def find_package(package: str, debs: Path, keep: bool) -> Iterator[Path]:
    """Yield the .deb file of a package: from the folder if it is there, else downloaded, to the folder or to a temporary place."""
    there = packages_in(debs, package)
    if there:
        yield there[-1]
        return
    with tempfile.TemporaryDirectory() as folder:
        command = ['apt-get', '-qq', '-o', 'APT::Sandbox::User=root', 'download', package]
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        found = sorted(Path(folder).glob('*.deb'))
        if result.returncode or not found:
            said = [line for line in result.stderr.splitlines() if line.startswith('E:')] or ['no file']
            raise FetchError(f'{package}: apt-get download: {said[-1]}; run apt-get update, or {how_to_fetch([package])}')
        deb = found[0]
        if keep:
            debs.mkdir(parents=True, exist_ok=True)
            deb = Path(shutil.move(deb, debs / deb.name))
        yield deb


def packages_in(debs: Path, package: str) -> list[Path]:
    """Return the .deb files of a package in a folder, by name."""
    return sorted(debs.glob(f'{package}_*.deb'))


def how_to_fetch(packages: list[str]) -> str:
    """Return what to do where apt-get does not know packages, or is not there."""
    return (f"run 'apt-get download {' '.join(packages)}' on a Debian 13 (trixie) system or container, and name the folder with the "
            'result with --debs.')


def version_of(deb: Path) -> str:
    """Return the version in the name of a .deb file, NAME_VERSION_ARCHITECTURE.deb, where the colon of an epoch is written %3a."""
    parts = deb.stem.split('_')
    return unquote(parts[1]) if len(parts) == 3 else ''


def read_members(deb: Path, paths: set[str]) -> dict[str, bytes]:
    """Return the content of the wanted files of a package, by path; those it does not hold are absent."""
    content = {}
    try:
        with open_data(deb) as stream, tarfile.open(fileobj=stream, mode='r|*') as archive:
            for member in archive:
                path = member.name.removeprefix('./')
                if path in paths and member.isfile():
                    content[path] = archive.extractfile(member).read()
    except (tarfile.TarError, EOFError) as error:
        raise FetchError(f'{deb}: not a readable Debian package ({error}).') from error
    return content


@contextmanager
def open_data(deb: Path) -> Iterator[io.BufferedIOBase]:
    """Yield the archive of files of a .deb: through dpkg-deb, which knows every compression, else read here.

    A .deb is an `ar` file: an 8-byte mark, then for each member a header of 60 bytes (name in the first 16, size in bytes 48 to 58) and
    the content, padded to an even length. The files are in data.tar.*; tarfile reads all of Debian's compressions, xz, gz and bz2.
    """
    if shutil.which('dpkg-deb'):
        with subprocess.Popen(['dpkg-deb', '--fsys-tarfile', deb], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            yield process.stdout
        return
    with deb.open('rb') as file:
        if file.read(8) != b'!<arch>\n':
            raise FetchError(f'{deb}: not a readable Debian package (no ar file).')
        while header := file.read(60):
            if header[58:] != b'`\n':
                raise FetchError(f'{deb}: not a readable Debian package (broken ar file).')
            size = int(header[48:58])
            if header.startswith(b'data.tar'):
                yield file
                return
            file.seek(size + size % 2, io.SEEK_CUR)
    raise FetchError(f'{deb}: not a readable Debian package (no data.tar).')


def convert(deb: Path, originals: dict[str, bytes], photograph: Photograph, target: Path) -> None:
    """Reduce one photograph and write it, whole or not at all."""
    if photograph.path not in originals:
        raise FetchError(f'{target.stem}: package {photograph.package} ({deb.name}) holds no {photograph.path}.')
    try:
        photo = reduced(Image.open(io.BytesIO(originals[photograph.path])).convert('RGB'), photograph.divisor)
    except (OSError, SyntaxError) as error:
        raise FetchError(f'{target.stem}: {photograph.path} of package {photograph.package} is no readable picture ({error}).') from error
    part = target.with_name(f'.{target.name}.part')
    try:
        photo.save(part, format='JPEG', quality=QUALITY, subsampling=0, optimize=True)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def reduced(photo: Image.Image, divisor: int) -> Image.Image:
    """Return a photograph at 1/divisor of its size, by Lanczos."""
    if divisor == 1:
        return photo
    return photo.resize((photo.width // divisor, photo.height // divisor), Image.Resampling.LANCZOS)


def read_manifest(out: Path) -> list[Row]:
    """Return the lines of MANIFEST.csv of an earlier run, none if there is none."""
    path = out / 'MANIFEST.csv'
    if not path.is_file():
        return []
    with path.open(newline='', encoding='utf-8') as file:
        return [Row(**{field.name: line.get(field.name) or '' for field in fields(Row)}) for line in csv.DictReader(file)]


def write_manifest(out: Path, versions: dict[str, str] | None = None) -> list[Row]:
    """Write MANIFEST.csv of the photographs that are in the folder; versions come from this run or from the manifest before."""
    if versions is None:
        versions = {row.file: row.version for row in read_manifest(out)}
    rows = []
    for name, photograph in sorted(PHOTOGRAPHS.items()):
        path = out / f'{name}.jpg'
        if path.is_file():
            with Image.open(path) as photo:
                size = f'{photo.width}x{photo.height}'
            rows.append(Row(path.name, photograph.package, versions.get(path.name, ''), photograph.licence, size, photograph.divisor,
                            hashlib.sha256(path.read_bytes()).hexdigest()))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(field.name for field in fields(Row))
    writer.writerows(map(astuple, rows))
    part = out / '.MANIFEST.csv.part'
    part.write_text(text.getvalue(), encoding='utf-8')
    os.replace(part, out / 'MANIFEST.csv')
    return rows


if __name__ == '__main__':
    sys.exit(main())
