//! `bridge install`, by installers that do as much as real ones do, or less.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rstest::rstest;
use serde_json::{Value, json};

use crate::support::{Bridge, alive, child, until};

/// As npm 11 does it: packages appear file by file, with `package.json` at the beginning, and the links to programs when all is there. The one
/// that was asked for is unpacked anew where npm did not end the last time; one that it needs, and that has its `package.json`, is taken for
/// installed.
const NPM: &str = r#"
while [ "$1" != --prefix ]; do shift; done
modules=$2/node_modules
mkdir -p "$modules/needed" "$modules/server" "$modules/.bin"
if [ ! -e "$modules/needed/package.json" ]; then
    echo '{"name": "needed", "version": "1.0.0"}' >"$modules/needed/package.json"
    half
    program "$modules/needed/needed" 'echo whole'
fi
echo '{"name": "server", "version": "1.0.0", "bin": {"server": "server.js"}}' >"$modules/server/package.json"
program "$modules/server/server.js" "exec $modules/needed/needed"
ln -sf ../server/server.js "$modules/.bin/server""#;

/// Makes an environment, in which pip is.
const PYTHON: &str = r#"mkdir -p "$3/bin"; cp pip.sh "$3/bin/pip""#;

/// As pip does it: the files of a wheel, with the description of the package at the end, then its programs, then the list of what was written. A
/// package that has its description is one that is installed ("Requirement already satisfied").
const PIP: &str = r#"
environment=${0%/bin/pip}
info=$environment/lib/python3.13/site-packages/server-1.0.0.dist-info
if [ ! -e "$info/METADATA" ]; then
    mkdir -p "$info"
    printf '[console_scripts]\nserver = server:main\n' >"$info/entry_points.txt"
    echo 'Name: server' >"$info/METADATA"
    half
    program "$environment/bin/server" 'echo whole'
    touch "$info/RECORD"
fi"#;

/// What both need: a program, and a place where they are stopped the first time.
const TOOLS: &str = r#"
program() { printf '#!/bin/sh\n%s\n' "$2" >"$1"; chmod 755 "$1"; }
half() { [ -e begun ] || { touch begun; sleep 1000; }; }
"#;

/// The programs that those start.
const PROGRAMS: [&str; 6] = ["chmod", "cp", "ln", "mkdir", "sleep", "touch"];

fn script(folder: &Path, name: &str, does: &str) {
    let file = folder.join(name);
    fs::write(&file, format!("#!/bin/sh\ncd {}\n{does}\n", folder.display())).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
}

fn terminate(process: &Child) {
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
}

async fn ended(process: &mut Child) -> ExitStatus {
    until("its end", async || process.try_wait().unwrap()).await
}

#[rstest]
#[tokio::test]
async fn an_installation_that_was_cut_short_counts_for_nothing(
    #[values(("npm", "server@1.0.0"), ("pypi", "server==1.0.0"))] case: (&str, &str),
) {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "npm", &[TOOLS, NPM].concat());
    script(folder.path(), "python3", PYTHON);
    script(folder.path(), "pip.sh", &[TOOLS, PIP].concat());
    for program in PROGRAMS {
        symlink(Path::new("/bin").join(program), folder.path().join(program)).unwrap();
    }
    let packages = folder.path().join("packages");
    let index = packages.join("installed.json");
    let mut install = Command::new(env!("CARGO_BIN_EXE_bridge"));
    install.env_clear().env("PATH", folder.path()).args(["install", case.0, case.1, "--into"]).arg(&packages);

    let mut first = install.stderr(Stdio::null()).spawn().unwrap();
    until("half of it", async || folder.path().join("begun").exists().then_some(())).await;
    terminate(&first);
    assert_eq!(ended(&mut first).await.code(), Some(1));
    assert!(!index.exists(), "whoever starts now finds nothing");

    let again = install.stderr(Stdio::piped()).output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let index: Value = serde_json::from_slice(&fs::read(index).unwrap()).unwrap();
    let program = index[format!("{} {}", case.0, case.1)].as_str().unwrap();
    assert_eq!(Command::new(program).output().unwrap().stdout, b"whole\n");
}

#[tokio::test]
async fn what_is_installed_is_started_without_its_runner() {
    let packages = tempfile::tempdir().unwrap();
    let index = json!({"npm @scope/server@1.0.0": child("")[0]});
    fs::write(packages.path().join("installed.json"), index.to_string()).unwrap();
    let mut command: Vec<String> = ["npx", "-y", "@scope/server@1.0.0"].map(str::to_owned).to_vec();
    command.extend(child("legacy").drain(1..));
    let bridge = Bridge::start(&format!("--packages {}", packages.path().display()), &command).await;
    assert_eq!(bridge.text(None, "echo", json!({})).await, json!({}));
}

/// A folder with an `npm` that does this instead, and what installs by it.
fn installs(does: &str) -> (tempfile::TempDir, Command) {
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "npm", does);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut install = Command::new(env!("CARGO_BIN_EXE_bridge"));
    install.env("PATH", path).args(["install", "npm", "server@1.0.0", "--into"]).arg(folder.path().join("packages"));
    (folder, install)
}

#[tokio::test]
async fn an_installation_that_is_to_stop_ends_with_all_that_it_started() {
    let (folder, mut install) =
        installs("sleep 1000 & echo $! >pids; setsid sleep 1000 & echo $! >>pids; echo $$ >>pids; touch begun; wait");
    let log = folder.path().join("log");
    fs::write(&log, "").unwrap();
    let mut bridge = install.arg("--termination-log").arg(&log).stderr(Stdio::null()).spawn().unwrap();
    until("the installer", async || folder.path().join("begun").exists().then_some(())).await;
    terminate(&bridge);
    assert_eq!(ended(&mut bridge).await.code(), Some(1));
    assert_eq!(fs::read_to_string(log).unwrap(), "stopped before server@1.0.0 was installed");
    let pids = fs::read_to_string(folder.path().join("pids")).unwrap();
    let pids: Vec<i64> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    until("the end of all", async || (!pids.iter().any(|pid| alive(*pid))).then_some(())).await;
}

#[test]
fn a_package_that_does_not_have_what_it_names_is_told_so() {
    let (_folder, mut install) = installs(concat!(
        "own=packages/npm/npm+server+1.0.0/node_modules/server; mkdir -p $own; ",
        r#"echo '{"name": "server", "bin": {"server": "nothere.js"}}' >$own/package.json"#
    ));
    let output = install.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let words = "server@1.0.0 names the file nothere.js for its program server, and does not have it";
    assert!(output.status.code() == Some(1) && told.contains(words), "{told}");
}

/// uv does not read what is said to pip: it would fetch the package from where nobody said.
#[rstest]
#[case::nothing_is_said(&[], "uv")]
#[case::the_file_of_pip(&["PIP_CONFIG_FILE"], "pip")]
#[case::the_index_of_pip(&["PIP_INDEX_URL"], "pip")]
#[case::both(&["PIP_INDEX_URL", "UV_INDEX_URL"], "uv")]
#[case::the_file_of_uv(&["UV_CONFIG_FILE"], "uv")]
fn who_says_to_pip_alone_where_packages_come_from_gets_them_by_pip(#[case] said: &[&str], #[case] installer: &str) {
    let folder = tempfile::tempdir().unwrap();
    script(
        folder.path(),
        "uv",
        r#"echo "uv from ${UV_DEFAULT_INDEX-}" >by; mkdir -p "$UV_TOOL_BIN_DIR"; touch "$UV_TOOL_BIN_DIR/server""#,
    );
    script(folder.path(), "python3", PYTHON);
    let pip = [r#"echo "pip from ${PIP_INDEX_URL-}" >by; touch begun"#, TOOLS, PIP].join("\n");
    script(folder.path(), "pip.sh", &pip);
    for program in PROGRAMS {
        symlink(Path::new("/bin").join(program), folder.path().join(program)).unwrap();
    }
    let mut install = Command::new(env!("CARGO_BIN_EXE_bridge"));
    install.env_clear().env("PATH", folder.path()).envs(said.iter().map(|name| (name, "said")));
    install.args(["install", "pypi", "server==1.0.0", "--default-registry", "http://fleet.example/simple", "--into"]);
    let output = install.arg(folder.path().join("packages")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let by = fs::read_to_string(folder.path().join("by")).unwrap();
    let from = match (said.is_empty(), said.contains(&"PIP_INDEX_URL") && installer == "pip") {
        (true, _) => "http://fleet.example/simple",
        (_, true) => "said",
        _ => "",
    };
    assert_eq!(by, format!("{installer} from {from}\n"), "{said:?}");
}
