"""What every data source must hold to, the user's own included (DISTIL_PLUGINS names where they are)."""

from __future__ import annotations

import pytest

from distil.data.base import DATA, ColumnsConfig, DataSource, check_data
from distil.data.columns import detect
from distil.types import InputError

NAMES = sorted(DATA.entries())
OURS = [name for name in NAMES if DATA.get(name).factory.__module__.startswith("distil.data.")]


def config_of(name: str) -> ColumnsConfig:
    """All keys at their defaults."""
    config = DATA.get(name).config
    assert config is not None
    assert issubclass(config, ColumnsConfig), "its rows are told apart by the keys of ColumnsConfig"
    return config()


def source(name: str) -> DataSource[ColumnsConfig]:
    return DATA.get(name).factory(config_of(name))


@pytest.mark.parametrize("name", OURS)
def test_one_name(name: str) -> None:
    """File stem = registry name = the config's own name."""
    assert DATA.get(name).factory.__module__.rpartition(".")[2] == name == config_of(name).name


@pytest.mark.parametrize("name", NAMES)
def test_messages_name_a_key_of_data(name: str) -> None:
    for split in ("train", "validation", "test"):
        assert source(name).where(split).startswith("data")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_there_is_refused_early_and_what_is_there_is_read(name: str) -> None:
    """No key given, no network: a message that names a key of data, or rows, the same ones each time."""
    refused = ""
    try:
        check_data(config_of(name), allow_network=False)
    except InputError as error:
        refused = str(error)
    if refused:
        assert refused.startswith("data.")
        with pytest.raises(InputError, match=r"^data\."):
            source(name).rows(allow_network=False)
        return
    first, again = (source(name).rows(allow_network=False).train for _ in range(2))
    assert len(first) == len(again) > 0
    assert [first[i] for i in range(10)] == [again[i] for i in range(10)]
    detect(config_of(name), list(first[0]), source(name).where("train"))
