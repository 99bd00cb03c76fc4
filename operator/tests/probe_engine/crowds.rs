//! Many servers at once: the cap, and that nobody waits for those that hang.

use operator::probe::{EngineConfig, ServerSpec};
use tokio::time::{Instant, sleep};

use crate::{
    ip, is_closed, is_open, secs, serving,
    support::{
        puppet::{Does, Puppet},
        rig::{Rig, key, pod, spec},
    },
    usual,
};

#[tokio::test(start_paused = true)]
async fn a_thousand_servers_that_hang_do_not_delay_a_healthy_one() {
    let puppet = Puppet::default();
    let rig = Rig::with_puppet(&puppet);
    serving(&rig, &puppet, "healthy", &[9_999], |spec| spec.health.interval_seconds = 10).await;
    for n in 0..1_000 {
        puppet.set(ip(n), Does::Hang);
        let name = format!("hangs{n}");
        let mut spec = spec(8080);
        usual(&mut spec);
        rig.engine.set_server(&key(&name), spec, None);
        // All of them were well, and all are asked again and again.
        rig.api.set_pod(&key(&name), operator::probe::PodState { gate: Some(true), ..pod(&format!("{name}-0"), ip(n)) });
    }
    sleep(secs(20)).await;
    puppet.forget();
    let began = Instant::now();
    sleep(secs(100)).await;
    let asked = puppet.asked(ip(9_999));
    let mut before = began;
    for at in asked.iter().copied().chain([Instant::now()]) {
        assert!(at - before <= secs(11), "not asked for {:?}", at - before);
        before = at;
    }
    assert!(asked.len() >= 9, "{} probes", asked.len());
    assert!(puppet.most() <= EngineConfig::default().max_in_flight, "{} in flight", puppet.most());
}

#[tokio::test(start_paused = true)]
async fn the_cap_holds_and_nobody_is_forgotten() {
    let puppet = Puppet::default();
    let rig = Rig::with(EngineConfig { max_in_flight: 16, seed: Some(1), ..EngineConfig::default() }, puppet.clone());
    for n in 0..300 {
        let name = format!("s{n}");
        puppet.set(ip(n), if n % 2 == 0 { Does::Hang } else { Does::Answer });
        let mut spec = spec(8080);
        usual(&mut spec);
        rig.engine.set_server(&key(&name), spec, None);
        rig.api.set_pod(&key(&name), pod(&format!("{name}-0"), ip(n)));
    }
    sleep(secs(300)).await;
    assert!(puppet.most() <= 16, "{} in flight", puppet.most());
    for n in 0..300 {
        assert!(!puppet.asked(ip(n)).is_empty(), "{n} was never asked");
    }
    for n in (1..300).step_by(2) {
        assert!(is_closed(&rig.health(&format!("s{n}"))), "{n} answers and is not in service");
    }
}

#[tokio::test(start_paused = true)]
async fn that_a_server_in_service_hangs_is_found_out_before_those_that_are_out_are_tried_again() {
    let puppet = Puppet::default();
    let rig = Rig::with(EngineConfig { max_in_flight: 8, seed: Some(1), ..EngineConfig::default() }, puppet.clone());
    let often = |spec: &mut ServerSpec| {
        (spec.health.interval_seconds, spec.health.timeout_seconds, spec.health.startup_seconds) = (5, 4, 0);
        (spec.breaker.open_seconds, spec.breaker.max_open_seconds) = (5, 20);
    };
    for n in 40..48 {
        serving(&rig, &puppet, &format!("s{n}"), &[n], often).await;
    }
    for n in 0..40 {
        puppet.set(ip(n), Does::Hang);
        let mut spec = spec(8080);
        usual(&mut spec);
        often(&mut spec);
        rig.engine.set_server(&key(&format!("s{n}")), spec, None);
        rig.api.set_pod(&key(&format!("s{n}")), pod(&format!("s{n}-0"), ip(n)));
    }
    for n in 0..40 {
        rig.until(&format!("s{n}"), secs(300), is_open).await.expect("open");
    }
    sleep(secs(60)).await;
    for n in 40..43 {
        puppet.set(ip(n), Does::Hang);
        let began = Instant::now();
        rig.until(&format!("s{n}"), secs(60), is_open).await.expect("open");
        // interval + timeout + 3 s, and a moment for a place.
        assert!(began.elapsed() <= secs(13), "known after {:?}", began.elapsed());
    }
}
