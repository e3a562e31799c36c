"""Bundles: written once, opened only when whole."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dynens.batch import FeatureLayout, SparseField
from dynens.bundle import MANIFEST, Bundle, RouterSpec, load_bundle, write_bundle
from dynens.errors import BundleError

LAYOUT = FeatureLayout(("price",), (SparseField("user", 10), SparseField("tags", 5, 3)))


class Encoder:
    def save(self, directory: Path) -> None:
        (directory / "encoder.json").write_text("{}", encoding="utf-8")


def write(
    directory: Path,
    *,
    threshold: float = 0.5,
    student: bytes = b"student",
    ranking: Path | None = None,
    default_budget_ms: float = 8.0,
) -> Bundle:
    source = directory.parent / "source"
    source.mkdir(parents=True, exist_ok=True)
    (source / "s.onnx").write_bytes(student)
    (source / "e.onnx").write_bytes(b"ensemble")
    return write_bundle(
        directory,
        dataset="toy",
        layout=LAYOUT,
        router=RouterSpec(threshold=threshold, difficulty="margin", hard_fraction=0.2),
        members=["a", "b", "c"],
        student=source / "s.onnx",
        ensemble=source / "e.onnx",
        encoder=Encoder(),
        ranking=ranking,
        default_budget_ms=default_budget_ms,
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    written = write(tmp_path / "bundle")
    read = load_bundle(tmp_path / "bundle")
    assert read.manifest == written.manifest
    assert read.layout == LAYOUT
    assert set(read.manifest.checksums) == {
        "student.onnx",
        "ensemble.onnx",
        "encoder/encoder.json",
    }
    assert load_bundle(tmp_path).version == written.version  # the run directory will do


@pytest.mark.parametrize("threshold", [float("inf"), float("-inf")])
def test_infinite_thresholds_survive_json(tmp_path: Path, threshold: float) -> None:
    write(tmp_path / "bundle", threshold=threshold)
    json.loads((tmp_path / "bundle" / MANIFEST).read_text(), parse_constant=pytest.fail)
    assert load_bundle(tmp_path / "bundle").manifest.router.threshold == threshold


def test_the_version_follows_the_content(tmp_path: Path) -> None:
    first = write(tmp_path / "a").version
    assert len(first) == 12
    assert write(tmp_path / "b").version == first
    assert write(tmp_path / "c", student=b"other").version != first
    assert write(tmp_path / "d", threshold=0.6).version != first
    assert write(tmp_path / "e", default_budget_ms=9.0).version != first


def test_writing_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write(tmp_path / "out" / "bundle")
    again = write(tmp_path / "out" / "bundle", student=b"new")
    assert load_bundle(tmp_path / "out" / "bundle").version == again.version
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bundle", "source"]


def test_a_failed_write_leaves_the_old_bundle(tmp_path: Path) -> None:
    old = write(tmp_path / "out" / "bundle")
    with pytest.raises(FileNotFoundError):
        write_bundle(
            tmp_path / "out" / "bundle",
            dataset="toy",
            layout=LAYOUT,
            router=RouterSpec(threshold=0.5, difficulty="margin", hard_fraction=0.2),
            members=["a"],
            student=tmp_path / "absent.onnx",
            ensemble=tmp_path / "absent.onnx",
            encoder=Encoder(),
        )
    assert load_bundle(tmp_path / "out" / "bundle").version == old.version
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["bundle", "source"]


def _edit(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def edit(bundle: Path) -> None:
        manifest = json.loads((bundle / MANIFEST).read_text())
        change(manifest)
        (bundle / MANIFEST).write_text(json.dumps(manifest))

    return edit


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda b: (b / MANIFEST).unlink(), "neither a bundle"),
    "manifest cut": (lambda b: (b / MANIFEST).write_text('{"format": 1, '), "as JSON"),
    "manifest a list": (lambda b: (b / MANIFEST).write_text("[]"), "format None"),
    "manifest too deep": (lambda b: (b / MANIFEST).write_text("[" * 100_000), "as JSON"),
    "later format": (_edit(lambda m: m.update(format=3)), "format 3"),
    "key missing": (_edit(lambda m: m.pop("router")), "router"),
    "layout broken": (_edit(lambda m: m.update(layout={"dense": []})), "layout"),
    "layout cut": (_edit(lambda m: m["layout"].update(context=[])), "layout"),
    "file missing": (lambda b: (b / "student.onnx").unlink(), "lacks student.onnx"),
    "file cut": (lambda b: (b / "student.onnx").write_bytes(b"stu"), "checksum"),
    "file changed": (lambda b: (b / "student.onnx").write_bytes(b"STUDENT"), "checksum"),
    "graph not listed": (_edit(lambda m: m["checksums"].pop("student.onnx")), "lists no"),
    "outside": (
        _edit(lambda m: m["checksums"].update({"../x": {"sha256": "", "size_bytes": 0}})),
        "outside",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_bundle_is_refused_in_one_sentence(tmp_path: Path, case: str) -> None:
    damage, words = DAMAGE[case]
    write(tmp_path / "bundle")
    damage(tmp_path / "bundle")
    with pytest.raises(BundleError, match=words) as error:
        load_bundle(tmp_path / "bundle")
    assert "\n" not in str(error.value)


def test_without_verification_only_sizes_are_compared(tmp_path: Path) -> None:
    write(tmp_path / "bundle")
    (tmp_path / "bundle" / "student.onnx").write_bytes(b"STUDENT")
    load_bundle(tmp_path / "bundle", verify=False)
    (tmp_path / "bundle" / "student.onnx").write_bytes(b"S")
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "bundle", verify=False)


def test_graphs_for_candidates_are_part_of_the_bundle_where_there_are_any(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain")
    assert plain.rank_student is None
    assert plain.rank_ensemble is None
    ranking = tmp_path / "ranking"
    ranking.mkdir()
    (ranking / "student.onnx").write_bytes(b"for candidates")
    written = write(tmp_path / "bundle", ranking=ranking)
    assert written.version != plain.version
    found = load_bundle(tmp_path / "bundle")
    assert found.rank_ensemble is None
    assert found.rank_student is not None
    assert found.rank_student.read_bytes() == b"for candidates"
    found.rank_student.write_bytes(b"damaged......")
    with pytest.raises(BundleError, match="checksum"):
        load_bundle(tmp_path / "bundle")
