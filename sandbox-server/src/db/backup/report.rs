//! What a run of `backup` tells who watches it: a file in Prometheus' text format, for the textfile collector of a node exporter or whoever
//! reads it after a CronJob. After a failure it still says when the last backup was made.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use metrics_text::{GaugeVec, MetricSet};

use super::dated::stem;

/// The time of the last backup that was made, which a failed run takes over from the file that is there.
const LAST_SUCCESS: &str = "sandbox_backup_last_success_timestamp_seconds";
const LAST_BYTES: &str = "sandbox_backup_last_success_bytes";

/// How a run went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run {
    /// When it began, in seconds since 1970.
    pub at: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The size of the backup in bytes. None: there is none.
    pub bytes: Option<f64>,
}

/// Writes the file, whole or not at all.
///
/// One that is mounted by itself, as the file of a container's last words is, cannot be replaced: it is written over, and after a failure
/// left empty, for Kubernetes then takes the end of the log, which says why.
pub fn write(file: &Path, db: &Path, run: Run) -> anyhow::Result<()> {
    let before = fs::read_to_string(file).unwrap_or_default();
    let all = MetricSet::default();
    let set = |name: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let gauge: GaugeVec = all.gauges(name, help, &["database"]);
            gauge.with_label_values(&[stem(db)]).set(value);
        }
    };
    let done = run.bytes.is_some();
    set("sandbox_backup_last_run_timestamp_seconds", "When a backup was last tried.", Some(run.at));
    set("sandbox_backup_last_run_success", "Whether the last try made a backup.", Some(f64::from(u8::from(done))));
    set("sandbox_backup_last_run_duration_seconds", "How long the last try took.", Some(run.seconds));
    set(LAST_SUCCESS, "When a backup was last made.", if done { Some(run.at) } else { value_of(&before, LAST_SUCCESS) });
    set(LAST_BYTES, "The size of the last backup.", run.bytes.or_else(|| value_of(&before, LAST_BYTES)));
    let text = all.text();
    match replace(file, text.as_bytes()) {
        // A file that cannot be replaced, a container's termination log, is written where it is; a failure leaves it to the error's words.
        Err(_) if file.is_file() && !done => Ok(()),
        Err(_) if file.is_file() => Ok(fs::write(file, text)?),
        replaced => Ok(replaced?),
    }
}

/// The collector may read at any time: it gets the old file or the new one.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut next = file.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    let mut output = fs::File::create(&next)?;
    output.write_all(text)?;
    output.sync_all()?;
    fs::rename(&next, file)
}

fn value_of(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_replaced_is_written_over_by_a_success_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, db) = (folder.path().join("last-words"), Path::new("/data/x.db"));
        fs::write(&file, "").unwrap();
        // Nothing takes the place of this one: the name of its successor is taken.
        fs::create_dir(folder.path().join("last-words.next")).unwrap();
        let failed = Run { at: 100.0, seconds: 1.0, bytes: None };
        write(&file, db, failed).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "");
        write(&file, db, Run { bytes: Some(4096.0), ..failed }).unwrap();
        assert!(fs::read_to_string(&file).unwrap().contains("sandbox_backup_last_success_bytes{database=\"x\"} 4096"));
    }

    #[test]
    fn a_failed_run_still_tells_of_the_last_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (file, db) = (folder.path().join("backup.prom"), Path::new("/data/x.db"));
        let failed = Run { at: 100.0, seconds: 1.0, bytes: None };
        write(&file, db, failed).unwrap();
        assert!(!fs::read_to_string(&file).unwrap().contains(LAST_SUCCESS), "there never was one");
        write(&file, db, Run { at: 1_700_000_000.0, seconds: 2.5, bytes: Some(4096.0) }).unwrap();
        write(&file, db, Run { at: 1_700_000_060.0, ..failed }).unwrap();
        insta::assert_snapshot!(fs::read_to_string(&file).unwrap(), @r#"
        # HELP sandbox_backup_last_run_duration_seconds How long the last try took.
        # TYPE sandbox_backup_last_run_duration_seconds gauge
        sandbox_backup_last_run_duration_seconds{database="x"} 1
        # HELP sandbox_backup_last_run_success Whether the last try made a backup.
        # TYPE sandbox_backup_last_run_success gauge
        sandbox_backup_last_run_success{database="x"} 0
        # HELP sandbox_backup_last_run_timestamp_seconds When a backup was last tried.
        # TYPE sandbox_backup_last_run_timestamp_seconds gauge
        sandbox_backup_last_run_timestamp_seconds{database="x"} 1700000060
        # HELP sandbox_backup_last_success_bytes The size of the last backup.
        # TYPE sandbox_backup_last_success_bytes gauge
        sandbox_backup_last_success_bytes{database="x"} 4096
        # HELP sandbox_backup_last_success_timestamp_seconds When a backup was last made.
        # TYPE sandbox_backup_last_success_timestamp_seconds gauge
        sandbox_backup_last_success_timestamp_seconds{database="x"} 1700000000
        "#);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
