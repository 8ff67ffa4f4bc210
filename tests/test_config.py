"""Typed configuration: layers, bases, overrides, and one sentence for everything that is wrong."""

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from automix_transfer.config import MISSING, load_config, read_layers, read_yaml, to_yaml
from automix_transfer.errors import UserError


@dataclass
class Part:
    size: int = 3
    rates: list[float] = field(default_factory=lambda: [0.1])
    name: str = "a"


@dataclass
class Whole:
    root: str = MISSING
    part: Part = field(default_factory=Part)
    free: dict[str, int] = field(default_factory=dict)


def test_bases_come_first_then_the_file_then_overrides(tmp_path):
    (tmp_path / "deep.yaml").write_text("root: deep\npart: {size: 4, name: deep}")
    (tmp_path / "base.yaml").write_text("base: deep.yaml\npart: {name: base}\nfree: {x: 1}")
    (tmp_path / "top.yaml").write_text("base: [base.yaml]\npart: {rates: [1, 2]}")
    config = load_config(Whole, [tmp_path / "top.yaml"], ["part.size=5", "free.y=2"])
    assert isinstance(config, Whole)
    assert (config.root, config.part, config.free) == ("deep", Part(5, [1.0, 2.0], "base"), {"x": 1, "y": 2})
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config(Whole, [tmp_path / "again.yaml"]) == config


@pytest.mark.parametrize(
    "override, words",
    [
        ("root", "key=value"),
        ("=1", "key=value"),
        pytest.param("part.sise=1", "'part.sise'.*'size'", id="part.sise=1-'part.sise'; did you mean 'size'"),
        pytest.param("zzz=1", "root, part, free", id="zzz=1-known keys here: root, part, free"),
        ("part.size=large", "part.size.*int"),
        ("part=3", "part"),
        ("root=[", "not valid YAML"),
        ("part.size=1.5", "part.size"),
    ],
)
def test_wrong_overrides_are_one_sentence_that_names_the_key(override, words):
    with pytest.raises(UserError, match=re.compile(words, re.IGNORECASE)) as caught:
        load_config(Whole, [], ["root=x", override])
    assert "\n" not in str(caught.value)


def test_missing_value_is_named():
    with pytest.raises(UserError, match="'root' has no value"):
        load_config(Whole)


@pytest.mark.parametrize(
    "text, words",
    [
        ("part: [1", "not valid YAML at line"),
        ("- 1", "must be a mapping"),
        ("base: top.yaml", "based on itself"),
        ("base: 3", "'base' must be"),
        ("base: none.yaml", "none.yaml does not exist"),
        ("part: {size: x}", "part.size"),
        ("1: 2", "must be a mapping"),
    ],
)
def test_wrong_files_are_one_sentence_that_names_the_file(tmp_path, text, words):
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_config(Whole, [tmp_path / "top.yaml"], ["root=x"])
    assert ".yaml" in str(caught.value)


@pytest.mark.parametrize(
    "text, words",
    [
        pytest.param(
            "root: x\npart: {size: 4}\nroot: y",
            "line 3 .*key root",
            id="root: x\npart: {size: 4}\nroot: y"
            "-top.yaml has the key 'root' twice in one mapping, at lines 1 and 3",
        ),
        pytest.param(
            "part:\n  size: 4\nfree: {x: 1}\npart:\n  name: b",
            "line 4 .*key part",
            id="part:\n  size: 4\nfree: {x: 1}\npart:\n  name: b"
            "-'part' twice in one mapping, at lines 1 and 4",
        ),
        pytest.param(
            "part:\n  size: 4\n  name: b\n  'size': 5",
            "line 4 .*key size",
            id="part:\n  size: 4\n  name: b\n  'size': 5-'size' twice in one mapping, at lines 2 and 4",
        ),
        pytest.param(
            "free: &a {x: 1, x: 1}",
            "line 1 .*key x",
            id="free: &a {x: 1, x: 1}-'x' twice in one mapping, at lines 1 and 1",
        ),
    ],
)
def test_a_key_twice_is_refused(tmp_path, text, words):
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(UserError, match=f"top.yaml .*{words}") as caught:
        load_config(Whole, [tmp_path / "top.yaml"], ["root=x"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="free={x: 1, x: 2}.*key x"):
        load_config(Whole, [], ["root=x", "free={x: 1, x: 2}"])


def test_merge_keys_are_no_duplicates(tmp_path):
    (tmp_path / "merged.yaml").write_text(
        "a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, z: 4}\nd: {<<: [*b, *a], y: 5}\n"
        "e: {<<: *a, <<: *b}\n"
    )
    found = read_yaml(tmp_path / "merged.yaml")
    assert (
        found["b"] == {"x": 3, "y": 2}
        and found["c"] == {"x": 3, "y": 2, "z": 4}
        and found["d"] == {"x": 3, "y": 5}
    )
    assert set(found["e"]) == {"x", "y"}


def test_the_head_of_a_file_is_no_setting(tmp_path):
    (tmp_path / "base.yaml").write_text("reproduces: {table: 1}\nroot: x")
    (tmp_path / "top.yaml").write_text("base: base.yaml\nreproduces: {table: 2}\npart: {size: 5}")
    assert load_config(Whole, [tmp_path / "top.yaml"]).part.size == 5
    heads = {file.name: layer["reproduces"] for file, layer in read_layers(tmp_path / "top.yaml")}
    assert heads == {"base.yaml": {"table": 1}, "top.yaml": {"table": 2}}


def test_a_value_in_place_of_a_section_is_named(tmp_path):
    (tmp_path / "top.yaml").write_text("root: x\npart: 3")
    with pytest.raises(UserError, match="top.yaml: config key 'part'"):
        load_config(Whole, [tmp_path / "top.yaml"])


def test_not_text(tmp_path):
    (tmp_path / "top.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="top.yaml"):
        load_config(Whole, [tmp_path / "top.yaml"])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="abcroptsize.:=-[]{}&*!|>'\"%@`#, \n\t0123456789", max_size=60))
def test_random_input_never_gives_a_traceback(tmp_path, text):
    (tmp_path / "random.yaml").write_text(text)
    for files, overrides in (([tmp_path / "random.yaml"], []), ([], [text])):
        try:
            config = load_config(Whole, files, overrides)
        except UserError as error:
            assert str(error)
        else:  # what is accepted is of the right types, and is read back as it was written
            assert isinstance(config.root, str) and isinstance(config.part.size, int)
            (tmp_path / "again.yaml").write_text(to_yaml(config))
            assert load_config(Whole, [tmp_path / "again.yaml"]) == config
