//! Resolves host names with the system's resolver.
//!
//! Guarantee: a look-up cannot be cancelled, and one that hangs (its DNS server is dead or hostile) keeps a
//! thread. So callers wait at most [`ANSWER`], callers that ask for the same host share one look-up, and at
//! most [`AT_ONCE`] look-ups have a thread. An IP address needs no look-up.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// The most addresses or records that are used of one DNS answer.
pub(super) const LONGEST: usize = 256;
/// How long a caller waits. The system's resolver tries each server twice for five seconds. A caller that
/// asks again meanwhile joins the same look-up.
const ANSWER: Duration = Duration::from_secs(5);
/// The most look-ups at a time, far fewer than the runtime's threads for blocking work.
const AT_ONCE: usize = 64;

/// Each caller gets a copy of the error.
type Answer = Result<Vec<IpAddr>, (io::ErrorKind, String)>;
type UnderWay = Mutex<BTreeMap<String, watch::Receiver<Option<Answer>>>>;

type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// The addresses of a host, of both families; at least one. The error is that of the system's resolver, or
/// `TimedOut` when it does not answer in time.
pub(super) async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    static SYSTEM: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(AT_ONCE, ANSWER, system));
    SYSTEM.resolve(host).await
}

fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in (host, 0).to_socket_addrs()?.map(|address| address.ip()) {
        if addresses.len() == LONGEST {
            break;
        }
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(addresses) }
}

struct Resolver {
    look_up: Arc<LookUp>,
    limit: Duration,
    threads: Arc<Semaphore>,
    under_way: Arc<UnderWay>,
}

impl Resolver {
    fn new(
        at_once: usize,
        limit: Duration,
        look_up: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        let threads = Arc::new(Semaphore::new(at_once));
        Resolver { look_up: Arc::new(look_up), limit, threads, under_way: Arc::default() }
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let mut answer = self.join_or_begin(host);
        let answered = match timeout(self.limit, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) => answer.clone(),
            // The sender was dropped: no thread was free for the look-up.
            Ok(Err(_closed)) => None,
            Err(_late) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the system's resolver does not answer")),
        };
        let no_thread = || (io::ErrorKind::TimedOut, "earlier look-ups of other hosts have not ended".to_owned());
        answered.unwrap_or_else(|| Err(no_thread())).map_err(|(kind, text)| io::Error::new(kind, text))
    }

    fn join_or_begin(&self, host: &str) -> watch::Receiver<Option<Answer>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = under_way.get(host) {
            return answer.clone();
        }
        let (sender, answer) = watch::channel(None);
        under_way.insert(host.to_owned(), answer.clone());
        let listed = Listed { host: host.to_owned(), under_way: Arc::clone(&self.under_way) };
        let (look_up, threads, limit) = (Arc::clone(&self.look_up), Arc::clone(&self.threads), self.limit);
        tokio::spawn(async move {
            let Ok(Ok(thread)) = timeout(limit, threads.acquire_owned()).await else { return };
            tokio::task::spawn_blocking(move || {
                let found = look_up(&listed.host).map_err(|error| (error.kind(), error.to_string()));
                // A caller that asks from now on starts a new look-up, which may have another result.
                drop(listed);
                drop(thread);
                sender.send_replace(Some(found));
            });
        });
        answer
    }
}

/// A look-up in progress. It leaves the list when it ends, also when the runtime ends first.
struct Listed {
    host: String,
    under_way: Arc<UnderWay>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.host);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A resolver whose look-ups end when the gate is dropped. The receiver gets one value per look-up that
    /// has begun.
    fn gated(at_once: usize, limit: Duration) -> (Resolver, std::sync::mpsc::Sender<()>, UnboundedReceiver<String>) {
        let (gate, closed) = std::sync::mpsc::channel::<()>();
        let (begun, looked_up) = unbounded_channel();
        let closed = Mutex::new(closed);
        let resolver = Resolver::new(at_once, limit, move |host| {
            let _over = begun.send(host.to_owned());
            // Several look-ups wait here in turn. All of them notice that the gate was dropped.
            let _closed = closed.lock().expect("none panics").recv();
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        });
        (resolver, gate, looked_up)
    }

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(120);

    #[tokio::test]
    async fn a_look_up_that_hangs_uses_one_thread_and_delays_no_caller_beyond_the_limit() {
        let (resolver, gate, mut begun) = gated(2, SHORT);
        for _ in 0..3 {
            let error = resolver.resolve("dead.internal").await.expect_err("it hangs");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        assert_eq!(begun.recv().await.as_deref(), Some("dead.internal"));
        assert!(begun.try_recv().is_err(), "one look-up");
        let resolver = Resolver { limit: LONG, ..resolver };
        let joined = resolver.resolve("dead.internal");
        tokio::pin!(joined);
        assert!(timeout(SHORT, &mut joined).await.is_err(), "it waits for that one");
        drop(gate);
        assert_eq!(joined.await.expect("an answer"), [Ipv4Addr::LOCALHOST]);
        assert!(begun.try_recv().is_err(), "one look-up");
    }

    #[tokio::test]
    async fn look_ups_that_hang_do_not_block_ip_addresses_and_other_hosts_get_an_error() {
        let (resolver, gate, mut begun) = gated(2, SHORT);
        for host in ["first.internal", "second.internal"] {
            assert!(resolver.resolve(host).await.is_err(), "it hangs");
            assert_eq!(begun.recv().await.as_deref(), Some(host));
        }
        let error = resolver.resolve("third.internal").await.expect_err("there is no thread for it");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(resolver.resolve("::1").await.expect("an address"), ["::1".parse::<IpAddr>().expect("one")]);
        assert!(begun.try_recv().is_err(), "no third look-up");
        drop(gate);
        let resolver = Resolver { limit: LONG, ..resolver };
        assert_eq!(resolver.resolve("fourth.internal").await.expect("there are threads again"), [Ipv4Addr::LOCALHOST]);
    }

    #[tokio::test]
    async fn a_host_without_an_address_is_an_error_and_is_looked_up_again() {
        let (count, mut counted) = unbounded_channel();
        let resolver = Resolver::new(1, LONG, move |_host| {
            count.send(()).expect("the test goes on");
            Err(io::ErrorKind::NotFound.into())
        });
        for _ in 0..2 {
            assert_eq!(resolver.resolve("h").await.expect_err("none").kind(), io::ErrorKind::NotFound);
            assert!(counted.try_recv().is_ok());
        }
    }

    #[tokio::test]
    async fn localhost_is_resolved_by_the_system() {
        assert!(resolve("localhost").await.expect("it has addresses").iter().all(IpAddr::is_loopback));
    }
}
