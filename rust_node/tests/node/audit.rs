//! `audit` as an operator runs it, over a directory with objects recorded from DurableServer's own backend.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::{BINARY, SOON, Written, ended, text};
use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use state_store::{Condition, Limits, Readback, Settings, Store, Write};

const LIMITS: Limits = Limits { timeout: SOON, retries: 0 };

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&url(directory.path()), &Settings::default()).unwrap();
        Self { directory, store }
    }

    async fn put(&self, key: &str, body: Vec<u8>) {
        let write = Write { condition: Condition::Always, readback: Readback::AfterLostAnswer, keep: false };
        self.store.put(key, body.into(), &write, LIMITS).await.unwrap();
    }

    /// A recorded object, and a heartbeat of the node that owns it.
    async fn put_recorded(&self, name: &str) {
        let vectors: Value = serde_json::from_str(include_str!("../../../test/vectors/envelope.json")).unwrap();
        let object = vectors["objects"].as_array().unwrap().iter().find(|object| object["name"] == name).unwrap();
        let body = BASE64_STANDARD.decode(object["object_base64"].as_str().unwrap()).unwrap();
        self.put(&format!("x/{name}"), body).await;
    }

    async fn put_heartbeat(&self, node: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let heartbeat = json!({"node": node, "node_ref": 0, "last_heartbeat_at": u64::try_from(now).unwrap()});
        self.put(&format!("x/__nodes/{node}"), heartbeat.to_string().into_bytes()).await;
    }

    fn audit(&self, code: i32, more: &[&str]) -> Written {
        audit(code, &url(self.directory.path()), more)
    }
}

fn url(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn audit(code: i32, store: &str, more: &[&str]) -> Written {
    ended(code, &[&["audit", "--store", store, "--prefix", "x/"], more].concat())
}

/// Every file with its content and the time of its last change.
fn everything(directory: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let modified = entry.metadata().unwrap().modified().unwrap();
        let body = if entry.file_type().unwrap().is_dir() {
            found.extend(everything(&entry.path()));
            Vec::new()
        } else {
            std::fs::read(entry.path()).unwrap()
        };
        found.insert(entry.path().display().to_string(), (body, modified));
    }
    found
}

#[tokio::test]
async fn a_store_without_problems_is_exit_code_0() {
    let place = Place::new();
    place.put_recorded("running/nested").await;
    place.put_heartbeat("app@vm").await;
    let said = place.audit(0, &[]).out;
    assert!(said.starts_with("1 servers") && said.contains("app@vm"), "{said}");
}

#[tokio::test]
async fn problems_are_listed_as_a_table_and_as_json_with_exit_code_4() {
    let place = Place::new();
    place.put_recorded("running/nested").await;
    place.put_recorded("stopped_graceful/nested").await;
    place.put("x/broken", b"{".to_vec()).await;
    let said = place.audit(4, &[]).out;
    for expected in ["2 servers", "x/running/nested  on app@vm: no heartbeat", "x/broken  it is not a JSON envelope"] {
        assert!(said.contains(expected), "{expected} is not in\n{said}");
    }
    let report = place.audit(4, &["--json"]).json();
    assert_eq!(report["by_status"], json!({"running": 1, "stopped_graceful": 1}));
    assert_eq!(report["orphans"]["first"][0]["key"], "x/running/nested");
    assert_eq!(report["unreadable"]["first"][0]["key"], "x/broken");
}

#[tokio::test]
async fn nothing_in_the_store_is_changed() {
    let place = Place::new();
    place.put_recorded("running/nested").await;
    // A file that a killed process left behind. Opening the store for writing would remove it.
    let left = place.directory.path().join("incoming").join("1-1");
    let file = std::fs::File::create(&left).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7_200)).unwrap();
    let before = everything(place.directory.path());
    place.audit(4, &[]);
    assert_eq!(everything(place.directory.path()), before);
}

#[test]
fn a_store_that_does_not_exist_is_exit_code_1_and_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let said = audit(1, &url(&missing), &[]).err;
    assert!(said.contains("opening the directory"), "{said}");
    assert!(!missing.exists());
}

#[test]
fn credentials_in_the_url_are_refused_and_not_repeated() {
    let said = audit(1, "s3://key:hunter22@bucket", &[]).err;
    assert!(said.contains("s3://BUCKET/PATH") && !said.contains("hunter22"), "{said}");
}

/// A store that answers one listing with an empty one. Returns the request that it got.
fn empty_bucket() -> (String, std::thread::JoinHandle<String>) {
    use std::io::{BufRead, BufReader, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let body = "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated></ListBucketResult>";
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\ncontent-length: {}", body.len());
        write!(stream, "{head}\r\nconnection: close\r\n\r\n{body}").unwrap();
        request.join("\n")
    });
    (url, asked)
}

#[test]
fn an_sts_without_tls_is_refused_by_its_address_unless_keys_make_it_needless() {
    let (url, asked) = empty_bucket();
    let audit = |more: &[(&str, &str)]| {
        let mut command = Command::new(BINARY);
        command.args(["audit", "--store", "s3://b/x"]).env_clear().env("AWS_ENDPOINT_URL", &url);
        command.env("AWS_ROLE_ARN", "arn:aws:iam::1:role/audit").env("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token");
        command.env("AWS_ENDPOINT_URL_STS", "http://sts.internal:8080").envs(more.iter().copied()).output().unwrap()
    };
    let refused = audit(&[]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(
        ["AWS_ENDPOINT_URL_STS", "http://sts.internal:8080", "https://"].iter().all(|word| said.contains(word)),
        "{said}"
    );
    let taken = audit(&[("AWS_ACCESS_KEY_ID", "AKIAUDIT"), ("AWS_SECRET_ACCESS_KEY", "s")]);
    assert_eq!(taken.status.code(), Some(0), "{taken:?}");
    asked.join().unwrap();
}

#[test]
fn credentials_region_and_endpoint_of_a_profile() {
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let (url, asked) = empty_bucket();
    let config =
        format!("[profile audit]\nregion = eu-north-1\nendpoint_url = {url}\n[profile sso]\nsso_session = s\n");
    std::fs::write(aws.join("config"), config).unwrap();
    std::fs::write(aws.join("credentials"), "[audit]\naws_access_key_id = AKIAUDIT\naws_secret_access_key = s\n")
        .unwrap();
    let audit = |profile: &str| {
        let mut command = Command::new(BINARY);
        command.args(["audit", "--store", "s3://b/x"]).env_clear().env("HOME", home.path()).env("AWS_PROFILE", profile);
        command.output().unwrap()
    };
    let refused = audit("sso");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said.contains("sso_session"), "{said}");
    let output = audit("audit");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let asked = asked.join().unwrap();
    assert!(asked.contains("Credential=AKIAUDIT/") && asked.contains("/eu-north-1/s3/"), "{asked}");
}
