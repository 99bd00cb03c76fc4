//! What holds the engine back: fleet panic, a pause, a server that is disabled.

use std::net::IpAddr;

use operator::{
    crd::{CircuitState, CircuitStatus},
    probe::{Endpoint, PodState, ServerKey},
};
use rstest::rstest;
use tokio::time::sleep;

use crate::{
    ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

#[tokio::test(start_paused = true)]
async fn when_most_of_the_fleet_fails_at_once_nobody_is_taken_out() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..20 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |spec| spec.health.interval_seconds = 60).await;
    }
    (0..20).for_each(|n| puppet.set(ip(n), Does::Hang));
    sleep(secs(300)).await;
    let held = (0..20).filter(|n| rig.health(&format!("s{n}")).circuit.state == CircuitState::Closed).count();
    assert!(held >= 16, "only {held} of 20 were held");
    assert!((0..20).any(|n| rig.health(&format!("s{n}")).panic));
    let asked = puppet.total();
    sleep(secs(120)).await;
    assert!(puppet.total() > asked, "probing goes on");
    (0..20).for_each(|n| puppet.set(ip(n), Does::Answer));
    sleep(secs(400)).await;
    for n in 0..20 {
        let health = rig.health(&format!("s{n}"));
        assert!(is_closed(&health) && !health.panic, "{n}: {health:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_after_ten_minutes_and_then_what_fails_is_taken_out() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..6 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    (0..4).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(60)).await;
    let held: Vec<_> = (0..4).map(|n| rig.health(&format!("s{n}"))).filter(|health| health.panic).collect();
    assert!(!held.is_empty() && held.iter().all(|health| health.pods[0].in_service && !health.serves()), "{held:?}");
    assert!(!rig.health("s5").panic && rig.health("s5").serves(), "who answers is not told as panicking");
    sleep(secs(600)).await;
    for n in 0..4 {
        let health = rig.health(&format!("s{n}"));
        assert!(!health.panic && !health.pods[0].gate && health.circuit.state != CircuitState::Closed, "{n}: {health:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn pods_of_one_server_are_no_fleet() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "four", &[1, 2, 3, 4, 5, 6, 7, 8], |spec| spec.health.interval_seconds = 5).await;
    for n in 10..13 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    (1..=8).for_each(|n| puppet.set(ip(n), Does::Hang));
    let health = rig.until("four", secs(30), is_open).await.expect("open");
    assert!(!health.panic && !health.serves());
    puppet.set(ip(10), Does::Refuse);
    rig.until("s10", secs(30), is_open).await.expect("its neighbour's pods do not hold it in service");
}

#[tokio::test(start_paused = true)]
async fn when_half_of_the_fleet_fails_it_is_taken_out() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..20 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    (0..10).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(20)).await;
    assert_eq!((0..20).filter(|n| is_open(&rig.health(&format!("s{n}")))).count(), 10);
}

/// Of eight servers four leave the fleet in some way, and three of those that stay fail at once: that is most of it.
#[rstest]
#[case::pods_that_are_going(true)]
#[case::servers_that_are_disabled(false)]
#[tokio::test(start_paused = true)]
async fn who_left_the_fleet_does_not_speak_against_a_panic(#[case] going: bool) {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..8 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    for n in 4..8 {
        if going {
            rig.api.change_pod(&format!("s{n}-{n}"), |pod| pod.deleting = true);
        } else {
            let mut spec = spec(8080);
            usual(&mut spec);
            spec.enabled = false;
            rig.engine.set_server(&key(&format!("s{n}")), spec, None);
        }
    }
    (0..3).for_each(|n| puppet.set(ip(n), Does::Refuse));
    sleep(secs(60)).await;
    let held = (0..3).filter(|n| rig.health(&format!("s{n}")).panic).count();
    assert!(held > 0, "nothing is held: {:?}", rig.health("s0"));
}

#[tokio::test(start_paused = true)]
async fn a_paused_server_is_watched_and_left_alone() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |spec| {
        spec.paused = true;
        spec.health.restart_after_seconds = 10;
    })
    .await;
    let writes = rig.api.writes().len();
    puppet.set(ip(1), Does::Refuse);
    sleep(secs(120)).await;
    let health = rig.health("server");
    assert!(health.circuit.state == CircuitState::Closed && health.pods[0].gate && health.pods[0].failing);
    assert_eq!(rig.api.writes().len(), writes);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_server_is_at_rest() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "server", &[1], |_| {}).await;
    puppet.set(ip(1), Does::Refuse);
    rig.until("server", secs(30), is_open).await.expect("open");
    let mut disabled = spec(8080);
    usual(&mut disabled);
    disabled.enabled = false;
    rig.engine.set_server(&key("server"), disabled, None);
    puppet.forget();
    sleep(secs(600)).await;
    assert_eq!(puppet.total(), 0);
    assert_eq!(rig.health("server").circuit, CircuitStatus::default());
}

/// What hangs is confirmed before the others, asked a little later, can have failed.
#[rstest]
#[case::some(12, 12, 20, 3)]
#[case::few(4, 3, 5, 2)]
#[case::many(200, 200, 60, 5)]
#[tokio::test(start_paused = true)]
async fn when_we_are_cut_off_not_even_the_first_server_is_taken_out(
    #[case] fleet: u16,
    #[case] hang: u16,
    #[case] interval: u32,
    #[case] timeout: u32,
) {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..fleet {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |spec| {
            (spec.health.interval_seconds, spec.health.timeout_seconds) = (interval, timeout);
        })
        .await;
    }
    // However far each of them is between two probes.
    for wait in [61, 62, 67] {
        sleep(secs(wait)).await;
        (0..hang).for_each(|n| puppet.set(ip(n), Does::Hang));
        sleep(secs(u64::from(interval + timeout) + 5)).await;
        for n in 0..fleet {
            let health = rig.health(&format!("s{n}"));
            assert_eq!(health.circuit.openings, 0, "s{n} opened");
            assert_eq!(rig.api.gates(&format!("s{n}-{n}")), [true], "s{n} was taken out");
            assert!(health.panic || n >= hang || !health.pods[0].failing, "s{n} is told of as it is: {health:?}");
        }
        (0..hang).for_each(|n| puppet.set(ip(n), Does::Answer));
        sleep(secs(120)).await;
        assert!((0..fleet).all(|n| is_closed(&rig.health(&format!("s{n}")))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_operator_in_the_midst_of_a_panic_takes_nobody_out() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..8 {
        puppet.set(ip(n), if n == 0 { Does::Answer } else { Does::Refuse });
        let mut spec = spec(8080);
        usual(&mut spec);
        spec.health.interval_seconds = 60;
        rig.engine.set_server(&key(&format!("s{n}")), spec, None);
        rig.api.set_pod(&key(&format!("s{n}")), PodState { gate: Some(true), ..pod(&format!("s{n}-{n}"), ip(n)) });
    }
    sleep(secs(70)).await;
    for n in 0..8 {
        let health = rig.health(&format!("s{n}"));
        assert_eq!((health.circuit.openings, health.panic), (0, n > 0), "s{n}");
        assert!(rig.api.gates(&format!("s{n}-{n}")).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_operator_that_is_cut_off_leaves_remote_servers_in_use() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    puppet.set(IpAddr::from([0, 0, 0, 0]), Does::Hang);
    let keys: Vec<ServerKey> = (0..8).map(|n| ServerKey::new(format!("n{}", n % 2), format!("s{n}"))).collect();
    for key in &keys {
        let mut spec = spec(8080);
        usual(&mut spec);
        spec.endpoint = Endpoint::Remote { url: "http://example.com/mcp".parse().expect("a URL") };
        rig.engine.set_server(key, spec, Some(&CircuitStatus::default()));
    }
    sleep(secs(120)).await;
    for key in &keys {
        let health = rig.engine.snapshot(key).expect("known");
        assert_eq!((health.circuit.openings, health.panic, health.serves()), (0, true, false), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_alone_is_known_in_time_however_slow_the_others_answer() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    for n in 0..8 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], |_| {}).await;
    }
    (1..8).for_each(|n| puppet.set(ip(n), Does::AnswerAfter(secs(4))));
    sleep(secs(60)).await;
    puppet.set(ip(0), Does::Hang);
    // interval + timeout + 3 s
    rig.until("s0", secs(18), is_open).await.expect("known in time");
    sleep(secs(60)).await;
    assert!((1..8).all(|n| rig.health(&format!("s{n}")).circuit.openings == 0));
}
