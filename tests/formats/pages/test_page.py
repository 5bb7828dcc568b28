"""Pages: everything escaped, lines bounded, and no file where there should be none."""

from pathlib import Path

import pytest

from sft_shards.formats.errors import UsageError
from sft_shards.formats.pages.page import check_output, clip, render

pytestmark = pytest.mark.unit


def test_texts_are_escaped() -> None:
    assert "<title>&lt;script&gt;&#34;&amp;</title>" in render("report.html", title='<script>"&', report=None)


def test_a_line_is_bounded() -> None:
    assert clip("a\nb") == r"a\nb"
    assert clip("abc", 3) == "abc"
    long = clip("x" * 10**7 + "end", 100)
    assert len(long) <= 100
    assert long.endswith("end")
    assert len(clip("\x00" * 10**6, 50)) <= 50


def test_a_page_is_not_written_into_a_shard_directory_or_over_a_folder(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    check_output(tmp_path / "page.html", shards)
    for wrong in (shards / "page.html", shards, tmp_path / "nothing" / "page.html"):
        with pytest.raises(UsageError):
            check_output(wrong, shards)
    (tmp_path / "link").symlink_to(shards)
    with pytest.raises(UsageError, match="lies in the shard directory"):
        check_output(tmp_path / "link" / "page.html", shards)
