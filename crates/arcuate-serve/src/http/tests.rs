//! The server as a client sees it, over real connections.

use super::*;

/// A server that answers with the path; `/panic` is a page that cannot be made.
fn server(limits: Limits) -> SocketAddr {
    let server = Server::bind("localhost", 0).expect("a free port").limits(limits);
    let address = server.address();
    let handler = |request: &Request| {
        assert_ne!(request.path, "/panic", "as asked for");
        Response::html(200, format!("<p>{}</p>", request.path.len()))
    };
    std::thread::spawn(move || server.serve(handler));
    address
}

fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("settable");
    // The server may answer before it has read everything.
    drop(stream.write_all(request));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer that ends");
    answer
}

fn get(address: SocketAddr, method: &str, target: &str, headers: &str) -> String {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{headers}\r\n", address.port());
    ask(address, request.as_bytes())
}

fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_default()
}

#[test]
fn a_page_comes_with_headers_that_keep_others_out() {
    let answer = get(server(Limits::default()), "GET", "/abc?x=1", "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n<p>4</p>"), "{answer}");
    assert!(
        header(&answer, "Content-Security-Policy")
            .starts_with("default-src 'none'; style-src 'self'; script-src 'self'")
    );
    assert!(!header(&answer, "Content-Security-Policy").contains("unsafe"));
    assert_eq!(header(&answer, "X-Content-Type-Options"), "nosniff");
    assert_eq!(header(&answer, "Cross-Origin-Resource-Policy"), "same-origin");
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let address = server(Limits::default());
    let tag = header(&get(address, "GET", "/a", ""), "ETag").to_owned();
    for known in [tag.clone(), format!("\"x\", W/{tag}")] {
        let answer = get(address, "GET", "/a", &format!("If-None-Match: {known}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 304 Not Modified\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        assert_eq!(header(&answer, "ETag"), tag);
    }
    assert!(get(address, "GET", "/longer", &format!("If-None-Match: {tag}\r\n")).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_head_has_the_length_of_the_page_and_no_body() {
    let answer = get(server(Limits::default()), "HEAD", "/abc", "");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    assert_eq!(header(&answer, "Content-Length"), "8");
}

#[test]
fn other_methods_are_refused_even_with_a_body() {
    let address = server(Limits::default());
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
        let request =
            format!("{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
        let answer = ask(address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{method}: {answer}");
        assert_eq!(header(&answer, "Allow"), "GET, HEAD");
    }
}

#[test]
fn other_names_of_this_address_are_refused() {
    let address = server(Limits::default());
    for host in ["evil.example", "evil.example:80", "0.0.0.0", "localhost.evil.example"] {
        let answer = ask(address, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{host}: {answer}");
    }
}

#[test]
fn requests_that_are_none_are_refused() {
    let address = server(Limits::default());
    let bad = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        "GET /?a=%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\u{16}\u{3}\u{1}TLS\r\n\r\n",
    ];
    for request in bad {
        let answer = ask(address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?}: {answer}");
    }
}

#[test]
fn endless_heads_are_refused() {
    let address = server(Limits::default());
    for request in [
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(20_000)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(200_000)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "a: b\r\n".repeat(200)),
    ] {
        let answer = ask(address, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431 "), "{}", &answer[..60.min(answer.len())]);
    }
}

#[test]
fn a_page_that_cannot_be_made_leaves_the_others() {
    let address = server(Limits::default());
    assert!(get(address, "GET", "/panic", "").starts_with("HTTP/1.1 500 "));
    assert!(get(address, "GET", "/", "").starts_with("HTTP/1.1 200 "));
}

#[test]
fn idle_and_slow_clients_do_not_hold_up_the_others() {
    let limits = Limits { head_time: Duration::from_millis(200), num_connections: 4, ..Limits::default() };
    let address = server(limits);
    let idle: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).expect("connects")).collect();
    let mut slow = TcpStream::connect(address).expect("connects");
    slow.write_all(b"GET / HT").expect("writes");
    assert!(get(address, "GET", "/", "").starts_with("HTTP/1.1 200 "));
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    drop(idle);
}

#[test]
fn many_clients_at_once_are_all_answered() {
    let address = server(Limits { num_connections: 8, ..Limits::default() });
    let clients: Vec<_> = (0..100).map(|_| std::thread::spawn(move || get(address, "GET", "/", ""))).collect();
    for client in clients {
        assert!(client.join().expect("ends").starts_with("HTTP/1.1 200 "));
    }
}

#[test]
fn a_taken_port_is_told_with_the_remedy() {
    let first = Server::bind("127.0.0.1", 0).expect("a free port");
    let error = Server::bind("127.0.0.1", first.address().port()).expect_err("is taken").to_string();
    assert!(error.contains("is in use") && error.contains("`--port 0` takes a free one"), "{error}");
}
