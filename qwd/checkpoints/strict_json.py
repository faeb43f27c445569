"""JSON from strangers: of bounded size, and no key twice."""

import json
from typing import Any

from qwd.checkpoints.refused import RefusedError

LARGEST = 16 << 20
MOST_OBJECTS = 100_002
"""so that what is parsed takes little more memory than the text"""


def parsed(text: bytes | memoryview) -> Any:
    """What a JSON text says; RefusedError where it is none, too large, or says a key twice."""
    if len(text) > LARGEST:
        raise RefusedError(f"its JSON has {len(text):,} bytes", f"at most {LARGEST:,}")
    content = bytes(text)
    if content.count(b"{") > 2 * MOST_OBJECTS or content.count(b"[") > 4 * MOST_OBJECTS:
        raise RefusedError(f"its JSON has more than {MOST_OBJECTS:,} objects")
    try:
        found = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except ValueError as error:
        raise RefusedError("its header is not JSON") from error
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RefusedError(f"its JSON has the key {twice!r:.80} twice")
    return found
