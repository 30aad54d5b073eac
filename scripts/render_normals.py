"""Render pairs of surface normals and pictures of made-up rooms: a small ray caster in NumPy, no model or download needed.

    python scripts/render_normals.py --out datasets/normals --train 96 --test 24 --tune 12 --seed 0

writes OUT/train, OUT/test and OUT/tune (to choose settings on), each with the folders `normal` and `picture`, which hold the same names,
as BasicSR's PairedImageDataset wants them. A room is a box seen from inside, with boxes, tables, spheres, pictures, doors and rugs; colours
are drawn or are crops of the photographs of --photos. Shading: a ball of light with soft shadows, ambient light, Lambert and a little
Blinn-Phong.

Axes are x right, y up, z towards the viewer, in the world and in the camera. Normals are written in camera space, (n + 1) / 2 in RGB: a
floor seen level is green, a wall seen from the front blue. Deterministic: each scene depends on the seed, its folder and its number alone.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from tqdm import tqdm

from ibmd_basicsr.cli.errors import report_errors

GAMMA = 2.2
SUPERSAMPLING = 2
LIGHT_SAMPLES = 8
NEAR = 1e-4  # metres; keeps a surface from shading itself


# ---- what surfaces look like

@dataclass
class Material:
    """Looks of a surface.

    ``albedo`` maps texture coordinates (N, 2) in metres or, with ``fit``, in 0..1 over the whole face, to linear RGB (N, 3) in 0..1.
    """

    albedo: Callable[[ndarray], ndarray]
    specular: float = 0.0
    shininess: float = 20.0
    fit: bool = False


def plain(colour: ndarray) -> Callable[[ndarray], ndarray]:
    """Return the albedo of one colour (3,)."""
    return lambda uv: np.broadcast_to(colour, (len(uv), 3))


def checked(first: ndarray, second: ndarray, tile: tuple[float, float]) -> Callable[[ndarray], ndarray]:
    """Return the albedo of tiles or planks of ``tile`` metres in two colours."""
    def albedo(uv: ndarray) -> ndarray:
        odd = np.floor(uv / tile).sum(axis=1) % 2 > 0
        return np.where(odd[:, None], first, second)

    return albedo


def textured(texture: ndarray, tile: float = 1.0) -> Callable[[ndarray], ndarray]:
    """Return the albedo of a picture (H, W, 3), linear RGB, ``tile`` metres wide and mirrored at its borders, bilinear."""
    height, width = texture.shape[:2]

    def albedo(uv: ndarray) -> ndarray:
        u, v = (1 - np.abs(uv / tile % 2 - 1)).T
        x, y = u * (width - 1), (1 - v) * (height - 1)
        left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
        fx, fy = (x - left)[:, None], (y - top)[:, None]
        return ((texture[top, left] * (1 - fx) + texture[top, left + 1] * fx) * (1 - fy)
                + (texture[top + 1, left] * (1 - fx) + texture[top + 1, left + 1] * fx) * fy)

    return albedo


# ---- shapes

@dataclass
class Sphere:
    """A sphere of a ``radius`` around ``centre`` (3,)."""

    centre: ndarray
    radius: float
    material: Material

    def hit(self, origins: ndarray, directions: ndarray) -> ndarray:
        """Return the distance (N,) along unit ``directions`` (N, 3) from ``origins`` (N, 3) or (3,); infinite where there is no hit."""
        offset = origins - self.centre
        half_b = (offset * directions).sum(axis=-1)
        discriminant = half_b**2 - (offset**2).sum(axis=-1) + self.radius**2
        distance = -half_b - np.sqrt(np.maximum(discriminant, 0))
        return np.where((discriminant > 0) & (distance > NEAR), distance, np.inf)

    def shade(self, points: ndarray) -> tuple[ndarray, list[tuple[ndarray, Material, ndarray]]]:
        """Return the normals (N, 3) at ``points`` (N, 3) and the parts of the surface: (which points, material, uv)."""
        normals = (points - self.centre) / self.radius
        uv = np.stack([np.arctan2(normals[:, 0], normals[:, 2]) / np.pi, np.arcsin(normals[:, 1].clip(-1, 1)) / np.pi + 0.5], axis=1)
        return normals, [(np.ones(len(points), bool), self.material, uv)]


@dataclass
class Box:
    """A box around ``centre`` (3,) with half sides ``half`` (3,), turned by ``angle`` about the vertical axis.

    Args:
        materials: one for all faces, or six: -x, +x, -y, +y, -z, +z.
        inside: seen from inside, as a room is.
    """

    centre: ndarray
    half: ndarray
    materials: list[Material]
    angle: float = 0.0
    inside: bool = False
    turn: ndarray = field(init=False)

    def __post_init__(self):
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        self.turn = np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])  # world to box

    def hit(self, origins: ndarray, directions: ndarray) -> ndarray:
        """Return the distance (N,) along unit ``directions`` (N, 3) from ``origins`` (N, 3) or (3,); infinite where there is no hit."""
        origins, directions = (origins - self.centre) @ self.turn.T, directions @ self.turn.T
        directions = np.where(np.abs(directions) < 1e-12, 1e-12, directions)
        one, two = (-self.half - origins) / directions, (self.half - origins) / directions
        enter, leave = np.minimum(one, two).max(axis=-1), np.maximum(one, two).min(axis=-1)
        distance = leave if self.inside else enter
        return np.where((enter < leave) & (distance > NEAR), distance, np.inf)

    def shade(self, points: ndarray) -> tuple[ndarray, list[tuple[ndarray, Material, ndarray]]]:
        """Return the normals (N, 3) at ``points`` (N, 3) and the parts of the surface: (which points, material, uv)."""
        local = (points - self.centre) @ self.turn.T
        axis = np.abs(np.abs(local) - self.half).argmin(axis=1)
        side = np.take_along_axis(local, axis[:, None], 1)[:, 0] > 0
        normals = np.zeros_like(local)
        normals[np.arange(len(local)), axis] = np.where(side != self.inside, 1.0, -1.0)
        parts = []
        for face in range(6):
            chosen = (axis == face // 2) & (side == face % 2)
            if not chosen.any():
                continue
            u, v = ((2, 1), (0, 2), (0, 1))[face // 2]
            material = self.materials[face if len(self.materials) > 1 else 0]
            uv = local[chosen][:, [u, v]] + self.half[[u, v]]
            # as seen by who looks at the face: u runs to the right
            if face in ((0, 5) if self.inside else (1, 4)):
                uv[:, 0] = 2 * self.half[u] - uv[:, 0]
            parts.append((chosen, material, uv / (2 * self.half[[u, v]]) if material.fit else uv))
        return normals @ self.turn, parts


@dataclass
class Scene:
    """A room, what stands in it, the light and the camera.

    Args:
        room: the box that everything is in.
        things: what casts shadows.
        light: place (3,) of the light.
        light_radius: of the ball of light, in metres; 0 gives hard shadows.
        light_colour: (3,) linear RGB.
        ambient: strength of the light from everywhere.
        eye: place (3,) of the camera.
        axes: rows are the camera's right, up and backward axes in the world (3, 3).
        focal: half the picture's width is 1 at this distance.
    """

    room: Box
    things: list[Box | Sphere]
    light: ndarray
    light_radius: float
    light_colour: ndarray
    ambient: float
    eye: ndarray
    axes: ndarray
    focal: float


# ---- a random room

class Palette:
    """Draws materials from a generator and a list of photographs (H, W, 3), RGB, uint8."""

    def __init__(self, photographs: list[ndarray], rng: np.random.Generator):
        self.photographs = photographs
        self.rng = rng

    def colour(self, saturation: float = 0.5, lightest: float = 0.9, darkest: float = 0.25) -> ndarray:
        """Return a linear RGB colour (3,)."""
        hsv = np.array([self.rng.uniform(0, 360), saturation * self.rng.random(), self.rng.uniform(darkest, lightest)], np.float32)
        return cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0].astype(float) ** GAMMA

    def crop(self, side: int, aspect: float = 1.0, share: tuple[float, float] = (0.4, 1)) -> ndarray:
        """Return a crop of a photograph with an ``aspect`` (width / height), ``side`` pixels high, linear RGB in 0..1.

        ``share`` bounds its part of the largest crop of that aspect.
        """
        photograph = self.photographs[self.rng.integers(len(self.photographs))]
        limit = min(photograph.shape[0], photograph.shape[1] / aspect)
        height = int(limit * self.rng.uniform(*share))
        width = max(2, int(height * aspect))
        top, left = (int(self.rng.integers(max(1, all_ - part))) for all_, part in zip(photograph.shape, (height, width)))
        small = cv2.resize(photograph[top:top + height, left:left + width], (max(2, round(side * aspect)), side),
                           interpolation=cv2.INTER_AREA)
        return (small / 255.0) ** GAMMA

    def photo(self, aspect: float) -> Material:
        """Return a photograph that fits a face."""
        return Material(textured(self.crop(72, aspect)), fit=True)

    def weave(self, tile: float) -> Material:
        """Return a large surface made of a crop, mirrored again and again, in its own or a drawn colour."""
        # small crops: a surface should show a pattern, not a landscape
        texture = self.crop(64, share=(0.15, 0.35))
        if self.rng.random() < 0.8:
            grey = texture.mean(axis=2, keepdims=True)
            texture = (grey / grey.mean()) ** 0.6 * self.colour(darkest=0.4)
        return Material(textured(texture.clip(0, 1), tile), specular=self.rng.uniform(0, 0.05))

    def floor(self) -> Material:
        """Return planks, tiles, a weave or one colour."""
        kind = self.rng.random()
        if kind < 0.4:
            wood = np.array([0.45, 0.26, 0.13]) * self.rng.uniform(0.5, 1.3)
            first, second = (np.clip(wood * self.rng.uniform(0.85, 1.15), 0, 1) for _ in range(2))
            return Material(checked(first, second, (0.18, 1.6)), self.rng.uniform(0.05, 0.3), 40)
        if kind < 0.6:
            tile = self.rng.uniform(0.3, 0.6)
            return Material(checked(self.colour(0.3), self.colour(0.3), (tile, tile)), self.rng.uniform(0.1, 0.35), 60)
        return self.weave(self.rng.uniform(1.5, 3)) if kind < 0.85 else Material(plain(self.colour(0.4)), 0.05)

    def wall(self) -> Material:
        """Return paint or, at times, a weave."""
        return self.weave(self.rng.uniform(1.5, 3)) if self.rng.random() < 0.2 else Material(plain(self.colour(0.35, 0.95, 0.6)))

    def thing(self, aspect: float = 1.0) -> Material:
        """Return the material of an object: a colour or a photograph."""
        if self.rng.random() < 0.3:
            return self.photo(aspect)
        return Material(plain(self.colour(0.85)), self.rng.uniform(0, 0.5), self.rng.uniform(10, 80))


def make_scene(photographs: list[ndarray], rng: np.random.Generator) -> Scene:
    """Return a random room.

    Args:
        photographs: (H, W, 3), RGB, uint8; crops of them become textures.
        rng: source of all choices.
    """
    palette = Palette(photographs, rng)
    half = np.array([rng.uniform(1.7, 3), rng.uniform(1.2, 1.5), rng.uniform(1.9, 3.2)])
    first, second = palette.wall(), palette.wall()
    walls = [first] * 4 if rng.random() < 0.5 else [first, first, second, second]
    ceiling = Material(plain(palette.colour(0.1, 0.98, 0.8)))
    room = Box(np.array([0, half[1], 0]), half, [*walls[:2], palette.floor(), ceiling, *walls[2:]], inside=True)

    # the camera stands near the +z end and looks at the other half
    eye = np.array([rng.uniform(-0.7, 0.7) * half[0], rng.uniform(1.0, 1.8), half[2] * rng.uniform(0.75, 0.95)])
    target = np.array([rng.uniform(-0.5, 0.5) * half[0], rng.uniform(0.4, 1.2), rng.uniform(-0.8, -0.2) * half[2]])
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 1.0, 0.0], back)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), back])

    light = np.array([rng.uniform(-0.8, 0.8) * half[0], half[1] * rng.uniform(1.5, 1.9), rng.uniform(-0.6, 0.7) * half[2]])
    light_colour = np.array([1, 1, 1]) + rng.uniform(-1, 1) * np.array([0.12, 0, -0.18])
    return Scene(room, [*_fittings(palette, half), *_furniture(palette, half, eye)], light, rng.choice([0.0, 0.1, 0.2]), light_colour,
                 rng.uniform(0.25, 0.5), eye, axes, 1 / np.tan(np.radians(rng.uniform(56, 76)) / 2))


def _fittings(palette: Palette, half: ndarray) -> list[Box]:
    """Return skirting boards, pictures, doors and rugs of a room with half sides ``half``."""
    rng, fittings = palette.rng, []
    # each wall: axis across it, side, turn of what hangs there
    walls = [(2, -1), (0, -1), (0, 1)]
    if rng.random() < 0.6:
        board = Material(plain(palette.colour(0.2, 0.95, 0.3)))
        for axis, side in walls:
            centre, size = np.array([0, 0.05, 0]), np.array([half[0], 0.05, half[2]])
            centre[axis], size[axis] = side * half[axis], 0.015
            fittings.append(Box(centre.astype(float), size, [board]))
    for axis, side in walls:
        along = 2 - axis
        if rng.random() < 0.25:
            centre, size = np.array([0, 1.0, 0]), np.array([0.45, 1.0, 0.45])
            material = Material(plain(palette.colour(0.4, 0.95, 0.3)), 0.1)
        elif rng.random() < 0.7:
            high = rng.uniform(0.25, 0.5)
            wide = high * rng.uniform(0.8, 1.6)
            centre, size = np.array([0, rng.uniform(1.4, 1.6), 0]), np.array([wide, high, wide])
            material = palette.photo(wide / high)
        else:
            continue
        centre[along] = rng.uniform(-0.7, 0.7) * (half[along] - size[along])
        centre[axis], size[axis] = side * half[axis], 0.03
        fittings.append(Box(centre, size, [material]))
    if rng.random() < 0.4:
        size = np.array([rng.uniform(0.6, 0.6 * half[0]), 0.01, rng.uniform(0.5, 0.5 * half[2])])
        fittings.append(Box(np.array([0, 0.01, rng.uniform(-0.4, 0.2) * half[2]]), size, [palette.thing(size[0] / size[2])],
                            rng.uniform(-0.4, 0.4)))
    return fittings


def _furniture(palette: Palette, half: ndarray, eye: ndarray) -> list[Box | Sphere]:
    """Return boxes, tables and spheres on the floor, apart from each other and from the camera, some with a sphere or box on top."""
    rng, things = palette.rng, []
    taken = [(eye[[0, 2]], 1.1)]
    for _ in range(int(rng.integers(3, 8))):
        kind = rng.choice(['box', 'box', 'table', 'sphere'])
        size = {'box': lambda: rng.uniform([0.15, 0.15, 0.15], [0.45, 0.6, 0.4]), 'sphere': lambda: np.full(3, rng.uniform(0.15, 0.4)),
                'table': lambda: rng.uniform([0.35, 0.3, 0.3], [0.7, 0.42, 0.45])}[kind]()
        reach = np.hypot(size[0], size[2]) if kind != 'sphere' else size[0]
        for _ in range(20):
            place = rng.uniform(-1, 1, 2) * (half[[0, 2]] - reach)
            if all(np.linalg.norm(place - other) > reach + around for other, around in taken):
                break
        else:
            continue  # the room is full
        taken.append((place, reach))
        centre, angle = np.array([place[0], size[1], place[1]]), rng.uniform(-0.8, 0.8)
        if kind == 'sphere':
            things.append(Sphere(centre, size[0], palette.thing()))
            continue
        if kind == 'table':
            things += _table(palette, centre, size, angle)
        else:
            things.append(Box(centre, size, [palette.thing(size[0] / size[1])], angle))
        if rng.random() < 0.5:
            radius = rng.uniform(0.4, 0.9) * min(0.25, size[0], size[2])
            top = np.array([place[0], 2 * size[1] + radius, place[1]])
            things.append(Sphere(top, radius, palette.thing()) if rng.random() < 0.6 else
                          Box(top, np.full(3, radius), [palette.thing()], rng.uniform(-0.8, 0.8)))
    return things


def _table(palette: Palette, centre: ndarray, size: ndarray, angle: float) -> list[Box]:
    """Return a top and four legs."""
    material = Material(plain(palette.colour(0.6)), palette.rng.uniform(0, 0.3))
    turn = Box(centre, size, [material], angle).turn
    boxes = [Box(centre + [0, size[1] - 0.025, 0], np.array([size[0], 0.025, size[2]]), [material], angle)]
    for x in (-1, 1):
        for z in (-1, 1):
            foot = np.array([x * (size[0] - 0.05), -0.025, z * (size[2] - 0.05)])
            boxes.append(Box(centre + foot @ turn, np.array([0.03, size[1] - 0.025, 0.03]), [material], angle))
    return boxes


# ---- rendering

def camera_rays(scene: Scene, size: int) -> ndarray:
    """Return unit directions (size * size, 3) through the middles of the pixels, row by row from the upper left."""
    middle = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(middle, -middle)
    rays = np.stack([x, y, np.full_like(x, -scene.focal)], axis=-1).reshape(-1, 3)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True) @ scene.axes


def first_hits(scene: Scene, directions: ndarray) -> tuple[ndarray, ndarray]:
    """Return what each ray from the camera meets first, an index into [room, *things] (N,), and the points (N, 3)."""
    distances = np.stack([shape.hit(scene.eye, directions) for shape in (scene.room, *scene.things)])
    nearest = distances.argmin(axis=0)
    return nearest, scene.eye + directions * np.take_along_axis(distances, nearest[None], 0)[0][:, None]


def render(scene: Scene, size: int) -> tuple[ndarray, ndarray]:
    """Render a scene.

    Args:
        scene: what to render.
        size: side of the picture in pixels.

    Returns:
        The picture (size, size, 3), RGB, uint8, and the normals in camera space (size, size, 3), float, of length 1.
    """
    fine = size * SUPERSAMPLING
    directions = camera_rays(scene, fine)
    nearest, points = first_hits(scene, directions)
    normals, albedo = np.empty_like(points), np.empty_like(points)
    gloss = np.empty((len(points), 2))
    for i, shape in enumerate((scene.room, *scene.things)):
        mine = np.flatnonzero(nearest == i)
        if not len(mine):
            continue
        normals[mine], parts = shape.shade(points[mine])
        for chosen, material, uv in parts:
            albedo[mine[chosen]] = material.albedo(uv)
            gloss[mine[chosen]] = material.specular, material.shininess

    diffuse, highlight = _direct_light(scene, points, normals, -directions, gloss[:, 1])
    ambient = scene.ambient * (0.8 + 0.2 * normals[:, 1]) * _openness(scene.room, points, normals)
    light = (albedo * (diffuse + ambient)[:, None] + (gloss[:, 0] * highlight)[:, None]) * scene.light_colour
    picture = _average(light.reshape(fine, fine, 3))
    picture = np.clip(picture * 0.85 / np.quantile(picture.max(axis=2), 0.95), 0, 1) ** (1 / GAMMA)
    mean = _average((normals @ scene.axes.T).reshape(fine, fine, 3))
    return (picture * 255).round().astype(np.uint8), mean / np.linalg.norm(mean, axis=2, keepdims=True)


def _average(values: ndarray) -> ndarray:
    """Return the means over the samples of each pixel."""
    size = len(values) // SUPERSAMPLING
    return values.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, -1).mean(axis=(1, 3))


def _direct_light(scene: Scene, points: ndarray, normals: ndarray, views: ndarray, shininess: ndarray) -> tuple[ndarray, ndarray]:
    """Return the light that arrives from the lamp (N,) and the highlight (N,); the room is convex and casts no shadow."""
    # a fixed spiral of points on the ball: a random one would need many more samples to hide its noise
    samples = LIGHT_SAMPLES if scene.light_radius else 1
    height = (np.arange(samples) + 0.5) / samples * 2 - 1
    around = np.arange(samples) * np.pi * (3 - 5**0.5)
    ball = np.stack([np.sqrt(1 - height**2) * np.cos(around), height, np.sqrt(1 - height**2) * np.sin(around)], axis=1)
    diffuse, highlight = np.zeros(len(points)), np.zeros(len(points))
    for offset in ball:
        path = scene.light + scene.light_radius * offset - points
        distance = np.linalg.norm(path, axis=1)
        path /= distance[:, None]
        cosine = (path * normals).sum(axis=1)
        lit = np.flatnonzero(cosine > 0)
        origins = points[lit] + 1e-3 * normals[lit]
        shadow = np.zeros(len(lit), bool)
        for thing in scene.things:
            shadow |= thing.hit(origins, path[lit]) < distance[lit]
        lit = lit[~shadow]
        strength = 1 / (1 + (distance[lit] / 2.5) ** 2)
        middle = path[lit] + views[lit]
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        diffuse[lit] += strength * cosine[lit]
        highlight[lit] += strength * np.maximum((middle * normals[lit]).sum(axis=1), 0) ** shininess[lit]
    return diffuse / samples, highlight / samples


def _openness(room: Box, points: ndarray, normals: ndarray) -> ndarray:
    """Return how much of the ambient light reaches points (N,): less near walls, floor and ceiling other than their own."""
    open_ = np.ones(len(points))
    for axis in range(3):
        for side in (-1, 1):
            gap = np.abs(room.centre[axis] + side * room.half[axis] - points[:, axis])
            # not where the surface looks away from it or is it
            open_ *= 1 - 0.4 * np.exp(-gap / 0.25) * (np.abs(normals[:, axis]) < 0.9)
    return open_


def encode(normals: ndarray) -> ndarray:
    """Return unit normals (H, W, 3) as an RGB picture, uint8."""
    return ((normals + 1) / 2 * 255).round().astype(np.uint8)


# ---- command

def read_photographs(folder: Path) -> list[ndarray]:
    """Return the JPEG files of a folder as (H, W, 3), RGB, uint8, in the order of their names.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(folder.glob('*.jpg'))
    if not files:
        raise FileNotFoundError(f'{folder}: holds no photograph (.jpg).')
    return [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]


@report_errors('interrupted; the folder is incomplete.')
def main(arguments: list[str] | None = None) -> int:
    """Run the command; 2 if there is no photograph to take textures from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('datasets/normals'), help='where the folders go (default: %(default)s)')
    parser.add_argument('--photos', type=Path, default=Path('datasets/photos/train'), help='photographs (default: %(default)s)')
    parser.add_argument('--train', type=int, default=96, metavar='N', help='scenes for training (default: %(default)s)')
    parser.add_argument('--test', type=int, default=24, metavar='N', help='scenes for testing (default: %(default)s)')
    parser.add_argument('--tune', type=int, default=12, metavar='N', help='scenes to choose settings on (default: %(default)s)')
    parser.add_argument('--size', type=int, default=128, metavar='PIXELS', help='side of the pictures (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='other seeds, other rooms (default: %(default)s)')
    args = parser.parse_args(arguments)
    photographs = read_photographs(args.photos)
    scenes = {'train': args.train, 'test': args.test, 'tune': args.tune}
    jobs = [(split, number) for split, count in scenes.items() for number in range(count)]
    for split, number in tqdm(jobs, unit='scene', dynamic_ncols=True):
        scene = make_scene(photographs, np.random.default_rng([args.seed, list(scenes).index(split), number]))
        picture, normals = render(scene, args.size)
        for name, image in (('picture', picture), ('normal', encode(normals))):
            file = args.out / split / name / f'{number:03d}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return 0


if __name__ == '__main__':
    sys.exit(main())
