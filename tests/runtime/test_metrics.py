"""runtime.metrics: what is counted, in a text that Prometheus' own parser reads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from robult_edge.bundle import Bundle
from robult_edge.results import LatencyUs
from runtime.metrics import BOUNDS_US, RECENT, Histogram, Metrics, _labels, render
from runtime.policy import Policy
from runtime.rigs import Rigs
from runtime.stream import Stream
from tests.runtime.live import Stage, staged

WARM_UP, HOPS = 6, 4


@pytest.fixture
def stage(shipped: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with staged(shipped, monkeypatch, "cpu") as stage:
        stage.play(WARM_UP + HOPS)
        yield stage


def scraped(stage: Stage) -> dict[str, dict[tuple[str, ...], float]]:
    """Sample name → label values → value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(render(stage.server).decode()):
        assert family.type != "unknown"
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_every_count_is_what_happened(stage: Stage, shipped: Bundle) -> None:
    stage.server._take([b"nonsense"])
    stage.hear(only="acc")
    found = scraped(stage)
    frames = WARM_UP + HOPS
    assert found["robult_bundle_info"] == {(shipped.manifest.name,): 1}
    assert found["robult_frames_received_total"] == {(): 2 * frames + 1}
    assert found["robult_frames_rejected_total"] == {("parts",): 1}
    assert found["robult_frames_total"]["acc", "fresh"] == frames + 1
    assert found["robult_sensors"]["gyro", "alive"] == 1
    assert found["robult_sensors"]["gyro", "stale"] == 0
    assert found["robult_rigs"] == {(): 1}
    assert sum(found["robult_results_total"].values()) == stage.latest.seq + 1
    assert found["robult_results_total"]["acc+gyro",] >= HOPS
    assert found["robult_reloads_total"] == {("ok",): 0, ("refused",): 0}
    assert found["robult_engine_up"]["gyro", "cpu"] == 1


def test_failed_engine_shows(stage: Stage) -> None:
    def throws() -> None:
        raise RuntimeError

    stage.ills.of["cpu", "gyro"] = throws
    stage.play(2)
    found = scraped(stage)
    assert found["robult_engine_up"]["gyro", "none"] == 0
    assert found["robult_engine_failures_total"] == {("gyro",): 1}
    assert found["robult_results_total"]["acc",] == 2


def test_counts_of_a_sensor_that_is_gone_stay(stage: Stage) -> None:
    before = scraped(stage)["robult_frames_total"]["gyro", "fresh"]
    acc, gyro = stage.server.manifest.modalities
    other = msgspec.structs.replace(gyro, timeout_s=gyro.timeout_s + 1)
    manifest = msgspec.structs.replace(stage.server.manifest, modalities=(acc, other))
    stage.server.rigs.adopt(manifest, 1, stage.clock.now)
    stage.hear()
    assert scraped(stage)["robult_frames_total"]["gyro", "fresh"] == before + 1


def test_no_count_falls_when_a_source_is_forgotten(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staged(shipped, monkeypatch, "cpu", policy=Policy(idle_s=5.0)) as stage:
        stage.play(WARM_UP)
        before = scraped(stage)
        assert before["robult_rigs_forgotten_total"] == {(): 0}
        stage.clock.now += 60_000_000_000
        stage.server.turn()
        after = scraped(stage)
        assert after["robult_rigs"] == {(): 0}
        assert after["robult_rigs_forgotten_total"] == {(): 1}
        for name, samples in before.items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                for labels, value in samples.items():
                    assert after[name][labels] >= value, (name, labels)


@pytest.mark.parametrize("ending", ["forgotten", "reloaded"])
def test_a_scrape_amid_the_end_of_a_stream_misses_no_frame(
    shipped: Bundle, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Another thread scrapes when the stream is gone and its counts are not yet taken over."""
    with staged(shipped, monkeypatch, "cpu", policy=Policy(idle_s=5.0)) as stage:
        stage.play(WARM_UP)
        rigs, end, seen = stage.server.rigs, Rigs._end, []
        before = scraped(stage)["robult_frames_total"]

        def scrape() -> None:
            seen.append(scraped(stage)["robult_frames_total"])

        scraping = threading.Thread(target=scrape, daemon=True)

        def slowly(self: Rigs, streams: Iterable[Stream]) -> None:
            scraping.start()
            scraping.join(0.3)  # one that does not notice is done by now
            end(self, streams)

        monkeypatch.setattr(Rigs, "_end", slowly)
        if ending == "forgotten":
            stage.clock.now += 60_000_000_000
            stage.server.turn()
        else:
            acc, gyro = stage.server.manifest.modalities
            other = msgspec.structs.replace(gyro, timeout_s=gyro.timeout_s + 1)
            manifest = msgspec.structs.replace(stage.server.manifest, modalities=(acc, other))
            rigs.adopt(manifest, 1, stage.clock.now)
        scraping.join(20)
        (found,) = seen
        assert found == before


def test_histograms_count_each_result_once_and_in_the_right_bucket() -> None:
    histogram = Histogram()
    for us in (1, 25, 26, 10**7):
        histogram.add(us)
    assert histogram.counts[0] == 2, "a bound belongs to its bucket"
    assert histogram.counts[1] == 1
    assert histogram.counts[-1] == 1
    assert histogram.sum_us == 1 + 25 + 26 + 10**7


def test_scraped_histograms_are_cumulative_and_whole(stage: Stage) -> None:
    latency = LatencyUs(wait=3, infer=120, fuse=60, total=BOUNDS_US[-1] + 1)
    stage.server.metrics.observe("acc", latency)
    found = scraped(stage)
    for stage_name in ("wait", "infer", "fuse", "latency"):
        buckets = list(found[f"robult_{stage_name}_seconds_bucket"].values())
        assert buckets == sorted(buckets)
        assert buckets[-1] == found[f"robult_{stage_name}_seconds_count"][()]
    assert found["robult_latency_seconds_sum"][()] == pytest.approx((BOUNDS_US[-1] + 1) / 1e6)


def test_results_without_a_sensor_have_no_latency() -> None:
    metrics = Metrics()
    metrics.observe("none", LatencyUs(wait=0, infer=0, fuse=0, total=0))
    assert metrics.answers == {"none": 1}
    assert sum(metrics.total.counts) == 0
    assert not metrics.recent_us


def test_recent_latencies_are_bounded() -> None:
    metrics = Metrics()
    for us in range(1, RECENT + 11):
        metrics.observe("acc", LatencyUs(wait=0, infer=1, fuse=1, total=us))
    assert list(metrics.recent_us) == list(range(11, RECENT + 11))


def test_label_values_are_escaped() -> None:
    said = 'a "b" \\ \n c'
    line = f"x{_labels({'why': said})} 1\n"
    (family,) = text_string_to_metric_families(line)
    assert family.samples[0].labels == {"why": said}
