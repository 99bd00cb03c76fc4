//! A person at a terminal: the program with a pseudo terminal at both ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use model_standin::Running as Model;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::json;
use support::stub::Stub;

const SCRIPT: &str = r#"
rules:
  - {name: wipe, when: [wipe], steps: [{tools: [{tool: wipe, input: {text: all}}]}, {text: "It said {{last}}."}]}
otherwise: {text: Hello.}
"#;

/// The program, what it wrote, and its keyboard.
struct Terminal {
    child: Child,
    keys: File,
    written: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(model: &Model, directory: &tempfile::TempDir) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let end = File::options().read(true).write(true).open(name).unwrap();
        let ours = || Stdio::from(end.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_chat-worker"))
            .arg("chat")
            .env_clear()
            .env("TERM", "xterm-256color")
            .env("HOME", directory.path())
            .env("ANTHROPIC_BASE_URL", model.url())
            .env("MCP_CONFIG_PATH", directory.path().join("mcp.json"))
            .env("LOG_FILE", directory.path().join("log"))
            .current_dir(directory)
            .stdin(ours())
            .stdout(ours())
            .stderr(ours())
            .spawn()
            .unwrap();
        let keys = File::from(master);
        let written = Arc::new(Mutex::new(String::new()));
        let (mut screen, mut answers, kept) = (keys.try_clone().unwrap(), keys.try_clone().unwrap(), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                // Where the cursor is, as terminals answer it.
                if text.contains("\u{1b}[6n") {
                    let _ = answers.write_all(b"\x1b[1;1R");
                }
                kept.lock().unwrap().push_str(&text);
            }
        });
        Self { child, keys, written }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it has written this behind that.
    async fn until(&self, behind: &str, text: &str) {
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            let written = self.written.lock().unwrap().clone();
            if written.split_once(behind).is_some_and(|(_, rest)| rest.contains(text)) {
                return;
            }
            assert!(Instant::now() < limit, "no {text:?} behind {behind:?}: {written:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_before_a_call_is_shown_does_not_allow_it() {
    let stub = Stub::start(json!([{"name": "wipe", "inputSchema": {"type": "object"}}])).await;
    let model = Model::start(SCRIPT).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("mcp.json"), json!({"servers": [stub.entry("s")]}).to_string()).unwrap();
    let mut terminal = Terminal::start(&model, &directory);

    terminal.until("", "/help").await;
    terminal.types("wipe\ry\r");
    terminal.until("n = no, never", "allow").await;
    assert_eq!(stub.calls(), Vec::<serde_json::Value>::new(), "nobody has seen it");
    terminal.types("n\r");
    terminal.until("n = no, never", "tokens").await;
    assert_eq!(stub.calls(), Vec::<serde_json::Value>::new());

    terminal.types("wipe\r");
    terminal.until("tokens", "n = no, never").await;
    terminal.until("tokens", "allow").await;
    terminal.types("y\r");
    terminal.until("tokens", "It said").await;
    assert_eq!(stub.calls().len(), 1);
}
