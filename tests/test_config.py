"""Typed configuration: layers, bases, overrides, and one sentence for everything that is wrong."""

import os
import re
from dataclasses import dataclass, field
from typing import Any

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
    note: str | None = "a"
    limit: float | None = 1.0


@dataclass
class Options:
    teacher: str = ""
    shift: float = 0.0


@dataclass
class Whole:
    root: str = MISSING
    part: Part = field(default_factory=Part)
    free: dict[str, int] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "plain"})


#: ``method`` is of `Options` where its name is taught.
SECTIONS: Any = {"method": lambda given: Options if given["name"] == "taught" else None}


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
        ("part.size=[", "not valid YAML"),
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


@pytest.mark.parametrize(
    "text",
    [
        "/x/birds #2",
        "a: b",
        "2024_01",
        "010",
        "on",
        "~",
        "1e3",
        "[a",
        "{x}",
        "'q'",
        "",
        " x ",
        "!!int 3",
        "&a",
    ],
)
def test_an_override_of_text_is_taken_as_typed(text):
    config = load_config(
        Whole,
        [],
        [
            f"root={text}",
            f"part.name={text}",
            f"part.note={text}",
            f"method.teacher={text}",
            "method.name=taught",
        ],
        sections=SECTIONS,
    )
    found = (config.root, config.part.name, config.part.note, config.method["teacher"])
    assert found == (text,) * 4


def test_null_is_none_where_the_field_may_be_none_and_text_elsewhere():
    config = load_config(Whole, [], ["root=null", "part.note=null", "part.limit=null"])
    assert (config.root, config.part.note, config.part.limit) == ("null", None, None)
    for empty in ("part.limit=~", "part.limit=", "part.size=null", "part={size: ~}"):
        with pytest.raises(UserError, match=r"part\.(limit|size)|part=\{"):
            load_config(Whole, [], ["root=x", empty])


def test_options_of_an_open_section_that_are_no_text_are_yaml():
    given = ["method.shift=1e-3", "method.other=[1, 2]", "root=x"]
    config = load_config(Whole, [], [*given, "method.name=taught"], sections=SECTIONS)
    assert config.method == {"name": "taught", "shift": 0.001, "other": [1, 2]}
    assert load_config(Whole, [], given, sections=SECTIONS).method["name"] == "plain"


def test_a_number_in_a_file_where_text_belongs_is_the_text_that_was_written(tmp_path):
    (tmp_path / "top.yaml").write_text("root: 2024_01\npart: {name: 010, note: on, size: 0x10, limit: null}")
    config = load_config(Whole, [tmp_path / "top.yaml"])
    assert (config.root, config.part) == ("2024_01", Part(16, [0.1], "010", "on", None))
    assert load_config(Whole, [], ["root=x", "part={name: 1_0}"]).part.name == "1_0"


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "a${part.name}", "${"])
def test_interpolations_are_refused(tmp_path, value):
    (tmp_path / "top.yaml").write_text(f"root: '{value}'")
    with pytest.raises(UserError, match="top.yaml.*root"):
        load_config(Whole, [tmp_path / "top.yaml"])
    for override in (f"root={value}", f"method.deep=[{{a: '{value}'}}]"):
        with pytest.raises(UserError, match="root|method.deep"):
            load_config(Whole, [], ["root=x", override])
    with pytest.raises(UserError, match="part.*name"):
        load_config(Whole, [], ["root=x"], values={"part": {"name": value}})


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB, id="aliases"),
        pytest.param(MERGES, id="merge keys"),
        pytest.param("a: &a [*a]", id="an alias in itself"),
        pytest.param("a: &a {<<: *a}", id="a merge key in itself"),
        pytest.param("a: " + "[" * 100_000, id="brackets"),
        pytest.param("- " * 100_000, id="lists in lists"),
        pytest.param("a: [" + "1," * 100_000 + "1]", id="values"),
        pytest.param("a: 0x" + "f" * 200_000, id="hexadecimal digits"),
        pytest.param("a: " + "1:" * 100_000 + "1", id="sexagesimal digits"),
        pytest.param("a: " + "9" * 200_000, id="digits"),
        pytest.param("part: {size: 99999999999999999999}", id="more than 63 bits"),
        pytest.param("root: " + "x" * (1 << 20), id="a megabyte"),
        pytest.param("root: !!python/object/apply:os.system ['echo hostile']", id="a tag that runs code"),
        pytest.param("root: !!python/object/apply:pathlib.Path [x]", id="a path's tag"),
        pytest.param("root: !!bool x", id="a boolean's tag"),
        pytest.param("base: https://example.org/x.yaml", id="an address"),
        pytest.param("base: [" + "other.yaml, " * 200 + "other.yaml]", id="bases"),
    ],
)
def test_files_that_are_no_configs_are_refused_at_once(tmp_path, text):
    (tmp_path / "other.yaml").write_text("root: x")
    (tmp_path / "top.yaml").write_text(text)
    with pytest.raises(UserError, match="top.yaml") as caught:
        load_config(Whole, [tmp_path / "top.yaml"])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "[" * 60, "- " * 60, "1" + "0" * 30])
def test_numbers_and_lists_that_are_too_long_are_refused_in_an_override(value):
    for key in ("part.size", "part.limit", "part.rates", "free.x", "method.x"):
        with pytest.raises(UserError, match=key) as caught:
            load_config(Whole, [], ["root=x", f"{key}={value}"])
        assert len(str(caught.value)) < 1000


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for file in (tmp_path / "pipe.yaml", "/dev/zero", tmp_path):
        with pytest.raises(UserError, match=str(file)):
            load_config(Whole, [file])
    (tmp_path / "top.yaml").write_text("base: pipe.yaml")
    with pytest.raises(UserError, match="pipe.yaml"):
        load_config(Whole, [tmp_path / "top.yaml"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path, encoding):
    (tmp_path / "top.yaml").write_bytes("root: ä\r\npart: {size: 4}\r\n".encode(encoding))
    config = load_config(Whole, [tmp_path / "top.yaml"])
    assert (config.root, config.part.size) == ("ä", 4)
