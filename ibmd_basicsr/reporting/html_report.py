"""write_html: a comparison as one page for a browser that needs nothing else: table, plots and pictures in a single file."""
from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ibmd_basicsr.reporting.grid import densest_square
from ibmd_basicsr.reporting.tables import Column
from ibmd_basicsr.utils.numbers import is_integer

GROUND_TRUTH = 'ground truth'
FOCUS_SHARE = 4
"""The point where the page zooms in is the middle of the square, a quarter as wide as the crop, where the restorers differ most."""


@dataclass(frozen=True)
class ReportOptions:
    """What of the pictures goes into the page; the block ``report`` of option files.

    Attributes:
        images: pictures of one test set, at most. Of a larger set: evenly from the worst to the best.
        crop: side of the square that is cut out of each, in pixels; nothing is ever scaled down.
        quality: of their JPEG coding (no chroma subsampling), 1 to 100.
        megabytes: of all pictures in the file, at most; where ``images`` would need more, there are fewer.

    Raises:
        ValueError: not a whole number, or out of range.
    """

    images: int = 12
    crop: int = 256
    quality: int = 92
    megabytes: int = 12

    def __post_init__(self):
        for name, least, most in (('images', 0, None), ('crop', 8, None), ('quality', 1, 100), ('megabytes', 1, None)):
            value = getattr(self, name)
            if not is_integer(value, least, most):
                bounds = f'from {least} to {most}' if most else f'from {least}'
                raise ValueError(f'{name} must be a whole number {bounds}, got {value!r}.')


@dataclass(frozen=True)
class ReportImage:
    """One test image.

    Attributes:
        name: unique in its test set.
        values: row name -> column key -> value of this image; what is missing or None stays empty.
        pictures: row name -> restored picture, a file or (H, W, 3) BGR uint8, in the order in which the page shows them. May hold
            pictures that are no row, such as the input.
        truth: of the same size.
    """

    name: str
    values: Mapping[str, Mapping[str, float | None]]
    pictures: Mapping[str, Path | np.ndarray]
    truth: Path | np.ndarray


@dataclass(frozen=True)
class TestSet:
    """Images of one kind and the means over them.

    Attributes:
        name: unique in the report.
        means: row name -> column key -> mean; what is missing or None stays empty.
        images: all of them; :class:`ReportOptions` decides how many are embedded.
    """

    __test__ = False  # pytest would collect it for its name
    name: str
    means: Mapping[str, Mapping[str, float | None]]
    images: Sequence[ReportImage] = ()


@dataclass(frozen=True)
class Report:
    """What the page says.

    Attributes:
        title, date, command: plain text, as all other strings here.
        columns: of the table, in order; those with a direction are also the page's choice of metrics.
        sets: at least one.
        notes: machine, weights, what the metrics are; what stands between `backticks` is set as code.
        warnings: what went wrong, shown at the top.
        distortion, perception, seconds: column keys that the plots start with; the page takes others where they are not there.
        options: limits of the embedded pictures.
    """

    title: str
    date: str
    command: str
    columns: Sequence[Column]
    sets: Sequence[TestSet]
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    distortion: str = 'psnr'
    perception: str = 'lpips'
    seconds: str = 'seconds'
    options: ReportOptions = field(default_factory=ReportOptions)


def write_html(path: Path, report: Report) -> None:
    """Write the page. It asks for nothing over a network: styles, script, data and pictures are inside.

    Raises:
        ValueError: no test set, pictures of one image that differ in size, or one called like the ground truth.
        FileNotFoundError: a picture is missing or not readable.
    """
    if not report.sets:
        raise ValueError('write_html needs at least one test set.')
    style, script = _part('report.css'), _part('report.js')
    parts = {'title': html.escape(report.title), 'style': style, 'script': script, 'data': _json_for_script(_page_data(report)),
             # what is not listed is refused by the browser: even a name that broke out of the data could neither run nor load anything
             'policy': f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"}
    # one pass: what has been put in is not searched for further marks
    page = re.sub(r'\{\{(\w+)\}\}', lambda mark: parts[mark[1]], _part('template.html'))
    path.write_text(page, encoding='utf-8', newline='\n')


def _part(name: str) -> str:
    return (files('ibmd_basicsr.reporting') / 'report_page' / name).read_text(encoding='utf-8')


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json_for_script(data: Any) -> str:
    # without < nothing inside can end the script element or open a comment; the escape means the same to a JSON parser
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(',', ':')).replace('<', '\\u003c')


def _page_data(report: Report) -> dict[str, Any]:
    chosen = [_choose(test_set.images, _ranking_column(report), report.options.images) for test_set in report.sets]
    embedded = _embed(chosen, report.options)
    keys = [column.key for column in report.columns]
    sets = []
    for test_set, images in zip(report.sets, embedded):
        ranks = _ranks(test_set.images, report.columns)
        sets.append({
            'name': test_set.name, 'count': len(test_set.images),
            'rows': [{'name': name, 'values': _numbers(values, keys)} for name, values in test_set.means.items()],
            'images': [picture | {'values': {row: _numbers(values, keys) for row, values in image.values.items()},
                                  'ranks': {row: [ranks[row, key].get(image.name) for key in keys] for row in image.values}}
                       for image, picture in images],
        })
    return {'title': report.title, 'date': report.date, 'command': report.command, 'notes': list(report.notes),
            'warnings': list(report.warnings), 'truth': GROUND_TRUTH, 'sets': sets,
            'columns': [{'key': c.key, 'title': c.title, 'digits': c.digits, 'better': c.better} for c in report.columns],
            'distortion': report.distortion, 'perception': report.perception, 'seconds': report.seconds}


def _numbers(values: Mapping[str, float | None], keys: Sequence[str]) -> list[float | str | None]:
    """Return the values in the order of ``keys``; NaN as None, infinities as text, for JSON has neither."""
    numbers = []
    for key in keys:
        value = values.get(key)
        if value is None or math.isnan(value):
            numbers.append(None)
        elif math.isinf(value):
            numbers.append('Infinity' if value > 0 else '-Infinity')
        else:
            numbers.append(float(f'{value:.7g}'))
    return numbers


def _ranking_column(report: Report) -> Column | None:
    directed = [column for column in report.columns if column.better]
    return next((column for column in directed if column.key == report.perception), directed[0] if directed else None)


def _choose(images: Sequence[ReportImage], column: Column | None, count: int) -> list[ReportImage]:
    """Return ``count`` images at even distances from the worst to the best mean over their rows, in their own order."""
    if len(images) <= count or not count:
        return list(images[:count])

    def score(number: int) -> float:
        values = [row.get(column.key) for row in images[number].values.values()] if column else []
        finite = [value for value in values if value is not None and math.isfinite(value)]
        return sum(finite) / len(finite) if finite else 0.0

    ranked = sorted(range(len(images)), key=score)
    places = np.linspace(0, len(images) - 1, count).round().astype(int)
    return [images[number] for number in sorted(ranked[place] for place in places)]


def _ranks(images: Sequence[ReportImage], columns: Sequence[Column]) -> dict[tuple[str, str], dict[str, int]]:
    """Return (row, column key) -> image name -> 1 for the best of all images; columns without a direction have no ranks."""
    ranks = {}
    for row in {row for image in images for row in image.values}:
        for column in columns:
            values = {image.name: image.values.get(row, {}).get(column.key) for image in images} if column.better else {}
            present = [name for name, value in values.items() if value is not None and not math.isnan(value)]
            present.sort(key=values.get, reverse=column.better == 'higher')
            ranks[row, column.key] = {name: rank for rank, name in enumerate(present, 1)}
    return ranks


def _embed(chosen: Sequence[Sequence[ReportImage]], options: ReportOptions) -> list[list[tuple[ReportImage, dict[str, Any]]]]:
    """Return the images with their encoded pictures; in turns from the test sets, so that all have some where space is short."""
    embedded: list[list] = [[] for _ in chosen]
    left = options.megabytes * 10**6
    for number, image in _in_turns(chosen):
        encoded = _encode(image, options)
        left -= sum(len(picture['src']) for picture in encoded['pictures'])
        if left < 0:
            break
        embedded[number].append((image, encoded))
    return embedded


def _in_turns(groups: Sequence[Sequence[ReportImage]]) -> Iterator[tuple[int, ReportImage]]:
    for turn in range(max(map(len, groups))):
        for number, group in enumerate(groups):
            if turn < len(group):
                yield number, group[turn]


def _encode(image: ReportImage, options: ReportOptions) -> dict[str, Any]:
    """Return name, size, where to look and the pictures, cut to the square where the restorers differ most."""
    if GROUND_TRUTH in image.pictures:
        raise ValueError(f'{image.name}: the name {GROUND_TRUTH!r} is taken.')
    pictures = {name: _read(source) for name, source in [*image.pictures.items(), (GROUND_TRUTH, image.truth)]}
    shapes = {picture.shape for picture in pictures.values()}
    if len(shapes) > 1:
        raise ValueError(f'{image.name}: pictures of different sizes, {sorted(shapes)}.')
    energy = _difference(list(pictures.values()))
    top, left, side = densest_square(energy, options.crop)
    y, x, inner = densest_square(energy[top:top + side, left:left + side], max(1, side // FOCUS_SHARE))
    return {'name': image.name, 'whole': [energy.shape[1], energy.shape[0]], 'side': side, 'left': left, 'top': top,
            'focus': [(x + inner / 2) / side, (y + inner / 2) / side],
            'pictures': [{'name': name, 'src': _data_uri(picture[top:top + side, left:left + side], options.quality)}
                         for name, picture in pictures.items()]}


def _read(source: Path | np.ndarray) -> np.ndarray:
    if isinstance(source, np.ndarray):
        return source
    picture = cv2.imread(str(source))
    if picture is None:
        raise FileNotFoundError(f'{source}: no such picture, or not readable.')
    return picture


def _difference(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return (H, W) float64: the variance of the pictures at each pixel, summed over the colours."""
    total = np.zeros(pictures[0].shape)
    squares = np.zeros(pictures[0].shape)
    for picture in pictures:
        values = picture.astype(np.float64)
        total += values
        squares += values**2
    return (squares - total**2 / len(pictures)).sum(-1).clip(0) / len(pictures)


def _data_uri(picture: np.ndarray, quality: int) -> str:
    # colours at full resolution: halved ones would be an error of the page that looks like one of the restorer
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1,
             cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return 'data:image/jpeg;base64,' + base64.b64encode(cv2.imencode('.jpg', picture, flags)[1].tobytes()).decode()
