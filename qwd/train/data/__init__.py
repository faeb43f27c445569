"""The data: images, their normalisation and augmentation, and the three splits.

=====================  ===========================================================
`load`                 data from a name: built in, ``imagefolder:DIR``, or a callable
`load_pair`            data from a train and a test data set in memory
`Data`, `Split`        what training, evaluation and the report are given
`ImageSet`, `Part`     what a registered data set returns: raw images and labels
`augmentation`         random crops and flips by name
=====================  ===========================================================

A data set registered in `qwd.registry.DATASETS` is a function of ``data_dir`` and ``download``
that returns an `ImageSet`; normalisation, resizing and the validation split are done here.
"""

from qwd.train.data.arrays import ArraySplit
from qwd.train.data.augment import Augment, augmentation
from qwd.train.data.custom import DatasetSplit, load_pair
from qwd.train.data.images import ImageSet, Part
from qwd.train.data.named import load
from qwd.train.data.splits import Data, Split

__all__ = [
    "ArraySplit",
    "Augment",
    "Data",
    "DatasetSplit",
    "ImageSet",
    "Part",
    "Split",
    "augmentation",
    "load",
    "load_pair",
]
