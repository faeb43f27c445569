"""Which state dict of a file is meant: nesting, wrappers, choices that are not made."""

from pathlib import Path

import pytest
import torch
from torch import nn

from qwd.checkpoints import read_weights
from qwd.errors import InputError
from tests.checkpoints.making import STATE
from tests.checkpoints.making import saved as save


def saved(tmp_path: Path, content: object, name: str = "m.pt", **options) -> Path:
    return save(tmp_path / name, content, **options)


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"state_dict": STATE, "epoch": 90, "best_acc": torch.tensor(91.7)},
        {"model": {f"module.{k}": v for k, v in STATE.items()}},
        {"a": {"b": {f"_orig_mod.module.{k}": v for k, v in STATE.items()}}},
        {
            "model": STATE,
            "optimizer": torch.optim.SGD([nn.Parameter(torch.ones(2))], 0.1).state_dict(),
        },
        {k: nn.Parameter(v) for k, v in STATE.items()},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_are_found_wherever_people_put_them(tmp_path, content, legacy: bool) -> None:
    path = saved(tmp_path, content, "m.th", _use_new_zipfile_serialization=not legacy)
    found = read_weights(path)
    assert list(found) == list(STATE)
    assert all(torch.equal(found[name], STATE[name]) for name in STATE)


def test_optimizer_state_is_never_taken_for_weights(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    with pytest.raises(InputError, match="holds no tensors by name"):
        read_weights(saved(tmp_path, {"optimizer": optimizer.state_dict(), "epoch": 3}))


def test_several_state_dicts_need_a_choice(tmp_path: Path) -> None:
    other = {k: v + 1 for k, v in STATE.items()}
    path = saved(tmp_path, {"model": STATE, "model_ema": other})
    with pytest.raises(InputError, match=r"choose one with --key \(model, model_ema\)"):
        read_weights(path)
    assert torch.equal(read_weights(path, "model_ema")["conv.bias"], torch.full((2,), 2.0))
    with pytest.raises(InputError, match="no state dict at --key 'ema'; it has: model, model_ema"):
        read_weights(path, "ema")


def test_choices_are_listed_as_far_as_a_line_holds_them(tmp_path: Path) -> None:
    many = {f"model {i:02}": {"w": torch.ones(2) * i} for i in range(40)}
    with pytest.raises(InputError, match=r"\(model 00, .*, model 11 and 28 more\)"):
        read_weights(saved(tmp_path, many))


def test_what_a_file_holds_instead_is_said(tmp_path: Path) -> None:
    for content, words in (
        ([STATE, STATE], "but a list of 2: expected a state dict"),
        (torch.ones(3), "but one tensor without a name"),
        ({"state": {0: {"step": torch.ones(())}}, "param_groups": []}, "but an optimizer's state"),
        ({"epoch": 3}, "holds no tensors by name: expected"),
    ):
        with pytest.raises(InputError, match=words):
            read_weights(saved(tmp_path, content))


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="names a tensor 1, a int: expected names that are text"):
        read_weights(saved(tmp_path, {"a": torch.ones(2), 1: torch.ones(2)}))


def test_two_state_dicts_at_one_path_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds two state dicts at 'a.b'"):
        read_weights(saved(tmp_path, {"a.b": STATE, "a": {"b": {"w": torch.ones(1)}}}))


def test_names_with_control_characters_are_kept_and_shown_escaped(tmp_path: Path) -> None:
    odd = {"\x1b[31m\n": STATE, "b": STATE | {"c": torch.ones(2)}}
    path = saved(tmp_path, odd)
    with pytest.raises(InputError) as caught:
        read_weights(path)
    assert "(\\x1b[31m\\n, b)" in str(caught.value)
    assert str(caught.value).isprintable()
    assert list(read_weights(path, "\x1b[31m\n")) == list(STATE)
    named = {"a\u202e[bold]\t": torch.ones(2)}
    assert list(read_weights(saved(tmp_path, named))) == list(named)


def test_a_mapping_that_is_its_own_item_ends(tmp_path: Path) -> None:
    content: dict[str, object] = {"w": torch.ones(2)}
    content["itself"] = content
    assert list(read_weights(saved(tmp_path, content))) == ["w"]
