//! What was acknowledged is there: after SIGKILL under load, after a backup taken meanwhile, and on volumes that are full or cannot be written.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{BINARY, Server, database, path, run};

const TABLE: &str = "CREATE TABLE ledger (id INTEGER PRIMARY KEY, writer INTEGER, entry INTEGER)";

/// 200 in full; fewer, or more, by `SANDBOX_KILLS`.
fn kills() -> i64 {
    std::env::var("SANDBOX_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

/// Rows of an entry: a writer of an even number sends single statements, one of an odd number batches.
fn rows_of(writer: i64) -> i64 {
    if writer % 2 == 0 { 1 } else { 3 }
}

/// Writes one entry after another until the server is gone; returns those that were acknowledged.
async fn write_until_killed(server: Arc<Server>, writer: i64, first: i64, under_way: Arc<Semaphore>) -> Vec<(i64, i64)> {
    let mut acknowledged = Vec::new();
    for entry in first.. {
        let insert = json!({"query": "INSERT INTO ledger (writer, entry) VALUES (?, ?)", "params": [writer, entry]});
        let call = match rows_of(writer) {
            1 => json!({"name": "write_query", "arguments": insert}),
            rows => json!({"name": "write_batch", "arguments": {"statements": vec![insert; usize::try_from(rows).unwrap()]}}),
        };
        let Ok(response) = server.modern("tools/call", call).send().await else { break };
        let Ok(answer) = response.json::<Value>().await else { break };
        if answer["result"]["isError"] == json!(false) {
            acknowledged.push((writer, entry));
            under_way.add_permits(1);
        }
    }
    acknowledged
}

const HALVES: &str = "SELECT writer, entry, count(*) FROM ledger GROUP BY writer, entry HAVING count(*) <> iif(writer % 2, 3, 1)";

/// Looks for batches of which a part is there, until the server is gone. Reading all of them each time is the load of a reader, too.
async fn look_until_killed(server: Arc<Server>, first: i64) -> usize {
    let halves = HALVES.replace("GROUP BY", "WHERE entry >= ? GROUP BY");
    for looked in 0.. {
        let call = json!({"name": "read_query", "arguments": {"query": halves, "params": [first]}});
        let Ok(response) = server.modern("tools/call", call).send().await else { return looked };
        let Ok(answer) = response.json::<Value>().await else { return looked };
        if answer["result"]["isError"] == json!(false) {
            assert_eq!(answer["result"]["structuredContent"]["rows"], json!([]), "half a batch");
        }
    }
    unreachable!("the server is killed")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_row_survives_a_kill_at_any_moment_and_no_half_batch_is_seen() {
    let mut server = Server::start(TABLE, &[]);
    let folder = Arc::clone(&server.folder);
    let (mut acknowledged, mut looks) = (HashSet::new(), 0);
    for round in 0..kills() {
        let shared = Arc::new(server);
        let pid = shared.pid();
        let first = round * 1_000_000;
        let under_way = Arc::new(Semaphore::new(0));
        let write = |writer| tokio::spawn(write_until_killed(Arc::clone(&shared), writer, first, Arc::clone(&under_way)));
        let writers: Vec<_> = (0..8).map(write).collect();
        let reader = tokio::spawn(look_until_killed(Arc::clone(&shared), first));
        // The kill is to hit every phase of a commit: the moments are spread over 3 to 42 ms after the load has begun.
        under_way.acquire_many(8).await.unwrap().forget();
        tokio::time::sleep(Duration::from_millis(3 + round.unsigned_abs() * 13 % 40)).await;
        assert!(std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        looks += reader.await.unwrap();
        drop(shared);
        server = Server::on(Arc::clone(&folder), &[]);
        assert_eq!(server.rows(&HALVES.replace("GROUP BY", &format!("WHERE entry >= {first} GROUP BY"))).await, json!([]));
    }
    server.terminate();
    assert!(server.wait().success());
    let conn = database(folder.path());
    let halves: i64 = conn.query_row(&format!("SELECT count(*) FROM ({HALVES})"), [], |row| row.get(0)).unwrap();
    assert_eq!(halves, 0);
    let found: HashSet<(i64, i64)> = conn
        .prepare("SELECT DISTINCT writer, entry FROM ledger")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "lost {} of {}: {:?}", lost.len(), acknowledged.len(), &lost[..lost.len().min(10)]);
    let batches = acknowledged.iter().filter(|(writer, _)| rows_of(*writer) > 1).count();
    let least = usize::try_from(kills()).unwrap();
    println!("{} kills: {} acknowledged, {batches} of them batches, {looks} looks", kills(), acknowledged.len());
    assert!(acknowledged.len() > least && batches > least / 2 && looks > 0, "the load was none");
    let check: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_one_moment_and_restores() {
    let server = Arc::new(Server::start("CREATE TABLE pair (a INTEGER, b INTEGER)", &[]));
    let folder = Arc::clone(&server.folder);
    let writing = tokio::spawn({
        let server = Arc::clone(&server);
        async move {
            for value in 0..400 {
                server.ok("write_query", json!({"query": "INSERT INTO pair VALUES (?1, ?1)", "params": [value]})).await;
            }
        }
    });
    let db = path(&folder, "test.db");
    for copy in 0..5 {
        let to = path(&folder, &format!("copy-{copy}.db"));
        let (code, log) = tokio::task::spawn_blocking({
            let (db, to) = (db.clone(), to.clone());
            move || run(&["backup", "--db", db.to_str().unwrap(), "--to", to.to_str().unwrap()])
        })
        .await
        .unwrap();
        assert_eq!(code, 0, "{log}");
        let conn = rusqlite::Connection::open(&to).unwrap();
        let (rows, highest): (i64, Option<i64>) =
            conn.query_row("SELECT count(*), max(a) FROM pair WHERE a = b", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(rows, highest.map_or(0, |highest| highest + 1), "a gap");
    }
    writing.await.unwrap();
    let from = path(&folder, "copy-4.db");
    let restore = || run(&["restore", "--force", "--db", db.to_str().unwrap(), "--from", from.to_str().unwrap()]);
    let (code, log) = restore();
    assert!(code == 1 && log.contains("in use"), "under a running server: {log}");
    let mut server = Arc::into_inner(server).unwrap();
    server.terminate();
    assert!(server.wait().success());
    let (code, log) = restore();
    assert_eq!(code, 0, "{log}");
    let server = Server::on(folder, &[]);
    assert_eq!(server.rows("SELECT count(*) = max(a) + 1 FROM pair").await, json!([[1]]));
}

/// The rows of the database that is backed up and restored: some hundred pages, so that a kill finds each step.
const ROWS: i64 = 20_000;

fn whole(db: &Path) -> (String, i64) {
    let conn = rusqlite::Connection::open_with_flags(db, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let check = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    (check, conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap())
}

/// What is in a folder, and of that what is on its way to a name.
fn names(folder: &Path) -> (Vec<String>, Vec<String>) {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.partition(|name| !name.contains(".partial-"))
}

/// Kills runs of the program at moments that are spread over the time which one takes, and has `look` judge what each has left: how often
/// the kill found a file on its way to its name.
fn kill_spread(arguments: &[&str], folder: &Path, before: impl Fn(), look: impl Fn()) -> u32 {
    const KILLS: u32 = 30;
    let began = Instant::now();
    let (code, log) = run(arguments);
    assert_eq!(code, 0, "{log}");
    let takes = began.elapsed();
    let mut on_the_way = 0;
    for kill in 0..KILLS {
        before();
        let mut child = Command::new(BINARY).args(arguments).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(takes * kill / KILLS);
        // It may be through already.
        let _ = child.kill();
        child.wait().unwrap();
        on_the_way += u32::from(!names(folder).1.is_empty());
        look();
    }
    println!("{KILLS} kills within {takes:?}: {on_the_way} left a file on its way");
    on_the_way
}

/// SIGKILL at every step of a backup and of a restore: what has a name is whole, and the next run ends as if nothing had been.
#[test]
fn no_killed_backup_or_restore_leaves_a_file_that_looks_whole_and_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (db, kept, new) = (path(&folder, "test.db"), path(&folder, "kept"), path(&folder, "new"));
    let fill = format!(
        "PRAGMA journal_mode=WAL; CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
         INSERT INTO t SELECT randomblob(500) FROM n; CREATE INDEX i ON t (a)"
    );
    rusqlite::Connection::open(&db).unwrap().execute_batch(&fill).unwrap();
    for folder in [&kept, &new] {
        std::fs::create_dir(folder).unwrap();
    }
    let kept_name = kept.to_str().unwrap();
    let backup = ["backup", "--db", db.to_str().unwrap(), "--to", kept_name, "--keep", "3"];
    let on_the_way = kill_spread(
        &backup,
        &kept,
        || (),
        || {
            for name in names(&kept).0 {
                assert_eq!(whole(&kept.join(&name)), ("ok".into(), ROWS), "{name}");
            }
        },
    );
    assert!(on_the_way > 0, "no kill came in the middle");
    let (code, log) = run(&backup);
    let (backups, left) = names(&kept);
    assert!(code == 0 && left.is_empty() && (1..=3).contains(&backups.len()), "{log} {backups:?} {left:?}");

    let restored = new.join("test.db");
    let restore = ["restore", "--db", restored.to_str().unwrap(), "--from", kept_name, "--if-missing"];
    let absent = || {
        // What the killed one left on its way stays, as it does in a volume.
        let _ = std::fs::remove_file(&restored);
    };
    let on_the_way = kill_spread(&restore, &new, absent, || {
        for name in names(&new).0 {
            assert_eq!(whole(&new.join(&name)), ("ok".into(), ROWS), "{name}");
        }
    });
    assert!(on_the_way > 0, "no kill came in the middle");
    absent();
    let (code, log) = run(&restore);
    assert_eq!((code, whole(&restored)), (0, ("ok".into(), ROWS)), "{log}");
    // What one left that was slower, the next start removes.
    std::fs::write(new.join("test.db.partial-0123456789abcdef"), "half").unwrap();
    let (code, log) = run(&restore);
    assert!(code == 0 && log.contains("nothing restored"), "{log}");
    assert_eq!(names(&new), (vec!["test.db".into()], vec![]));
}

#[tokio::test]
async fn a_file_that_was_not_shut_down_is_taken_up_and_a_lost_one_is_not_replaced() {
    let mut server = Server::start(TABLE, &[]);
    server.ok("write_query", json!({"query": "INSERT INTO ledger (entry) VALUES (1)"})).await;
    let folder = Arc::clone(&server.folder);
    server.kill();
    drop(server);
    let server = Server::on(Arc::clone(&folder), &[]);
    assert_eq!(server.rows("SELECT count(*) FROM ledger").await, json!([[1]]));
    server.ok("write_query", json!({"query": "INSERT INTO ledger (entry) VALUES (2)"})).await;
    drop(server);
    // The log is there, the database is not: an empty one in its place would be a lie.
    std::fs::remove_file(path(&folder, "test.db")).unwrap();
    let (code, log) = run(&["serve", "--listen", "127.0.0.1:0", "--db", path(&folder, "test.db").to_str().unwrap()]);
    assert!(code == 3 && log.contains("write-ahead log"), "{code} {log}");
    assert!(!path(&folder, "test.db").exists());
}

/// A small file system of the test's own, in a namespace that ends with the process.
fn on_small_volume(script: &str) -> Option<String> {
    let script =
        format!("set -e; d=$(mktemp -d); mount -t tmpfs -o size=400k tmpfs $d; cd $d; {script}; cd /; umount $d; rmdir $d");
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "--user", "sh", "-c", &script])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // Some machines allow no user namespaces.
    (!text.contains("unshare failed") && !text.contains("Operation not permitted")).then_some(text)
}

/// Shell: runs the program over standard input and output, sends it messages one after the other, and shows what it says to each.
fn talk(arguments: &str, messages: &[Value]) -> String {
    let quoted = |message: &Value| message.to_string().replace('\'', "'\\''");
    let asks: String = messages
        .iter()
        .map(|message| match message.get("id") {
            // Notifications of the server come between.
            Some(id) => format!(
                "printf '%s\\n' '{}' >&3; while read -r l <&4; do printf '%s\\n' \"$l\"; case $l in *'\"id\":{id},'*) break;; esac; done; ",
                quoted(message)
            ),
            None => format!("printf '%s\\n' '{}' >&3; ", quoted(message)),
        })
        .collect();
    format!("mkfifo in out; {BINARY} {arguments} <in >out & exec 3>in 4<out; rm in out; {asks}exec 3>&-; wait; exec 4<&-")
}

fn initialize(id: u32) -> Value {
    let client = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": client})
}

#[test]
fn a_full_disk_costs_the_statement_and_nothing_before_it() {
    let call = |id: u32, query: &str| {
        let params = json!({"name": "execute_sql_query", "arguments": {"query": query}});
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
    };
    let messages = [
        initialize(0),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        call(1, "CREATE TABLE t (a)"),
        call(2, "INSERT INTO t VALUES ('kept')"),
        call(3, "INSERT INTO t VALUES (zeroblob(3000000))"),
        call(4, "SELECT a FROM t"),
        call(5, "INSERT INTO t VALUES ('also kept')"),
    ];
    let Some(text) = on_small_volume(&talk("stdio --db ./x.db", &messages)) else { return };
    let answer = |id: u32| {
        text.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["id"] == json!(id))
            .unwrap_or_else(|| panic!("{id} in {text}"))
    };
    let shown = |id: u32| answer(id)["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(shown(3).contains("disk is full"), "{}", shown(3));
    assert_eq!(answer(4)["result"]["structuredContent"]["rows"], json!([["kept"]]));
    assert_eq!(answer(5)["result"]["isError"], json!(false), "{}", shown(5));
}

/// The readiness probe of a server on a volume that fills up, and is freed again.
#[test]
fn a_full_disk_is_told_by_the_readiness_probe_until_there_is_space() {
    let binary = crate::support::BINARY;
    let ask = |query: &str| {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "execute_sql_query", "arguments": {"query": query}}});
        format!(
            "curl -s -o /dev/null -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' -H 'MCP-Protocol-Version: 2025-06-18' \
             -d '{}' http://$a/mcp",
            call.to_string().replace('\'', "'\\''")
        )
    };
    let ready = "curl -s http://$a/readyz";
    let script = format!(
        ": >log; {binary} serve --listen 127.0.0.1:0 --db ./x.db 2>>log & p=$!; \
         while ! grep -q 'serving MCP' log; do kill -0 $p; sleep 0.05; done; a=$(sed -n 's/.*\"address\":\"\\([^\"]*\\)\".*/\\1/p' log | tail -n 1); \
         {}; {ready}; (cat /dev/zero >filler 2>/dev/null || true); {}; {ready}; rm filler; {ready}; kill $p; wait $p || true",
        ask("CREATE TABLE t (a)"),
        ask("INSERT INTO t VALUES (zeroblob(100000))"),
    );
    let Some(text) = on_small_volume(&script) else { return };
    assert_eq!(text.lines().collect::<Vec<_>>(), ["ok", "database or disk is full", "ok"], "{text}");
}

#[test]
fn a_volume_that_cannot_be_written_is_said_and_can_be_read() {
    let binary = crate::support::BINARY;
    let script = format!(
        "{}; mount -o remount,ro $d; {binary} serve --listen 127.0.0.1:0 --db ./x.db && exit 9 || echo \"code $?\"; \
         {binary} serve --listen 127.0.0.1:0 --db ./new.db && exit 9 || echo \"code $?\"; echo '{}' | {binary} stdio --read-only --db ./x.db",
        talk("stdio --db ./x.db", &[initialize(0)]),
        initialize(7)
    );
    let Some(text) = on_small_volume(&script) else { return };
    assert_eq!(text.matches("code 3").count(), 2, "{text}");
    assert!(text.contains("cannot be written"), "{text}");
    assert!(text.contains("\"id\":7,\"result\""), "{text}");
}
