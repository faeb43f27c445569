"""Every file that is to be refused, and none that is not."""

from collections.abc import Iterator

from tests.checkpoints import malformed_archives as archives
from tests.checkpoints import malformed_disguises as disguises
from tests.checkpoints import malformed_headers as headers
from tests.checkpoints import malformed_pickles as pickles

Malformed = tuple[str, str, bytes]


def bombs() -> Iterator[Malformed]:
    """(what, ending, bytes) of small files that take much of a careless reader."""
    yield from pickles.pickle_bombs()
    yield from headers.header_bombs()


def malformed() -> Iterator[Malformed]:
    """(what, ending, bytes) of every one."""
    for source in (archives.formats, archives.cut_off, archives.zip_fields, archives.records):
        yield from source()
    for source in (pickles.instructions, pickles.claims, pickles.values, pickles.legacy_files):
        yield from source()
    for source in (disguises.polyglots, disguises.archives, disguises.calls, disguises.headers):
        yield from source()
    for source in (headers.headers, headers.entries, headers.contents, bombs):
        yield from source()
