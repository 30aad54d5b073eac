"""The script that renders pairs of normals and pictures: deterministic, geometrically right, and readable by BasicSR."""

import cv2
import numpy as np
import pytest
from basicsr.data import build_dataset
from tiny import REPOSITORY, load_script

SHIPPED = REPOSITORY / 'datasets' / 'normals'


@pytest.fixture(scope='module')
def script():
    """The script as a module."""
    return load_script('render_normals')


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Two photographs of noise, so that the test does not decode the shipped ones."""
    folder = tmp_path_factory.mktemp('photos')
    for i in range(2):
        picture = np.random.default_rng(i).integers(0, 256, (90, 120, 3), np.uint8)
        cv2.imwrite(str(folder / f'{i}.jpg'), picture)
    return folder


@pytest.fixture(scope='module')
def scenes(script, photos):
    photographs = script.read_photographs(photos)
    return [script.make_scene(photographs, np.random.default_rng(seed)) for seed in range(6)]


def run(script, photos, out, *arguments) -> dict[str, bytes]:
    assert script.main(['--photos', str(photos), '--out', str(out), '--size', '24', *arguments]) == 0
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob('*.png'))}


def test_script_is_deterministic_and_seeds_and_splits_differ(script, photos, tmp_path):
    first = run(script, photos, tmp_path / 'a', '--train', '2', '--test', '1', '--tune', '0')
    assert list(first) == [f'{split}/{kind}/{number}.png' for split, numbers in (('test', ['000']), ('train', ['000', '001']))
                           for kind in ('normal', 'picture') for number in numbers]
    assert run(script, photos, tmp_path / 'b', '--train', '2', '--test', '1', '--tune', '0') == first
    # a scene does not depend on how many there are
    assert run(script, photos, tmp_path / 'c', '--train', '1', '--test', '0', '--tune', '0').items() <= first.items()
    other = run(script, photos, tmp_path / 'd', '--train', '1', '--test', '0', '--tune', '0', '--seed', '1')
    assert len({other['train/normal/000.png'], first['train/normal/000.png'], first['train/normal/001.png'],
                first['test/normal/000.png']}) == 4


def test_normals_have_unit_length_and_face_the_viewer(script, scenes):
    for scene in scenes:
        picture, normals = script.render(scene, 32)
        assert picture.shape == normals.shape == (32, 32, 3) and picture.dtype == np.uint8
        np.testing.assert_allclose(np.linalg.norm(normals, axis=2), 1, atol=1e-9)
        rays = script.camera_rays(scene, 32).reshape(32, 32, 3) @ scene.axes.T
        assert ((normals * rays).sum(axis=2) < 0.35).all()  # pixels on an edge mix two surfaces
        assert ((normals * rays).sum(axis=2) < 0).mean() > 0.95
        stored = script.encode(normals) / 255 * 2 - 1
        np.testing.assert_allclose(stored, normals, atol=1 / 255 + 1e-9)
        assert picture.std() > 10


def test_normals_of_floor_and_walls_agree_with_the_camera(script, scenes):
    for scene in scenes:
        np.testing.assert_allclose(scene.axes @ scene.axes.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(scene.axes) == pytest.approx(1)
        scene.things = []
        rays = script.camera_rays(scene, 48)
        _, points = script.first_hits(scene, rays)
        normals, _ = scene.room.shade(points)
        floor = np.abs(points[:, 1]) < 1e-9
        assert floor.sum() > 100
        np.testing.assert_allclose(normals[floor], np.tile([0.0, 1, 0], (floor.sum(), 1)))
        _, rendered = script.render(scene, 24)
        corners = floor.reshape(24, 2, 24, 2).all(axis=(1, 3))  # pixels all of whose samples are floor
        up = scene.axes @ [0, 1, 0]
        np.testing.assert_allclose(rendered[corners], np.tile(up, (corners.sum(), 1)), atol=1e-9)
        assert corners[-1].any() and not corners[0].any() and up[1] > 0.7  # below in the picture, green in colour
        left = np.isclose(points[:, 0], -scene.room.half[0])
        np.testing.assert_allclose(normals[left], np.tile([1.0, 0, 0], (left.sum(), 1)))


@pytest.mark.parametrize('angle', [0.0, 0.6])
def test_box_and_sphere_are_hit_where_they_are(script, angle):
    material = script.Material(script.plain(np.ones(3)))
    box = script.Box(np.array([0.0, 0, -5]), np.array([1.0, 1, 1]), [material], angle)
    sphere = script.Sphere(np.array([0.0, 0, -5]), 1.5, material)
    ahead, aside = np.array([[0.0, 0, -1]]), np.array([[1.0, 0, 0]])
    assert box.hit(np.zeros(3), ahead)[0] == pytest.approx(5 - 1 / np.cos(angle))
    assert sphere.hit(np.zeros(3), ahead)[0] == pytest.approx(3.5)
    for shape in (box, sphere):
        assert np.isinf(shape.hit(np.zeros(3), aside)[0]) and np.isinf(shape.hit(np.zeros(3), -ahead)[0])
    normal, _ = sphere.shade(np.array([[0.0, 0, -3.5]]))
    np.testing.assert_allclose(normal, [[0, 0, 1]], atol=1e-12)
    normal, _ = box.shade(np.array([[0.0, 0, -5 + 1 / np.cos(angle)]]))
    np.testing.assert_allclose(normal, [[np.sin(angle), 0, np.cos(angle)]], atol=1e-12)


def test_things_cast_shadows(script, scenes):
    scene = scenes[0]
    scene.light_radius, scene.ambient = 0.0, 0.3
    scene.things = []
    floor = scene.light * [1, 0, 1]  # right below the light
    lit, _ = script._direct_light(scene, floor[None], np.array([[0.0, 1, 0]]), np.array([[0.0, 1, 0]]), np.ones(1))
    scene.things = [script.Sphere(floor + [0, 0.5, 0], 0.2, script.Material(script.plain(np.ones(3))))]
    dark, _ = script._direct_light(scene, floor[None], np.array([[0.0, 1, 0]]), np.array([[0.0, 1, 0]]), np.ones(1))
    assert lit[0] > 0.1 and dark[0] == 0


def test_pictures_on_faces_are_not_mirrored(script):
    """A texture that is red on the left and green below, on each upright face of a box and on a wall."""
    texture = np.zeros((8, 8, 3))
    texture[:, :4, 0] = texture[4:, :, 1] = 1
    material = script.Material(script.textured(texture), fit=True)
    for inside in (False, True):
        box = script.Box(np.zeros(3), np.ones(3), [material], inside=inside)
        for normal in ([1, 0, 0], [-1, 0, 0], [0, 0, 1], [0, 0, -1]):
            normal = np.array(normal, float)
            right = np.cross([0, 1.0, 0], normal)  # of one who looks at the face
            points = (-normal if inside else normal) + np.array([-0.5 * right, 0.5 * right]) - [0, 0.5, 0]
            found, parts = box.shade(points)
            np.testing.assert_allclose(found, [normal, normal])
            (_, used, uv), = parts
            np.testing.assert_allclose(used.albedo(uv), [[1, 1, 0], [0, 1, 0]])


def test_folder_without_photographs_is_named(script, tmp_path, capsys):
    assert script.main(['--photos', str(tmp_path), '--out', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err == f'error: {tmp_path}: holds no photograph (.jpg).\n'
    assert not (tmp_path / 'out').exists()


def test_help_shows_an_example(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(['--help'])
    assert stop.value.code == 0
    assert 'python scripts/render_normals.py --out datasets/normals --train 96 --test 24 --tune 12 --seed 0' in capsys.readouterr().out


# ---- the pairs of the repository

@pytest.mark.parametrize('split, count', [('train', 96), ('test', 24), ('tune', 12)])
def test_basicsr_reads_the_shipped_pairs(split, count):
    pairs = build_dataset({'name': 'normals', 'type': 'PairedImageDataset', 'phase': 'val', 'scale': 1, 'io_backend': {'type': 'disk'},
                           'dataroot_lq': str(SHIPPED / split / 'normal'), 'dataroot_gt': str(SHIPPED / split / 'picture')})
    assert len(pairs) == count
    sample = pairs[0]
    assert sample['lq'].shape == sample['gt'].shape == (3, 128, 128)
    assert sample['lq_path'].rsplit('/', 1)[1] == sample['gt_path'].rsplit('/', 1)[1]
    length = (sample['lq'] * 2 - 1).norm(dim=0)
    assert (length - 1).abs().max() < 0.01
