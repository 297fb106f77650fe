use super::*;
use crate::backend::Backend;
use crate::{Limits, Readback, Settings, Store, Write as Put};
use std::sync::atomic::AtomicU32;
use std::task::{Context, Waker};

/// A store whose next syncs of a directory fail, as many as the number says.
fn failing_store(root: &Path) -> (Store, Arc<AtomicU32>) {
    let failures = Arc::new(AtomicU32::new(0));
    let left = Arc::clone(&failures);
    let mut directory = Directory::open(root, u64::MAX, false).expect("opened");
    Arc::get_mut(&mut directory).expect("not shared").sync = Box::new(move |parent| {
        match left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)) {
            Ok(_failures) => Err(io::Error::other("no sync")),
            Err(_none) => parent.sync(),
        }
    });
    (Store::over(Backend::Directory(directory), String::new(), "file:///", &Settings::default()), failures)
}

fn limits(retries: u32) -> Limits {
    Limits { timeout: Duration::from_secs(30), retries }
}

async fn put(store: &Store, key: &str, body: &'static str, condition: Condition) -> Result<String, Error> {
    let write = Put { condition, readback: Readback::AfterLostAnswer, keep: false };
    store.put(key, body.into(), &write, limits(3)).await
}

/// An etag that its writer does not know makes the writer's next write a conflict, which ends a server.
#[tokio::test]
async fn a_change_whose_directory_cannot_be_synced_at_first_succeeds() {
    let root = tempfile::tempdir().expect("a directory");
    let (store, failures) = failing_store(root.path());
    let mut etag = None;
    for body in ["claimed", "updated", "put"] {
        let condition = match (body, etag) {
            ("claimed", _) => Condition::Absent,
            ("updated", Some(etag)) => Condition::Etag(etag),
            _ => Condition::Always,
        };
        failures.store(2, Ordering::Release);
        etag = Some(put(&store, "k", body, condition).await.expect("written"));
        let there = store.get("k", true, limits(0)).await.expect("there");
        assert_eq!((there.body.as_ref(), Some(there.etag)), (body.as_bytes(), etag.clone()));
        assert_eq!(failures.load(Ordering::Acquire), 0, "{body}: answered before a sync succeeded");
    }
    for etag in [etag, None] {
        failures.store(2, Ordering::Release);
        store.delete("k", etag, limits(3)).await.expect("deleted");
        assert_eq!(store.get("k", true, limits(0)).await, Err(Error::NotFound));
        assert_eq!(failures.load(Ordering::Acquire), 0, "answered before a sync succeeded");
        put(&store, "k", "again", Condition::Absent).await.expect("written");
    }
}

#[tokio::test]
async fn a_change_whose_directory_cannot_be_synced_may_have_been_applied() {
    let root = tempfile::tempdir().expect("a directory");
    let (store, failures) = failing_store(root.path());
    failures.store(u32::MAX, Ordering::Release);
    let written = put(&store, "k", "1", Condition::Absent).await;
    assert!(matches!(&written, Err(error @ Error::Io { .. }) if error.is_unsure()), "{written:?}");
    assert!(store.get("k", true, limits(0)).await.is_ok());
}

/// A deletion that is sent again must not end who has claimed the key meanwhile.
#[tokio::test]
async fn a_deletion_that_is_sent_again_leaves_what_was_written_after_it() {
    let root = tempfile::tempdir().expect("a directory");
    let mut directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let objects = directory.objects();
    let failed = AtomicBool::new(false);
    Arc::get_mut(&mut directory).expect("not shared").sync = Box::new(move |parent| {
        if objects.join("k.json").exists() || failed.swap(true, Ordering::AcqRel) {
            return parent.sync();
        }
        // Another process claims the key as soon as the deletion's sync has failed.
        fs::write(objects.join("k.json"), "claimed").expect("written");
        Err(io::Error::other("no sync"))
    });
    let store = Store::over(Backend::Directory(directory), String::new(), "file:///", &Settings::default());
    put(&store, "k", "1", Condition::Absent).await.expect("written");
    assert_eq!(store.delete("k", None, limits(3)).await, Ok(()));
    assert_eq!(store.get("k", true, limits(0)).await.map(|there| there.body), Ok("claimed".into()));
}

#[tokio::test]
async fn a_directory_that_was_not_synced_is_made_and_synced_again() {
    let root = tempfile::tempdir().expect("a directory");
    let (store, failures) = failing_store(root.path());
    failures.store(1, Ordering::Release);
    let write = Put { condition: Condition::Absent, readback: Readback::AfterLostAnswer, keep: false };
    let written = store.put("a/k", "1".into(), &write, limits(0)).await;
    assert!(matches!(&written, Err(error @ Error::Io { .. }) if !error.is_unsure()), "{written:?}");
    assert!(!root.path().join("objects").join("a").exists());
    assert!(put(&store, "a/k", "1", Condition::Absent).await.is_ok());
}

/// DurableServer ends all servers of a node whose heartbeat fails once, and asks for up to a hundred retries.
#[tokio::test]
async fn a_write_that_the_file_system_refuses_is_sent_again() {
    let root = tempfile::tempdir().expect("a directory");
    let (store, failures) = failing_store(root.path());
    failures.store(2, Ordering::Release);
    put(&store, "__nodes/n", "1", Condition::Always).await.expect("written");
    assert_eq!(failures.load(Ordering::Acquire), 0);
}

/// They wait for a lock that another process holds, or for a slow disk.
#[test]
fn a_heartbeat_does_not_wait_for_the_threads_of_writes_of_states() {
    let root = tempfile::tempdir().expect("a directory");
    let runtime = crate::shared_runtime().expect("threads");
    let _here = runtime.enter();
    let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let bounds = Settings { urgent_keys: "__nodes/".to_owned(), ..Settings::default() };
    let store = Store::over(Backend::Directory(Arc::clone(&directory)), String::new(), "file:///", &bounds);
    let free = lock_of("__nodes/n");
    let other = (0..LOCKS).filter(|number| *number != free);
    let _held: Vec<File> = other.map(|number| directory.lock(number, &AtomicBool::new(false)).expect("free")).collect();
    // One key for each lock: writers of one lock wait for one another without a thread.
    let keys = (0..).map(|number| format!("k{number}"));
    let mut locks = HashSet::from([free]);
    let writes = keys.filter(|key| locks.insert(lock_of(key))).take(bounds.max_in_flight);
    let mut writes: Vec<_> = writes
        .map(|key| {
            let store = store.clone();
            Box::pin(async move { put(&store, &key, "1", Condition::Always).await })
        })
        .collect();
    for write in &mut writes {
        assert!(write.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    let write = Put { condition: Condition::Always, readback: Readback::AfterLostAnswer, keep: false };
    let written = runtime.block_on(store.put("__nodes/n", "1".into(), &write, limits(0)));
    assert!(written.is_ok(), "{written:?}");
}

/// The writer that created it may fail to sync it, and then a power cut would take the other one's object too.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_another_writer_has_not_synced_yet_is_synced_before_a_write() {
    let root = tempfile::tempdir().expect("a directory");
    let mut directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let (created, is_created) = tokio::sync::oneshot::channel();
    let (fail, fails) = std::sync::mpsc::channel::<()>();
    let first = StdMutex::new(Some((created, fails)));
    let syncs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&syncs);
    Arc::get_mut(&mut directory).expect("not shared").sync = Box::new(move |parent| {
        let Some((created, fails)) = first.lock().expect("no panic").take() else {
            counted.fetch_add(1, Ordering::AcqRel);
            return parent.sync();
        };
        let _ = (created.send(()), fails.recv());
        Err(io::Error::other("no sync"))
    });
    let creates = tokio::spawn({
        let directory = Arc::clone(&directory);
        async move { directory.put("a/k", "1".into(), Condition::Absent).await }
    });
    is_created.await.expect("a directory that is created");
    assert_ne!(lock_of("a/k"), lock_of("a/other"));
    directory.put("a/other", "1".into(), Condition::Absent).await.expect("written");
    assert_eq!(syncs.load(Ordering::Acquire), 2, "the directory, and the object's name in it");
    drop(fail);
    assert!(creates.await.expect("no panic").is_err());
    assert!(directory.get("a/other").await.is_ok());
    assert!(directory.put("a/k", "1".into(), Condition::Absent).await.is_ok());
}

/// As on a full disk, no temporary file can be written. A drain tries that before it stops a server.
#[tokio::test]
async fn a_directory_that_takes_no_files_says_so_even_to_a_write_whose_condition_does_not_hold() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    fs::remove_dir(root.path().join("incoming")).expect("removed");
    let refused = directory.put("k", "1".into(), Condition::Etag("1".to_owned())).await;
    assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
}

/// Such as a volume that is not mounted any more. A heartbeat that is absent gives its node's servers to others.
#[tokio::test]
async fn nothing_is_absent_in_a_store_that_is_gone() {
    for gone in [&["objects"][..], &["objects", "locks", "incoming"]] {
        let root = tempfile::tempdir().expect("a directory");
        let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
        let etag = directory.put("k", "1".into(), Condition::Absent).await.expect("written");
        for part in gone {
            fs::remove_dir_all(root.path().join(part)).expect("removed");
        }
        let answers = [
            ("claim", directory.put("k", "2".into(), Condition::Absent).await.map(drop)),
            ("claim below", directory.put("a/k", "2".into(), Condition::Absent).await.map(drop)),
            ("update", directory.put("k", "2".into(), Condition::Etag(etag.clone())).await.map(drop)),
            ("put", directory.put("k", "2".into(), Condition::Always).await.map(drop)),
            ("get", directory.get("k").await.map(drop)),
            ("list", directory.list("", None, 10).await.map(drop)),
            ("list a part", directory.list("a/", None, 10).await.map(drop)),
            ("delete", directory.delete("k", Target::Version(&etag)).await),
        ];
        for (request, answer) in answers {
            assert!(matches!(answer, Err(Error::Io { applied: false, .. })), "{request} without {gone:?}: {answer:?}");
        }
    }
}

#[test]
fn a_write_that_was_given_up_is_not_applied_and_leaves_no_file() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let path = directory.path("k").expect("a key");
    let given_up = AtomicBool::new(true);
    assert_eq!(directory.write(&path, b"1", &Condition::Always, &given_up), Err(Error::Timeout));
    assert_eq!(directory.read(&path), Ok(None));
    assert_eq!(fs::read_dir(root.path().join("incoming")).expect("a directory").count(), 0);
}

#[test]
fn an_object_above_the_limit_is_not_read() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(root.path(), 2, false).expect("opened");
    let path = directory.path("k").expect("a key");
    directory.write(&path, b"123", &Condition::Always, &AtomicBool::new(false)).expect("written");
    assert_eq!(directory.read(&path), Err(Error::TooLarge { bytes: 3, limit: 2 }));
}

/// A listing that ends at one object hides all others from the search for servers without an owner.
#[tokio::test]
async fn an_object_that_cannot_be_read_is_listed() {
    let root = tempfile::tempdir().expect("a directory");
    let open = |max_bytes| Directory::open(root.path(), max_bytes, false).expect("opened");
    let etag = open(u64::MAX).put("large", "123".into(), Condition::Absent).await.expect("written");
    let small = open(2).put("small", "1".into(), Condition::Absent).await.expect("written");
    let unreadable = root.path().join("objects").join("loop.json");
    std::os::unix::fs::symlink(&unreadable, &unreadable).expect("made");

    let listed = open(2).list("", None, 10).await.expect("listed").objects;
    let listed: Vec<_> = listed.iter().map(|object| (object.key.as_str(), object.etag.as_str())).collect();
    assert_eq!(listed, [("large", etag.as_str()), ("loop", UNREADABLE), ("small", small.as_str())]);
    assert!(matches!(open(2).get("loop").await, Err(Error::Io { .. })));
}

/// Each walk reads the whole directory.
#[tokio::test]
async fn all_later_pages_of_a_listing_come_from_one_walk() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let make = |name: &str| fs::write(directory.objects().join(name), "1").expect("made");
    (0..6).for_each(|number| make(&format!("k{number}.json")));
    let (mut listed, mut after) = (Vec::new(), None);
    for page in 1.. {
        let found = directory.list("", after, 1).await.expect("listed");
        listed.extend(found.objects.into_iter().map(|object| object.key));
        if page == 2 {
            // The second page's walk was before that: what is new is not listed, what is gone neither.
            make("k9.json");
            fs::remove_file(directory.objects().join("k4.json")).expect("removed");
        }
        after = found.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["k0", "k1", "k2", "k3", "k5"]);
    assert_eq!(directory.list("", None, 10).await.expect("listed").objects.len(), 6);
}

#[tokio::test]
async fn a_listing_has_all_objects_made_before_it_began_also_when_another_one_is_under_way() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let make = |name: &str| fs::write(directory.objects().join(name), "1").expect("made");
    (0..5).for_each(|number| make(&format!("k{number}.json")));
    let earlier = directory.list("", None, 1).await.expect("listed");
    // It keeps what it has found for the page after `k1`.
    directory.list("", earlier.next, 1).await.expect("listed");
    make("k9.json");
    let first = directory.list("", None, 2).await.expect("listed");
    assert_eq!(first.next.as_deref(), Some("k1"));
    let rest = directory.list("", first.next, 9).await.expect("listed");
    assert_eq!(rest.objects.last().map(|object| &*object.key), Some("k9"));
}

#[test]
fn a_listing_that_was_given_up_reads_no_further_objects() {
    let root = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(root.path(), u64::MAX, false).expect("opened");
    let path = directory.path("k").expect("a key");
    directory.write(&path, b"1", &Condition::Always, &AtomicBool::new(false)).expect("written");
    let page = |given_up| directory.page("", None, 10, &AtomicBool::new(given_up)).map(|page| page.objects.len());
    assert_eq!((page(false), page(true)), (Ok(1), Err(Error::Timeout)));
}

#[test]
fn a_file_that_another_process_is_writing_is_not_swept() {
    let root = tempfile::tempdir().expect("a directory");
    let open = || Directory::open(root.path(), u64::MAX, false).expect("opened");
    open();
    let incoming = root.path().join("incoming");
    for (name, age) in [("new", Duration::ZERO), ("left", 2 * LEFT_BEHIND)] {
        let file = File::create(incoming.join(name)).expect("a file");
        file.set_modified(SystemTime::now() - age).expect("an age");
    }
    open();
    let left: Vec<_> = fs::read_dir(incoming).expect("a directory").map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["new"]);
}

/// Each `DurableServer.Supervisor` of a VM opens a store of its own, and all of them write heartbeats at
/// the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn two_stores_of_one_process_on_one_directory_do_not_overwrite_each_others_files() {
    let root = tempfile::tempdir().expect("a directory");
    let open = || Directory::open(root.path(), u64::MAX, false).expect("opened");
    let stores = [open(), open()];
    for round in 0..100_u8 {
        let put = |number: u8| {
            let store = Arc::clone(&stores[usize::from(number)]);
            let body = Bytes::from(vec![number; 1_000 + usize::from(round)]);
            tokio::spawn(async move { store.put(&format!("k{number}"), body, Condition::Always).await })
        };
        let (one, other) = (put(0), put(1));
        one.await.expect("no panic").expect("written");
        other.await.expect("no panic").expect("written");
        for number in 0..2_u8 {
            let object = stores[0].get(&format!("k{number}")).await.expect("there");
            assert!(object.body.iter().all(|byte| *byte == number), "round {round}: k{number} holds another's body");
        }
    }
}
