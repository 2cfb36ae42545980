use proptest::prelude::*;

use super::*;
use crate::clock;
use crate::config;

const MS: Duration = Duration::from_millis(1);

fn policy(attempts_max: Option<u32>) -> Policy {
    Policy {
        attempts_max,
        backoff: 100 * MS,
        backoff_max: Duration::from_secs(30),
        age_max: None,
        blocked_probe: BLOCKED_PROBE_INTERVAL,
    }
}

#[test]
fn delays_double_up_to_the_longest() {
    let p = policy(None);
    for (failures, least_ms, most_ms) in [
        (0, 50, 100),
        (1, 50, 100),
        (2, 100, 200),
        (3, 200, 400),
        (9, 12_800, 25_600),
        (10, 15_000, 30_000),
        (33, 15_000, 30_000),
        (u32::MAX, 15_000, 30_000),
    ] {
        assert_eq!(p.delay(failures, 0.0), least_ms * MS, "{failures}");
        assert_eq!(p.delay(failures, 1.0), most_ms * MS, "{failures}");
    }
}

#[test]
fn the_policy_of_a_configuration() {
    let mut c = config::SideEffects::default();
    assert_eq!(Policy::from_config(&c).attempts_max, Some(ATTEMPTS_MAX_DEFAULT));
    assert_eq!(Policy::from_config(&c).age_max, None);
    c.max_attempts = Some(0);
    assert_eq!(Policy::from_config(&c).attempts_max, Some(1));
    c.max_attempts = Some(7);
    c.durable.enabled = true;
    assert_eq!(Policy::from_config(&c).attempts_max, Some(7));
    c.max_attempts = None;
    assert_eq!(Policy::from_config(&c).attempts_max, None);
    assert_eq!(Policy::from_config(&c).age_max, Some(Duration::from_secs(24 * 3600)));
    c.backoff = Duration::ZERO;
    c.max_backoff = Duration::ZERO;
    assert_eq!(Policy::from_config(&c).backoff, MS);
    assert_eq!(Policy::from_config(&c).backoff_max, MS);
}

#[test]
fn when_there_is_another_attempt() {
    use Class::*;
    let limited = policy(Some(3));
    let (aged, now) = (policy(None), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
    let never = None;
    let (young, old) = (Some(now + Duration::from_nanos(1)), Some(now));
    for (p, attempts, own, expires_at, class, expected) in [
        (limited, 1, None, never, Transient, Ok(())),
        (limited, 2, None, young, Transient, Ok(())),
        (limited, 2, None, old, Transient, Err(GiveUp::Expired)),
        (limited, 3, None, old, Transient, Err(GiveUp::Exhausted)),
        (limited, 3, None, young, Transient, Err(GiveUp::Exhausted)),
        (limited, 4, None, young, Blocked, Err(GiveUp::Exhausted)),
        (limited, 1, None, young, Permanent, Err(GiveUp::Permanent)),
        (limited, 1, Some(1), young, Transient, Err(GiveUp::Exhausted)),
        (limited, 5, Some(9), young, Transient, Ok(())),
        (aged, 1_000_000, None, young, Transient, Ok(())),
        (aged, 1, None, old, Transient, Err(GiveUp::Expired)),
        (aged, 1, None, old, Permanent, Err(GiveUp::Permanent)),
    ] {
        let another = p.another(attempts, own, expires_at, now, class);
        assert_eq!(another, expected, "{attempts} {own:?} {expires_at:?} {class:?}");
    }
}

#[test]
fn retry_after_is_bounded() {
    for (asked_s, pause_s) in [(0, 1), (1, 1), (30, 30), (3600, 3600), (86_400, 3600), (u64::MAX, 3600)] {
        assert_eq!(retry_after(Duration::from_secs(asked_s)), Duration::from_secs(pause_s));
    }
}

#[test]
fn one_probe_at_growing_delays_until_the_sink_works() {
    let p = policy(Some(3));
    let delay = |n| p.delay(n, 1.0);
    let t = clock::now();
    let mut h = Health::default();
    assert_eq!(h.admit(t), Admission::Go);
    assert_eq!(h.failed(Class::Transient, false, t, delay), Some(Condition::Down));
    // A second attempt that was under way changes nothing.
    assert_eq!(h.failed(Class::Transient, false, t + 10 * MS, delay), None);
    assert_eq!(h.admit(t), Admission::Wait(Some(t + 100 * MS)));
    let t = t + 100 * MS;
    assert_eq!(h.admit(t), Admission::Probe);
    h.probe_starts();
    assert_eq!(h.admit(t + 99_999 * MS), Admission::Wait(None));
    assert_eq!(h.failed(Class::Transient, true, t, delay), None);
    assert_eq!(h.failures(), 2);
    assert_eq!(h.admit(t), Admission::Wait(Some(t + 200 * MS)));
    h.probe_starts();
    h.probe_abandoned();
    assert_eq!(h.admit(t + 200 * MS), Admission::Probe);
    assert_eq!(h.worked(), Some(Condition::Down));
    assert_eq!(h.admit(t), Admission::Go);
    assert_eq!(h.worked(), None);
    assert_eq!(h.failures(), 0);
}

#[test]
fn blocked_and_down_turn_into_each_other() {
    let t = clock::now();
    let delay = |_| 100 * MS;
    let mut h = Health::default();
    assert_eq!(h.failed(Class::Transient, false, t, delay), Some(Condition::Down));
    // An attempt under way finds out that the token is wrong: that is news.
    assert_eq!(h.failed(Class::Blocked, false, t, delay), Some(Condition::Blocked));
    // One that only timed out is not.
    assert_eq!(h.failed(Class::Transient, false, t, delay), None);
    assert_eq!(h.condition(), Condition::Blocked);
    h.probe_starts();
    assert_eq!(h.failed(Class::Transient, true, t, delay), Some(Condition::Down));
    h.probe_starts();
    assert_eq!(h.failed(Class::Blocked, true, t, delay), Some(Condition::Blocked));
    assert_eq!(h.worked(), Some(Condition::Blocked));
    assert_eq!(h.condition(), Condition::Up);
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Start,
    End(usize, u8),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Start),
        (0usize..4, 0u8..4).prop_map(|(i, r)| Step::End(i, r)),
        (0u64..60_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #[test]
    fn jitter_stays_within_its_half(failures in 0u32..100, random in 0.0f64..1.0) {
        let p = policy(None);
        let full = p.delay(failures, 1.0);
        let d = p.delay(failures, random);
        prop_assert!(d <= full && d >= full / 2 && full <= p.backoff_max);
    }

    /// Whatever happens in whatever order: no attempt starts while the sink is not up but one probe at a time, none before its time,
    /// and there is always a way on (never an endless wait with nothing under way).
    #[test]
    fn never_two_probes_and_never_stuck(steps in steps()) {
        let p = policy(None);
        let mut now = clock::now();
        let mut health = Health::default();
        let mut under_way: Vec<bool> = Vec::new();
        for step in steps {
            match step {
                Step::Start if under_way.len() < 4 => match health.admit(now) {
                    Admission::Go => {
                        prop_assert_eq!(health.condition(), Condition::Up);
                        under_way.push(false);
                    }
                    Admission::Probe => {
                        prop_assert!(!under_way.contains(&true));
                        health.probe_starts();
                        under_way.push(true);
                    }
                    Admission::Wait(Some(at)) => prop_assert!(at > now),
                    Admission::Wait(None) => prop_assert!(under_way.contains(&true)),
                },
                Step::Start => {}
                Step::End(i, result) if i < under_way.len() => {
                    let probe = under_way.remove(i);
                    match result {
                        0 => drop(health.failed(Class::Transient, probe, now, |n| p.delay(n, 0.5))),
                        1 => drop(health.failed(Class::Blocked, probe, now, |_| BLOCKED_PROBE_INTERVAL)),
                        2 if probe => health.probe_abandoned(),
                        _ => {
                            health.worked();
                            // Attempts under way are judged as attempts of a sink that is up.
                            under_way.iter_mut().for_each(|p| *p = false);
                        }
                    }
                }
                Step::End(..) => {}
                Step::Pass(ms) => now += Duration::from_millis(ms),
            }
        }
    }
}
