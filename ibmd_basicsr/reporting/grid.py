"""picture_grid: one row an image, one column a restorer, each picture above its most detailed part, enlarged."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, MARGIN, HEADER, CAPTION = 6, 14, 40, 44
PAPER, INK, PALE, FRAME = (255, 255, 255), (25, 25, 25), (80, 80, 80), (255, 196, 0)
WINNER = (0, 115, 60)


@dataclass(frozen=True)
class Cell:
    """A picture of the grid: (H, W, 3) BGR uint8, and the text below it. ``best`` sets the text in green."""

    picture: np.ndarray
    caption: str = ''
    best: bool = False


def most_detailed(image: np.ndarray, size: int) -> tuple[int, int, int]:
    """Return (top, left, side) of the square with the largest gradient energy; ``side`` is ``size`` or the image's shorter side.

    Args:
        image: (H, W, 3), any channel order.
        size: wanted side in pixels.
    """
    values = image.astype(np.float64)
    energy = np.zeros(image.shape[:2])
    energy[:-1] += np.square(np.diff(values, axis=0)).sum(-1)
    energy[:, :-1] += np.square(np.diff(values, axis=1)).sum(-1)
    return densest_square(energy, size)


def densest_square(energy: np.ndarray, size: int) -> tuple[int, int, int]:
    """Return (top, left, side) of the square with the largest sum; ``side`` is ``size`` or the shorter side, if that is less.

    Args:
        energy: (H, W) float64.
        size: wanted side in pixels.
    """
    side = min(size, *energy.shape)
    total = cv2.integral(energy)
    sums = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    top, left = np.unravel_index(np.argmax(sums), sums.shape)
    return int(top), int(left), side


def picture_grid(rows: Sequence[Sequence[Cell]], titles: Sequence[str], *, crop: int = 96, zoom: int = 3) -> np.ndarray:
    """Draw the grid.

    The last cell of each row is the reference: its most detailed square is marked in every picture and repeated below it, enlarged by
    repeating pixels. Whole pictures are resampled to the width of a column, crop * zoom.

    Args:
        rows: pictures of one size within a row.
        titles: one heading a column.
        crop: side of the marked square in pixels.
        zoom: enlargement of the square.

    Returns:
        (H, W, 3) BGR uint8.

    Raises:
        ValueError: no rows, or rows of another length than ``titles``.
    """
    if not rows or any(len(row) != len(titles) for row in rows):
        raise ValueError(f'picture_grid needs rows of {len(titles)} pictures, got {[len(row) for row in rows]}.')
    width = crop * zoom
    heights = [round(width * row[-1].picture.shape[0] / row[-1].picture.shape[1]) for row in rows]
    sheet = Image.new('RGB', (2 * MARGIN + len(titles) * (width + GAP) - GAP,
                              2 * MARGIN + HEADER + sum(height + GAP + width + CAPTION + GAP for height in heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    title_font, caption_font = ImageFont.load_default(24), ImageFont.load_default(20)
    for i, title in enumerate(titles):
        draw.text((MARGIN + i * (width + GAP) + width / 2, MARGIN + HEADER / 2), title, INK, title_font, anchor='mm')
    top = MARGIN + HEADER
    for row, height in zip(rows, heights):
        square = most_detailed(row[-1].picture, crop)
        for i, cell in enumerate(row):
            left = MARGIN + i * (width + GAP)
            sheet.paste(_whole(cell.picture, square, width, height), (left, top))
            sheet.paste(_detail(cell.picture, square, width), (left, top + height + GAP))
            draw.text((left + width / 2, top + height + GAP + width + 15), cell.caption, WINNER if cell.best else PALE,
                      caption_font, anchor='mm')
        top += height + GAP + width + CAPTION + GAP
    return np.ascontiguousarray(np.asarray(sheet)[:, :, ::-1])


def _whole(picture: np.ndarray, square: tuple[int, int, int], width: int, height: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, ::-1])).resize((width, height), Image.Resampling.LANCZOS)
    factor = width / picture.shape[1]
    top, left, side = (round(value * factor) for value in square)
    ImageDraw.Draw(image).rectangle((left, top, left + side - 1, top + side - 1), outline=FRAME, width=2)
    return image


def _detail(picture: np.ndarray, square: tuple[int, int, int], width: int) -> Image.Image:
    top, left, side = square
    part = np.ascontiguousarray(picture[top:top + side, left:left + side, ::-1])
    return Image.fromarray(part).resize((width, width), Image.Resampling.NEAREST)

