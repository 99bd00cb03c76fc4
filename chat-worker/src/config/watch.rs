//! Reloads mcp.json. It reads the file every second and compares its content: a ConfigMap is swapped by symlinks two
//! directories up, and no notification of a file reaches across that everywhere.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::file::{self, FileError, McpConfig};

const PERIOD: Duration = Duration::from_secs(1);
/// Larger than any honest configuration.
const MAX_SIZE: u64 = 4 * 1024 * 1024;

/// The configuration in force, and whether the file is still it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Arc<McpConfig>,
    /// Why the file as it is now is not used: the last good one is.
    pub problem: Option<String>,
    /// Counts what was taken over.
    pub generation: u64,
    /// What was read last, good or not: only a difference from it is news.
    last: Result<String, String>,
}

/// The file cannot be used, and there is no earlier one.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}: {problem}. Set MCP_CONFIG_PATH to an mcp.json such as config/mcp.json")]
pub struct LoadError {
    path: String,
    problem: String,
}

/// Reads the file once.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let last = read(path);
    match parse(&last) {
        Ok(config) => {
            warn(path, &config);
            Ok(Loaded { config: Arc::new(config), problem: None, generation: 1, last })
        }
        Err(problem) => Err(LoadError { path: path.display().to_string(), problem }),
    }
}

/// Follows the file until nobody listens any more.
pub async fn follow(path: PathBuf, sender: watch::Sender<Loaded>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
        }
        let now = read(&path);
        sender.send_if_modified(|loaded| {
            let news = now != loaded.last;
            if news {
                take_over(&path, now, loaded);
            }
            news
        });
    }
}

fn take_over(path: &Path, text: Result<String, String>, loaded: &mut Loaded) {
    let parsed = parse(&text);
    loaded.last = text;
    match parsed {
        Ok(config) => {
            tracing::info!("configuration reloaded: {} servers", config.servers.len());
            warn(path, &config);
            loaded.config = Arc::new(config);
            loaded.problem = None;
            loaded.generation += 1;
        }
        Err(problem) => {
            tracing::error!("cannot use {} as it is now, the last good one stays in force: {problem}", path.display());
            loaded.problem = Some(problem);
        }
    }
}

fn parse(text: &Result<String, String>) -> Result<McpConfig, String> {
    let text = text.as_ref().map_err(Clone::clone)?;
    understand(text).map_err(|error| error.to_string())
}

/// What a text means, with the variables of our environment for the values that name them.
pub fn understand(text: &str) -> Result<McpConfig, FileError> {
    file::parse(text, &|name: &str| std::env::var(name).ok())
}

/// The log level that the file names, if it can be read at all.
pub fn log_level(path: &Path) -> Option<String> {
    understand(&read(path).ok()?).ok()?.log_level
}

fn warn(path: &Path, config: &McpConfig) {
    for warning in &config.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    for refused in &config.refused {
        tracing::error!(server = refused.name, "{}: the entry is not used: {}", path.display(), refused.reason);
    }
}

pub(super) fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SIZE {
        return Err(format!("it is larger than {} MiB", MAX_SIZE / 1024 / 1024));
    }
    text_of(std::fs::read(path).map_err(|error| error.to_string())?)
}

/// Editors and shells of Windows write UTF-16 where they are not told otherwise; its mark says so.
fn text_of(bytes: Vec<u8>) -> Result<String, String> {
    let wide = |unit: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks(2).map(|pair| pair.try_into().map_or(0xFFFD, unit));
        char::decode_utf16(units).collect::<Result<String, _>>().ok()
    };
    let text = match bytes.as_slice() {
        [0xFF, 0xFE, ..] => wide(u16::from_le_bytes),
        [0xFE, 0xFF, ..] => wide(u16::from_be_bytes),
        _ => String::from_utf8(bytes).ok(),
    };
    text.ok_or_else(|| "it is no text; save it as UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ONE: &str = r#"{"servers": [{"name": "a", "url": "http://a/mcp"}]}"#;
    const NONE: &str = r#"{"servers": []}"#;

    async fn news(receiver: &mut watch::Receiver<Loaded>) {
        let changed = tokio::time::timeout(Duration::from_secs(10), receiver.changed()).await;
        changed.expect("within ten seconds").expect("followed");
    }

    #[test]
    fn a_file_is_text_in_the_encodings_that_editors_write() {
        let read = |bytes: Vec<u8>| text_of(bytes).map(|text| understand(&text).expect("servers").servers.len());
        assert_eq!(read(ONE.as_bytes().to_vec()), Ok(1));
        assert_eq!(read(format!("\u{feff}{ONE}").into_bytes()), Ok(1));
        let units = || std::iter::once(0xFEFF).chain(ONE.encode_utf16());
        assert_eq!(read(units().flat_map(u16::to_le_bytes).collect()), Ok(1));
        assert_eq!(read(units().flat_map(u16::to_be_bytes).collect()), Ok(1));
        for odd in [&b"\xff\xfe\x00\xd8"[..], b"{\xff}"] {
            assert!(text_of(odd.to_vec()).is_err_and(|problem| problem.contains("UTF-8")), "{odd:?}");
        }
    }

    #[tokio::test]
    async fn a_configmap_swap_is_seen_and_a_bad_file_keeps_the_last_good_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("1", ONE), ("2", NONE), ("3", "{")] {
            std::fs::create_dir(at(version)).expect("create");
            std::fs::write(at(version).join("mcp.json"), text).expect("write");
        }
        symlink("1", at("..data")).expect("link");
        symlink("..data/mcp.json", at("mcp.json")).expect("link");
        let (sender, mut receiver) = watch::channel(load(&at("mcp.json")).expect("good"));
        let task = tokio::spawn(follow(at("mcp.json"), sender));
        let swap = |to: &str| {
            symlink(to, at("..new")).expect("link");
            std::fs::rename(at("..new"), at("..data")).expect("swap");
        };
        swap("2");
        news(&mut receiver).await;
        assert_eq!(receiver.borrow_and_update().config.servers.len(), 0);
        swap("3");
        news(&mut receiver).await;
        let loaded = receiver.borrow_and_update().clone();
        assert!(loaded.problem.is_some());
        assert_eq!(loaded.generation, 2);
        drop(receiver);
        task.await.expect("ends when nobody listens");
    }
}
