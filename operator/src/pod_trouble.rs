//! What keeps a pod from running, in Kubernetes' own words: the scheduler's, the kubelet's, the container's last ones. Pure.
//!
//! What the pod answers over MCP is `probe`'s; what a server's status makes of both is `mcp_server::status`'.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodStatus},
    jiff::Timestamp,
};
use kube::ResourceExt as _;

use crate::crd::reason;

/// The container that speaks MCP. All others are installers, sidecars, or a mesh's.
pub const CONTAINER: &str = "mcp";

/// The longest part of a message that Kubernetes or a container wrote, in characters.
const PART: usize = 300;
/// How many of a container's last lines are told.
const LINES: usize = 5;
/// What every container passes through, and says nothing as long as it does not last.
const HARMLESS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Why a pod does not run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Kubernetes' own word for it: `ImagePullBackOff`, `CrashLoopBackOff`, `Unschedulable`, `OOMKilled`, `Evicted`.
    pub reason: String,
    /// One line for people: which pod and container, what the kubelet or the scheduler says, how the container ended and what it wrote last.
    pub message: String,
    /// Where in the message the container's last words begin.
    pub words: Option<usize>,
    /// The pod's container for MCP ran before: what ended may be mended by another start. False: nothing of it ever ran.
    pub ran: bool,
    /// How often the container in question was started again.
    pub restarts: u32,
    /// The exit code that the container in question ended with last.
    pub exit_code: Option<i32>,
    /// The container for clients runs again, after it ended: until it has shown that it serves, this is what is known of it.
    pub again: bool,
    /// When the pod was made.
    pub made: Option<Timestamp>,
}

impl Trouble {
    /// What Kubernetes says of a pod as a whole.
    pub fn of_pod(pod: &str, reason: &str, said: Option<&str>) -> Self {
        trouble(reason, sentence(pod, None, reason, said))
    }

    /// Without the container's last words, where `quoted` is false: they may hold what a former spec gave to it, and nobody can mask that.
    pub fn quoted(mut self, quoted: bool) -> Self {
        if let Some(words) = self.words.take_if(|_| !quoted) {
            self.message.truncate(words);
        }
        self
    }

    /// The pod never ran, and has had the time that a rollout has (`spec.progressDeadlineSeconds`).
    pub fn is_overdue(&self, deadline: Duration, now: Timestamp) -> bool {
        let age = self.made.and_then(|made| Duration::try_from(now.duration_since(made)).ok());
        !self.ran && age.is_some_and(|age| age >= deadline)
    }
}

/// A pod that is on its way in the usual manner: a node has it, and no container for clients has started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Making {
    /// The init container that is running.
    pub init: Option<String>,
    /// That is a sidecar: the others wait for its startup probe.
    pub sidecar: bool,
    /// Its volumes are mounted, and its network is there: what comes are images and containers.
    pub prepared: bool,
    /// When the pod was made.
    pub made: Option<Timestamp>,
    /// When something was seen of it last: a node took it, its volumes and its network were there, an init container ended.
    pub since: Option<Timestamp>,
}

/// How long a pod may be made without a word of Kubernetes', in seconds. An image that is not on the node takes some of it.
pub const SILENT: i64 = 30;

impl Making {
    /// What has not started cannot answer: its init container is told, and that there is none to be told of, once that lasts.
    pub fn told(&self, pod: &str, now: Timestamp) -> Option<String> {
        let Some(init) = &self.init else {
            let late = self.left(now)? <= 0;
            return late
                .then(|| format!("not up yet: pod {pod}: its containers are still being created: kubectl describe pod {pod}"));
        };
        if self.sidecar {
            return Some(format!(
                "not up yet: pod {pod}: its sidecar {init} runs, and its startup probe has not succeeded: kubectl describe pod {pod}"
            ));
        }
        Some(format!("not up yet: pod {pod}: its init container {init} is running"))
    }

    /// When that there is nothing to be told of is to be told: nothing else wakes anybody then. None: it is told, or something else is.
    pub fn due(&self, now: Timestamp) -> Option<Duration> {
        let left = self.left(now).filter(|left| self.init.is_none() && *left > 0)?;
        Some(Duration::from_secs(left.unsigned_abs()))
    }

    /// How many seconds it may still be made without a word.
    fn left(&self, now: Timestamp) -> Option<i64> {
        Some(SILENT - (now.as_second() - self.since?.as_second()))
    }
}

/// A pod that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The pod's uid.
    pub uid: String,
    /// What keeps it from running, by its status.
    pub trouble: Option<Trouble>,
    /// It is on its way in the usual manner, by its status.
    pub making: Option<Making>,
}

impl Stuck {
    /// None of a pod that runs.
    pub fn of(pod: &Pod) -> Option<Self> {
        // Nobody asks these: that the container is ready is all that one learns.
        let trouble = of(pod).filter(|trouble| !(trouble.again && is_ready(pod)));
        let making = making(pod);
        let stuck = trouble.is_some() || making.is_some();
        stuck.then(|| Self { uid: pod.uid().unwrap_or_default(), trouble, making })
    }
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "ContainersReady" && condition.status == "True")
}

/// How far a pod is that is being made; none of one that is not scheduled, that runs, or has run.
pub fn making(pod: &Pod) -> Option<Making> {
    let (spec, status) = (pod.spec.as_ref()?, pod.status.as_ref()?);
    spec.node_name.as_ref()?;
    (status.phase.as_deref() == Some("Pending")).then_some(())?;
    let prepared = status.conditions.iter().flatten().any(|condition| {
        // <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-has-network>
        condition.type_ == "PodReadyToStartContainers" && condition.status == "True"
    });
    // A sidecar holds the others up only until it has started, any other one until it has ended.
    let is_sidecar = |name: &str| is_sidecar(pod, name);
    let running = |container: &&ContainerStatus| {
        let runs = container.state.as_ref().is_some_and(|state| state.running.is_some());
        runs && !(is_sidecar(&container.name) && container.started == Some(true))
    };
    let init = init_containers(status).find(running).map(|container| container.name.clone());
    let sidecar = init.as_deref().is_some_and(is_sidecar);
    Some(Making { init, sidecar, prepared, made: made(pod), since: last_seen(pod, status) })
}

/// When the kubelet got on with a pod last that is being made. What it waited for before, a node for example, is over.
fn last_seen(pod: &Pod, status: &PodStatus) -> Option<Timestamp> {
    const STEPS: [&str; 3] = ["PodScheduled", "PodReadyToStartContainers", "Initialized"];
    let done = status.conditions.iter().flatten().filter(|step| step.status == "True" && STEPS.contains(&&*step.type_));
    let done = done.filter_map(|step| step.last_transition_time.as_ref());
    let ended =
        init_containers(status).filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    done.chain(ended).map(|time| time.0).chain(made(pod)).max()
}

/// A container that runs, and that the kubelet does not find ready: a sidecar's, or the server's own.
pub fn unready(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let runs = |container: &&ContainerStatus| container.state.as_ref().is_some_and(|state| state.running.is_some());
    let sidecars = init_containers(status).filter(|container| is_sidecar(pod, &container.name));
    let unready = sidecars.chain(containers(status)).filter(runs).find(|container| !container.ready);
    unready.map(|container| container.name.clone())
}

fn made(pod: &Pod) -> Option<Timestamp> {
    pod.creation_timestamp().map(|time| time.0)
}

fn is_sidecar(pod: &Pod, name: &str) -> bool {
    let mut of_spec = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    of_spec.any(|container| container.name == name && container.restart_policy.as_deref() == Some("Always"))
}

/// What keeps `pod` from running; none while it runs, or is on its way in the usual manner.
///
/// The first that is found counts, in the order in which a pod gets through them: the scheduler, init containers, containers.
pub fn of(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let name = pod.name_any();
    let ran = containers(status).any(|container| container.name == CONTAINER && has_run(container));
    unscheduled(&name, status)
        .or_else(|| init_containers(status).find_map(|container| stuck(&name, container, Some(is_sidecar(pod, &container.name)))))
        .or_else(|| {
            // The container that speaks MCP first: what befalls a sidecar is often what befell its server.
            let own = containers(status).filter(|container| container.name == CONTAINER);
            let others = containers(status).filter(|container| container.name != CONTAINER);
            own.chain(others).find_map(|container| stuck(&name, container, None))
        })
        .or_else(|| failed(&name, status))
        .or_else(|| lost(&name, pod, status))
        .map(|trouble| Trouble { ran, made: made(pod), ..trouble })
}

fn containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.container_statuses.iter().flatten()
}

fn init_containers(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    status.init_container_statuses.iter().flatten()
}

fn has_run(container: &ContainerStatus) -> bool {
    let ended = |state: &Option<ContainerState>| state.as_ref().is_some_and(|state| state.terminated.is_some());
    let runs = container.state.as_ref().is_some_and(|state| state.running.is_some());
    runs || container.restart_count > 0 || ended(&container.state) || ended(&container.last_state)
}

fn unscheduled(pod: &str, status: &PodStatus) -> Option<Trouble> {
    let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
    // Without a reason the scheduler has not looked yet.
    let reason = condition.reason.as_deref().filter(|_| condition.status == "False")?;
    Some(Trouble::of_pod(pod, reason, condition.message.as_deref()))
}

/// Kubernetes' word for a container that ends again and again. Between two ends it runs for a while, and is told the same: the reason must
/// not come and go with each start.
const LOOP: &str = "CrashLoopBackOff";

/// What holds this container up. `init`: it is one, and whether it is a sidecar; that any other one ended well is what it is for.
fn stuck(pod: &str, container: &ContainerStatus, init: Option<bool>) -> Option<Trouble> {
    let state = container.state.as_ref()?;
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let loops = container.restart_count > 1;
    let well = |ended: &ContainerStateTerminated| init.is_some() && ended.exit_code == 0;
    let waits = state.waiting.as_ref().filter(|waiting| !HARMLESS.contains(&waiting.reason.as_deref().unwrap_or(HARMLESS[0])));
    let (reason, said, ended) = if let Some(waiting) = waits {
        let reason = waiting.reason.as_deref()?;
        // How long the kubelet waits is another number each time, and no cause.
        let said = waiting.message.as_deref().filter(|_| reason != LOOP || last.is_none());
        (reason, said, last)
    } else if let Some(ended) = &state.terminated {
        let why = if loops { LOOP } else { ended.reason.as_deref().unwrap_or("Error") };
        (why, None, Some(ended).filter(|ended| !well(ended)))
    } else {
        let up = init == Some(true) && container.started == Some(true);
        let ended = last.filter(|ended| container.restart_count > 0 && !well(ended) && !up);
        (if loops { LOOP } else { last?.reason.as_deref().unwrap_or("Error") }, None, ended)
    };
    if waits.is_none() {
        ended?;
    }
    let mut message = sentence(pod, Some(container), reason, said);
    if let Some(ended) = ended {
        message.push_str(&ending(ended));
    }
    let last_words = ended.map(|ended| last_lines(ended.message.as_deref().unwrap_or_default())).filter(|said| !said.is_empty());
    let words = last_words.as_ref().map(|_| message.len());
    if let Some(said) = last_words {
        message = format!("{message}: {said}");
    }
    let restarts = u32::try_from(container.restart_count).unwrap_or_default();
    let exit_code = ended.map(|ended| ended.exit_code);
    let again = init.is_none() && state.running.is_some();
    Some(Trouble { words, restarts, exit_code, again, ..trouble(reason, message) })
}

/// The pod as a whole is over: the kubelet evicted it, its node went, or it ran past its deadline.
fn failed(pod: &str, status: &PodStatus) -> Option<Trouble> {
    (status.phase.as_deref() == Some("Failed")).then(|| {
        let reason = status.reason.as_deref().unwrap_or("Failed");
        Trouble::of_pod(pod, reason, status.message.as_deref())
    })
}

/// The pod's node is not ready, or does not report: Kubernetes then takes Ready from each of its pods, and gives no reason, as a kubelet
/// that does so always does. What else plays a kubelet may give none either, so all that Ready depends on must have been there before it went.
/// <https://kubernetes.io/docs/concepts/architecture/nodes/#node-controller>
fn lost(name: &str, pod: &Pod, status: &PodStatus) -> Option<Trouble> {
    let spec = pod.spec.as_ref()?;
    let node = spec.node_name.as_ref()?;
    let condition = |name: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == name);
    let ready = condition("Ready")?;
    let stood_before = |name: &str| {
        condition(name).is_some_and(|it| it.status == "True" && it.last_transition_time < ready.last_transition_time)
    };
    let gates = spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
    let unexplained = ready.status == "False" && ready.reason.as_ref().is_none_or(String::is_empty);
    let lost = unexplained && gates.chain(["ContainersReady"]).all(stood_before);
    let said = || format!("its node {node} is not ready, or does not report, and Kubernetes sends the pod no clients meanwhile");
    lost.then(|| Trouble::of_pod(name, reason::NODE_NOT_READY, Some(&said())))
}

fn trouble(reason: &str, message: String) -> Trouble {
    Trouble { reason: reason.to_owned(), message, ..Trouble::default() }
}

fn sentence(pod: &str, container: Option<&ContainerStatus>, reason: &str, said: Option<&str>) -> String {
    let of = container.map(|container| format!(", container {}", container.name)).unwrap_or_default();
    format!("pod {pod}{of}: {}", told(reason, said))
}

/// A word of Kubernetes', and its sentence, on one line.
pub fn told(reason: &str, said: Option<&str>) -> String {
    let said = said.map(one_line).filter(|said| !said.is_empty()).map(|said| format!(": {said}")).unwrap_or_default();
    format!("{reason}{said}")
}

/// Why a pod is not made, without its name: that is another one at every try, and tells nobody anything.
pub fn refusal(said: &str) -> &str {
    const AFTER_THE_NAME: [&str; 2] = ["\" is forbidden: ", "\" is invalid: "];
    AFTER_THE_NAME.iter().find_map(|words| said.split_once(words)).map_or(said, |(_, why)| why)
}

/// How a container ended.
fn ending(ended: &ContainerStateTerminated) -> String {
    let how = match (ended.signal.filter(|signal| *signal > 0), ended.exit_code) {
        (Some(signal), _) => format!("signal {signal}"),
        // A shell's way to tell of a signal, and the container runtimes'.
        (None, code) if code > 128 => format!("exit code {code} (signal {})", code - 128),
        (None, code) => format!("exit code {code}"),
    };
    let why = ended.reason.as_deref().filter(|reason| !matches!(*reason, "Error" | "Completed"));
    let why = why.map(|reason| format!("{reason}, ")).unwrap_or_default();
    format!("; it ended last with {why}{how}")
}

/// The last lines that say anything, on one line: of a container's termination message, or with `FallbackToLogsOnError` of its log. The end is kept: that is where a program says why it gave up.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let kept = lines[lines.len().saturating_sub(LINES)..].join(" | ");
    let clean: Vec<char> = printable(&kept).chars().collect();
    let cut = clean.len().saturating_sub(PART);
    let end: String = clean[cut..].iter().collect();
    if cut > 0 { format!("…{end}") } else { end }
}

/// On one line. Of a long one the beginning says what was done, and the end why that failed: the middle is left out.
fn one_line(text: &str) -> String {
    let clean: Vec<char> = printable(text).chars().collect();
    if clean.len() <= PART {
        return clean.into_iter().collect();
    }
    let (begin, end) = (&clean[..PART / 2], &clean[clean.len() - PART / 2..]);
    format!("{} … {}", begin.iter().collect::<String>().trim_end(), end.iter().collect::<String>().trim_start())
}

/// Without control characters, terminals' escapes among them, and with one space for many.
pub fn printable(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "pods are written with json!")]
mod tests {
    use super::*;
    use crate::fixtures;
    use serde_json::{Value, json};

    fn told(status: Value) -> Option<Trouble> {
        let pod = json!({"metadata": {"name": "db-mcp-1"}, "status": status});
        of(&serde_json::from_value(pod).expect("a pod"))
    }

    fn container(name: &str, state: Value) -> Value {
        json!({"name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"containerStatuses": [container("mcp", json!({"waiting": {"reason": reason, "message": message}}))]})
    }

    #[test]
    fn what_the_kubelet_waits_for_is_told_in_its_own_words() {
        for reason in [
            "ImagePullBackOff",
            "ErrImagePull",
            "InvalidImageName",
            "ErrImageNeverPull",
            "CreateContainerConfigError",
            "CreateContainerError",
            "RunContainerError",
        ] {
            let trouble = told(waiting(reason, "because\nof this")).expect("trouble");
            assert_eq!(trouble.reason, reason);
            assert_eq!(trouble.message, format!("pod db-mcp-1, container mcp: {reason}: because of this"));
            assert!(!trouble.ran, "nothing ever ran");
        }
    }

    #[test]
    fn a_sidecar_that_is_waited_for_is_told_by_what_it_lacks() {
        let pod = |started: bool, ready: bool| -> Pod {
            let proxy = json!({"name": "proxy", "image": "i", "imageID": "", "ready": ready, "restartCount": 0, "started": started,
                "state": {"running": {}}});
            let spec =
                json!({"nodeName": "n", "containers": [], "initContainers": [{"name": "proxy", "restartPolicy": "Always"}]});
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec,
                "status": {"phase": if started { "Running" } else { "Pending" }, "initContainerStatuses": [proxy]}}))
            .expect("a pod")
        };
        let told = making(&pod(false, false)).and_then(|making| making.told("a", fixtures::at(0))).expect("it is told");
        assert!(told.contains("its sidecar proxy runs, and its startup probe has not succeeded"), "{told}");
        assert_eq!(making(&pod(true, false)), None);
        assert_eq!(unready(&pod(true, false)).as_deref(), Some("proxy"));
        assert_eq!(unready(&pod(true, true)), None);
    }

    #[test]
    fn a_pod_that_never_ran_is_overdue_once_it_has_had_its_time() {
        let trouble = Trouble { made: Some(fixtures::at(0)), ..fixtures::trouble("ImagePullBackOff", "no such tag") };
        let overdue = |trouble: &Trouble, age| trouble.is_overdue(Duration::from_mins(10), fixtures::at(age));
        assert_eq!([599, 600, 3_600].map(|age| overdue(&trouble, age)), [false, true, true]);
        assert!(!overdue(&Trouble { ran: true, ..trouble.clone() }, 3_600), "it was up: that is for restarts and evictions");
        assert!(!overdue(&Trouble { made: None, ..trouble }, 3_600));
    }

    #[test]
    fn a_pod_on_its_way_and_a_pod_that_runs_are_in_no_trouble() {
        assert_eq!(told(json!({})), None);
        assert_eq!(told(json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]})), None);
        for reason in HARMLESS {
            assert_eq!(told(waiting(reason, "")), None);
        }
        assert_eq!(told(json!({"containerStatuses": [container("mcp", json!({"running": {}}))]})), None);
        let done = container("copy", json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
        assert_eq!(told(json!({"initContainerStatuses": [done]})), None);
    }

    #[test]
    fn a_pod_that_is_made_says_how_far_it_is() {
        let making = |spec: Value, status: Value| {
            making(&serde_json::from_value(json!({"metadata": {}, "spec": spec, "status": status})).expect("a pod"))
        };
        let node = || {
            let init = json!([{"name": "copy"}, {"name": "mesh", "restartPolicy": "Always"}, {"name": "download"}]);
            json!({"containers": [], "nodeName": "n", "initContainers": init})
        };
        assert_eq!(making(json!({"containers": []}), json!({"phase": "Pending"})), None, "no node has it");
        assert_eq!(making(node(), json!({"phase": "Running"})), None);
        assert_eq!(
            making(node(), json!({"phase": "Pending"})),
            Some(Making { init: None, sidecar: false, prepared: false, made: None, since: None })
        );
        // Of both kinds the kubelet says that they have started.
        let started = |name| {
            let mut container = container(name, json!({"running": {}}));
            container["started"] = json!(true);
            container
        };
        let status = json!({
            "phase": "Pending", "conditions": [{"type": "PodReadyToStartContainers", "status": "True"}],
            "initContainerStatuses": [
                container("copy", json!({"terminated": {"exitCode": 0}})), started("mesh"), started("download"),
            ],
        });
        assert_eq!(
            making(node(), status),
            Some(Making { init: Some("download".into()), sidecar: false, prepared: true, made: None, since: None })
        );
    }

    #[test]
    fn a_crash_loop_says_how_the_container_ended_and_what_it_wrote_last() {
        let mut crashed = container("mcp", json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
        crashed["restartCount"] = json!(3);
        crashed["lastState"] = json!({"terminated": {"exitCode": 2, "reason": "Error", "message": "usage: serve\n\nno such flag \u{1b}[1m--prot\n"}});
        let trouble = told(json!({"containerStatuses": [crashed]})).expect("trouble");
        assert_eq!((trouble.reason.as_str(), trouble.ran, trouble.restarts), ("CrashLoopBackOff", true, 3));
        assert_eq!(trouble.exit_code, Some(2));
        assert_eq!(
            trouble.message,
            "pod db-mcp-1, container mcp: CrashLoopBackOff; it ended last with exit code 2: usage: serve | no such flag [1m--prot"
        );
    }

    /// The reason must not come and go with each start of what ends again and again.
    #[test]
    fn what_ends_again_and_again_is_told_the_same_while_it_waits_and_while_it_runs() {
        let last = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "no such database"}});
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
        let longer = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 20s restarting failed container"}});
        let again = |name: &str, state: &Value| {
            let mut container = container(name, state.clone());
            container["restartCount"] = json!(2);
            container["lastState"] = last.clone();
            container
        };
        for (key, name) in [("containerStatuses", "mcp"), ("initContainerStatuses", "mcp-install")] {
            for state in [&back_off, &longer, &last, &json!({"running": {}})] {
                let trouble = told(json!({key: [again(name, state)]})).expect("trouble");
                let expected =
                    format!("pod db-mcp-1, container {name}: CrashLoopBackOff; it ended last with exit code 1: no such database");
                assert_eq!((&*trouble.reason, &*trouble.message), ("CrashLoopBackOff", &*expected), "{state}");
            }
        }
        let runs = told(json!({"containerStatuses": [again("mcp", &json!({"running": {}}))]})).expect("trouble");
        let waits = told(json!({"containerStatuses": [again("mcp", &back_off)]})).expect("trouble");
        assert!(runs.again && !waits.again);
        let mut serves =
            json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [again("mcp", &json!({"running": {}}))]}});
        let stuck = |pod: &Value| Stuck::of(&serde_json::from_value(pod.clone()).expect("a pod")).is_some();
        assert!(stuck(&serves));
        serves["status"]["conditions"] = json!([{"type": "ContainersReady", "status": "True"}]);
        assert!(!stuck(&serves), "it is up");
        let mut done = again("mcp-install", &json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
        done["ready"] = json!(true);
        assert_eq!(told(json!({"initContainerStatuses": [done]})), None, "it came through at last");
    }

    #[test]
    fn who_ran_out_of_memory_is_told_so() {
        let mut killed = container("mcp", json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        killed["lastState"] = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        let trouble = told(json!({"containerStatuses": [killed]})).expect("trouble");
        assert!(trouble.message.ends_with("; it ended last with OOMKilled, exit code 137 (signal 9)"), "{}", trouble.message);
        let now = container("mcp", json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        assert_eq!(told(json!({"containerStatuses": [now]})).expect("trouble").reason, "OOMKilled");
    }

    #[test]
    fn a_pod_that_no_node_takes_says_what_the_scheduler_says() {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"});
        let trouble = told(json!({"phase": "Pending", "conditions": [condition]})).expect("trouble");
        assert_eq!(trouble.message, "pod db-mcp-1: Unschedulable: 0/1 nodes are available");
    }

    #[test]
    fn an_install_that_fails_is_told_before_the_container_that_waits_for_it() {
        let failed =
            container("install", json!({"terminated": {"exitCode": 1, "reason": "Error", "message": "404 no such package"}}));
        let waits = container("mcp", json!({"waiting": {"reason": "PodInitializing"}}));
        let trouble = told(json!({"initContainerStatuses": [failed], "containerStatuses": [waits]})).expect("trouble");
        assert!(trouble.message.contains("container install: Error; it ended last with exit code 1: 404"), "{}", trouble.message);
        let unquoted = trouble.clone().quoted(false);
        assert_eq!(unquoted.message, "pod db-mcp-1, container install: Error; it ended last with exit code 1");
        assert_eq!((trouble.clone().quoted(true), unquoted.clone().quoted(false)), (trouble.clone(), unquoted));
        assert!(!trouble.ran);
    }

    #[test]
    fn a_pod_that_the_kubelet_evicted_says_why() {
        let status = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_eq!(told(status).expect("trouble").message, "pod db-mcp-1: Evicted: The node was low on resource: memory.");
    }

    #[test]
    fn a_pod_whose_node_is_lost_names_the_node() {
        let gated = |ready: Value, gate: &str, opened: &str| {
            let running = container("mcp", json!({"running": {}}));
            let at = |time: &str| format!("2026-01-01T00:00:{time}Z");
            let mut ready = ready;
            ready["lastTransitionTime"] = at("30").into();
            let conditions = json!([
                ready,
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": at("01")},
                {"type": "g", "status": gate, "lastTransitionTime": at(opened)},
            ]);
            let status = json!({"phase": "Running", "conditions": conditions, "containerStatuses": [running]});
            let spec = json!({"nodeName": "node-a", "containers": [], "readinessGates": [{"conditionType": "g"}]});
            let pod = json!({"metadata": {"name": "db-mcp-1"}, "spec": spec, "status": status});
            of(&serde_json::from_value(pod).expect("a pod"))
        };
        let told = |ready: Value| gated(ready, "True", "02");
        let fallen = || json!({"type": "Ready", "status": "False"});
        assert_eq!(gated(fallen(), "False", "02"), None, "it is kept out by its gate");
        assert_eq!(gated(fallen(), "True", "31"), None, "it was never ready: a virtual kubelet has not come to it yet");
        let lost = told(fallen()).expect("trouble");
        assert_eq!((lost.reason.as_str(), lost.ran), ("NodeNotReady", true));
        assert!(lost.message.starts_with("pod db-mcp-1: NodeNotReady: its node node-a is not ready"), "{}", lost.message);
        let waits = json!({"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady", "message": "m"});
        assert_eq!(told(waits), None, "a kubelet says why");
        assert_eq!(told(json!({"type": "Ready", "status": "True"})), None);
    }

    #[test]
    fn a_pod_that_is_being_made_without_a_word_is_told_once_that_lasts() {
        let making = Making { init: None, sidecar: false, prepared: true, made: None, since: Some(fixtures::at(0)) };
        let told = |second| making.told("db-mcp-1", fixtures::at(second));
        assert_eq!((told(0), told(SILENT - 1)), (None, None));
        let sentence = "not up yet: pod db-mcp-1: its containers are still being created: kubectl describe pod db-mcp-1";
        assert_eq!(told(SILENT).as_deref(), Some(sentence));
        assert_eq!(told(SILENT), told(9_999), "one sentence, however long it lasts");
        let due = |second| making.due(fixtures::at(second)).map(|wait| wait.as_secs());
        assert_eq!([0, SILENT - 1, SILENT, 9_999].map(due), [Some(30), Some(1), None, None]);
        assert_eq!(Making { init: Some("fetch".into()), ..making.clone() }.due(fixtures::at(0)), None, "that is told");
        assert_eq!(Making { since: None, ..making }.told("db-mcp-1", fixtures::at(9_999)), None);
    }

    /// What it waited for before is over, and was told.
    #[test]
    fn the_time_of_a_pod_that_is_being_made_counts_from_when_something_was_seen_of_it_last() {
        let at = |minute: u32| format!("2026-01-01T00:{minute:02}:00Z");
        let since = |conditions: &[(&str, &str, u32)], init: Value| {
            let condition = |(type_, status, minute): &(&str, &str, u32)| json!({"type": type_, "status": status, "lastTransitionTime": at(*minute)});
            let conditions: Vec<_> = conditions.iter().map(condition).collect();
            let pod = json!({
                "metadata": {"creationTimestamp": at(0)}, "spec": {"containers": [], "nodeName": "n"},
                "status": {"phase": "Pending", "conditions": conditions, "initContainerStatuses": init},
            });
            let making = making(&serde_json::from_value(pod).expect("a pod")).expect("it is being made");
            assert_eq!(making.made, Some(fixtures::at(0)), "that is how old it is");
            making.since
        };
        let none = || json!([]);
        let ended = json!([container("fetch", json!({"terminated": {"exitCode": 0, "finishedAt": at(9)}}))]);
        let minute = |minute: i64| Some(fixtures::at(60 * minute));
        assert_eq!(since(&[], none()), minute(0));
        assert_eq!(since(&[("PodScheduled", "True", 5)], none()), minute(5), "no node took it before");
        let prepared = [("PodScheduled", "True", 5), ("PodReadyToStartContainers", "True", 7), ("Ready", "False", 20)];
        assert_eq!(since(&prepared, none()), minute(7), "its volumes were not there before");
        assert_eq!(since(&prepared, ended), minute(9), "its init container ran until then");
        assert_eq!(since(&[("PodScheduled", "True", 5), ("Initialized", "True", 12)], none()), minute(12));
        assert_eq!(since(&[("PodScheduled", "True", 5), ("Initialized", "False", 12)], none()), minute(5));
    }

    #[test]
    fn long_messages_are_cut_and_of_last_words_the_end_is_kept() {
        let long = "x".repeat(5_000);
        let trouble = told(waiting("CreateContainerError", &long)).expect("trouble");
        assert!(trouble.message.chars().count() < 400 && trouble.message.contains('…'));
        let pull = format!("failed to pull {}: dial udp 10.25.0.10:53: i/o timeout", "and unpack image, ".repeat(40));
        let told = told(waiting("ErrImagePull", &pull)).expect("trouble").message;
        assert!(told.contains("ErrImagePull: failed to pull") && told.ends_with("dial udp 10.25.0.10:53: i/o timeout"), "{told}");
        assert!(last_lines(&format!("{long} the cause")).ends_with("the cause"));
    }
}
