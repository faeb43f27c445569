"""Which layer a BatchNorm folds into, by names and shapes where the order of a file says nothing.

Files that list their tensors alphabetically have lost the order in which modules were defined. A
block with conv1, conv2, bn1 and bn2 is then either

    conv1 -> bn1 -> conv2 -> bn2        every norm behind its layer, or
    bn1 -> conv1 -> bn2 -> conv2        every norm before it: bn2 folds into conv1, bn1 into nothing

Each reading says which widths have to agree. All blocks of one kind are read alike, and what holds
in every reading that fits all of them is known; where nothing does, the norms stay as they are.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

Links = frozenset[tuple[str, str]]
"""local names of layers and of the norms that fold into them"""
MOST = 5
"""layers whose orders are tried"""
COLOURS = 3
DEPTHWISE = re.compile(r"depthwise|(^|[._])(conv_?)?dw", re.IGNORECASE)
NORM_WORDS = re.compile(r"(batch_?norm|norm|bn)(_?[123]d)?", re.IGNORECASE)


@dataclass(frozen=True)
class Layer:
    """A weight of two dimensions or more."""

    name: str
    """of the tensor"""
    shape: tuple[int, ...]
    transposed: bool = False
    picture: bool = False
    """takes a picture of one channel, and so is not depthwise"""

    @property
    def out(self) -> int:
        """Channels that it gives."""
        return self.shape[1] if self.transposed else self.shape[0]

    def takes(self, channels: int, groups_from: int = 3) -> bool:
        """Whether it can follow what has so many channels; grouped and depthwise ones included.

        Two groups are rarer than layers that double the width: they count only if asked for.
        """
        inputs = self.shape[0] if self.transposed else self.shape[1]
        if inputs == channels or self.picture:
            return inputs == channels
        if len(self.shape) == 2:
            return inputs % channels == 0  # after flattening
        groups, rest = divmod(channels, inputs)
        spatial = max(self.shape[2:]) > 1
        grouped = inputs == 1 or groups >= groups_from
        return not rest and self.out == channels and spatial and grouped


@dataclass(frozen=True)
class Block:
    """The layers and norms of one scope, by local name."""

    layers: dict[str, Layer]
    norms: dict[str, int]
    """channels"""


def links(blocks: Sequence[Block]) -> Links:
    """What folds into what, in every reading that fits all ``blocks``, which have one structure.

    Empty where nothing is certain.
    """
    layers, norms = list(blocks[0].layers), sorted(blocks[0].norms, key=natural)
    named = _named(layers, norms)
    orders = [named] if named else []
    if not named and len(layers) == len(norms) <= MOST:
        orders = list(permutations(layers))
    readings = [found for order in orders for found in _read(order, norms, blocks, not named)]
    if not readings:
        readings = [found] if (found := _by_width(layers, norms, blocks)) else []
    return frozenset.intersection(*readings) if readings else frozenset()


def gray_stem(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The convolution that takes a picture of one channel, of a file's weights by name.

    The only one that takes a single channel, where none takes a picture in colour; a network with
    depthwise layers has several, and one that says so in its name is no stem. None for no such one.
    """
    spatial = {n: shape for n, shape in shapes.items() if len(shape) > 2 and max(shape[2:]) > 1}
    single = [name for name, shape in spatial.items() if shape[1] == 1 < shape[0]]
    colour = any(shape[1] == COLOURS for shape in spatial.values())
    if len(single) != 1 or colour or DEPTHWISE.search(single[0]):
        return None
    return single[0]


def deep_stem(
    norm: str, channels: int, layers: Mapping[str, Layer], norms: Collection[str]
) -> str | None:
    """The last layer of a sequence of a norm's number, as conv1.6 for the bn1 of a ResNet-D.

    None where another module is last, or where the first takes as many channels as the norm has,
    which then may stand before it.
    """
    scope, _, local = norm.rpartition(".")
    start = join(scope, NORM_WORDS.sub("conv", local)) + "."
    first = layers.get(f"{start}0")
    if not number(local) or first is None or first.takes(channels):
        return None
    inside = [prefix for prefix in (*layers, *norms) if prefix.startswith(start)]
    last = max(inside, key=natural)
    return last if last in layers and last.removeprefix(start).isdigit() else None


def is_defined_order(names: list[str], norms: Iterable[str]) -> bool:
    """Whether a file lists modules as they were defined: weight, bias, running_mean of each norm.

    Files sorted by name list bias, running_mean, weight. ``norms`` are prefixes.
    """
    places = {name: place for place, name in enumerate(names)}
    parts = ("weight", "bias", "running_mean", "running_var")
    for norm in norms:
        found = [places[name] for part in parts if (name := join(norm, part)) in places]
        if found != sorted(found):
            return False
    return names != sorted(names)


def join(path: str, name: str) -> str:
    """The name of what is called ``name`` at a path, which may be empty."""
    return f"{path}.{name}" if path else name


def number(local: str) -> str:
    """The digits at the end of a name, or none."""
    found = re.search(r"\d+$", local)
    return found[0] if found else ""


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts layer2 before layer10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]


def _named(layers: list[str], norms: list[str]) -> tuple[str, ...]:
    """Layers in the order of the norms that have their names or numbers; empty for no such ones."""
    words = [NORM_WORDS.sub("", norm).strip("_") for norm in norms]
    bare = {re.sub(r"conv(?=_|\d|$)_?", "", local).strip("_"): local for local in layers}
    for of in (dict(zip(layers, layers, strict=True)), bare if len(bare) == len(layers) else {}):
        if len(set(words)) == len(norms) and all(word and word in of for word in words):
            return tuple(of[word] for word in words)
    numbers = [number(norm) for norm in norms]
    stems = {re.sub(r"\d+$", "", local) for local in layers if number(local)}
    counted = [
        tuple(stem + n for n in numbers)
        for stem in stems
        if all(numbers) and all(stem + n in layers for n in numbers)
    ]
    return counted[0] if len(counted) == 1 else ()


def _read(
    order: tuple[str, ...], norms: list[str], blocks: Sequence[Block], in_line: bool
) -> Iterator[Links]:
    if all(_behind(order, norms, block, in_line) for block in blocks):
        yield frozenset(zip(order, norms, strict=True))
    if all(_before(order, norms, block, in_line) for block in blocks):
        yield frozenset(zip(order, norms[1:], strict=False))


def _behind(order: tuple[str, ...], norms: list[str], block: Block, in_line: bool) -> bool:
    """Whether every layer can be followed by its norm and, where they are ``in_line``, the next."""
    layers = [block.layers[local] for local in order]
    widths = [block.norms[norm] for norm in norms]
    fits = all(layer.out == width for layer, width in zip(layers, widths, strict=True))
    follows = all(b.takes(a.out) for a, b in pairwise(layers))
    return fits and (follows or not in_line)


def _before(order: tuple[str, ...], norms: list[str], block: Block, in_line: bool) -> bool:
    """Whether every norm can be followed by its layer and then by the next norm.

    Where names say which layer is the one before, its width shows two groups too.
    """
    layers = [block.layers[local] for local in order]
    widths = [block.norms[norm] for norm in norms]
    groups = [3, *[3 if in_line else 2] * (len(layers) - 1)]
    fits = all(map(Layer.takes, layers, widths, groups))
    return fits and all(a.out == width for a, width in zip(layers, widths[1:], strict=False))


def _by_width(layers: list[str], norms: list[str], blocks: Sequence[Block]) -> Links:
    """Layers of a scope that do not follow each other: one of a norm's width, and of no other's.

    Where a convolution takes the norm's width, the norm may as well stand before that one.
    """
    found = {
        norm: [
            local
            for local in layers
            if all(block.layers[local].out == block.norms[norm] for block in blocks)
        ]
        for norm in norms
    }
    chosen = [local for of in found.values() for local in of]
    certain = len(set(chosen)) == len(chosen)
    for block in blocks:
        for norm, of in found.items():
            convolutions = (w for w in block.layers.values() if len(w.shape) > 2)
            certain &= len(of) < 2 and not any(w.takes(block.norms[norm]) for w in convolutions)
    return frozenset((of[0], norm) for norm, of in found.items() if of and certain)
