"""The controller's policy: what is wanted and what is there, and nothing else, decide what happens."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibed.apps.app import Phase
from vibed.controller.decision import (
    LOST_ATTEMPTS,
    MAX_BACKOFF_S,
    Drain,
    Observed,
    Plan,
    Purge,
    RunView,
    Stage,
    Start,
    Stop,
    Trouble,
    Wanted,
    backoff,
    decide,
)


def starting(number: int, version: int, step: str = "") -> RunView:
    return RunView(number, version, Stage.STARTING, step)


def serving(number: int, version: int) -> RunView:
    return RunView(number, version, Stage.SERVING)


def look(version: int, *runs: RunView, **seen: object) -> Plan:
    return decide(Wanted(version), Observed(now=100.0, runs=runs, **seen))  # type: ignore[arg-type]


def test_a_new_app_is_started() -> None:
    plan = look(1)
    assert plan.actions == (Start(1),)
    assert plan.phase is Phase.CLAIMING


def test_a_start_under_way_is_left_alone() -> None:
    assert look(1, starting(1, 1, "claiming")).phase is Phase.CLAIMING
    plan = look(1, starting(1, 1, "starting"))
    assert plan.actions == ()
    assert plan.phase is Phase.STARTING


def test_a_serving_version_that_is_wanted_is_ready() -> None:
    plan = look(2, serving(5, 2))
    assert plan == Plan((), Phase.READY, "Running", "version 2 is serving", 2)


def test_a_redeploy_starts_beside_the_old_version_which_goes_on_serving() -> None:
    plan = look(2, serving(1, 1))
    assert plan.actions == (Start(2),)
    assert (plan.phase, plan.reason, plan.serving_version) == (Phase.READY, "Updating", 1)


def test_the_old_version_is_drained_only_when_the_new_one_serves() -> None:
    assert look(2, serving(1, 1), starting(2, 2)).actions == ()
    assert look(2, serving(1, 1), serving(2, 2)).actions == (Drain(1),)


def test_a_start_that_a_newer_deploy_has_overtaken_is_stopped() -> None:
    assert look(3, starting(2, 2)).actions == (Stop(2), Start(3))


def test_a_failed_redeploy_leaves_the_last_good_version_serving_and_says_why() -> None:
    plan = look(2, serving(1, 1), last_good=1, troubles={2: Trouble("StartFailed", "it exited with status 1.")})
    assert plan.actions == ()
    assert (plan.phase, plan.reason, plan.serving_version) == (Phase.READY, "StartFailed", 1)
    assert "version 2 failed: it exited with status 1. Version 1 still serves." in plan.message


def test_the_last_good_version_is_brought_back_when_nothing_serves_and_the_wanted_one_failed() -> None:
    plan = look(2, last_good=1, troubles={2: Trouble("StartFailed", "no.")})
    assert plan.actions == (Start(1),)
    again = look(2, starting(3, 1), last_good=1, troubles={2: Trouble("StartFailed", "no.")})
    assert again.actions == ()


def test_a_first_version_that_fails_by_its_own_fault_is_failed_and_not_tried_again() -> None:
    plan = look(1, troubles={1: Trouble("StartFailed", "no module named flsk.")})
    assert plan.actions == ()
    assert (plan.phase, plan.reason, plan.look_again_at) == (Phase.FAILED, "StartFailed", None)


def test_a_version_whose_sandbox_was_lost_is_tried_again_a_few_times() -> None:
    lost = Trouble("SandboxLost", "it vanished.", count=1, retry_at=100.0, app_fault=False)
    assert look(1, troubles={1: lost}).actions == (Start(1),)
    given_up = Trouble("SandboxLost", "it vanished.", count=LOST_ATTEMPTS, retry_at=0.0, app_fault=False)
    assert look(1, troubles={1: given_up}).phase is Phase.FAILED


def test_a_crash_of_a_proven_version_is_followed_by_a_restart_at_once() -> None:
    crash = Trouble("Crashed", "it exited.", count=1, retry_at=100.0, app_fault=False)
    plan = look(1, last_good=1, troubles={1: crash})
    assert plan.actions == (Start(1),)
    assert plan.reason == "Restarting"


def test_a_crash_loop_backs_off_says_so_and_looks_again_in_time() -> None:
    crash = Trouble("Crashed", "it exited with status 3.", count=4, retry_at=104.0, app_fault=False)
    plan = look(1, last_good=1, troubles={1: crash})
    assert plan.actions == ()
    assert (plan.phase, plan.reason, plan.look_again_at) == (Phase.FAILED, "CrashLoop", 104.0)
    assert "4 times in a row" in plan.message and "it exited with status 3." in plan.message


def test_a_version_that_once_served_is_never_given_up() -> None:
    crash = Trouble("StartFailed", "it exited.", count=50, retry_at=100.0, app_fault=True)
    assert look(1, last_good=1, troubles={1: crash}).actions == (Start(1),)


def test_a_template_that_is_being_built_makes_the_app_wait_as_pending() -> None:
    plan = look(1, blocked=("TemplateBuilding", "python-313 is being prepared"))
    assert plan.actions == ()
    assert (plan.phase, plan.reason) == (Phase.PENDING, "TemplateBuilding")


def test_what_may_not_run_here_is_refused_rather_than_run_at_a_lower_level() -> None:
    plan = look(1, refused=("IsolationTooLow", "the operator wants vm"))
    assert plan.actions == ()
    assert (plan.phase, plan.reason) == (Phase.FAILED, "IsolationTooLow")


def test_a_deleted_app_is_stopped_wherever_it_is_and_forgotten_when_nothing_is_left() -> None:
    draining = RunView(1, 1, Stage.DRAINING)
    stopping = RunView(4, 1, Stage.STOPPING)
    everything = Observed(0.0, (draining, serving(2, 2), starting(3, 3), stopping))
    assert decide(Wanted(3, deleted=True), everything).actions == (Stop(1), Stop(2), Stop(3))
    assert decide(Wanted(3, deleted=True), Observed(0.0, (stopping,))).actions == ()
    assert decide(Wanted(3, deleted=True), Observed(0.0)).actions == (Purge(),)


def test_the_wait_between_crashes_doubles_up_to_a_limit() -> None:
    assert [backoff(n) for n in (1, 2, 3, 4, 5)] == [0.0, 1.0, 2.0, 4.0, 8.0]
    assert backoff(500) == MAX_BACKOFF_S


runs = st.lists(
    st.builds(RunView, st.integers(1, 30), st.integers(1, 5), st.sampled_from(Stage), st.just("")),
    max_size=6,
    unique_by=lambda run: run.number,
).map(tuple)
troubles = st.dictionaries(
    st.integers(1, 5),
    st.builds(Trouble, st.just("Crashed"), st.just("it exited."), st.integers(1, 9), st.floats(0, 200), st.booleans()),
    max_size=3,
)
observations = st.builds(
    Observed,
    now=st.just(100.0),
    runs=runs,
    troubles=troubles,
    last_good=st.none() | st.integers(1, 5),
    blocked=st.none() | st.just(("TemplateBuilding", "wait")),
    refused=st.none() | st.just(("DriverUnavailable", "no")),
)
wanted = st.builds(Wanted, st.integers(1, 5), st.booleans())
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other tests."""


@relaxed
@given(wanted, observations)
def test_the_run_that_serves_is_never_ended_by_a_plan_that_reports_it(want: Wanted, seen: Observed) -> None:
    plan = decide(want, seen)
    if plan.serving_version is None:
        return
    newest = max((run for run in seen.runs if run.stage is Stage.SERVING), key=lambda run: run.number)
    assert plan.serving_version == newest.version
    assert Drain(newest.number) not in plan.actions and Stop(newest.number) not in plan.actions
    assert plan.phase is Phase.READY


@relaxed
@given(wanted, observations)
def test_nothing_is_started_twice_and_nothing_is_ended_twice(want: Wanted, seen: Observed) -> None:
    plan = decide(want, seen)
    under_way = {run.version for run in seen.runs if run.stage is Stage.STARTING}
    stages = {run.number: run.stage for run in seen.runs}
    for action in plan.actions:
        if isinstance(action, Start):
            assert action.version not in under_way
        elif isinstance(action, Drain):
            assert stages[action.run] is Stage.SERVING
        elif isinstance(action, Stop):
            assert stages[action.run] is not Stage.STOPPING
    assert len(set(plan.actions)) == len(plan.actions)


@relaxed
@given(wanted, observations)
def test_performing_plans_comes_to_rest(want: Wanted, seen: Observed) -> None:
    """Starts succeed, drains and stops end: a few turns later nothing is left to do."""
    now = seen
    for turn in range(12):
        plan = decide(want, now)
        if not plan.actions:
            break
        left = {run.number: run for run in now.runs if run.stage not in (Stage.DRAINING, Stage.STOPPING)}
        fresh = 1 + max((run.number for run in now.runs), default=0)
        for action in plan.actions:
            if isinstance(action, Start):
                left[fresh + turn] = serving(fresh + turn, action.version)
            elif isinstance(action, Drain | Stop):
                left.pop(action.run, None)
            else:
                return
        now = Observed(now.now, tuple(left.values()), now.troubles, now.last_good, now.blocked, now.refused)
    else:
        raise AssertionError(f"still busy: {plan}")
