//! Requests to services for credentials (metadata services, STS, token endpoints). Their responses are kept apart
//! from those of the store: a 404 of such a service must not look like a missing object.
//!
//! Guarantees
//! - An exchange for credentials that fails is [`Error::Credentials`] when it may work later, else [`Error::Denied`] with the
//!   cause, whatever the request was.
//! - One exchange at a time. Requests use the credentials given before meanwhile; if there are none, they wait for the
//!   exchange and share its failure.
//! - Credentials whose renewal fails are used until the store refuses them: a renewal begins minutes before they expire.
//! - Credentials that the store refuses are replaced once, however many requests were sent with them.
//! - An exchange ends after [`PATIENCE`], or half of what one sending of a request may take.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use tokio::time::Instant;

use super::wire::{Exchange, Failure, Role, Seen};
use crate::Error;

const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after a failed renewal, in which requests do not wait for another one.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// Responses of services for credentials that are worth a retry: status, code (empty: any), and source. All
/// others are final.
const PASSING: &[(u16, u16, &str, &str)] = &[
    (400, 400, "IDPCommunicationError", "AWS STS: AssumeRoleWithWebIdentity, errors; may be retried"),
    (400, 400, "Throttling", "AWS SDKs: throttling error codes"),
    (400, 400, "ThrottlingException", "AWS SDKs: throttling error codes"),
    (400, 400, "temporarily_unavailable", "RFC 6749, 4.1.2.1; Microsoft Entra error codes"),
    (408, 408, "", "RFC 9110"),
    (410, 410, "", "Azure metadata service: being updated, available within 70 seconds"),
    (425, 425, "", "RFC 9110"),
    (429, 429, "", "AWS, Azure and Google metadata services: throttled"),
    (500, 599, "", "AWS, Azure and Google: retry with backoff"),
];

/// A provider of credentials whose failures are distinguished from the store's.
pub(super) struct Credentials<T: 'static> {
    current: Mutex<Current<T>>,
    make: Make<T>,
    patience: Duration,
    /// Whether the service has given credentials before. Then a failing service is expected to recover.
    had: AtomicBool,
    failed: tokio::sync::Mutex<Option<(Instant, Failure)>>,
}

/// A provider, when it was built, and the credentials that it gave last.
struct Current<T: 'static> {
    provider: Provider<T>,
    built: Instant,
    given: Option<Arc<T>>,
}

pub(super) type Provider<T> = Arc<dyn CredentialProvider<Credential = T>>;
type Make<T> = Box<dyn Fn() -> object_store::Result<Provider<T>> + Send + Sync>;

/// Makes the next request use other credentials than one that was refused.
pub(super) trait Refresh: Send + Sync {
    /// `started` is when the refused request was begun. False when there are no others.
    fn refresh(&self, started: Instant) -> bool;
}

impl<T> Credentials<T> {
    /// `make` builds `provider` again, without its cached credentials.
    pub(super) fn new(
        provider: Provider<T>,
        make: impl Fn() -> object_store::Result<Provider<T>> + Send + Sync + 'static,
        attempt_timeout: Duration,
    ) -> Self {
        Self {
            current: Mutex::new(Current { provider, built: Instant::now(), given: None }),
            make: Box::new(make),
            patience: PATIENCE.min(attempt_timeout / 2),
            had: AtomicBool::new(false),
            failed: Default::default(),
        }
    }

    fn current(&self) -> MutexGuard<'_, Current<T>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what `provider` gave, unless it was replaced meanwhile.
    fn keep(&self, provider: &Provider<T>, credential: &Arc<T>) {
        let mut current = self.current();
        if Arc::ptr_eq(&current.provider, provider) {
            current.given = Some(Arc::clone(credential));
        }
    }

    /// What is used instead of credentials that cannot be fetched for now.
    fn instead(&self, failure: &Failure) -> Option<Arc<T>> {
        self.current().given.clone().filter(|_given| failure.passes)
    }
}

impl<T> fmt::Debug for Credentials<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl<T: Send + Sync> Refresh for Credentials<T> {
    fn refresh(&self, started: Instant) -> bool {
        let mut current = self.current();
        // Another request that was refused has done it.
        if current.built > started {
            return true;
        }
        let Ok(provider) = (self.make)() else { return false };
        *current = Current { provider, built: Instant::now(), given: None };
        true
    }
}

#[async_trait]
impl<T: Send + Sync> CredentialProvider for Credentials<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        let asked = Instant::now();
        let mut failed = match self.failed.try_lock() {
            Ok(failed) => failed,
            Err(_in_exchange) => {
                let given = self.current().given.clone();
                if let Some(given) = given {
                    return Ok(given);
                }
                self.failed.lock().await
            }
        };
        if let Some((at, failure)) = &*failed {
            match self.instead(failure) {
                Some(given) if at.elapsed() < RENEWAL_PAUSE => return Ok(given),
                None if *at >= asked => return Err(without(failure.clone())),
                _ => {}
            }
        }
        let exchange = Exchange { role: Role::Credentials, ..Exchange::default() };
        let provider = Arc::clone(&self.current().provider);
        let fetched = tokio::time::timeout(self.patience, exchange.run(provider.get_credential())).await;
        let failure = match fetched {
            Ok((Ok(credential), _seen)) => {
                self.had.store(true, Ordering::Relaxed);
                self.keep(&provider, &credential);
                *failed = None;
                return Ok(credential);
            }
            Ok((Err(_error), seen)) => failure(seen, self.had.load(Ordering::Relaxed)),
            Err(_elapsed) => Failure {
                status: 0,
                code: String::new(),
                reason: "the service for credentials does not answer".to_owned(),
                passes: true,
            },
        };
        *failed = Some((Instant::now(), failure.clone()));
        self.instead(&failure).ok_or_else(|| without(failure))
    }
}

fn without(failure: Failure) -> object_store::Error {
    let source = failure.reason.clone().into();
    Exchange::without_credentials(failure);
    object_store::Error::Generic { store: "credentials", source }
}

fn failure(seen: Seen, had: bool) -> Failure {
    let place = seen.uri.as_ref().and_then(|uri| uri.host()).unwrap_or("the service for credentials").to_owned();
    match (seen.status, seen.lost) {
        (_, Some(lost)) => Failure {
            status: 0,
            code: "NoCredentials".to_owned(),
            reason: if had {
                format!("{place} cannot be reached: {}", lost.reason)
            } else {
                format!(
                    "no credentials were given, and {place}, which could give some, cannot be reached: {}",
                    lost.reason
                )
            },
            passes: had,
        },
        (Some(status), None) if status < 300 => Failure {
            status,
            code: "UnusableCredentials".to_owned(),
            reason: format!("the answer of {place} has no credentials"),
            passes: had,
        },
        (Some(status), None) => {
            let passes = PASSING.iter().any(|(first, last, code, _source)| {
                (*first..=*last).contains(&status) && (code.is_empty() || *code == seen.code)
            });
            let hint = if status == 404 { ": no role is attached to this machine" } else { "" };
            let code = if seen.code.is_empty() { "NoCredentials".to_owned() } else { seen.code };
            let reason = format!("{place} gives no credentials (status {status}, code {code}){hint}");
            Failure { status, code, reason, passes }
        }
        (None, None) => Failure {
            status: 0,
            code: "UnusableCredentials".to_owned(),
            reason: "the credentials that were given, or the file that should hold them, cannot be used".to_owned(),
            passes: false,
        },
    }
}

impl From<Failure> for Error {
    /// The store has not answered: its status is 0.
    fn from(failure: Failure) -> Self {
        let Failure { status, code, reason, passes } = failure;
        if passes {
            Self::Credentials { status, reason }
        } else {
            Self::Denied { status: 0, code, reason, expired: false }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Poll;

    /// Answers once.
    #[derive(Debug, Default)]
    struct Silent(AtomicBool);

    #[async_trait]
    impl CredentialProvider for Silent {
        type Credential = &'static str;

        async fn get_credential(&self) -> object_store::Result<Arc<&'static str>> {
            if self.0.swap(true, Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(Arc::new("given"))
        }
    }

    /// Otherwise a service that hangs makes the heartbeats of a node late.
    #[tokio::test]
    async fn no_request_waits_for_the_renewal_of_another_one() {
        let provider: Provider<&'static str> = Arc::new(Silent::default());
        let credentials = Credentials::new(Arc::clone(&provider), move || Ok(Arc::clone(&provider)), PATIENCE);
        assert_eq!(*credentials.get_credential().await.unwrap(), "given");
        let (mut renews, mut other) = (credentials.get_credential(), credentials.get_credential());
        std::future::poll_fn(|cx| {
            assert!(renews.as_mut().poll(cx).is_pending());
            let given = other.as_mut().poll(cx).map(|given| given.ok().as_deref().copied());
            assert_eq!(given, Poll::Ready(Some("given")));
            Poll::Ready(())
        })
        .await;
    }
}
