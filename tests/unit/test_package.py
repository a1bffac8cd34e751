"""Manners of the package: exports, start-up, errors, records."""

from __future__ import annotations

import inspect
import math
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import mudit
from mudit import errors
from mudit.records import StepRecord, TrialRecord, from_row, read_records, to_line


def test_exports_are_sorted_and_there() -> None:
    assert mudit.__all__ == sorted(mudit.__all__)
    for name in mudit.__all__:
        assert getattr(mudit, name) is not None
    assert set(mudit.__all__) <= set(dir(mudit))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mudit.nonsense


def test_no_public_function_bears_a_top_packages_name() -> None:
    packages = {module.name for module in pkgutil.iter_modules(mudit.__path__)}
    assert packages >= {"parametrization", "training", "tuning", "models"}
    assert not packages & set(mudit.__all__)


def test_importing_mudit_does_not_import_torch() -> None:
    code = "import sys, mudit; from mudit.cli import main; main([]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
    assert "transfer" in done.stdout


def test_every_error_is_in_the_tree_and_refines_a_builtin() -> None:
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(c, errors.MuditError) for c in classes)
    assert all(c.__name__ in errors.__doc__ for c in classes)
    exits = {c.__name__: c.exit_code for c in classes}
    assert exits["UsageError"] == exits["ParametrizationError"] == 2
    assert exits["DataError"] == exits["EnvironmentFailure"] == 3
    assert exits["Interrupted"] == 130


numbers = st.floats(allow_nan=False)


@given(
    step=st.integers(1, 10**9),
    loss=numbers,
    terms=st.dictionaries(st.text(max_size=5), numbers, max_size=3),
    norm=numbers,
)
def test_records_round_trip_exactly(step, loss, terms, norm) -> None:
    import json

    record = StepRecord(step=step, loss=loss, terms=terms, grad_norm=norm, lr=0.1)
    line = to_line(record)
    assert line.endswith("\n")
    assert from_row(json.loads(line)) == record


def test_nan_survives() -> None:
    import json

    record = StepRecord(step=1, loss=math.nan, terms={"a": math.inf}, grad_norm=1.0, lr=0.1)
    again = from_row(json.loads(to_line(record)))
    assert math.isnan(again.loss)
    assert again.terms == {"a": math.inf}


def test_damaged_records_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    good = to_line(StepRecord(step=1, loss=1.0, terms={}, grad_norm=1.0, lr=0.1))
    for bad in ('{"kind":"step","st', '{"kind":"unknown"}', '{"kind":"step","step":1}'):
        path.write_text(good + bad + "\n")
        with pytest.raises(errors.DataError, match=r"records\.jsonl, line 2"):
            list(read_records(path))


def test_strings_that_look_like_numbers_stay_strings() -> None:
    record = TrialRecord(
        key="run", role="proxy", parametrization="mup", width=1, parameters=1, batch_size=1,
        steps=1, seed=0, hps={}, status="diverged", diverged_step=1, score=None, train_flops=1.0,
        seconds=1.0,
    )  # fmt: skip
    import json

    assert from_row(json.loads(to_line(record))) == record
