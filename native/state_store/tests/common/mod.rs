//! Stores on the servers of `store_servers`.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::Duration;

use state_store::{Condition, Limits, Readback, Settings, Store, Write};
use store_servers::{Backend, Flaw, Kind, Server};

pub const KEYS: &[(&str, &str)] = &[("access_key_id", "id"), ("secret_access_key", "secret")];

pub async fn server(flaws: &[Flaw]) -> Server {
    Server::start(Backend::s3(flaws.iter().copied())).await.expect("a port")
}

pub fn settings(server: &Server, options: &[(&str, &str)]) -> Settings {
    let mut all = vec![("endpoint".to_owned(), server.endpoint().to_owned()), ("region".to_owned(), "eu-1".to_owned())];
    all.extend(options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Settings { options: all, ..Settings::default() }
}

pub fn store(server: &Server) -> Store {
    with_options(server, KEYS)
}

pub fn with_options(server: &Server, options: &[(&str, &str)]) -> Store {
    Store::open("s3://handoff", &settings(server, options)).expect("valid options")
}

/// A store at an address of AWS, which the test server answers as a proxy.
pub fn aws(server: &Server) -> Store {
    let options = [("endpoint", "http://s3.eu-1.amazonaws.com"), ("region", "eu-1"), ("proxy_url", server.endpoint())];
    open("s3://handoff", &[&options, KEYS].concat())
}

/// The in-memory S3 server answers reads, writes and deletions as Azure does, as far as tests need.
pub fn azure(server: &Server) -> Store {
    let options = [("endpoint", server.endpoint()), ("account_name", "account"), ("skip_signature", "true")];
    open("az://handoff", &options)
}

/// A store on [`Backend::google`].
pub fn google(server: &Server) -> Store {
    open("gs://handoff", &[("base_url", server.endpoint()), ("bearer_token", "test")])
}

fn open(url: &str, options: &[(&str, &str)]) -> Store {
    let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Store::open(url, &Settings { options, ..Settings::default() }).expect("valid options")
}

pub fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(30), retries: 3 }
}

pub fn once() -> Limits {
    Limits { retries: 0, ..limits() }
}

pub fn under(condition: Condition) -> Write {
    Write { condition, readback: Readback::AfterLostAnswer, keep: false }
}

pub async fn keys(store: &Store) -> Vec<String> {
    let page = store.list("", None, 1_000, limits()).await.expect("a listing");
    page.objects.into_iter().map(|object| object.key).collect()
}

pub fn count(server: &Server, kind: Kind) -> u64 {
    server.script().counts().kinds.get(&kind).copied().unwrap_or_default()
}

/// Returns when the server holds `count` requests.
pub async fn held(server: &Server, count: u64) {
    let all = async {
        while server.script().counts().held < count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("requests that are held");
}
