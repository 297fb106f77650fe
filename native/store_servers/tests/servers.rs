//! How the servers answer a client that uses plain HTTP.

use std::collections::BTreeMap;

use store_servers::{Backend, Flaw, Kind, Rule, Server, Then};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: &str = "/handoff/k";

struct Answered {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// One request on a connection of its own; none if the connection ended early.
async fn send(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<Answered> {
    let address = server.endpoint().strip_prefix("http://").expect("plain HTTP");
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let whole =
        method == "HEAD" || headers.get("content-length").is_none_or(|length| *length == body.len().to_string());
    whole.then(|| Answered { status, headers, body: body.to_owned() })
}

async fn put(server: &Server, headers: &[(&str, &str)], body: &str) -> u16 {
    send(server, "PUT", KEY, headers, body).await.map_or(0, |answer| answer.status)
}

async fn get(server: &Server) -> Answered {
    send(server, "GET", KEY, &[], "").await.expect("an answer")
}

async fn s3(flaws: &[Flaw]) -> Server {
    Server::start(Backend::s3(flaws.iter().copied())).await.expect("a port")
}

/// Returns when the server holds `count` requests.
async fn held(server: &Server, count: u64) {
    while server.script().counts().held < count {
        tokio::task::yield_now().await;
    }
}

/// Sends four claims of an absent key at once, then four updates of one etag at once. Returns how many of
/// each succeeded. A server whose writes are not atomic waits only briefly for a second one, so all four are there first.
async fn race(server: &Server) -> (usize, usize) {
    server.script().set(vec![Rule { on: vec![Kind::Claim, Kind::Update], hold: true, ..Rule::default() }]);
    let all_at_once = async || {
        held(server, 4).await;
        server.script().release(4);
    };
    let claim = || put(server, &[("if-none-match", "*")], "claimed");
    let (a, b, c, d, ()) = tokio::join!(claim(), claim(), claim(), claim(), all_at_once());
    let claims = (a, b, c, d);
    let etag = get(server).await.headers["etag"].clone();
    let update = |body| {
        let etag = etag.clone();
        async move { put(server, &[("if-match", &etag)], body).await }
    };
    let (a, b, c, d, ()) = tokio::join!(update("1"), update("2"), update("3"), update("4"), all_at_once());
    let updates = (a, b, c, d);
    let won = |(a, b, c, d): (u16, u16, u16, u16)| [a, b, c, d].iter().filter(|status| **status == 200).count();
    (won(claims), won(updates))
}

#[tokio::test]
async fn one_of_four_writes_wins_without_a_flaw() {
    assert_eq!(race(&s3(&[]).await).await, (1, 1));
}

#[tokio::test]
async fn several_writes_win_with_each_flaw_of_conditions() {
    assert_eq!(race(&s3(&[Flaw::IgnoresConditions]).await).await, (4, 4));
    assert_eq!(race(&s3(&[Flaw::IgnoresIfMatch]).await).await, (1, 4));
    assert_eq!(race(&s3(&[Flaw::IgnoresIfNoneMatch]).await).await, (4, 1));
    let (claims, updates) = race(&s3(&[Flaw::NotAtomic]).await).await;
    assert!(claims > 1 && updates > 1, "{claims} claims and {updates} updates won");
}

#[tokio::test]
async fn sequential_requests_do_not_show_that_writes_are_not_atomic() {
    let server = s3(&[Flaw::NotAtomic]).await;
    assert_eq!(put(&server, &[("if-none-match", "*")], "1").await, 200);
    assert_eq!(put(&server, &[("if-none-match", "*")], "2").await, 412);
    let etag = get(&server).await.headers["etag"].clone();
    assert_eq!(put(&server, &[("if-match", &etag)], "3").await, 200);
    assert_eq!(put(&server, &[("if-match", &etag)], "4").await, 412);
}

#[tokio::test]
async fn each_flaw_of_etags_decides_which_form_holds() {
    // The flaw, the etag in responses, and whether If-Match holds without and with quotes.
    let habits = [
        (None, "\"", (true, true)),
        (Some(Flaw::EtagsWithoutQuotesOnly), "\"", (true, false)),
        (Some(Flaw::EtagsWithQuotesOnly), "", (false, true)),
        (Some(Flaw::WeakEtags), "W/\"", (false, false)),
    ];
    for (flaw, start, (bare, quoted)) in habits {
        let server = s3(flaw.as_slice()).await;
        for (with_quotes, holds) in [(false, bare), (true, quoted)] {
            put(&server, &[], "1").await;
            let shown = get(&server).await.headers["etag"].clone();
            assert!(shown.starts_with(start), "{flaw:?}: {shown}");
            let etag = shown.trim_start_matches("W/").trim_matches('"');
            let sent = if with_quotes { format!("\"{etag}\"") } else { etag.to_owned() };
            let status = put(&server, &[("if-match", &sent)], "1").await;
            assert_eq!(status, if holds { 200 } else { 412 }, "{flaw:?} {sent}");
        }
    }
    let server = s3(&[Flaw::NoEtags]).await;
    put(&server, &[], "1").await;
    assert!(!get(&server).await.headers.contains_key("etag"));
}

#[tokio::test]
async fn a_write_is_lost_when_deletions_are_not_conditional() {
    for (flaw, lost) in
        [(None, false), (Some(Flaw::DeletionNotAtomic), true), (Some(Flaw::DeletionIgnoresConditions), true)]
    {
        let server = s3(flaw.as_slice()).await;
        put(&server, &[], "1").await;
        let etag = get(&server).await.headers["etag"].clone();
        let condition = [("if-match", etag.as_str())];
        let delete = async || send(&server, "DELETE", KEY, &condition, "").await.expect("an answer").status;
        let (deleted, written) = if flaw == Some(Flaw::DeletionNotAtomic) {
            // The deletion has checked its condition when the write is released.
            server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Update) }]);
            let release = async {
                while !server.script().counts().kinds.contains_key(&Kind::Delete) {
                    tokio::task::yield_now().await;
                }
                server.script().release(1);
            };
            let delete_then = async {
                held(&server, 1).await;
                tokio::join!(delete(), release).0
            };
            tokio::join!(delete_then, put(&server, &condition, "2"))
        } else {
            let written = put(&server, &condition, "2").await;
            (delete().await, written)
        };
        assert_eq!(written, 200, "{flaw:?}");
        assert_eq!(deleted, if lost { 204 } else { 412 }, "{flaw:?}");
        assert_eq!(get(&server).await.status, if lost { 404 } else { 200 }, "{flaw:?}");
    }
}

#[tokio::test]
async fn an_unusable_store_gives_its_error_to_every_request() {
    let said = [
        (Flaw::NoBucket, 404, "NoSuchBucket"),
        (Flaw::ClockSkewed, 403, "RequestTimeTooSkewed"),
        (Flaw::WebPage, 200, "<html>"),
    ];
    for (flaw, status, text) in said {
        let server = s3(&[flaw]).await;
        for method in ["GET", "PUT", "DELETE"] {
            let answer = send(&server, method, KEY, &[], "").await.expect("an answer");
            assert_eq!(answer.status, status, "{flaw:?} {method}");
            assert!(answer.body.contains(text), "{flaw:?} {method}: {}", answer.body);
        }
    }
    let server = s3(&[Flaw::ReadOnly]).await;
    assert_eq!((put(&server, &[], "1").await, get(&server).await.status), (403, 404));
    let server = s3(&[Flaw::RefusesConditions]).await;
    assert_eq!((put(&server, &[("if-none-match", "*")], "1").await, put(&server, &[], "1").await), (501, 200));
    let server = s3(&[Flaw::OneWritePerSecond]).await;
    assert_eq!(put(&server, &[], "1").await, 200);
    // One that is sent more than a second after the one before is accepted.
    let mut later = Vec::new();
    for _ in 0..20 {
        later.push(put(&server, &[], "1").await);
    }
    assert!(later.contains(&429), "{later:?}");
    let server = s3(&[Flaw::StaleReads]).await;
    put(&server, &[], "1").await;
    put(&server, &[], "2").await;
    assert_eq!(get(&server).await.body, "1");
}

#[tokio::test]
async fn a_script_breaks_a_request_before_or_after_it_is_applied() {
    let server = Server::start(Backend::proxy(s3(&[]).await.endpoint()).expect("an address")).await.expect("a port");
    // The upstream server has ended, so the client's connection ends.
    assert_eq!(put(&server, &[], "1").await, 0);

    let upstream = s3(&[]).await;
    let server = Server::start(Backend::proxy(upstream.endpoint()).expect("an address")).await.expect("a port");
    server.script().set(vec![
        Rule::on(Kind::Claim).times(1).answer(499, ""),
        Rule::on(Kind::Claim).times(1).applied().cut(),
        Rule { strip: vec!["if-match".into()], ..Rule::on(Kind::Update) },
        Rule { then: Then::CutBody, ..Rule::on(Kind::Get).times(1) },
        Rule { strip_answer: vec!["etag".into()], ..Rule::on(Kind::Get).times(1) },
    ]);
    let claim = [("if-none-match", "*")];
    assert_eq!(put(&server, &claim, "12345678").await, 499);
    assert_eq!(get(&upstream).await.status, 404);
    assert_eq!(put(&server, &claim, "12345678").await, 0);
    assert_eq!(get(&upstream).await.body, "12345678");
    assert_eq!(put(&server, &[("if-match", "\"never\"")], "stripped").await, 200);
    assert!(send(&server, "GET", KEY, &[], "").await.is_none());
    assert!(!get(&server).await.headers.contains_key("etag"));
    assert!(get(&server).await.headers.contains_key("etag"));
    assert_eq!(server.script().counts().rules, [1, 1, 1, 1, 1]);
    assert_eq!(server.script().requests().len(), 6);
    let head = send(&server, "HEAD", KEY, &[], "").await.expect("an answer");
    assert_eq!(head.headers["content-length"], "8");
}

#[tokio::test]
async fn a_held_request_continues_when_it_is_released_and_ends_with_its_client() {
    let server = s3(&[]).await;
    server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Put) }]);
    let released = async {
        held(&server, 1).await;
        assert_eq!(get(&server).await.status, 404);
        server.script().release(1);
    };
    assert_eq!(tokio::join!(put(&server, &[], "1"), released).0, 200);
    {
        let put = put(&server, &[], "2");
        tokio::pin!(put);
        while server.script().counts().held == 0 {
            tokio::select! { _never = &mut put => panic!("it is held"), () = tokio::task::yield_now() => {} }
        }
    }
    while server.script().counts().open > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&server).await.body, "1");
}

#[tokio::test]
async fn google_compares_generations() {
    let server = Server::start(Backend::google()).await.expect("a port");
    let token = ("authorization", "Bearer test");
    let put =
        async |generation: &str| self::put(&server, &[token, ("x-goog-if-generation-match", generation)], "1").await;
    assert_eq!(self::put(&server, &[], "1").await, 401);
    assert_eq!((put("0").await, put("0").await, put("7").await), (200, 412, 412));
    let found = send(&server, "GET", KEY, &[token], "").await.expect("an answer");
    assert_eq!(put(&found.headers["x-goog-generation"]).await, 200);
    let kinds = server.script().counts().kinds;
    assert_eq!((kinds[&Kind::Claim], kinds[&Kind::Update], kinds[&Kind::Put]), (2, 2, 1));
}

#[tokio::test]
async fn a_listing_has_pages() {
    let server = s3(&[]).await;
    for key in ["a/1", "a/2", "a/3&", "b"] {
        send(&server, "PUT", &format!("/handoff/{key}"), &[], "x").await.expect("an answer");
    }
    let list = async |more: &str| {
        let path = format!("/handoff?list-type=2&prefix=a/&max-keys=2{more}");
        send(&server, "GET", &path, &[], "").await.expect("an answer").body
    };
    let first = list("").await;
    assert!(first.contains("<Key>a/1</Key>") && first.contains("<Key>a/2</Key>") && !first.contains("a/3"));
    assert!(first.contains("<NextContinuationToken>a/2</NextContinuationToken>"));
    let second = list("&continuation-token=a/2").await;
    assert!(second.contains("<Key>a/3&amp;</Key>") && !second.contains("Token") && !second.contains("<Key>b"));
}

#[tokio::test]
async fn each_exchange_for_credentials_gives_new_ones() {
    let server = s3(&[]).await;
    server.script().set(vec![Rule::on(Kind::Credentials).times(1).answer(404, "")]);
    let asked = [
        ("PUT", "/latest/api/token", ""),
        ("GET", "/latest/meta-data/iam/security-credentials/", "handoff-role"),
        ("GET", "/latest/meta-data/iam/security-credentials/handoff-role", "key-1"),
        ("POST", "/?Action=AssumeRoleWithWebIdentity", "key-2"),
        ("GET", "/credentials", "key-3"),
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token", "token-4"),
        ("GET", "/metadata/identity/oauth2/token", "token-5"),
    ];
    for (number, (method, path, text)) in asked.into_iter().enumerate() {
        let answer = send(&server, method, path, &[], "").await.expect("an answer");
        assert_eq!(answer.status, if number == 0 { 404 } else { 200 });
        assert!(answer.body.contains(text), "{path}: {}", answer.body);
    }
    assert_eq!(server.script().counts().kinds, BTreeMap::from([(Kind::Credentials, 7)]));
}

#[tokio::test]
async fn commands_are_lines_of_json() {
    let server = s3(&[]).await;
    let said = |line| store_servers::control(&server, line);
    let rules = r#"{"do":"rules","rules":[{"on":["put"],"applied":true,"then":{"answer":{"status":503}}}]}"#;
    assert_eq!(said(rules), r#"{"ok":true}"#);
    assert_eq!(put(&server, &[], "1").await, 503);
    let counts = said(r#"{"do":"counts"}"#);
    assert!(counts.contains(r#""kinds":{"put":1}"#) && counts.contains(r#""rules":[1]"#), "{counts}");
    assert!(said(r#"{"do":"requests"}"#).contains(r#""method":"PUT","path":"/handoff/k""#));
    assert_eq!(said(r#"{"do":"requests"}"#), r#"{"requests":[]}"#);
    assert!(said(r#"{"do":"nothing"}"#).starts_with(r#"{"error":"#));
}
