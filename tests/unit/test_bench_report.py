"""The harness's report: what is held against a floor, what a verdict says, and what a reader of the JSON finds."""

from __future__ import annotations

import json

from bench.quantiles import Quantiles
from bench.report import Outcome, Report, Row, as_text, at_least, at_most, none_of, not_measurable, row_lines


def row() -> Row:
    made = Row("static", "static sites", floor="floor", compared=("vibeD",))
    made.time("floor", [2.0, 2.0, 2.0])
    made.time("vibeD", [5.0, 6.0, 90.0])
    return made


def test_a_ratio_is_of_the_middles() -> None:
    assert row().ratio("vibeD") == 3.0


def test_without_a_floor_there_is_no_ratio() -> None:
    made = Row("static", "static sites", floor="floor", compared=("vibeD",))
    made.time("vibeD", [5.0])
    assert made.ratio("vibeD") is None


def test_a_series_without_samples_is_noted_and_not_invented() -> None:
    made = Row("static", "static sites")
    assert made.time("vibeD", []) is None
    assert made.series == {}
    assert made.notes == ["vibeD: no sample"]


def test_steps_are_kept_by_name_even_when_not_every_deploy_has_them() -> None:
    made = Row("static", "static sites")
    made.time_steps("vibeD", [{"store": 1.0, "bundle": 9.0}, {"store": 3.0}])
    assert made.steps["vibeD"]["store"].n == 2
    assert made.steps["vibeD"]["bundle"] == Quantiles.of([9.0])


def test_a_target_that_is_reached_exactly_is_met() -> None:
    assert at_most("p50 ≤ 10 ms", 10.0, 10.0).outcome is Outcome.MET
    assert at_least("≥ 0.85", 0.85, 0.85).outcome is Outcome.MET


def test_a_target_that_is_missed_says_by_what() -> None:
    verdict = at_most("p50 ≤ 10 ms", 12.5, 10.0)
    assert verdict.outcome is Outcome.NOT_MET
    assert verdict.seen == "12.5 against 10 ms"


def test_counts_that_should_be_zero_name_those_that_are_not() -> None:
    assert none_of("0 failed", {"GET": 0, "POST": 0}).outcome is Outcome.MET
    verdict = none_of("0 failed", {"GET": 0, "POST": 3})
    assert (verdict.outcome, verdict.seen) == (Outcome.NOT_MET, "3 POST")


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert not_measurable("p99", "12 samples have no 99th percentile").outcome is Outcome.NOT_MEASURABLE


def test_the_text_shows_floor_ratio_and_verdict_in_the_row() -> None:
    made = row()
    made.verdicts.append(at_most("static p50 ≤ 10 ms", 6.0, 10.0))
    text = "\n".join(row_lines(made))
    floor, vibed = (line for line in text.splitlines() if line.startswith(("  floor", "  vibeD")))
    assert floor.endswith("floor")
    assert vibed.endswith("3.00x")
    assert "[met] static p50 ≤ 10 ms: 6 against 10 ms" in text


def test_the_summary_lists_every_target_that_was_not_met() -> None:
    good, bad = row(), row()
    good.verdicts.append(at_most("quick", 1.0, 2.0))
    bad.verdicts += [at_most("slow", 3.0, 2.0), not_measurable("unknown", "too few")]
    told = as_text(Report(rows=[good, bad])).splitlines()
    assert told[-3] == "targets: 1 met, 1 not met, 1 not measurable here"
    assert told[-2].startswith("  static: slow")
    assert told[-1].startswith("  static: unknown")


def test_the_json_holds_all_of_it() -> None:
    made = row()
    made.figures["late"] = 0
    made.verdicts.append(at_most("static p50 ≤ 10 ms", 6.0, 10.0))
    report = Report(machine={"cpus": 2}, disk={"before": {"fsync": Quantiles.of([0.5])}}, rows=[made], quick=True)
    told = json.loads(json.dumps(report.as_json()))
    assert told["schema"] == 1
    assert told["quick"] is True
    assert told["disk"]["before"]["fsync"]["p50"] == 0.5
    assert told["rows"][0]["ratios"] == {"vibeD": 3.0}
    assert told["rows"][0]["series"]["vibeD"]["most"] == 90.0
    assert told["rows"][0]["verdicts"][0]["outcome"] == "met"
