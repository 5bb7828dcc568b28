"""What is known about Megatron's versions; the versions themselves are run by tests/versions."""

from __future__ import annotations

import ast
import gc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from sft_shards.formats.errors import DataError
from sft_shards.trainer import worker
from sft_shards.trainer.launch import dry_run, launcher
from sft_shards.trainer.mcore import compat

pytestmark = pytest.mark.megatron


@pytest.mark.filterwarnings("ignore")  # Megatron's, at import
@pytest.mark.parametrize(
    ("text", "version", "warning"),
    [
        ("0.12.3", (0, 12), ""),
        ("0.19.2", (0, 19), ""),
        ("0.20.0rc1", (0, 20), "newer than any"),
        ("1.0", (1, 0), "1.0"),
    ],
)
def test_newer_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch, text: str, version: tuple[int, int], warning: str
) -> None:
    monkeypatch.setattr("megatron.core.__version__", text)
    assert compat.version() == version
    assert warning in compat.check_version()
    assert bool(compat.check_version()) == bool(warning)


@pytest.mark.filterwarnings("ignore")
def test_older_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron.core.__version__", "0.11.0")
    with pytest.raises(DataError, match=r"0\.11 is too old"):
        compat.check_version()


def test_no_other_file_compares_versions_or_inspects_signatures() -> None:
    """Docstring of compat: what is known of Megatron's versions stands there."""
    trainer = Path(compat.__file__).parents[1]
    of_torch = trainer / "isolation" / "kernels.py"  # looks at the signature of a function of torch's
    for path in sorted(trainer.rglob("*.py")):
        if path == Path(compat.__file__):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            imported = isinstance(node, ast.Import) and "inspect" in {name.name for name in node.names}
            assert not imported or path == of_torch, path
            if isinstance(node, ast.Compare):
                compared = ast.unparse(node)
                assert "compat.version" not in compared, path
                assert "megatron" not in compared or "__version__" not in compared, path


class Importing(Exception):  # noqa: N818
    """Torch or Megatron would be imported now; holds whether garbage is collected."""


@pytest.mark.parametrize(
    ("place", "name", "begin"),
    [
        (worker, "prepare", worker.run),
        (launcher.importlib, "import_module", launcher._run),
        (dry_run.cpu_device, "install", dry_run.check),
    ],
)
def test_no_garbage_is_looked_for_among_what_is_imported(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, begin: Callable[[Any], None]
) -> None:
    def importing(*_: object) -> NoReturn:
        raise Importing(gc.isenabled())

    monkeypatch.setattr(dry_run, "decide_by_table", lambda *_: None)
    with monkeypatch.context() as until:
        until.setattr(place, name, importing)
        with pytest.raises(Importing) as found:
            begin(SimpleNamespace(job=None, variables=(), nproc=1, world=1))
    assert found.value.args == (False,)
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0, "nor when the process ends"
    gc.unfreeze()
