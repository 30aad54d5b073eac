"""Restore an image with an exported student: python onnx_restore.py STUDENT.onnx INPUT OUTPUT [SEED]"""
import sys

import numpy as np
import onnxruntime
from PIL import Image

if len(sys.argv) < 4:
    sys.exit(__doc__)
model, source, target, seed = [*sys.argv[1:], '0'][:4]
try:
    with open(model, 'rb') as file, Image.open(source) as photo:
        session = onnxruntime.InferenceSession(file.read(), providers=['CPUExecutionProvider'])
        lq = np.asarray(photo.convert('RGB'), np.float32).transpose(2, 0, 1)[None] / 255
except OSError as error:  # one of the two is not there, or the input is no picture
    sys.exit(f'error: {error}')
about = session.get_modelmeta().custom_metadata_map
inputs = {'lq': lq}
if int(about['noise_channels']):  # another seed, another restoration
    scale, multiple = int(about['scale']), int(about['size_multiple'])
    height, width = (-(-side * scale // multiple) * multiple for side in lq.shape[2:])  # rounded up
    shape = (1, int(about['noise_channels']), height, width)
    inputs['z'] = np.random.default_rng(int(seed)).standard_normal(shape, np.float32)
image = session.run(['image'], inputs)[0][0]
Image.fromarray((image.transpose(1, 2, 0) * 255).round().astype(np.uint8)).save(target)
