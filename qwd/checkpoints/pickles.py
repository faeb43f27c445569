"""Reading a pickle without running it: which tensors it would build, and nothing else.

A pickle is a program for a stack machine. This machine runs the few instructions that torch.save
writes for tensors and plain containers; where torch would call a function, it checks the arguments
and keeps a note instead. It keeps the stack, the memo and the order of torch's weights_only
unpickler, so that what passes here is what torch then builds. Any other instruction or name, and
any count beyond the limits, is refused.

Source of the instructions: CPython's pickletools; torch/_weights_only_unpickler.py.
"""

import pickletools
import re
import warnings
from collections import Counter, OrderedDict
from io import BytesIO
from typing import Any

from qwd.checkpoints import allowed
from qwd.checkpoints.allowed import ALLOWED
from qwd.checkpoints.claims import DTYPES, STORAGES, UNTYPED, Claimed, Claims, Storage
from qwd.checkpoints.refused import RefusedError, shown

INSTRUCTIONS = 1_000_000
INSTRUCTIONS_PER_STORAGE = 40
"""torch.save writes about 30 for a tensor"""
NESTING, PENDING = 256, 100_000
LONGEST_TEXT = 1 << 20
PROTOCOLS = (2, 3)


class _Name:
    """A function or class that the pickle mentions."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class _Device:
    """A device that the pickle mentions."""


class _Parameter(Claimed):
    """A tensor that is a parameter."""


class Machine:
    """The machine, for one pickle after another of a file; RefusedError wherever it stops."""

    def __init__(self, claims: Claims, *, legacy: bool = False):
        self.claims = claims
        self.legacy = legacy
        self.left = INSTRUCTIONS

    def run(self, data: BytesIO) -> Any:
        """What the pickle at the position of ``data`` builds; the position is then after it."""
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # escapes in names, which are then refused
            try:
                for instruction, argument, _ in pickletools.genops(data):
                    action = _ACTIONS.get(instruction.name)
                    if action is None:
                        raise RefusedError(f"its pickle has the instruction {instruction.name}")
                    self.left -= 1
                    if self.left < 0:
                        raise RefusedError("its pickle has more instructions than its tensors need")
                    action(self, argument)
                (found,) = self.stack
                if self.marks:
                    raise ValueError
            except (ValueError, IndexError, KeyError, TypeError) as error:
                if isinstance(error, UnicodeError):
                    raise RefusedError("its pickle has text that is not UTF-8") from error
                raise RefusedError("its pickle is damaged or cut off") from error
        return found

    # What is put on the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)
        if len(self.stack) > PENDING:
            raise RefusedError(f"its pickle has more than {PENDING:,} values at a time")

    def text(self, value: str) -> None:
        if len(value) > LONGEST_TEXT:
            raise RefusedError(f"its pickle has a text of {len(value):,} characters")
        value.encode()  # a lone half of a surrogate pair is no text
        self.push(value)

    def old_text(self, value: str) -> None:
        self.text(value.encode("latin-1").decode())  # Python 2's, as torch decodes it

    def name(self, value: str) -> None:
        if value not in ALLOWED:
            raise RefusedError(allowed.refusal(shown(value, 120)))
        self.push(_Name(value))

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []
        if len(self.marks) > NESTING:
            raise RefusedError(f"its pickle is nested deeper than {NESTING}")

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    # What changes what is on the stack

    def tuple_of(self, n: int | None) -> None:
        items = self.since_mark() if n is None else [self.stack.pop() for _ in range(n)][::-1]
        self.push(tuple(items))

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise RefusedError("its pickle appends to what is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) not in (dict, OrderedDict, Counter) or len(items) % 2:
            raise RefusedError("its pickle sets items of what is no mapping")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def storage(self, _: Any) -> None:
        match self.stack.pop():
            case ("storage", _Name(name=name), str() | int() as key, str(), numel, *rest) if (
                name in STORAGES
            ):
                # Views of storages were written before torch 0.4, in legacy files alone.
                if rest != ([None] if self.legacy else []):
                    raise RefusedError("a storage that is a view of another, or damaged")
                if self.legacy and name == UNTYPED:
                    raise RefusedError(
                        "a tensor of a dtype that torch does not read from the format before 1.6"
                    )
                if key not in self.claims.storages:
                    self.left += INSTRUCTIONS_PER_STORAGE
                self.push(self.claims.storage(STORAGES[name], key, numel))
            case ("module", *_):
                raise RefusedError("it holds a whole pickled module, which is code")
            case _:
                raise RefusedError("its pickle refers to something outside that is no storage")

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or type(arguments) is not tuple:
            raise RefusedError("its pickle calls what is no function")
        self.push(self.result(function.name, arguments))

    def new(self, _: Any) -> None:
        arguments, made = self.stack.pop(), self.stack.pop()
        if not isinstance(made, _Name) or made.name != allowed.PARAMETER:
            raise RefusedError("its pickle makes an object that is no parameter")
        self.push(self.result(made.name, arguments))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        match state:
            # An attribute called `items` would take the place of the method.
            case {"_metadata": _} if type(target) is OrderedDict and len(state) == 1:
                pass
            # As torch 0.1 to 0.3 stored parameters: requires_grad, volatile, hooks.
            case (bool(), bool(), OrderedDict() as hooks) if isinstance(target, _Parameter):
                _check_hooks(hooks)
            case _:
                raise RefusedError("its pickle sets attributes of an object")

    # The functions

    def result(self, function: str, arguments: tuple[Any, ...]) -> Any:
        match function, arguments:
            case allowed.ORDERED, ():
                return OrderedDict()
            case allowed.ORDERED, ([*pairs],):  # Python 2's way
                return OrderedDict((_key(key), value) for key, value in pairs)
            case allowed.COUNTER, ():
                return Counter()
            case allowed.COUNTER, (dict() as counts,):
                return Counter(counts)
            case allowed.SIZE, (tuple() | list() as sizes,) if all(type(n) is int for n in sizes):
                return tuple(sizes)
            case allowed.DEVICE, (str() as device, *index) if _is_device(device, index):
                return _Device()
            case allowed.REBUILD_0, (storage, offset, shape, strides):
                return self.claims.tensor(storage, offset, shape, strides, None)
            case allowed.REBUILD_2, (storage, offset, shape, strides, bool(), hooks, *rest):
                _check_hooks(hooks, *rest)
                return self.claims.tensor(storage, offset, shape, strides, None)
            case (
                allowed.REBUILD_3,
                (Storage() as storage, offset, shape, strides, bool(), hooks, dtype, *rest),
            ) if isinstance(dtype, _Name) and dtype.name in DTYPES:
                _check_hooks(hooks, *rest)
                return self.claims.tensor(storage, offset, shape, strides, DTYPES[dtype.name])
            case allowed.REBUILD_PARAMETER, (Claimed(), bool(), hooks):
                _check_hooks(hooks)
                return _Parameter()
            case allowed.PARAMETER, (Claimed(),) | (Claimed(), bool()):
                return _Parameter()
        name = function.replace(" ", ".")
        raise RefusedError(f"its pickle calls {name} with other arguments than torch.save writes")


def _key(value: Any) -> Any:
    """A key of a mapping: hashing it takes neither long nor deep."""
    if type(value) is int and abs(value) < 1 << 63:
        return value
    if type(value) in (str, bool, float, type(None)):
        return value
    raise RefusedError(f"a mapping has a key that is a {type(value).__name__.lower().strip('_')}")


def _check_hooks(hooks: Any, *rest: Any) -> None:
    if (hooks is not None and type(hooks) is not OrderedDict) or hooks:
        raise RefusedError("a tensor has hooks, which are code")
    if rest not in ((), (None,), ({},)):
        raise RefusedError("a tensor is conjugated or negated without that being computed")


def _is_device(device: str, index: list[Any]) -> bool:
    number = not index or (len(index) == 1 and type(index[0]) is int and 0 <= index[0] < 128)
    return number and re.fullmatch(r"[a-z]{2,10}(:[0-9]{1,3})?", device) is not None


_ACTIONS: dict[str, Any] = {
    "PROTO": lambda m, value: None if value in PROTOCOLS else _refuse_protocol(value),
    "STOP": lambda m, _: None,
    "GLOBAL": Machine.name,
    "MARK": Machine.mark,
    "NONE": Machine.push,
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "BININT": Machine.push,
    "BININT1": Machine.push,
    "BININT2": Machine.push,
    "LONG1": Machine.push,
    "BINFLOAT": Machine.push,
    "BINUNICODE": Machine.text,
    "SHORT_BINSTRING": Machine.old_text,
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE": lambda m, _: m.tuple_of(None),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.extend([m.stack.pop()]),
    "APPENDS": lambda m, _: m.extend(m.since_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.since_mark()),
    "BINGET": Machine.get,
    "LONG_BINGET": Machine.get,
    "BINPUT": Machine.put,
    "LONG_BINPUT": Machine.put,
    "BINPERSID": Machine.storage,
    "REDUCE": Machine.call,
    "NEWOBJ": Machine.new,
    "BUILD": Machine.build,
}


def _refuse_protocol(value: int) -> None:
    raise RefusedError(f"its pickle is of protocol {value}", "2, as torch.save writes")
