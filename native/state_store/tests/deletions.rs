//! Deletions of one version of an object, on servers whose own conditional deletion cannot be relied on.

mod common;

use std::time::Duration;

use common::{count, held, keys, limits, once, server, settings, store, under};
use state_store::{Condition, Error, Settings, Store, Write};
use store_servers::{Backend, Flaw as Wrong, Kind, Rule, Server};

#[tokio::test]
async fn one_of_a_concurrent_write_and_deletion_of_a_version_wins() {
    for flaw in [Wrong::DeletionNotAtomic, Wrong::DeletionIgnoresConditions] {
        let server = server(&[flaw]).await;
        let store = store(&server);
        for round in 0..20 {
            let key = format!("k{round}");
            let etag = store.put(&key, "1".into(), &under(Condition::Absent), limits()).await.unwrap();
            let write = under(Condition::Etag(etag.clone()));
            let (written, deleted) =
                tokio::join!(store.put(&key, "2".into(), &write, limits()), store.delete(&key, Some(etag), limits()));
            let there = store.get(&key, true, limits()).await;
            match (&written, &deleted) {
                (Ok(etag), Err(Error::Conflict)) => assert_eq!(there.as_ref().map(|there| &there.etag), Ok(etag)),
                (Err(Error::Conflict), Ok(())) => assert_eq!(there, Err(Error::NotFound)),
                both => panic!("{flaw:?}, round {round}: {both:?}, there is {there:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_deleted_version_is_gone_and_deleting_an_old_or_absent_one_is_an_error() {
    let server = server(&[]).await;
    let store = store(&server);
    assert_eq!(store.delete("k", Some("\"1\"".into()), limits()).await, Err(Error::NotFound));
    let old = store.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    let new = store.put("k", "2".into(), &under(Condition::Etag(old.clone())), limits()).await.unwrap();
    assert_eq!(store.delete("k", Some(old), limits()).await, Err(Error::Conflict));
    assert_eq!(store.delete("k", Some(new), limits()).await, Ok(()));
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn lost_responses_of_a_deletion_are_no_conflict() {
    let server = server(&[]).await;
    let store = store(&server);
    for (round, rule) in [Rule::on(Kind::Update), Rule::on(Kind::Delete)].into_iter().enumerate() {
        let key = format!("k{round}");
        let etag = store.put(&key, "1".into(), &under(Condition::Absent), limits()).await.unwrap();
        server.script().set(vec![rule.times(1).applied().cut()]);
        assert_eq!(store.delete(&key, Some(etag), limits()).await, Ok(()), "round {round}");
    }
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_deletion_without_a_response_has_deleted_what_the_next_attempt_does_not_find() {
    let server = server(&[]).await;
    let store = store(&server);
    store.put("k", "1".into(), &under(Condition::Always), limits()).await.unwrap();
    let absent = Rule::on(Kind::Delete).error(404, "NoSuchKey");
    server.script().set(vec![Rule::on(Kind::Delete).times(1).applied().cut(), absent]);
    assert_eq!(store.delete("k", None, limits()).await, Ok(()));
    assert_eq!(store.delete("k", None, limits()).await, Err(Error::NotFound));
}

/// A store of each kind, each on a server of its own.
async fn every_kind() -> [(&'static str, Store, Server); 4] {
    let (s3, aws, azure) = (server(&[]).await, server(&[]).await, server(&[]).await);
    let google = Server::start(Backend::google()).await.expect("a port");
    [
        ("S3", store(&s3), s3),
        ("AWS", common::aws(&aws), aws),
        ("Azure", common::azure(&azure), azure),
        ("Google", common::google(&google), google),
    ]
}

/// The result of a deletion, while the first of `holds` held requests waits until "new" is written.
async fn deleted_while_written(store: &Store, server: &Server, holds: u32) -> Result<(), Error> {
    let newer = async {
        held(server, 1).await;
        store.put("k", "new".into(), &under(Condition::Always), limits()).await.unwrap();
        server.script().release(holds);
    };
    let (deleted, ()) = tokio::join!(store.delete("k", None, limits()), newer);
    deleted
}

#[tokio::test]
async fn a_deletion_without_a_response_leaves_what_was_written_after_it() {
    for (kind, store, server) in every_kind().await {
        let write = under(Condition::Always);
        store.put("k", "old".into(), &write, limits()).await.unwrap();
        // The second attempt waits, whether it looks first or not.
        let lost = Rule::on(Kind::Delete).times(1).applied().cut();
        let again =
            [Rule { hold: true, skip: 1, ..Rule::on(Kind::Head) }, Rule { hold: true, ..Rule::on(Kind::Delete) }];
        server.script().set([lost].into_iter().chain(again).collect());
        assert_eq!(deleted_while_written(&store, &server, 2).await, Ok(()), "{kind}");
        server.script().set(Vec::new());
        assert_eq!(store.get("k", true, limits()).await.map(|there| there.body), Ok("new".into()), "{kind}");
    }
}

#[tokio::test]
async fn a_deletion_that_arrives_late_leaves_what_was_written_before_it_where_deletions_are_atomic() {
    for (kind, store, server) in every_kind().await.into_iter().filter(|(kind, ..)| *kind != "S3") {
        let write = under(Condition::Always);
        store.put("k", "old".into(), &write, limits()).await.unwrap();
        server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Delete).times(1) }]);
        assert_eq!(deleted_while_written(&store, &server, 1).await, Ok(()), "{kind}");
        assert_eq!(store.get("k", true, limits()).await.map(|there| there.body), Ok("new".into()), "{kind}");
    }
}

#[tokio::test]
async fn a_deleted_object_is_not_answered_from_memory() {
    let server = server(&[]).await;
    let store = store(&server);
    let keep = Write { keep: true, ..under(Condition::Absent) };
    let etag = store.put("k", "1".into(), &keep, limits()).await.unwrap();
    assert_eq!(store.delete("k", Some(etag), limits()).await, Ok(()));
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
}

#[tokio::test]
async fn a_repeated_deletion_leaves_a_claim_that_came_in_between() {
    let server = server(&[Wrong::DeletionIgnoresConditions]).await;
    let (one, two) = (store(&server), store(&server));
    let etag = one.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    // A second deletion would arrive after the claim and delete it.
    let again = Rule { hold: true, ..Rule::on(Kind::Delete) };
    server.script().set(vec![Rule::on(Kind::Delete).times(1).applied().error(503, ""), again]);
    let claim = async {
        let mut claimed = Err(Error::Contended);
        while claimed == Err(Error::Contended) || claimed == Err(Error::Conflict) {
            claimed = two.put("k", "2".into(), &under(Condition::Absent), limits()).await;
        }
        server.script().release(1);
        claimed.unwrap()
    };
    let (deleted, claimed) = tokio::join!(one.delete("k", Some(etag), limits()), claim);
    assert_eq!(deleted, Ok(()));
    assert_eq!(one.get("k", true, limits()).await.map(|there| there.etag), Ok(claimed));
}

#[tokio::test]
async fn a_deletion_that_may_still_arrive_is_not_sent_again() {
    let server = server(&[Wrong::DeletionIgnoresConditions]).await;
    let impatient = Settings { attempt_timeout: Duration::from_secs(2), ..settings(&server, common::KEYS) };
    let store = Store::open("s3://handoff", &impatient).unwrap();
    let etag = store.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    server.script().set(vec![Rule { hold: true, ..Rule::on(Kind::Delete) }]);
    assert_eq!(store.delete("k", Some(etag), limits()).await, Err(Error::Timeout));
    assert_eq!(count(&server, Kind::Delete), 1);
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
}

#[tokio::test]
async fn a_claim_over_an_abandoned_tombstone_succeeds_when_its_response_is_lost() {
    let server = server(&[]).await;
    let store = store(&server);
    let abandoned = "{\"durable_handoff_deleted\":1000,\"id\":\"0\"}";
    store.put("k", abandoned.into(), &under(Condition::Always), limits()).await.unwrap();
    server.script().set(vec![Rule::on(Kind::Update).times(1).applied().cut()]);
    let claimed = store.put("k", "1".into(), &under(Condition::Absent), limits()).await;
    assert_eq!(store.get("k", true, limits()).await.map(|there| there.etag), claimed);
}

/// Bytes that do not name their owner can be those of another claim.
#[tokio::test]
async fn a_lost_read_during_a_claim_does_not_make_the_claim_of_another_writer_its_own() {
    let server = server(&[]).await;
    let (ours, theirs) = (store(&server), store(&server));
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let tombstone = format!("{{\"durable_handoff_deleted\":{now_ms},\"id\":\"0\"}}");
    theirs.put("k", tombstone.into(), &under(Condition::Always), limits()).await.unwrap();
    let lost = Rule::on(Kind::Get).times(1).cut();
    server.script().set(vec![lost, Rule { hold: true, skip: 1, ..Rule::on(Kind::Claim).times(1) }]);
    let claim = under(Condition::Absent);
    let other = async {
        held(&server, 1).await;
        theirs.put("k", "1".into(), &under(Condition::Always), limits()).await.unwrap();
        server.script().release(1);
    };
    let (claimed, ()) = tokio::join!(ours.put("k", "1".into(), &claim, limits()), other);
    assert_eq!((claimed, server.script().counts().rules), (Err(Error::Conflict), vec![1, 1]));
}

#[tokio::test]
async fn a_tombstone_that_was_not_deleted_counts_as_absent_and_blocks_claims_until_it_is_abandoned() {
    let server = server(&[]).await;
    let store = store(&server);
    let etag = store.put("k", "1".into(), &under(Condition::Absent), limits()).await.unwrap();
    server.script().set(vec![Rule::on(Kind::Delete).error(503, "")]);
    let deleted = store.delete("k", Some(etag.clone()), once()).await;
    assert!(matches!(deleted, Err(Error::Server { status: 503, .. })), "{deleted:?}");
    server.script().set(Vec::new());
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
    let claim = under(Condition::Absent);
    assert_eq!(store.put("k", "2".into(), &claim, once()).await, Err(Error::Contended));
    assert_eq!(store.delete("k", Some(etag), limits()).await, Err(Error::NotFound), "deleted already");

    let abandoned = "{\"durable_handoff_deleted\":1000,\"id\":\"0\"}";
    store.put("k", abandoned.into(), &under(Condition::Always), limits()).await.unwrap();
    assert_eq!(store.get("k", true, limits()).await, Err(Error::NotFound));
    let claims: [_; 4] = {
        let one = || store.put("k", "3".into(), &claim, limits());
        tokio::join!(one(), one(), one(), one()).into()
    };
    assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1, "{claims:?}");
    assert_eq!(store.get("k", true, limits()).await.unwrap().body, "3");
}

#[tokio::test]
async fn the_error_of_a_refused_deletion_has_the_cause() {
    let server = server(&[]).await;
    let store = store(&server);
    let refused = [
        (Rule::default().error(404, "NoSuchBucket"), Error::NoBucket { bucket: "handoff".into() }),
        (Rule::default().error(409, "OperationAborted"), Error::Contended),
        (Rule::default().error(409, "InvalidBucketState"), server_error(409, "InvalidBucketState")),
    ];
    for (rule, error) in refused {
        server.script().set(vec![rule]);
        assert_eq!(store.delete("k", None, once()).await, Err(error.clone()));
        assert_eq!(store.delete("k", Some("\"1\"".into()), once()).await, Err(error));
    }
    server.script().set(vec![Rule::default().error(403, "AccessDenied")]);
    for etag in [None, Some("\"1\"".to_owned())] {
        let denied = store.delete("k", etag, once()).await;
        assert!(matches!(&denied, Err(Error::Denied { code, .. }) if code == "AccessDenied"), "{denied:?}");
    }
}

fn server_error(status: u16, code: &str) -> Error {
    Error::Server { status, code: code.into(), passes: false, unsure: false }
}

/// The in-memory server answers reads and deletions as Azure does, as far as this test needs.
#[tokio::test]
async fn the_options_of_azure_apply_to_deletions() {
    let server = server(&[]).await;
    let options = vec![
        ("endpoint".to_owned(), server.endpoint().to_owned()),
        ("account_name".to_owned(), "account".to_owned()),
        ("skip_signature".to_owned(), "true".to_owned()),
        ("user_agent".to_owned(), "handoff-test".to_owned()),
    ];
    let azure = Store::open("az://handoff", &Settings { options, ..Settings::default() }).unwrap();
    let s3 = Store::open("s3://handoff", &settings(&server, common::KEYS)).unwrap();
    s3.put("k", "1".into(), &under(Condition::Always), limits()).await.unwrap();
    server.script().requests();
    assert_eq!(azure.delete("k", None, limits()).await, Ok(()));
    let agents: Vec<_> =
        server.script().requests().into_iter().map(|seen| (seen.method, seen.headers["user-agent"].clone())).collect();
    assert_eq!(agents, [("HEAD".into(), "handoff-test".into()), ("DELETE".into(), "handoff-test".into())]);
}
