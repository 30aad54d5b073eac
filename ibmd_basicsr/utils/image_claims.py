"""What the heads of image files claim: a decoder believes them, and fills as much memory before it meets the end of a damaged file."""
from __future__ import annotations

from collections.abc import Iterator

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_START = b'\xff\xd8'
NO_FRAME = (0xc4, 0xc8, 0xcc)  # tables and an extension, among the markers of JPEG frames
MOST_PIXELS = 178_956_970
"""Pillow's own limit, for formats that it is not asked about."""
FREE_PIXELS, PIXELS_A_BYTE = 2**24, 10**4
"""So many pixels any file may have, and so many more for each of its bytes: deflate makes 1032 bytes of one, of 8 pixels at most."""


def false_claim(content: bytes) -> str | None:
    """Return why the file of a PNG, JPEG or WebP image cannot be what its head says, None if it can, or is of another format."""
    height, width = 0, 0
    if content.startswith(PNG_SIGNATURE):
        width, height = (int.from_bytes(content[place:place + 4], 'big') for place in (16, 20))
        if any(end > len(content) for end in _png_chunks(content)):
            return 'is cut off, or one of its lengths is damaged'
    elif content.startswith(JPEG_START):
        height, width = _jpeg_size(content)
    elif content[8:15] == b'WEBPVP8':
        height, width = _webp_size(content)
        if height * width > MOST_PIXELS:
            return f'has {width}x{height} pixels, more than {MOST_PIXELS}'
    if height * width > FREE_PIXELS + PIXELS_A_BYTE * len(content):
        return f'claims {width}x{height} pixels in {len(content)} bytes'
    return None


def _png_chunks(content: bytes) -> Iterator[int]:
    """Yield where the chunks of a PNG file end, by their lengths."""
    place = len(PNG_SIGNATURE)
    while place + 8 <= len(content):
        kind = content[place + 4:place + 8]
        place += 12 + int.from_bytes(content[place:place + 4], 'big')
        yield place
        if kind == b'IEND':
            return


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return height and width of a WebP file of a single picture, lossy or lossless, zeros for one of several parts."""
    if content[15:16] == b' ':
        width, height = (int.from_bytes(content[place:place + 2], 'little') & 0x3fff for place in (26, 28))
        return height, width
    if content[15:16] == b'L':
        bits = int.from_bytes(content[21:25], 'little')
        return (bits >> 14 & 0x3fff) + 1, (bits & 0x3fff) + 1
    return 0, 0


def _jpeg_size(content: bytes) -> tuple[int, int]:
    """Return height and width by the largest frame header of a JPEG file before its first scan, zeros if there is none."""
    place, size = len(JPEG_START), (0, 0)
    while place + 9 <= len(content):
        if content[place] != 0xff or content[place + 1] in (0xff, 0x00):
            place += 1  # decoders skip what is no marker
            continue
        marker = content[place + 1]
        if marker == 0xda:
            break
        if 0xc0 <= marker <= 0xcf and marker not in NO_FRAME:
            found = tuple(int.from_bytes(content[place + shift:place + shift + 2], 'big') for shift in (5, 7))
            size = max(size, found, key=lambda sides: sides[0] * sides[1])
        standalone = marker == 0x01 or 0xd0 <= marker <= 0xd9
        place += 2 if standalone else 2 + max(2, int.from_bytes(content[place + 2:place + 4], 'big'))
    return size
