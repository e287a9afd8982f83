"""benchmarks.untrained: a bundle as the export of today makes it."""

from __future__ import annotations

from pathlib import Path

from benchmarks import untrained


def test_a_bundle_of_any_number_of_sensors_is_made_once(tmp_path: Path) -> None:
    made = untrained.make(2, tmp_path)
    assert [m.name for m in made.manifest.modalities] == ["s0", "s1"]
    written = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert untrained.make(2, tmp_path).manifest == made.manifest
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == written
