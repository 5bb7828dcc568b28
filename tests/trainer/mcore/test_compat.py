"""What is known about Megatron's versions; the versions themselves are run by tests/versions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from sft_shards.formats.errors import DataError
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
