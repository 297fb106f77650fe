//! A process without free file descriptors. A test program of its own, because the limit is that of the process.

mod common;

use std::fs::File;

use common::{limits, under};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use state_store::{Condition, Settings, Store};

#[tokio::test]
async fn a_write_that_fails_for_want_of_a_file_descriptor_has_changed_nothing() {
    let root = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", root.path().display());
    let store = Store::open(&url, &Settings::default()).expect("opened");
    let mut etag = store.put("k", "0".into(), &under(Condition::Absent), limits()).await.expect("written");
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("known");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(64), hard).expect("set");
    let mut failed = Vec::new();
    for free in 0..16 {
        let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        held.truncate(held.len().saturating_sub(free));
        let write = under(Condition::Etag(etag.clone()));
        let written = store.put("k", format!("with {free}").into(), &write, limits()).await;
        drop(held);
        let there = store.get("k", true, limits()).await.expect("there");
        match written {
            Ok(new) => etag = new,
            Err(_) => failed.push(free),
        }
        assert_eq!(there.etag, etag, "with {free} free");
    }
    assert!(failed.contains(&0) && !failed.contains(&15), "{failed:?}");
}
