//! Backups in a bucket. An object is there as a whole or not at all: a large one is sent in parts, and exists only when the last call has
//! put them together. Each request is signed over its body, so the other side refuses what was changed on the way.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use tokio::runtime::Runtime;

use super::BackupError;
use super::place::Place;

/// The smallest part of a large object. S3 takes 5 MiB and more, and 10,000 parts.
const PART_BYTES: u64 = 8 << 20;
const MAX_PARTS: u64 = 9_000;

/// Parts on their way at once.
const PARTS_AT_ONCE: usize = 4;

/// Credentials that may stand in files, as mounted Secrets do: the variable names the file.
const FROM_FILES: [(&str, AmazonS3ConfigKey); 3] = [
    ("AWS_ACCESS_KEY_ID_FILE", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY_FILE", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN_FILE", AmazonS3ConfigKey::Token),
];

/// A prefix in a bucket.
pub struct Remote {
    store: Arc<dyn ObjectStore>,
    place: Place,
    prefix: Key,
    runtime: Runtime,
}

impl Remote {
    /// The bucket, with endpoint, region and credentials from the environment: AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and the
    /// others that AWS's own programs read, a web identity or an instance's role among them, or the files that FROM_FILES names.
    pub fn connect(bucket: &str, prefix: &str) -> Result<Self, BackupError> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        for (variable, key) in FROM_FILES {
            if let Some(file) = env::var_os(variable) {
                let text = fs::read_to_string(&file).map_err(|error| BackupError::File("read", file.into(), error))?;
                builder = builder.with_config(key, text.trim());
            }
        }
        // Without TLS only where that is what the endpoint says.
        let plain = |key| builder.get_config_value(&key).is_some_and(|endpoint| endpoint.starts_with("http://"));
        if plain(AmazonS3ConfigKey::Endpoint) || plain(AmazonS3ConfigKey::S3Endpoint) {
            builder = builder.with_allow_http(true);
        }
        let place = Place::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
        let store = builder.build().map_err(|error| BackupError::Remote("reach", place.to_string(), error))?;
        Self::over(Arc::new(store), place)
    }

    fn over(store: Arc<dyn ObjectStore>, place: Place) -> Result<Self, BackupError> {
        let prefix = match &place {
            Place::S3 { prefix, .. } => Key::from(prefix.as_str()),
            Place::Local(_) => Key::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(BackupError::Runtime)?;
        Ok(Self { store, place, prefix, runtime })
    }

    /// The names directly under the prefix.
    pub fn names(&self) -> Result<Vec<String>, BackupError> {
        let listed = self.runtime.block_on(self.store.list_with_delimiter(Some(&self.prefix)));
        let objects = listed.map_err(|error| self.failed("list", "", error))?.objects;
        Ok(objects.into_iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    /// Sends a file, and looks whether it is there in its whole size.
    pub fn upload(&self, file: &Path, name: &str) -> Result<u64, BackupError> {
        let key = self.prefix.clone().join(name);
        let read = |error| BackupError::File("read", file.to_path_buf(), error);
        let input = File::open(file).map_err(read)?;
        let bytes = input.metadata().map_err(read)?.len();
        let part = PART_BYTES.max(bytes / MAX_PARTS);
        let next = move || -> Result<Bytes, BackupError> {
            let mut buffer = Vec::new();
            (&input).take(part).read_to_end(&mut buffer).map_err(read)?;
            Ok(buffer.into())
        };
        let failed = |error| self.failed("write", name, error);
        self.runtime.block_on(async {
            if bytes <= part {
                self.store.put(&key, next()?.into()).await.map_err(failed)?;
                return Ok(());
            }
            let parts = self.store.put_multipart(&key).await.map_err(failed)?;
            let mut sending = WriteMultipart::new_with_chunk_size(parts, usize::try_from(part).unwrap_or(usize::MAX));
            loop {
                match next() {
                    Ok(buffer) if buffer.is_empty() => return sending.finish().await.map(drop).map_err(failed),
                    Ok(buffer) => {
                        sending.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)?;
                        sending.put(buffer);
                    }
                    Err(error) => {
                        // The reason for giving up is what the caller needs to know.
                        let _ = sending.abort().await;
                        return Err(error);
                    }
                }
            }
        })?;
        let there = self.runtime.block_on(self.store.head(&key)).map_err(|error| self.failed("look at", name, error))?.size;
        if there == bytes {
            Ok(bytes)
        } else {
            Err(BackupError::Damaged(self.shown(name).into(), format!("{there} of {bytes} bytes are there")))
        }
    }

    /// Fetches an object into a file.
    pub fn download(&self, name: &str, to: &Path) -> Result<(), BackupError> {
        let key = if name.is_empty() { self.prefix.clone() } else { self.prefix.clone().join(name) };
        let write = |error| BackupError::File("write", to.to_path_buf(), error);
        let mut output = File::create(to).map_err(write)?;
        self.runtime.block_on(async {
            let failed = |error| self.failed("read", name, error);
            let mut parts = self.store.get(&key).await.map_err(failed)?.into_stream();
            while let Some(part) = parts.try_next().await.map_err(failed)? {
                output.write_all(&part).map_err(write)?;
            }
            Ok(())
        })
    }

    /// Whether the prefix itself is the name of an object.
    pub fn is_object(&self) -> Result<bool, BackupError> {
        if self.prefix.as_ref().is_empty() {
            return Ok(false);
        }
        match self.runtime.block_on(self.store.head(&self.prefix)) {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failed("look at", "", error)),
        }
    }

    /// Removes an object.
    pub fn remove(&self, name: &str) -> Result<(), BackupError> {
        let key = self.prefix.clone().join(name);
        self.runtime.block_on(self.store.delete(&key)).map_err(|error| self.failed("remove", name, error))
    }

    /// A name as people write it.
    pub fn shown(&self, name: &str) -> String {
        if name.is_empty() { self.place.to_string() } else { format!("{}/{name}", self.place) }
    }

    fn failed(&self, what: &'static str, name: &str, error: object_store::Error) -> BackupError {
        BackupError::Remote(what, self.shown(name), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        let s3 = |bucket: &str, prefix: &str| Place::S3 { bucket: bucket.into(), prefix: prefix.into() };
        for (text, place, shown) in [
            ("s3://b", s3("b", ""), "s3://b"),
            ("s3://b/", s3("b", ""), "s3://b"),
            ("s3://b/a/c/", s3("b", "a/c"), "s3://b/a/c"),
            ("/backups", Place::Local("/backups".into()), "/backups"),
        ] {
            let read: Place = text.parse().unwrap();
            assert_eq!((&read, read.to_string().as_str()), (&place, shown));
        }
    }

    #[test]
    fn a_large_file_goes_in_parts_and_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::S3 { bucket: "b".into(), prefix: "p/q".into() };
        let remote = Remote::over(Arc::new(object_store::memory::InMemory::new()), place).unwrap();
        for bytes in [0, 10, PART_BYTES * 2 + 5] {
            let content: Vec<u8> = (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect();
            fs::write(folder.path().join("from"), &content).unwrap();
            assert_eq!(remote.upload(&folder.path().join("from"), "x").unwrap(), bytes);
            remote.download("x", &folder.path().join("to")).unwrap();
            assert_eq!(fs::read(folder.path().join("to")).unwrap(), content);
        }
        remote.upload(&folder.path().join("from"), "y").unwrap();
        assert_eq!(remote.names().unwrap(), ["x", "y"]);
        assert!(!remote.is_object().unwrap());
        remote.remove("x").unwrap();
        assert_eq!(remote.names().unwrap(), ["y"]);
        let error = remote.download("x", &folder.path().join("to")).unwrap_err().to_string();
        assert!(error.starts_with("failed to read s3://b/p/q/x"), "{error}");
    }
}
