"""A photograph of 24 megapixels, as cameras make them, by the command in a process of its own: size, way up, colours and memory."""
import logging
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image, ImageCms
from tiny import REPOSITORY

SIDE, OTHER = 6000, 4000
ORIENTATION = 6
"""Of EXIF: the camera was held upright, the file lies on its side; to see it, turn it by 90 degrees clockwise."""
LIMIT = 2 * 2**30
TWO_CORES = 'import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2]); '
MEASURED = (TWO_CORES + 'from ibmd_basicsr.benchmarks.memory import peak_rss; from ibmd_basicsr.cli.restore import main; code = main(); '
            'print("peak", peak_rss()); raise SystemExit(code)')


@pytest.mark.slow
def test_24_megapixels_on_two_cores_in_two_gibibytes(tmp_path):
    with Image.open(REPOSITORY / 'datasets/photos/test/astronaut_a.png') as source:
        upright = source.convert('RGB').resize((OTHER, SIDE), Image.Resampling.BICUBIC)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = ORIENTATION, 'Camera of 24 megapixels'
    photo, result = tmp_path / 'photo.jpg', tmp_path / 'restored.png'
    upright.transpose(Image.Transpose.ROTATE_90).save(photo, quality=10, icc_profile=icc, exif=exif)

    start = time.monotonic()
    run = subprocess.run([sys.executable, '-c', MEASURED, str(photo), '-o', str(result)], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    assert run.returncode == 0, run.stderr
    peak = int(run.stdout.rpartition('peak ')[2])
    logging.getLogger(__name__).info('%.0f megapixels: %.0f s, %.0f MiB', SIDE * OTHER / 1e6, seconds, peak / 2**20)
    with Image.open(result) as restored:
        assert restored.size == (OTHER, SIDE)
        assert restored.info['icc_profile'] == icc
        assert restored.getexif().get(0x0112, 1) == 1
        assert restored.getexif()[0x0110] == 'Camera of 24 megapixels'
        small = restored.reduce(20)
    turned = [upright.reduce(20), *(upright.transpose(turn).resize(upright.size).reduce(20) for turn in Image.Transpose)]
    differences = [np.abs(np.asarray(small, dtype=float) - np.asarray(other, dtype=float)).mean() for other in turned]
    assert differences[0] < 5 < 20 < min(differences[1:])
    assert peak < LIMIT
