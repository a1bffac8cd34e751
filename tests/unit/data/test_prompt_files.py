"""Prompts from files of all three kinds, and what is said of broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from mudit.data import read_prompts
from mudit.errors import DataError


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "\ufeffa cat\r\n\r\n  two dogs, \u2028 one red \n"),
        ("a", "a cat\n\n\ntwo dogs, \u2028 one red"),
        ("a.jsonl", '{"prompt": "a cat"}\n\n"two dogs, \\u2028 one red"\n'),
        ("a.JSONL", '{"caption": "a cat"}\n{"text": "two dogs, \u2028 one red"}\n{"text": ""}'),
        ("a.csv", 'n,caption\n1,a cat\n2,\n3,"two dogs, \u2028 one red"\n'),
    ],
)  # fmt: skip
def test_prompts_are_read_in_order_and_blank_ones_passed_over(tmp_path, name, content) -> None:
    assert read_prompts(written(tmp_path, name, content)) == ("a cat", "two dogs, \u2028 one red")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "\n  \n\n", "has none"),
        ("a.txt", b"a caf\xe9\n", "not UTF-8: byte 5"),
        ("a.jsonl", '"a"\n{"prompt": \n', "line 2: no JSON"),
        ("a.jsonl", '{"prompt": 3}\n', "line 1: no prompt in it"),
        (
            "a.jsonl",
            '"a"\n{"prompt": "b \\ud800"}\n',
            r"line 2: the prompt 'b \\ud800' is not Unicode",
        ),
        ("a.jsonl", '["a"]\n', "line 1: no prompt in it"),
        ("a.csv", "file,words\na,b\n", "columns file, words; expected one of prompt"),
        ("a.csv", 'prompt\n"a" cat\n', "line 2: no CSV"),
        ("a.csv", "", "columns none"),
        (
            "a.csv",
            "prompt\na bird\na cat, a dog\n",
            r"line 3: more fields \(2\) than columns \(1\)",
        ),
        ("a.csv", 'prompt\na bird\n"a cat\na dog\n', "line 3: no CSV .*close each quote"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, name, content, words) -> None:
    path = written(tmp_path, name, content)
    with pytest.raises(DataError, match=words) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file_is_said_so(tmp_path) -> None:
    with pytest.raises(DataError, match=r"does not exist.*--prompts '\[\"a red apple\"\]'"):
        read_prompts(tmp_path / "a red apple")
    with pytest.raises(DataError, match="is a folder"):
        read_prompts(tmp_path)
