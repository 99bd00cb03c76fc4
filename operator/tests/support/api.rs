//! An API server that takes the prober's writes, counts them, and tells the engine of patched pods as a watch would.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use operator::probe::{HealthEngine, PodState, ServerKey};
use serde_json::{Value, json};

/// One write.
#[derive(Clone, Debug)]
pub struct Write {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

#[derive(Default)]
struct Inner {
    writes: Mutex<Vec<Write>>,
    pods: Mutex<HashMap<String, (ServerKey, PodState)>>,
    engine: OnceLock<HealthEngine>,
    /// The last resourceVersion that was given out.
    version: AtomicU64,
    /// Answers instead of the usual ones: (part of the path, status), each used once.
    refusals: Mutex<Vec<(&'static str, u16)>>,
    one_writer: Mutex<Vec<String>>,
}

/// The API server.
#[derive(Clone, Default)]
pub struct Api(Arc<Inner>);

impl Api {
    pub fn attach(&self, engine: &HealthEngine) {
        assert!(self.0.engine.set(engine.clone()).is_ok(), "one engine");
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        kube::Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.answer(request).await) }
            }),
            "default",
        )
    }

    /// Tells the engine about a pod, and remembers it.
    pub fn set_pod(&self, key: &ServerKey, mut pod: PodState) {
        pod.version = Some(self.next_version());
        self.0.pods.lock().expect("no panic").insert(pod.name.clone(), (key.clone(), pod.clone()));
        self.0.engine.get().expect("attached").set_pod(key, pod);
    }

    /// Changes a pod, and tells the engine.
    pub fn change_pod(&self, name: &str, change: impl FnOnce(&mut PodState)) {
        let (key, pod) = {
            let mut pods = self.0.pods.lock().expect("no panic");
            let (key, pod) = pods.get_mut(name).expect("a known pod");
            let before = pod.version;
            change(pod);
            // A test that says which version it shows means it.
            if pod.version == before {
                pod.version = Some(self.next_version());
            }
            (key.clone(), pod.clone())
        };
        self.0.engine.get().expect("attached").set_pod(&key, pod);
    }

    fn next_version(&self) -> u64 {
        self.0.version.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The version of a pod that was shown last.
    pub fn version(&self, name: &str) -> u64 {
        self.0.pods.lock().expect("no panic")[name].1.version.expect("a version")
    }

    pub fn remove_pod(&self, name: &str) {
        let gone = self.0.pods.lock().expect("no panic").remove(name);
        let (_, pod) = gone.expect("a known pod");
        self.0.engine.get().expect("attached").remove_pod(&pod.uid);
    }

    pub fn refuse(&self, path: &'static str, status: u16) {
        self.0.refusals.lock().expect("no panic").push((path, status));
    }

    pub fn writes(&self) -> Vec<Write> {
        self.0.writes.lock().expect("no panic").clone()
    }

    /// The values that the gate of a pod was given, in order.
    pub fn gates(&self, pod: &str) -> Vec<bool> {
        let path = format!("/pods/{pod}/status");
        self.writes()
            .iter()
            .filter(|write| write.path.ends_with(&path))
            .map(|write| write.body["status"]["conditions"][0]["status"] == "True")
            .collect()
    }

    pub fn evictions(&self) -> Vec<String> {
        let paths = self.writes().into_iter().filter(|write| write.path.ends_with("/eviction")).map(|write| write.path);
        paths.filter_map(|path| path.rsplit('/').nth(1).map(str::to_owned)).collect()
    }

    /// The reasons of the Events, in order.
    pub fn events(&self) -> Vec<String> {
        let events = self.writes().into_iter().filter(|write| write.path.ends_with("/events"));
        events.filter_map(|write| write.body["reason"].as_str().map(str::to_owned)).collect()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let path = parts.uri.path().to_owned();
        if parts.method != Method::GET {
            self.0.writes.lock().expect("no panic").push(Write {
                method: parts.method.clone(),
                path: path.clone(),
                body: body.clone(),
            });
        }
        let refused = {
            let mut refusals = self.0.refusals.lock().expect("no panic");
            refusals.iter().position(|(part, _)| path.contains(part)).map(|at| refusals.remove(at).1)
        };
        if let Some(code) = refused {
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused", "reason": "No", "code": code});
            return reply(code, &status);
        }
        if parts.method == Method::PATCH && path.ends_with("/status") {
            return self.patch(&path, &body);
        }
        if parts.method == Method::GET {
            return self.found(&path);
        }
        if path.ends_with("/eviction") {
            return reply(201, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}));
        }
        reply(201, &body)
    }

    /// The Deployments that were named as of one writer, and the pods.
    fn found(&self, path: &str) -> Response<Body> {
        let name = path.rsplit('/').next().unwrap_or_default();
        if path.contains("/deployments/") && self.0.one_writer.lock().expect("no panic").iter().any(|known| known == name) {
            let spec = json!({"selector": {}, "template": {}, "strategy": {"type": "Recreate"}});
            return reply(
                200,
                &json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": name, "resourceVersion": "1"}, "spec": spec}),
            );
        }
        if name == "pods" {
            let pods = self.0.pods.lock().expect("no panic");
            let pods: Vec<Value> =
                pods.iter().map(|(name, (_, pod))| json!({"metadata": {"name": name, "uid": pod.uid}})).collect();
            return reply(200, &json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}));
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not found", "reason": "NotFound", "code": 404});
        reply(404, &status)
    }

    /// A Deployment that replaces its pods by Recreate.
    pub fn of_one_writer(&self, deployment: &str) {
        self.0.one_writer.lock().expect("no panic").push(deployment.to_owned());
    }

    /// The Deployments that were started anew.
    pub fn restarts(&self) -> Vec<String> {
        let patched = |write: &Write| {
            let annotations = &write.body["spec"]["template"]["metadata"]["annotations"];
            write.method == Method::PATCH && annotations["kubectl.kubernetes.io/restartedAt"].is_string()
        };
        let paths = self.writes().into_iter().filter(patched).map(|write| write.path);
        paths.filter_map(|path| path.rsplit('/').next().map(str::to_owned)).collect()
    }

    fn patch(&self, path: &str, body: &Value) -> Response<Body> {
        let name = path.rsplit('/').nth(1).unwrap_or_default();
        let gate = body["status"]["conditions"][0]["status"] == "True";
        let known = self.0.pods.lock().expect("no panic").get(name).cloned();
        let Some((_, pod)) = known.filter(|(_, pod)| body["metadata"]["uid"] == pod.uid.as_str()) else {
            return reply(
                409,
                &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "uid", "reason": "Conflict", "code": 409}),
            );
        };
        let version = self.next_version();
        let metadata = json!({"name": name, "uid": pod.uid, "resourceVersion": version.to_string()});
        let reply = reply(200, &json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}));
        self.change_pod(name, |pod| (pod.gate, pod.version) = (Some(gate), Some(version)));
        reply
    }
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_string().into_bytes())).expect("a response")
}
