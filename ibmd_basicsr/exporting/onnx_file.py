"""A one-step student as an ONNX graph: from the corrupted image and z to the restored image, of any size and batch.

torch has two exporters. The one that traces (TorchScript, ``dynamo=False``) is used: it is in all versions from 2.1 to 2.14, and exports
the nano student in seconds where ``dynamo=True`` takes minutes for the same results (docs/exporting.md).
"""
from __future__ import annotations

import inspect
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ibmd_basicsr.exporting.student import Student
from ibmd_basicsr.restorer import Restorer
from ibmd_basicsr.utils.endpoints import lq_to_x_T, x_0_to_image
from ibmd_basicsr.utils.errors import OptionError, SaveError
from ibmd_basicsr.utils.files import replace_file

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference of a pixel in [0, 1] between the graph and torch: a fortieth of a grey level."""
SIZES = ((1, 16, 24), (2, 13, 17))
"""Batch, height and width that are compared: whole multiples, and sizes that must be padded."""
LARGEST = 2_000_000_000
"""Bytes of a protobuf file."""


class OneStepGraph(nn.Module):
    """What :class:`~ibmd_basicsr.restorer.Restorer` does in one call, with the noise as an input and the time as a constant.

    Args:
        student: one that is called once, without mask and labels.

    Raises:
        OptionError: another kind of restorer.
    """

    def __init__(self, student: Student):
        super().__init__()
        restorer = student.restorer
        net, bridge = restorer.net, restorer.bridge
        if not restorer.sampler.of_student or restorer.calls != 1:
            raise OptionError(f'ONNX: a student of one step can be exported; val.sampler asks for {restorer.calls} call(s) of type '
                              f'{restorer.sampler.type}. A student of several steps also runs in one: --steps 1.')
        if student.masked:
            raise OptionError('ONNX: students of inpainting are not exported, their graph would need the mask.')
        if net.num_classes is not None:
            raise OptionError('ONNX: class-conditional students are not exported.')
        self.net = net
        self.scale, self.multiple = restorer.scale, restorer.size_multiple
        self.conditional = bridge.conditional
        at_end = bridge.precond.scalings(torch.ones(1, dtype=torch.float64))
        self.c_skip, self.c_out, self.c_in = float(at_end.c_skip), float(at_end.c_out), float(at_end.c_in)
        # one time for the whole batch: its embedding is broadcast, and the graph holds no batch size
        self.register_buffer('c_noise', at_end.c_noise.float())

    def forward(self, lq: Tensor, z: Tensor | None = None) -> Tensor:
        """Restore.

        Args:
            lq: (B, C, h, w) RGB in [0, 1].
            z: (B, Cz, H, W) standard normal, H and W being ``scale h`` and ``scale w`` rounded up to the student's ``size_multiple``;
                left out where the network takes none.

        Returns:
            (B, C, scale h, scale w) in [0, 1].
        """
        height, width = lq.shape[-2] * self.scale, lq.shape[-1] * self.scale
        # as utils.endpoints.pad_to_multiple, which asks whether there is anything to pad: a graph cannot
        padded = F.pad(lq, (0, -lq.shape[-1] % self.multiple, 0, -lq.shape[-2] % self.multiple), mode='replicate')
        x_T = lq_to_x_T(padded, self.scale)
        F_x = self.net(self.c_in * x_T, self.c_noise, cond=x_T if self.conditional else None, z=z)
        return x_0_to_image((self.c_skip * x_T + self.c_out * F_x)[..., :height, :width])


def export_onnx(student: Student) -> bytes:
    """Return the graph with :attr:`Student.about` as its metadata.

    Inputs ``lq`` and, for students with noise, ``z``; output ``image``, as in :meth:`OneStepGraph.forward`.

    Raises:
        OptionError: not a student of one step, or too large for one file.
    """
    graph = OneStepGraph(student).eval().requires_grad_(False)
    if sum(4 * value.numel() for value in graph.state_dict().values()) > LARGEST:
        raise OptionError(f'ONNX: {student.restorer.parameters:,} parameters in float32 do not fit into one ONNX file (2 GB).')
    names = ['lq', 'z'] if student.restorer.net.noise_channels else ['lq']
    axes = {'lq': {0: 'batch', 2: 'height', 3: 'width'}, 'z': {0: 'batch', 2: 'z_height', 3: 'z_width'},
            'image': {0: 'batch', 2: 'image_height', 3: 'image_width'}}
    # torch before 2.5 has the one exporter alone
    choice = {'dynamo': False} if 'dynamo' in inspect.signature(torch.onnx.export).parameters else {}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the checks in ADMUNet.forward, whose outcome the trace takes for granted
        file = f'{folder}/graph.onnx'
        torch.onnx.export(graph, tuple(_inputs(student.restorer, *SIZES[1]).values()), file, input_names=names, output_names=['image'],
                          dynamic_axes={name: axes[name] for name in (*names, 'image')}, opset_version=OPSET, **choice)
        model = onnx.load(file)
    onnx.helper.set_model_props(model, {**student.about, 'opset': str(OPSET)})
    model.doc_string = (f'{student.about["task"]}. lq: RGB in [0, 1]; z: standard normal, its height and width those of the image, rounded '
                        f'up to multiples of {student.about["size_multiple"]}; image: RGB in [0, 1].')
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _inputs(restorer: Restorer, batch: int, height: int, width: int) -> dict[str, Tensor]:
    """Return random inputs of the graph."""
    generator = torch.Generator().manual_seed(0)
    multiple, scale, channels = restorer.size_multiple, restorer.scale, restorer.net.noise_channels
    inputs = {'lq': torch.rand(batch, restorer.net.in_channels, height, width, generator=generator)}
    if channels:
        size = ((side + -side % multiple) * scale for side in (height, width))
        inputs['z'] = torch.randn(batch, channels, *size, generator=generator)
    return inputs


class _Given:
    """Noise that was drawn already, in the place of :class:`~ibmd_basicsr.utils.seeding.PerImageNoise`."""

    def __init__(self, z: Tensor | None):
        self.z = z

    def randn_like(self, x: Tensor) -> Tensor:
        assert self.z is not None and x.shape == self.z.shape
        return self.z


def compare_with_torch(content: bytes, restorer: Restorer) -> dict[tuple[int, int, int], float]:
    """Run the graph in onnxruntime and return the largest difference to the restorer for each of :data:`SIZES`."""
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    found = {}
    for size in SIZES:
        inputs = _inputs(restorer, *size)
        expected = restorer(inputs['lq'], _Given(inputs.get('z'))).numpy()
        image, = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        found[size] = float(np.abs(image - expected).max()) if image.shape == expected.shape else float('inf')
    return found


def save_onnx(student: Student, path: Path) -> dict[tuple[int, int, int], float]:
    """Export, compare, and write the file if it computes what torch computes.

    Returns:
        the largest differences, see :func:`compare_with_torch`.

    Raises:
        OptionError: as :func:`export_onnx`.
        SaveError: a difference above :data:`TOLERANCE`, or the file cannot be written; nothing is written then.
    """
    content = export_onnx(student)
    differences = compare_with_torch(content, student.restorer)
    worst = max(differences.values())
    if not worst <= TOLERANCE:
        raise SaveError(f'{path}: not written, the graph differs from torch by {worst:.3g} (at most {TOLERANCE:g} is accepted).')
    replace_file(path, lambda file: file.write(content))
    return differences
