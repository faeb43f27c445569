"""The structure of a checkpoint without its class: which layer each BatchNorm folds into.

A BatchNorm is a prefix with running_mean and running_var. What folds into what is not written in a
file; it is read off names, order and shapes, and only where they leave no doubt:

    features.0, features.1       the two follow each other in a sequence
    conv1, conv1.norm            the norm belongs to the layer
    conv1, bn1, conv2, bn2       the one layer since the norm before it, where the file is in the
                                 order of definition
    bn1, bn2, conv1, conv2       by names and widths; see `qwd.quantize.pairing_names`

A norm stays without a layer where none comes before it (pre-activation), where several fit, and
where its running means are all positive, for then it stands behind a ReLU. Layers of different
blocks are never paired.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from qwd.errors import UsageError
from qwd.quantize.pairing_names import (
    Block,
    Layer,
    deep_stem,
    gray_stem,
    is_defined_order,
    join,
    links,
    natural,
)

SIGNS = 16
"""channels from which on running means without a negative one are no chance: 1 in 65,536"""
BEFORE = "before the layers of its block, as in pre-activation networks: none is there to fold into"
TRANSPOSED = re.compile(r"deconv|transpose|convt|(^|[._])up", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A BatchNorm in a state dict."""

    prefix: str
    channels: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A weight and the BatchNorm that folds into it."""

    weight: str
    """name of the tensor"""
    norm: str
    """prefix of its tensors"""
    axis: int
    """of the output channels: 1 in transposed convolutions, else 0"""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """What is known of a state dict's structure."""

    pairs: tuple[Pair, ...]
    unpaired: dict[str, str]
    """prefix of a BatchNorm -> why it stays as it is"""


def find_norms(state: Mapping[str, Tensor]) -> dict[str, Norm]:
    """The BatchNorms of a state dict by prefix: running_mean and running_var of one length."""
    found = {}
    for name, mean in state.items():
        prefix, _, last = name.rpartition(".")
        variance = state.get(join(prefix, "running_var"))
        if last != "running_mean" or variance is None or mean.ndim != 1:
            continue
        vectors = [state.get(join(prefix, part)) for part in ("weight", "bias")]
        if all(v is None or v.shape == mean.shape for v in (variance, *vectors)):
            found[prefix] = Norm(prefix=prefix, channels=len(mean))
    return found


def pair_norms(state: Mapping[str, Tensor], stated: Iterable[str] = ()) -> Pairing:
    """Which weight each BatchNorm of a state dict folds into, and why some fold into none.

    ``stated`` are pairs that the user knows, ``LAYER=NORM``: a regular expression for the whole
    name of a layer, and the name of its BatchNorm with ``\\1`` for the groups.

    Raises UsageError for a statement that is no regular expression, matches nothing, or pairs what
    does not fit.
    """
    norms = find_norms(state)
    stem = gray_stem({name: tuple(tensor.shape) for name, tensor in state.items()})
    layers = {
        name.removesuffix("weight").removesuffix("."): Layer(
            name, tuple(tensor.shape), picture=name == stem
        )
        for name, tensor in state.items()
        if name.rpartition(".")[2] == "weight" and tensor.is_floating_point() and tensor.ndim >= 2
    }
    search = _Search(state, layers, norms)
    search.state(stated)
    search.infer()
    return Pairing(
        pairs=tuple(sorted(search.pairs.values(), key=lambda pair: natural(pair.weight))),
        unpaired=dict(sorted(search.why.items(), key=lambda item: natural(item[0]))),
    )


class _Search:
    def __init__(
        self, state: Mapping[str, Tensor], layers: dict[str, Layer], norms: dict[str, Norm]
    ):
        self.tensors, self.layers, self.norms = state, layers, norms
        self.pairs: dict[str, Pair] = {}
        """by norm"""
        self.taken: set[str] = set()
        self.turned: set[tuple[str, tuple[int, ...]]] = set()
        """blocks with transposed convolutions, and the size of their kernels"""
        self.why: dict[str, str] = {}
        names = dict.fromkeys(name.rpartition(".")[0] for name in state)
        self.order = [prefix for prefix in names if prefix in layers or prefix in norms]

    def state(self, stated: Iterable[str]) -> None:
        """Take the pairs that the user states."""
        for text in stated:
            pattern, _, target = text.partition("=")
            option = f"--fold {text!r:.200}"
            try:
                matches = [m for layer in self.layers if (m := re.fullmatch(pattern, layer))]
                found = [(m[0], m.expand(target)) for m in matches]
            except (re.error, IndexError) as error:
                raise UsageError(f"{option}: no regular expression ({error})") from None
            pairs = [(layer, norm) for layer, norm in found if norm in self.norms]
            if not found or not pairs:
                what = (
                    f"no BatchNorm is called {found[0][1]!r:.80}" if found else "matches no layer"
                )
                known = list(self.norms if found else self.layers)[:3]
                raise UsageError(f"{option}: {what}; there are {', '.join(known) or 'none'}")
            for layer, norm in pairs:
                if (axis := self._axis(layer, norm)) is None:
                    shape = "x".join(map(str, self.layers[layer].shape))
                    raise UsageError(
                        f"{option}: {layer} of shape {shape} does not give the "
                        f"{self.norms[norm].channels} channels of {norm}"
                    )
                if layer in self.taken or norm in self.pairs:
                    raise UsageError(f"{option}: {layer} or {norm} is in another pair already")
                self._pair(layer, norm, axis)

    def infer(self) -> None:
        """Find the others."""
        stated = set(self.pairs)
        for prefix in sorted(self.norms, key=natural):
            if prefix in stated:
                continue
            scope, _, local = prefix.rpartition(".")
            if prefix and scope in self.layers:
                self._try(scope, prefix, neighbours=True)  # conv1 and conv1.norm
            elif local.isdigit():
                self._try(join(scope, str(int(local) - 1)), prefix, neighbours=True)
            elif deep := deep_stem(prefix, self.norms[prefix].channels, self.layers, self.norms):
                self._try(deep, prefix)
        if is_defined_order(list(self.tensors), self.norms):
            self._by_order()
        else:
            self._by_names(set(self.norms))
        for norm, pair in list(self.pairs.items()):
            if norm not in stated and self._behind_relu(norm):
                del self.pairs[norm]
                self.why[norm] = f"its means are all positive, as behind a ReLU after {pair.weight}"
        for norm in self.norms:
            if norm not in self.pairs:
                self.why.setdefault(norm, "which layer is before it is not certain")
            else:
                self.why.pop(norm, None)

    def _by_order(self) -> None:
        """One layer of the scope since the norm before, and nothing of another scope since."""
        found: dict[str, str] = {}
        refuted: set[tuple[str, str]] = set()
        several: set[str] = set()
        for at, norm in enumerate(self.order):
            if norm not in self.norms or norm in self.pairs or self._indexed(norm):
                continue
            scope = norm.rpartition(".")[0]
            since = []
            for prefix in map(self.order.__getitem__, range(at - 1, -1, -1)):
                if prefix in self.norms or prefix.rpartition(".")[0] != scope:
                    break
                since.append(prefix)
            if not since:
                inside = [p for p in self.order if p.rpartition(".")[0] == scope]
                ahead = inside[0] == norm and not self.layers.keys().isdisjoint(inside)
                self.why[norm] = BEFORE if ahead else "no layer of its block is directly before it"
            elif len(since) > 1:
                several.add(norm)
            elif self._axis(since[0], norm) != 0 and not TRANSPOSED.search(since[0]):
                refuted.add(_kind(since[0], norm))
                self.why[norm] = f"{since[0]}, before it, has another width"
            else:
                found[norm] = since[0]
        for norm, layer in found.items():
            if _kind(layer, norm) in refuted:
                self.why[norm] = f"{layer} is before it, but has another width in other blocks"
            else:
                self._try(layer, norm)
        # What follows a run of layers may belong to any of them: then it is as without order.
        if several:
            scopes = {norm.rpartition(".")[0] for norm in several}
            self._by_names({n for n in self.norms if n.rpartition(".")[0] in scopes})

    def _by_names(self, among: set[str]) -> None:
        scopes: dict[str, Block] = {}
        for norm in among:
            if norm not in self.pairs and not self._indexed(norm):
                scopes.setdefault(norm.rpartition(".")[0], Block({}, {}))
        for prefix in {*self.layers, *self.norms}:
            scope, _, local = prefix.rpartition(".")
            if scope not in scopes or local.isdigit() or prefix in self.taken | self.pairs.keys():
                continue
            if prefix in self.norms:
                scopes[scope].norms[local] = self.norms[prefix].channels
            else:
                turned = bool(TRANSPOSED.search(prefix)) and len(self.layers[prefix].shape) > 2
                scopes[scope].layers[local] = replace(self.layers[prefix], transposed=turned)
        alike: dict[object, dict[str, Block]] = {}
        everywhere: dict[object, list[Block]] = {}
        for scope, block in scopes.items():
            if block.layers and block.norms:
                parts = frozenset(block.layers), frozenset(block.norms)
                alike.setdefault((re.sub(r"\d+", "#", scope), parts), {})[scope] = block
                everywhere.setdefault(parts, []).append(block)
        for (_, parts), blocks in alike.items():  # type: ignore[misc]
            known = links(list(blocks.values())) or links(everywhere[parts])
            for scope, block in blocks.items():
                first, *others = sorted(block.norms, key=natural)
                if known and {norm for _, norm in known} == set(others):
                    self.why[join(scope, first)] = BEFORE
                for layer, norm in known:
                    pair = join(scope, layer), join(scope, norm)
                    if not self._at_the_end(scope, block, *pair):
                        self._try(*pair)

    def _at_the_end(self, scope: str, block: Block, layer: str, norm: str) -> bool:
        """Whether the norm may be the last one of the scope, behind its inner blocks.

        Then it is followed by a linear layer, and inner layers are as wide as it is.
        """
        channels = self.norms[norm].channels
        head = any(len(w.shape) == 2 and w.shape[1] == channels for w in block.layers.values())
        inner = (w for p, w in self.layers.items() if p.startswith(join(scope, "")))
        return head and any(
            w.out == channels and w.name.count(".") > self.layers[layer].name.count(".")
            for w in inner
        )

    def _try(self, layer: str, norm: str, *, neighbours: bool = False) -> None:
        if layer in self.layers and layer not in self.taken:
            axis = self._axis(layer, norm)
            # Of the width of its inputs alone: transposed, or the norm stands before it.
            certain = axis == 0 or neighbours or TRANSPOSED.search(layer)
            if axis is not None and certain:
                self._pair(layer, norm, axis)

    def _pair(self, layer: str, norm: str, axis: int) -> None:
        self.pairs[norm] = Pair(weight=self.layers[layer].name, norm=norm, axis=axis)
        self.taken.add(layer)
        if axis == 1:
            self.turned.add(self._place(layer))

    def _axis(self, layer: str, norm: str) -> int | None:
        """The axis of the layer's outputs, if they are as many as the norm's channels."""
        (first, second, *kernel), channels = self.layers[layer].shape, self.norms[norm].channels
        if first == channels:
            return int(bool(kernel) and second == channels and self._is_transposed(layer))
        return 1 if kernel and second == channels else None

    def _is_transposed(self, layer: str) -> bool:
        """A square kernel: by its name, or as its neighbours of the same size are."""
        if TRANSPOSED.search(layer):
            return True
        return self._place(layer) in self.turned

    def _place(self, layer: str) -> tuple[str, tuple[int, ...]]:
        return layer.rpartition(".")[0], self.layers[layer].shape[2:]

    def _indexed(self, norm: str) -> bool:
        return norm.rpartition(".")[2].isdigit() or norm.rpartition(".")[0] in self.layers

    def _behind_relu(self, norm: str) -> bool:
        mean = self.tensors[join(norm, "running_mean")]
        return len(mean) >= SIGNS and bool((mean >= 0).all()) and bool((mean > 0).any())


def _kind(layer: str, norm: str) -> tuple[str, str]:
    return re.sub(r"\d+", "#", layer), re.sub(r"\d+", "#", norm)
