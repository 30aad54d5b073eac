"""What the heads of image files claim: a decoder believes them, and fills as much memory before it meets the end of a damaged file."""
from __future__ import annotations

from collections.abc import Iterator

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
JPEG_START = b'\xff\xd8'
NO_FRAME = (0xc4, 0xc8, 0xcc)  # tables and an extension, among the markers of JPEG frames
FREE_PIXELS, PIXELS_A_BYTE = 2**24, 10**4
"""So many pixels any file may have, and so many more for each of its bytes: deflate makes 1032 bytes of one, of 8 pixels at most."""


def false_claim(content: bytes) -> str | None:
    """Return why the file of a PNG or JPEG image cannot be what its head says, None if it can, or is of another format."""
    height, width = 0, 0
    if content.startswith(PNG_SIGNATURE):
        width, height = (int.from_bytes(content[place:place + 4], 'big') for place in (16, 20))
        if any(end > len(content) for end in _png_chunks(content)):
            return 'is cut off, or one of its lengths is damaged'
    elif content.startswith(JPEG_START):
        height, width = _jpeg_size(content)
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
