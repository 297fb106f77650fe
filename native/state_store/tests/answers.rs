//! Unsuccessful responses, and services for credentials that fail.

mod common;

use std::time::Duration;

use common::{KEYS, count, held, limits, once, server, settings, store, under, with_options};
use state_store::{Condition, Error, Settings, Store};
use store_servers::{Flaw, Kind, Rule, Server};

/// What a proxy that has no route to the store may answer with status 404.
const PROXY_PAGES: [&str; 3] = ["<html></html>", r#"{"error":"not_found"}"#, "<Error><Code>NoSuchRoute</Code></Error>"];

/// A store without keys, whose credentials come from the metadata service of the test server.
fn without_keys(server: &Server) -> Store {
    with_options(server, &[("metadata_endpoint", server.endpoint())])
}

async fn every_request(store: &Store) -> Vec<(&'static str, Result<(), Error>)> {
    let put = |condition| async move { store.put("k", "1".into(), &under(condition), once()).await.map(|_| ()) };
    vec![
        ("get", store.get("k", true, once()).await.map(|_| ())),
        ("put", put(Condition::Always).await),
        ("claim", put(Condition::Absent).await),
        ("update", put(Condition::Etag("\"1\"".into())).await),
        ("delete", store.delete("k", None, once()).await),
        ("delete one version", store.delete("k", Some("\"1\"".into()), once()).await),
        ("list", store.list("", None, 1, once()).await.map(|_| ())),
        ("check", store.check(once()).await),
    ]
}

#[tokio::test]
async fn a_machine_without_a_role_gets_that_error_for_every_request() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    for status in [404, 400, 403] {
        server.script().set(vec![Rule::on(Kind::Credentials).answer(status, "")]);
        for (request, answer) in every_request(&store).await {
            let named =
                matches!(&answer, Err(Error::Denied { status: 0, reason, .. }) if reason.contains("credentials"));
            assert!(named, "{request} with status {status}: {answer:?}");
        }
    }
    let asked: u64 = [Kind::Get, Kind::Put, Kind::Claim, Kind::Update, Kind::Head, Kind::Delete, Kind::List]
        .into_iter()
        .map(|kind| count(&server, kind))
        .sum();
    assert_eq!(asked, 0, "the store was asked without credentials");
}

#[tokio::test]
async fn a_brief_failure_of_the_credentials_service_is_waited_for() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    server.script().set(vec![Rule::on(Kind::Credentials).times(3).answer(503, "")]);
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
    assert_eq!(store.stats().slow_downs, 0);
    server.script().set(vec![Rule::on(Kind::Credentials).answer(503, "")]);
    let none = without_keys(&server).get("k", true, once()).await;
    assert!(
        matches!(&none, Err(Error::Credentials { status: 503, reason }) if reason.contains("127.0.0.1")),
        "{none:?}"
    );
}

#[tokio::test]
async fn a_credentials_service_that_fails_after_a_success_is_waited_for() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
    let refused = Rule::on(Kind::Get).times(1).error(400, "ExpiredToken");
    server.script().set(vec![refused, Rule::on(Kind::Credentials).times(2).cut()]);
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
    assert_eq!(server.script().counts().rules, [1, 2]);
}

#[tokio::test]
async fn credentials_that_cannot_be_renewed_are_used_until_the_store_refuses_them() {
    let server = server(&[]).await;
    // They are to be renewed at each request, as in the last minutes before they expire.
    server.credentials_last(0);
    for outage in [Rule::on(Kind::Credentials).answer(503, ""), Rule::on(Kind::Credentials).cut()] {
        server.script().set(Vec::new());
        let store = without_keys(&server);
        assert_eq!(store.get("k", true, once()).await, Err(Error::NotFound));
        server.script().set(vec![outage.clone()]);
        for _request in 0..3 {
            assert_eq!(store.get("k", true, once()).await, Err(Error::NotFound), "{outage:?}");
        }
        assert_eq!(server.script().counts().rules, [1], "each request waited for a renewal");
        server.script().set(vec![Rule::on(Kind::Get).error(400, "ExpiredToken"), outage]);
        let refused = store.get("k", true, once()).await;
        assert!(matches!(&refused, Err(Error::Credentials { .. })), "{refused:?}");
    }
}

/// Without an answer, its caller would wait for the whole timeout, and learn nothing.
#[tokio::test]
async fn an_answer_at_which_the_client_panics_is_an_error() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    let keys = r#"{"Code":"Success","AccessKeyId":"key","SecretAccessKey":"secret","Token":"a\nb","Expiration":"2100-01-01T00:00:00Z"}"#;
    server
        .script()
        .set(vec![Rule { key: Some("*/handoff-role".into()), ..Rule::on(Kind::Credentials).answer(200, keys) }]);
    for (request, answer) in every_request(&store).await {
        assert!(matches!(&answer, Err(Error::Network { sent: true, .. })), "{request}: {answer:?}");
    }
}

#[tokio::test]
async fn keys_with_a_line_break_are_refused_when_a_store_is_opened() {
    let server = server(&[]).await;
    for wrong in ["access_key_id", "secret_access_key", "session_token"] {
        let options = [KEYS, &[("session_token", "token")], &[(wrong, "private\n")]].concat();
        let opened = Store::open("s3://handoff", &settings(&server, &options));
        let refused = opened.expect_err(wrong).to_string();
        assert!(refused.contains(wrong) && !refused.contains("private"), "{refused}");
    }
}

#[tokio::test]
async fn credentials_of_a_role_that_was_taken_away_are_not_used() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    server.credentials_last(0);
    assert_eq!(store.get("k", true, once()).await, Err(Error::NotFound));
    server.script().set(vec![Rule::on(Kind::Credentials).answer(404, "")]);
    assert!(matches!(store.get("k", true, once()).await, Err(Error::Denied { status: 0, .. })));
}

#[tokio::test]
async fn a_silent_credentials_service_does_not_count_as_a_silent_store() {
    let server = server(&[]).await;
    let mut settings = common::settings(&server, &[("metadata_endpoint", server.endpoint())]);
    settings.attempt_timeout = std::time::Duration::from_millis(400);
    let store = Store::open("s3://handoff", &settings).unwrap();
    server.script().set(vec![Rule { then: store_servers::Then::Hang, ..Rule::on(Kind::Credentials) }]);
    let answer = store.get("k", true, once()).await;
    assert!(matches!(&answer, Err(Error::Credentials { status: 0, .. })), "{answer:?}");
}

#[tokio::test]
async fn concurrent_requests_share_one_exchange_for_credentials() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    let get = || store.get("k", true, limits());
    let answers: [_; 4] = tokio::join!(get(), get(), get(), get()).into();
    assert!(answers.iter().all(|answer| *answer == Err(Error::NotFound)), "{answers:?}");
    assert_eq!(count(&server, Kind::Credentials), 3, "a token, a role, its keys");
}

#[tokio::test]
async fn refused_credentials_are_fetched_again_once() {
    let server = server(&[]).await;
    let store = without_keys(&server);
    server.script().set(vec![Rule::on(Kind::Put).times(1).error(400, "ExpiredToken")]);
    let write = under(Condition::Always);
    let put = || store.put("k", "1".into(), &write, limits());
    assert!(put().await.is_ok());
    assert_eq!(count(&server, Kind::Credentials), 6);
    server.script().set(vec![Rule::on(Kind::Put).error(403, "InvalidAccessKeyId")]);
    let denied = put().await;
    assert!(matches!(&denied, Err(Error::Denied { status: 403, .. })), "{denied:?}");
    assert_eq!((count(&server, Kind::Credentials), count(&server, Kind::Put)), (9, 4));
}

#[tokio::test]
async fn concurrent_requests_whose_credentials_are_refused_share_one_exchange_for_new_ones() {
    const REQUESTS: u32 = 16;
    let server = server(&[]).await;
    let store = without_keys(&server);
    let refused = Rule { hold: true, ..Rule::on(Kind::Put).times(u64::from(REQUESTS)).error(400, "ExpiredToken") };
    server.script().set(vec![refused]);
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..REQUESTS {
        let store = store.clone();
        puts.spawn(async move {
            store.put(&format!("k{number}"), "1".into(), &under(Condition::Always), limits()).await.map(|_| ())
        });
    }
    held(&server, u64::from(REQUESTS)).await;
    server.script().release(REQUESTS);
    assert_eq!(puts.join_all().await, vec![Ok(()); REQUESTS as usize]);
    assert_eq!(count(&server, Kind::Credentials), 6, "a token, a role, its keys, twice");
}

#[tokio::test]
async fn refused_keys_of_the_configuration_are_not_sent_again() {
    let server = server(&[]).await;
    let store = with_options(&server, KEYS);
    server.script().set(vec![Rule::on(Kind::Get).error(403, "InvalidAccessKeyId")]);
    assert!(matches!(store.get("k", true, limits()).await, Err(Error::Denied { .. })));
    assert_eq!(count(&server, Kind::Get), 1);
}

#[tokio::test]
async fn a_write_that_a_proxy_gave_up_may_have_been_applied() {
    let server = server(&[]).await;
    let store = store(&server);
    let pages = PROXY_PAGES.map(|page| (404, page));
    for (number, (status, body)) in
        [(499, ""), (502, ""), (504, ""), (520, "<html></html>"), (408, "")].into_iter().chain(pages).enumerate()
    {
        for applied in [false, true] {
            let key = format!("k{number}{applied}");
            let rule = Rule { applied, ..Rule::default().times(1).answer(status, body) };
            server.script().set(vec![Rule { on: vec![Kind::Claim], ..rule.clone() }]);
            let etag = store.put(&key, "1".into(), &under(Condition::Absent), limits()).await.expect("a claim");
            server.script().set(vec![Rule { on: vec![Kind::Update], ..rule }]);
            let etag = store.put(&key, "2".into(), &under(Condition::Etag(etag)), limits()).await.expect("an update");
            let there = store.get(&key, true, limits()).await.expect("an object");
            assert_eq!((there.body.as_ref(), there.etag), (&b"2"[..], etag), "status {status}, applied {applied}");
        }
    }
}

#[tokio::test]
async fn an_object_that_a_proxy_does_not_find_is_not_missing() {
    let server = server(&[]).await;
    let store = store(&server);
    for page in PROXY_PAGES {
        server.script().set(vec![Rule::default().answer(404, page)]);
        for (request, answer) in every_request(&store).await {
            let error = answer.expect_err(request);
            assert!(error.is_retryable() && error.is_unsure(), "{request}, {page}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_write_of_another_writer_between_a_lost_response_and_the_retry_is_a_conflict() {
    let server = server(&[]).await;
    let (ours, theirs) = (store(&server), store(&server));
    let etag = theirs.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    theirs.put("k", "2".into(), &under(Condition::Etag(etag.clone())), limits()).await.unwrap();
    server.script().set(vec![Rule::on(Kind::Update).times(1).answer(499, "")]);
    assert_eq!(ours.put("k", "3".into(), &under(Condition::Etag(etag)), limits()).await, Err(Error::Conflict));
}

#[tokio::test]
async fn a_write_without_a_response_whose_object_cannot_be_read_is_no_conflict() {
    let server = server(&[]).await;
    let store = store(&server);
    let etag = store.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    let lost = Rule::on(Kind::Update).times(1).applied().cut();
    server.script().set(vec![lost, Rule::on(Kind::Get).error(403, "AccessDenied")]);
    let written = store.put("k", "2".into(), &under(Condition::Etag(etag)), limits()).await;
    assert!(matches!(written, Err(Error::Denied { .. })), "{written:?}");
}

#[tokio::test]
async fn an_etag_that_no_response_can_have_is_a_conflict() {
    let server = server(&[]).await;
    let store = store(&server);
    store.put("k", "1".into(), &under(Condition::Always), limits()).await.unwrap();
    let none = || "\n".to_owned();
    let written = store.put("k", "2".into(), &under(Condition::Etag(none())), limits()).await;
    assert_eq!(written, Err(Error::Conflict));
    assert_eq!(store.delete("k", Some(none()), limits()).await, Err(Error::Conflict));
}

#[tokio::test]
async fn a_claim_without_a_response_whose_object_is_gone_is_not_made_again() {
    let server = server(&[]).await;
    let store = store(&server);
    let deleted = Rule::on(Kind::Get).times(1).error(404, "NoSuchKey");
    server.script().set(vec![Rule::on(Kind::Claim).times(1).applied().cut(), deleted]);
    let claimed = store.put("k", "1".into(), &under(Condition::Absent), limits()).await;
    assert_eq!((claimed, count(&server, Kind::Claim)), (Err(Error::Conflict), 2));
}

#[tokio::test]
async fn a_request_that_hangs_is_sent_again() {
    let server = server(&[]).await;
    let impatient = Settings { attempt_timeout: Duration::from_secs(2), ..settings(&server, KEYS) };
    let store = Store::open("s3://handoff", &impatient).unwrap();
    store.put("k", "1".into(), &under(Condition::Always), limits()).await.unwrap();
    server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Get).times(1) }]);
    assert_eq!(store.get("k", true, limits()).await.map(|there| there.body), Ok("1".into()));
}

#[tokio::test]
async fn nothing_is_sent_for_an_object_that_is_too_large_or_in_a_store_for_reading() {
    let server = server(&[]).await;
    let settings = settings(&server, KEYS);
    let small = Store::open("s3://handoff", &Settings { max_object_bytes: 2, ..settings.clone() }).unwrap();
    let write = under(Condition::Always);
    assert_eq!(small.put("k", "123".into(), &write, limits()).await, Err(Error::TooLarge { bytes: 3, limit: 2 }));
    let reader = Store::open("s3://handoff", &Settings { read_only: true, ..settings }).unwrap();
    assert_eq!(reader.put("k", "1".into(), &write, limits()).await, Err(Error::ReadOnly));
    assert_eq!(reader.delete("k", None, limits()).await, Err(Error::ReadOnly));
    assert!(server.script().counts().kinds.is_empty());
}

#[tokio::test]
async fn an_object_that_is_written_twice_a_second_is_waited_for_without_blaming_the_store() {
    let server = server(&[store_servers::Flaw::OneWritePerSecond]).await;
    let store = store(&server);
    let etag = store.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    let one_retry = state_store::Limits { retries: 1, ..limits() };
    let etag = store.put("k", "2".into(), &under(Condition::Etag(etag)), one_retry).await.unwrap();
    assert!(store.put("k", "3".into(), &under(Condition::Etag(etag)), one_retry).await.is_ok());
    assert_eq!(store.stats().slow_downs, 0);
}

#[tokio::test]
async fn a_truncated_response_is_requested_again() {
    let server = server(&[]).await;
    let store = store(&server);
    store.put("k", "0123456789".into(), &under(Condition::Always), limits()).await.unwrap();
    for kind in [Kind::Get, Kind::List] {
        server.script().set(vec![Rule { then: store_servers::Then::CutBody, ..Rule::on(kind).times(1) }]);
        assert_eq!(store.get("k", true, limits()).await.unwrap().body, "0123456789");
        assert_eq!(store.list("", None, 10, limits()).await.unwrap().objects.len(), 1);
        assert_eq!(server.script().counts().rules, [1]);
    }
}

#[tokio::test]
async fn a_redirect_of_a_write_does_not_count_as_success() {
    let server = server(&[]).await;
    let store = store(&server);
    let other = store.put("other", "1".into(), &under(Condition::Always), limits()).await.unwrap();
    let headers = vec![("location".to_owned(), "/handoff/other".to_owned())];
    for status in [301, 302, 303, 307, 308] {
        let then = store_servers::Then::Answer { status, headers: headers.clone(), body: String::new() };
        server.script().set(vec![Rule { then, key: Some("/handoff/k".into()), ..Rule::default() }]);
        for condition in [Condition::Always, Condition::Absent, Condition::Etag(other.clone())] {
            let written = store.put("k", "2".into(), &under(condition.clone()), once()).await;
            assert!(written.is_err(), "{status} to a write under {condition:?}: {written:?}");
        }
        let read = store.get("k", true, once()).await;
        assert_eq!(read, Err(Error::NotAStore { status: 200 }), "{status} to a read");
    }
}

#[tokio::test]
async fn a_long_error_page_is_not_read_to_its_end() {
    let server = server(&[]).await;
    let page = format!("<Error>{}<Code>NoSuchKey</Code></Error>", " ".repeat(1024 * 1024));
    server.script().set(vec![Rule::on(Kind::Get).answer(404, &page)]);
    assert_eq!(store(&server).get("k", true, once()).await, Err(Error::NotAStore { status: 404 }));
}

#[tokio::test]
async fn the_error_for_a_bucket_in_another_region_has_that_region() {
    let server = server(&[]).await;
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>";
    server.script().set(vec![Rule::on(Kind::Get).answer(400, body)]);
    let answer = store(&server).get("k", true, limits()).await;
    assert!(matches!(&answer, Err(Error::Denied { reason, .. }) if reason.contains("eu-west-3")), "{answer:?}");
}

#[tokio::test]
async fn a_listing_holds_only_what_was_asked_for() {
    let server = server(&[Flaw::ListingIgnoresPrefix]).await;
    let whole = store(&server);
    for key in ["mine/a", "mine/b/c", "yours/a", "min"] {
        whole.put(key, "1".into(), &under(Condition::Always), limits()).await.unwrap();
    }
    let mine = Store::open("s3://handoff/mine", &settings(&server, KEYS)).unwrap();
    for (store, prefix, expected) in [(&whole, "mine/", vec!["mine/a", "mine/b/c"]), (&mine, "b/", vec!["b/c"])] {
        let page = store.list(prefix, None, 10, limits()).await.unwrap();
        let keys: Vec<_> = page.objects.into_iter().map(|object| object.key).collect();
        assert_eq!(keys, expected, "{prefix}");
    }
}

#[tokio::test]
async fn objects_of_others_with_keys_that_no_store_can_have_do_not_end_a_listing() {
    let server = server(&[]).await;
    let object = |key: &str| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-11-27T00:00:00Z</LastModified><ETag>\"1\"</ETag>\
             <Size>1</Size></Contents>"
        )
    };
    let objects = ["a//b", "console/", "c", "../d"].map(object).concat();
    let page = format!("<ListBucketResult><Name>handoff</Name>{objects}</ListBucketResult>");
    server.script().set(vec![Rule::on(Kind::List).answer(200, &page)]);
    assert_eq!(common::keys(&store(&server)).await, ["c"]);
}

#[tokio::test]
async fn a_listing_that_gives_the_same_page_again_ends_with_an_error() {
    let server = server(&[]).await;
    let page = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                <NextContinuationToken>again</NextContinuationToken></ListBucketResult>";
    server.script().set(vec![Rule::on(Kind::List).answer(200, page)]);
    let store = store(&server);
    let first = store.list("", None, 10, once()).await.unwrap();
    assert_eq!(first.next.as_deref(), Some("again"));
    let second = store.list("", first.next, 10, once()).await;
    assert!(matches!(second, Err(Error::Protocol { .. })), "{second:?}");
}

/// A node stops whose heartbeat is refused, or delayed for too long.
#[tokio::test]
async fn heartbeats_do_not_wait_for_writes_of_states() {
    let server = server(&[]).await;
    let bounds =
        Settings { max_in_flight: 1, max_waiting: 0, urgent_keys: "__nodes/".into(), ..settings(&server, KEYS) };
    let store = Store::open("s3://handoff/p", &bounds).unwrap();
    server.script().set(vec![Rule { hold: true, key: Some("*/state".into()), ..Rule::default() }]);
    let write = under(Condition::Always);
    let state = tokio::spawn({
        let (store, write) = (store.clone(), write.clone());
        async move { store.put("x/state", "1".into(), &write, limits()).await }
    });
    held(&server, 1).await;
    assert_eq!(store.put("x/other", "1".into(), &write, limits()).await, Err(Error::Overloaded));
    assert!(store.put("x/__nodes/n", "1".into(), &write, limits()).await.is_ok());
    assert_eq!(store.list("x/__nodes/", None, 10, limits()).await.unwrap().objects.len(), 1);
    assert!(store.get("x/__nodes/n", true, limits()).await.is_ok());
    assert_eq!(store.delete("x/__nodes/n", None, limits()).await, Ok(()));
    server.script().release(1);
    assert!(state.await.unwrap().is_ok());
}
