//! Many servers at once: the cap, and that nobody waits for those that hang.

use operator::probe::EngineConfig;
use tokio::time::{Instant, sleep};

use crate::{
    ip, is_closed, secs, serving,
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
