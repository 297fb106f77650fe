//! S3 in memory: conditional writes and deletions, reads, listings version 2. Correct unless it is given flaws.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::Flaw;
use crate::bucket::{BUCKET, Bucket, MODIFIED, Object};
use crate::http::{Answer, Request};

/// How long a write that has checked its condition waits for another one, so that both check before either writes.
const LONGEST_RACE: Duration = Duration::from_secs(2);

type Refusal = (StatusCode, &'static str);

#[derive(Debug, Default)]
pub(crate) struct S3 {
    flaws: BTreeSet<Flaw>,
    contents: Mutex<Contents>,
    races: Mutex<HashMap<String, Arc<Notify>>>,
}

#[derive(Debug, Default)]
struct Contents {
    bucket: Bucket,
    /// The versions before the last, with [`Flaw::StaleReads`].
    stale: HashMap<String, Object>,
    /// When each key was written, with [`Flaw::OneWritePerSecond`].
    written: HashMap<String, Instant>,
}

impl S3 {
    pub(crate) fn new(flaws: BTreeSet<Flaw>) -> Self {
        Self { flaws, ..Self::default() }
    }

    pub(crate) async fn answer(&self, request: &Request) -> Answer {
        if self.has(Flaw::WebPage) {
            return Answer::new(StatusCode::OK).with_body("text/html", "<html><title>Log in</title></html>");
        }
        self.try_answer(request).await.unwrap_or_else(|(status, code)| Answer::error(status, code))
    }

    async fn try_answer(&self, request: &Request) -> Result<Answer, Refusal> {
        if self.has(Flaw::ClockSkewed) {
            return Err((StatusCode::FORBIDDEN, "RequestTimeTooSkewed"));
        }
        let (name, key) = request.bucket_and_key();
        if name != BUCKET || self.has(Flaw::NoBucket) {
            return Err((StatusCode::NOT_FOUND, "NoSuchBucket"));
        }
        match request.method {
            Method::GET if key.is_empty() => Ok(self.list(request)),
            Method::GET | Method::HEAD => self.read(&key),
            Method::PUT | Method::DELETE if self.has(Flaw::ReadOnly) => Err((StatusCode::FORBIDDEN, "AccessDenied")),
            Method::PUT => self.write(key, request).await,
            Method::DELETE => self.delete(&key, request).await,
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        }
    }

    fn list(&self, request: &Request) -> Answer {
        let prefix = request.query("prefix").filter(|_| !self.has(Flaw::ListingIgnoresPrefix)).unwrap_or_default();
        self.contents().bucket.list(request, &prefix, |etag| self.show(etag))
    }

    fn read(&self, key: &str) -> Result<Answer, Refusal> {
        let contents = self.contents();
        let current = contents.bucket.objects.get(key).ok_or((StatusCode::NOT_FOUND, "NoSuchKey"))?;
        let object = contents.stale.get(key).unwrap_or(current);
        let answer = Answer::new(StatusCode::OK).with_body("application/json", object.body.clone());
        let answer = if self.has(Flaw::WeakEtagsOfReads) {
            answer.with_header("etag", &format!("W/\"{}\"", object.etag))
        } else {
            self.describe(answer, object)
        };
        Ok(answer.with_header("last-modified", MODIFIED))
    }

    async fn write(&self, key: String, request: &Request) -> Result<Answer, Refusal> {
        let condition = self.condition(request, false)?;
        self.pace(&key)?;
        if self.has(Flaw::NotAtomic) && condition != Condition::None {
            self.check(&self.contents(), &key, condition)?;
            self.race(&key).await;
            return Ok(self.put(&mut self.contents(), key, request));
        }
        let mut contents = self.contents();
        self.check(&contents, &key, condition)?;
        self.finish_race(&key);
        Ok(self.put(&mut contents, key, request))
    }

    fn put(&self, contents: &mut Contents, key: String, request: &Request) -> Answer {
        if self.has(Flaw::StaleReads)
            && let Some(before) = contents.bucket.objects.get(&key)
        {
            contents.stale.insert(key.clone(), before.clone());
        }
        let object = contents.bucket.insert(key, request.body.clone());
        self.describe(Answer::new(StatusCode::OK), &object)
    }

    async fn delete(&self, key: &str, request: &Request) -> Result<Answer, Refusal> {
        let condition = self.condition(request, true)?;
        self.check(&self.contents(), key, condition)?;
        if self.has(Flaw::DeletionNotAtomic) && condition != Condition::None {
            self.race(key).await;
        }
        let mut contents = self.contents();
        if !self.has(Flaw::DeletionNotAtomic) {
            self.check(&contents, key, condition)?;
        }
        contents.bucket.objects.remove(key);
        contents.stale.remove(key);
        Ok(Answer::new(StatusCode::NO_CONTENT))
    }

    /// The parts of the request's condition that this server checks.
    fn condition<'a>(&self, request: &'a Request, deletes: bool) -> Result<Condition<'a>, Refusal> {
        let (if_match, if_none_match) = (request.header("if-match"), request.header("if-none-match"));
        if self.has(Flaw::RefusesConditions) && (if_match.is_some() || if_none_match.is_some()) {
            return Err((StatusCode::NOT_IMPLEMENTED, "NotImplemented"));
        }
        if self.has(Flaw::IgnoresConditions) || (deletes && self.has(Flaw::DeletionIgnoresConditions)) {
            return Ok(Condition::None);
        }
        Ok(match (if_match, if_none_match) {
            (Some(etag), _) if !self.has(Flaw::IgnoresIfMatch) => Condition::Etag(etag),
            (_, Some(_any)) if !self.has(Flaw::IgnoresIfNoneMatch) => Condition::Absent,
            _ => Condition::None,
        })
    }

    /// S3 answers 404 where there is nothing to match.
    fn check(&self, contents: &Contents, key: &str, condition: Condition<'_>) -> Result<(), Refusal> {
        match (condition, contents.bucket.objects.get(key)) {
            (Condition::None, _) | (Condition::Absent, None) => Ok(()),
            (Condition::Etag(_etag), None) => Err((StatusCode::NOT_FOUND, "NoSuchKey")),
            (Condition::Etag(etag), Some(object)) if self.matches(etag, &object.etag) => Ok(()),
            _ => Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed")),
        }
    }

    fn matches(&self, sent: &str, etag: &str) -> bool {
        let quoted = format!("\"{etag}\"");
        if self.has(Flaw::WeakEtags) {
            return false;
        }
        if self.has(Flaw::EtagsWithQuotesOnly) {
            return sent == quoted;
        }
        sent == etag || (sent == quoted && !self.has(Flaw::EtagsWithoutQuotesOnly))
    }

    fn describe(&self, answer: Answer, object: &Object) -> Answer {
        if self.has(Flaw::NoEtags) { answer } else { answer.with_header("etag", &self.show(&object.etag)) }
    }

    fn show(&self, etag: &str) -> String {
        if self.has(Flaw::WeakEtags) {
            format!("W/\"{etag}\"")
        } else if self.has(Flaw::EtagsWithQuotesOnly) {
            etag.to_owned()
        } else {
            format!("\"{etag}\"")
        }
    }

    fn pace(&self, key: &str) -> Result<(), Refusal> {
        if !self.has(Flaw::OneWritePerSecond) {
            return Ok(());
        }
        let mut contents = self.contents();
        let now = Instant::now();
        if contents.written.get(key).is_some_and(|before| now - *before < Duration::from_secs(1)) {
            return Err((StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"));
        }
        contents.written.insert(key.to_owned(), now);
        Ok(())
    }

    /// Returns when another request for the key has come this far too, at the latest after [`LONGEST_RACE`].
    async fn race(&self, key: &str) {
        if self.finish_race(key) {
            return;
        }
        let arrived = Arc::new(Notify::new());
        self.races().insert(key.to_owned(), Arc::clone(&arrived));
        let _at_the_latest = tokio::time::timeout(LONGEST_RACE, arrived.notified()).await;
        let mut races = self.races();
        if races.get(key).is_some_and(|waiting| Arc::ptr_eq(waiting, &arrived)) {
            races.remove(key);
        }
    }

    /// Releases the request for this key that waits for a second one. Returns whether one was waiting.
    fn finish_race(&self, key: &str) -> bool {
        let waiting = self.races().remove(key);
        waiting.inspect(|waiting| waiting.notify_one()).is_some()
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaws.contains(&flaw)
    }

    fn contents(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn races(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.races.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    None,
    Absent,
    Etag(&'a str),
}
