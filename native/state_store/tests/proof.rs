//! The proof at start: what it shows, and for which flaws a store is refused.

mod common;

use std::time::Duration;

use common::{aws, count, google, held, keys, limits, once, server, settings, store, under};
use state_store::{Condition, Error, Flaw, Limits, Settings, Store};
use store_servers::{Backend, Flaw as Wrong, Kind, Rule, Server, Then};

async fn check(flaws: &[Wrong]) -> Result<(), Error> {
    store(&server(flaws).await).check(limits()).await
}

fn unfit(flaw: Flaw) -> Result<(), Error> {
    Err(Error::Unfit { flaw })
}

#[tokio::test]
async fn a_good_store_is_proven_once_and_no_object_is_left() {
    let server = server(&[]).await;
    let first = store(&server);
    assert_eq!(first.check(limits()).await, Ok(()));
    let requests: Vec<_> = server.script().requests().into_iter().map(|seen| seen.kind).collect();
    assert!(requests.len() <= 20, "{} requests: {requests:?}", requests.len());
    assert_eq!(keys(&first).await, Vec::<String>::new());
    server.script().requests();
    assert_eq!(store(&server).check(limits()).await, Ok(()));
    assert_eq!(server.script().requests().len(), 1, "the second store of this process only lists");
}

#[tokio::test]
async fn stores_that_start_together_share_one_proof() {
    let server = server(&[]).await;
    let (one, two) = (store(&server), store(&server));
    assert_eq!(tokio::join!(one.check(limits()), two.check(limits())), (Ok(()), Ok(())));
    assert_eq!(count(&server, Kind::Claim), 4);
}

#[tokio::test]
async fn a_store_that_ignores_a_condition_is_refused() {
    for flaw in [Wrong::IgnoresConditions, Wrong::IgnoresIfMatch, Wrong::IgnoresIfNoneMatch] {
        let server = server(&[flaw]).await;
        let store = store(&server);
        assert_eq!(store.check(limits()).await, unfit(Flaw::ConditionsIgnored), "{flaw:?}");
        assert_eq!(keys(&store).await, Vec::<String>::new(), "{flaw:?}");
    }
}

#[tokio::test]
async fn a_store_that_checks_before_it_writes_is_refused() {
    let server = server(&[Wrong::NotAtomic]).await;
    // The server waits only briefly for a second write, so all four are there before the first one goes on.
    server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Claim).times(4) }]);
    let all_at_once = async {
        held(&server, 4).await;
        server.script().release(4);
    };
    let store = store(&server);
    let (checked, ()) = tokio::join!(store.check(limits()), all_at_once);
    assert_eq!(checked, unfit(Flaw::ConditionsNotAtomic));
}

#[tokio::test]
async fn a_store_that_answers_conditions_with_501_is_refused_without_a_retry() {
    let server = server(&[Wrong::RefusesConditions]).await;
    assert_eq!(store(&server).check(limits()).await, unfit(Flaw::ConditionsRefused));
    assert_eq!(count(&server, Kind::Claim), 4);
}

#[tokio::test]
async fn etags_are_sent_in_the_form_that_the_store_accepts() {
    for flaw in [Wrong::EtagsWithoutQuotesOnly, Wrong::EtagsWithQuotesOnly] {
        let server = server(&[flaw]).await;
        let first = store(&server);
        assert_eq!(first.check(limits()).await, Ok(()), "{flaw:?}");
        let requests: Vec<_> = server.script().requests().into_iter().map(|seen| seen.kind).collect();
        assert!(requests.len() <= 24, "{flaw:?}: {} requests: {requests:?}", requests.len());
        let etag = first.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
        let newer = first.put("k", "2".into(), &under(Condition::Etag(etag.clone())), limits()).await.unwrap();
        let stale = first.put("k", "3".into(), &under(Condition::Etag(etag)), limits()).await;
        assert_eq!(stale, Err(Error::Conflict), "{flaw:?}");
        assert_eq!(first.get("k", true, limits()).await.unwrap().etag, newer, "{flaw:?}");
        let listed = first.list("", None, 10, limits()).await.unwrap().objects;
        assert_eq!(listed[0].etag, newer, "{flaw:?}");
        let second = store(&server);
        assert_eq!(second.check(limits()).await, Ok(()), "{flaw:?}");
        assert_eq!(second.delete("k", Some(newer), limits()).await, Ok(()), "{flaw:?}: known from the first store");
    }
}

#[tokio::test]
async fn every_other_flaw_has_its_own_name() {
    assert_eq!(check(&[Wrong::WeakEtags]).await, unfit(Flaw::WeakEtags));
    assert_eq!(check(&[Wrong::WeakEtagsOfReads]).await, unfit(Flaw::WeakEtags));
    assert_eq!(check(&[Wrong::StaleReads]).await, unfit(Flaw::StaleReads));
    assert_eq!(check(&[Wrong::ReadOnly]).await, unfit(Flaw::CredentialsReadOnly));
    assert_eq!(check(&[Wrong::NoBucket]).await, Err(Error::NoBucket { bucket: "handoff".into() }));
    let clock = check(&[Wrong::ClockSkewed]).await.unwrap_err();
    assert!(matches!(&clock, Error::Denied { status: 403, reason, .. } if reason.contains("clock")), "{clock}");
}

#[tokio::test]
async fn a_store_that_accepts_no_etag_is_refused() {
    let server = server(&[]).await;
    server.script().set(vec![Rule::on(Kind::Update).error(412, "PreconditionFailed")]);
    assert_eq!(store(&server).check(limits()).await, unfit(Flaw::EtagsNotUsable));
}

/// Answers one update as applied, without applying it.
fn pretend(skip: u64) -> Rule {
    let headers = vec![("etag".to_owned(), "\"9\"".to_owned())];
    Rule { skip, then: Then::Answer { status: 200, headers, body: String::new() }, ..Rule::on(Kind::Update).times(1) }
}

#[tokio::test]
async fn a_store_with_two_winners_of_one_version_or_a_late_one_is_refused() {
    for (skip, flaw) in [(0, Flaw::ConditionsNotAtomic), (4, Flaw::ConditionsIgnored)] {
        let server = server(&[]).await;
        server.script().set(vec![pretend(skip)]);
        assert_eq!(store(&server).check(limits()).await, unfit(flaw));
    }
}

#[tokio::test]
async fn credentials_that_may_not_delete_are_refused() {
    let server = server(&[]).await;
    server.script().set(vec![Rule::on(Kind::Delete).error(403, "AccessDenied")]);
    assert_eq!(store(&server).check(limits()).await, unfit(Flaw::CredentialsReadOnly));
}

#[tokio::test]
async fn a_store_whose_deletions_ignore_their_condition_is_refused_where_deletions_rely_on_it() {
    let good = server(&[]).await;
    assert_eq!(aws(&good).check(limits()).await, Ok(()));
    assert_eq!(count(&good, Kind::Delete), 2, "of an old and of the current version");
    let flawed = server(&[Wrong::DeletionIgnoresConditions]).await;
    let first = aws(&flawed);
    assert_eq!(first.check(limits()).await, unfit(Flaw::DeletionsIgnoreConditions));
    assert_eq!(store(&flawed).check(limits()).await, Ok(()), "a tombstone does not need the condition");
}

#[tokio::test]
async fn a_lost_answer_to_the_deletion_of_an_old_version_does_not_hide_that_it_deleted_the_new_one() {
    let server = Server::start(Backend::google()).await.expect("a port");
    let strip = vec!["x-goog-if-generation-match".to_owned()];
    server.script().set(vec![Rule { strip, ..Rule::on(Kind::Delete).times(1).applied().cut() }]);
    assert_eq!(google(&server).check(limits()).await, unfit(Flaw::DeletionsIgnoreConditions));
}

#[tokio::test]
async fn a_proxy_that_strips_the_condition_of_a_deletion_is_refused() {
    let server = Server::start(Backend::google()).await.expect("a port");
    server.script().set(vec![Rule { strip: vec!["x-goog-if-generation-match".into()], ..Rule::on(Kind::Delete) }]);
    assert_eq!(google(&server).check(limits()).await, unfit(Flaw::DeletionsIgnoreConditions));
}

#[tokio::test]
async fn concurrent_claims_on_a_good_store_do_not_look_like_a_flaw() {
    let server = server(&[]).await;
    // AWS gives this response to one of two concurrent conditional writes. Google and R2 limit the writes of
    // one object.
    server.script().set(vec![
        Rule::on(Kind::Claim).times(1).error(409, "ConditionalRequestConflict"),
        Rule::on(Kind::Claim).times(1).error(429, "ServiceUnavailable"),
        Rule::on(Kind::Update).times(1).error(500, "InternalError"),
        Rule::on(Kind::Update).times(1).applied().error(502, ""),
    ]);
    assert_eq!(store(&server).check(limits()).await, Ok(()));
}

#[tokio::test]
async fn a_store_that_is_too_busy_for_the_race_is_not_refused_as_flawed() {
    for kind in [Kind::Claim, Kind::Update] {
        let server = server(&[]).await;
        server.script().set(vec![Rule::on(kind).error(409, "ConditionalRequestConflict")]);
        assert_eq!(store(&server).check(limits()).await, Err(Error::Contended), "{kind:?}");
    }
}

#[tokio::test]
async fn a_flaw_is_reported_even_if_the_store_does_not_answer_deletions() {
    let server = server(&[Wrong::IgnoresConditions]).await;
    server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Delete) }]);
    assert_eq!(store(&server).check(limits()).await, unfit(Flaw::ConditionsIgnored));
}

#[tokio::test]
async fn a_proof_that_takes_too_long_leaves_no_object() {
    let server = server(&[]).await;
    let store = store(&server);
    server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Update) }]);
    // Of eight seconds, two are kept for the deletion, as of any longer time.
    let short = Limits { timeout: Duration::from_secs(8), ..limits() };
    assert_eq!(store.check(short).await, Err(Error::Timeout));
    server.script().set(Vec::new());
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_store_with_one_write_per_second_and_object_is_proven() {
    let server = server(&[Wrong::OneWritePerSecond]).await;
    let store = store(&server);
    assert_eq!(store.check(limits()).await, Ok(()));
    assert_eq!(store.stats().slow_downs, 0);
}

#[tokio::test]
async fn a_web_page_is_refused_as_a_store() {
    let server = server(&[Wrong::WebPage]).await;
    let store = store(&server);
    let no_store = Error::NotAStore { status: 200 };
    assert_eq!(store.check(once()).await, Err(no_store.clone()));
    assert_eq!(store.get("k", true, once()).await, Err(no_store.clone()));
    assert_eq!(store.put("k", "1".into(), &under(Condition::Always), once()).await, Err(no_store.clone()));
    assert_eq!(store.list("", None, 1, once()).await, Err(no_store.clone()));
    assert_eq!(store.delete("k", None, once()).await, Err(no_store.clone()));
    assert_eq!(store.delete("k", Some("\"1\"".into()), once()).await, Err(no_store));
}

#[tokio::test]
async fn a_store_is_not_proven_when_its_conditions_are_assumed() {
    let server = server(&[Wrong::IgnoresConditions]).await;
    let options = settings(&server, common::KEYS);
    for settings in
        [Settings { assume_conditions: true, ..options.clone() }, Settings { read_only: true, ..options.clone() }]
    {
        let store = Store::open("s3://handoff", &settings).unwrap();
        assert_eq!(store.check(limits()).await, Ok(()));
    }
    assert_eq!((count(&server, Kind::List), server.script().requests().len()), (2, 2));
}

#[tokio::test]
async fn stores_without_a_network_are_proven_as_well() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["memory:".to_owned(), format!("file://{}", folder.path().display())] {
        let store = Store::open(&url, &Settings::default()).unwrap();
        assert_eq!(store.check(limits()).await, Ok(()), "{url}");
        assert_eq!(keys(&store).await, Vec::<String>::new(), "{url}");
    }
}

/// The NIF and the Rust node spawn requests.
#[test]
fn requests_can_be_spawned() {
    fn send<T: Send>(_: T) {}
    let store = Store::open("memory:", &Settings::default()).unwrap();
    send(store.check(limits()));
    send(store.get("k", true, limits()));
    send(store.delete("k", None, limits()));
    send(store.list("", None, 1, limits()));
    send(store.put("k", "1".into(), &under(Condition::Always), limits()));
}
