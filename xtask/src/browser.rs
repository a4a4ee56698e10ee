//! A headless Chromium, driven over a pipe: messages are JSON, parted by NUL. No network and no other program is needed.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Longest wait for an answer, and for a page to become as wanted.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two looks at a page.
const TICK: Duration = Duration::from_millis(50);
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// A Chromium on this machine, if there is one: the one that `ARCUATE_CHROMIUM` names, or the first on the path.
pub fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ARCUATE_CHROMIUM") {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    let folders: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name))).find(|path| path.is_file())
}

/// One tab of a browser of its own.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    /// What the page complained about: errors of scripts, of the policy, of loading.
    complaints: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts the browser with an empty profile and an empty tab.
    pub fn start(program: &Path) -> Result<Self> {
        let profile = tempfile::Builder::new().prefix("arcuate-browser-").tempdir()?;
        let mut command = Command::new("sh");
        // The browser reads from 3 and writes to 4.
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"]).arg(program);
        command.args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]);
        command.args(["--disable-sync", "--no-default-browser-check", "--disable-extensions", "--mute-audio"]);
        command.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1").arg("about:blank");
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start a browser")?;
        let input = child.stdin.take().context("the browser has an input")?;
        let output = child.stdout.take().context("the browser has an output")?;
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(std::io::Result::ok) {
                let sent = serde_json::from_slice(&message).map(|message| sender.send(message));
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        });
        let (session, complaints) = (String::new(), Vec::new());
        let mut browser = Self { child, input, messages, session, last_id: 0, complaints, _profile: profile };
        let tab = browser.call("Target.createTarget", &json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": tab["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", &attach)?;
        browser.session = attached["sessionId"].as_str().context("the browser opens a tab")?.to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol and returns its result.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.input.write_all(format!("{message}\0").as_bytes()).context("the browser has gone")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(message) if message["id"] == self.last_id => {
                    if message["error"].is_object() {
                        bail!("`{method}`: {}", message["error"]["message"]);
                    }
                    return Ok(message["result"].clone());
                }
                Ok(event) => self.note(&event),
                Err(RecvTimeoutError::Timeout) => bail!("the browser does not answer `{method}`"),
                Err(RecvTimeoutError::Disconnected) => bail!("the browser ended at `{method}`"),
            }
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        let complaint = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &parameters["exceptionDetails"],
            Some("Log.entryAdded") if parameters["entry"]["level"] == "error" => &parameters["entry"],
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }

    /// What pages have complained about since the last call.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Opens an address and waits until it is loaded.
    pub fn open(&mut self, address: &str) -> Result<()> {
        let answer = self.call("Page.navigate", &json!({"url": address}))?;
        if let Some(error) = answer["errorText"].as_str() {
            bail!("`{address}`: {error}");
        }
        self.wait(&format!("document.readyState === 'complete' && location.href === {}", json!(address)))
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Result<Value> {
        let parameters = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &parameters)?;
        if answer["exceptionDetails"].is_object() {
            bail!("`{expression}`: {}", answer["exceptionDetails"]["exception"]["description"]);
        }
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true; while a page is being replaced it has no value.
    pub fn wait(&mut self, expression: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.value(expression) {
                Ok(Value::Bool(true)) => return Ok(()),
                other if Instant::now() > deadline => {
                    let text = self.value("document.body.innerText").unwrap_or_default();
                    bail!(
                        "`{expression}` has not become true ({other:?}); the page says\n{}",
                        text.as_str().unwrap_or("")
                    )
                }
                _ => std::thread::sleep(TICK),
            }
        }
    }

    /// Fails unless an expression is true now.
    pub fn expect(&mut self, what: &str, expression: &str) -> Result<()> {
        let value = self.value(expression)?;
        if value != Value::Bool(true) {
            bail!("{what}: `{expression}` is {value}");
        }
        Ok(())
    }

    /// Presses a key: `Tab`, `Enter`, ` `.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            " " => ("Space", 32, " "),
            _ => bail!("no key `{key}`"),
        };
        let kind = if text.is_empty() { "rawKeyDown" } else { "keyDown" };
        let mut parameters = json!({"type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number});
        if !text.is_empty() {
            parameters["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", &parameters)?;
        parameters["type"] = json!("keyUp");
        self.call("Input.dispatchKeyEvent", &parameters).map(drop)
    }

    /// Types text into what has the focus.
    pub fn write(&mut self, text: &str) -> Result<()> {
        self.call("Input.insertText", &json!({"text": text})).map(drop)
    }

    /// Sets the size of the window and whether the reader likes it dark.
    pub fn look(&mut self, width: u32, height: u32, is_dark: bool) -> Result<()> {
        let is_mobile = width < 600;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_mobile});
        self.call("Emulation.setDeviceMetricsOverride", &size)?;
        let scheme = if is_dark { "dark" } else { "light" };
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &media).map(drop)
    }

    /// Turns the scripts of pages on or off; takes effect with the next page.
    pub fn scripts(&mut self, are_on: bool) -> Result<()> {
        self.call("Emulation.setScriptExecutionDisabled", &json!({"value": !are_on})).map(drop)
    }

    /// Writes the whole page as a picture.
    pub fn picture(&mut self, path: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}))?;
        let bytes = from_base64(answer["data"].as_str().unwrap_or_default());
        std::fs::write(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.session.clear();
        if self.call("Browser.close", &json!({})).is_err() {
            drop(self.child.kill());
        }
        drop(self.child.wait());
    }
}

/// The bytes behind sound base64.
fn from_base64(text: &str) -> Vec<u8> {
    let value = |letter: u8| match letter {
        b'A'..=b'Z' => Some(u32::from(letter - b'A')),
        b'a'..=b'z' => Some(u32::from(letter - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(letter - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut num_bits) = (Vec::with_capacity(text.len() / 4 * 3), 0_u32, 0);
    for value in text.bytes().filter_map(value) {
        bits = bits << 6 | value;
        num_bits += 6;
        if num_bits >= 8 {
            num_bits -= 8;
            bytes.push((bits >> num_bits) as u8);
            bits &= (1 << num_bits) - 1;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [("", "".as_bytes()), ("TQ==", b"M"), ("TWE=", b"Ma"), ("TWFu/+8=", b"Man\xff\xef")] {
            assert_eq!(from_base64(text), bytes);
        }
    }
}
