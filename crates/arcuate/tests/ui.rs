//! `arcuate ui` as a user calls it: what it prints, what it refuses, how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
    command.arg("ui").args(args).current_dir(dir).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn fails(args: &[&str], message: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let Output { status, stderr, .. } = program(dir.path(), args).output().expect("the program starts");
    let errors = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.contains(message), "{errors}");
}

#[test]
fn the_page_is_there_until_a_signal_ends_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut child =
        program(dir.path(), &["--port", "0", "--json"]).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("is piped")).read_line(&mut line).expect("a line");
    let told: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let url = told["url"].as_str().expect("an address");
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).expect("listens");
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("There are no runs in <code>runs</code>"),
        "{answer}"
    );
    let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", child.id())).status().expect("a shell");
    assert!(sent.success());
    assert!(child.wait().expect("ends").success());
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0, "looking leaves nothing behind");
}

#[test]
fn other_hosts_and_missing_folders_are_refused() {
    fails(&["--host", "0.0.0.0"], "`0.0.0.0` is not an address of this machine alone; use `127.0.0.1`");
    fails(&["--runs-dir", "nowhere"], "there is no folder `nowhere`; name the folder that holds the runs");
}

#[test]
fn a_taken_port_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("has one").port().to_string();
    fails(&["--port", &port], "is in use by another program; `--port 0` takes a free one");
}
