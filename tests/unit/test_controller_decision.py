"""The controller's policy: what is wanted and what is there, and nothing else, decide what happens."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vibed.apps.app import Phase
from vibed.controller.decision import Drain, Observed, Plan, Purge, RunView, Stage, Start, Stop, Wanted, decide
from vibed.controller.trouble import LOST_ATTEMPTS, MAX_BACKOFF_S, Trouble, backoff


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


def test_what_its_owner_should_know_of_how_it_is_served_is_told() -> None:
    note = "listens on 3000 and 8081: 3000 is served, since the source starts its site there"
    plan = look(2, RunView(5, 2, Stage.SERVING, note=note))
    assert plan.message == f"version 2 is serving; it {note}"


def test_a_redeploy_starts_beside_the_old_version_which_goes_on_serving() -> None:
    plan = look(2, serving(1, 1))
    assert plan.actions == (Start(2),)
    assert (plan.phase, plan.reason, plan.serving_version) == (Phase.READY, "Updating", 1)


def test_the_old_version_is_drained_only_when_the_new_one_serves() -> None:
    assert look(2, serving(1, 1), starting(2, 2)).actions == ()
    assert look(2, serving(1, 1), serving(2, 2)).actions == (Drain(1),)


def moving(number: int, version: int) -> RunView:
    return RunView(number, version, Stage.SERVING, moving=True)


def test_a_run_whose_place_is_to_be_given_up_serves_until_another_of_its_version_does() -> None:
    plan = look(1, moving(3, 1))
    assert plan == Plan((Start(1),), Phase.READY, "Running", "version 1 is serving", 1)
    assert look(1, moving(3, 1), starting(4, 1)).actions == ()
    assert look(1, moving(3, 1), RunView(4, 1, Stage.SWITCHING)).actions == ()
    assert look(1, moving(3, 1), serving(4, 1)).actions == (Drain(3),)


def test_a_run_that_is_to_give_up_its_place_stays_while_no_other_comes_up() -> None:
    failed = {1: Trouble("SandboxLost", "no pod took it.", retry_at=150.0)}
    plan = look(1, moving(3, 1), troubles=failed)
    assert (plan.actions, plan.phase, plan.look_again_at) == ((), Phase.READY, 150.0)
    assert look(1, moving(3, 1), blocked=("TemplateBuilding", "wait")).actions == ()
    assert look(2, moving(3, 1)).actions == (Start(2),), "what is deployed goes first"


def test_a_start_that_a_newer_deploy_has_overtaken_is_stopped() -> None:
    assert look(3, starting(2, 2)).actions == (Stop(2), Start(3))


def test_an_older_version_is_not_brought_back_while_memory_is_short_and_this_is_said() -> None:
    failed = {2: Trouble("StartFailed", "it exited with status 1.")}
    assert look(2, good={1}, troubles=failed).actions == (Start(1),)
    plan = look(2, good={1}, troubles=failed, short="this machine has 9 MB left")
    assert (plan.actions, plan.phase, plan.reason) == ((), Phase.FAILED, "StartFailed")
    assert "Version 1 is to be brought back, but this machine has 9 MB left" in plan.message
    assert plan.look_again_at is not None


def test_a_failed_redeploy_leaves_the_last_good_version_serving_and_says_why() -> None:
    plan = look(2, serving(1, 1), good={1}, troubles={2: Trouble("StartFailed", "it exited with status 1.")})
    assert plan.actions == ()
    assert (plan.phase, plan.reason, plan.serving_version) == (Phase.READY, "StartFailed", 1)
    assert "version 2 failed: it exited with status 1. Version 1 still serves." in plan.message


def test_the_last_good_version_is_brought_back_when_nothing_serves_and_the_wanted_one_failed() -> None:
    plan = look(2, good={1}, troubles={2: Trouble("StartFailed", "no.")})
    assert plan.actions == (Start(1),)
    again = look(2, starting(3, 1), good={1}, troubles={2: Trouble("StartFailed", "no.")})
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
    plan = look(1, good={1}, troubles={1: crash})
    assert plan.actions == (Start(1),)
    assert plan.reason == "Restarting"


def test_a_crash_loop_backs_off_says_so_and_looks_again_in_time() -> None:
    crash = Trouble("Crashed", "it exited with status 3.", count=4, retry_at=104.0, app_fault=False)
    plan = look(1, good={1}, troubles={1: crash})
    assert plan.actions == ()
    assert (plan.phase, plan.reason, plan.look_again_at) == (Phase.FAILED, "CrashLoop", 104.0)
    assert "4 times in a row" in plan.message and "it exited with status 3." in plan.message


def test_a_version_that_once_served_is_never_given_up() -> None:
    crash = Trouble("StartFailed", "it exited.", count=50, retry_at=100.0, app_fault=True)
    assert look(1, good={1}, troubles={1: crash}).actions == (Start(1),)


# a version that does not last


def crashed(served_s: float | None, count: int = 1, *, app_fault: bool = True, retry_at: float = 0.0) -> Trouble:
    return Trouble("Crashed", "it exited with status 1.", count, retry_at, app_fault, served_s)


def test_a_version_that_ends_soon_after_it_went_live_gives_way_to_the_one_before() -> None:
    plan = look(2, good={1, 2}, troubles={2: crashed(3.0)})
    assert plan.actions == (Start(1),)
    assert plan.reason == "Crashed"
    plan = look(2, serving(3, 1), good={1, 2}, troubles={2: crashed(3.0)})
    assert (plan.actions, plan.phase, plan.reason, plan.serving_version) == ((), Phase.READY, "Crashed", 1)
    assert plan.message == "version 2 failed: it exited with status 1. Version 1 still serves."


def test_a_version_that_ends_once_later_on_is_started_again_and_gives_way_when_that_does_not_help() -> None:
    assert look(2, good={1, 2}, troubles={2: crashed(30.0)}).actions == (Start(2),)
    assert look(2, good={1, 2}, troubles={2: crashed(30.0, count=2)}).actions == (Start(1),)
    again = Trouble("StartFailed", "it exited.", count=2)
    assert look(2, good={1, 2}, troubles={2: again}).actions == (Start(1),)


def test_a_version_that_has_proven_sound_is_never_given_up_for_an_older_one() -> None:
    assert look(2, good={1, 2}, sound=True, troubles={2: crashed(0.5, count=50)}).actions == (Start(2),)


def test_a_sandbox_that_was_lost_is_not_held_against_its_version() -> None:
    assert look(2, good={1, 2}, troubles={2: crashed(0.5, count=2, app_fault=False)}).actions == (Start(2),)


def test_without_an_older_good_version_there_is_nothing_to_go_back_to() -> None:
    assert look(2, good={2}, troubles={2: crashed(0.5)}).actions == (Start(2),)
    assert look(1, good={1}, troubles={1: crashed(0.5, count=9)}).actions == (Start(1),)


def test_it_goes_back_to_the_newest_that_was_good_and_not_to_one_that_failed() -> None:
    assert look(5, good={1, 3, 5}, troubles={5: crashed(1.0)}).actions == (Start(3),)


def test_nor_to_one_that_fails_again_and_again_while_there_is_another() -> None:
    bad = {5: crashed(1.0), 3: crashed(1.0, count=3)}
    assert look(5, good={1, 3}, troubles=bad).actions == (Start(1),)
    assert look(5, good={3}, troubles=bad).actions == (Start(3),), "better than nothing"


def test_the_one_before_is_kept_at_hand_until_the_new_version_has_served_a_while() -> None:
    young, older = RunView(7, 2, Stage.SERVING, served_s=2.0), serving(3, 1)
    plan = look(2, older, young, good={1, 2})
    assert (plan.actions, plan.look_again_at) == ((), 108.0)
    assert look(2, serving(2, 1), serving(3, 1), young, good={1, 2}).actions == (Drain(2),), "one, not all"
    proven = RunView(7, 2, Stage.SERVING, served_s=10.0)
    assert look(2, older, proven, good={1, 2}).actions == (Drain(3),)
    assert look(2, older, young, good={2}).actions == (Drain(3),), "what is no good is no use"
    assert look(2, serving(3, 2), young, good={1, 2}).actions == (Drain(3),), "nor is the same version"


def test_in_a_storm_of_deploys_what_was_overtaken_is_let_go_before_the_last_one_serves() -> None:
    overtaken = [RunView(number, number, Stage.SERVING, served_s=0.1) for number in (2, 3, 4)]
    plan = look(5, serving(1, 1), *overtaken, starting(5, 5), good={1, 2, 3, 4})
    assert plan.actions == (Drain(1), Drain(2)), "the newest serves, one is kept"
    assert plan.serving_version == 4


def test_a_crash_loop_is_told_as_one_until_it_has_served_a_minute() -> None:
    loop = crashed(2.0, count=4, retry_at=104.0)
    told = [
        look(1, good={1}, troubles={1: loop}),
        look(1, good={1}, troubles={1: crashed(2.0, count=4)}),
        look(1, starting(9, 1, "starting"), good={1}, troubles={1: loop}),
        look(1, RunView(9, 1, Stage.SERVING, served_s=59.0), good={1}, troubles={1: loop}),
    ]
    assert {(plan.phase, plan.reason) for plan in told} == {(Phase.FAILED, "CrashLoop")}
    assert [plan.serving_version for plan in told] == [None, None, None, 1]
    assert told[3].look_again_at == 101.0
    plan = look(1, RunView(9, 1, Stage.SERVING, served_s=60.0), good={1}, troubles={1: loop})
    assert (plan.phase, plan.reason) == (Phase.READY, "Running")


def test_who_waits_for_a_turn_is_told_so_whether_or_not_an_older_version_serves() -> None:
    waits = RunView(2, 2, Stage.STARTING, waits_for="1 of your apps is starting (todo)")
    plan = look(2, waits)
    assert (plan.phase, plan.reason) == (Phase.PENDING, "WaitingForTurn")
    assert plan.message == "version 2 waits for its turn: 1 of your apps is starting (todo)"
    assert plan.look_again_at is not None, "who is before it changes"
    plan = look(2, serving(1, 1), waits, good={1})
    assert (plan.phase, plan.reason, plan.serving_version) == (Phase.READY, "WaitingForTurn", 1)
    assert plan.message == "version 1 serves; version 2 waits for its turn: 1 of your apps is starting (todo)"


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
    good=st.frozensets(st.integers(1, 5), max_size=3),
    sound=st.booleans(),
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
    assert plan.phase is Phase.READY or plan.reason == "CrashLoop"


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
        now = Observed(now.now, tuple(left.values()), now.troubles, now.good, now.blocked, now.refused)
    else:
        raise AssertionError(f"still busy: {plan}")
