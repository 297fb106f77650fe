//! Rules that break requests, and a record of all requests.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::{Kind, Request};

/// Requests that are remembered; older ones are forgotten first.
const REMEMBERED: usize = 100_000;

/// Selects requests and says what happens to them. The first rule that matches a request applies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// The kinds it applies to; empty for all.
    pub on: Vec<Kind>,
    /// A pattern of the decoded path, where `*` stands for anything. None for every path.
    pub key: Option<String>,
    /// How many matching requests pass first.
    pub skip: u64,
    /// Takes every n-th of the requests that match; 0 and 1 take all.
    pub every: u64,
    /// To how many requests it applies at most.
    pub times: Option<u64>,
    /// The rule ends this many milliseconds after it first applied.
    pub for_ms: Option<u64>,
    /// Only for a path with a successful write within this many milliseconds before.
    pub within_ms: Option<u64>,
    pub delay_ms: u64,
    /// Whether the request waits until [`Script::release`].
    pub hold: bool,
    /// Whether the server gets the request before `then`.
    pub applied: bool,
    /// Headers that are removed from the request.
    pub strip: Vec<String>,
    /// Headers that are removed from the response.
    pub strip_answer: Vec<String>,
    pub then: Then,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The server's answer.
    #[default]
    Pass,
    Answer {
        status: u16,
        #[serde(default)]
        headers: Vec<(String, String)>,
        #[serde(default)]
        body: String,
    },
    /// The end of the connection.
    Cut,
    /// Half of the server's answer, then the end of the connection.
    CutBody,
    /// No response: the connection stays open.
    Hang,
}

impl Rule {
    pub fn on(kind: Kind) -> Self {
        Self { on: vec![kind], ..Self::default() }
    }

    pub fn answer(self, status: u16, body: &str) -> Self {
        Self { then: Then::Answer { status, headers: Vec::new(), body: body.to_owned() }, ..self }
    }

    pub fn error(self, status: u16, code: &str) -> Self {
        self.answer(status, &format!("<Error><Code>{code}</Code></Error>"))
    }

    pub fn cut(self) -> Self {
        Self { then: Then::Cut, ..self }
    }

    /// Has the server apply the request first.
    pub fn applied(self) -> Self {
        Self { applied: true, ..self }
    }

    pub fn times(self, times: u64) -> Self {
        Self { times: Some(times), ..self }
    }

    fn selects(&self, kind: Kind, path: &str) -> bool {
        (self.on.is_empty() || self.on.contains(&kind))
            && self.key.as_deref().is_none_or(|pattern| matches(pattern, path))
    }
}

/// One request, as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub kind: Kind,
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The index of the rule that applied, from 0.
    pub rule: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests under way.
    pub open: u64,
    /// Requests that wait for [`Script::release`].
    pub held: u64,
    pub kinds: BTreeMap<Kind, u64>,
    /// Requests by rule, in the order of [`Script::set`].
    pub rules: Vec<u64>,
    /// Bytes of the bodies of requests.
    pub bytes_in: u64,
    /// Bytes of the bodies of answers.
    pub bytes_out: u64,
}

/// The rules of one server, and its counts and requests.
#[derive(Debug)]
pub struct Script {
    inner: Mutex<Inner>,
    released: Semaphore,
}

#[derive(Debug, Default)]
struct Inner {
    rules: Vec<Active>,
    seen: VecDeque<Seen>,
    counts: Counts,
    written: HashMap<String, Instant>,
}

#[derive(Debug)]
struct Active {
    rule: Rule,
    selected: u64,
    taken: u64,
    first: Option<Instant>,
}

impl Default for Script {
    fn default() -> Self {
        Self { inner: Mutex::default(), released: Semaphore::new(0) }
    }
}

impl Script {
    /// Replaces the rules. Requests that are under way keep theirs.
    pub fn set(&self, rules: Vec<Rule>) {
        let mut inner = self.inner();
        inner.counts.rules = vec![0; rules.len()];
        inner.rules = rules.into_iter().map(|rule| Active { rule, selected: 0, taken: 0, first: None }).collect();
    }

    /// Releases the next `count` requests that are held now or later.
    pub fn release(&self, count: u32) {
        self.released.add_permits(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS));
    }

    /// The requests since the last call of this function, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.inner().seen.drain(..).collect()
    }

    pub fn counts(&self) -> Counts {
        self.inner().counts.clone()
    }

    /// Notes a request that came in, and picks its rule.
    pub(crate) fn take(&self, kind: Kind, request: &Request) -> Option<Rule> {
        let path = request.path();
        let mut inner = self.inner();
        let written = inner.written.get(&path).map(Instant::elapsed);
        let taken = inner.rules.iter_mut().position(|active| active.take(kind, &path, written));
        if let Some(number) = taken {
            inner.counts.rules[number] += 1;
        }
        *inner.counts.kinds.entry(kind).or_default() += 1;
        inner.counts.bytes_in += request.body.len() as u64;
        if inner.seen.len() == REMEMBERED {
            inner.seen.pop_front();
        }
        inner.seen.push_back(seen(kind, request, taken));
        Some(inner.rules[taken?].rule.clone())
    }

    /// Notes an answer of the server's.
    pub(crate) fn answered(&self, kind: Kind, request: &Request, success: bool, bytes: u64) {
        let mut inner = self.inner();
        inner.counts.bytes_out += bytes;
        if kind.writes() && success && inner.rules.iter().any(|active| active.rule.within_ms.is_some()) {
            inner.written.insert(request.path(), Instant::now());
        }
    }

    /// Waits until the request is released.
    pub(crate) async fn hold(&self) {
        let _held = Counted::new(self, |counts| &mut counts.held);
        if let Ok(permit) = self.released.acquire().await {
            permit.forget();
        }
    }

    /// Counts a request as under way until the value is dropped.
    pub(crate) fn open(&self) -> impl Sized + Send + '_ {
        Counted::new(self, |counts| &mut counts.open)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Active {
    /// Whether the rule applies to this request; counts it.
    fn take(&mut self, kind: Kind, path: &str, written: Option<Duration>) -> bool {
        let rule = &self.rule;
        let millis = Duration::from_millis;
        if !rule.selects(kind, path)
            || rule.within_ms.is_some_and(|within| written.is_none_or(|ago| ago > millis(within)))
            || rule.times.is_some_and(|times| self.taken >= times)
            || self.first.is_some_and(|first| rule.for_ms.is_some_and(|lasts| first.elapsed() >= millis(lasts)))
        {
            return false;
        }
        self.selected += 1;
        if self.selected <= rule.skip || !(self.selected - rule.skip).is_multiple_of(rule.every.max(1)) {
            return false;
        }
        self.taken += 1;
        self.first.get_or_insert_with(Instant::now);
        true
    }
}

struct Counted<'a> {
    script: &'a Script,
    count: fn(&mut Counts) -> &mut u64,
}

impl<'a> Counted<'a> {
    fn new(script: &'a Script, count: fn(&mut Counts) -> &mut u64) -> Self {
        *count(&mut script.inner().counts) += 1;
        Self { script, count }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        *(self.count)(&mut self.script.inner().counts) -= 1;
    }
}

fn seen(kind: Kind, request: &Request, rule: Option<usize>) -> Seen {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Seen {
        kind,
        method: request.method.to_string(),
        path: request.uri.to_string(),
        headers: request.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        rule,
    }
}

/// Whether `text` matches `pattern`, in which `*` matches any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    text.char_indices().map(|(at, _)| at).chain([text.len()]).any(|at| matches(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hyper::{HeaderMap, Method};

    fn get(path: &str) -> Request {
        let uri = path.parse().expect("a path");
        Request { method: Method::GET, uri, headers: HeaderMap::new(), body: Bytes::new() }
    }

    fn taken(script: &Script, path: &str) -> Option<Then> {
        let request = get(path);
        script.take(Kind::of(&request), &request).map(|rule| rule.then)
    }

    #[test]
    fn a_pattern_without_a_star_is_the_whole_path() {
        assert!(matches("/b/k", "/b/k") && !matches("/b/k", "/b/k2") && !matches("/b/k", "/a/b/k"));
        assert!(matches("*/k", "/b/x/k") && matches("/b/*/k*", "/b/x/y/k1") && matches("*", ""));
        assert!(!matches("/b/*/k", "/b/k") && !matches("*ü", "/b/u"));
    }

    #[test]
    fn a_rule_that_is_used_up_leaves_the_request_to_the_next() {
        let script = Script::default();
        script.set(vec![Rule::on(Kind::Get).times(1).cut(), Rule::on(Kind::Get).times(1).answer(500, "")]);
        assert_eq!(taken(&script, "/b/k"), Some(Then::Cut));
        assert!(matches!(taken(&script, "/b/k"), Some(Then::Answer { status: 500, .. })));
        assert_eq!(taken(&script, "/b/k"), None);
        assert_eq!(script.counts().rules, [1, 1]);
        assert_eq!(script.requests().iter().map(|seen| seen.rule).collect::<Vec<_>>(), [Some(0), Some(1), None]);
    }

    #[test]
    fn skip_and_every_count_only_what_the_rule_selects() {
        let script = Script::default();
        script.set(vec![Rule { skip: 1, every: 2, key: Some("/b/k".into()), ..Rule::on(Kind::Get).cut() }]);
        let asked = ["/b/k", "/b/other", "/b/k", "/b/k", "/b/k", "/b/k"];
        let cut: Vec<_> = asked.iter().map(|path| taken(&script, path).is_some()).collect();
        assert_eq!(cut, [false, false, false, true, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rule_ends_some_time_after_it_was_first_taken() {
        let script = Script::default();
        script.set(vec![Rule { for_ms: Some(3_000), ..Rule::on(Kind::Get).cut() }]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(taken(&script, "/b/k").is_some());
        tokio::time::advance(Duration::from_millis(2_999)).await;
        assert!(taken(&script, "/b/k").is_some());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(taken(&script, "/b/k").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn within_counts_from_the_last_write_that_succeeded() {
        let script = Script::default();
        script.set(vec![Rule { within_ms: Some(1_000), ..Rule::default().cut() }]);
        let wrote = |success| script.answered(Kind::Put, &get("/b/k"), success, 0);
        wrote(false);
        assert!(taken(&script, "/b/k").is_none());
        wrote(true);
        assert!(taken(&script, "/b/k").is_some() && taken(&script, "/b/other").is_none());
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert!(taken(&script, "/b/k").is_none());
    }

    #[test]
    fn a_misspelt_field_of_a_rule_is_an_error() {
        assert!(serde_json::from_str::<Rule>(r#"{"on":["put"],"then":"cut"}"#).is_ok());
        assert!(serde_json::from_str::<Rule>(r#"{"onn":["put"],"then":"cut"}"#).is_err());
    }
}
