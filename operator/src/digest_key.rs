//! The key of the digests that pod templates carry of the Secrets and ConfigMaps that they read.
//!
//! Whoever may view pods sees the digests. Without the key, values cannot be tried against them. It is made once, in a Secret beside the
//! operator's Lease: another key is another digest, and rolls the pods.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use hmac::{Hmac, KeyInit, Mac};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use rand::Rng;
use sha2::Sha256;
use tokio::{sync::OnceCell, time::sleep};

/// The key's key in the Secret.
const DATA_KEY: &str = "key";
/// Bytes of a key.
const LENGTH: usize = 32;
/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(3);

/// The key.
#[derive(Clone)]
pub struct DigestKey([u8; LENGTH]);

impl std::fmt::Debug for DigestKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DigestKey(…)")
    }
}

impl DigestKey {
    /// One that nobody knows.
    pub fn random() -> Self {
        let mut key = [0; LENGTH];
        rand::rng().fill(&mut key);
        Self(key)
    }

    /// The same in every test.
    #[cfg(test)]
    pub const fn for_tests() -> Self {
        Self([7; LENGTH])
    }

    /// The digest of a value.
    pub fn digest(&self, value: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        mac.update(value);
        mac.finalize().into_bytes().into()
    }

    fn read(secret: &Secret) -> Option<Self> {
        let ByteString(bytes) = secret.data.as_ref()?.get(DATA_KEY)?;
        bytes.as_slice().try_into().ok().map(Self)
    }
}

/// Where the key is.
#[derive(Clone)]
pub struct Source {
    client: Client,
    namespace: String,
    secret: String,
    key: Arc<OnceCell<DigestKey>>,
}

impl Source {
    /// In this Secret.
    pub fn new(client: Client, namespace: &str, secret: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), secret: secret.to_owned(), key: Arc::default() }
    }

    /// The key, which is read or made once in a process.
    pub async fn get(&self) -> DigestKey {
        self.key.get_or_init(|| load(&self.client, &self.namespace, &self.secret)).await.clone()
    }
}

/// Reads the key, or makes it. An API server that is away, or a right that is missing, is waited for and told: without the key, or with
/// another one, every pod would roll.
async fn load(client: &Client, namespace: &str, name: &str) -> DigestKey {
    let mut wait = Duration::from_secs(1);
    loop {
        match try_load(client, namespace, name).await {
            Ok(key) => return key,
            Err(error) => tracing::error!(
                secret.namespace = namespace,
                secret.name = name,
                %error,
                "the key of digests can neither be read nor made; nothing is reconciled until it is"
            ),
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

async fn try_load(client: &Client, namespace: &str, name: &str) -> Result<DigestKey, String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let text = |error: kube::Error| error.to_string();
    if let Some(found) = secrets.get_opt(name).await.map_err(text)? {
        return DigestKey::read(&found).ok_or_else(|| format!("{DATA_KEY} in it is not {LENGTH} bytes: delete the Secret"));
    }
    let key = DigestKey::random();
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(DATA_KEY.to_owned(), ByteString(key.0.to_vec()))])),
        ..Secret::default()
    };
    // Two at once: the second is told that it exists, and reads it at the next try.
    secrets.create(&PostParams::default(), &secret).await.map_err(text)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_depends_on_the_key_and_a_key_is_not_shown() {
        let (one, other) = (DigestKey::random(), DigestKey::random());
        assert_eq!(one.digest(b"1234"), one.clone().digest(b"1234"));
        assert_ne!(one.digest(b"1234"), other.digest(b"1234"));
        assert_ne!(one.digest(b"1234"), one.digest(b"1235"));
        assert_eq!(format!("{one:?}"), "DigestKey(…)");
    }

    #[test]
    fn a_key_is_read_as_it_was_written_and_a_damaged_one_is_none() {
        let secret = |bytes: Vec<u8>| Secret {
            data: Some(BTreeMap::from([(DATA_KEY.to_owned(), ByteString(bytes))])),
            ..Secret::default()
        };
        assert_eq!(DigestKey::read(&secret(vec![7; LENGTH])).map(|key| key.0), Some([7; LENGTH]));
        assert!(DigestKey::read(&secret(vec![7; 3])).is_none() && DigestKey::read(&Secret::default()).is_none());
    }
}
