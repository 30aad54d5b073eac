"""Damaged heads of image files, which decoders would believe: found by random images, 4 GiB for a file of 600 bytes."""
import io

import numpy as np
import pytest
from PIL import Image

from ibmd_basicsr.utils.errors import DataError
from ibmd_basicsr.utils.image_claims import false_claim
from ibmd_basicsr.utils.image_files import decode_image
from ibmd_basicsr.utils.image_sets import read_images


def encoded(form: str, samples: np.ndarray | None = None, **options) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    Image.fromarray(noise if samples is None else samples).save(buffer, form, **options)
    return buffer.getvalue()


def with_length(data: bytes, length: int) -> bytes:
    place = data.index(b'IDAT') - 4
    return data[:place] + length.to_bytes(4, 'big') + data[place + 4:]


def with_sides(data: bytes, marker: bytes, height: int, width: int) -> bytes:
    place = data.index(marker) + 5
    return data[:place] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + data[place + 4:]


PNG, JPEG, PROGRESSIVE = encoded('PNG'), encoded('JPEG'), encoded('JPEG', progressive=True)
WEBP, LOSSLESS = encoded('WEBP'), encoded('WEBP', lossless=True)
EXIF = Image.Exif()
EXIF[271] = '\xff\xc0' * 20  # looks like a frame
IN_EXIF = encoded('JPEG', exif=EXIF.tobytes())


@pytest.mark.parametrize('data, reason', [
    (with_length(PNG, 0xffffff00), 'is cut off, or one of its lengths is damaged'), (PNG[:-300], 'is cut off'),
    (PNG[:16] + b'\0\0\x75\x30' * 2 + PNG[24:], 'claims 30000x30000 pixels in'),
    (with_sides(JPEG, b'\xff\xc0', 30000, 30001), 'claims 30001x30000 pixels in'),
    (with_sides(PROGRESSIVE, b'\xff\xc2', 65535, 65535), 'claims 65535x65535 pixels in'),
    (WEBP[:26] + b'\xff\x3f\xff\x3f' + WEBP[30:], 'has 16383x16383 pixels, more than 178956970'),
    (WEBP[:26] + b'\x10\x27\x11\x27' + WEBP[30:], 'claims 10000x10001 pixels in'),
    (LOSSLESS[:21] + (9999 | 10000 << 14).to_bytes(4, 'little') + LOSSLESS[25:], 'claims 10000x10001 pixels in'),
    (LOSSLESS[:21] + (0x3fff | 0x3fff << 14).to_bytes(4, 'little') + LOSSLESS[25:], 'has 16384x16384 pixels, more than 178956970')])
def test_a_false_claim_is_a_line_before_the_decoder_sees_it(data, reason, tmp_path, monkeypatch):
    monkeypatch.setattr('cv2.imdecode', lambda *arguments: pytest.fail('decoded'))
    with pytest.raises(DataError, match=rf'^x.png: cannot be decoded as an image \(it {reason}') as error:
        decode_image(data, 'x.png')
    assert '\n' not in str(error.value)
    (tmp_path / 'x.png').write_bytes(data)
    with pytest.raises(ValueError, match=rf'x.png: cannot be decoded as an image \(it {reason}'):
        list(read_images(tmp_path))


@pytest.mark.parametrize('data', [
    PNG, JPEG, PROGRESSIVE, IN_EXIF, PNG + b'behind the end', encoded('PNG', np.zeros((2500, 2500), np.uint8)),
    encoded('JPEG', np.zeros((4000, 6000), np.uint8)), encoded('PNG', np.zeros((6000, 6000), bool)), b'', b'\xff\xd8', b'GIF89a'],
    ids=lambda data: str(len(data)))
def test_what_may_be_true_is_left_to_the_decoder(data):
    """The emptiest of pictures, markers inside metadata, and files that claim nothing."""
    assert false_claim(data) is None
