//! Tests: the decision under days of traffic, in a moment: what it must never do, and how often it may change its mind.

use std::time::Duration;

use proptest::prelude::*;
use rstest::rstest;
use tokio::time::Instant;

use super::scaler::{Bounds, Load, Look, Scaler, WINDOW};
use crate::crd::autoscaling::AutoscalingStatus;

/// Seconds between two looks.
const TICK: u64 = 3;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

fn bounds(min: u32, max: u32) -> Bounds {
    let idle = (min == 0).then(|| Duration::from_mins(15));
    Bounds { min, max, per_pod: 8, idle, sessions: Duration::from_mins(5), may_sleep: true, window: WINDOW }
}

/// A row of numbers from 0 to 1, the same each time.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

/// A server, and the pods that it has: they follow what is decided at once.
struct Run {
    scaler: Scaler,
    begun: Instant,
    /// (second, from, to).
    changes: Vec<(u64, u32, u32)>,
    /// Told: what a status would be written for.
    told: usize,
}

impl Run {
    fn new(bounds: Bounds) -> Self {
        let begun = Instant::now();
        Self { scaler: Scaler::new(bounds, None, None, begun), begun, changes: Vec::new(), told: 0 }
    }

    fn look(&mut self, second: u64, look: Look) -> u32 {
        let before = self.scaler.decision();
        self.scaler.look(look, before.desired, self.begun + Duration::from_secs(second));
        let after = self.scaler.decision();
        if before.desired != after.desired {
            self.changes.push((second, before.desired, after.desired));
        }
        self.told += usize::from(before != after);
        after.desired
    }

    fn calls(&mut self, second: u64, in_flight: u32) -> u32 {
        self.look(second, Look::Load(Load { in_flight, called: in_flight > 0, holding: 0 }))
    }

    /// So many calls in flight, from one second to another.
    fn steady(&mut self, seconds: std::ops::Range<u64>, in_flight: u32) -> u32 {
        let mut desired = self.scaler.decision().desired;
        for second in seconds.step_by(usize::try_from(TICK).expect("small")) {
            desired = self.calls(second, in_flight);
        }
        desired
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "calls in flight: whole, and few")]
fn whole(calls: f64) -> u32 {
    calls.max(0.0).round() as u32
}

#[allow(clippy::cast_precision_loss, reason = "seconds of a week are exact")]
fn office_hours(second: u64, noise: f64) -> f64 {
    let of_day = (second % DAY) as f64 / DAY as f64;
    // From nothing at four in the morning to 60 calls at four in the afternoon, and a quarter more or less.
    30.0 * (1.0 - ((of_day - 1.0 / 6.0) * std::f64::consts::TAU).cos()) * (0.75 + 0.5 * noise)
}

/// Every forty minutes forty calls for two minutes, and one or two between.
fn bursts(second: u64, noise: f64) -> f64 {
    if second % (40 * 60) < 120 { 40.0 } else { 2.0 * noise }
}

/// About sixteen: two pods, and by a hair three.
fn on_the_edge(_: u64, noise: f64) -> f64 {
    15.5 + 1.2 * noise
}

/// A day, and a week, of three kinds of traffic. `most`: changes a day.
#[rstest]
#[case::office_hours(office_hours, 32)]
#[case::bursts(bursts, 230)]
#[case::on_the_edge(on_the_edge, 24)]
fn days_of_traffic_are_followed_without_swinging(#[case] traffic: fn(u64, f64) -> f64, #[case] most: usize) {
    for days in [1, 7] {
        let (mut run, mut noise) = (Run::new(bounds(1, 10)), Noise(7));
        let mut last = [0; 3];
        for second in (0..days * DAY).step_by(usize::try_from(TICK).expect("small")) {
            let calls = whole(traffic(second, noise.next()));
            let desired = run.calls(second, calls);
            last.rotate_left(1);
            last[2] = calls.div_ceil(8);
            let needed = *last.iter().min().expect("three");
            assert!(desired >= needed.min(10), "{desired} pods in second {second}, and three looks in a row needed {needed}");
            assert!((1..=10).contains(&desired));
        }
        let most = most * usize::try_from(days).expect("small");
        assert!(run.changes.len() <= most, "{} changes in {days} days", run.changes.len());
        assert!(run.told <= 2 * most, "{} times told in {days} days", run.told);
        for (second, from, to) in &run.changes {
            assert!(*to > *from || *from - *to == 1, "one at a time: {from} to {to} in second {second}");
        }
    }
}

#[test]
fn a_level_is_followed_at_once_and_left_one_by_one_after_the_window() {
    let mut run = Run::new(bounds(1, 10));
    run.steady(0..600, 0);
    assert_eq!(run.steady(600..607, 24), 3, "two looks show it");
    assert_eq!(run.steady(609..900, 24), 3);
    run.steady(900..2_000, 0);
    let (up, down) = run.changes.split_at(1);
    assert_eq!(up, [(603, 1, 3)]);
    let [(first, 3, 2), (second, 2, 1)] = *down else { unreachable!("{down:?}") };
    assert!((1_200..1_210).contains(&first), "a window after the last call: {first}");
    assert!((first + 30..first + 40).contains(&second), "the next one had its time: {second}");
}

#[test]
fn one_look_decides_nothing() {
    let mut run = Run::new(bounds(1, 10));
    run.steady(0..600, 4);
    run.calls(600, 80);
    assert_eq!(run.steady(603..1_200, 4), 1);
    assert!(run.changes.is_empty());
}

#[test]
fn steps_down_that_are_taken_back_become_rarer() {
    // Every six minutes a minute that needs a second pod.
    let mut run = Run::new(bounds(1, 10));
    for second in (0..DAY).step_by(3) {
        run.calls(second, if second % 360 < 60 { 12 } else { 4 });
    }
    assert!(run.changes.len() <= 12, "{:?}", run.changes);
}

#[test]
fn an_operator_that_starts_anew_goes_on_and_scales_nothing_down_early() {
    let told = AutoscalingStatus { desired: 5, reason: "40 calls in flight; and so on".into(), last_scale: None };
    let now = Instant::now();
    let mut run = Run { scaler: Scaler::new(bounds(1, 10), Some(&told), Some(4), now), ..Run::new(bounds(1, 10)) };
    assert_eq!(run.scaler.decision().reason, "40 calls in flight");
    assert_eq!(run.steady(0..297, 0), 5);
    assert_eq!(run.steady(297..330, 0), 4);
    let begun = |told, pods| Scaler::new(bounds(2, 10), told, pods, now).decision().desired;
    assert_eq!(begun(None, Some(3)), 3, "of a server that had replicas");
    assert_eq!(begun(None, None), 2);
    assert_eq!(begun(None, Some(0)), 2, "of one that was switched off");
    assert_eq!(begun(Some(&told), Some(7)), 7, "there were more at once, and it was not told any more");
    assert_eq!(begun(Some(&AutoscalingStatus { desired: 99, ..told.clone() }), None), 10);
}

#[test]
fn nothing_is_scaled_on_an_old_signal_or_in_a_panic_and_the_window_begins_anew() {
    for (blind, says) in
        [(Look::Silent("pod a says nothing".into()), "pod a says nothing"), (Look::Panic, "most of the fleet fails")]
    {
        let mut run = Run::new(bounds(1, 10));
        run.steady(0..30, 24);
        for second in (30..900).step_by(3) {
            assert_eq!(run.look(second, blind.clone()), 3);
        }
        let reason = run.scaler.decision().reason;
        assert!(reason.starts_with("held: ") && reason.contains(says), "{reason}");
        assert_eq!(run.steady(900..1_197, 0), 3, "a window of looks is needed again");
        assert_eq!(run.scaler.decision().reason, "24 calls in flight, and one pod is to have 8");
        assert_eq!(run.steady(1_197..1_230, 0), 2);
    }
}

#[test]
fn pods_with_sessions_that_end_with_them_stay() {
    let mut run = Run::new(bounds(1, 10));
    run.steady(0..30, 40);
    for second in (30..600).step_by(3) {
        run.look(second, Look::Load(Load { in_flight: 0, called: false, holding: 5 }));
        let told = run.scaler.decision().reason;
        let tells = told.ends_with("; 5 pods hold sessions that end with them");
        assert!(tells == (second > 66) || (60..=72).contains(&second), "{second}: {told}");
    }
    for second in (600..3_000).step_by(3) {
        run.look(second, Look::Load(Load { in_flight: 0, called: false, holding: 2 }));
    }
    let told = run.scaler.decision();
    assert_eq!(told.desired, 2);
    assert!(told.reason.ends_with("; 2 pods hold sessions that end with them"), "{}", told.reason);
    for second in (3_000..3_009).step_by(3) {
        run.look(second, Look::Load(Load { in_flight: 0, called: false, holding: 1 }));
    }
    assert!(!run.scaler.decision().reason.contains("sessions"), "{}", run.scaler.decision().reason);

    let mut run = Run::new(bounds(1, 10));
    for second in (0..900).step_by(3) {
        run.look(second, Look::Load(Load { in_flight: 0, called: false, holding: 2 }));
    }
    assert_eq!(run.scaler.decision().reason, "2 pods hold sessions that end with them", "once");
}

#[test]
fn the_last_pod_goes_when_nobody_called_for_so_long_and_comes_back_for_a_call() {
    let mut run = Run::new(bounds(0, 4));
    run.steady(0..3, 1);
    assert_eq!(run.steady(3..900, 0), 1);
    assert_eq!(run.steady(900..909, 0), 0);
    let at = run.begun + Duration::from_secs(5_000);
    run.scaler.wanted(at);
    assert_eq!(run.scaler.decision().desired, 1);
    assert_eq!(run.steady(5_003..5_800, 0), 1, "the time begins with the call");
    let mut busy = Run::new(bounds(0, 4));
    for second in (0..DAY).step_by(3) {
        // Calls that are too short to be seen in flight.
        let called = second % 600 == 0;
        assert_eq!(busy.look(second, Look::Load(Load { in_flight: 0, called, holding: 0 })), 1);
    }
}

/// Seconds that a session may be left unused for, and after how many without a call the last pod goes.
#[rstest]
#[case::longer_than_the_server(3_600, 3_600)]
#[case::no_longer(300, 900)]
#[case::of_any_pod(0, 900)]
fn the_last_pod_holds_its_sessions_for_as_long_as_they_may_be_left_unused(#[case] sessions: u64, #[case] goes: u64) {
    let mut run = Run::new(Bounds { sessions: Duration::from_secs(sessions), ..bounds(0, 4) });
    run.steady(0..3, 1);
    for second in (3..goes + 30).step_by(3) {
        // Somebody listens all the time, and calls nothing.
        run.look(second, Look::Load(Load { in_flight: 0, called: false, holding: 1 }));
        let told = run.scaler.decision().reason;
        let holds = told.ends_with("; nobody calls, and its pod holds sessions that end with it");
        assert_eq!(holds, (900..goes).contains(&second), "{second}: {told}");
    }
    let [(at, 1, 0)] = *run.changes else { unreachable!("{:?}", run.changes) };
    assert!((goes..goes + 9).contains(&at), "{at}");
}

#[test]
fn a_session_that_was_ended_holds_nothing() {
    let mut run = Run::new(Bounds { sessions: Duration::from_hours(1), ..bounds(0, 4) });
    run.steady(0..3, 1);
    for second in (3..1_200).step_by(3) {
        run.look(second, Look::Load(Load { in_flight: 0, called: false, holding: 1 }));
    }
    assert_eq!(run.steady(1_200..1_209, 0), 0);
}

#[test]
fn who_cannot_sleep_for_want_of_an_activator_says_so() {
    let mut run = Run::new(Bounds { may_sleep: false, ..bounds(0, 4) });
    assert_eq!(run.steady(0..900, 0), 1);
    assert_eq!(run.scaler.decision().reason, "no more was needed yet");
    assert_eq!(run.steady(900..910, 0), 1);
    let told = "no more was needed yet; nobody calls, and it stays up: no pod of the activator is ready to wake it";
    assert_eq!(run.scaler.decision().reason, told);
    run.scaler.set(bounds(0, 4));
    assert_eq!(run.steady(910..930, 0), 0, "it sleeps as soon as there is one");
}

#[test]
fn what_maxreplicas_keeps_back_is_told() {
    let mut run = Run::new(bounds(1, 2));
    run.steady(0..30, 40);
    let reason = run.scaler.decision().reason;
    assert_eq!(
        reason,
        "40 calls in flight, and one pod is to have 8; 2 pods have more than 8 calls in flight each, and maxReplicas allows no more"
    );
}

#[test]
fn an_edit_is_followed_at_once() {
    let mut run = Run::new(bounds(1, 10));
    run.steady(0..30, 80);
    run.scaler.set(bounds(1, 4));
    assert_eq!(run.scaler.decision().desired, 4);
    run.scaler.set(bounds(6, 8));
    assert_eq!(run.scaler.decision().desired, 6);
    assert_eq!(run.scaler.decision().reason, "spec.autoscaling allows 6 to 8");
}

proptest! {
    #[test]
    fn it_stays_within_bounds_and_never_below_what_three_looks_need(
        looks in prop::collection::vec((0_u32..200, 0_u32..5, 0_u8..10), 1..400),
        min in 1_u32..5,
        more in 0_u32..20,
    ) {
        let bounds = bounds(min, min + more);
        let mut run = Run::new(bounds);
        let mut last = [0; 3];
        let mut before = run.scaler.decision().desired;
        for (index, (in_flight, holding, kind)) in looks.into_iter().enumerate() {
            let look = match kind {
                0 => Look::Panic,
                1 => Look::Silent("a".into()),
                _ => Look::Load(Load { in_flight, called: true, holding }),
            };
            let good = matches!(look, Look::Load(_));
            let second = u64::try_from(index).expect("few") * 20;
            let desired = run.look(second, look);
            prop_assert!((bounds.min..=bounds.max).contains(&desired));
            prop_assert!(good || desired == before, "nothing is decided blindly");
            prop_assert!(desired + 1 >= before, "one at a time");
            if good {
                last.rotate_left(1);
                last[2] = in_flight.div_ceil(8).max(holding);
                prop_assert!(desired >= (*last.iter().min().expect("three")).min(bounds.max));
            } else {
                last = [0; 3];
            }
            before = desired;
        }
    }
}
