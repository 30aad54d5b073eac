"""Reading and writing of photographs: modes, depth, transparency, EXIF, colour profiles. Truth is what went into the file."""
import io
import os
import struct

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps
from tiny_zoo import picture

from ibmd_basicsr.restoring import writing
from ibmd_basicsr.restoring.metadata import turn_upright
from ibmd_basicsr.restoring.photo import ImageError, Photo, read_photo
from ibmd_basicsr.restoring.writing import check_writable, encode, write_atomically

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()


def read(path) -> Photo:
    return read_photo(path, 100)


def through_file(photo: Photo, tmp_path, form: str) -> Photo:
    path = tmp_path / f'file.{form}'
    path.write_bytes(encode(photo, form, 95))
    return read(path)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'BMP'])
def test_rgb_is_read_as_it_is(kind, tmp_path):
    samples = picture()
    Image.fromarray(samples).save(tmp_path / 'x', kind)
    photo = read(tmp_path / 'x')
    assert photo.kind == kind and photo.alpha is None and (photo.colour == samples).all()


def test_modes_of_eight_bits(tmp_path):
    colour, grey, alpha = picture(channels=3), picture(channels=1, seed=1), picture(channels=1, seed=2)
    palette = Image.fromarray(colour).quantize(16)
    bits = grey > 100
    for name, image, wanted, transparency in [
            ('L', Image.fromarray(grey), grey[..., None], None),
            ('1', Image.fromarray(bits), 255 * bits[..., None].astype(np.uint8), None),
            ('LA', Image.fromarray(np.dstack([grey, alpha])), grey[..., None], alpha),
            ('RGBA', Image.fromarray(np.dstack([colour, alpha])), colour, alpha),
            ('P', palette, np.asarray(palette.convert('RGB')), None)]:
        image.save(tmp_path / 'x.png')
        assert Image.open(tmp_path / 'x.png').mode == name
        photo = read(tmp_path / 'x.png')
        assert photo.colour.dtype == np.uint8 and (photo.colour == wanted).all(), name
        assert (photo.alpha is None) == (transparency is None) and (transparency is None or (photo.alpha == transparency).all()), name


def test_a_transparent_colour_becomes_transparency(tmp_path):
    image = Image.fromarray(np.uint8([[0, 1], [2, 1]]), 'P')
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / 'x.png', transparency=1)
    photo = read(tmp_path / 'x.png')
    assert photo.colour.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]
    assert photo.alpha.tolist() == [[255, 0], [255, 0]]


@pytest.mark.parametrize('ending', ['.png', '.tif'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_sixteen_bits_keep_all_their_levels(ending, channels, tmp_path):
    samples = picture(channels=channels, dtype=np.uint16)
    order = {1: slice(None), 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert cv2.imwrite(str(tmp_path / f'x{ending}'), samples[..., order])
    photo = read(tmp_path / f'x{ending}')
    assert photo.colour.dtype == np.uint16
    assert (photo.colour == (samples[..., None] if channels == 1 else samples[..., :3])).all()
    assert photo.alpha is None if channels < 4 else (photo.alpha == samples[..., 3]).all()
    again = through_file(photo, tmp_path, 'png')
    assert (again.colour == photo.colour).all() and (channels < 4 or (again.alpha == photo.alpha).all())


def test_sixteen_bits_are_rounded_to_eight_where_the_format_has_no_more():
    samples = np.arange(65536, dtype=np.uint16)
    assert (writing._to_8_bit(samples) == np.rint(samples / 257)).all()


def test_cmyk_is_converted_plainly_or_by_its_profile(tmp_path):
    ink = np.zeros((8, 8, 4), np.uint8)
    ink[..., 0] = 255  # cyan alone
    image = Image.fromarray(ink, 'CMYK')
    image.save(tmp_path / 'x.tif')
    photo = read(tmp_path / 'x.tif')
    assert (photo.colour == [0, 255, 255]).all() and not photo.notes
    image.save(tmp_path / 'x.tif', icc_profile=b'not a profile')
    photo = read(tmp_path / 'x.tif')
    assert (photo.colour == [0, 255, 255]).all() and photo.icc is None
    assert photo.notes[0].startswith('its CMYK profile cannot be used')


@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_applied_as_pillow_applies_it(orientation, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(picture()).save(tmp_path / 'x.png', exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / 'x.png')))
    photo = read(tmp_path / 'x.png')
    assert photo.colour.shape == upright.shape and (photo.colour == upright).all()
    assert photo.colour.flags.c_contiguous


def test_orientation_of_sixteen_bits_too():
    samples = picture(2, 3, dtype=np.uint16)
    assert (turn_upright(samples, 6) == np.rot90(samples, -1)).all() and (turn_upright(samples, 8) == np.rot90(samples)).all()


@pytest.mark.parametrize('source', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('form', ['png', 'jpg', 'webp'])
def test_exif_and_profile_are_kept(source, form, tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Artist] = 'Ada'
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.DateTimeOriginal: '2026:01:02 03:04:05', ExifTags.Base.ExifImageWidth: 16}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: 'N'}
    Image.fromarray(picture(12, 16)).save(tmp_path / 'x', source, exif=exif.tobytes(), icc_profile=SRGB)
    photo = read(tmp_path / 'x')
    assert photo.size == (16, 12)
    path = tmp_path / f'file.{form}'
    path.write_bytes(encode(photo, form, 95))
    with Image.open(path) as image:
        found = image.getexif()
        assert found[ExifTags.Base.Orientation] == 1 and found[ExifTags.Base.Artist] == 'Ada'
        inner = found.get_ifd(ExifTags.IFD.Exif)
        assert inner == {ExifTags.Base.DateTimeOriginal: '2026:01:02 03:04:05', ExifTags.Base.ExifImageWidth: 12}
        assert found.get_ifd(ExifTags.IFD.GPSInfo) == {ExifTags.GPS.GPSLatitudeRef: 'N'}
        assert image.info['icc_profile'] == SRGB
        assert set(found) == {ExifTags.Base.Orientation, ExifTags.Base.Artist, ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo}


def test_exif_and_profile_of_sixteen_bits(tmp_path):
    photo = Photo(picture(dtype=np.uint16), exif=Image.Exif(), icc=SRGB)
    photo.exif[ExifTags.Base.Artist] = 'Ada'
    again = through_file(photo, tmp_path, 'png')
    assert (again.colour == photo.colour).all()
    assert again.icc == SRGB and again.exif[ExifTags.Base.Artist] == 'Ada'


def test_grey_with_transparency_of_sixteen_bits(tmp_path):
    photo = Photo(picture(channels=1, dtype=np.uint16)[..., None], picture(channels=1, seed=1, dtype=np.uint16), icc=bytes(16) + b'GRAY')
    again = through_file(photo, tmp_path, 'png')
    assert again.colour.shape[2] == 3 and (again.colour == photo.colour).all() and (again.alpha == photo.alpha).all()
    assert again.icc is None


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
def test_a_damaged_exif_block_is_left_out_with_a_note(tmp_path):
    # a TIFF header whose directory would begin far behind its end, and one that holds nonsense
    for number, block in enumerate([b'Exif\0\0II*\0' + struct.pack('<I', 10**6), b'Exif\0\0II*\0' + struct.pack('<I', 8) + b'\xff' * 40]):
        Image.fromarray(picture()).save(tmp_path / f'{number}.jpg', exif=block)
        photo = read(tmp_path / f'{number}.jpg')
        assert photo.size == (12, 16) and photo.exif is None
        assert photo.notes[0].startswith('its EXIF block is damaged and left out')


def test_an_exif_block_too_long_for_jpeg_is_refused():
    photo = Photo(picture(), exif=Image.Exif())
    photo.exif[ExifTags.Base.ImageDescription] = 'x' * 70000
    with pytest.raises(ImageError, match='its EXIF block of 70.* bytes is longer than those of JPEG files'):
        encode(photo, 'jpg', 95)


def test_the_first_picture_of_phones_files_is_taken_with_a_note(tmp_path):
    first, second = Image.fromarray(picture(16, 16)), Image.fromarray(picture(8, 8))
    first.save(tmp_path / 'x.jpg', 'MPO', save_all=True, append_images=[second])
    photo = read(tmp_path / 'x.jpg')
    assert photo.size == (16, 16) and 'the first of several pictures' in photo.notes[0]
    assert photo.quality.value == 75 and photo.quality.exact  # Pillow's default


@pytest.mark.parametrize('photo, scale, form, message', [
    (Photo(picture(), picture(channels=1)), 1, 'jpg', 'has transparency, which JPEG files cannot hold'),
    (Photo(picture(2, 20000)), 4, 'jpg', 'a side of 80000 pixels, jpg holds 65500'),
    (Photo(picture(2, 5000)), 4, 'webp', 'a side of 20000 pixels, webp holds 16383')])
def test_what_a_format_cannot_hold_is_refused_before_the_work(photo, scale, form, message):
    with pytest.raises(ImageError, match=message):
        check_writable(photo, scale, form)
    check_writable(photo, scale, 'png')


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / 'folder' / 'x.png'
    write_atomically(b'old', path, overwrite=False)
    assert path.read_bytes() == b'old' and oct(path.stat().st_mode & 0o777) == oct(0o666 & ~current_umask())
    with pytest.raises(ImageError, match='exists already'):
        write_atomically(b'new', path, overwrite=False)

    def full(number):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr('os.fsync', full)
    with pytest.raises(ImageError, match=r'cannot be written \(No space left on device\)'):
        write_atomically(b'new', path, overwrite=True)

    def interrupted(number):
        raise KeyboardInterrupt
    monkeypatch.setattr('os.fsync', interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(b'new', path, overwrite=True)
    assert path.read_bytes() == b'old' and os.listdir(path.parent) == ['x.png']


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_jpeg_files_are_written_with_full_colour_and_the_quality_asked_for():
    data = encode(Photo(picture()), 'jpg', 83)
    with Image.open(io.BytesIO(data)) as image:
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}  # sampling factors: 4:4:4
    assert read_quality(data) == 83


def read_quality(data: bytes) -> int:
    from ibmd_basicsr.restoring.jpeg_quality import estimate_quality
    with Image.open(io.BytesIO(data)) as image:
        return estimate_quality(image.quantization).value
