"""Settings of what is trained: the model, and the images it sees."""

from dataclasses import dataclass

from qwd import parsing
from qwd.registry import DATASETS, MODELS
from qwd.setting import setting


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """A model, its data set, and how images come to it."""

    model: str = setting(
        "small_cnn",
        parsing.name_in(MODELS, "torchvision", callables=True),
        "a built-in model (`qwd list models`), torchvision:NAME or package.module:callable",
        shared=True,
    )
    data: str = setting(
        "digits",
        parsing.name_in(DATASETS, "imagefolder", callables=True),
        "a data set (`qwd list data`), imagefolder:DIR or package.module:callable",
        shared=True,
    )
    data_dir: str = setting(
        "data", parsing.text, "where downloadable data sets are found", shared=True
    )
    download: bool = setting(
        False,
        parsing.flag,
        "download the data set into --data-dir when it is not there",
        shared=True,
    )
    mean: tuple[float, ...] | None = setting(
        None,
        parsing.list_of(parsing.number()),
        "per-channel mean of the input on the scale 0 to 1; default: the training images'",
        shared=True,
    )
    std: tuple[float, ...] | None = setting(
        None,
        parsing.list_of(parsing.number(above=0)),
        "per-channel standard deviation likewise",
        shared=True,
    )
    image_size: int | None = setting(
        None,
        parsing.integer(least=4, most=4096),
        "resize images to this height and width; default: as they are",
        shared=True,
    )
    augment: str = setting(
        "auto",
        parsing.one_of("auto", "none", "crop", "crop-flip"),
        "random crops (4 px padding) and flips; auto: what is customary for the data set",
    )
