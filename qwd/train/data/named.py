"""From the name of a data set to the data."""

from collections.abc import Sequence

from qwd.errors import UsageError
from qwd.registry import DATASETS
from qwd.train.data import custom
from qwd.train.data.images import as_data
from qwd.train.data.splits import Data

IMAGE_FOLDER = "imagefolder:"


def load(
    name: str,
    *,
    data_dir: str = "data",
    download: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    channels: int | None = None,
) -> Data:
    """The data set called ``name``: registered, ``imagefolder:DIR`` or ``package.module:callable``.

    ``mean``, ``std``: per channel on the scale 0 to 1, default those of the training images.
    ``image_size``: pixels, default as stored. ``channels``: 3 repeats grey images as RGB.
    Raises UsageError for a name or option that does not fit, InputError for data that are missing
    or cannot be read, StorageError where a download cannot be stored.
    """
    if name.startswith(IMAGE_FOLDER):
        from qwd.train.data.imagefolder import image_folder  # imports torchvision

        raw = image_folder(name.removeprefix(IMAGE_FOLDER), image_size)
    elif ":" in name:
        given = {"--mean": mean, "--std": std, "--image-size": image_size, "--download": download}
        unfit = [option for option, value in given.items() if value]
        if unfit:
            raise UsageError(
                f"{', '.join(unfit)}: --data {name} returns data normalised already: "
                f"leave {'it' if len(unfit) == 1 else 'them'} out"
            )
        train, test = custom.called(name)
        return custom.load_pair(train, test, name=name, channels=channels)
    else:
        raw = DATASETS.get(name)(data_dir=data_dir, download=download)
    return as_data(name, raw, mean=mean, std=std, image_size=image_size, channels=channels)
