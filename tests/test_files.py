import tomllib
from pathlib import Path

import pytest

from earnest.files import cut_torn_line, read_json_lines, to_toml, write_atomic, write_json_lines


def test_atomic_write_keeps_the_old_file_when_it_fails(tmp_path: Path):
    file = tmp_path / "new" / "a.txt"
    write_atomic(file, "old")
    with pytest.raises(TypeError):
        write_atomic(file, 3)  # type: ignore[arg-type]
    assert file.read_text() == "old"
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]


def test_json_lines_hold_unusual_line_ends_and_refuse_nan(tmp_path: Path):
    rows = [{"text": "a\u2028b\x85c\nd"}, {"text": "ü"}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    assert read_json_lines(tmp_path / "rows.jsonl") == rows
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json_lines(tmp_path / "rows.jsonl", [{"x": float("nan")}])
    assert read_json_lines(tmp_path / "rows.jsonl") == rows


def test_torn_line_is_cut(tmp_path: Path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2')
    assert cut_torn_line(file) == 7
    assert file.read_bytes() == b'{"a": 1}\n'
    assert cut_torn_line(file) == 0


def test_toml_reads_back():
    values = {
        "model": 'po"ck\\et\n\x7f\u2028',
        "limit": None,
        "n": 3,
        "rate": 1e-9,
        "big": float("inf"),
        "on": True,
        "stop": ["a", "b"],
        "path": Path("x/y"),
        "odd name.é": {"inner": {"empty": [], "x": 1}},
    }
    read = tomllib.loads(to_toml(values))
    assert read == {key: value for key, value in values.items() if value is not None} | {"path": "x/y"}
    with pytest.raises(TypeError, match="thing is a object"):
        to_toml({"thing": object()})
