"""EXIF of photographs: the orientation is applied, the rest is kept."""
from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

ORIENTATION = ExifTags.Base.Orientation
KEPT = {ExifTags.Base[name] for name in (
    'ImageDescription', 'Make', 'Model', 'Software', 'DateTime', 'Artist', 'HostComputer', 'Copyright', 'XPTitle', 'XPComment', 'XPAuthor',
    'XPKeywords', 'XPSubject', 'Rating')}
"""Tags of the picture. Others, of which TIFF files have many, tell how the old file stored it."""
BLOCKS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
SIZE_TAGS = (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)


def read_exif(image: Image.Image) -> tuple[int, Image.Exif | None, str | None]:
    """Return the orientation (1 to 8), the metadata to keep (None if there is none), and a note where it cannot be read."""
    try:
        found = image.getexif()
        orientation = found.get(ORIENTATION, 1)
        kept = Image.Exif()
        for tag, value in found.items():
            if tag in KEPT:
                kept[tag] = value
        for block in BLOCKS:
            values = dict(found.get_ifd(block))
            if values:
                kept[block] = values
        kept.tobytes()  # values may be of types that cannot be written
    except Exception as error:  # damaged blocks raise many types
        return 1, None, f'its EXIF block is damaged and left out ({type(error).__name__}).'
    if not len(found) and image.info.get('exif'):  # Pillow reads of a damaged directory what it can
        return 1, None, 'its EXIF block is damaged and left out.'
    return orientation if orientation in range(1, 9) else 1, kept if len(kept) else None, None


def exif_bytes(exif: Image.Exif | None, height: int, width: int) -> bytes | None:
    """Return the block to write with an upright image of this size, None if there is nothing to say. ``exif`` is changed."""
    if exif is None:
        return None
    exif[ORIENTATION] = 1
    inner = exif.get(BLOCKS[0])
    if isinstance(inner, dict):
        for tag, side in zip(SIZE_TAGS, (width, height)):
            if tag in inner:
                inner[tag] = side
    return exif.tobytes()


def turn_upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror (h, w, C) as EXIF's orientation asks: 2 to 8, see the table of tag 0x0112; 1 is upright."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples
