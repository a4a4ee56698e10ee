//! As much HTTP/1.1 as a browser needs to read pages from this machine.
//!
//! One request a connection. Head, time and number of connections are bounded, so that neither an idle nor a hostile client
//! can stop the server. Every answer has the headers that keep other pages out, and a tag by which a browser asks whether
//! anything has changed.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Query, Result, host};

/// Longest request line with all headers.
const MAX_HEAD_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 100;
/// Of the body of a request that is refused, so much is read, so that the client gets to see the answer.
const MAX_DRAINED_BYTES: u64 = 256 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From connecting to the last byte of the head.
    pub head_time: Duration,
    /// Longest pause while the answer is read.
    pub write_time: Duration,
    /// Connections at once; further ones wait.
    pub num_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_time: Duration::from_secs(5), write_time: Duration::from_secs(10), num_connections: 64 }
    }
}

/// A request for a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// The path as it was sent, from its first slash.
    pub path: String,
    /// The query.
    pub query: Query,
    is_head: bool,
    known_tags: String,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    content_type: &'static str,
    /// What the page may load and run.
    policy: &'static str,
    body: Vec<u8>,
}

/// A page loads its style and script from here, and nothing from anywhere else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// A page from a run folder holds its style, and runs nothing.
const CLOSED_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; media-src data:; base-uri 'none'; frame-ancestors 'none'; sandbox";

impl Response {
    /// A page of ours.
    pub fn html(status: u16, text: String) -> Self {
        let content_type = "text/html; charset=utf-8";
        Self { status, content_type, policy: PAGE_POLICY, body: text.into_bytes() }
    }

    /// A page that somebody else has written: it is shown, but runs nothing and loads nothing.
    pub fn closed_html(body: Vec<u8>) -> Self {
        Self { status: 200, content_type: "text/html; charset=utf-8", policy: CLOSED_POLICY, body }
    }

    /// A file that is part of the program.
    pub fn asset(content_type: &'static str, text: &str) -> Self {
        Self { status: 200, content_type, policy: CLOSED_POLICY, body: text.as_bytes().to_vec() }
    }

    fn plain(status: u16, text: &str) -> Self {
        let content_type = "text/plain; charset=utf-8";
        Self { status, content_type, policy: CLOSED_POLICY, body: format!("{text}\n").into_bytes() }
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What the client sees.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    fn tag(&self) -> String {
        format!("\"{}\"", &blake3::hash(&self.body).to_hex()[..32])
    }

    /// The answer as it goes over the wire.
    fn to_bytes(&self, request: Option<&Request>) -> Vec<u8> {
        let tag = self.tag();
        let is_known = |known: &str| known.split(',').any(|own| own.trim().trim_start_matches("W/") == tag);
        let is_unchanged = self.status == 200 && request.is_some_and(|request| is_known(&request.known_tags));
        let status = if is_unchanged { 304 } else { self.status };
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\nConnection: close\r\nCache-Control: no-cache\r\nETag: {tag}\r\n\
             Content-Security-Policy: {}\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
             Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n",
            reason(status),
            self.policy
        );
        if status == 405 {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        if !is_unchanged {
            head.push_str(&format!("Content-Type: {}\r\nContent-Length: {}\r\n", self.content_type, self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !is_unchanged && !request.is_some_and(|request| request.is_head) {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        _ => "Internal Server Error",
    }
}

/// Reads a request from its head; what is wrong with it is the answer.
fn parse(head: &[u8]) -> std::result::Result<Request, Response> {
    let bad = |what: &str| Response::plain(400, what);
    let text = std::str::from_utf8(head).map_err(|_| bad("the request is not UTF-8"))?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(bad("this is not HTTP/1.1"));
    };
    let mut hosts = Vec::new();
    let mut known_tags = String::new();
    for (number, line) in lines.filter(|line| !line.is_empty()).enumerate() {
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
        let Some((name, value)) = line.split_once(':').filter(|(name, _)| is_name(name)) else {
            return Err(bad("a header is damaged"));
        };
        if number >= MAX_HEADERS {
            return Err(Response::plain(431, "there are too many headers"));
        }
        if name.eq_ignore_ascii_case("host") {
            hosts.push(value.trim());
        } else if name.eq_ignore_ascii_case("if-none-match") {
            value.trim().clone_into(&mut known_tags);
        }
    }
    let [host] = hosts[..] else { return Err(bad("a request names one host")) };
    if !host::is_ours(host) {
        return Err(Response::plain(403, "this server answers to 127.0.0.1 and localhost only"));
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err(Response::plain(405, "these pages can only be read: GET or HEAD"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if !path.starts_with('/') {
        return Err(bad("the path does not begin with a slash"));
    }
    let query = Query::parse(query).ok_or_else(|| bad("the query is badly encoded"))?;
    Ok(Request { path: path.to_owned(), query, is_head: method == "HEAD", known_tags })
}

#[cfg(test)]
impl Request {
    /// A request for a path with its query, as a test writes it.
    pub(crate) fn get(target: &str) -> Self {
        parse(format!("GET {target} HTTP/1.1\r\nHost: localhost").as_bytes()).expect("a sound request")
    }
}

/// Listens on loopback.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Listens on a loopback host, named or as an address; port 0 takes a free one.
    pub fn bind(host: &str, port: u16) -> Result<Self> {
        let address = SocketAddr::new(host::loopback(host)?, port);
        let fail = |cause: io::Error| match cause.kind() {
            io::ErrorKind::AddrInUse => Error::PortInUse { address },
            _ => Error::Listen { address, cause },
        };
        let listener = TcpListener::bind(address).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address, limits: Limits::default() })
    }

    /// Sets what a client may take.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests on threads of their own; does not return.
    pub fn serve(&self, handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> ! {
        let handler = Arc::new(handler);
        let slots = Arc::new(Slots { free: Mutex::new(self.limits.num_connections), is_freed: Condvar::new() });
        loop {
            let slot = Slot::take(&slots);
            let Ok((stream, _)) = self.listener.accept() else {
                // Out of file descriptors, most likely: others will be given back.
                std::thread::sleep(Duration::from_millis(50));
                continue;
            };
            let (handler, limits) = (Arc::clone(&handler), self.limits);
            let work = move || {
                let _slot = slot;
                // A client that goes away is none of our business.
                drop(converse(stream, &limits, handler.as_ref()));
            };
            // Without a thread the connection is closed; the browser asks again.
            drop(std::thread::Builder::new().name("http".to_owned()).spawn(work));
        }
    }
}

/// How many connections there may still be.
struct Slots {
    free: Mutex<usize>,
    is_freed: Condvar,
}

struct Slot(Arc<Slots>);

impl Slot {
    fn take(slots: &Arc<Slots>) -> Self {
        let free = slots.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = slots.is_freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Self(Arc::clone(slots))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.is_freed.notify_one();
    }
}

fn converse(mut stream: TcpStream, limits: &Limits, handler: &impl Fn(&Request) -> Response) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(limits.write_time))?;
    let request = match read_head(&mut stream, limits.head_time)? {
        Ok(head) if head.is_empty() => return Ok(()),
        Ok(head) => parse(&head),
        Err(refusal) => Err(refusal),
    };
    let response = match &request {
        Ok(request) => {
            // A damaged run must not take the server down.
            let answer = catch_unwind(AssertUnwindSafe(|| handler(request)));
            answer.unwrap_or_else(|_| Response::plain(500, "this page cannot be made; the others can"))
        }
        Err(refusal) => refusal.clone(),
    };
    stream.write_all(&response.to_bytes(request.as_ref().ok()))?;
    stream.shutdown(Shutdown::Write)?;
    if request.is_err() {
        // Closing while the client still writes would take the answer from it.
        stream.set_read_timeout(Some(DRAIN_TIME))?;
        io::copy(&mut stream.take(MAX_DRAINED_BYTES), &mut io::sink())?;
    }
    Ok(())
}

/// Reads up to the empty line. Nothing at all is a browser that connected in advance and thought better of it.
fn read_head(stream: &mut TcpStream, time: Duration) -> io::Result<std::result::Result<Vec<u8>, Response>> {
    let deadline = Instant::now() + time;
    let (mut head, mut chunk) = (Vec::new(), [0; 2048]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_late =
            |head: &[u8]| if head.is_empty() { Ok(Vec::new()) } else { Err(Response::plain(408, "too slow")) };
        if left.is_zero() {
            return Ok(is_late(&head));
        }
        stream.set_read_timeout(Some(left))?;
        let num = match stream.read(&mut chunk) {
            Err(cause) if matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(is_late(&head));
            }
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        // The end may lie across two chunks.
        let from = head.len().saturating_sub(3);
        head.extend_from_slice(&chunk[..num]);
        if let Some(end) = head[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            head.truncate(from + end);
            return Ok(Ok(head));
        }
        if head.len() > MAX_HEAD_BYTES {
            return Ok(Err(Response::plain(431, "the request is too long")));
        }
        if num == 0 {
            let is_empty = head.is_empty();
            return Ok(if is_empty { Ok(head) } else { Err(Response::plain(400, "the request ends too early")) });
        }
    }
}

#[cfg(test)]
mod tests;
