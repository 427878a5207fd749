"""README's table of reasons: links lead somewhere, and what is said of others is what their installed packages have."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from baselines.errors import UserError
from bench.report.readme import with_beside

ROOT = Path(__file__).parents[2]
OWN = "this suite"


def rows() -> list[dict[str, str]]:
    """Each line of the table by the heads of its columns."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    held = text.split("<!-- why: tests/peers/test_why.py -->")[1].split("<!-- end of why -->")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in held.strip().splitlines()]
    heads, _, *body = lines
    assert all(len(line) == len(heads) for line in body)
    return [dict(zip(heads, line, strict=True)) for line in body]


def test_every_yes_of_ours_has_a_link_and_every_link_of_the_table_leads_to_a_file_of_the_project() -> None:
    assert len(rows()) > 8, "the premise: there is a table"
    for row in rows():
        links = [link for cell in row.values() for link in re.findall(r"\]\(([^)]*)\)", cell)]
        assert links or row[OWN] == "no", row
        for link in links:
            assert not link.startswith(("/", ".", "http")), link
            assert (ROOT / link).is_file(), link


def test_where_another_is_the_better_choice_the_table_says_so() -> None:
    assert sum(row[OWN].startswith("no") and "yes" in row.values() for row in rows()) >= 3


def source(package: str, folder: str = "", ending: str = "py") -> str:
    """All of a package's files of this kind, or skip where it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    place = Path(found.submodule_search_locations[0]) / folder
    files = sorted(place.rglob(f"*.{ending}"))
    assert files
    return "\n".join(file.read_text(encoding="utf-8", errors="replace") for file in files).lower()


@pytest.mark.parametrize(
    ("package", "folder", "ending", "there", "absent"),
    [
        ("torch_fidelity", "", "py", ("metric_prc", "metric_kid", "metric_isc"), ("bootstrap", "confidence interval")),
        ("cleanfid", "", "py", ("def compute_fid", "def compute_kid", "ffhq"), ("inception score", "recall")),
        (
            "pythae",
            "",
            "py",
            ("def get_nll", '"optimizer.pt"'),
            ("frechet", "bits_per_dim", "latency", "optimizer.load_"),
        ),
        ("diffusers", "schedulers", "py", ("class ddimscheduler",), ("bits_per_dim", "bits per dim")),
        ("zuko", "flows", "py", ("class nsf", "class maf"), ("trainer", "bits per dim")),
        ("nflows", "flows", "py", ("maskedautoregressiveflow",), ("trainer", "bits per dim")),
        ("benchopt", "plotting/html/templates", "html", ("https://cdn",), ()),
        ("benchopt", "", "py", ("def cache",), ("peak_bytes", "frechet")),
    ],
)
def test_what_the_table_says_of_an_installed_library_is_so(
    package: str, folder: str, ending: str, there: tuple[str, ...], absent: tuple[str, ...]
) -> None:
    text = source(package, folder, ending)
    assert [word for word in there if word not in text] == []
    assert [word for word in absent if word in text] == []


def test_a_readme_without_a_place_for_the_races_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="around the table of other libraries"):
        with_beside("no place", tmp_path)
