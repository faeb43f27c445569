"""The user's own data sets: what works, and what every mistake says."""

import random
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from qwd.errors import InputError, UsageError
from qwd.train.data import load, load_pair

CPU = torch.device("cpu")


class Made(Dataset):
    """Items from a function of the row."""

    targets: object
    classes: list[str]

    def __init__(self, make, n=20):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, row):
        return self.make(row)


def image(channels=1, size=4):
    return torch.zeros(channels, size, size)


def good(n=20, channels=1):
    return Made(lambda row: (torch.full((channels, 4, 4), float(row)), row % 2), n)


def read(split, **options):
    batches = list(split.batches(None, 8, device=CPU, **options))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_a_pair_of_data_sets():
    data = load_pair(good(20), good(10))
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 10)
    assert (data.name, data.in_channels, data.image_size) == ("custom", 1, 4)
    assert (data.classes, data.mean, data.std) == (("0", "1"), (), ())
    assert (data.default_augment, data.test_name) == ("none", "test")
    rows = [read(split)[0][:, 0, 0, 0].tolist() for split in (data.train, data.validation)]
    assert sorted(rows[0] + rows[1]) == list(range(20))


def test_tensors_and_items_are_the_same_data():
    images = torch.randn(30, 3, 4, 4, dtype=torch.float64)
    labels = torch.arange(30, dtype=torch.uint8) % 3
    tensors = TensorDataset(images, labels)
    listed = Made(lambda row: (images[row].numpy(), labels.numpy()[row]), 30)
    pairs = [load_pair(tensors, tensors), load_pair(listed, listed)]
    assert len({data.test.sha256() for data in pairs}) == 1
    assert torch.equal(read(pairs[0].train)[0], read(pairs[1].train)[0])


def test_tensors_are_indexed_a_batch_at_a_time(monkeypatch):
    tensors = TensorDataset(torch.randn(50, 1, 4, 4), torch.arange(50) % 5)
    data = load_pair(tensors, tensors)
    calls = []
    index = TensorDataset.__getitem__

    def counted(self, rows):
        calls.append(rows)
        return index(self, rows)

    monkeypatch.setattr(TensorDataset, "__getitem__", counted)
    assert len(list(data.test.batches(None, 10, device=CPU))) == len(calls) == 5


def test_grey_becomes_rgb_where_a_model_needs_it():
    data = load_pair(good(), good(), channels=3)
    images, _ = read(data.test)
    assert data.in_channels == 3
    assert images.shape == (20, 3, 4, 4)
    assert torch.equal(images[:, 0], images[:, 2])
    with pytest.raises(UsageError, match="has 2 channels, the model takes 3"):
        load_pair(good(channels=2), good(channels=2), channels=3)


def test_random_transforms_follow_the_generator():
    def make(row):
        noise = torch.rand(()).item() + random.random() + np.random.rand()  # noqa: NPY002
        return torch.full((1, 4, 4), noise), row % 2

    data = load_pair(Made(make), Made(make))

    def seeded(seed):
        return read(data.train, generator=torch.Generator().manual_seed(seed))[0]

    before = random.getstate(), torch.get_rng_state()
    assert torch.equal(seeded(1), seeded(1))
    assert not torch.equal(seeded(1), seeded(2))
    assert torch.equal(read(data.test)[0], read(data.test)[0])
    assert data.test.sha256() == data.test.sha256()
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, np.array])
def test_labels_come_from_targets(kind):
    dataset = good()
    calls = []
    dataset.make = lambda row: (calls.append(row), (image(), row % 2))[1]
    dataset.targets = kind([row % 2 for row in range(20)])
    dataset.classes = ["even", "odd"]
    data = load_pair(dataset, dataset)
    assert calls == [0, 0]
    assert data.test.labels.tolist() == [0, 1] * 10
    assert data.classes == ("even", "odd")


@pytest.mark.parametrize("targets", [[0], None, [[0, 1]] * 20, [0.5] * 20, "a" * 20])
def test_other_targets_are_not_trusted(targets):
    dataset = good()
    dataset.targets = targets
    assert load_pair(dataset, dataset).test.labels.tolist() == [0, 1] * 10


def test_targets_that_contradict_the_items():
    dataset = good()
    dataset.targets = [1] * 20
    data = load_pair(dataset, dataset)
    with pytest.raises(InputError, match="test: item 0 has label 0, but 1 before"):
        read(data.test)


def test_a_subset_is_a_data_set():
    data = load_pair(Subset(good(), range(4, 16)), Subset(good(), [1, 2]))
    assert read(data.test)[0][:, 0, 0, 0].tolist() == [1, 2]


def raises(row):
    raise ValueError("no\nsuch file")


class Endless(IterableDataset):
    def __iter__(self):
        yield image(), 0


def last(bad):
    """Good items but for the last."""
    return Made(lambda row: bad if row == 19 else (image(), row % 2))


MISTAKES = [
    (None, UsageError, "is NoneType: expected a map-style data set"),
    (Endless(), UsageError, "is Endless: expected a map-style"),
    ([], InputError, "is empty"),
    (Made(raises), InputError, "reading item 0 failed: ValueError: no such file"),
    (Made(lambda row: image()), UsageError, "item 0 is Tensor: expected a pair"),
    (Made(lambda row: (image(), 0, 0)), UsageError, "item 0 is tuple: expected a pair"),
    (Made(lambda row: ("x", 0)), UsageError, "item 0: x is str: expected"),
    (Made(lambda row: (image()[0], 0)), UsageError, "x is float32 [4, 4]: expected"),
    (Made(lambda row: (image().byte(), 0)), UsageError, "x is uint8 [1, 4, 4]: expected"),
    (Made(lambda row: (np.zeros((1, 4, 4), int), 0)), UsageError, "x is int64 [1, 4, 4]"),
    (Made(lambda row: (torch.zeros(1, 4, 5), 0)), UsageError, "x is float32 [1, 4, 5]"),
    (Made(lambda row: (torch.zeros(0, 4, 4), 0)), UsageError, "x is float32 [0, 4, 4]"),
    (Made(lambda row: (image(), 0.5)), UsageError, "y is 0.5: expected a whole number"),
    (Made(lambda row: (image(), "cat")), UsageError, "y is 'cat': expected"),
    (Made(lambda row: (image(), torch.zeros(3))), UsageError, "y is tensor([0., 0., 0.])"),
    (last((image(size=5), 0)), UsageError, "item 19: x is float32 [1, 5, 5]: expected [1, 4, 4]"),
    (last((image(), -1)), InputError, "label -1 at item 19: expected whole numbers from 0"),
    (TensorDataset(torch.zeros(5, 4), torch.zeros(5).long()), UsageError, "x is float32 [4]"),
    (TensorDataset(torch.zeros(5, 1, 4, 4), torch.zeros(5)), UsageError, "y is tensor(0.)"),
    (TensorDataset(torch.zeros(5, 1, 4, 4)), UsageError, "item 0 is tuple"),
]


@pytest.mark.parametrize(("dataset", "kind", "words"), MISTAKES)
def test_mistakes_are_one_clear_line(dataset, kind, words):
    for pair in ((dataset, good()), (good(), dataset)):
        with pytest.raises(kind) as caught:
            load_pair(*pair)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
        assert f"custom, {'train' if pair[0] is dataset else 'test'}" in str(caught.value)


def test_parts_that_do_not_fit_each_other():
    larger = Made(lambda row: (image(size=5), row % 2))
    with pytest.raises(UsageError, match=r"test: x is \[1, 5, 5\], in train \[1, 4, 4\]"):
        load_pair(good(), larger)
    with pytest.raises(InputError, match="test: label 2 at item 19: expected 0 to 1, as in train"):
        load_pair(good(), last((image(), 2)))


CODE = """
import torch
from torch.utils.data import TensorDataset

def pair():
    def part(n):
        return TensorDataset(torch.zeros(n, 1, 4, 4), torch.arange(n) % 2)
    return part(20), part(10)

def single():
    return pair()[0]

def fails():
    raise RuntimeError("no disk\\nin the drive")

def asks(folder):
    return pair()

number = 5
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_own_data", raising=False)
    (tmp_path / "my_own_data.py").write_text(CODE)
    return "my_own_data"


def test_a_callable_in_the_current_directory(module):
    data = load(f"{module}:pair")
    assert (data.name, len(data.test), data.num_classes) == (f"{module}:pair", 10, 2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:pair", "cannot be imported from"),
        ("{}:missing", "cannot be imported"),
        ("{}:number", "is int: expected a function"),
        ("{}:single", "returned TensorDataset: expected two data sets"),
        ("{}:fails", "calling it failed: RuntimeError: no disk in the drive"),
        ("{}:asks", "calling it failed: TypeError"),
    ],
)
def test_callables_that_do_not_work(module, name, words):
    with pytest.raises(UsageError) as caught:
        load(name.format(module))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (0.5,), "std": (0.5,)}, "--mean, --std: --data .* leave them out"),
        ({"image_size": 8}, "--image-size: .* leave it out"),
        ({"download": True}, "--download: "),
    ],
)
def test_options_for_raw_images_are_refused(module, options, words):
    with pytest.raises(UsageError, match=words):
        load(f"{module}:pair", **options)
