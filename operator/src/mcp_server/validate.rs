//! Step 2: from a spec and what is behind it to a server that can be built. Pure.
//!
//! The CRD's schema and CEL rules refuse what can be seen in the spec alone. What is left is what they cannot see. All problems are
//! told at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use http::{HeaderName, HeaderValue};
use k8s_openapi::{
    api::core::v1::ServicePort,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
};
use kube::ResourceExt;
use url::Url;

use super::{
    asleep::may_sleep,
    autoscaling::{self, Counting},
    contract, database,
    observe::{self, Observed, backup_claim, backup_references, references},
    own_claims, stdio,
};
use crate::{
    asleep::{Endpoints, Phase},
    autoscale::Decision,
    crd::{
        McpServer, McpServerSpec,
        backup::Backup,
        mcp_server::{ContainerSource, HeaderFrom, RemoteSource, SessionAffinity},
        network::Network,
        pod::{PodSettings, SecretKeyRef},
        quantity::{self, Resources},
        reason,
    },
    inputs::{self, Reference},
    names::Component,
    probe::{Credentials, Endpoint, ToolsContract, check_ca, template},
    problem::Problem,
    requeue::Class,
    ssa::owner_reference,
    workload::CLIENT_IP,
};

/// A server that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedServer {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The reference by which children are ours.
    pub owner: OwnerReference,
    /// Where it is.
    pub source: Source,
    /// The tools that it must offer.
    pub tools: ToolsContract,
    /// Everything that probes are to carry is there, and can be sent.
    pub carries_all: bool,
    /// What the spec points at and is not there: the pods wait for it. One that is switched off lacks nothing.
    pub lacks: Vec<Problem>,
    /// What is not as the spec wants it, and keeps nobody waiting.
    pub notes: Vec<Problem>,
    /// How many pods there are to be, where `spec.autoscaling` decides.
    pub decision: Option<Decision>,
    /// Who answers for it.
    pub phase: Phase,
    /// Where the activator answers.
    pub activator: Arc<Endpoints>,
    /// Where those of its pods answer that have shown that they speak MCP.
    pub answering: BTreeSet<SocketAddr>,
    /// It may sleep, or still does.
    pub sleeps: bool,
    /// What is said for it while it sleeps.
    pub kept: Option<String>,
}

/// Where the server is.
#[derive(Clone, Debug)]
pub enum Source {
    /// In pods of ours.
    Container(Box<Container>),
    /// Elsewhere.
    Remote(Remote),
}

impl Source {
    /// The headers that probes carry, and the CA that they trust.
    fn carried(&self) -> (&[(HeaderName, HeaderValue)], Option<&Vec<u8>>) {
        match self {
            Self::Container(container) => (&container.headers, None),
            Self::Remote(remote) => (&remote.headers, remote.ca.as_ref()),
        }
    }

    fn carries_all(&self, spec: &McpServerSpec) -> bool {
        let (headers, ca) = self.carried();
        let of_ca = spec.remote.as_ref().and_then(|remote| remote.ca_secret_ref.as_ref());
        headers.len() == spec.headers_from().len() && ca.is_some() == of_ca.is_some()
    }
}

/// A server in pods of ours.
#[derive(Clone, Debug)]
pub struct Container {
    /// Image, command, port and path.
    pub source: ContainerSource,
    /// What it has beside, when it speaks over standard input and output.
    pub stdio: Option<stdio::Stdio>,
    /// Who counts its calls, when it does not tell them itself.
    pub counting: Option<Counting>,
    /// Pods wanted: 0 while disabled.
    pub replicas: i32,
    /// What shapes the pods.
    pub pod: PodSettings,
    /// The volume that outlives the pods.
    pub volume: Option<Volume>,
    /// Who reaches them, and where they get to.
    pub network: Option<Network>,
    /// Headers that probes carry; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Digest of the Secrets and ConfigMaps that the pods read when they start.
    pub inputs: Option<String>,
    /// One pod at a time may write to a volume of it: `storage`, the cache of packages, or a claim of `spec.volumes`.
    pub one_writer: bool,
    /// Clients stay with one pod.
    pub sticky: bool,
    /// The ports that its Service has now.
    pub served: Vec<ServicePort>,
    /// The annotations that say what the pods are asked.
    pub asked: BTreeMap<String, String>,
}

/// The volume that outlives the pods.
#[derive(Clone, Debug)]
pub struct Volume {
    /// How much.
    pub size: Quantity,
    /// The StorageClass.
    pub class: Option<String>,
    /// Where the container finds it.
    pub mount_path: String,
    /// A backup at times.
    pub backup: Option<Backup>,
    /// By the spec nobody is to serve, so nothing is backed up meanwhile.
    pub at_rest: bool,
    /// What fills it where it is empty.
    pub restore_from: Option<String>,
    /// The database in it, as far as the spec names one.
    pub database: Option<String>,
}

/// A server elsewhere.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The MCP endpoint.
    pub url: Url,
    /// Headers of every request; the values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// PEM certificates of a private CA, where those that the spec names can be used.
    pub ca: Option<Vec<u8>>,
}

impl ValidatedServer {
    /// The name of its children, one of a kind. A second one of a kind has a name of its own.
    pub fn child_name(&self) -> String {
        Component::Server.child_name(&self.name)
    }

    /// The labels of every child.
    pub fn labels(&self) -> BTreeMap<String, String> {
        Component::Server.labels(&self.name)
    }

    /// What probes carry. None: some of it is not there, or cannot be sent.
    pub fn credentials(&self) -> Option<Credentials> {
        let (headers, ca) = self.source.carried();
        self.carries_all.then(|| Credentials { headers: headers.to_vec(), ca: ca.cloned(), ..Credentials::default() })
    }

    /// The Service's name and port: what a client sends as Host.
    pub fn host(&self, container: &Container) -> String {
        format!("{}.{}.svc:{}", self.child_name(), self.namespace, container.source.port)
    }
}

/// Where the prober finds the server, from the spec alone. None: nowhere.
pub fn endpoint(server: &McpServer) -> Option<Endpoint> {
    let of_container = server.spec.container.as_ref().map(|container| (container.port, &*container.path));
    let in_pods = of_container.or_else(|| server.spec.stdio.as_ref().map(|_| (stdio::PORT, stdio::PATH)));
    if let Some((port, path)) = in_pods {
        let (name, namespace) = (Component::Server.child_name(&server.name_any()), server.namespace().unwrap_or_default());
        return Some(Endpoint::Pods { port, path: path.to_owned(), host: format!("{name}.{namespace}.svc:{port}") });
    }
    let url = Url::parse(&server.spec.remote.as_ref()?.url).ok()?;
    Some(Endpoint::Remote { url })
}

/// The server, or everything that stands in the way.
pub fn validate(server: &McpServer, observed: &Observed) -> Result<ValidatedServer, Vec<Problem>> {
    let spec = &server.spec;
    let mut lacks = pod_lacks(spec, observed);
    let mut problems: Vec<_> = spec.pod.resources.iter().filter_map(Resources::beyond_limits).map(rejected).collect();

    let single_writer = own_claims::single_writer(&spec.pod, &observed.claims);
    let cache = spec.stdio.as_ref().is_some_and(|stdio| stdio.cache.is_some());
    let one_writer = spec.storage.is_some() || cache || single_writer.is_some();
    let mut notes: Vec<_> = single_writer
        .iter()
        .filter(|_| spec.enabled && autoscaling::most(spec) > 1)
        .map(|claim| writes_alone(claim, spec))
        .collect();
    notes.extend(database::unknown(spec));
    notes.extend(Problem::unclear_pause(server));
    notes.extend(backup_lacks(spec, observed));
    let in_pods = match (&spec.container, &spec.stdio, &spec.remote) {
        (Some(container), None, None) => Some((container.clone(), None)),
        (None, Some(given), None) => match stdio::validate(spec, given, &observed.sources, observed.session_keys.clone()) {
            Ok((source, stdio)) => Some((source, Some(stdio))),
            Err(sentence) => return Err(vec![rejected(sentence)]),
        },
        _ => None,
    };
    let counting = autoscaling::counting(spec, &observed.sources.bridge);
    let source = match (in_pods, &spec.remote) {
        (Some((source, stdio)), _) => Some(Source::Container(Box::new(Container {
            asked: template::annotations(
                counting.as_ref().map_or(source.port, |counting| counting.port),
                &source.path,
                spec.health.tool_call.as_ref(),
                &spec.tools,
            ),
            counting,
            source,
            sticky: sticky(spec, observed),
            stdio,
            replicas: replicas(spec, observed, one_writer),
            pod: spec.pod.clone(),
            volume: spec.storage.as_ref().map(|storage| Volume {
                size: quantity::of_size(&storage.size),
                class: storage.storage_class_name.clone(),
                mount_path: storage.mount_path.clone(),
                backup: storage.backup.clone(),
                at_rest: !spec.enabled || autoscaling::most(spec) == 0,
                restore_from: storage.restore_from.clone(),
                database: database::kept(spec),
            }),
            network: spec.network.clone(),
            headers: headers(spec, observed, &mut lacks),
            // What we send to the pods is not what they read.
            inputs: observed.inputs.digest(&inputs::of_pods(&spec.pod)),
            one_writer,
            served: observed.served.ports.clone().unwrap_or_default(),
        }))),
        (None, Some(_)) if spec.health.tool_call.is_some() && !observed.remote_tool_calls => {
            problems.push(rejected(
                "spec.health.toolCall is not made to a remote server, which may be somebody else's: remove it, or have whoever runs the operator allow it by --remote-tool-calls".into(),
            ));
            None
        }
        (None, Some(remote)) => match Url::parse(&remote.url) {
            Ok(url) => {
                let ca = ca(remote, observed, &mut lacks);
                Some(Source::Remote(Remote { url, headers: headers(spec, observed, &mut lacks), ca }))
            }
            Err(error) => {
                problems.push(rejected(format!("spec.remote.url is no URL: {error}")));
                None
            }
        },
        _ => {
            problems.push(rejected("set exactly one of spec.container, spec.stdio and spec.remote".into()));
            None
        }
    };

    let phase = Phase::of(spec, observed.decision.as_ref(), observed.stood_in, observed.leads);
    match source {
        Some(source) if problems.is_empty() => Ok(ValidatedServer {
            name: server.name_any(),
            namespace: server.namespace().unwrap_or_default(),
            owner: owner_reference(server),
            tools: contract::decide(&spec.tools, observed.accepted.as_ref(), observed.offered.as_deref()),
            carries_all: source.carries_all(spec),
            source,
            lacks,
            notes,
            decision: observed.decision.clone(),
            phase,
            activator: Arc::clone(&observed.activator),
            answering: observed.answering.clone(),
            sleeps: may_sleep(spec) || phase != Phase::Awake,
            kept: observed.kept.clone(),
        }),
        _ => Err(problems),
    }
}

/// The private CA, if it can be used.
fn ca(remote: &RemoteSource, observed: &Observed, lacks: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let unfit = unfit_ca(remote, observed);
    let ca = observed.ca.clone().filter(|pem| unfit.is_none() && !pem.trim_ascii().is_empty());
    lacks.extend(unfit);
    ca
}

/// Why the private CA cannot be used. One that is missing, or empty, is told by the inputs.
fn unfit_ca(remote: &RemoteSource, observed: &Observed) -> Option<Problem> {
    let (SecretKeyRef { name, key }, pem) = (remote.ca_secret_ref.as_ref()?, observed.ca.as_ref()?);
    let why = check_ca(pem).err().filter(|_| !pem.trim_ascii().is_empty())?;
    Some(Problem {
        class: Class::Waiting,
        reason: reason::INVALID_SPEC,
        message: format!(
            "remote.caSecretRef: the key {key} of the Secret {name} cannot be used: {why}; put PEM certificates there"
        ),
    })
}

/// What pods need, and is not there: an old one would go for one that cannot come.
fn pod_lacks(spec: &McpServerSpec, observed: &Observed) -> Vec<Problem> {
    if !spec.enabled {
        return Vec::new();
    }
    let carried = observe::credentials(spec).map(Reference::secret).collect();
    let inputs = [observed.inputs.problems(&references(spec)), observed.inputs.blank(&carried)].concat();
    let claims = own_claims::missing(&spec.pod, &observed.claims).map(|claim| {
        let message = format!("the PersistentVolumeClaim {claim} does not exist: create it, or correct the reference");
        (reason::CLAIM_NOT_FOUND, message)
    });
    inputs.into_iter().chain(claims).map(|(reason, message)| Problem { class: Class::Waiting, reason, message }).collect()
}

/// What backups need, and is not there. The server does without.
fn backup_lacks(spec: &McpServerSpec, observed: &Observed) -> Vec<Problem> {
    if !spec.enabled {
        return Vec::new();
    }
    let waits = |(reason, message)| Problem { class: Class::Waiting, reason, message };
    let claim = backup_claim(spec).filter(|_| observed.no_backup_claim).map(|claim| {
        let hint = "does not exist: create it, or correct the reference";
        (reason::CLAIM_NOT_FOUND, format!("the PersistentVolumeClaim {claim} that spec.storage.backup.to names {hint}"))
    });
    observed.inputs.problems(&backup_references(spec)).into_iter().chain(claim).map(waits).collect()
}

/// The headers that probes carry. What cannot be one is lacking.
fn headers(spec: &McpServerSpec, observed: &Observed, lacks: &mut Vec<Problem>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (HeaderFrom { secret_key_ref, .. }, (name, value)) in spec.headers_from().iter().zip(&observed.headers) {
        // A missing value, and an empty one, is told by the inputs, with the name of its Secret.
        let Some(value) = value.as_ref().map(|value| value.trim_ascii_end()).filter(|value| !value.is_empty()) else { continue };
        let header = HeaderName::from_bytes(name.as_bytes());
        match (header, HeaderValue::from_bytes(value)) {
            (Ok(header), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.push((header, value));
            }
            (Err(_), _) => lacks.push(rejected(format!("headersFrom: {name} is no name of a header"))),
            (_, Err(_)) => lacks.push(Problem {
                class: Class::Waiting,
                reason: reason::INVALID_SPEC,
                message: format!(
                    "headersFrom: the key {} of the Secret {} cannot be the header {name}: remove line breaks and control characters",
                    secret_key_ref.key, secret_key_ref.name
                ),
            }),
        }
    }
    headers
}

/// Whether clients stay with one pod. Before the first probe it is left as it is: an operator that starts anew knows no sessions yet.
fn sticky(spec: &McpServerSpec, observed: &Observed) -> bool {
    match spec.session_affinity.unwrap_or_default() {
        SessionAffinity::ClientIP => true,
        SessionAffinity::None => false,
        // Any pod of theirs knows every session.
        SessionAffinity::Auto if spec.stdio.is_some() => false,
        SessionAffinity::Auto => {
            autoscaling::most(spec) > 1
                && observed.sessions.unwrap_or_else(|| observed.served.session_affinity.as_deref() == Some(CLIENT_IP))
        }
    }
}

/// Pods wanted: none while it is switched off, and where one may write one, and none before the last one is gone: Kubernetes would make
/// the next beside it.
fn replicas(spec: &McpServerSpec, observed: &Observed, one_writer: bool) -> i32 {
    let wanted = i32::try_from(autoscaling::wanted(spec, observed.decision.as_ref())).unwrap_or(i32::MAX);
    match (one_writer, observed.empties) {
        (false, _) => wanted,
        (true, true) => 0,
        (true, false) => wanted.min(1),
    }
}

fn writes_alone(claim: &str, spec: &McpServerSpec) -> Problem {
    let field = if spec.autoscaling.is_some() { "autoscaling.maxReplicas" } else { "replicas" };
    let most = autoscaling::most(spec);
    Problem {
        class: Class::Waiting,
        reason: reason::INVALID_SPEC,
        message: format!(
            "spec.{field} is {most}, and one pod runs: the claim {claim} in spec.volumes is not known to be ReadWriteMany; make it ReadWriteMany, mount it read-only, or set spec.{field} to 1"
        ),
    }
}

fn rejected(message: String) -> Problem {
    Problem { class: Class::Rejected, reason: reason::INVALID_SPEC, message }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServiceSpec;

    use super::*;
    use crate::{fixtures, inputs::Found, inputs::Kind};

    fn with_header(value: Option<&[u8]>) -> (McpServer, Observed) {
        let reference = SecretKeyRef { name: "token".into(), key: "header".into() };
        let server = fixtures::remote(|server| {
            let remote = server.spec.remote.as_mut().expect("a remote server");
            remote.headers_from = vec![HeaderFrom { name: "Authorization".into(), secret_key_ref: reference }];
        });
        let text = value.map(String::from_utf8_lossy).unwrap_or_default();
        let inputs = Found::default().with(Kind::Secret, "token", &[("header", &text)]);
        let headers = vec![("Authorization".into(), value.map(Into::into))];
        (server, Observed { inputs, headers, ..Observed::default() })
    }

    #[test]
    fn a_disabled_server_wants_no_pods() {
        let server = fixtures::server(|server| server.spec.enabled = false);
        let validated = validate(&server, &Observed::default()).expect("valid");
        assert!(matches!(validated.source, Source::Container(container) if container.replicas == 0));
    }

    #[test]
    fn where_one_may_write_the_next_pod_comes_when_the_last_one_is_gone() {
        let replicas = |storage: bool, empties: bool| {
            let server = fixtures::server(|server| {
                let kept = serde_json::json!({"size": "1Gi", "mountPath": "/data"});
                server.spec.storage = storage.then(|| serde_json::from_value(kept).expect("storage"));
            });
            let Source::Container(container) =
                validate(&server, &Observed { empties, ..Observed::default() }).expect("valid").source
            else {
                unreachable!("it is a container")
            };
            container.replicas
        };
        assert_eq!((replicas(true, true), replicas(true, false), replicas(false, true)), (0, 1, 1));
    }

    #[test]
    fn clients_stay_with_one_pod_while_that_is_needed() {
        let sticky = |affinity: Option<SessionAffinity>, replicas: u32, sessions: Option<bool>, now: bool| {
            let server = fixtures::server(|server| {
                server.spec.session_affinity = affinity;
                server.spec.replicas = replicas;
            });
            let session_affinity = now.then(|| CLIENT_IP.into());
            let service = ServiceSpec { session_affinity, ..ServiceSpec::default() };
            super::sticky(&server.spec, &Observed { sessions, served: service, ..Observed::default() })
        };
        assert!(sticky(None, 2, Some(true), false));
        assert!(!sticky(None, 1, Some(true), true), "there is one pod");
        assert!(!sticky(Some(SessionAffinity::Auto), 2, Some(false), true));
        assert!(sticky(None, 2, None, true) && !sticky(None, 2, None, false), "not asked yet: as it is");
        assert!(sticky(Some(SessionAffinity::ClientIP), 1, Some(false), false));
        assert!(!sticky(Some(SessionAffinity::None), 2, Some(true), true));
        let stdio = fixtures::stdio(|server| server.spec.replicas = 3);
        assert!(!super::sticky(&stdio.spec, &Observed { sessions: Some(true), ..Observed::default() }), "ids are sealed");
    }

    #[test]
    fn requests_above_limits_are_told_before_kubernetes_refuses_the_pods() {
        let server = fixtures::server(|server| {
            let resources = serde_json::json!({"requests": {"cpu": 2}, "limits": {"cpu": "500m"}});
            server.spec.pod.resources = serde_json::from_value(resources).ok();
        });
        let problems = validate(&server, &Observed::default()).expect_err("refused");
        assert_eq!((problems[0].class, problems[0].reason), (Class::Rejected, reason::INVALID_SPEC));
    }

    #[test]
    fn a_remote_server_is_not_called_unless_the_operator_says_so() {
        let server = fixtures::remote(|server| {
            server.spec.health.tool_call = serde_json::from_value(serde_json::json!({"name": "ping"})).ok();
        });
        let observed = |remote_tool_calls| Observed { remote_tool_calls, ..Observed::default() };
        let problems = validate(&server, &observed(false)).expect_err("refused");
        assert_eq!((problems[0].class, problems[0].message.contains("--remote-tool-calls")), (Class::Rejected, true));
        assert!(validate(&server, &observed(true)).is_ok());
    }

    #[test]
    fn a_claim_of_ones_own_that_is_not_shared_has_one_writer_and_that_is_told() {
        let server = fixtures::server(|server| {
            server.spec.replicas = 3;
            server.spec.pod = serde_json::from_value(serde_json::json!({
                "volumes": [{"name": "own", "persistentVolumeClaim": {"claimName": "c"}}],
                "volumeMounts": [{"name": "own", "mountPath": "/own"}],
            }))
            .expect("settings");
        });
        let with = |mode: &str| {
            let claims = [("c".to_owned(), vec![mode.to_owned()])].into();
            let server = validate(&server, &Observed { claims, ..Observed::default() }).expect("valid");
            let Source::Container(container) = server.source else { unreachable!("it is a container") };
            (container.replicas, container.one_writer, server.notes.len())
        };
        assert_eq!(with("ReadWriteOnce"), (1, true, 1));
        assert_eq!(with("ReadWriteMany"), (3, false, 0));
        let lacks = validate(&server, &Observed::default()).expect("valid").lacks;
        assert_eq!((lacks.len(), lacks[0].reason), (1, reason::CLAIM_NOT_FOUND));
        assert!(lacks[0].message.contains("PersistentVolumeClaim c does not exist"), "{lacks:?}");
    }

    #[test]
    fn a_server_that_is_switched_off_lacks_nothing() {
        let server = fixtures::server(|server| {
            server.spec.enabled = false;
            server.spec.pod.env_from =
                serde_json::from_value(serde_json::json!([{"secretRef": {"name": "gone"}}])).expect("a reference");
        });
        assert!(validate(&server, &Observed::default()).expect("valid").lacks.is_empty());
    }

    #[test]
    fn a_header_loses_the_line_break_that_editors_add_and_is_sensitive() {
        let (server, observed) = with_header(Some(b"Bearer secret\n"));
        let Source::Remote(remote) = validate(&server, &observed).expect("valid").source else { unreachable!("it is remote") };
        assert_eq!(remote.headers[0].1, "Bearer secret");
        assert!(!format!("{remote:?}").contains("secret"));
    }

    #[test]
    fn a_header_that_cannot_be_one_is_refused_without_telling_it() {
        let (server, observed) = with_header(Some(b"two\nlines of secret"));
        let problems = validate(&server, &observed).expect("valid, but for the header").lacks;
        assert_eq!(problems[0].class, Class::Waiting);
        assert!(problems[0].message.contains("remove line breaks") && !problems[0].message.contains("secret\n"));
        assert!(!problems[0].message.contains("lines of"));
    }

    fn lack(server: &McpServer, observed: &Observed) -> Option<(&'static str, String)> {
        let lacks = validate(server, observed).expect("valid, but for a value").lacks;
        assert!(lacks.len() < 2, "{lacks:?}");
        lacks.into_iter().next().map(|lack| (lack.reason, lack.message))
    }

    #[test]
    fn what_probes_carry_is_known_whatever_else_is_lacking_and_only_as_a_whole() {
        let (mut server, observed) = with_header(Some(b"Bearer secret"));
        server.spec.pod.env_from =
            serde_json::from_value(serde_json::json!([{"secretRef": {"name": "gone"}}])).expect("a reference");
        let valid = validate(&server, &observed).expect("valid, but for a Secret");
        assert_eq!((valid.lacks.len(), valid.credentials().expect("known").headers.len()), (1, 1));
        for unfit in [None, Some(&b"  "[..]), Some(&b"two\nlines"[..])] {
            let (server, observed) = with_header(unfit);
            assert!(validate(&server, &observed).expect("valid, but for the header").credentials().is_none(), "{unfit:?}");
        }
        let (mut server, observed) = with_header(Some(b"Bearer secret"));
        let ca = SecretKeyRef { name: "private".into(), key: "ca.crt".into() };
        server.spec.remote.as_mut().expect("a remote server").ca_secret_ref = Some(ca);
        assert!(validate(&server, &observed).expect("valid, but for the CA").credentials().is_none());
    }

    #[test]
    fn a_header_that_is_empty_is_told_with_its_key() {
        for empty in ["", " \n"] {
            let (server, observed) = with_header(Some(empty.as_bytes()));
            let told = "the key header of the Secret token is empty: put the value there";
            assert_eq!(lack(&server, &observed), Some((reason::SECRET_EMPTY, told.into())));
        }
    }

    #[test]
    fn a_ca_that_is_empty_or_no_pem_is_told_with_its_key() {
        let server = fixtures::remote(|server| {
            let remote = server.spec.remote.as_mut().expect("a remote server");
            remote.ca_secret_ref = Some(SecretKeyRef { name: "private".into(), key: "ca.crt".into() });
        });
        let lack = |pem: &str| {
            let inputs = Found::default().with(Kind::Secret, "private", &[("ca.crt", pem)]);
            lack(&server, &Observed { inputs, ca: Some(pem.into()), ..Observed::default() })
        };
        let (empty, message) = lack("\n").expect("it is empty");
        assert_eq!((empty, message.contains("the key ca.crt of the Secret private is empty")), (reason::SECRET_EMPTY, true));
        for junk in ["not PEM", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            let (invalid, message) = lack(junk).expect("no certificate");
            assert_eq!(invalid, reason::INVALID_SPEC);
            assert!(message.starts_with("remote.caSecretRef: the key ca.crt of the Secret private"), "{message}");
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::new(Vec::new()).expect("parameters").self_signed(&key);
        assert_eq!(lack(&certificate.expect("a certificate").pem()), None);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let server = fixtures::server(|server| {
            let variable = |name: &str| serde_json::json!({"name": name, "valueFrom": {"secretKeyRef": {"name": name.to_lowercase(), "key": "k"}}});
            server.spec.pod.env = vec![
                serde_json::from_value(variable("ONE")).expect("a variable"),
                serde_json::from_value(variable("TWO")).expect("a variable"),
            ];
        });
        let lacks = validate(&server, &Observed::default()).expect("valid, but for the Secrets").lacks;
        let problem = Problem::all(&lacks).expect("a problem");
        assert_eq!(problem.reason, reason::SECRET_NOT_FOUND);
        assert!(problem.message.contains("Secret one") && problem.message.contains("Secret two"), "{}", problem.message);
    }
}
